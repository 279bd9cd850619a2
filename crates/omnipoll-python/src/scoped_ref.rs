//! What the core lends a callback, within reach of the Python object that stands for it.

use std::ptr::NonNull;

use pyo3::prelude::*;

use crate::gil_cell::GilCell;

/// Holds what the core has lent, while the callback runs and for the thread that it runs on.
pub(crate) struct ScopedRef<T>(GilCell<Option<(usize, NonNull<T>)>>);

impl<T> ScopedRef<T> {
    pub(crate) fn new(py: Python<'_>) -> Self {
        Self(GilCell::new(py, None))
    }

    /// Lends it until the guard is dropped.
    ///
    /// # Safety
    /// `lent` must be the caller's alone while the guard lives. `T` may claim longer lifetimes
    /// than it has: they end with the guard.
    #[inline]
    pub(crate) unsafe fn lend<'a>(&'a self, py: Python<'a>, lent: NonNull<T>) -> ScopedGuard<'a, T> {
        *self.0.borrow(py) = Some((this_thread(), lent));
        ScopedGuard { loan: self, py }
    }

    /// Acts on it; `None` on another thread, and when nothing is lent.
    #[inline]
    pub(crate) fn with<R>(&self, py: Python<'_>, act: impl FnOnce(&mut T) -> R) -> Option<R> {
        // It stays borrowed meanwhile: coming back for it would be a panic.
        let mut borrowed = self.0.borrow(py);
        match *borrowed {
            Some((thread, ref mut lent)) if thread == this_thread() => {
                // SAFETY: it lives as long as it is lent, and only this thread gets here.
                Some(act(unsafe { lent.as_mut() }))
            }
            _ => None,
        }
    }
}

/// A loan that ends when this is dropped.
pub(crate) struct ScopedGuard<'a, T> {
    loan: &'a ScopedRef<T>,
    py: Python<'a>,
}

impl<T> Drop for ScopedGuard<'_, T> {
    fn drop(&mut self) {
        *self.loan.0.borrow(self.py) = None;
    }
}

/// Tells threads that live at the same time apart.
#[inline]
pub(crate) fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here) as usize)
}
