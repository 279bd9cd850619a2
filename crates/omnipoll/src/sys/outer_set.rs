//! The descriptor that an outer loop watches: an `epoll(7)` of all by which something can come, which is
//! readable while one of them is. Nothing ever waits on it but the outer loop.
//!
//! It is not the engine's own descriptor, whose file is replaced at times: an epoll that watches a file
//! forgets it then without a word. Other systems have no equivalent.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;

#[cfg(not(target_os = "linux"))]
use crate::error::fail;
#[cfg(target_os = "linux")]
use crate::error::{errno, system};
#[cfg(target_os = "linux")]
use crate::sys::{descriptor::epoll_create, raw_syscalls, replace};

pub(crate) struct OuterSet(OwnedFd);

impl AsFd for OuterSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(target_os = "linux")]
impl OuterSet {
    pub(crate) fn new() -> io::Result<Self> {
        epoll_create().map(Self)
    }

    /// Makes it readable while `fd` is. One that is in it stays.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        match self.control(libc::EPOLL_CTL_ADD, fd) {
            0 => Ok(()),
            _ if errno() == libc::EEXIST => Ok(()),
            _ => Err(system("epoll_ctl failed")),
        }
    }

    /// The file of `fd` is about to be replaced. Nothing if it is not in it.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        self.control(libc::EPOLL_CTL_DEL, fd);
    }

    /// Gives a forked child an empty one of its own, under the same number.
    pub(crate) fn rebuild(&self) -> io::Result<()> {
        replace(&epoll_create()?, &self.0)
    }

    fn control(&self, operation: libc::c_int, fd: BorrowedFd<'_>) -> libc::c_int {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: the event lives through the call.
        unsafe { raw_syscalls::epoll_ctl(self.0.as_raw_fd(), operation, fd.as_raw_fd(), &mut event) }
    }
}

#[cfg(not(target_os = "linux"))]
impl OuterSet {
    pub(crate) fn new() -> io::Result<Self> {
        Err(fail(libc::ENOTSUP, "this system has no descriptor that stands for several"))
    }

    pub(crate) fn add(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn remove(&self, _: BorrowedFd<'_>) {}

    pub(crate) fn rebuild(&self) -> io::Result<()> {
        Ok(())
    }
}
