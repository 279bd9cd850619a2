//! Reading: from a stream's socket into the loop's buffer or the protocol's own.

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::calls::Kind;
use super::class::Transport;
use crate::aio::arguments::Arguments;
use crate::aio::socket;
use crate::aio::streams::{Put, Target};
use crate::aio::tls::Tls;
use crate::aio::view::View;
use crate::convert::reason;

const FATAL: &str = "Fatal read error on socket transport";
const FATAL_CALL: &str = "Fatal error: protocol.data_received() call failed.";

/// What a read has brought.
enum Arrived<T> {
    Nothing,
    End,
    Some(T),
}

impl Transport {
    /// One receive: what is left makes the socket readable in the next poll, so that no connection keeps
    /// the others waiting.
    #[inline]
    pub(super) fn read(this: &Bound<'_, Self>) -> PyResult<()> {
        let state = this.get().state(this.py());
        if state.lost != 0 {
            return Ok(());
        }
        let kind = state.calls.kind;
        drop(state);
        match kind {
            Kind::Data => read_data(this),
            Kind::Stream => read_stream(this),
            Kind::Buffered => read_into_buffer(this),
            Kind::Encrypted => read_encrypted(this),
            Kind::Datagrams => Self::read_datagrams(this),
        }
    }

    /// The peer has sent its last.
    fn read_end(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        Self::log(this, "received EOF")?;
        let answer = Self::call_protocol(this, intern!(py, "eof_received"), None, &Arguments::None);
        match answer.and_then(|answer| answer.is_truthy()) {
            // It stays open for writing; there is nothing more to read.
            Ok(true) => {
                this.get().state(py).reads = false;
                Self::watch(this)
            }
            Ok(false) => Self::close(this),
            Err(failed) => {
                Self::fatal_error(this, failed, "Fatal error: protocol.eof_received() call failed.")
            }
        }
    }
}

#[inline]
fn read_data(this: &Bound<'_, Transport>) -> PyResult<()> {
    let py = this.py();
    // An object of this type is made without the collector, which might run a finalizer.
    match receive(this, |bytes| PyBytes::new(py, bytes).into_any().unbind()) {
        Ok(Arrived::Some(data)) => call_data_received(this, data),
        Ok(Arrived::Nothing) => Ok(()),
        Ok(Arrived::End) => Transport::read_end(this),
        Err(failed) => Transport::fatal_error(this, failed, FATAL),
    }
}

/// Into the reader's own buffer, while it has room.
#[inline]
fn read_stream(this: &Bound<'_, Transport>) -> PyResult<()> {
    // What keeps it from being found keeps data_received() from taking the data, which is reported.
    let Ok(Some(target)) = Target::find(&this.get().protocol(this.py())) else { return read_data(this) };
    match receive(this, |bytes| target.put(bytes)) {
        Ok(Arrived::Some(Put::Kept(kept))) => match kept.and_then(|()| target.wake()) {
            Ok(()) => Ok(()),
            Err(failed) => Transport::fatal_error(this, failed, FATAL_CALL),
        },
        Ok(Arrived::Some(Put::NoRoom(data))) => call_data_received(this, data),
        Ok(Arrived::Nothing) => Ok(()),
        Ok(Arrived::End) => Transport::read_end(this),
        Err(failed) => Transport::fatal_error(this, failed, FATAL),
    }
}

#[inline]
fn call_data_received(this: &Bound<'_, Transport>, data: Py<PyAny>) -> PyResult<()> {
    let py = this.py();
    let method = this.get().state(py).calls.first.as_ref().map(|method| method.clone_ref(py));
    let arguments = Arguments::One([data]);
    let called = Transport::call_protocol(this, intern!(py, "data_received"), method, &arguments);
    arguments.release(py);
    match called {
        Ok(_) => Ok(()),
        Err(failed) => Transport::fatal_error(this, failed, FATAL_CALL),
    }
}

/// What `take` makes of the bytes that have arrived. It runs no Python.
#[inline]
fn receive<T>(this: &Bound<'_, Transport>, take: impl FnOnce(&[u8]) -> T) -> PyResult<Arrived<T>> {
    let (py, transport) = (this.py(), this.get());
    let state = transport.state(py);
    let Some(owner) = &state.owner else { return Ok(Arrived::Nothing) };
    let mut buffer = owner.get().receive_buffer(py);
    match socket::receive(transport.fd, &mut buffer) {
        Ok(Some(0)) => Ok(Arrived::End),
        Ok(Some(count)) => Ok(Arrived::Some(take(&buffer[..count]))),
        Ok(None) => Ok(Arrived::Nothing),
        Err(failed) => Err(reason(&failed)),
    }
}

#[inline]
fn read_encrypted(this: &Bound<'_, Transport>) -> PyResult<()> {
    let (py, transport) = (this.py(), this.get());
    let protocol = transport.protocol(py);
    let Ok(tls) = protocol.cast::<Tls>() else { return Ok(()) };
    match tls.get().receive(py, transport.fd) {
        Ok(None) => Ok(()),
        Ok(Some(0)) => Transport::read_end(this),
        Ok(Some(_)) => Tls::take_received(tls).or_else(|failed| {
            Transport::fatal_error(this, failed, "Fatal error: protocol.buffer_updated() call failed.")
        }),
        Err(failed) => Transport::fatal_error(this, failed, "Fatal read error on socket transport"),
    }
}

fn read_into_buffer(this: &Bound<'_, Transport>) -> PyResult<()> {
    let (py, transport) = (this.py(), this.get());
    let asked = transport.protocol(py);
    let buffer = match get_buffer(this) {
        Ok(buffer) => buffer,
        Err(failed) => {
            return Transport::fatal_error(this, failed, "Fatal error: protocol.get_buffer() call failed.")
        }
    };
    // The protocol may have closed or paused its transport, or have been replaced: then the buffer is
    // nobody's any more, and what has arrived is still there in the next poll.
    let state = transport.state(py);
    if !state.reads || !state.protocol.as_ref().is_some_and(|protocol| protocol.is(&asked)) {
        return Ok(());
    }
    drop(state);
    let received = {
        let mut buffer = buffer;
        socket::receive(transport.fd, buffer.as_mut_slice())
    };
    let count = match received {
        Ok(Some(0)) => return Transport::read_end(this),
        Ok(Some(count)) => count,
        Ok(None) => return Ok(()),
        Err(failed) => return Transport::fatal_error(this, reason(&failed), FATAL),
    };
    let method = transport.state(py).calls.second.as_ref().map(|method| method.clone_ref(py));
    let arguments = Arguments::One([count.into_pyobject(py)?.into_any().unbind()]);
    match Transport::call_protocol(this, intern!(py, "buffer_updated"), method, &arguments) {
        Ok(_) => Ok(()),
        Err(failed) => {
            Transport::fatal_error(this, failed, "Fatal error: protocol.buffer_updated() call failed.")
        }
    }
}

fn get_buffer(this: &Bound<'_, Transport>) -> PyResult<View> {
    let py = this.py();
    let method = this.get().state(py).calls.first.as_ref().map(|method| method.clone_ref(py));
    let arguments = Arguments::One([(-1_i32).into_pyobject(py)?.into_any().unbind()]);
    let buffer = Transport::call_protocol(this, intern!(py, "get_buffer"), method, &arguments)?;
    let view = View::writable(&buffer)?;
    if view.as_slice().is_empty() {
        return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
    }
    Ok(view)
}
