//! `Reader`: a stream's reader, whose state is in its attributes, as the standard library has it.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyInt, PyString};
use pyo3::{ffi, intern, PyErr};

use crate::aio::vectorcall::call_method;

extern "C" {
    /// Exported by every CPython since 3.3, but in the limited API only since 3.10.
    fn PyObject_GenericGetDict(
        object: *mut ffi::PyObject,
        context: *mut std::ffi::c_void,
    ) -> *mut ffi::PyObject;
}

/// An object whose class has no descriptors for these attributes: they are in its dictionary, where they
/// are found at a third of the price.
pub(super) struct Attributes<'a, 'py> {
    pub(super) object: &'a Bound<'py, PyAny>,
    values: Bound<'py, PyDict>,
}

impl<'a, 'py> Attributes<'a, 'py> {
    #[inline]
    pub(super) fn new(object: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        // SAFETY: the object is alive; a new reference to a dictionary is returned.
        let values = unsafe {
            let values = PyObject_GenericGetDict(object.as_ptr(), std::ptr::null_mut());
            Bound::from_owned_ptr_or_err(object.py(), values)?.cast_into_unchecked::<PyDict>()
        };
        Ok(Self { object, values })
    }

    #[inline]
    pub(super) fn get(&self, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        match self.values.get_item(name)? {
            Some(value) => Ok(value),
            None => self.object.getattr(name),
        }
    }

    #[inline]
    fn set(&self, name: &Bound<'py, PyString>, value: &Bound<'py, PyAny>) -> PyResult<()> {
        self.values.set_item(name, value)
    }
}

pub(super) struct Reader<'a, 'py>(Attributes<'a, 'py>);

impl<'a, 'py> Reader<'a, 'py> {
    #[inline]
    pub(super) fn new(object: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        Attributes::new(object).map(Self)
    }

    pub(super) fn object(&self) -> &'a Bound<'py, PyAny> {
        self.0.object
    }

    pub(super) fn py(&self) -> Python<'py> {
        self.0.object.py()
    }

    pub(super) fn buffer(&self) -> PyResult<Bound<'py, PyByteArray>> {
        Ok(self.0.get(intern!(self.py(), "_buffer"))?.cast_into_exact::<PyByteArray>()?)
    }

    pub(super) fn is_eof(&self) -> PyResult<bool> {
        self.0.get(intern!(self.py(), "_eof"))?.is_truthy()
    }

    fn is_paused(&self) -> PyResult<bool> {
        self.0.get(intern!(self.py(), "_paused"))?.is_truthy()
    }

    pub(super) fn limit(&self) -> PyResult<Bound<'py, PyAny>> {
        self.0.get(intern!(self.py(), "_limit"))
    }

    pub(super) fn waiter(&self) -> PyResult<Bound<'py, PyAny>> {
        self.0.get(intern!(self.py(), "_waiter"))
    }

    /// Whether so many bytes are more than the limit, which may be any object that compares with a number.
    pub(super) fn is_above_limit(&self, count: usize) -> PyResult<bool> {
        let limit = self.limit()?;
        match limit.cast_exact::<PyInt>().ok().and_then(|limit| limit.extract::<usize>().ok()) {
            Some(limit) => Ok(count > limit),
            None => limit.lt(count),
        }
    }

    /// Raises what the connection was lost with.
    pub(super) fn check_exception(&self) -> PyResult<()> {
        let exception = self.0.get(intern!(self.py(), "_exception"))?;
        match exception.is_none() {
            true => Ok(()),
            false => Err(PyErr::from_value(exception)),
        }
    }

    /// Takes the first bytes out of the buffer, or all if there are fewer.
    pub(super) fn take(&self, count: usize) -> PyResult<Bound<'py, PyBytes>> {
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
            self.object().call_method0(intern!(self.py(), "_maybe_resume_transport"))?;
        }
        Ok(taken)
    }

    /// Takes all of it out, as the part of what will never be whole.
    pub(super) fn take_partial(&self) -> PyResult<Bound<'py, PyBytes>> {
        let buffer = self.buffer()?;
        // SAFETY: as above.
        let partial = PyBytes::new(self.py(), unsafe { buffer.as_bytes() });
        buffer.resize(0)?;
        Ok(partial)
    }

    /// What `_wait_for_data(call)` waits for: a future that is done when more has arrived.
    pub(super) fn start_waiting(&self, call: &str) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        if !self.waiter()?.is_none() {
            return Err(PyRuntimeError::new_err(format!(
                "{call}() called while another coroutine is already waiting for incoming data"
            )));
        }
        let (yes, no) = (PyBool::new(py, true), PyBool::new(py, false));
        // To wait while the transport is paused would be to wait forever.
        if self.is_paused()? {
            self.0.set(intern!(py, "_paused"), &no)?;
            self.0.get(intern!(py, "_transport"))?.call_method0(intern!(py, "resume_reading"))?;
        }
        let owner = self.0.get(intern!(py, "_loop"))?;
        let waiter = call_method(intern!(py, "create_future"), [&owner])?;
        self.0.set(intern!(py, "_waiter"), &waiter)?;
        // What a future does that is awaited.
        waiter.setattr(intern!(py, "_asyncio_future_blocking"), yes)?;
        Ok(waiter)
    }

    pub(super) fn end_waiting(&self) -> PyResult<()> {
        let py = self.py();
        self.0.set(intern!(py, "_waiter"), py.None().bind(py))
    }
}
