//! The descriptor by which one thread makes another's wait return.
//!
//! `eventfd(2)` on Linux: one descriptor, and writing to it never blocks in practice. A pipe
//! elsewhere; a full pipe is as good as a written one.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::descriptor as sys;

pub(crate) struct Doorbell {
    reader: OwnedFd,
    /// The pipe's other end; an eventfd has none.
    writer: Option<OwnedFd>,
}

impl Doorbell {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = sys::notifier()?;
        Ok(Self { reader, writer })
    }

    /// Makes it readable. Async-signal-safe: one write(2).
    pub(crate) fn ring(&self) -> io::Result<()> {
        sys::notify(self.writer.as_ref().unwrap_or(&self.reader))
    }

    /// Makes it unreadable until the next ring. False when the system does not let it.
    pub(crate) fn silence(&self) -> bool {
        sys::drain(&self.reader)
    }

    /// Cuts a forked child's doorbell from its parent's, keeping the descriptors' numbers.
    pub(crate) fn rebuild(&self) -> io::Result<()> {
        let new = Self::new()?;
        sys::replace(&new.reader, &self.reader)?;
        match (&new.writer, &self.writer) {
            (Some(new), Some(old)) => sys::replace(new, old),
            _ => Ok(()),
        }
    }

    /// The descriptor to write to.
    pub(crate) fn bell(&self) -> RawFd {
        self.writer.as_ref().unwrap_or(&self.reader).as_raw_fd()
    }

    pub(crate) fn owns(&self, fd: RawFd) -> bool {
        fd == self.as_raw_fd() || self.writer.as_ref().is_some_and(|writer| fd == writer.as_raw_fd())
    }
}

impl AsRawFd for Doorbell {
    /// The end to watch for READ.
    fn as_raw_fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }
}
