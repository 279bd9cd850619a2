//! [`LoopOptions`]: what holds for a loop and its connections.

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use crate::error::fail;
use crate::net::{AddressFilter, AddressLimits, AddressTable, KeepAlive, SocketSettings};
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
    pub(crate) allow: String,
    pub(crate) deny: String,
    pub(crate) max_address_clients: Option<u32>,
    pub(crate) max_address_rate: Option<u32>,
    pub(crate) max_receive_rate: Option<NonZeroU64>,
    pub(crate) settings: SocketSettings,
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
            allow: String::new(),
            deny: String::new(),
            max_address_clients: None,
            max_address_rate: None,
            max_receive_rate: None,
            settings: SocketSettings::default(),
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

    /// From which networks clients are accepted: `"10.0.0.0/8, 2001:db8::/32, 192.0.2.1"`; from all by
    /// default. See [`ServerOptions::allow`](crate::ServerOptions::allow).
    pub fn allow(mut self, networks: &str) -> Self {
        self.allow = networks.to_owned();
        self
    }

    /// From which networks none are, even if they are allowed.
    pub fn deny(mut self, networks: &str) -> Self {
        self.deny = networks.to_owned();
        self
    }

    /// How many accepted connections each address may have at once; without limit by default. See
    /// [`ServerOptions::max_address_clients`](crate::ServerOptions::max_address_clients).
    pub fn max_address_clients(mut self, clients: u32) -> Self {
        self.max_address_clients = Some(clients);
        self
    }

    /// How many new connections a second each address may make; without limit by default. See
    /// [`ServerOptions::max_address_rate`](crate::ServerOptions::max_address_rate).
    pub fn max_address_rate(mut self, clients: u32) -> Self {
        self.max_address_rate = Some(clients);
        self
    }

    /// How many bytes a second are read from a connection that was accepted; without limit by default. See
    /// [`ServerOptions::max_receive_rate`](crate::ServerOptions::max_receive_rate).
    pub fn max_receive_rate(mut self, bytes: u64) -> Self {
        self.max_receive_rate = NonZeroU64::new(bytes);
        self
    }

    /// As [`ServerOptions::keep_alive`](crate::ServerOptions::keep_alive).
    pub fn keep_alive(mut self, idle: Duration, interval: Duration, count: u32) -> Self {
        self.settings.keep_alive = Some(KeepAlive { idle, interval, count });
        self
    }

    /// As [`ServerOptions::no_delay`](crate::ServerOptions::no_delay).
    pub fn no_delay(mut self, yes: bool) -> Self {
        self.settings.delay = !yes;
        self
    }

    /// As [`ServerOptions::receive_buffer`](crate::ServerOptions::receive_buffer).
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.settings.receive_buffer = Some(bytes);
        self
    }

    /// As [`ServerOptions::send_buffer`](crate::ServerOptions::send_buffer).
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.settings.send_buffer = Some(bytes);
        self
    }

    /// As [`ServerOptions::defer_accept`](crate::ServerOptions::defer_accept).
    pub fn defer_accept(mut self, time: Duration) -> Self {
        self.settings.defer_accept = Some(time);
        self
    }

    /// As [`ServerOptions::fast_open`](crate::ServerOptions::fast_open).
    pub fn fast_open(mut self, clients: u32) -> Self {
        self.settings.fast_open = Some(clients);
        self
    }

    /// As [`ServerOptions::free_bind`](crate::ServerOptions::free_bind).
    pub fn free_bind(mut self, yes: bool) -> Self {
        self.settings.free_bind = yes;
        self
    }

    /// As [`ServerOptions::transparent`](crate::ServerOptions::transparent).
    pub fn transparent(mut self, yes: bool) -> Self {
        self.settings.transparent = yes;
        self
    }

    /// As [`ServerOptions::multicast`](crate::ServerOptions::multicast).
    pub fn multicast(mut self, groups: &str) -> Self {
        self.settings.multicast = groups.to_owned();
        self
    }

    /// As [`ServerOptions::unix_mode`](crate::ServerOptions::unix_mode).
    pub fn unix_mode(mut self, mode: u32) -> Self {
        self.settings.unix_mode = Some(mode);
        self
    }

    /// As [`ServerOptions::unix_owner`](crate::ServerOptions::unix_owner).
    pub fn unix_owner(mut self, user: Option<u32>, group: Option<u32>) -> Self {
        self.settings.unix_owner = Some((user, group));
        self
    }

    /// What its addresses are limited by, over so many workers, and processes of one client.
    pub(crate) fn address_limits(
        &self,
        workers: usize,
        processes: usize,
    ) -> io::Result<Option<Arc<AddressLimits>>> {
        if self.max_address_clients == Some(0) || self.max_address_rate == Some(0) {
            return Err(fail(libc::EINVAL, "an address must be allowed a client, and one a second"));
        }
        let filter = AddressFilter::new(&self.allow, &self.deny)?;
        let limits = (self.max_address_clients, self.max_address_rate);
        let table = match limits {
            (None, None) => None,
            (clients, rate) => Some(AddressTable::new(workers, clients, rate)?),
        };
        AddressLimits::new(filter, table, processes)
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
