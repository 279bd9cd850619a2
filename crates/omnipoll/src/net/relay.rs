//! What a connection is to those that it is relayed to and from: see
//! [`Conn::relay_to`](crate::Conn::relay_to).

use std::num::NonZeroU32;

use super::account::Room;
use super::connection::{Connection, Stage};
use super::loop_context::LoopContext;
use crate::sys::socket;

/// The slot of another connection, if there is one, in a quarter of the memory of an `Option<usize>`: most
/// connections have none, and each has room for two.
#[derive(Debug, Default)]
pub(crate) struct Link(Option<NonZeroU32>);

impl Link {
    #[inline]
    pub(crate) fn slot(&self) -> Option<usize> {
        self.0.map(|above| above.get() as usize - 1)
    }

    #[inline]
    pub(crate) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Links to a slot, of which a loop has no more than 2^20. Returns the one before.
    pub(super) fn set(&mut self, slot: usize) -> Option<usize> {
        let before = self.slot();
        self.0 = NonZeroU32::new(slot as u32 + 1);
        before
    }

    /// Ends the link. Returns the slot.
    pub(crate) fn take(&mut self) -> Option<usize> {
        let before = self.slot();
        self.0 = None;
        before
    }
}

/// What became of bytes that were relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RelayWrite {
    /// All are sent, and nothing else has changed.
    Sent,
    /// All are sent or queued; with `is_held`, no more is to come for now.
    Queued { is_held: bool },
    /// Only so many: no more may be queued. The rest waits until the socket can take it.
    Part { taken: usize },
    /// The connection has ended.
    Ended,
}

/// What is relayed in pieces of at least this size is a flow after so many of them.
const LARGE: usize = 32 * 1024;
const LARGE_READS: u8 = 4;
/// Its socket can't be spliced from.
const NEVER: u8 = u8::MAX;

/// Large flows, which are cheaper to splice.
impl Connection {
    /// Whether what it receives is spliced to where it is relayed.
    #[inline]
    pub(crate) fn is_spliced(&self) -> bool {
        self.relay_to.is_some() && self.io.large_reads == LARGE_READS
    }

    /// So much was received at once and is relayed.
    pub(crate) fn note_relayed(&mut self, length: usize) {
        self.io.large_reads = match self.io.large_reads {
            NEVER => NEVER,
            _ if length < LARGE => 0,
            reads => (reads + 1).min(LARGE_READS),
        };
    }

    /// Whether bytes may be spliced to it: nothing is to be sent before them.
    pub(crate) fn can_take_splice(&self) -> bool {
        self.check_open().is_ok() && self.queue.is_empty() && !self.io.is_awaited
    }

    pub(crate) fn never_splice(&mut self) {
        self.io.large_reads = NEVER;
    }
}

impl Connection {
    /// Writes what another connection has received.
    pub(crate) fn write_relayed(&mut self, data: &[u8], context: &LoopContext) -> RelayWrite {
        if self.check_open().is_err() {
            return RelayWrite::Ended;
        }
        if self.io.is_awaited {
            // What came before waits.
            return RelayWrite::Part { taken: 0 };
        }
        let mut sent = 0;
        let may_queue = || matches!(self.queue.account().room(data.len()), Ok(Room::Enough));
        if self.can_send_directly(data.len(), context) || self.queue.is_empty() && !may_queue() {
            match self.send(context, |fd| socket::send(fd, data)) {
                Ok(count) => sent = count,
                Err(_) => return RelayWrite::Ended,
            }
        }
        let rest = &data[sent..];
        if rest.is_empty() {
            return match self.above_high_water {
                false => RelayWrite::Sent,
                true => RelayWrite::Queued { is_held: true },
            };
        }
        if self.reserve(rest.len()).is_err() || self.keep(context, |queue| queue.push(rest)).is_err() {
            self.io.is_awaited = true;
            return RelayWrite::Part { taken: sent };
        }
        RelayWrite::Queued { is_held: self.above_high_water }
    }

    /// Ends our direction once all is sent.
    pub(crate) fn shut_down(&mut self, context: &LoopContext) {
        if self.shutdown.is_none() {
            self.shutdown = Some(false);
            context.mailbox.set_shut(self.id);
        }
    }

    /// Ends it cleanly once all is sent.
    pub(crate) fn close(&mut self, context: &LoopContext) {
        if self.stage == Stage::Open {
            self.stage = Stage::Closing;
            context.mailbox.set_closing(self.id);
        }
    }

    /// The connection that this one is relayed to or from has ended.
    pub(crate) fn end_after_peer(&mut self, has_failed: bool, context: &LoopContext) {
        self.io.is_awaited = false;
        if self.is_ended() {
            return;
        }
        if has_failed {
            self.end_by_reset(libc::ECONNRESET);
        } else if !(self.peer_ended && self.shutdown.is_some()) {
            self.close(context);
        }
    }
}
