//! How the connections of a loop do their input and output: the one place where a kernel that reports
//! readiness and a kernel that completes requests differ.
//!
//! | | [`readiness`] | [`uring`] |
//! |---|---|---|
//! | accept | the listener is registered for READ | a multishot request, or registered |
//! | connect | the socket is registered for WRITE | a request |
//! | receive | the connection is registered for READ | a multishot request |
//! | send | at once, and registered for WRITE while bytes are queued | a request before the next wait |
//! | wait | in the poller | in the ring, which watches the poller |
//!
//! What a driver completes by itself comes from [`Driver::next`]; all else are events of the poller.

mod readiness;
#[cfg(io_uring)]
mod uring;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use self::readiness::Readiness;
#[cfg(io_uring)]
use self::uring::Uring;
use super::connection::Connection;
use super::listener::Listener;
use super::loop_context::LoopContext;
#[cfg(io_uring)]
use crate::sys::CompletionRing;
use crate::sys::{Address, Chunk, Completion};
use crate::{EngineKind, Events, Interest, Poller, WaitPolicy};

/// How the connections to a listening socket are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptMode {
    /// Not at present: they wait in its queue.
    Paused,
    /// The poller reports that one waits.
    Polled,
    /// The kernel accepts them, until a completion without `more`.
    Multishot,
}

/// Input and output for the connections of one loop. `slot` is what its completions carry, and its
/// events [above the reserved tokens](crate::poller::RESERVED_TOKENS).
pub(crate) trait Driver {
    /// Starts to accept. With `is_unlimited` no other loop accepts from this listener, and there is no
    /// limit to the number of connections.
    fn accept(
        &mut self,
        listener: &Listener,
        interest: Interest,
        token: u64,
        is_unlimited: bool,
        poller: &Poller,
    ) -> io::Result<AcceptMode>;

    /// Ends a multishot accept. A last completion follows.
    fn cancel_accept(&mut self, token: u64) -> io::Result<()>;

    /// Starts to connect a socket; `true` when it is connected at once. Else that ends with an event of the
    /// poller, or with a completion: both carry `token`.
    fn connect(
        &mut self,
        socket: BorrowedFd<'_>,
        address: &Address,
        token: u64,
        poller: &Poller,
    ) -> io::Result<bool>;

    /// Ends what [`connect`](Self::connect) has started and no completion has ended; `true` when its
    /// completion follows, and the socket must stay open until then.
    fn end_connect(&mut self, socket: BorrowedFd<'_>, token: u64, poller: &Poller) -> bool;

    /// Starts or ends receiving and sending, as the connection's state requires.
    fn sync(&mut self, connection: &mut Connection, slot: usize, context: &LoopContext) -> io::Result<()>;

    /// Whether it is receiving and nothing else is in progress.
    fn is_only_receiving(&self, connection: &Connection) -> bool;

    /// The slot of a connection that has something to [`send`](Self::send) before the next wait.
    fn next_unsent(&mut self) -> Option<usize>;

    /// Starts to send what is queued first.
    fn send(&mut self, connection: &mut Connection, slot: usize) -> io::Result<()>;

    /// Ends all that is in progress for a connection that has ended.
    fn cancel(&mut self, connection: &mut Connection, slot: usize, context: &LoopContext);

    /// Waits for an event or a completion, for no longer than `limit`.
    fn wait(&mut self, poller: &Poller, events: &mut Events, limit: Option<Duration>) -> io::Result<()>;

    /// After a wait and its completions: the result of the wait, with the poller's events.
    fn events(&mut self, waited: io::Result<()>, poller: &Poller, events: &mut Events) -> io::Result<()>;

    /// Makes the descriptor of the embedded poller readable also for completions.
    fn embed(&self, poller: &Poller) -> io::Result<()>;

    /// Before an outer loop sleeps: submits what a wait would. True when there are completions already,
    /// for which the descriptor may not be readable.
    fn arm(&mut self) -> io::Result<bool>;

    /// Waits for completions alone.
    fn wait_for_completions(&mut self, limit: Duration) -> io::Result<()>;

    /// The next completion.
    fn next(&mut self) -> Option<Completion>;

    /// The bytes of a chunk.
    fn bytes(&self, chunk: &Chunk) -> &[u8];

    /// The chunk has been used.
    fn recycle(&mut self, chunk: Chunk);
}

/// Which driver a server uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DriverKind {
    Readiness,
    #[cfg(io_uring)]
    Uring,
}

