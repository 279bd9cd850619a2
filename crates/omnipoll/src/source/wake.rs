//! Wakes: how many were asked for since the last WAKE event.

use std::sync::atomic::{AtomicU64, Ordering};

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

    /// How many wakes the caller now answers for.
    pub(crate) fn answer(&self) -> u64 {
        self.asked.swap(0, Ordering::AcqRel)
    }

    /// A forked child answers for none of its parent's wakes.
    pub(crate) fn forget(&self) {
        self.asked.store(0, Ordering::Release);
    }
}
