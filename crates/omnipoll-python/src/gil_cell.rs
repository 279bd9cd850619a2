//! The interpreter's lock as a lock of ours.

use std::cell::{RefCell, RefMut};

use pyo3::prelude::*;
use pyo3::PyVisit;

#[cfg(Py_GIL_DISABLED)]
compile_error!("omnipoll needs an interpreter with a global lock: free-threaded builds are not supported");

/// What only the thread attached to the interpreter touches. Of such threads there is one at a
/// time, so no lock is taken; and a mistake (running Python in the middle of a change, which
/// then comes back for another) is a panic, and so an exception, not a deadlock.
pub(crate) struct GilCell<T>(RefCell<T>);

// SAFETY: the value and the borrow flag are touched by attached threads only: see the methods.
// One stops being attached, and the next begins, under the interpreter's lock.
unsafe impl<T> Send for GilCell<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for GilCell<T> {}

impl<T> GilCell<T> {
    pub(crate) fn new(_py: Python<'_>, value: T) -> Self {
        Self(RefCell::new(value))
    }

    #[inline]
    pub(crate) fn borrow<'a>(&'a self, _py: Python<'a>) -> RefMut<'a, T> {
        self.0.borrow_mut()
    }

    /// `None` in the middle of a change.
    pub(crate) fn try_borrow<'a>(&'a self, _py: Python<'a>) -> Option<RefMut<'a, T>> {
        self.0.try_borrow_mut().ok()
    }

    /// For `__traverse__`, which has no token: the collector runs attached, and the visitor is
    /// its token. `None` in the middle of a change; what is not visited is not collected.
    pub(crate) fn visit(&self, _visit: &PyVisit<'_>) -> Option<RefMut<'_, T>> {
        self.0.try_borrow_mut().ok()
    }
}
