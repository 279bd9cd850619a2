//! The state of a connection.
//!
//! ```text
//! Open --close--> Closing --queue empty--> Lingering --peer ended, or time up--> Ended
//!   \______________________ an error, an abort, both sides shut down ______________/
//! ```

use std::io;
use std::num::NonZeroI32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::admission::Admitted;
use super::conn_id::ConnId;
use super::input::Input;
use super::io_state::IoState;
use super::loop_context::LoopContext;
use super::relay::Link;
use super::timeouts::Timeouts;
use super::write_queue::WriteQueue;
use crate::error::fail;
use crate::sys::{socket, socket_options, Address};
use crate::Interest;

/// How far a connection has got; it never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Both directions are in use.
    Open,
    /// It ends once the queue is empty.
    Closing,
    /// All is sent and our direction shut down; the peer's last bytes are discarded until it ends too.
    /// A socket closed with unread bytes is reset, and a reset takes from the peer what it had not
    /// read.
    Lingering,
    /// It waits to be removed.
    Ended,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) token: u64,
    pub(crate) is_outgoing: bool,
}

/// One connection, without what its handler keeps for it.
///
/// A loop with a thousand connections finds none of them in the processor's first cache. So what each message
/// needs lies in one cache line, from the last fields of `timeouts` to the first of `queue`, and what a read needs
/// besides in another. The first has the queue's capacity too, in which the compiler keeps the table's `None`:
/// that of `input` has a `None` of its own.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Connection {
    /// What was received before it was known that it is not wanted yet, or before its rest.
    pub(crate) input: Input,
    /// Its local address by the header of the PROXY protocol.
    pub(super) local: Option<Box<Address>>,
    /// What it counts as of its address.
    pub(crate) admitted: Option<Box<Admitted>>,
    /// The slot of the connection whose bytes this one sends on.
    pub(crate) relay_from: Link,
    /// Why it ended.
    error: Option<NonZeroI32>,
    pub(crate) timeouts: Timeouts,
    pub(super) socket: OwnedFd,
    /// The slot of the connection that sends on what this one receives.
    pub(crate) relay_to: Link,
    pub(super) stage: Stage,
    /// The handler does not know it before the header of the PROXY protocol has come.
    pub(crate) awaits_header: bool,
    /// The handler wants no data at present.
    pub(super) paused: bool,
    /// Nothing is read before there is time for it: see [`Timeouts::charge`].
    is_throttled: bool,
    /// More than the high mark was queued, and not yet less than the low one.
    pub(crate) above_high_water: bool,
    /// The peer has ended its direction.
    pub(crate) peer_ended: bool,
    /// Nothing is read: what was relayed waits to be sent.
    pub(crate) is_held: bool,
    /// Our direction ends once the queue is empty, or has ended: `Some(done)`.
    pub(super) shutdown: Option<bool>,
    /// What its driver has in progress.
    pub(crate) io: IoState,
    pub(crate) queue: WriteQueue,
    /// What listen or connect was given, unless the program has changed it.
    pub(crate) token: u64,
    /// Of [`Conn::context`](super::Conn::context).
    pub(crate) context: usize,
    pub(crate) id: ConnId,
    pub(crate) peer: Address,
    /// It was connected by this program, not accepted.
    pub(crate) is_outgoing: bool,
    /// Another callback than its own has reached it: its state is to be followed up.
    pub(crate) is_touched: bool,
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    const LINE: usize = 64;
    assert!(std::mem::offset_of!(Connection, timeouts.idle) == 2 * LINE);
    assert!(std::mem::offset_of!(Connection, queue) + size_of::<[usize; 3]>() == 3 * LINE);
    assert!(size_of::<Connection>() == 5 * LINE);
};

