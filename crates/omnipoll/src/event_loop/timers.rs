//! What a loop does when a connection's timer expires.

use super::connections::Connections;
use super::handler::Handler;
use crate::net::driver::AnyDriver;
use crate::net::Counter;

impl<H: Handler> Connections<H> {
    /// A connection's timer has expired: for the handler's own timer, for a limit, or early.
    pub(super) fn expire(&mut self, driver: &mut AnyDriver, slot: usize) {
        let Some(connection) = self.table.get_mut(slot) else { return };
        if connection.is_ended() {
            return;
        }
        connection.timer_expired();
        connection.resume_if_due(&self.context);
        if connection.take_due_alarm(&self.context) {
            if self.table[slot].awaits_header {
                return self.header_late(driver, slot);
            }
            self.call(slot, |handler, conn, state, _| handler.on_timer(conn, state));
        }
        if self.is_late(slot) {
            self.receive_before_limit(slot);
        }
        if self.is_late(slot) {
            self.limit_exceeded(slot);
        }
        self.update(driver, slot);
    }

    /// What has come while the loop was busy was in time. A driver that receives has returned it.
    fn receive_before_limit(&mut self, slot: usize) {
        if self.table[slot].wants_input() && !self.table[slot].io.is_receiving() {
            self.receive(slot);
        }
    }

    /// The time in which a header had to come is up.
    fn header_late(&mut self, driver: &mut AnyDriver, slot: usize) {
        self.receive_before_limit(slot);
        if self.table[slot].awaits_header && !self.table[slot].is_ended() {
            self.refuse_header(slot);
        }
        self.update(driver, slot);
    }

    fn is_late(&self, slot: usize) -> bool {
        let connection = &self.table[slot];
        !self.is_in_child() && !connection.is_ended() && connection.is_late(&self.context)
    }

    /// A connection has been silent for too long: ends it, unless the handler extends a limit or closes
    /// it itself.
    fn limit_exceeded(&mut self, slot: usize) {
        let connection = &mut self.table[slot];
        let Some(which) = connection.exceeded(&self.context) else {
            // It has lingered for long enough.
            return connection.end(None);
        };
        let was_open = connection.is_open();
        self.call(slot, |handler, conn, state, _| handler.on_timeout(conn, state, which));
        let is_late = self.is_late(slot);
        let connection = &mut self.table[slot];
        if was_open && connection.is_closing() {
            // What was written last has its whole time.
            connection.timeouts.restart(&self.context.clock);
        } else if is_late {
            self.context.counters.add(Counter::TimedOut, 1);
            connection.end_incomplete(libc::ETIMEDOUT, &self.context);
        }
    }
}
