//! What can be registered: anything with a descriptor.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// Something with the number of a descriptor.
pub trait AsRawSource {
    /// The number.
    fn raw(&self) -> RawFd;
}

impl<T: AsRawFd> AsRawSource for &T {
    fn raw(&self) -> RawFd {
        self.as_raw_fd()
    }
}

impl AsRawSource for RawFd {
    fn raw(&self) -> RawFd {
        *self
    }
}

/// Something with a descriptor that stays open while it is borrowed.
pub trait AsSource: AsFd {
    /// The descriptor.
    fn source(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

impl<T: AsFd> AsSource for T {}
