//! What Python gives to be written: anything with a buffer.

use std::ops::Deref;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};

use crate::finalization::protect_thread;

/// The bytes of a bytes-like object. The buffer protocol is in the limited API only since 3.11:
/// what is neither `bytes` nor `bytearray` is copied.
pub(crate) enum Bytes<'py> {
    Fixed(Bound<'py, PyBytes>),
    /// Stays as it is while this thread is attached and runs no Python.
    Mutable(Bound<'py, PyByteArray>),
}

impl<'py> Bytes<'py> {
    /// `TypeError` for what has no buffer, such as a str.
    #[inline]
    pub(crate) fn of(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Self::Fixed(bytes.clone()));
        }
        if let Ok(bytes) = object.cast::<PyByteArray>() {
            return Ok(Self::Mutable(bytes.clone()));
        }
        protect_thread();
        let py = object.py();
        // SAFETY: both take a live object and return a new reference, the second one to bytes.
        let copy = unsafe {
            let view = Bound::from_owned_ptr_or_err(py, ffi::PyMemoryView_FromObject(object.as_ptr()))?;
            Bound::from_owned_ptr_or_err(py, ffi::PyBytes_FromObject(view.as_ptr()))?
        };
        Ok(Self::Fixed(copy.cast_into()?))
    }
}

impl Deref for Bytes<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Fixed(bytes) => bytes.as_bytes(),
            // SAFETY: no Python runs between this and the last use of the slice, so nothing
            // resizes it: code that has a `Bytes` only hands it to the core.
            Self::Mutable(bytes) => unsafe { bytes.as_bytes() },
        }
    }
}
