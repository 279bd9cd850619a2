//! What a connection receives goes to its reader's buffer, without a call into Python.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyWeakrefMethods, PyWeakrefReference};

use super::reader::Reader;
use super::{is_exactly, CLASSES};
use crate::aio::vectorcall::call_method;

/// Whether a protocol is the standard library's for a reader of ours, and takes what arrives itself.
pub(crate) fn is_fed(protocol: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = protocol.py();
    let Some(classes) = CLASSES.get(py) else { return Ok(false) };
    if !is_exactly(protocol, &classes.protocol) {
        return Ok(false);
    }
    let attributes = protocol.getattr(intern!(py, "__dict__"))?;
    if attributes.contains(intern!(py, "data_received"))? {
        return Ok(false);
    }
    Ok(find_reader(protocol)?.is_some())
}

fn find_reader<'py>(protocol: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = protocol.py();
    let reference = protocol.getattr(intern!(py, "_stream_reader_wr"))?;
    let Ok(reference) = reference.cast_exact::<PyWeakrefReference>() else { return Ok(None) };
    let reader = reference.upgrade();
    Ok(reader.filter(|reader| CLASSES.get(py).is_some_and(|classes| is_exactly(reader, &classes.reader))))
}

/// A reader, and how many bytes more leave its transport reading.
pub(crate) struct Target<'py> {
    reader: Bound<'py, PyAny>,
    buffer: Bound<'py, PyByteArray>,
    room: usize,
}

/// What became of bytes.
pub(crate) enum Put {
    Kept(PyResult<()>),
    /// They are for `data_received()`, which pauses the transport.
    NoRoom(Py<PyAny>),
}

impl<'py> Target<'py> {
    /// `None` where `data_received()` does it: when the reader is gone, is none of ours any more, has seen
    /// the end, or has a limit that is no plain number.
    #[inline]
    pub(crate) fn find(protocol: &Bound<'py, PyAny>) -> PyResult<Option<Self>> {
        let Some(reader) = find_reader(protocol)? else { return Ok(None) };
        let state = Reader::new(&reader)?;
        if state.is_eof()? {
            return Ok(None);
        }
        let (buffer, limit) = (state.buffer()?, state.limit()?);
        let Ok(limit) = limit.extract::<usize>() else { return Ok(None) };
        let room = limit.saturating_mul(2).saturating_sub(buffer.len());
        Ok(Some(Self { reader, buffer, room }))
    }

    /// Adds them to the buffer. Runs no Python.
    #[inline]
    pub(crate) fn put(&self, bytes: &[u8]) -> Put {
        if bytes.len() > self.room {
            return Put::NoRoom(PyBytes::new(self.reader.py(), bytes).into_any().unbind());
        }
        let len = self.buffer.len();
        let resized = self.buffer.resize(len + bytes.len());
        if resized.is_ok() {
            // SAFETY: no Python runs while there is the slice, and nobody else has one.
            unsafe { self.buffer.as_bytes_mut()[len..].copy_from_slice(bytes) };
        }
        Put::Kept(resized)
    }

    /// What `_wakeup_waiter()` does.
    #[inline]
    pub(crate) fn wake(&self) -> PyResult<()> {
        let py = self.reader.py();
        let state = Reader::new(&self.reader)?;
        let waiter = state.waiter()?;
        if waiter.is_none() {
            return Ok(());
        }
        state.end_waiting()?;
        let none = py.None().into_bound(py);
        match call_method(intern!(py, "set_result"), [&waiter, &none]) {
            Err(failed) if !call_method(intern!(py, "cancelled"), [&waiter])?.is_truthy()? => Err(failed),
            _ => Ok(()),
        }
    }
}
