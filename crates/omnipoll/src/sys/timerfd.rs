//! `timerfd_create(2)` on the wall clock: readable when its time has come, and when the clock is
//! set (`TFD_TIMER_CANCEL_ON_SET`, Linux 3.0).

use std::io;
use std::os::fd::OwnedFd;
#[cfg(target_os = "linux")]
use std::os::fd::{AsRawFd, FromRawFd};

#[cfg(not(target_os = "linux"))]
use crate::error::fail;
#[cfg(target_os = "linux")]
use crate::error::system;
#[cfg(target_os = "linux")]
use crate::sys::above_stdio;

#[cfg(target_os = "linux")]
pub(crate) fn new() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd = unsafe { libc::timerfd_create(libc::CLOCK_REALTIME, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) };
    if fd < 0 {
        return Err(system("timerfd_create failed"));
    }
    // SAFETY: the kernel has just given us this number.
    above_stdio(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets it to a time in nanoseconds since 1970, or disarms it.
#[cfg(target_os = "linux")]
pub(crate) fn set(timerfd: &OwnedFd, time: Option<u64>) -> io::Result<()> {
    // All zeroes disarms it; the year 1970 comes a nanosecond late.
    let time = time.map_or(0, |time| time.max(1));
    let value = libc::timespec {
        tv_sec: (time / 1_000_000_000) as libc::time_t,
        tv_nsec: (time % 1_000_000_000) as _,
    };
    let when = libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
    let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
    // SAFETY: `when` lives through the call.
    match unsafe { libc::timerfd_settime(timerfd.as_raw_fd(), flags, &when, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(system("timerfd_settime failed")),
    }
}

/// Makes it unreadable. The clock may have been set (`ECANCELED`): that needs no other answer.
#[cfg(target_os = "linux")]
pub(crate) fn drain(timerfd: &OwnedFd) {
    let mut count = 0u64;
    // SAFETY: `count` is writable for its length.
    unsafe { libc::read(timerfd.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn new() -> io::Result<OwnedFd> {
    Err(fail(libc::ENOTSUP, "this system has no timer that follows the wall clock"))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn set(_: &OwnedFd, _: Option<u64>) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn drain(_: &OwnedFd) {}
