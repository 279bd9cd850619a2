//! Delivering what has arrived in frames: see [`Conn::set_frame`](crate::Conn::set_frame).
//!
//! Frames that lie in what one read has returned are delivered from there, one after another. Only one
//! that is incomplete is copied, and what is not wanted yet.

use super::connections::Connections;
use super::handler::Handler;
use crate::net::Found;

/// What is left of bytes after their frames have been delivered.
struct Rest {
    delivered: usize,
    /// No frame ends in it.
    is_incomplete: bool,
}

impl<H: Handler> Connections<H> {
    /// Delivers the frames of what has just been read into the loop's buffer.
    #[inline(never)]
    pub(super) fn frames_received(&mut self, slot: usize, length: usize) {
        let buffer = std::mem::take(&mut self.buffer);
        self.deliver_frames_of(slot, &buffer[..length]);
        self.buffer = buffer;
    }

    /// Delivers the frames of what has just arrived, and keeps the rest.
    pub(super) fn deliver_frames_of(&mut self, slot: usize, bytes: &[u8]) {
        if self.deliver_or_keep(slot, bytes).is_err() {
            self.table[slot].end(Some(libc::ENOMEM));
        }
    }

    fn deliver_or_keep(
        &mut self,
        slot: usize,
        bytes: &[u8],
    ) -> Result<(), std::collections::TryReserveError> {
        let mut bytes = bytes;
        if self.table[slot].input.length() > 0 {
            let count = self.table[slot].input.complete(bytes)?;
            bytes = &bytes[count..];
            if self.table[slot].input.is_deliverable() {
                self.deliver_kept(slot);
            }
            if self.table[slot].input.length() > 0 {
                return match bytes {
                    [] => Ok(()),
                    bytes => self.table[slot].input.keep(bytes, false),
                };
            }
        }
        let Rest { delivered, is_incomplete } = self.deliver(slot, bytes);
        self.table[slot].input.keep_new(&bytes[delivered..], is_incomplete)
    }

    /// Delivers the frames of what is kept. Returns whether there was one.
    pub(super) fn deliver_kept(&mut self, slot: usize) -> bool {
        let taken = self.table[slot].input.take_kept();
        let Rest { delivered, is_incomplete } = self.deliver(slot, taken.bytes());
        self.table[slot].input.keep_rest(taken, delivered, is_incomplete);
        delivered > 0
    }

    /// The peer has ended its direction: delivers what is left, complete or not. Returns whether its end
    /// is to be delivered now.
    pub(super) fn deliver_last(&mut self, slot: usize) -> bool {
        if self.table[slot].input.is_deliverable() {
            self.deliver_kept(slot);
        }
        if !self.is_wanted(slot) {
            return false;
        }
        match self.table[slot].input.length() {
            0 => return true,
            length if length > self.handler.room() => {
                self.starved.push(slot);
                return false;
            }
            _ => {}
        }
        let rest = self.table[slot].input.take();
        self.table[slot].peer_ended = true;
        self.call(slot, |handler, conn, state, _| handler.on_data(conn, state, &rest));
        !self.is_in_child() && self.table[slot].is_open()
    }

    /// Delivers the frames of `bytes` for as long as they are wanted.
    fn deliver(&mut self, slot: usize, bytes: &[u8]) -> Rest {
        let mut delivered = 0;
        while delivered < bytes.len() && self.is_wanted(slot) {
            let rest = &bytes[delivered..];
            if self.table[slot].relay_to.is_some() {
                self.relay(slot, rest);
                return Rest { delivered: bytes.len(), is_incomplete: false };
            }
            let (rule, room) = (self.table[slot].input.rule(), self.handler.room());
            let length = match rule.find(&[], rest) {
                Found::Complete(length) if length <= room => length,
                Found::Complete(_) if rule.can_end_after(room) => room,
                Found::Complete(_) => {
                    self.starved.push(slot);
                    break;
                }
                Found::Incomplete => return Rest { delivered, is_incomplete: true },
                Found::TooLong => {
                    self.table[slot].end_incomplete(libc::EMSGSIZE, &self.context);
                    break;
                }
            };
            delivered += length;
            self.call(slot, |handler, conn, state, _| handler.on_data(conn, state, &rest[..length]));
        }
        Rest { delivered, is_incomplete: false }
    }

    fn is_wanted(&self, slot: usize) -> bool {
        let connection = &self.table[slot];
        !self.is_in_child() && connection.is_open() && connection.wants_input()
    }
}
