//! Descriptors: made above standard error and close-on-exec, replaced, asked whether they are open.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::check;
use crate::error::Describe;

/// The numbers below are standard input, output and error, also of a program that was started with
/// some of them closed: what it prints must not reach a client.
pub(crate) const FIRST_ABOVE_STDIO: RawFd = 3;

/// The same file with a number that no program takes for standard input, output or error: every
/// descriptor that the library makes goes through here.
#[inline]
pub(crate) fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() >= FIRST_ABOVE_STDIO {
        return Ok(fd);
    }
    // The standard library's duplicates begin at 3, and are closed by `exec`.
    fd.try_clone().describe("a descriptor can't be moved above 2")
}

/// The same for what owns its descriptor: those below are kept until one above them is made.
#[cfg(io_uring)]
pub(crate) fn make_above_stdio<T: AsRawFd>(make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let mut below = Vec::new();
    loop {
        let made = make()?;
        if made.as_raw_fd() >= FIRST_ABOVE_STDIO {
            return Ok(made);
        }
        below.push(made);
    }
}

/// Whether the number stands for an open file.
pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD takes no pointer; a bad number is an error, not a fault.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Makes the number of `old` stand for the file of `new`, atomically.
pub(crate) fn replace(new: &OwnedFd, old: &OwnedFd) -> io::Result<()> {
    loop {
        match check(dup_over(new.as_raw_fd(), old.as_raw_fd()), "dup3 failed") {
            // EBUSY: Linux, when another thread is about to open something.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) => {}
            result => return result.map(drop),
        }
    }
}

#[cfg(not(target_vendor = "apple"))]
fn dup_over(new: RawFd, old: RawFd) -> libc::c_int {
    // SAFETY: takes no pointer; both are open descriptors of ours.
    unsafe { libc::dup3(new, old, libc::O_CLOEXEC) }
}

#[cfg(target_vendor = "apple")]
fn dup_over(new: RawFd, old: RawFd) -> libc::c_int {
    // SAFETY: as above. dup2 clears the flag.
    match unsafe { libc::dup2(new, old) } {
        // SAFETY: takes no pointer.
        fd if fd >= 0 => unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) },
        error => error,
    }
}

/// A pipe's reading and writing end, both close-on-exec: at once, so that no other thread's exec
/// comes in between, where the system can do that.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    #[cfg(not(target_vendor = "apple"))]
    // SAFETY: pipe2 writes two numbers into an array of two.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, "pipe2 failed")?;
    #[cfg(target_vendor = "apple")]
    // SAFETY: as above.
    check(unsafe { libc::pipe(ends.as_mut_ptr()) }, "pipe failed")?;
    // SAFETY: the kernel has just given us these numbers.
    let [reader, writer] = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    #[cfg(target_vendor = "apple")]
    for end in [&reader, &writer] {
        // SAFETY: F_SETFD takes no pointer.
        check(unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) }, "fcntl failed")?;
    }
    Ok((above_stdio(reader)?, above_stdio(writer)?))
}

/// An eventfd: readable while its count is not 0, and writable.
#[cfg(target_os = "linux")]
pub(crate) fn eventfd(count: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd =
        check(unsafe { libc::eventfd(count, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }, "eventfd failed")?;
    // SAFETY: the kernel has just given us this number.
    above_stdio(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes an eventfd unreadable.
#[cfg(all(feature = "serve", io_uring))]
pub(crate) fn drain_eventfd(eventfd: &OwnedFd) {
    let mut count = 0u64;
    // SAFETY: `count` is writable for its length.
    unsafe { libc::read(eventfd.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
}

#[cfg(target_os = "linux")]
pub(crate) fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }, "epoll_create1 failed")?;
    // SAFETY: the kernel has just given us this number.
    above_stdio(unsafe { OwnedFd::from_raw_fd(fd) })
}
