//! Writing: what the socket takes at once is sent at once, the rest when it is writable.

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;

use super::class::{State, Transport};
use super::write_queue::{Data, Piece};
use crate::aio::socket;
use crate::convert::reason;

/// From so many writes on a lost connection on, they are logged.
const LOGGED_FROM: usize = 5;

pub(super) const FATAL: &str = "Fatal write error on socket transport";

impl Transport {
    #[inline]
    pub(super) fn write(this: &Bound<'_, Self>, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, transport) = (this.py(), this.get());
        let data = Data::new(object)?;
        let mut state = transport.state(py);
        check_writable(&state, "write()", "write")?;
        let bytes = data.as_slice();
        if bytes.is_empty() {
            return Ok(());
        }
        if state.lost != 0 {
            drop(state);
            return Self::count_lost_write(this);
        }
        let mut sent = 0;
        if state.queue.is_empty() {
            match socket::send(transport.fd, bytes) {
                Ok(Some(count)) if count == bytes.len() => return Ok(()),
                Ok(count) => sent = count.unwrap_or(0),
                Err(failed) => {
                    drop(state);
                    return Self::fatal_error(this, reason(&failed), FATAL);
                }
            }
        }
        let piece = data.keep(py, sent);
        state.queue.push(py, piece);
        drop(state);
        Self::watch(this)?;
        Self::pause_protocol_if_due(this)
    }

    /// Sends all of it in one system call, if nothing waits already.
    pub(super) fn write_lines(this: &Bound<'_, Self>, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, transport) = (this.py(), this.get());
        check_writable(&transport.state(py), "writelines()", "writelines")?;
        let mut pieces = Vec::<Piece>::new();
        for line in lines.try_iter()? {
            let line = line?;
            let data = Data::new(&line)?;
            if !data.as_slice().is_empty() {
                pieces.push(data.keep(py, 0));
            }
        }
        if pieces.is_empty() {
            return Ok(());
        }
        let mut state = transport.state(py);
        if state.lost != 0 {
            drop(state);
            return Self::count_lost_write(this);
        }
        let is_first = state.queue.is_empty();
        for piece in pieces {
            state.queue.push(py, piece);
        }
        drop(state);
        if is_first {
            Self::flush(this)?;
        }
        Self::watch(this)?;
        Self::pause_protocol_if_due(this)
    }

    pub(super) fn count_lost_write(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let mut state = this.get().state(py);
        let before = state.lost;
        state.lost += 1;
        drop(state);
        if before < LOGGED_FROM {
            return Ok(());
        }
        py.import(intern!(py, "asyncio.log"))?
            .getattr(intern!(py, "logger"))?
            .call_method1(intern!(py, "warning"), ("socket.send() raised exception.",))
            .map(drop)
    }

    /// Sends what waits.
    pub(super) fn flush(this: &Bound<'_, Self>) -> PyResult<()> {
        let (py, transport) = (this.py(), this.get());
        let mut state = transport.state(py);
        if state.lost != 0 {
            return Ok(());
        }
        let sent = socket::send_all(transport.fd, &state.queue.slices(py));
        match sent {
            Ok(None) => Ok(()),
            Ok(Some(count)) => {
                let sent = state.queue.sent(py, count);
                drop(state);
                drop(sent);
                Self::resume_protocol_if_due(this)?;
                Self::finish_flush(this)
            }
            Err(failed) => {
                drop(state);
                Self::fatal_error(this, reason(&failed), FATAL)?;
                Self::wake_empty_waiter(this, Err(reason(&failed)))
            }
        }
    }

    /// What was waiting for the queue to be empty. The protocol may have written in between.
    pub(super) fn finish_flush(this: &Bound<'_, Self>) -> PyResult<()> {
        let (py, transport) = (this.py(), this.get());
        if !transport.state(py).queue.is_empty() {
            return Ok(());
        }
        Self::watch(this)?;
        Self::wake_empty_waiter(this, Ok(()))?;
        let state = transport.state(py);
        let (is_closing, is_eof_written, lost) = (state.is_closing, state.is_eof_written, state.lost);
        drop(state);
        if lost != 0 {
            return Ok(());
        }
        if is_closing {
            return Self::lose_connection_at_once(this);
        }
        if is_eof_written {
            return socket::shut_down_writing(transport.fd).map_err(|failed| reason(&failed));
        }
        Ok(())
    }

    pub(super) fn write_eof(this: &Bound<'_, Self>) -> PyResult<()> {
        let transport = this.get();
        let mut state = transport.state(this.py());
        if state.is_closing || state.is_eof_written {
            return Ok(());
        }
        state.is_eof_written = true;
        if !state.queue.is_empty() {
            return Ok(());
        }
        socket::shut_down_writing(transport.fd).map_err(|failed| reason(&failed))
    }

    /// `_make_empty_waiter`'s future.
    pub(super) fn wake_empty_waiter(this: &Bound<'_, Self>, result: PyResult<()>) -> PyResult<()> {
        let py = this.py();
        let state = this.get().state(py);
        let Some(waiter) = state.empty_waiter.as_ref().map(|waiter| waiter.bind(py).clone()) else {
            return Ok(());
        };
        drop(state);
        if waiter.call_method0(intern!(py, "done"))?.is_truthy()? {
            return Ok(());
        }
        match result {
            Ok(()) => waiter.call_method1(intern!(py, "set_result"), (py.None(),)),
            Err(failed) => waiter.call_method1(intern!(py, "set_exception"), (failed.into_value(py),)),
        }
        .map(drop)
    }
}

#[inline]
fn check_writable(state: &State, call: &str, verb: &str) -> PyResult<()> {
    if state.is_eof_written {
        return Err(PyRuntimeError::new_err(format!("Cannot call {call} after write_eof()")));
    }
    if state.empty_waiter.is_some() {
        return Err(PyRuntimeError::new_err(format!("unable to {verb}; sendfile is in progress")));
    }
    Ok(())
}