impl DriverKind {
    /// The driver for an engine; without `many` there is one connection to each loop, which is not
    /// worth a ring of its own. Where the kernel has io_uring but not all that a ring for connections
    /// needs, its polls serve them.
    #[cfg(io_uring)]
    pub(crate) fn of(engine: EngineKind, many: bool) -> io::Result<Self> {
        let is_uring = many && engine == EngineKind::IoUring && CompletionRing::is_available()?;
        Ok(if is_uring { Self::Uring } else { Self::Readiness })
    }

    #[cfg(not(io_uring))]
    pub(crate) fn of(_: EngineKind, _: bool) -> io::Result<Self> {
        Ok(Self::Readiness)
    }

    /// The engine of the poller beside it, for all that a loop waits for but its connections.
    pub(crate) fn poller_engine(self, engine: EngineKind) -> EngineKind {
        match self {
            Self::Readiness => engine,
            #[cfg(io_uring)]
            Self::Uring => EngineKind::Epoll,
        }
    }

    /// The wait policy of the poller of a loop that has this one: it is kept where the loop waits.
    pub(crate) fn poller_policy(self, policy: WaitPolicy) -> WaitPolicy {
        match self {
            Self::Readiness => policy,
            #[cfg(io_uring)]
            Self::Uring => WaitPolicy::Balanced,
        }
    }

    /// Writes of at least so many bytes go to the socket at once if nothing is queued; shorter ones
    /// are queued, and sent together before the next wait.
    pub(crate) fn min_direct_write(self) -> usize {
        match self {
            Self::Readiness => 0,
            #[cfg(io_uring)]
            Self::Uring => uring::MIN_DIRECT_WRITE,
        }
    }
}

/// One of the drivers. There is one to a loop: its size does not matter.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)]
pub(crate) enum AnyDriver {
    Readiness(Readiness),
    #[cfg(io_uring)]
    Uring(Uring),
}

impl AnyDriver {
    /// `policy` is that of the loop.
    #[cfg_attr(not(io_uring), allow(unused_variables))]
    pub(crate) fn new(kind: DriverKind, policy: WaitPolicy) -> io::Result<Self> {
        Ok(match kind {
            DriverKind::Readiness => Self::Readiness(Readiness),
            #[cfg(io_uring)]
            DriverKind::Uring => Self::Uring(Uring::new(policy)?),
        })
    }
}

impl Driver for AnyDriver {
    #[inline]
    fn accept(
        &mut self,
        listener: &Listener,
        interest: Interest,
        token: u64,
        is_unlimited: bool,
        poller: &Poller,
    ) -> io::Result<AcceptMode> {
        match self {
            Self::Readiness(driver) => driver.accept(listener, interest, token, is_unlimited, poller),
            #[cfg(io_uring)]
            Self::Uring(driver) => driver.accept(listener, interest, token, is_unlimited, poller),
        }
    }

    #[inline]
    fn cancel_accept(&mut self, token: u64) -> io::Result<()> {
        match self {
            Self::Readiness(driver) => driver.cancel_accept(token),
            #[cfg(io_uring)]
            Self::Uring(driver) => driver.cancel_accept(token),
        }
    }

    fn connect(
        &mut self,
        socket: BorrowedFd<'_>,
        address: &Address,
        token: u64,
        poller: &Poller,
    ) -> io::Result<bool> {
        match self {
            Self::Readiness(driver) => driver.connect(socket, address, token, poller),
            #[cfg(io_uring)]
            Self::Uring(driver) => driver.connect(socket, address, token, poller),
        }
    }

