//! The kernel's set, and the system calls on it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libc::{epoll_event, EBADF, EEXIST, ENOENT, EPERM, EPOLL_CTL_ADD};

use super::key::WAKER;
use crate::error::{errno, fail};
use crate::interest::Interest;
use crate::registry;
use crate::sys::descriptor::{epoll_create, replace};
use crate::sys::timeout::{milliseconds, timespec};
use crate::sys::{busy_poll, check, file, raw_syscalls, Waker};

pub(super) struct Set {
    fd: OwnedFd,
    /// `epoll_pwait2` is missing or forbidden here.
    coarse: AtomicBool,
}

impl Set {
    /// A set that holds the waker.
    pub(super) fn new(waker: &Waker, busy_poll: Option<Duration>) -> io::Result<Self> {
        let set = Self { fd: epoll_create()?, coarse: AtomicBool::new(false) };
        // Before Linux 6.9 it can't.
        busy_poll.map(|time| busy_poll::of_epoll(set.as_fd(), time));
        // Edge-triggered, so that it need not be read.
        let events = (libc::EPOLLIN | libc::EPOLLET) as u32;
        set.control_raw(EPOLL_CTL_ADD, waker.as_raw_fd(), events, WAKER).map_err(control_error)?;
        Ok(set)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Makes this set's number stand for `new`, atomically.
    pub(super) fn replace(&self, new: &Self) -> io::Result<()> {
        replace(&new.fd, &self.fd)
    }

    /// `epoll_ctl(2)`; on failure, its errno.
    pub(super) fn control(
        &self,
        operation: libc::c_int,
        fd: RawFd,
        interest: Interest,
        key: u64,
    ) -> Result<(), i32> {
        self.control_raw(operation, fd, epoll_bits(interest), key)
    }

    /// The same with the kernel's bits.
    pub(super) fn control_raw(
        &self,
        operation: libc::c_int,
        fd: RawFd,
        events: u32,
        key: u64,
    ) -> Result<(), i32> {
        let mut event = epoll_event { events, u64: key };
        // SAFETY: the event lives through the call, and a number that is no file is an error.
        match unsafe { raw_syscalls::epoll_ctl(self.fd.as_raw_fd(), operation, fd, &mut event) } {
            0 => Ok(()),
            _ => Err(errno()),
        }
    }

    /// Waits, with the finest clock there is, and returns how many events were written.
    ///
    /// # Safety
    /// `events` has room for `capacity` events.
    #[inline]
    pub(super) unsafe fn wait(
        &self,
        events: *mut epoll_event,
        capacity: libc::c_int,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let set = self.fd.as_raw_fd();
        let count = match timeout {
            Some(timeout) if !timeout.is_zero() && !self.coarse.load(Ordering::Relaxed) => {
                // SAFETY: as promised for `events`.
                unsafe { self.wait_nanoseconds(events, capacity, timeout) }
            }
            // SAFETY: as promised for `events`.
            _ => unsafe { raw_syscalls::epoll_wait(set, events, capacity, milliseconds(timeout)) },
        };
        check(count, "epoll_wait failed").map(|count| count as usize)
    }

    /// `epoll_pwait2`, and never again where it is missing (before Linux 5.11), or forbidden by a
    /// seccomp filter that is older.
    ///
    /// # Safety
    /// `events` has room for `capacity` events.
    #[inline(never)]
    unsafe fn wait_nanoseconds(
        &self,
        events: *mut epoll_event,
        capacity: libc::c_int,
        timeout: Duration,
    ) -> libc::c_int {
        let set = self.fd.as_raw_fd();
        let nanoseconds = timespec(timeout);
        let no_mask = std::ptr::null::<libc::sigset_t>();
        // SAFETY: as promised for `events`; the kernel only reads the timeout.
        let count =
            unsafe { libc::syscall(libc::SYS_epoll_pwait2, set, events, capacity, &nanoseconds, no_mask, 0) };
        if count < 0 && matches!(errno(), libc::ENOSYS | EPERM) {
            self.coarse.store(true, Ordering::Relaxed);
            // SAFETY: as promised for `events`.
            return unsafe { raw_syscalls::epoll_wait(set, events, capacity, milliseconds(Some(timeout))) };
        }
        count as libc::c_int
    }
}

/// What an errno of `epoll_ctl(2)` means to the caller.
pub(super) fn control_error(errno: i32) -> io::Error {
    match errno {
        EBADF => file::not_open(),
        EPERM => file::always_ready(),
        EEXIST => registry::already_registered(),
        ENOENT => registry::not_registered(),
        libc::EINVAL => {
            fail(errno, "epoll can't watch this descriptor so: is it its own, or EXCLUSIVE on an epoll?")
        }
        libc::ELOOP => fail(errno, "epolls would watch each other in a circle, or more than five deep"),
        libc::ENOSPC => fail(errno, "the limit /proc/sys/fs/epoll/max_user_watches is reached"),
        _ => fail(errno, "epoll_ctl failed"),
    }
}

pub(super) fn epoll_bits(interest: Interest) -> u32 {
    let mut bits = 0;
    if interest.contains(Interest::READ) {
        bits |= libc::EPOLLIN;
        if !interest.is_exclusive() {
            bits |= libc::EPOLLRDHUP;
        }
    }
    if interest.contains(Interest::WRITE) {
        bits |= libc::EPOLLOUT;
    }
    if interest.contains(Interest::PRIORITY) {
        bits |= libc::EPOLLPRI;
    }
    if interest.is_edge() {
        bits |= libc::EPOLLET;
    }
    if interest.is_oneshot() {
        bits |= libc::EPOLLONESHOT;
    }
    if interest.is_exclusive() {
        bits |= libc::EPOLLEXCLUSIVE;
    }
    bits as u32
}
