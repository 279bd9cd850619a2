//! A reference of a callback's, for the Python object that stands for what it refers to.

use std::ptr::NonNull;

use pyo3::prelude::*;

use crate::gil_cell::GilCell;

/// Holds the reference while the callback runs, for the thread that it runs on.
pub(crate) struct ScopedRef<T>(GilCell<Option<(usize, NonNull<T>)>>);

impl<T> ScopedRef<T> {
    pub(crate) fn new(py: Python<'_>) -> Self {
        Self(GilCell::new(py, None))
    }

    /// Sets the reference until the guard is dropped.
    ///
    /// # Safety
    /// `target` must be the caller's alone while the guard lives. `T` may claim longer lifetimes
    /// than it has: they end with the guard.
    #[inline]
    pub(crate) unsafe fn set<'a>(&'a self, py: Python<'a>, target: NonNull<T>) -> ScopedGuard<'a, T> {
        *self.0.borrow(py) = Some((this_thread(), target));
        ScopedGuard { reference: self, py }
    }

    /// Acts on what it refers to; `None` on another thread, and outside the callback.
    #[inline]
    pub(crate) fn with<R>(&self, py: Python<'_>, act: impl FnOnce(&mut T) -> R) -> Option<R> {
        // It stays borrowed meanwhile: coming back for it would be a panic.
        let mut borrowed = self.0.borrow(py);
        match *borrowed {
            Some((thread, ref mut target)) if thread == this_thread() => {
                // SAFETY: it lives as long as the guard, and only this thread gets here.
                Some(act(unsafe { target.as_mut() }))
            }
            _ => None,
        }
    }
}

/// Ends the reference when it is dropped.
pub(crate) struct ScopedGuard<'a, T> {
    reference: &'a ScopedRef<T>,
    py: Python<'a>,
}

impl<T> Drop for ScopedGuard<'_, T> {
    fn drop(&mut self) {
        *self.reference.0.borrow(self.py) = None;
    }
}

/// A number for each thread, different from those of all that live at the same time.
#[inline]
pub(crate) fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here) as usize)
}
