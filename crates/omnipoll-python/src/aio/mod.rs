//! The native half of the asyncio loop: what is called often. What is called once for a connection or a
//! program is the standard library's own code, which `omnipoll.aio.EventLoop` inherits.
//!
//! There is one lock, the interpreter's: what other threads hand over is put where the loop's own thread
//! puts it, and no cell stays borrowed while Python runs.

mod accepted;
mod accepting;
mod address;
mod arguments;
mod context;
mod entry;
mod futures;
mod handle;
mod loop_class;
mod loop_methods;
mod readers;
mod report;
mod running;
mod scheduling;
mod socket;
mod socket_attempt;
mod socket_calls;
mod streams;
mod timers;
mod tls;
mod transport;
mod turn;
mod vectorcall;
mod view;
mod watched;

use pyo3::prelude::*;

pub(crate) use self::accepted::AcceptedSocket;
pub(crate) use self::accepting::Acceptor;
pub(crate) use self::handle::{Handle, TimerHandle};
pub(crate) use self::loop_class::AsyncioLoop;
pub(crate) use self::streams::_install_streams;
pub(crate) use self::tls::{Tls, TlsBuffer};
pub(crate) use self::transport::{DatagramTransport, StreamTransport, Transport};

/// Gives the class the methods that are called without a tuple for their arguments.
pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    futures::install(py)?;
    handle::install(py)?;
    scheduling::install(py)?;
    readers::install(py)?;
    tls::install(py)?;
    transport::install(py)
}
