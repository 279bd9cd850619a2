//! A list that is made in its final size and then filled: one store for each element.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyList;

/// A list under construction. Nothing else refers to it until [`ListBuilder::finish`].
pub(crate) struct ListBuilder<'py> {
    list: Bound<'py, PyList>,
    size: ffi::Py_ssize_t,
    filled: ffi::Py_ssize_t,
}

impl<'py> ListBuilder<'py> {
    pub(crate) fn new(py: Python<'py>, size: usize) -> PyResult<Self> {
        let size = size as ffi::Py_ssize_t;
        // SAFETY: a new list is an owned reference, to a list; its elements are NULL.
        let list = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyList_New(size))?.cast_into_unchecked() };
        Ok(Self { list, size, filled: 0 })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Runs no Python: what was there before is NULL.
    #[inline]
    pub(crate) fn push(&mut self, object: Py<PyAny>) {
        debug_assert!(self.filled < self.size);
        // SAFETY: it is a list, and takes over the reference, also when it has no such index.
        unsafe { ffi::PyList_SetItem(self.list.as_ptr(), self.filled, object.into_ptr()) };
        self.filled += 1;
    }

    /// The list, cut down to what was pushed.
    pub(crate) fn finish(self) -> PyResult<Bound<'py, PyList>> {
        if self.filled < self.size {
            self.list.del_slice(self.filled as usize, self.size as usize)?;
        }
        Ok(self.list)
    }
}
