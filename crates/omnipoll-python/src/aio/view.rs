//! Views of the memory of bytes-like objects.

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::slice;

use pyo3::ffi::{PyObject, Py_ssize_t};
use pyo3::prelude::*;

use crate::finalization::protect_thread;

/// `Py_buffer`, which has been the same since CPython 3.3 but is in the limited API only since 3.11.
#[repr(C)]
struct Raw {
    buf: *mut c_void,
    obj: *mut PyObject,
    len: Py_ssize_t,
    itemsize: Py_ssize_t,
    readonly: c_int,
    ndim: c_int,
    format: *mut c_char,
    shape: *mut Py_ssize_t,
    strides: *mut Py_ssize_t,
    suboffsets: *mut Py_ssize_t,
    internal: *mut c_void,
}

extern "C" {
    /// Both are exported by every CPython there is.
    fn PyObject_GetBuffer(object: *mut PyObject, view: *mut Raw, flags: c_int) -> c_int;
    fn PyBuffer_Release(view: *mut Raw);
}

/// As in CPython's object.h.
const SIMPLE: c_int = 0;
const WRITABLE: c_int = 1;

/// Keeps the memory where it is: a `bytearray` can't be resized meanwhile. The structure is on the heap,
/// because what gave it may point into it.
pub(crate) struct View(Box<Raw>);

impl View {
    /// # Errors
    ///
    /// `TypeError` for what has no buffer, `BufferError` for one in pieces.
    pub(crate) fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::get(object, SIMPLE)
    }

    /// # Errors
    ///
    /// `BufferError` for what can't be written to, too.
    pub(crate) fn writable(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::get(object, WRITABLE)
    }

    fn get(object: &Bound<'_, PyAny>, flags: c_int) -> PyResult<Self> {
        protect_thread();
        let mut raw = Box::new(MaybeUninit::<Raw>::zeroed());
        // SAFETY: the object is alive, and the structure is where it stays.
        if unsafe { PyObject_GetBuffer(object.as_ptr(), raw.as_mut_ptr(), flags) } != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        // SAFETY: it has been filled; the type has no invalid values.
        Ok(Self(unsafe { Box::from_raw(Box::into_raw(raw).cast()) }))
    }

    /// Whether nobody can change it.
    pub(crate) fn is_constant(&self) -> bool {
        self.0.readonly != 0
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        if self.0.len == 0 {
            return &[];
        }
        // SAFETY: the memory stays while there is the view. Code that has the slice runs no Python.
        unsafe { slice::from_raw_parts(self.0.buf.cast(), self.0.len as usize) }
    }

    /// Of one that is writable.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        if self.0.len == 0 {
            return &mut [];
        }
        // SAFETY: as above; the caller asked for what can be written to.
        unsafe { slice::from_raw_parts_mut(self.0.buf.cast(), self.0.len as usize) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        protect_thread();
        // SAFETY: it was filled by PyObject_GetBuffer. Views are dropped by attached threads.
        unsafe { PyBuffer_Release(&mut *self.0) };
    }
}
