//! Wakes: how many were requested since the last WAKE event.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::event::{Event, EventKind};

/// Counts wakes. Lock-free and without allocation, so that a signal handler may call it.
#[derive(Default)]
pub(crate) struct Wake {
    requested: AtomicU64,
}

impl Wake {
    /// Counts one more. `true` for the first since the last event: a wait must be notified of it.
    pub(crate) fn request(&self) -> bool {
        self.requested.fetch_add(1, Ordering::SeqCst) == 0
    }

    /// The event of the wakes requested so far.
    pub(crate) fn take(&self) -> Option<Event> {
        match self.requested.swap(0, Ordering::SeqCst) {
            0 => None,
            requested => Some(Event::new(EventKind::Wake, 0, requested as i64)),
        }
    }

    pub(crate) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst) > 0
    }

    /// In a forked child: its parent's wakes are not its own.
    pub(crate) fn reset(&self) {
        self.requested.store(0, Ordering::Release);
    }
}
