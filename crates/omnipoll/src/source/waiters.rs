//! How many threads wait, how many rounds there were, and how many events they brought.
//!
//! A notifier must know whether any thread sleeps, which takes one atomic addition before a
//! sleep and one after it. The counts for [`Stats`](crate::Stats) share those two, so that they
//! cost nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// Linux has at most 2^22 threads.
const THREADS: u64 = 1 << 22;

#[derive(Default)]
pub(crate) struct Waiters {
    /// How many rounds have begun.
    begun: AtomicU64,
    /// How many rounds have ended, and `THREADS` for each event they brought.
    ended: AtomicU64,
    /// Rounds that began before this one may not know the soonest timer.
    informed: AtomicU64,
    /// How many of those are in progress; at times more than there are, never fewer.
    outdated: AtomicU64,
    /// An outer loop waits too, from now on.
    has_outer_loop: AtomicBool,
}

/// One round of a thread that sleeps, or is about to; it ends when this is dropped.
pub(crate) struct WaiterGuard<'a> {
    waiters: &'a Waiters,
    /// How many rounds had begun before.
    ticket: u64,
    events: usize,
}

impl Waiters {
    #[inline]
    pub(crate) fn begin(&self) -> WaiterGuard<'_> {
        let ticket = self.begun.fetch_add(1, SeqCst);
        WaiterGuard { waiters: self, ticket, events: 0 }
    }

    /// Marks the rounds in progress as outdated: there is a sooner timer than they know of.
    /// Returns whether there are any. Called by one thread at a time.
    pub(crate) fn outdate(&self) -> bool {
        // In this order: a round that ends now either is not counted, or sees that it was.
        let informed = self.begun.load(SeqCst);
        let outdated = self.snapshot().waiting;
        self.outdated.store(outdated, SeqCst);
        self.informed.store(informed, SeqCst);
        outdated > 0
    }

    /// Whether a thread may sleep past the soonest timer.
    pub(crate) fn any_outdated(&self) -> bool {
        self.outdated.load(SeqCst) > 0 && self.snapshot().waiting > 0
    }

    /// Whether a thread sleeps, or is about to.
    pub(crate) fn any(&self) -> bool {
        self.snapshot().waiting > 0 || self.has_outer_loop.load(SeqCst)
    }

    /// E1: from now on an outer loop sleeps, or is about to.
    pub(crate) fn add_outer_loop(&self) {
        self.has_outer_loop.store(true, SeqCst);
    }

    /// How many rounds have begun, and how many events they brought: up to 2^42, then from 0.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let Snapshot { begun, waiting, ended } = self.snapshot();
        (begun, ended.wrapping_sub(begun - waiting) / THREADS)
    }

    /// Reads `ended` first: a round that ends meanwhile is counted as waiting, and no thread that
    /// sleeps is overlooked.
    fn snapshot(&self) -> Snapshot {
        let ended = self.ended.load(SeqCst);
        let begun = self.begun.load(SeqCst);
        Snapshot { begun, waiting: begun.wrapping_sub(ended) % THREADS, ended }
    }

    /// In a forked child, where no thread waits.
    pub(crate) fn reset(&self) {
        for count in [&self.begun, &self.ended, &self.informed, &self.outdated] {
            count.store(0, SeqCst);
        }
    }
}

struct Snapshot {
    begun: u64,
    waiting: u64,
    ended: u64,
}

impl WaiterGuard<'_> {
    /// Ends the round, which brought that many events.
    #[inline]
    pub(crate) fn end_with(mut self, events: usize) {
        self.events = events;
    }
}

impl Drop for WaiterGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.ticket < self.waiters.informed.load(SeqCst) {
            self.waiters.outdated.fetch_sub(1, SeqCst);
        }
        self.waiters.ended.fetch_add(1 + self.events as u64 * THREADS, SeqCst);
    }
}
