//! [`Pulse`]: what a worker process reports to its parent.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use crate::sys::{SharedWords, Waker};

/// How often its loop has shown that it turns; 0: it doesn't serve yet.
const BEATS: usize = 0;
/// It has served as many clients as it should, and asks to be replaced.
const ASKS_REPLACEMENT: usize = 1;
const WORDS: usize = 2;

/// Memory that a worker process shares with its parent, and what wakes the parent to look at it.
#[derive(Clone)]
pub(super) struct Pulse {
    words: Arc<SharedWords>,
    parent: Arc<Waker>,
}

impl Pulse {
    /// For one more worker. `ENOMEM` as `mmap(2)` says.
    pub(super) fn new(parent: &Arc<Waker>) -> io::Result<Self> {
        Ok(Self { words: Arc::new(SharedWords::new(WORDS)?), parent: parent.clone() })
    }

    fn word(&self, word: usize) -> &AtomicU64 {
        &self.words[word]
    }

    /// In the worker: it begins to serve.
    pub(super) fn begin(&self) {
        self.beat();
        self.wake();
    }

    /// In the worker: its loop turns.
    pub(super) fn beat(&self) {
        self.word(BEATS).fetch_add(1, Ordering::Release);
    }

    /// In the worker: another one should take its place.
    pub(super) fn ask_replacement(&self) {
        if self.word(ASKS_REPLACEMENT).swap(1, Ordering::Release) == 0 {
            self.wake();
        }
    }

    /// In the parent: how often it has beaten.
    pub(super) fn beats(&self) -> u64 {
        self.word(BEATS).load(Ordering::Acquire)
    }

    /// In the parent: whether the worker has begun to serve.
    pub(super) fn serves(&self) -> bool {
        self.beats() > 0
    }

    /// In the parent: whether another one should take its place.
    pub(super) fn asks_replacement(&self) -> bool {
        self.word(ASKS_REPLACEMENT).load(Ordering::Acquire) != 0
    }

    fn wake(&self) {
        // It fails only when the program has closed the descriptor.
        let _ = self.parent.wake();
    }
}
