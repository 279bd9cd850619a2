//! Reading: what has arrived is decrypted in the loop's buffer, for the application's protocol.

use std::os::fd::RawFd;

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::buffer::{Memory, TlsBuffer};
use super::class::{Phase, Tls};
use super::ends::{Done, Ends};
use crate::aio::arguments::Arguments;
use crate::aio::socket;
use crate::convert::reason;

/// Why no more was read.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    /// All was read, but for a record that is not complete.
    Empty,
    /// There may be more.
    Full,
    /// The peer has sent its last.
    End,
}

impl Tls {
    /// Receives once from a socket; `None` when it would have to wait. What has arrived is to be
    /// [taken](Self::take_received).
    #[inline]
    pub(crate) fn receive(&self, py: Python<'_>, fd: RawFd) -> PyResult<Option<usize>> {
        let (buffer, ends) = self.opened()?;
        buffer.get().lend(py, |memory| {
            let received = socket::receive(fd, memory.as_mut_slice()).map_err(|failed| reason(&failed))?;
            if let Some(count @ 1..) = received {
                ends.put(py, memory, count)?;
            }
            Ok(received)
        })
    }

    /// What `buffer_updated()` does once what has arrived is with the ssl module.
    #[inline]
    pub(crate) fn take_received(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        if this.get().state(py).phase != Phase::Wrapped {
            return this.call_method1(intern!(py, "buffer_updated"), (0,)).map(drop);
        }
        let done = read_and_send(this).and_then(|()| {
            let (_, ends) = this.get().opened()?;
            let is_limited = this.get().state(py).is_reading_limited;
            if is_limited || ends.pending(py)? != 0 {
                return Self::call(this, intern!(py, "_control_ssl_reading"));
            }
            Ok(())
        });
        done.or_else(|failed| Self::fail(this, failed))
    }

    /// `_do_read`.
    pub(super) fn read(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        if this.get().state(py).phase == Phase::Other {
            return Ok(());
        }
        let done = read_and_send(this).and_then(|()| Self::call(this, intern!(py, "_control_ssl_reading")));
        done.or_else(|failed| Self::fail(this, failed))
    }
}

#[inline]
fn read_and_send(this: &Bound<'_, Tls>) -> PyResult<()> {
    let py = this.py();
    if this.get().state(py).is_reading_paused {
        return Ok(());
    }
    read_all(this)?;
    // Keys that are updated are answered.
    let unencrypted = this.get().state(py).unencrypted;
    match unencrypted {
        0 => Tls::send(this),
        _ => Tls::call(this, intern!(py, "_do_write")),
    }
}

#[inline]
fn read_all(this: &Bound<'_, Tls>) -> PyResult<()> {
    let (py, tls) = (this.py(), this.get());
    loop {
        let (buffer, ends) = tls.opened()?;
        let is_buffered = tls.state(py).is_buffered;
        let stop = match is_buffered {
            true => read_into_buffer(this, ends)?,
            false => read_data(this, buffer.get(), ends)?,
        };
        if stop == Stop::End {
            Tls::call(this, intern!(py, "_call_eof_received"))?;
            return Tls::call(this, intern!(py, "_start_shutdown"));
        }
        let state = tls.state(py);
        if stop == Stop::Empty || state.phase == Phase::Other || state.is_reading_paused {
            return Ok(());
        }
    }
}

/// For `data_received()`.
#[inline]
fn read_data(this: &Bound<'_, Tls>, buffer: &TlsBuffer, ends: &Ends) -> PyResult<Stop> {
    let py = this.py();
    let (data, stop) = buffer.lend(py, |memory| {
        let (count, stop) = decrypt(py, ends, memory)?;
        // An object of this type is made without the collector, which might run a finalizer.
        let data = (count != 0).then(|| PyBytes::new(py, &memory.as_slice()[..count]).into_any().unbind());
        Ok((data, stop))
    })?;
    match data {
        Some(data) => deliver(this, data).map(|()| stop),
        None => Ok(stop),
    }
}

/// For `buffer_updated()`.
fn read_into_buffer(this: &Bound<'_, Tls>, ends: &Ends) -> PyResult<Stop> {
    let py = this.py();
    let buffer = this.call_method1(intern!(py, "_app_protocol_get_buffer"), (ends.pending(py)?,))?;
    let memory = Memory::of(&buffer)?;
    if memory.len() == 0 {
        return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
    }
    let (count, stop) = decrypt(py, ends, &memory)?;
    // The protocol may change its size.
    drop(memory);
    if count != 0 {
        this.call_method1(intern!(py, "_app_protocol_buffer_updated"), (count,))?;
    }
    Ok(stop)
}

#[inline]
fn deliver(this: &Bound<'_, Tls>, data: Py<PyAny>) -> PyResult<()> {
    let py = this.py();
    let state = this.get().state(py);
    let method = state.data_received.as_ref().map(|method| method.clone_ref(py));
    drop(state);
    let arguments = Arguments::One([data]);
    let method = match method {
        Some(method) => method,
        // What Python raises for a protocol without it.
        None => this.getattr(intern!(py, "_app_protocol"))?.getattr(intern!(py, "data_received"))?.unbind(),
    };
    let done = arguments.call(py, &method).map(drop);
    arguments.release(py);
    method.drop_ref(py);
    done
}

/// Reads while there are records. That there are no more is asked before it is tried: to raise an
/// exception costs as much as to decrypt a small record.
#[inline]
fn decrypt(py: Python<'_>, ends: &Ends, memory: &Memory) -> PyResult<(usize, Stop)> {
    let (mut filled, size) = (0, memory.len());
    while filled < size {
        match ends.read(py, memory, filled)? {
            Done::Again => return Ok((filled, Stop::Empty)),
            Done::Bytes(0) => return Ok((filled, Stop::End)),
            Done::Bytes(count) => filled += count,
        }
        if filled < size && ends.pending(py)? == 0 {
            return Ok((filled, Stop::Empty));
        }
    }
    Ok((filled, Stop::Full))
}
