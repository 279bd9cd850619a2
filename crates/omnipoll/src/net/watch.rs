//! Keeps the registration and the timer of a connection in step with what it waits for.

use std::io;
use std::time::Duration;

use super::conn::Connection;
use super::site::Site;
use super::timeouts::Activity;
use crate::Interest;

impl Connection {
    /// What matters for its deadlines.
    #[inline]
    pub(crate) fn activity(&self, linger: Duration) -> Activity {
        Activity {
            is_reading: self.wants_input(),
            is_writing: !self.output.is_empty(),
            lingers: self.is_lingering().then_some(linger),
        }
    }

    /// Whether its deadline has passed.
    pub(crate) fn is_late(&self, site: &Site) -> bool {
        let deadline = self.timeouts.deadline(self.activity(site.linger));
        deadline.is_some_and(|deadline| deadline <= site.clock.now())
    }

    /// Whether it is plain, and has all that a plain one needs: nothing is to be done then.
    #[inline]
    pub(crate) fn is_settled(&self, site: &Site) -> bool {
        const READING: Activity = Activity { is_reading: true, is_writing: false, lingers: None };
        let is_read = match site.is_carried {
            true => self.is_received() && self.watched.is_none(),
            false => self.watched == Some(Interest::READ),
        };
        is_read && self.is_plain() && self.is_armed(self.timeouts.deadline(READING))
    }

    /// A timer that is early does no harm: it is armed anew when it expires.
    #[inline]
    fn is_armed(&self, deadline: Option<u64>) -> bool {
        deadline.is_none_or(|deadline| self.timeouts.timer != 0 && self.timeouts.armed <= deadline)
    }

    /// Brings both in step. Its events carry `token`.
    pub(crate) fn keep_step(&mut self, token: u64, site: &Site) -> io::Result<()> {
        let wanted = match site.is_carried {
            // A ring has no sendfile.
            true => self.output.is_file_next().then_some(Interest::WRITE),
            false => self.interest(),
        };
        match (self.watched, wanted) {
            (None, Some(interest)) => site.poller.add_raw(self.descriptor(), interest, token)?,
            (Some(_), None) => site.poller.remove_raw(self.descriptor())?,
            (Some(now), Some(interest)) if now != interest => {
                site.poller.modify_raw(self.descriptor(), interest, token)?;
            }
            _ => {}
        }
        self.watched = wanted;
        let deadline = self.timeouts.deadline(self.activity(site.linger));
        match deadline {
            Some(deadline) if !self.is_armed(Some(deadline)) => {
                self.disarm(site);
                let delay = Duration::from_nanos(deadline.saturating_sub(site.clock.now()));
                self.timeouts.timer = site.poller.timer_add(delay, None, token)?;
                self.timeouts.armed = deadline;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn disarm(&mut self, site: &Site) {
        let timer = std::mem::take(&mut self.timeouts.timer);
        if timer != 0 {
            // It is stale when it has just expired.
            let _ = site.poller.timer_cancel(timer);
        }
    }

    /// Ends both.
    pub(crate) fn unwatch(&mut self, site: &Site) {
        if self.watched.take().is_some() {
            let _ = site.poller.remove_raw(self.descriptor());
        }
        self.disarm(site);
    }
}
