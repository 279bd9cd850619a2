//! [`Pulse`]: what a worker process tells its parent.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::sys::{SharedWords, Waker};

/// Has begun to serve.
const SERVES: usize = 0;
const WORDS: usize = 1;

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

    /// In the worker: it begins to serve.
    pub(super) fn begin(&self) {
        self.words[SERVES].store(1, Ordering::Release);
        self.wake();
    }

    /// In the parent: whether the worker has begun to serve.
    pub(super) fn serves(&self) -> bool {
        self.words[SERVES].load(Ordering::Acquire) != 0
    }

    fn wake(&self) {
        // It fails only when the program has closed the descriptor.
        let _ = self.parent.wake();
    }
}
