//! What several descriptors are ready for at one moment: `poll(2)` that doesn't wait.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use libc::pollfd;

use crate::sys::poll::poll;

/// Descriptors to ask about, and the answers, in the same order.
#[derive(Default)]
pub(super) struct PollSnapshot {
    entries: Vec<pollfd>,
    /// How many answers were read.
    read: usize,
}

impl PollSnapshot {
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.read = 0;
    }

    /// Adds a descriptor, and the bits of poll(2) to ask for.
    pub(super) fn add(&mut self, fd: RawFd, bits: u32) {
        self.entries.push(pollfd { fd, events: bits as libc::c_short, revents: 0 });
    }

    /// Makes the system call, if there is any descriptor to ask about.
    pub(super) fn take(&mut self) -> io::Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        loop {
            match poll(&mut self.entries, Some(Duration::ZERO)) {
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
