//! [`ThreadCell`]: what one thread uses, and any may drop.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;

use crate::gil_cell::GilCell;

/// Holds what belongs to the thread that has made the cell, which takes it out while it uses it detached.
pub(crate) struct ThreadCell<T> {
    thread: u64,
    /// `None` while something is being done with it, and when it is gone.
    held: GilCell<Option<Box<T>>>,
}

impl<T> ThreadCell<T> {
    pub(crate) fn new(py: Python<'_>, value: Option<Box<T>>) -> Self {
        Self { thread: this_thread(), held: GilCell::new(py, value) }
    }

    /// Whether this is the thread that has made it.
    pub(crate) fn is_here(&self) -> bool {
        self.thread == this_thread()
    }

    pub(crate) fn take(&self, py: Python<'_>) -> Option<Box<T>> {
        self.held.borrow(py).take()
    }

    pub(crate) fn put_back(&self, py: Python<'_>, value: Box<T>) {
        *self.held.borrow(py) = Some(value);
    }

    /// Acts on it where it lies, in its own thread, unless something is being done with it.
    pub(crate) fn with_idle(&self, py: Python<'_>, act: impl FnOnce(&mut T)) {
        if !self.is_here() {
            return;
        }
        if let Some(held) = self.held.try_borrow(py).as_mut().and_then(|held| held.as_deref_mut()) {
            act(held);
        }
    }
}

/// A number that no other thread of this process ever has.
fn this_thread() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    thread_local!(static NUMBER: u64 = LAST.fetch_add(1, Ordering::Relaxed));
    NUMBER.try_with(|number| *number).unwrap_or(u64::MAX)
}
