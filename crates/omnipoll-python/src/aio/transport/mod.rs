//! The transports: what carries bytes and datagrams between a loop's sockets and their protocols.
//!
//! They do what the standard library's selector transports do, in the same order and with the same words
//! in what they report. Input and output are tried in the poll's own turn; what a socket doesn't take is
//! queued by reference.

mod calls;
mod class;
mod datagram;
mod ending;
mod flow;
mod info;
mod reading;
mod stream;
mod write_queue;
mod writing;

use pyo3::prelude::*;

pub(crate) use self::class::Transport;
pub(crate) use self::datagram::DatagramTransport;
pub(crate) use self::stream::StreamTransport;

/// Gives the classes the methods that are called without a tuple for their arguments.
pub(super) fn install(py: Python<'_>) -> PyResult<()> {
    stream::install(py)?;
    datagram::install(py)
}
