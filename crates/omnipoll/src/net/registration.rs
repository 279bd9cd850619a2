//! Keeps the registration and the timer of a connection in step with what it waits for.

use std::io;
use std::time::Duration;

use super::conn::Connection;
use super::loop_context::LoopContext;
use super::timeouts::Activity;
use crate::Interest;

impl Connection {
    /// What matters for its deadlines.
    #[inline]
    pub(crate) fn activity(&self, linger: Duration) -> Activity {
        Activity {
            is_reading: self.wants_input(),
            is_writing: !self.queue.is_empty(),
            linger: self.is_lingering().then_some(linger),
        }
    }

    /// Whether its deadline has passed.
    pub(crate) fn is_late(&self, context: &LoopContext) -> bool {
        let deadline = self.timeouts.deadline(self.activity(context.linger));
        deadline.is_some_and(|deadline| deadline <= context.clock.now())
    }

    /// Whether it is plain, and has all that a plain one needs: nothing is to be done then.
    #[inline]
    pub(crate) fn is_up_to_date(&self, context: &LoopContext) -> bool {
        const READING: Activity = Activity { is_reading: true, is_writing: false, linger: None };
        let is_read = match context.uses_ring {
            true => self.is_receiving() && self.registered.is_none(),
            false => self.registered == Some(Interest::READ),
        };
        is_read && self.is_only_reading() && self.is_armed(self.timeouts.deadline(READING))
    }

    /// A timer that is early does no harm: it is armed anew when it expires.
    #[inline]
    fn is_armed(&self, deadline: Option<u64>) -> bool {
        deadline.is_none_or(|deadline| self.timeouts.timer != 0 && self.timeouts.armed <= deadline)
    }

    /// Brings both in step. Its events carry `token`.
    pub(crate) fn sync_registration(&mut self, token: u64, context: &LoopContext) -> io::Result<()> {
        let wanted = match context.uses_ring {
            // A ring has no sendfile.
            true => self.queue.is_file_next().then_some(Interest::WRITE),
            false => self.interest(),
        };
        match (self.registered, wanted) {
            (None, Some(interest)) => context.poller.add_raw(self.descriptor(), interest, token)?,
            (Some(_), None) => context.poller.remove_raw(self.descriptor())?,
            (Some(now), Some(interest)) if now != interest => {
                context.poller.modify_raw(self.descriptor(), interest, token)?;
            }
            _ => {}
        }
        self.registered = wanted;
        let deadline = self.timeouts.deadline(self.activity(context.linger));
        match deadline {
            Some(deadline) if !self.is_armed(Some(deadline)) => {
                self.disarm(context);
                let delay = Duration::from_nanos(deadline.saturating_sub(context.clock.now()));
                self.timeouts.timer = context.poller.timer_add(delay, None, token)?;
                self.timeouts.armed = deadline;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn disarm(&mut self, context: &LoopContext) {
        let timer = std::mem::take(&mut self.timeouts.timer);
        if timer != 0 {
            // It is stale when it has just expired.
            let _ = context.poller.timer_cancel(timer);
        }
    }

    /// Ends both.
    pub(crate) fn unregister(&mut self, context: &LoopContext) {
        if self.registered.take().is_some() {
            let _ = context.poller.remove_raw(self.descriptor());
        }
        self.disarm(context);
    }
}
