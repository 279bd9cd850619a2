//! [`Mapping`]: zeroed memory of its own from `mmap(2)`.

use std::io;
use std::ptr::NonNull;

use crate::error::system;

/// Pages that belong to no file, all zero at first.
#[derive(Debug)]
pub(super) struct Mapping {
    memory: NonNull<u8>,
    length: usize,
}

impl Mapping {
    /// Memory of this process alone.
    #[cfg(io_uring)]
    pub(super) fn private(length: usize) -> io::Result<Self> {
        Self::new(length, libc::MAP_PRIVATE)
    }

    /// Memory that forked children share.
    pub(super) fn shared(length: usize) -> io::Result<Self> {
        Self::new(length, libc::MAP_SHARED)
    }

    /// `ENOMEM` as `mmap(2)` says.
    fn new(length: usize, kind: libc::c_int) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let memory = unsafe {
            libc::mmap(std::ptr::null_mut(), length, protection, kind | libc::MAP_ANONYMOUS, -1, 0)
        };
        if memory == libc::MAP_FAILED {
            return Err(system("mmap failed"));
        }
        let memory = NonNull::new(memory.cast()).expect("mmap without MAP_FIXED never returns NULL");
        Ok(Self { memory, length })
    }

    /// Its first byte, which is aligned to a page. The memory is there as long as `self`.
    #[inline]
    pub(super) fn start(&self) -> NonNull<u8> {
        self.memory
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and what refers to it ends before `self`.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.length) };
    }
}
