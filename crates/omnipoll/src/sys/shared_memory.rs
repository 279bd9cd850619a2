//! Counters that a process shares with the children it forks.

use std::io;
use std::ops::Deref;
use std::sync::atomic::AtomicU64;

use super::mapping::Mapping;

/// An array of counters, all 0 at first, in memory that children inherit as one and the same.
#[derive(Debug)]
pub(crate) struct SharedWords {
    memory: Mapping,
    length: usize,
}

// SAFETY: it owns its memory, and what is in it may be used from any thread.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// `ENOMEM` as `mmap(2)` says.
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        Ok(Self { memory: Mapping::shared(length * size_of::<AtomicU64>())?, length })
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is of this length, aligned to a page, zeroed by the kernel, and
        // lives as long as `self`. Atomics may be changed by other processes at any time.
        unsafe { std::slice::from_raw_parts(self.memory.start().cast().as_ptr(), self.length) }
    }
}
