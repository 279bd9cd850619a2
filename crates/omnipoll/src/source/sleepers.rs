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
    /// Looks that began before this one don't know the soonest timer.
    informed: AtomicU64,
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

    /// Says that those who sleep sleep too long: there is a sooner timer. Returns whether
    /// there is anybody, of whom one must be rung for. He hands it on.
    pub(crate) fn outdate(&self) -> bool {
        self.informed.store(self.begun.load(SeqCst), SeqCst);
        self.are_there()
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
    }
}

impl Sleeper<'_> {
    /// Ends the sleep, which brought that many events. Returns whether it was outdated and
    /// somebody sleeps who may be outdated too: the bell that one has heard nobody else hears.
    #[inline]
    pub(crate) fn wake_with(mut self, events: usize) -> bool {
        self.brought = events;
        let (all, ticket) = (self.all, self.ticket);
        drop(self);
        ticket < all.informed.load(SeqCst) && all.are_there()
    }
}

impl Drop for Sleeper<'_> {
    #[inline]
    fn drop(&mut self) {
        self.all.ended.fetch_add(1 + self.brought as u64 * THREADS, SeqCst);
    }
}
