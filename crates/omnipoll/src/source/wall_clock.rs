//! Timers on the wall clock, which may be set while they run.
//!
//! One `timerfd_create(2)` descriptor for all of a poller's: it becomes readable when the
//! soonest time has come, and when the clock is set (`TFD_TIMER_CANCEL_ON_SET`, Linux
//! 3.0). Other systems have no equivalent.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{SystemTime, UNIX_EPOCH};

use super::timer::{Expired, Timers};
use crate::error::no_memory;
use crate::sys::replace;
use crate::sys::timerfd::{self, Clock};

/// The wall-clock timers of one poller.
#[derive(Default)]
pub(crate) struct WallTimers {
    timers: Timers,
    timerfd: Option<OwnedFd>,
    /// The time that the timerfd is set to.
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
            self.timerfd = Some(timerfd::new(Clock::Wall)?);
        }
        Ok((self.timerfd.as_ref().map_or(-1, AsRawFd::as_raw_fd), is_new))
    }

    /// Closes the timerfd, which can't be watched.
    pub(crate) fn drop_timerfd(&mut self) {
        self.timerfd = None;
    }

    /// Reads the timerfd: the time has come, or the clock was set. It must be [armed again](Self::rearm).
    pub(crate) fn acknowledge(&mut self) {
        if let Some(fd) = &self.timerfd {
            timerfd::drain(fd);
        }
        self.armed_for = None;
    }

    /// Sets the timerfd to the soonest time, unless it is.
    pub(crate) fn rearm(&mut self) -> io::Result<()> {
        let soonest = self.timers.next();
        if let Some(fd) = self.timerfd.as_ref().filter(|_| self.armed_for != soonest) {
            timerfd::set(fd, soonest)?;
            self.armed_for = soonest;
        }
        Ok(())
    }

    /// Gives a forked child a timerfd of its own, under the same number.
    pub(crate) fn after_fork(&mut self) -> io::Result<()> {
        if let Some(fd) = &self.timerfd {
            replace(&timerfd::new(Clock::Wall)?, fd)?;
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