    fn end_connect(&mut self, socket: BorrowedFd<'_>, token: u64, poller: &Poller) -> bool {
        match self {
            Self::Readiness(driver) => driver.end_connect(socket, token, poller),
            #[cfg(io_uring)]
            Self::Uring(driver) => driver.end_connect(socket, token, poller),
        }
    }

    #[inline]
    fn sync(&mut self, connection: &mut Connection, slot: usize, context: &LoopContext) -> io::Result<()> {
        match self {
            Self::Readiness(driver) => driver.sync(connection, slot, context),
            #[cfg(io_uring)]
            Self::Uring(driver) => driver.sync(connection, slot, context),
        }
    }

    #[inline]
    fn is_only_receiving(&self, connection: &Connection) -> bool {
        match self {
            Self::Readiness(driver) => driver.is_only_receiving(connection),
            #[cfg(io_uring)]
            Self::Uring(driver) => driver.is_only_receiving(connection),
        }
    }

    #[inline]
    fn next_unsent(&mut self) -> Option<usize> {
        match self {
            Self::Readiness(driver) => driver.next_unsent(),
            #[cfg(io_uring)]
            Self::Uring(driver) => driver.next_unsent(),
        }
    }

    #[inline]
    fn send(&mut self, connection: &mut Connection, slot: usize) -> io::Result<()> {
        match self {
            Self::Readiness(driver) => driver.send(connection, slot),
            #[cfg(io_uring)]
            Self::Uring(driver) => driver.send(connection, slot),
        }
    }

    #[inline]
    fn cancel(&mut self, connection: &mut Connection, slot: usize, context: &LoopContext) {
        match self {
            Self::Readiness(driver) => driver.cancel(connection, slot, context),
            #[cfg(io_uring)]
            Self::Uring(driver) => driver.cancel(connection, slot, context),
        }
    }

    #[inline]
    fn wait(&mut self, poller: &Poller, events: &mut Events, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Readiness(driver) => driver.wait(poller, events, limit),
            #[cfg(io_uring)]
            Self::Uring(driver) => driver.wait(poller, events, limit),
        }
    }

    #[inline]
    fn events(&mut self, waited: io::Result<()>, poller: &Poller, events: &mut Events) -> io::Result<()> {
        match self {
            Self::Readiness(driver) => driver.events(waited, poller, events),
            #[cfg(io_uring)]
            Self::Uring(driver) => driver.events(waited, poller, events),
        }
    }

    fn embed(&self, poller: &Poller) -> io::Result<()> {
        match self {
            Self::Readiness(driver) => driver.embed(poller),
            #[cfg(io_uring)]
            Self::Uring(driver) => driver.embed(poller),
        }
    }

    fn arm(&mut self) -> io::Result<bool> {
        match self {
            Self::Readiness(driver) => driver.arm(),
            #[cfg(io_uring)]
            Self::Uring(driver) => driver.arm(),
        }
    }

    #[inline]
    fn wait_for_completions(&mut self, limit: Duration) -> io::Result<()> {
        match self {
            Self::Readiness(driver) => driver.wait_for_completions(limit),
            #[cfg(io_uring)]
            Self::Uring(driver) => driver.wait_for_completions(limit),
        }
    }

    #[inline]
    fn next(&mut self) -> Option<Completion> {
        match self {
            Self::Readiness(driver) => driver.next(),
            #[cfg(io_uring)]
            Self::Uring(driver) => driver.next(),
        }
    }

    #[inline]
    fn bytes(&self, chunk: &Chunk) -> &[u8] {
        match self {
            Self::Readiness(driver) => driver.bytes(chunk),
            #[cfg(io_uring)]
            Self::Uring(driver) => driver.bytes(chunk),
        }
    }

    #[inline]
    fn recycle(&mut self, chunk: Chunk) {
        match self {
            Self::Readiness(driver) => driver.recycle(chunk),
            #[cfg(io_uring)]
            Self::Uring(driver) => driver.recycle(chunk),
        }
    }
}
