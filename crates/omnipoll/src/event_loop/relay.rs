//! Relays: what one connection receives is sent on by another of the same loop, without the handler.
//!
//! The one that receives is held, and reads nothing, while more than the high mark waits to be sent on,
//! or nothing more may be queued.

use super::connections::Connections;
use super::handler::Handler;
use crate::net::RelayWrite;

impl<H: Handler> Connections<H> {
    /// Sends on what `from` has received: the bytes are in the loop's buffer.
    #[cold]
    pub(super) fn relay_received(&mut self, from: usize, length: usize) {
        let buffer = std::mem::take(&mut self.buffer);
        self.relay(from, &buffer[..length]);
        self.buffer = buffer;
    }

    /// Sends on what `from` has received, and keeps there what can't be queued.
    pub(super) fn relay(&mut self, from: usize, data: &[u8]) {
        let Some(to) = self.table[from].relay_to else { return };
        let written = self.table[to].write_relayed(data, &self.context);
        let is_kept = match written {
            RelayWrite::Queued { is_held: false } => Ok(()),
            RelayWrite::Queued { is_held: true } => {
                self.table[from].is_held = true;
                Ok(())
            }
            RelayWrite::Part { taken } => {
                self.table[from].is_held = true;
                self.table[from].io.input.keep(&data[taken..], false)
            }
            // Its end ends `from` too.
            RelayWrite::Ended => Ok(()),
        };
        if is_kept.is_err() {
            self.table[from].end(Some(libc::ENOMEM));
        }
        self.touch(to);
    }

    /// The connection that is relayed to can take more.
    pub(super) fn resume_relay(&mut self, to: usize) {
        self.table[to].is_awaited = false;
        let Some(from) = self.table[to].relay_from else { return };
        if std::mem::replace(&mut self.table[from].is_held, false) {
            self.table[from].timeouts.note_read(&self.context.clock);
            self.touch(from);
        }
    }

    /// The peer of `from` has ended its direction: so does the connection that it is relayed to.
    pub(super) fn relay_end(&mut self, from: usize) {
        let Some(to) = self.table[from].relay_to else { return };
        self.table[to].shut_down(&self.context);
        self.touch(to);
    }

    /// A connection has ended: so does what it is relayed to or from. A reset is passed on; what is queued
    /// is sent after a clean end.
    pub(super) fn unlink_relays(&mut self, slot: usize) {
        let connection = &mut self.table[slot];
        let has_failed = connection.error.is_some();
        let linked = [connection.relay_to.take(), connection.relay_from.take()];
        for other in linked.into_iter().flatten().filter(|&other| other != slot) {
            let other_connection = &mut self.table[other];
            if other_connection.relay_to == Some(slot) {
                other_connection.relay_to = None;
            }
            if other_connection.relay_from == Some(slot) {
                other_connection.relay_from = None;
            }
            other_connection.is_held = false;
            other_connection.end_after_peer(has_failed, &self.context);
            self.touch(other);
        }
    }

    /// Has a connection followed up before the next wait.
    fn touch(&mut self, slot: usize) {
        self.table[slot].touch(slot, &self.context);
    }
}
