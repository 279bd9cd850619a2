//! What `read`, `readexactly`, `readuntil` and `readline` do before and after each wait for more.

use std::ffi::CStr;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyType};
use pyo3::{PyTraverseError, PyVisit};

use super::reader::Reader;
use super::step::{Sent, Step};
use crate::aio::vectorcall::call_method;

pub(super) enum Call {
    Read(i64),
    /// Until the end: in blocks, as the limit has it.
    ReadAll(Vec<Py<PyBytes>>),
    ReadExactly(i64),
    /// `offset`: so many bytes are known to have no separator.
    ReadUntil {
        separator: Py<PyBytes>,
        offset: usize,
    },
    ReadLine {
        offset: usize,
    },
}

pub(super) struct Reading {
    reader: Py<PyAny>,
    call: Call,
    waiter: Option<Py<PyAny>>,
}

impl Reading {
    pub(super) fn new(reader: &Bound<'_, PyAny>, call: Call) -> Self {
        Self { reader: reader.clone().unbind(), call, waiter: None }
    }

    pub(super) fn name(&self) -> &'static CStr {
        match self.call {
            Call::Read(_) | Call::ReadAll(_) => c"StreamReader.read",
            Call::ReadExactly(_) => c"StreamReader.readexactly",
            Call::ReadUntil { .. } => c"StreamReader.readuntil",
            Call::ReadLine { .. } => c"StreamReader.readline",
        }
    }

    pub(super) fn awaited<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.waiter.as_ref().map(|waiter| waiter.bind(py).clone())
    }

    #[inline]
    pub(super) fn resume<'py>(&mut self, py: Python<'py>, sent: Sent) -> PyResult<Step<'py>> {
        let object = self.reader.bind(py).clone();
        let reader = &Reader::new(&object)?;
        match self.advance(reader, sent) {
            Ok(step) => Ok(step),
            Err(failed) if matches!(self.call, Call::ReadLine { .. }) => {
                line_failed(reader, failed).map(Step::Return)
            }
            Err(failed) => Err(failed),
        }
    }

    #[inline]
    fn advance<'py>(&mut self, reader: &Reader<'_, 'py>, sent: Sent) -> PyResult<Step<'py>> {
        let has_waited = match sent {
            Sent::Start => false,
            Sent::Value => {
                self.finish_waiting(reader)?;
                true
            }
            Sent::Exception(exception) => {
                self.waiter = None;
                reader.end_waiting()?;
                return Err(exception);
            }
        };
        if let Some(bytes) = self.call.attempt(reader, has_waited)? {
            return Ok(Step::Return(bytes.into_any()));
        }
        let waiter = reader.start_waiting(self.call.waiting_name())?;
        self.waiter = Some(waiter.clone().unbind());
        Ok(Step::Yield(waiter))
    }

    /// The waiter is done, and may have failed.
    #[inline]
    fn finish_waiting(&mut self, reader: &Reader<'_, '_>) -> PyResult<()> {
        let py = reader.py();
        let Some(waiter) = self.waiter.take().map(|waiter| waiter.into_bound(py)) else { return Ok(()) };
        let done = call_method(intern!(py, "result"), [&waiter]);
        reader.end_waiting()?;
        match done {
            Ok(_) => Ok(()),
            Err(failed) if call_method(intern!(py, "done"), [&waiter])?.is_truthy()? => Err(failed),
            Err(_) => Err(PyRuntimeError::new_err("await wasn't used with future")),
        }
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.reader)?;
        visit.call(&self.waiter)
    }
}

impl Call {
    /// `_wait_for_data()` names the call that waits.
    fn waiting_name(&self) -> &'static str {
        match self {
            Self::Read(_) | Self::ReadAll(_) => "read",
            Self::ReadExactly(_) => "readexactly",
            Self::ReadUntil { .. } | Self::ReadLine { .. } => "readuntil",
        }
    }

    /// `None` when it takes more than has arrived.
    #[inline]
    fn attempt<'py>(
        &mut self,
        reader: &Reader<'_, 'py>,
        has_waited: bool,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        match self {
            Self::Read(size) => read(reader, *size as usize, has_waited),
            Self::ReadAll(blocks) => read_all(reader, blocks, has_waited),
            Self::ReadExactly(size) => read_exactly(reader, *size, has_waited),
            Self::ReadUntil { separator, offset } => {
                read_until(reader, separator.as_bytes(reader.py()), offset, has_waited)
            }
            Self::ReadLine { offset } => read_until(reader, b"\n", offset, has_waited),
        }
    }
}

