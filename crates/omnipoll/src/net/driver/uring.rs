//! Where the kernel completes requests: a ring accepts, receives and sends. The loop waits in the
//! ring, which watches the loop's poller for all else.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::super::connection::Connection;
use super::super::io_state::Receive;
use super::super::listener::Listener;
use super::super::loop_context::LoopContext;
use super::{AcceptMode, Driver};
use crate::before_sleep;
use crate::errno::{self, ErrorClass};
use crate::error::plain;
use crate::poller::RESERVED_TOKENS;
use crate::sys::{connecting, signal_mask, Address, Chunk, Completion, CompletionRing};
use crate::{Events, Interest, Poller, WaitPolicy};

/// A ring sends many small writes with one system call, but has to keep a copy of each; from this size
/// on a system call of their own costs less.
pub(super) const MIN_DIRECT_WRITE: usize = 2 * 1024 + 1;

/// While a handler has no room for so much that was received, nothing more is.
const MAX_UNREAD: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Uring {
    ring: CompletionRing,
    /// Connections with something to send before the next wait.
    unsent: Vec<usize>,
    policy: WaitPolicy,
    /// The last wait ended because one of the poller's timers is due, or without a wait.
    is_poller_due: bool,
}

impl Uring {
    pub(super) fn new(policy: WaitPolicy) -> io::Result<Self> {
        let ring = CompletionRing::new(policy.busy_poll())?;
        Ok(Self { ring, unsent: Vec::new(), policy, is_poller_due: false })
    }

    /// Sleeps in the ring, for no longer than `limit`, as the policy says. False when the time was up.
    #[inline]
    fn sleep(&mut self, poller: &Poller, limit: Option<Duration>) -> io::Result<bool> {
        match self.policy {
            WaitPolicy::Latency { spin } if limit != Some(Duration::ZERO) => self.spin(poller, limit, spin),
            _ => self.ring.wait(limit),
        }
    }

    /// Looks for as long as `spin`, and sleeps.
    #[cold]
    fn spin(&mut self, poller: &Poller, limit: Option<Duration>, spin: Duration) -> io::Result<bool> {
        if self.look(poller)? {
            return Ok(true);
        }
        let began = Instant::now();
        // No longer than an Instant can show.
        let spin = limit.map_or(spin, |limit| limit.min(spin)).min(Duration::from_secs(1 << 32));
        // A signal that came between two looks would not end the sleep that follows.
        let (found, is_interrupted) =
            signal_mask::with_all_held_back(|| self.look_until(poller, began + spin));
        match found? {
            true => Ok(true),
            false if is_interrupted => Err(plain(libc::EINTR)),
            false => {
                before_sleep::call()?;
                self.ring.wait(limit.map(|limit| limit.saturating_sub(began.elapsed())))
            }
        }
    }

