//! Connections that must begin with a header of the PROXY protocol: the handler learns of one when its header
//! is complete. See [`ServerOptions::proxy_header`](crate::ServerOptions::proxy_header).

use std::collections::TryReserveError;
use std::time::Duration;

use super::connections::Connections;
use super::handler::Handler;
use crate::net::driver::AnyDriver;
use crate::net::{parse_proxy_header, Counter, Parsed};

impl<H: Handler> Connections<H> {
    /// Waits for the header of a connection that was accepted.
    pub(super) fn await_header(&mut self, driver: &mut AnyDriver, slot: usize, within: Duration) {
        let connection = &mut self.table[slot];
        connection.awaits_header = true;
        // The handler's own timer, which it can't have set yet: other limits begin again at each byte.
        connection.timeouts.set_alarm(Some(within), &self.context.clock);
        self.update(driver, slot);
    }

    /// Takes what was read into the loop's buffer.
    pub(super) fn header_read(&mut self, slot: usize, length: usize) {
        let buffer = std::mem::take(&mut self.buffer);
        self.header_received(slot, &buffer[..length]);
        self.buffer = buffer;
    }

    /// Takes what has arrived. What follows a header is the first that the handler gets.
    pub(super) fn header_received(&mut self, slot: usize, bytes: &[u8]) {
        match self.parse_header(slot, bytes) {
            Ok(Parsed::Incomplete) => {}
            Ok(Parsed::Complete(_, endpoints)) => {
                self.table[slot].header_came(endpoints);
                self.table[slot].timeouts.set_alarm(None, &self.context.clock);
                if !self.admit(slot) {
                    return;
                }
                self.open(slot);
                if self.context.stopping.get() && !self.is_in_child() {
                    self.call(slot, |handler, conn, state, _| handler.on_stop(conn, state));
                }
                while !self.is_in_child() && self.deliver_unread(slot) {}
            }
            Ok(Parsed::Invalid) => self.refuse_header(slot),
            Err(_) => self.table[slot].end(Some(libc::ENOMEM)),
        }
    }

    /// Looks for a header in all that has arrived, and keeps what is not of it.
    fn parse_header(&mut self, slot: usize, bytes: &[u8]) -> Result<Parsed, TryReserveError> {
        let input = &mut self.table[slot].input;
        input.keep(bytes, true)?;
        let mut all = input.take();
        let parsed = parse_proxy_header(&all);
        if let Parsed::Complete(length, _) = parsed {
            all.drain(..length);
        }
        if !all.is_empty() {
            input.keep(&all, parsed == Parsed::Incomplete)?;
        }
        Ok(parsed)
    }

    /// Admits a connection by the address that its header has, or ends it.
    fn admit(&mut self, slot: usize) -> bool {
        let Some(admission) = &self.context.admission else { return true };
        let connection = &mut self.table[slot];
        match admission.admit(&connection.peer) {
            Ok(admitted) => connection.admitted = admitted.map(Box::new),
            Err(_) => connection.end_by_reset(libc::ECONNREFUSED),
        }
        !connection.is_ended()
    }

    /// Ends a connection that has no header, or not in time.
    pub(super) fn refuse_header(&mut self, slot: usize) {
        self.context.counters.add(Counter::Refused, 1);
        self.context.counters.add(Counter::RefusedHeader, 1);
        self.table[slot].end_by_reset(libc::EPROTO);
    }
}
