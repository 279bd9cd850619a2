//! Timers on the wall clock, which may be set while they run.
//!
//! One `timerfd_create(2)` descriptor for all of a poller's: it becomes readable when the
//! soonest time has come, and when somebody sets the clock (`TFD_TIMER_CANCEL_ON_SET`, Linux
//! 3.0). Other systems have no equivalent.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{SystemTime, UNIX_EPOCH};

use super::timer::{Expired, Timers};
use crate::error::no_memory;

/// The wall-clock timers of one poller.
#[derive(Default)]
pub(crate) struct WallTimers {
    timers: Timers,
    timerfd: Option<OwnedFd>,
    /// The time it is set to.
    armed_for: Option<u64>,
}

impl WallTimers {
    /// Arms a timer for a time in nanoseconds since 1970 and returns its id.
    pub(crate) fn add(&mut self, time: u64, token: u64) -> io::Result<u64> {
        let id = self.timers.add(time, 0, token).map_err(no_memory)?;
        self.rearm().inspect_err(|_| _ = self.timers.cancel(id))?;
        Ok(id)
    }

    pub(crate) fn cancel(&mut self, id: u64) -> bool {
        self.timers.cancel(id)
    }

    /// How many are armed.
    pub(crate) fn len(&self) -> usize {
        self.timers.len()
    }

    /// Takes one timer whose time has come.
    pub(crate) fn expire(&mut self) -> Option<Expired> {
        self.timers.next()?;
        self.timers.expire(nanoseconds(SystemTime::now()))
    }

    /// The timerfd; makes one when there is none (true): the caller must watch it then.
    pub(crate) fn timerfd(&mut self) -> io::Result<(RawFd, bool)> {
        let is_new = self.timerfd.is_none();
        if is_new {
            self.timerfd = Some(new_timerfd()?);
        }
        Ok((self.timerfd.as_ref().map_or(-1, AsRawFd::as_raw_fd), is_new))
    }

    /// Closes the timerfd, which can't be watched.
    pub(crate) fn drop_timerfd(&mut self) {
        self.timerfd = None;
    }

    /// Reads the timerfd: the time has come, or the clock was set. It must be [armed again](Self::rearm).
    pub(crate) fn acknowledge(&mut self) {
        if let Some(timerfd) = &self.timerfd {
            drain(timerfd);
        }
        self.armed_for = None;
    }

    /// Sets the timerfd to the soonest time, unless it is.
    pub(crate) fn rearm(&mut self) -> io::Result<()> {
        let soonest = self.timers.next();
        if let Some(timerfd) = self.timerfd.as_ref().filter(|_| self.armed_for != soonest) {
            set(timerfd, soonest)?;
            self.armed_for = soonest;
        }
        Ok(())
    }

    /// Gives a forked child a timerfd of its own, under the same number.
    pub(crate) fn after_fork(&mut self) -> io::Result<()> {
        if let Some(timerfd) = &self.timerfd {
            crate::sys::replace(&new_timerfd()?, timerfd)?;
            self.armed_for = None;
        }
        self.rearm()
    }
}

/// Nanoseconds since 1970; 0 before that.
pub(crate) fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos().try_into().unwrap_or(u64::MAX))
}

#[cfg(target_os = "linux")]
fn new_timerfd() -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: takes no pointer.
    let fd = unsafe { libc::timerfd_create(libc::CLOCK_REALTIME, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) };
    if fd < 0 {
        return Err(crate::error::system("timerfd_create failed"));
    }
    // SAFETY: the kernel has just given us this number.
    crate::sys::above_stdio(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(target_os = "linux")]
fn set(timerfd: &OwnedFd, time: Option<u64>) -> io::Result<()> {
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
        _ => Err(crate::error::system("timerfd_settime failed")),
    }
}

/// The clock may have been set (`ECANCELED`): that needs no other answer.
#[cfg(target_os = "linux")]
fn drain(timerfd: &OwnedFd) {
    let mut count = 0u64;
    // SAFETY: `count` is writable for its length.
    unsafe { libc::read(timerfd.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
}

#[cfg(not(target_os = "linux"))]
fn new_timerfd() -> io::Result<OwnedFd> {
    Err(crate::error::fail(libc::ENOTSUP, "this system has no timer that follows the wall clock"))
}

#[cfg(not(target_os = "linux"))]
fn set(_: &OwnedFd, _: Option<u64>) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn drain(_: &OwnedFd) {}
