//! The waits under way on a poller.

use crate::forking::{forks, made_the_fork};
use crate::loan::this_thread;

/// By the thread that waits.
pub(crate) struct Waits {
    threads: Vec<usize>,
    /// Those of [`forks`] that led to the process whose threads these are.
    forks: u32,
}

impl Waits {
    pub(crate) fn none() -> Self {
        Self { threads: Vec::new(), forks: forks() }
    }

    #[inline]
    pub(crate) fn begin(&mut self) {
        self.threads.push(this_thread());
    }

    #[inline]
    pub(crate) fn end(&mut self) {
        let ours = self.threads.iter().rposition(|&thread| thread == this_thread());
        ours.inspect(|&ours| _ = self.threads.swap_remove(ours));
    }

    pub(crate) fn are_none(&self) -> bool {
        self.threads.is_empty()
    }

    /// Takes out the waits of threads that a fork has left in the parent, and returns how many.
    #[inline]
    pub(crate) fn forget_the_parents(&mut self) -> usize {
        if self.forks == forks() {
            return 0;
        }
        self.forks = forks();
        let inherited = self.threads.len();
        self.threads.retain(|&thread| made_the_fork(thread));
        inherited - self.threads.len()
    }
}
