//! Wakes: how many were asked for since the last WAKE event.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::Doorbell;

/// Counts wakes. Lock-free and without allocation, so that a signal handler may call it.
#[derive(Default)]
pub(crate) struct Wake {
    asked: AtomicU64,
}

impl Wake {
    /// Counts one more and rings, unless an earlier wake has rung and nobody has answered it.
    ///
    /// Counting comes first: whoever answers the bell after this line finds the wake. Should
    /// he find it before the bell has rung, the bell rings for nothing, which costs a look.
    pub(crate) fn ring(&self, doorbell: &Doorbell) -> io::Result<()> {
        match self.asked.fetch_add(1, Ordering::AcqRel) {
            0 => doorbell.ring(),
            _ => Ok(()),
        }
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
