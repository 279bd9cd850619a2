//! What an object gets by its `__init__`, and not when it is allocated: a subclass may have an
//! `__init__` with arguments of its own, and calls this one with whatever it likes.

use std::sync::OnceLock;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::ending::keep_thread;

/// All that a class holds, so that whatever its objects are used for comes by here.
pub(crate) struct Made<T>(OnceLock<T>);

impl<T> Made<T> {
    pub(crate) fn not_yet() -> Self {
        keep_thread();
        Self(OnceLock::new())
    }

    /// In `__init__`.
    pub(crate) fn make(&self, value: T) -> PyResult<()> {
        self.0.set(value).map_err(|_| PyRuntimeError::new_err("__init__() has been called before"))
    }

    #[inline]
    pub(crate) fn get(&self) -> PyResult<&T> {
        self.get_opt().ok_or_else(|| {
            PyRuntimeError::new_err("the base class's __init__() has not been called: use super().__init__()")
        })
    }

    /// `None` when `__init__` was not called.
    #[inline]
    pub(crate) fn get_opt(&self) -> Option<&T> {
        keep_thread();
        self.0.get()
    }
}

impl<T> Drop for Made<T> {
    fn drop(&mut self) {
        keep_thread();
    }
}
