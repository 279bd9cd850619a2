//! `timerfd_create(2)`: readable when its time has come; on the wall clock also when that is set
//! (`TFD_TIMER_CANCEL_ON_SET`, Linux 3.0).

use std::io;
use std::os::fd::OwnedFd;
#[cfg(target_os = "linux")]
use std::os::fd::{AsRawFd, FromRawFd};
#[cfg(target_os = "linux")]
use std::time::Duration;

#[cfg(not(target_os = "linux"))]
use crate::error::fail;
#[cfg(target_os = "linux")]
use crate::error::system;
#[cfg(target_os = "linux")]
use crate::sys::above_stdio;

/// What it goes by.
#[derive(Clone, Copy)]
pub(crate) enum Clock {
    /// That of `std::time::Instant`.
    Monotonic,
    /// That of `std::time::SystemTime`.
    Wall,
}

#[cfg(target_os = "linux")]
pub(crate) fn new(clock: Clock) -> io::Result<OwnedFd> {
    let clock = match clock {
        Clock::Monotonic => libc::CLOCK_MONOTONIC,
        Clock::Wall => libc::CLOCK_REALTIME,
    };
    // SAFETY: takes no pointer.
    let fd = unsafe { libc::timerfd_create(clock, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) };
    if fd < 0 {
        return Err(system("timerfd_create failed"));
    }
    // SAFETY: the kernel has just given us this number.
    above_stdio(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets one on the wall clock to a time in nanoseconds since 1970, or disarms it.
#[cfg(target_os = "linux")]
pub(crate) fn set(timerfd: &OwnedFd, time: Option<u64>) -> io::Result<()> {
    set_to(timerfd, time.map(Duration::from_nanos), libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET)
}

/// Sets it to a time from now, never early, or disarms it; it is unreadable until then.
#[cfg(target_os = "linux")]
pub(crate) fn set_after(timerfd: &OwnedFd, delay: Option<Duration>) -> io::Result<()> {
    set_to(timerfd, delay, 0)
}

#[cfg(target_os = "linux")]
fn set_to(timerfd: &OwnedFd, time: Option<Duration>, flags: libc::c_int) -> io::Result<()> {
    // All zeroes disarms it; what is over comes a nanosecond late.
    let time = time.map_or(Duration::ZERO, |time| time.max(Duration::from_nanos(1)));
    let value = libc::timespec {
        tv_sec: time.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: time.subsec_nanos() as _,
    };
    let when = libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
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
pub(crate) fn new(_: Clock) -> io::Result<OwnedFd> {
    Err(fail(libc::ENOTSUP, "this system has no timer that follows the wall clock"))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn set_after(_: &OwnedFd, _: Option<std::time::Duration>) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn set(_: &OwnedFd, _: Option<u64>) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn drain(_: &OwnedFd) {}