    fn look_until(&mut self, poller: &Poller, end: Instant) -> io::Result<bool> {
        while Instant::now() < end {
            if self.look(poller)? {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        Ok(false)
    }

    /// A look within a wait.
    fn look(&mut self, poller: &Poller) -> io::Result<bool> {
        poller.count_look();
        self.ring.wait(Some(Duration::ZERO))
    }
}

impl Driver for Uring {
    fn accept(
        &mut self,
        listener: &Listener,
        interest: Interest,
        token: u64,
        is_unlimited: bool,
        poller: &Poller,
    ) -> io::Result<AcceptMode> {
        if is_unlimited {
            self.ring.accept(listener.as_fd(), key_of(token))?;
            return Ok(AcceptMode::Multishot);
        }
        poller.add_reserved(listener.as_fd().as_raw_fd(), interest, token)?;
        Ok(AcceptMode::Polled)
    }

    fn cancel_accept(&mut self, token: u64) -> io::Result<()> {
        self.ring.cancel_accept(key_of(token))
    }

    /// A unix socket is connected at once, or its listener's queue is full: a request would take a thread of
    /// the kernel's to wait for that.
    fn connect(
        &mut self,
        socket: BorrowedFd<'_>,
        address: &Address,
        token: u64,
        _: &Poller,
    ) -> io::Result<bool> {
        if address.as_socket_addr().is_none() {
            return connecting::connect(socket, address).map(|()| true);
        }
        self.ring.connect(socket, key_of(token), address).map(|()| false)
    }

    /// A ring that takes no requests keeps the socket until the connect ends by itself.
    fn end_connect(&mut self, _: BorrowedFd<'_>, token: u64, _: &Poller) -> bool {
        let _ = self.ring.cancel_connect(key_of(token));
        true
    }

    fn sync(&mut self, connection: &mut Connection, slot: usize, context: &LoopContext) -> io::Result<()> {
        if !connection.io.is_sending && !connection.queue.is_empty() {
            self.unsent.push(slot);
        }
        let is_spliced = connection.is_spliced();
        match (connection.io.receive, connection.wants_input() && !is_spliced) {
            // Not while the handler has no room for what was received before.
            (Receive::Idle, true)
                if connection.input.length() < MAX_UNREAD || connection.input.is_incomplete() =>
            {
                self.ring.receive(connection.as_fd(), slot)?;
                connection.io.receive = Receive::Active;
            }
            (Receive::Active, false) => {
                self.ring.cancel_receive(slot)?;
                connection.io.receive = Receive::Cancelling;
            }
            _ => {}
        }
        // A ring has no sendfile.
        let waits = connection.queue.is_file_next() || connection.io.is_awaited;
        // What is spliced is read when the poller reports it, and nothing is received before.
        let reads = is_spliced && connection.wants_input() && !connection.io.is_receiving();
        let wanted = match (reads, waits) {
            (true, true) => Some(Interest::READ | Interest::WRITE),
            (true, false) => Some(Interest::READ),
            (false, true) => Some(Interest::WRITE),
            (false, false) => None,
        };
        let fd = connection.descriptor();
        connection.io.register(fd, wanted, slot, &context.poller)
    }

    #[inline]
    fn is_only_receiving(&self, connection: &Connection) -> bool {
        let io = &connection.io;
        io.receive == Receive::Active && connection.input.length() == 0 && io.registered.is_none()
    }

    #[inline]
    fn next_unsent(&mut self) -> Option<usize> {
        self.unsent.pop()
    }

    fn send(&mut self, connection: &mut Connection, slot: usize) -> io::Result<()> {
        if connection.io.is_sending {
            return Ok(());
        }
        if let Some((bytes, start)) = connection.queue.begin_send()? {
            self.ring.send(connection.as_fd(), slot, bytes, start)?;
            connection.io.is_sending = true;
        }
        Ok(())
    }

    fn cancel(&mut self, connection: &mut Connection, slot: usize, context: &LoopContext) {
        let fd = connection.descriptor();
        connection.io.unregister(fd, &context.poller);
        // A ring that takes no requests keeps the connection until its requests end.
        if connection.io.receive == Receive::Active && self.ring.cancel_receive(slot).is_ok() {
            connection.io.receive = Receive::Cancelling;
        }
        if connection.io.is_sending {
            let _ = self.ring.cancel_send(slot);
        }
    }

    /// One system call submits the requests and waits. The poller is asked only when it has events,
    /// or one of its timers is due.
    fn wait(&mut self, poller: &Poller, _: &mut Events, limit: Option<Duration>) -> io::Result<()> {
        // Without time the poller is asked in any case.
        let may_sleep = limit != Some(Duration::ZERO);
        if let (true, false, Some(descriptor)) = (may_sleep, self.ring.is_watching(), poller.descriptor()) {
            self.ring.watch(descriptor.as_raw_fd())?;
        }
        if let (WaitPolicy::Thrifty { min_wait }, true) = (self.policy, may_sleep) {
            self.ring.gather(poller.until_timer(min_wait, limit));
        }
        self.is_poller_due = poller.sleep_elsewhere(limit, |limit| {
            let is_done = self.sleep(poller, limit)?;
            Ok(!is_done || limit == Some(Duration::ZERO))
        })?;
        Ok(())
    }

    fn events(&mut self, waited: io::Result<()>, poller: &Poller, events: &mut Events) -> io::Result<()> {
        match waited {
            // The poller's events do not depend on the ring.
            Err(error) if errno::classify_wait(&error) == ErrorClass::Temporary => {
                match poller.wait(events, Some(Duration::ZERO))? {
                    0 => Err(error),
                    _ => Ok(()),
                }
            }
            Err(error) => Err(error),
            Ok(()) if self.is_poller_due || !self.ring.is_watching() => {
                poller.wait(events, Some(Duration::ZERO)).map(drop)
            }
            Ok(()) => {
                events.clear();
                Ok(())
            }
        }
    }

    fn embed(&self, poller: &Poller) -> io::Result<()> {
        poller.embed_with(self.ring.embed()?)
    }

    fn arm(&mut self) -> io::Result<bool> {
        self.ring.arm()
    }

    fn wait_for_completions(&mut self, limit: Duration) -> io::Result<()> {
        self.ring.wait(Some(limit)).map(drop)
    }

    #[inline]
    fn next(&mut self) -> Option<Completion> {
        self.ring.next()
    }

    #[inline]
    fn bytes(&self, chunk: &Chunk) -> &[u8] {
        self.ring.bytes(chunk)
    }

    #[inline]
    fn recycle(&mut self, chunk: Chunk) {
        self.ring.recycle(chunk);
    }
}

/// The ring's key for a token of the loop's: its lower half.
fn key_of(token: u64) -> usize {
    (token - RESERVED_TOKENS) as usize
}
