//! Who is in a system call, how often anybody was, and how many events that brought.
//!
//! Whoever brings something must know whether anybody sleeps, which takes one atomic addition
//! before a sleep and one after it. The counts for [`Stats`](crate::Stats) ride in the same
//! two, so that they cost nothing.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Linux has at most 2^22 threads.
const THREADS: u64 = 1 << 22;

#[derive(Default)]
pub(crate) struct Sleepers {
    /// How many looks have begun.
    begun: AtomicU64,
    /// How many looks have ended, and `THREADS` for each event they brought.
    ended: AtomicU64,
    /// Looks that began before this one may not know the soonest timer.
    informed: AtomicU64,
    /// How many of those are under way; at times more than there are, never fewer.
    outdated: AtomicU64,
}

/// A thread that is about to sleep, or sleeps.
pub(crate) struct Sleeper<'a> {
    all: &'a Sleepers,
    /// How many had begun before.
    ticket: u64,
    brought: usize,
}

impl Sleepers {
    #[inline]
    pub(crate) fn begin(&self) -> Sleeper<'_> {
        let ticket = self.begun.fetch_add(1, SeqCst);
        Sleeper { all: self, ticket, brought: 0 }
    }

    /// Says that those who sleep may sleep too long: there is a sooner timer. Returns whether
    /// there is anybody. Called by one thread at a time.
    pub(crate) fn outdate(&self) -> bool {
        // In this order: whoever gets up now either is not counted, or sees that he was.
        let informed = self.begun.load(SeqCst);
        let outdated = self.now().1;
        self.outdated.store(outdated, SeqCst);
        self.informed.store(informed, SeqCst);
        outdated > 0
    }

    /// Whether somebody may sleep too long.
    pub(crate) fn are_outdated(&self) -> bool {
        self.outdated.load(SeqCst) > 0 && self.are_there()
    }

    /// Whether somebody sleeps, or is about to.
    pub(crate) fn are_there(&self) -> bool {
        self.now().1 > 0
    }

    /// How many looks have begun, and how many events they brought: up to 2^42, then from 0.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let (begun, asleep, ended) = self.now();
        (begun, ended.wrapping_sub(begun - asleep) / THREADS)
    }

    /// Looks begun and under way, and `ended`, which is read first: who gets up meanwhile is
    /// taken for asleep, and nobody who sleeps is overlooked.
    fn now(&self) -> (u64, u64, u64) {
        let ended = self.ended.load(SeqCst);
        let begun = self.begun.load(SeqCst);
        (begun, begun.wrapping_sub(ended) % THREADS, ended)
    }

    /// In a forked child, where nobody sleeps.
    pub(crate) fn forget(&self) {
        self.begun.store(0, SeqCst);
        self.ended.store(0, SeqCst);
        self.informed.store(0, SeqCst);
        self.outdated.store(0, SeqCst);
    }
}

impl Sleeper<'_> {
    /// Ends the sleep, which brought that many events.
    #[inline]
    pub(crate) fn wake_with(mut self, events: usize) {
        self.brought = events;
    }
}

impl Drop for Sleeper<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.ticket < self.all.informed.load(SeqCst) {
            self.all.outdated.fetch_sub(1, SeqCst);
        }
        self.all.ended.fetch_add(1 + self.brought as u64 * THREADS, SeqCst);
    }
}
