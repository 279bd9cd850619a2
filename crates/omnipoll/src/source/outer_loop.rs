//! The outer loop that holds a poller: what it watches, and the timerfd that makes it readable for the
//! soonest timer, which is no more than a timeout to a wait.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

use super::UNARMED;
use crate::sys::timerfd::{self, Clock};
use crate::sys::{replace, OuterSet};

pub(crate) struct OuterLoop {
    pub(crate) set: Arc<OuterSet>,
    timerfd: OwnedFd,
    /// When the timerfd makes the set readable, in terms of [`Sources::now`](super::Sources::now). Never
    /// later than the soonest timer, outside of a wait. Written with the sources locked.
    armed_for: AtomicU64,
}

impl OuterLoop {
    pub(crate) fn new() -> io::Result<Self> {
        let (set, timerfd) = (Arc::new(OuterSet::new()?), timerfd::new(Clock::Monotonic)?);
        set.add(timerfd.as_fd())?;
        Ok(Self { set, timerfd, armed_for: AtomicU64::new(UNARMED) })
    }

    /// Sets the timerfd if it would be readable later than the soonest timer, or is so for one that is
    /// over. One that was moved to a later time or cancelled makes it readable once more, for nothing:
    /// timeouts are moved far more often than they pass.
    pub(super) fn follow(&self, soonest: u64, now: u64) {
        let armed_for = self.armed_for.load(Relaxed);
        if soonest < armed_for || (armed_for <= now && armed_for != soonest) {
            let delay = (soonest != UNARMED).then(|| Duration::from_nanos(soonest.saturating_sub(now)));
            // Should it fail, the next wait tries it again.
            if timerfd::set_after(&self.timerfd, delay).is_ok() {
                self.armed_for.store(soonest, Relaxed);
            }
        }
    }

    /// Gives a forked child a set and a timerfd of its own, under the same numbers.
    pub(super) fn after_fork(&self, soonest: u64, now: u64) -> io::Result<()> {
        self.set.rebuild()?;
        replace(&timerfd::new(Clock::Monotonic)?, &self.timerfd)?;
        self.set.add(self.timerfd.as_fd())?;
        self.armed_for.store(UNARMED, Relaxed);
        self.follow(soonest, now);
        Ok(())
    }
}
