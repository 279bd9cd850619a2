//! What a loop opens: listening and datagram sockets, and connections out.

use std::io;
use std::sync::Arc;

use omnipoll::{ConnectOptions, EventLoop};
use pyo3::prelude::*;

use super::handler::LoopHandler;
use super::loop_core::LoopCore;
use super::members::OUTGOING;
use crate::connection::PyConnection;
use crate::convert::error;
use crate::current;

impl LoopCore {
    /// Opens a socket of this handler's and with this token.
    pub(super) fn open_socket<R>(
        &self,
        py: Python<'_>,
        handler: Option<&Bound<'_, PyAny>>,
        token: Option<Py<PyAny>>,
        open: impl FnOnce(&mut EventLoop<LoopHandler>, u64) -> io::Result<R>,
    ) -> PyResult<R> {
        self.check_thread()?;
        let methods = self.shared.methods(handler)?;
        let mut event_loop = self.take(py)?;
        let number = self.shared.add_listener(py, methods, token.unwrap_or_else(|| py.None()));
        let opened = open(&mut event_loop, number);
        if opened.is_err() {
            self.shared.forget_listener(py);
        }
        self.put_back(py, event_loop);
        opened.map_err(error)
    }

    /// Begins to connect, in a call of the loop's or outside of them.
    pub(super) fn connect(
        self: &Arc<Self>,
        py: Python<'_>,
        address: &str,
        options: &ConnectOptions,
        handler: Option<&Bound<'_, PyAny>>,
        token: Py<PyAny>,
    ) -> PyResult<Py<PyConnection>> {
        self.check_thread()?;
        let methods = self.shared.methods(handler)?;
        let key = self.shared.members.borrow(py).reserve();
        let number = OUTGOING + key as u64;
        let in_call = current::event_loop(self.shared.as_owner(), |event_loop| {
            event_loop.connect(address, options, number)
        });
        let connected = match in_call {
            Some(connected) => Ok(connected),
            None => self.with(py, |event_loop| event_loop.connect(address, options, number)),
        };
        let made = connected.and_then(|id| {
            let id = id.map_err(error)?;
            Py::new(py, PyConnection::outgoing(py, id, 0, token, self.clone()))
        });
        let mut members = self.shared.members.borrow(py);
        match &made {
            Ok(connection) => members.set(key, connection.clone_ref(py), methods),
            Err(_) => _ = members.remove(key),
        }
        made
    }
}
