//! What the waits of a poller count beside the [fast path](super::wait), for [`Stats`](super::Stats).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Rounds of waits that are no wait or no system call.
#[derive(Default)]
pub(super) struct WaitCounters {
    /// Rounds after the first of a wait.
    pub(super) retries: AtomicU64,
    /// Rounds that made no system call.
    pub(super) skipped: AtomicU64,
    /// Rounds that brought nothing before time was up.
    pub(super) spurious: AtomicU64,
    /// System calls within a round of the loop that waits elsewhere.
    pub(super) looks: AtomicU64,
}

impl WaitCounters {
    /// Counts a round that brought nothing and is followed by another.
    pub(super) fn count_retry(&self, left: Option<Duration>) {
        self.retries.fetch_add(1, Relaxed);
        if left != Some(Duration::ZERO) {
            self.spurious.fetch_add(1, Relaxed);
        }
    }

    /// In a forked child, everything is counted from 0.
    pub(super) fn reset(&self) {
        for count in [&self.retries, &self.skipped, &self.spurious, &self.looks] {
            count.store(0, Relaxed);
        }
    }
}
