//! [`Model`] and [`ServerOptions`]: how a server serves.

use std::sync::Arc;
use std::time::Duration;

use super::restart::Restart;
use crate::event_loop::LoopOptions;
use crate::{EngineKind, WaitPolicy};

/// A way to serve many clients. The handler does not change with it; what its calls share does.
///
/// # Portability
///
/// Every model is available on every system and engine.
///
/// ```
/// use omnipoll::Model;
///
/// assert_eq!(Model::from_name("prefork"), Some(Model::Prefork));
/// assert_eq!(Model::from_number(5), Some(Model::Prefork));
/// assert_eq!(Model::Prefork.name(), "prefork");
/// assert!(Model::ALL.into_iter().filter(|model| model.forks()).eq([Model::Fork, Model::Prefork]));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Model {
    /// One loop in one thread, for all clients. No two calls run at once; all memory is shared.
    #[default]
    Reactor = 1,
    /// A loop for each core, each with its share of the clients. Memory is shared between
    /// threads.
    Cores = 2,
    /// A thread for each client. Memory is shared between threads.
    Thread = 3,
    /// A process for each client, forked when it is accepted. It sees memory as it was then, and its
    /// changes end with it. A crash ends one client.
    Fork = 4,
    /// A fixed set of processes, forked at the start, and again when one dies. Each has memory
    /// of its own and serves many clients.
    Prefork = 5,
}

impl Model {
    /// Every model.
    pub const ALL: [Self; 5] = [Self::Reactor, Self::Cores, Self::Thread, Self::Fork, Self::Prefork];

    /// Its name, in lower case.
    ///
    /// See the example of [`Model`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reactor => "reactor",
            Self::Cores => "cores",
            Self::Thread => "thread",
            Self::Fork => "fork",
            Self::Prefork => "prefork",
        }
    }

    /// The model of that name.
    ///
    /// See the example of [`Model`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|model| model.name() == name)
    }

    /// The model of that number in the C API.
    ///
    /// See the example of [`Model`].
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&model| model as u32 == number)
    }

    /// Whether clients are served in processes of their own.
    ///
    /// See the example of [`Model`].
    pub const fn forks(self) -> bool {
        matches!(self, Self::Fork | Self::Prefork)
    }
}

/// Calls the function it is given, which forks, and returns its result: the child's process number, or
/// 0 in the child. For a language whose runtime must prepare for a fork and repair itself afterwards.
pub type AroundFork = Arc<dyn Fn(&mut dyn FnMut() -> i32) -> i32 + Send + Sync>;

/// How a [`Server`](crate::Server) serves; the default is one loop on the best engine.
///
/// # Portability
///
/// Each option means the same on every system and engine, unless it says otherwise.
///
/// ```
/// use omnipoll::{Conn, Handler, Model, Server, ServerOptions};
/// use std::time::Duration;
///
/// # struct Echo;
/// # impl Handler for Echo {
/// #     type State = ();
/// #     fn on_open(&self, _: &mut Conn<'_>) -> std::io::Result<()> { Ok(()) }
/// #     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) { let _ = conn.write(data); }
/// # }
/// let options = ServerOptions::new()
///     .model(Model::Cores)
///     .workers(4)
///     .max_clients(10_000)
///     .backlog(512)
///     .queue_limit(1 << 20)
///     .total_queue_limit(64 << 20)
///     .water_marks(8 << 10, 32 << 10)
///     .idle_timeout(Duration::from_secs(60))
///     .read_timeout(Duration::from_secs(30))
///     .write_timeout(Duration::from_secs(20))
///     .linger(Duration::from_secs(1))
///     .signals(true)
///     .drain(Some(Duration::from_secs(5)));
/// let server = Server::with_options(Echo, options)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "`Server::with_options` takes them"]
pub struct ServerOptions {
    /// What holds for each of its loops.
    pub(super) each_loop: LoopOptions,
    pub(super) model: Model,
    pub(super) workers: Option<usize>,
    pub(super) reuse_port: Option<bool>,
    pub(super) pin_workers: bool,
    pub(super) signals: bool,
    pub(super) notify: bool,
    pub(super) restart: Option<Restart>,
    /// How many clients, and up to how many more.
    pub(super) clients_per_worker: Option<(u64, u64)>,
    pub(super) hang_timeout: Option<Duration>,
    pub(super) drain: Option<Duration>,
    pub(super) around_fork: Option<AroundFork>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            model: Model::Reactor,
            each_loop: LoopOptions::default(),
            workers: None,
            reuse_port: None,
            pin_workers: false,
            signals: false,
            notify: false,
            restart: None,
            clients_per_worker: None,
            hang_timeout: None,
            drain: Some(Duration::from_secs(10)),
            around_fork: None,
        }
    }
}