#[inline]
fn read<'py>(
    reader: &Reader<'_, 'py>,
    size: usize,
    has_waited: bool,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    if !has_waited {
        reader.check_exception()?;
        if size == 0 {
            return Ok(Some(PyBytes::new(reader.py(), b"")));
        }
        if reader.buffer()?.is_empty() && !reader.is_eof()? {
            return Ok(None);
        }
    }
    reader.take(size).map(Some)
}

fn read_all<'py>(
    reader: &Reader<'_, 'py>,
    blocks: &mut Vec<Py<PyBytes>>,
    mut has_waited: bool,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let py = reader.py();
    loop {
        let Some(block) = read(reader, reader.limit()?.extract()?, has_waited)? else { return Ok(None) };
        if block.as_bytes().is_empty() {
            let blocks = blocks.iter().map(|block| block.as_bytes(py)).collect::<Vec<_>>();
            return Ok(Some(PyBytes::new(py, &blocks.concat())));
        }
        blocks.push(block.unbind());
        has_waited = false;
    }
}

fn read_exactly<'py>(
    reader: &Reader<'_, 'py>,
    size: i64,
    has_waited: bool,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let py = reader.py();
    if !has_waited {
        if size < 0 {
            return Err(PyValueError::new_err("readexactly size can not be less than zero"));
        }
        reader.check_exception()?;
    }
    if size == 0 {
        return Ok(Some(PyBytes::new(py, b"")));
    }
    if reader.buffer()?.len() >= size as usize {
        return reader.take(size as usize).map(Some);
    }
    if reader.is_eof()? {
        return Err(incomplete(reader.take_partial()?, Some(size)));
    }
    Ok(None)
}

fn read_until<'py>(
    reader: &Reader<'_, 'py>,
    separator: &[u8],
    offset: &mut usize,
    has_waited: bool,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let py = reader.py();
    if !has_waited {
        reader.check_exception()?;
    }
    let buffer = reader.buffer()?;
    let len = buffer.len();
    if len >= *offset + separator.len() {
        // SAFETY: no Python runs while there is the slice.
        let found = find(unsafe { &buffer.as_bytes()[*offset..] }, separator);
        if let Some(found) = found {
            let start = *offset + found;
            if reader.is_above_limit(start)? {
                return Err(overrun(py, "Separator is found, but chunk is longer than limit", start));
            }
            return reader.take(start + separator.len()).map(Some);
        }
        // The end may be the beginning of a separator.
        *offset = len + 1 - separator.len();
        if reader.is_above_limit(*offset)? {
            return Err(overrun(py, "Separator is not found, and chunk exceed the limit", *offset));
        }
    }
    if reader.is_eof()? {
        return Err(incomplete(reader.take_partial()?, None));
    }
    Ok(None)
}

/// `memmem(3)` looks at each byte about once.
fn find(bytes: &[u8], separator: &[u8]) -> Option<usize> {
    // SAFETY: both are memory of the given lengths.
    let found = unsafe {
        let (start, part) = (bytes.as_ptr().cast(), separator.as_ptr().cast());
        match separator {
            [byte] => libc::memchr(start, i32::from(*byte), bytes.len()),
            _ => libc::memmem(start, bytes.len(), part, separator.len()),
        }
    };
    (!found.is_null()).then(|| found.addr() - bytes.as_ptr().addr())
}

// ---- Exceptions ------------------------------------------------------------------------------------

fn incomplete(partial: Bound<'_, PyBytes>, expected: Option<i64>) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    match CLASS.import(partial.py(), "asyncio", "IncompleteReadError") {
        Ok(class) => PyErr::from_type(class.clone(), (partial.clone().unbind(), expected)),
        Err(failed) => failed,
    }
}

fn overrun(py: Python<'_>, message: &'static str, consumed: usize) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    match CLASS.import(py, "asyncio", "LimitOverrunError") {
        Ok(class) => PyErr::from_type(class.clone(), (message, consumed)),
        Err(failed) => failed,
    }
}

/// What `readline()` makes of an exception.
fn line_failed<'py>(reader: &Reader<'_, 'py>, failed: PyErr) -> PyResult<Bound<'py, PyAny>> {
    let py = reader.py();
    py.import(intern!(py, "omnipoll.aio.streams"))?
        .call_method1(intern!(py, "line_failed"), (reader.object(), failed.into_value(py)))
}
