//! [`LoopOptions`]: what holds for a loop and its connections.

use std::time::Duration;

use crate::{EngineKind, WaitPolicy};

/// What holds for an [`EventLoop`](crate::EventLoop) and its connections.
///
/// # Portability
///
/// Each option means the same on every system and engine.
///
/// ```
/// use omnipoll::{EngineKind, LoopOptions, PulledLoop};
/// use std::time::Duration;
///
/// let options = LoopOptions::new()
///     .engine(EngineKind::Poll)
///     .max_clients(10_000)
///     .queue_limit(1 << 20)
///     .total_queue_limit(64 << 20)
///     .water_marks(8 << 10, 32 << 10)
///     .idle_timeout(Duration::from_secs(60))
///     .linger(Duration::from_secs(1));
/// assert_eq!(PulledLoop::with_options(options)?.poller().engine(), EngineKind::Poll);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "`EventLoop::with_options` takes them"]
pub struct LoopOptions {
    pub(crate) engine: Option<EngineKind>,
    pub(crate) max_clients: Option<usize>,
    pub(crate) backlog: i32,
    pub(crate) queue_limit: usize,
    pub(crate) total_queue_limit: usize,
    pub(crate) high_water: usize,
    pub(crate) low_water: usize,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) read_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) linger: Duration,
    pub(crate) proxy_header: Option<Duration>,
    pub(crate) interruptible: bool,
    pub(crate) wait_policy: WaitPolicy,
}

impl Default for LoopOptions {
    fn default() -> Self {
        Self {
            engine: None,
            max_clients: None,
            backlog: 4096,
            queue_limit: 16 << 20,
            total_queue_limit: 256 << 20,
            high_water: 64 << 10,
            low_water: 16 << 10,
            idle_timeout: None,
            read_timeout: None,
            write_timeout: Some(Duration::from_secs(60)),
            linger: Duration::from_secs(2),
            proxy_header: None,
            interruptible: false,
            wait_policy: WaitPolicy::Balanced,
        }
    }
}

impl LoopOptions {
    /// The defaults that each option names.
    ///
    /// See the example of [`LoopOptions`].
    pub fn new() -> Self {
        Self::default()
    }

    /// The engine; without it, the best of this machine, or the one that `OMNIPOLL_ENGINE` names.
    pub fn engine(mut self, engine: EngineKind) -> Self {
        self.engine = Some(engine);
        self
    }

    /// How many accepted connections there may be at once. At the limit none is accepted: clients wait in
    /// the listening socket's queue. Without it, as many as the system allows. Connections out are not
    /// limited by it.
    pub fn max_clients(mut self, clients: usize) -> Self {
        self.max_clients = Some(clients);
        self
    }

    /// How many clients may wait in a listening socket's queue; the system has a limit of its own
    /// (`/proc/sys/net/core/somaxconn`). 4,096 by default.
    #[doc(alias = "listen")]
    #[doc(alias = "somaxconn")]
    pub fn backlog(mut self, clients: i32) -> Self {
        self.backlog = clients;
        self
    }

    /// How many bytes may wait to be sent on one connection; 16 MiB by default. See
    /// [`ServerOptions::queue_limit`](crate::ServerOptions::queue_limit).
    pub fn queue_limit(mut self, bytes: usize) -> Self {
        self.queue_limit = bytes;
        self
    }

    /// How many bytes may wait to be sent on all connections of the loop together; 256 MiB by default.
    pub fn total_queue_limit(mut self, bytes: usize) -> Self {
        self.total_queue_limit = bytes;
        self
    }

    /// While more than `high` bytes wait on a connection that was accepted nothing is read from it, until no
    /// more than `low` do; 16 KiB and 64 KiB by default. What was connected goes on reading: its peer may be
    /// a server that does the same. `EINVAL` when `low` is above `high`.
    pub fn water_marks(mut self, low: usize, high: usize) -> Self {
        self.low_water = low;
        self.high_water = high;
        self
    }

    /// How long a connection may be silent in both directions. None by default.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = timeout.into();
        self
    }

    /// How long a peer may send nothing while it is being read from. None by default.
    pub fn read_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.read_timeout = timeout.into();
        self
    }

    /// How long a peer may take none of what waits to be sent to it. A minute by default.
    pub fn write_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.write_timeout = timeout.into();
        self
    }

    /// How long the peer of a connection that was closed may take to read the rest. Two seconds by default.
    #[doc(alias = "SO_LINGER")]
    pub fn linger(mut self, time: Duration) -> Self {
        self.linger = time;
        self
    }

    /// Within which time each accepted connection must begin with a header of the PROXY protocol. None by
    /// default: none is expected. See [`ServerOptions::proxy_header`](crate::ServerOptions::proxy_header).
    #[doc(alias = "haproxy")]
    pub fn proxy_header(mut self, within: impl Into<Option<Duration>>) -> Self {
        self.proxy_header = within.into();
        self
    }

    /// Whether a signal whose handler has run ends [`PulledLoop::wait`](crate::PulledLoop::wait) with
    /// `EINTR`: for runtimes that handle their signals between calls. By handler it is
    /// [`Handler::on_interrupt`](crate::Handler::on_interrupt) that decides. Off by default: the wait goes
    /// on with the time that is left.
    #[doc(alias = "EINTR")]
    pub fn interruptible(mut self, interruptible: bool) -> Self {
        self.interruptible = interruptible;
        self
    }

    /// What a wait of the loop does before it sleeps; [`WaitPolicy::Balanced`] by default. On io_uring the
    /// loop's ring keeps it.
    pub fn wait_policy(mut self, policy: WaitPolicy) -> Self {
        self.wait_policy = policy;
        self
    }
}