impl Connection {
    pub(crate) fn new(
        socket: OwnedFd,
        peer: Address,
        origin: Origin,
        id: ConnId,
        queue: WriteQueue,
        timeouts: Timeouts,
    ) -> Self {
        Self {
            input: Input::default(),
            local: None,
            admitted: None,
            relay_from: Link::default(),
            error: None,
            timeouts,
            socket,
            relay_to: Link::default(),
            stage: Stage::Open,
            awaits_header: false,
            paused: false,
            is_throttled: false,
            above_high_water: false,
            peer_ended: false,
            is_held: false,
            shutdown: None,
            io: IoState::default(),
            queue,
            token: origin.token,
            context: 0,
            id,
            peer,
            is_outgoing: origin.is_outgoing,
            is_touched: false,
        }
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    pub(crate) fn is_lingering(&self) -> bool {
        self.stage == Stage::Lingering
    }

    /// Whether the handler has closed it, and not all is sent yet.
    pub(crate) fn is_closing(&self) -> bool {
        self.stage == Stage::Closing
    }

    /// Ends it now; what is queued is not sent.
    pub(crate) fn end(&mut self, error: Option<i32>) {
        if self.stage != Stage::Ended {
            self.stage = Stage::Ended;
            self.error = error.and_then(NonZeroI32::new);
        }
    }

    /// Why it ended.
    pub(crate) fn error(&self) -> Option<i32> {
        self.error.map(NonZeroI32::get)
    }

    /// Whether it is open and reading, with nothing queued: the state of most after most callbacks.
    #[inline]
    pub(crate) fn is_only_reading(&self) -> bool {
        self.is_reading()
            && self.shutdown.is_none()
            && self.queue.is_empty()
            && !self.above_high_water
            && !self.io.is_awaited
    }

    /// Whether what arrives is read for the handler.
    #[inline]
    fn is_reading(&self) -> bool {
        self.stage == Stage::Open
            && !self.paused
            && (!self.above_high_water || self.reads_while_full())
            && !self.peer_ended
            && !self.is_held
            && !self.is_throttled
    }

    /// Whether it reads while more than the high mark waits to be sent. A client that was accepted does not: it
    /// is to read its answers first. A peer that this program has connected to may be such a server: if both
    /// waited for the other to read, neither would. Of a relay, the mark that counts is the other
    /// connection's.
    #[inline]
    fn reads_while_full(&self) -> bool {
        self.is_outgoing || self.relay_to.is_some()
    }

    /// Whether what arrives is read.
    #[inline]
    pub(crate) fn wants_input(&self) -> bool {
        self.is_reading() || self.stage == Stage::Lingering
    }

    /// Whether the handler gets its data.
    pub(crate) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// The interest that it needs.
    #[inline]
    pub(crate) fn interest(&self) -> Option<Interest> {
        match (self.wants_input(), !self.queue.is_empty() || self.io.is_awaited) {
            (true, true) => Some(Interest::READ | Interest::WRITE),
            (true, false) => Some(Interest::READ),
            (false, true) => Some(Interest::WRITE),
            (false, false) => None,
        }
    }

    /// Once the queue is empty: shuts down our direction if that was asked for, and moves on to the next
    /// stage.
    pub(crate) fn advance(&mut self) {
        if !self.queue.is_empty() || self.stage == Stage::Ended {
            return;
        }
        if self.shutdown == Some(false) || self.stage == Stage::Closing {
            self.shutdown = Some(true);
            // It fails when the peer has reset the connection, which the next read reports.
            let _ = socket::shutdown_write(self.socket.as_fd());
        }
        let both_ended = self.shutdown == Some(true) && self.peer_ended;
        match self.stage {
            _ if both_ended => self.stage = Stage::Ended,
            Stage::Closing => self.stage = Stage::Lingering,
            _ => {}
        }
    }

    /// Makes the close of the socket a reset, and discards what is queued.
    pub(crate) fn reset(&mut self) {
        // It fails on kinds of sockets that have no reset, which are just closed.
        let _ = socket_options::reset_on_close(self.socket.as_fd());
        self.queue.clear();
    }

    /// So many bytes were received.
    #[inline]
    pub(crate) fn note_received(&mut self, length: usize, context: &LoopContext) {
        context.counters.received(length as u64);
        self.timeouts.note_read(&context.clock);
        if let (Some(rate), false) = (context.max_receive_rate, self.is_outgoing) {
            self.is_throttled = self.timeouts.charge(length, rate, &context.clock);
        }
    }

    /// Reads again, if it is time for that.
    pub(crate) fn resume_if_due(&mut self, context: &LoopContext) {
        self.is_throttled = self.is_throttled && !self.timeouts.resume_if_due(&context.clock);
    }

    /// Its addresses are those of a proxy's header, if that has any.
    pub(crate) fn header_came(&mut self, endpoints: Option<(Address, Address)>) {
        self.awaits_header = false;
        if let Some((peer, local)) = endpoints {
            self.peer = peer;
            self.local = Some(Box::new(local));
        }
    }

    /// Ends it now, with a reset.
    pub(crate) fn end_by_reset(&mut self, errno: i32) {
        self.reset();
        self.end(Some(errno));
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub(super) fn check_open(&self) -> io::Result<()> {
        match self.stage {
            Stage::Open if self.shutdown.is_none() => Ok(()),
            _ => Err(fail(libc::EPIPE, "the connection is closing, or its sending side is shut down")),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
