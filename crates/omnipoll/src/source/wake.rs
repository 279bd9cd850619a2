//! Wakes: how many were asked for since the last WAKE event.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::event::{Event, EventKind};

/// Counts wakes. Lock-free and without allocation, so that a signal handler may call it.
#[derive(Default)]
pub(crate) struct Wake {
    asked: AtomicU64,
}

impl Wake {
    /// Counts one more. `true` for the first that nobody has answered yet: somebody must be
    /// told of it.
    pub(crate) fn ask(&self) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst) == 0
    }

    /// The event of the wakes asked for, which is thereby answered.
    pub(crate) fn answer(&self) -> Option<Event> {
        match self.asked.swap(0, Ordering::SeqCst) {
            0 => None,
            asked => Some(Event::new(EventKind::Wake, 0, asked as i64)),
        }
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst) > 0
    }

    /// A forked child answers for none of its parent's wakes.
    pub(crate) fn forget(&self) {
        self.asked.store(0, Ordering::Release);
    }
}