impl ServerOptions {
    /// One loop on the best engine, and the limits that each method names.
    ///
    /// See the example of [`ServerOptions`].
    pub fn new() -> Self {
        Self::default()
    }

    /// The model: [`Model::Reactor`] by default.
    ///
    /// See the example of [`ServerOptions`].
    pub fn model(mut self, model: Model) -> Self {
        self.model = model;
        self
    }

    /// The engine of every loop; without it as [`Poller::new`](crate::Poller::new) chooses.
    ///
    /// ```
    /// # use omnipoll::{Conn, Handler};
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type State = ();
    /// #     fn on_open(&self, _: &mut Conn<'_>) -> std::io::Result<()> { Ok(()) }
    /// #     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) { let _ = conn.write(data); }
    /// # }
    /// use omnipoll::{EngineKind, Server, ServerOptions};
    ///
    /// let server = Server::with_options(Echo, ServerOptions::new().engine(EngineKind::Poll))?;
    /// assert_eq!(server.handle().engine(), EngineKind::Poll);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn engine(mut self, engine: EngineKind) -> Self {
        self.each_loop = self.each_loop.engine(engine);
        self
    }

    /// For the bindings: all that holds for each of its loops.
    #[doc(hidden)]
    pub fn each_loop(mut self, options: LoopOptions) -> Self {
        self.each_loop = options;
        self
    }

    /// How many loops or processes there are under CORES and PREFORK: by default one for each core that
    /// this process may use.
    ///
    /// See the example of [`ServerOptions`].
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Whether each worker of CORES and PREFORK stays on a processor of its own: worker 0 on the first that the
    /// process may use, and so on, round and round. Under REACTOR the one loop stays on the first; THREAD and FORK
    /// have no workers. By default the system moves them.
    ///
    /// # Portability
    ///
    /// Linux's: `run` fails with `ENOTSUP` elsewhere.
    ///
    /// ```
    /// use omnipoll::{Model, ServerOptions};
    ///
    /// let options = ServerOptions::new().model(Model::Cores).pin_workers(true);
    /// ```
    #[doc(alias = "sched_setaffinity")]
    pub fn pin_workers(mut self, yes: bool) -> Self {
        self.pin_workers = yes;
        self
    }

    /// How many clients are served at once; those beyond wait in the listening socket's queue.
    /// By default 512 under THREAD and FORK, and no limit elsewhere. CORES and PREFORK give each worker
    /// an equal share.
    ///
    /// See the example of [`ServerOptions`].
    pub fn max_clients(mut self, clients: usize) -> Self {
        self.each_loop = self.each_loop.max_clients(clients);
        self
    }

    /// How many clients may wait to be accepted, as `listen(2)` takes it: 4,096 by default.
    /// The system's own limit (on Linux `net.core.somaxconn`) applies too.
    ///
    /// See the example of [`ServerOptions`].
    #[doc(alias = "listen")]
    #[doc(alias = "somaxconn")]
    pub fn backlog(mut self, clients: i32) -> Self {
        self.each_loop = self.each_loop.backlog(clients);
        self
    }

    /// Whether each worker has a listening socket of its own (SO_REUSEPORT): the system then
    /// gives each the same share of the clients. Without it they share one, on which the engine
    /// wakes one worker for each client where it can (EXCLUSIVE): they take turns, more or less,
    /// and no client has to wait for a worker that has died. By default with it under CORES and
    /// without it under PREFORK. Unix sockets, and those that were inherited, are always shared; so are all where
    /// the process has become another user's since it listened, who may not add to them.
    ///
    /// # Portability
    ///
    /// Linux shares the clients out; other systems may give all of them to one of the sockets.
    /// EXCLUSIVE is epoll's and io_uring's.
    ///
    /// ```
    /// use omnipoll::{Model, ServerOptions};
    ///
    /// // One socket, so that an idle core accepts while another is busy.
    /// let options = ServerOptions::new().model(Model::Cores).reuse_port(false);
    /// ```
    #[doc(alias = "SO_REUSEPORT")]
    pub fn reuse_port(mut self, yes: bool) -> Self {
        self.reuse_port = Some(yes);
        self
    }

    /// How many bytes may wait to be sent on one connection; a write beyond is `ENOBUFS`. 16 MiB
    /// by default.
    ///
    /// See the example of [`ServerOptions`].
    pub fn queue_limit(mut self, bytes: usize) -> Self {
        self.each_loop = self.each_loop.queue_limit(bytes);
        self
    }

    /// How many bytes may wait to be sent in the whole process; a write beyond is `ENOBUFS`.
    /// 256 MiB by default.
    ///
    /// See the example of [`ServerOptions`].
    pub fn total_queue_limit(mut self, bytes: usize) -> Self {
        self.each_loop = self.each_loop.total_queue_limit(bytes);
        self
    }

    /// While more than `high` bytes wait to be sent on a connection, nothing is read from it;
    /// when no more than `low` do, [`on_drain`](crate::Handler::on_drain) is called and reading
    /// resumes. 64 and 16 KiB by default.
    ///
    /// # Portability
    ///
    /// On io_uring the kernel may have received more by then,
    /// which is kept, and delivered when reading resumes: less than 128 KiB from Linux 6.17 on,
    /// and before that as much as arrives until the receive has been cancelled.
    ///
    /// ```
    /// # use omnipoll::{Conn, Handler};
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type State = ();
    /// #     fn on_open(&self, _: &mut Conn<'_>) -> std::io::Result<()> { Ok(()) }
    /// #     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) { let _ = conn.write(data); }
    /// # }
    /// use omnipoll::{Server, ServerOptions};
    ///
    /// Server::with_options(Echo, ServerOptions::new().water_marks(4096, 16384))?;
    /// let error = Server::with_options(Echo, ServerOptions::new().water_marks(16384, 4096)).unwrap_err();
    /// assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn water_marks(mut self, low: usize, high: usize) -> Self {
        self.each_loop = self.each_loop.water_marks(low, high);
        self
    }

    /// Ends a connection with `ETIMEDOUT` on which nothing was read or written for so long. The
    /// peer sees an end, or, if something was still to be sent, a reset, as with the other timeouts.
    ///
    /// See the example of [`ServerOptions`].
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.each_loop = self.each_loop.idle_timeout(timeout);
        self
    }

    /// Ends a connection with `ETIMEDOUT` from which nothing arrived for so long while it was
    /// being read.
    ///
    /// See the example of [`ServerOptions`].
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.each_loop = self.each_loop.read_timeout(timeout);
        self
    }

    /// Ends a connection with `ETIMEDOUT` on which bytes wait to be sent and none could be for
    /// so long: one minute by default, so that a client that never reads doesn't keep what waits
    /// for it indefinitely. `None`: no limit.
    ///
    /// ```
    /// use omnipoll::ServerOptions;
    /// use std::time::Duration;
    ///
    /// let options = ServerOptions::new().write_timeout(Duration::from_secs(10));
    /// let without_limit = ServerOptions::new().write_timeout(None);
    /// ```
    pub fn write_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.each_loop = self.each_loop.write_timeout(timeout);
        self
    }

    /// How long a closed connection waits for its peer to read what was sent and to end its
    /// direction too: two seconds by default. While the peer sends, the time starts again after each
    /// arrival, up to 15 times as long in all.
    ///
    /// See the example of [`ServerOptions`].
    #[doc(alias = "SO_LINGER")]
    pub fn linger(mut self, time: Duration) -> Self {
        self.each_loop = self.each_loop.linger(time);
        self
    }

    /// What the waits of its loops do before they sleep; [`WaitPolicy::Balanced`] by default.
    ///
    /// ```
    /// use omnipoll::{ServerOptions, WaitPolicy};
    /// use std::time::Duration;
    ///
    /// let min_wait = Duration::from_micros(500);
    /// let options = ServerOptions::new().wait_policy(WaitPolicy::Thrifty { min_wait });
    /// ```
    pub fn wait_policy(mut self, policy: WaitPolicy) -> Self {
        self.each_loop = self.each_loop.wait_policy(policy);
        self
    }

    /// Whether SIGTERM and SIGINT stop the server, with the [drain](ServerOptions::drain) set
    /// here; a second one ends it at once.
    ///
    /// See the example of [`ServerOptions`].
    #[doc(alias = "sigaction")]
    pub fn signals(mut self, yes: bool) -> Self {
        self.signals = yes;
        self
    }

    /// Whether the service manager is notified, where `NOTIFY_SOCKET` says that there is one:
    /// a unit of systemd of `Type=notify`. `READY=1` when every worker has begun to serve, `STOPPING=1` when the
    /// server begins to stop, and, with `WATCHDOG_USEC`, `WATCHDOG=1` at half of that time, by the loop in the
    /// thread that called [`Server::run`](crate::Server::run): under PREFORK the parent's. A message that
    /// can't be sent is left out. [`ServerHandle::notify`](crate::ServerHandle::notify) sends others.
    ///
    /// [`Server::with_options`](crate::Server::with_options) reads the environment: `EINVAL` when one of these
    /// variables makes no sense.
    ///
    /// See the example of [`ServerHandle::notify`](crate::ServerHandle::notify).
    #[doc(alias = "sd_notify")]
    #[doc(alias = "systemd")]
    pub fn notify(mut self, yes: bool) -> Self {
        self.notify = yes;
        self
    }

    /// How the server is replaced by a new process, when
    /// [`ServerHandle::restart`](crate::ServerHandle::restart) asks for it, or, with
    /// [`signals`](Self::signals), SIGHUP. Under CORES the loops share their listening sockets then: a client
    /// that waits at a socket of one loop would be lost with it.
    ///
    /// See the example of [`Restart`].
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = Some(restart);
        self
    }

    /// After how many clients a worker of PREFORK is replaced by another one: so many, and up to `jitter` more,
    /// so that not all are replaced at once. The new one serves before the old one stops accepting, and they
    /// are replaced one after another; the old one's clients have the [`drain`](Self::drain). For programs
    /// whose memory grows. No limit by default; without effect under other models.
    ///
    /// ```
    /// use omnipoll::{Model, ServerOptions};
    ///
    /// let options = ServerOptions::new().model(Model::Prefork).clients_per_worker(10_000, 1_000);
    /// ```
    pub fn clients_per_worker(mut self, clients: u64, jitter: u64) -> Self {
        self.clients_per_worker = Some((clients.max(1), jitter));
        self
    }

    /// After what time a worker of PREFORK whose loop does not turn is killed: one that is stuck in a callback,
    /// or stopped. It is replaced and counted as one that has died. The time begins when it is forked. The
    /// loop of each worker wakes four times in it. Off by default; without effect under other models.
    ///
    /// ```
    /// use omnipoll::{Model, ServerOptions};
    /// use std::time::Duration;
    ///
    /// let options = ServerOptions::new().model(Model::Prefork).hang_timeout(Duration::from_secs(30));
    /// ```
    pub fn hang_timeout(mut self, timeout: Duration) -> Self {
        self.hang_timeout = Some(timeout);
        self
    }

    /// How long clients may still be served after a signal, after a restart, or in a worker whose parent has
    /// died: ten seconds by default; `None` is no limit.
    ///
    /// See the example of [`ServerOptions`].
    pub fn drain(mut self, time: Option<Duration>) -> Self {
        self.drain = time;
        self
    }

    /// What to do around each fork; nothing by default.
    ///
    /// ```
    /// use omnipoll::{Model, ServerOptions};
    /// use std::sync::Arc;
    ///
    /// let options = ServerOptions::new().model(Model::Prefork).around_fork(Arc::new(|fork| {
    ///     // Prepare the runtime.
    ///     let child = fork();
    ///     if child == 0 {
    ///         // Repair the runtime.
    ///     }
    ///     child
    /// }));
    /// ```
    #[doc(alias = "fork")]
    #[doc(alias = "pthread_atfork")]
    pub fn around_fork(mut self, around: AroundFork) -> Self {
        self.around_fork = Some(around);
        self
    }
}

impl std::fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerOptions")
            .field("model", &self.model)
            .field("engine", &self.each_loop.engine)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_never_reads_is_reset_after_a_minute_by_default() {
        let minute = Duration::from_secs(60);
        assert_eq!(ServerOptions::new().each_loop.write_timeout, Some(minute));
        assert_eq!(ServerOptions::new().write_timeout(2 * minute).each_loop.write_timeout, Some(2 * minute));
        assert_eq!(ServerOptions::new().write_timeout(None).each_loop.write_timeout, None);
    }
}
