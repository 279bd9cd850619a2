//! What a loop opens: listening and datagram sockets, and connections out.

use std::io;
use std::sync::Arc;

use omnipoll::{ConnectOptions, LoopRef};
use pyo3::prelude::*;

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
        open: impl FnOnce(u64) -> PyResult<io::Result<R>>,
    ) -> PyResult<R> {
        let methods = self.shared.methods(handler)?;
        let number = self.shared.add_listener(py, methods, token.unwrap_or_else(|| py.None()));
        let opened = open(number).and_then(|opened| opened.map_err(error));
        if opened.is_err() {
            self.shared.forget_listener(py);
        }
        opened
    }

    /// Acts on the core's loop, in a call of its own or outside of them.
    pub(super) fn here<R>(&self, py: Python<'_>, act: impl FnOnce(&mut LoopRef<'_>) -> R) -> PyResult<R> {
        self.check_thread()?;
        let mut act = Some(act);
        let mut once = |event_loop: &mut LoopRef<'_>| act.take().map(|act| act(event_loop));
        match current::event_loop(self.shared.as_owner(), &mut once) {
            Some(done) => Ok(done),
            None => self.with(py, |event_loop| once(&mut event_loop.loop_ref())),
        }
        .map(|done| done.expect("it was done once"))
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
        let connected = self.here(py, |event_loop| event_loop.connect(address, options, number));
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
