//! The waits in progress on a poller.

use omnipoll::process_epoch;

use crate::forking::is_forking_thread;
use crate::scoped_ref::this_thread;

/// By the thread that waits.
pub(crate) struct Waits {
    threads: Vec<usize>,
    /// The process whose threads these are, as [`process_epoch`] has it.
    process: u32,
}

impl Waits {
    pub(crate) fn none() -> Self {
        Self { threads: Vec::new(), process: process_epoch() }
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

    pub(crate) fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// Takes out the waits of threads that a fork has left in the parent, and returns how many.
    #[inline]
    pub(crate) fn drop_inherited(&mut self) -> usize {
        let process = process_epoch();
        if self.process == process {
            return 0;
        }
        self.process = process;
        let inherited = self.threads.len();
        self.threads.retain(|&thread| is_forking_thread(thread));
        inherited - self.threads.len()
    }
}
