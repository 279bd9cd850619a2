//! The counters of a server's workers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use crate::sys::SharedWords;

/// One counter of a worker.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(crate) enum Counter {
    Accepted,
    Closed,
    BytesIn,
    BytesOut,
    Refused,
    TimedOut,
    AcceptPauses,
    WritesRefused,
    DatagramsIn,
    DatagramsOut,
    DatagramsDropped,
    Restarts,
    RefusedHeader,
    RefusedFilter,
    RefusedAddress,
    RefusedRate,
}

/// Words a worker has: three cache lines, so that no two workers write to one.
const ROW: usize = 24;

/// The counters of all the workers, which forked ones share.
#[derive(Clone, Debug)]
pub(crate) struct Counters(Arc<SharedWords>);

impl Counters {
    pub(crate) fn new(workers: usize) -> std::io::Result<Self> {
        Ok(Self(Arc::new(SharedWords::new(workers * ROW)?)))
    }

    /// Those of one worker.
    pub(crate) fn of(&self, worker: usize) -> WorkerCounters {
        WorkerCounters { words: self.0.clone(), row: worker * ROW }
    }

    pub(crate) fn workers(&self) -> usize {
        self.0.len() / ROW
    }
}

/// The counters of one worker. Several threads may share them.
#[derive(Clone, Debug)]
pub(crate) struct WorkerCounters {
    words: Arc<SharedWords>,
    row: usize,
}

impl WorkerCounters {
    #[inline]
    fn word(&self, counter: Counter) -> &AtomicU64 {
        &self.words[self.row + counter as usize]
    }

    #[inline]
    pub(crate) fn add(&self, counter: Counter, more: u64) {
        self.word(counter).fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self, counter: Counter) -> u64 {
        self.word(counter).load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn received(&self, bytes: u64) {
        self.add(Counter::BytesIn, bytes);
    }

    #[inline]
    pub(crate) fn sent(&self, bytes: u64) {
        self.add(Counter::BytesOut, bytes);
    }

    /// Only so many clients are left of all that were accepted: the others ended with their process.
    pub(crate) fn leave_active(&self, active: u64) {
        self.word(Counter::Closed).store(self.get(Counter::Accepted) - active, Ordering::Relaxed);
    }
}
