//! The timer of a connection.

use std::io;
use std::time::Duration;

use super::connection::Connection;
use super::loop_context::LoopContext;
use super::timeouts::{Activity, Timeout};
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

    /// Which limit it has exceeded first, unless it lingers.
    pub(crate) fn exceeded(&self, context: &LoopContext) -> Option<Timeout> {
        let (deadline, which) = self.timeouts.soonest(self.activity(context.linger))?;
        (!self.is_lingering() && deadline <= context.clock.now()).then_some(which)
    }

    /// Whether the handler's timer is due, which happens once.
    pub(crate) fn take_due_alarm(&mut self, context: &LoopContext) -> bool {
        self.timeouts.take_due_alarm(&context.clock)
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

    /// Arms the timer for its deadline or alarm, if it has one. Its events carry `slot`.
    pub(crate) fn sync_timer(&mut self, slot: usize, context: &LoopContext) -> io::Result<()> {
        let deadline = self.timeouts.deadline(self.activity(context.linger));
        match deadline.into_iter().chain(self.timeouts.due()).min() {
            Some(soonest) => self.arm(soonest, slot, context),
            None => Ok(()),
        }
    }

    /// Arms the timer for a time, unless it expires before.
    pub(super) fn arm(&mut self, time: u64, slot: usize, context: &LoopContext) -> io::Result<()> {
        if self.is_armed(Some(time)) {
            return Ok(());
        }
        let delay = Duration::from_nanos(time.saturating_sub(context.clock.now()));
        let timer = self.timeouts.timer;
        // The poller forgets an expired one after many others.
        if timer == 0 || context.poller.timer_set(timer, delay, None).is_err() {
            self.timeouts.timer = context.poller.timer_add_reserved(delay, RESERVED_TOKENS + slot as u64)?;
        }
        self.timeouts.armed = time;
        Ok(())
    }

    /// The timer has expired.
    pub(crate) fn timer_expired(&mut self) {
        self.timeouts.armed = u64::MAX;
    }

    pub(crate) fn disarm(&mut self, context: &LoopContext) {
        let timer = std::mem::take(&mut self.timeouts.timer);
        if timer != 0 {
            // It is stale when it has just expired.
            let _ = context.poller.timer_cancel(timer);
        }
    }
}
