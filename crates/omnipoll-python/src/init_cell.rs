//! What an object gets by its `__init__`, and not when it is allocated: a subclass may have an
//! `__init__` with arguments of its own, and calls this one with whatever it likes.

use std::sync::OnceLock;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::finalization::protect_thread;

/// All that a class holds, so that whatever its objects are used for comes by here.
pub(crate) struct InitCell<T>(OnceLock<T>);

impl<T> InitCell<T> {
    pub(crate) fn new() -> Self {
        protect_thread();
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
        protect_thread();
        self.0.get()
    }
}

impl<T> Drop for InitCell<T> {
    fn drop(&mut self) {
        protect_thread();
    }
}
