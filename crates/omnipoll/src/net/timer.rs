//! The timer of a connection.

use std::io;
use std::time::Duration;

use super::connection::Connection;
use super::loop_context::LoopContext;
use super::timeouts::Activity;
use crate::poller::RESERVED_TOKENS;

impl Connection {
    /// The part of its state that its deadlines depend on.
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

    /// Whether its timer expires no later than its deadline while it only reads. One that is early
    /// does no harm: it is armed again when it expires.
    #[inline]
    pub(crate) fn is_read_timer_armed(&self) -> bool {
        const READING: Activity = Activity { is_reading: true, is_writing: false, linger: None };
        !self.timeouts.limits_reading() || self.is_armed(self.timeouts.deadline(READING))
    }

    #[inline]
    fn is_armed(&self, deadline: Option<u64>) -> bool {
        deadline.is_none_or(|deadline| self.timeouts.timer != 0 && self.timeouts.armed <= deadline)
    }

    /// Arms the timer for its deadline, if it has one. Its events carry `slot`.
    pub(crate) fn sync_timer(&mut self, slot: usize, context: &LoopContext) -> io::Result<()> {
        let Some(deadline) = self.timeouts.deadline(self.activity(context.linger)) else { return Ok(()) };
        if self.is_armed(Some(deadline)) {
            return Ok(());
        }
        self.disarm(context);
        let delay = Duration::from_nanos(deadline.saturating_sub(context.clock.now()));
        self.timeouts.timer = context.poller.timer_add_reserved(delay, RESERVED_TOKENS + slot as u64)?;
        self.timeouts.armed = deadline;
        Ok(())
    }

    pub(crate) fn disarm(&mut self, context: &LoopContext) {
        let timer = std::mem::take(&mut self.timeouts.timer);
        if timer != 0 {
            // It is stale when it has just expired.
            let _ = context.poller.timer_cancel(timer);
        }
    }
}
