//! `Reader`: a stream's reader, whose state is in its attributes, as the standard library has it.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyInt};
use pyo3::{ffi, PyErr};

use crate::aio::vectorcall::call_method;

#[derive(Clone, Copy)]
pub(super) struct Reader<'a, 'py>(pub(super) &'a Bound<'py, PyAny>);

impl<'py> Reader<'_, 'py> {
    fn py(self) -> Python<'py> {
        self.0.py()
    }

    pub(super) fn buffer(self) -> PyResult<Bound<'py, PyByteArray>> {
        Ok(self.0.getattr(intern!(self.py(), "_buffer"))?.cast_into_exact::<PyByteArray>()?)
    }

    pub(super) fn is_eof(self) -> PyResult<bool> {
        self.0.getattr(intern!(self.py(), "_eof"))?.is_truthy()
    }

    fn is_paused(self) -> PyResult<bool> {
        self.0.getattr(intern!(self.py(), "_paused"))?.is_truthy()
    }

    pub(super) fn limit(self) -> PyResult<Bound<'py, PyAny>> {
        self.0.getattr(intern!(self.py(), "_limit"))
    }

    /// Whether so many bytes are more than the limit, which may be any object that compares with a number.
    pub(super) fn is_above_limit(self, count: usize) -> PyResult<bool> {
        let limit = self.limit()?;
        match limit.cast_exact::<PyInt>().ok().and_then(|limit| limit.extract::<usize>().ok()) {
            Some(limit) => Ok(count > limit),
            None => limit.lt(count),
        }
    }

    /// Raises what the connection was lost with.
    pub(super) fn check_exception(self) -> PyResult<()> {
        let exception = self.0.getattr(intern!(self.py(), "_exception"))?;
        match exception.is_none() {
            true => Ok(()),
            false => Err(PyErr::from_value(exception)),
        }
    }

    /// Takes the first bytes out of the buffer, or all if there are fewer.
    pub(super) fn take(self, count: usize) -> PyResult<Bound<'py, PyBytes>> {
        let buffer = self.buffer()?;
        let len = buffer.len();
        let count = count.min(len);
        // SAFETY: no Python runs while there is the slice: bytes are made without the collector.
        let taken = PyBytes::new(self.py(), unsafe { &buffer.as_bytes()[..count] });
        if count == len {
            buffer.resize(0)?;
        } else if count > 0 {
            // What is left stays where it is: the array knows where it begins.
            // SAFETY: the array is alive.
            if unsafe { ffi::PySequence_DelSlice(buffer.as_ptr(), 0, count as ffi::Py_ssize_t) } != 0 {
                return Err(PyErr::fetch(self.py()));
            }
        }
        if self.is_paused()? {
            self.0.call_method0(intern!(self.py(), "_maybe_resume_transport"))?;
        }
        Ok(taken)
    }

    /// Takes all of it out, as the part of what will never be whole.
    pub(super) fn take_partial(self) -> PyResult<Bound<'py, PyBytes>> {
        let buffer = self.buffer()?;
        // SAFETY: as above.
        let partial = PyBytes::new(self.py(), unsafe { buffer.as_bytes() });
        buffer.resize(0)?;
        Ok(partial)
    }

    /// What `_wait_for_data(call)` waits for: a future that is done when more has arrived.
    pub(super) fn start_waiting(self, call: &str) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        if !self.0.getattr(intern!(py, "_waiter"))?.is_none() {
            return Err(pyo3::exceptions::PyRuntimeError::new_err(format!(
                "{call}() called while another coroutine is already waiting for incoming data"
            )));
        }
        // To wait while the transport is paused would be to wait forever.
        if self.is_paused()? {
            self.0.setattr(intern!(py, "_paused"), PyBool::new(py, false))?;
            self.0.getattr(intern!(py, "_transport"))?.call_method0(intern!(py, "resume_reading"))?;
        }
        let owner = self.0.getattr(intern!(py, "_loop"))?;
        let waiter = call_method(intern!(py, "create_future"), [&owner])?;
        self.0.setattr(intern!(py, "_waiter"), &waiter)?;
        // What a future does that is awaited.
        waiter.setattr(intern!(py, "_asyncio_future_blocking"), PyBool::new(py, true))?;
        Ok(waiter)
    }

    pub(super) fn end_waiting(self) -> PyResult<()> {
        self.0.setattr(intern!(self.py(), "_waiter"), self.py().None())
    }
}
