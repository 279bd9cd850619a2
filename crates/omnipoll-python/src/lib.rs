//! The native half of the Python package `omnipoll`: the module `omnipoll._native`.
//!
//! Nothing but translation. The core knows 64-bit tokens; here a token leads to a Python object
//! (`table`, `sources`), a wait to a list (`wait`), an errno to an exception (`convert`).

mod address;
mod aio;
mod bytes;
mod connection;
mod convert;
mod current;
mod datagram;
mod datagram_socket;
mod ending;
mod event;
mod event_loop;
mod fastcall;
mod finalization;
mod forking;
mod gil_cell;
mod handler;
mod init_cell;
mod inspect;
mod keywords;
mod list_builder;
mod log;
mod methods;
mod poller;
mod poller_core;
mod scoped_ref;
mod selector;
mod server;
mod server_steps;
mod signals;
mod sources;
mod state;
mod statistics;
mod strict;
mod table;
mod thread_cell;
mod wait;
mod waits;
mod worker;

use pyo3::prelude::*;

/// The native half of omnipoll.
#[pymodule(gil_used = true)]
mod _native {
    use super::*;
    use omnipoll::Capabilities;

    #[pymodule_export]
    use aio::_install_streams;
    #[pymodule_export]
    use aio::AcceptedSocket;
    #[pymodule_export]
    use aio::Acceptor;
    #[pymodule_export]
    use aio::AsyncioLoop;
    #[pymodule_export]
    use aio::DatagramTransport;
    #[pymodule_export]
    use aio::Handle;
    #[pymodule_export]
    use aio::StreamTransport;
    #[pymodule_export]
    use aio::TimerHandle;
    #[pymodule_export]
    use aio::Tls;
    #[pymodule_export]
    use aio::TlsBuffer;
    #[pymodule_export]
    use aio::Transport;
    #[pymodule_export]
    use connection::PyConnection;
    #[pymodule_export]
    use convert::_engine_features;
    #[pymodule_export]
    use datagram::PyDatagram;
    #[pymodule_export]
    use datagram_socket::PyDatagramSocket;
    #[pymodule_export]
    use event::PyEvent;
    #[pymodule_export]
    use event_loop::PyLoop;
    #[pymodule_export]
    use event_loop::PyLoopEvent;
    #[pymodule_export]
    use inspect::PyRegistered;
    #[pymodule_export]
    use inspect::PyStats;
    #[pymodule_export]
    use poller::PyPoller;
    #[pymodule_export]
    use selector::Selector;
    #[pymodule_export]
    use server::PyServer;
    #[pymodule_export]
    use statistics::PyServerStats;
    #[pymodule_export]
    use statistics::PyWorkerStats;
    #[pymodule_export]
    use strict::PyFinding;
    #[pymodule_export]
    use strict::StrictWarning;
    #[pymodule_export]
    use worker::PyWorker;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        forking::observe();
        signals::observe();
        fastcall::install::<PyPoller, 2>(module.py())?;
        fastcall::install::<Selector, 1>(module.py())?;
        fastcall::install::<PyConnection, 1>(module.py())?;
        aio::install(module.py())?;
        for (name, bit) in event::FLAGS {
            module.add(name, bit)?;
        }
        for (name, kind) in event::KINDS {
            module.add(name, kind as u32)?;
        }
        for (name, kind) in event_loop::KINDS {
            module.add(name, kind as u32)?;
        }
        module.add("REPORTS_HANGUP", Capabilities::REPORTS_HANGUP.bits())?;
        module.add("REPORTS_READ_CLOSED", Capabilities::REPORTS_READ_CLOSED.bits())?;
        module.add("NATIVE_EDGE", Capabilities::NATIVE_EDGE.bits())?;
        module.add("HAS_EXCLUSIVE", Capabilities::HAS_EXCLUSIVE.bits())?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
