//! The descriptor by which one thread makes another's wait return.
//!
//! `eventfd(2)` on Linux: one descriptor, and writing to it never blocks in practice. A pipe
//! elsewhere; a full pipe is as good as a written one.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::descriptor::replace;
use crate::error::{bare, errno};

/// How often a waker is written to before a failure is believed: there is nothing else that would
/// reach the thread that sleeps. A pipe may be short of memory for a moment.
const TRIES: usize = 3;

pub(crate) struct Waker {
    reader: OwnedFd,
    /// The pipe's other end; an eventfd has none.
    writer: Option<OwnedFd>,
}

impl Waker {
    #[cfg(target_os = "linux")]
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { reader: super::descriptor::eventfd(0)?, writer: None })
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = super::descriptor::pipe()?;
        for end in [&reader, &writer] {
            // SAFETY: F_SETFL takes no pointer.
            let set = unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
            super::check(set, "fcntl failed")?;
        }
        Ok(Self { reader, writer: Some(writer) })
    }

    /// Makes it readable; it is so already when writing would block. Async-signal-safe: one
    /// write(2).
    pub(crate) fn wake(&self) -> io::Result<()> {
        if write_to_waker(self.write_fd()) {
            return Ok(());
        }
        match errno() {
            libc::EAGAIN => Ok(()),
            // A signal handler may be the caller.
            errno => Err(bare(errno)),
        }
    }

    /// Makes it unreadable until the next wake. False when it can't be read and stays readable.
    pub(crate) fn drain(&self) -> bool {
        let mut bytes = [0u8; 512];
        // SAFETY: `bytes` is writable for its length. An eventfd gives 8 bytes once; a pipe that
        // held more stays readable and is drained by the next wait.
        let count = unsafe { libc::read(self.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
        count >= 0 || errno() == libc::EAGAIN
    }

    /// Gives a forked child a waker of its own, under the same numbers.
    pub(crate) fn rebuild(&self) -> io::Result<()> {
        let new = Self::new()?;
        replace(&new.reader, &self.reader)?;
        match (&new.writer, &self.writer) {
            (Some(new), Some(old)) => replace(new, old),
            _ => Ok(()),
        }
    }

    /// The descriptor to write to.
    pub(crate) fn write_fd(&self) -> RawFd {
        self.writer.as_ref().unwrap_or(&self.reader).as_raw_fd()
    }

    pub(crate) fn owns(&self, fd: RawFd) -> bool {
        fd == self.as_raw_fd() || fd == self.write_fd()
    }
}

impl AsRawFd for Waker {
    /// The end to watch for READ.
    fn as_raw_fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }
}

/// Writes to a waker's [`Waker::write_fd`]; `false` with `errno` when that fails. Async-signal-safe.
pub(crate) fn write_to_waker(fd: RawFd) -> bool {
    let one = 1u64.to_ne_bytes();
    // SAFETY: `one` is readable for its length.
    let write = || unsafe { libc::write(fd, one.as_ptr().cast(), one.len()) };
    (0..TRIES).any(|_| write() >= 0)
}
