//! Counters that a process shares with the children it forks.

use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use crate::error::system;

/// An array of counters, all 0 at first, in memory that children inherit as one and the same:
/// `mmap(2)` with MAP_SHARED and MAP_ANONYMOUS.
#[derive(Debug)]
pub(crate) struct SharedWords {
    words: NonNull<AtomicU64>,
    length: usize,
}

// SAFETY: it owns its memory, and what is in it may be used from any thread.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// `ENOMEM` as `mmap(2)` says.
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        let bytes = length * size_of::<AtomicU64>();
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(system("mmap of the shared counters failed"));
        }
        let words = NonNull::new(memory.cast()).expect("mmap without MAP_FIXED never returns NULL");
        Ok(Self { words, length })
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is of this length, aligned to a page, zeroed by the kernel, and
        // lives as long as `self`. Atomics may be changed by other processes at any time.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.length) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference to it outlives `self`.
        unsafe { libc::munmap(self.words.as_ptr().cast(), self.length * size_of::<AtomicU64>()) };
    }
}
