//! How a transport ends: closed, aborted, or broken.

use std::mem;

use pyo3::exceptions::{PyConnectionError, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::calls::Calls;
use super::class::Transport;
use crate::aio::arguments::Arguments;
use crate::aio::report::is_exit;
use crate::aio::AsyncioLoop;

impl Transport {
    pub(super) fn close(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let mut state = this.get().state(py);
        if state.is_closing {
            return Ok(());
        }
        (state.is_closing, state.reads) = (true, false);
        let is_empty = state.queue.is_empty();
        if is_empty {
            state.lost += 1;
        }
        drop(state);
        Self::watch(this)?;
        if is_empty {
            return schedule_loss(this, py.None());
        }
        Ok(())
    }

    /// Drops what waits to be sent.
    pub(super) fn force_close(this: &Bound<'_, Self>, reason: Py<PyAny>) -> PyResult<()> {
        let mut state = this.get().state(this.py());
        if state.lost != 0 {
            return Ok(());
        }
        let queue = mem::take(&mut state.queue);
        (state.is_closing, state.reads) = (true, false);
        state.lost += 1;
        drop(state);
        drop(queue);
        Self::watch(this)?;
        schedule_loss(this, reason)
    }

    /// Ends it for an exception, which is reported unless it is the network's.
    pub(super) fn fatal_error(this: &Bound<'_, Self>, error: PyErr, message: &str) -> PyResult<()> {
        let py = this.py();
        if is_exit(py, &error) {
            return Err(error);
        }
        let exception = error.clone_ref(py).into_value(py).into_any();
        if error.is_instance_of::<PyOSError>(py) {
            Self::log(this, message)?;
        } else if let Some((owner, protocol)) = this.get().owner_and_protocol(py) {
            let extra = [("transport", this.as_any()), ("protocol", &protocol)];
            AsyncioLoop::exception(&owner, message, error, &extra)?;
        }
        Self::force_close(this, exception)
    }

    /// Calls connection_lost() and closes the socket.
    pub(super) fn lose_connection(this: &Bound<'_, Self>, reason: Py<PyAny>) -> PyResult<()> {
        let py = this.py();
        let protocol = this.get().protocol(py);
        let called = match protocol.is_none() {
            true => Ok(()),
            false => protocol.call_method1(intern!(py, "connection_lost"), (reason,)).map(drop),
        };
        let closed = close_socket(this);
        let broken = PyConnectionError::new_err("Connection is closed by peer");
        Self::wake_empty_waiter(this, Err(broken))?;
        called.and(closed)
    }

    /// The same in the poll's turn, once all is sent: what the protocol raises is reported here.
    pub(super) fn lose_connection_at_once(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let Some((owner, _)) = this.get().owner_and_protocol(py) else { return Ok(()) };
        this.get().state(py).lost += 1;
        match Self::lose_connection(this, py.None()) {
            Ok(()) => Ok(()),
            Err(failed) => {
                let message = format!("Exception in callback {}._write_ready()", this.get_type().name()?);
                AsyncioLoop::exception(&owner, &message, failed, &[("transport", this.as_any())])
            }
        }
    }
}

/// In the next turn, as for every callback.
fn schedule_loss(this: &Bound<'_, Transport>, reason: Py<PyAny>) -> PyResult<()> {
    let py = this.py();
    let Some(owner) = this.get().owner(py) else { return Ok(()) };
    let method = this.getattr(intern!(py, "_call_connection_lost"))?;
    AsyncioLoop::schedule(&owner, method, Arguments::One([reason]))
}

fn close_socket(this: &Bound<'_, Transport>) -> PyResult<()> {
    let py = this.py();
    let mut state = this.get().state(py);
    let (sock, server) = (state.sock.take(), state.server.take());
    if let Some(accepted) = &mut state.accepted {
        accepted.close();
    }
    let calls = mem::replace(&mut state.calls, Calls::none());
    let dropped = (state.protocol.take(), state.owner.take(), state.context.take(), calls);
    drop(state);
    drop(dropped);
    let closed = match sock {
        Some(sock) => sock.bind(py).call_method0(intern!(py, "close")).map(drop),
        None => Ok(()),
    };
    if let Some(server) = server {
        static DETACH: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        DETACH.import(py, "omnipoll.aio.transports", "detach")?.call1((server, this))?;
    }
    closed
}
