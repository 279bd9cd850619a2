//! A look at several descriptors at once: `poll(2)` that doesn't wait.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use libc::pollfd;

use crate::sys::descriptor as sys;

/// Descriptors to look at, and what was found, in the same order.
#[derive(Default)]
pub(super) struct Look {
    entries: Vec<pollfd>,
    /// How many answers were given.
    read: usize,
}

impl Look {
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.read = 0;
    }

    /// Adds a descriptor, and the bits of poll(2) that are asked for.
    pub(super) fn at(&mut self, fd: RawFd, bits: u32) {
        self.entries.push(pollfd { fd, events: bits as libc::c_short, revents: 0 });
    }

    /// Makes the system call, if there is anything to look at.
    pub(super) fn make(&mut self) -> io::Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        loop {
            match sys::poll(&mut self.entries, Some(Duration::ZERO)) {
                // Even a call that doesn't wait is interrupted if it found nothing.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(drop),
            }
        }
    }

    /// The bits found for the next of the descriptors.
    pub(super) fn next(&mut self) -> u16 {
        let entry = self.entries.get(self.read);
        self.read += 1;
        entry.map_or(0, |entry| entry.revents as u16)
    }
}
