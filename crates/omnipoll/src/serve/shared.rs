//! What a server's loops share, with each other and with the threads that control the server.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::notifier::Notifier;
use super::options::{Model, ServerOptions};
use super::stats::ServerStats;
use crate::error::{bare, explain, fail, plain};
use crate::event_loop::{budget_of, Core};
use crate::net::driver::{AnyDriver, DriverKind};
use crate::net::{
    self, copy_of, passed, AddressLimits, Admission, Bound, Budget, ConnId, Counter, Counters, DatagramId,
    Groups, Mailbox, Reached, StopRequest,
};
use crate::sys::{fork, lock, SharedWords};
use crate::{EngineKind, Poller};

/// How many clients THREAD and FORK serve at once by default.
const MAX_CLIENTS: usize = 512;

/// What the loop of the thread that called `run` can be asked to do.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(super) enum Request {
    Restart,
    RestartWorkers,
}

/// How far a request is.
const NONE: u32 = 0;
const ASKED: u32 = 1;
const IN_PROGRESS: u32 = 2;

/// What a server's loops share.
pub(super) struct Shared {
    pub(super) options: ServerOptions,
    /// The poller of the loop that `run` runs in its own thread.
    pub(super) control: Arc<Poller>,
    /// The engine that the server was asked for.
    pub(super) engine: EngineKind,
    /// The driver of the loops that serve them.
    pub(super) driver_kind: DriverKind,
    pub(super) counters: Counters,
    /// What clients are limited by, by their addresses.
    pub(super) limits: Option<Arc<AddressLimits>>,
    pub(super) budget: Arc<Budget>,
    pub(super) groups: Arc<Groups>,
    pub(super) addresses: Mutex<Vec<String>>,
    /// The sockets as they were opened; the loops accept from duplicates, and siblings.
    pub(super) bound: Mutex<Vec<Bound>>,
    /// What the server was asked to listen on, and how many sockets each address stands for.
    pub(super) listening: Mutex<Vec<(String, usize)>>,
    loops: Mutex<Vec<Arc<Mailbox>>>,
    /// The process that may wait for these locks, as [`fork::epoch`] numbers it: the one that made the
    /// server, or that a model has forked while no thread held any. One that the program itself has forked
    /// may have inherited them locked.
    process: AtomicU32,
    /// How many loops the control loop must wake for a stop, and wait for.
    pub(super) other_loops: AtomicUsize,
    /// How many workers have begun to serve.
    pub(super) serving: AtomicUsize,
    requests: [AtomicU32; 2],
    /// The service manager, if there is one to notify.
    pub(super) notifier: Option<Notifier>,
    /// The stop of this process.
    stop: StopRequest,
    /// The stop of this process's children, the last error for which one of them could not serve, and that
    /// for which a worker has not started.
    for_children: SharedWords,
}

impl Shared {
    pub(super) fn new(options: ServerOptions, workers: usize) -> io::Result<Self> {
        let engine = options.each_loop.engine.map_or_else(EngineKind::auto, Ok)?;
        let many = !matches!(options.model, Model::Thread | Model::Fork);
        let driver_kind = DriverKind::of(engine, many)?;
        let poller_engine = driver_kind.poller_engine(engine);
        let budget = budget_of(&options.each_loop);
        let processes = match options.model {
            Model::Fork => options.each_loop.max_clients.unwrap_or(MAX_CLIENTS),
            _ => 0,
        };
        let notifier = if options.notify { Notifier::from_environment()? } else { None };
        Ok(Self {
            control: Arc::new(
                crate::Options::new()
                    .engine(poller_engine)
                    .interruptible(true)
                    .wait_policy(driver_kind.poller_policy(options.each_loop.wait_policy))
                    .reserve_tokens()
                    .build()?,
            ),
            engine,
            driver_kind,
            counters: Counters::new(workers)?,
            limits: options.each_loop.address_limits(workers, processes)?,
            budget: Arc::new(budget),
            groups: Arc::default(),
            addresses: Mutex::default(),
            bound: Mutex::default(),
            listening: Mutex::default(),
            loops: Mutex::default(),
            process: AtomicU32::new(fork::epoch()),
            other_loops: AtomicUsize::new(0),
            serving: AtomicUsize::new(0),
            requests: Default::default(),
            notifier,
            stop: StopRequest::default(),
            for_children: SharedWords::new(3)?,
            options,
        })
    }

    /// A poller for one more loop.
    pub(super) fn poller(&self) -> io::Result<Arc<Poller>> {
        let policy = self.driver_kind.poller_policy(self.options.each_loop.wait_policy);
        let options = crate::Options::new().engine(self.control.engine()).wait_policy(policy);
        Ok(Arc::new(options.reserve_tokens().build()?))
    }

    /// The driver of a loop that serves.
    pub(super) fn driver(&self) -> io::Result<AnyDriver> {
        AnyDriver::new(self.driver_kind, self.options.each_loop.wait_policy)
    }

    /// A server belongs to the process that made it, and to those that it forks itself.
    pub(super) fn check_owner(&self) -> io::Result<()> {
        let in_child = |_| fail(libc::EOWNERDEAD, "the server belongs to the parent process: make another");
        self.control.check_owner().map_err(in_child)
    }

    pub(super) fn register_loop(&self, mailbox: Arc<Mailbox>) {
        lock(&self.loops).push(mailbox);
    }

    /// The loop of this mailbox has ended, and with it all its connections.
    pub(super) fn close_mailbox(&self, mailbox: &Arc<Mailbox>) {
        lock(&self.loops).retain(|other| !Arc::ptr_eq(other, mailbox));
        net::close_mailbox(mailbox);
    }

    /// Whether this process serves, and may wait for the locks. Async-signal-safe.
    pub(super) fn is_of_this_process(&self) -> bool {
        self.process.load(Ordering::Relaxed) == fork::epoch()
    }

    /// Locks, unless a child that the program has forked would wait for a thread it doesn't have.
    pub(super) fn try_lock<'a, T>(&self, mutex: &'a Mutex<T>) -> Option<MutexGuard<'a, T>> {
        if self.is_of_this_process() {
            Some(lock(mutex))
        } else {
            mutex.try_lock().ok()
        }
    }

    /// In a child that a model has forked: it serves from now on, and has neither its parent's loops nor
    /// its listening sockets.
    pub(super) fn after_fork(&self) {
        self.process.store(fork::epoch(), Ordering::Relaxed);
        lock(&self.loops).clear();
        lock(&self.bound).clear();
    }

    /// Whether each worker has listening sockets of its own.
    pub(super) fn reuses_ports(&self) -> bool {
        let is_default = self.options.model == Model::Cores && self.options.restart.is_none();
        self.counters.workers() > 1 && self.options.reuse_port.unwrap_or(is_default)
    }

    /// Whether somebody wants to know about its life, or it may be replaced: what
    /// [`Lifecycle`](super::lifecycle::Lifecycle) is for.
    pub(super) fn has_lifecycle(&self) -> bool {
        self.notifier.is_some() || self.options.restart.is_some() || passed::is_awaited()
    }

    /// In the thread of a worker of this process: it begins to serve.
    pub(super) fn worker_serves(&self) {
        self.serving.fetch_add(1, Ordering::Release);
        if self.has_lifecycle() {
            // In a process that a model has forked, what reports is in the parent.
            let _ = self.control.wake();
        }
    }

    /// Whether every worker has begun to serve.
    pub(super) fn serves(&self) -> bool {
        let workers = match self.options.model {
            Model::Thread | Model::Fork => 0,
            _ => self.counters.workers(),
        };
        self.serving.load(Ordering::Acquire) >= workers
    }

    /// Asks for something: `EALREADY` while that is in progress, `EOWNERDEAD` in a forked child.
    /// Async-signal-safe.
    pub(super) fn ask(&self, request: Request) -> io::Result<()> {
        // Without words: the handler of a signal may have called.
        if !self.control.is_owner() {
            return Err(bare(libc::EOWNERDEAD));
        }
        let state = &self.requests[request as usize];
        state
            .compare_exchange(NONE, ASKED, Ordering::SeqCst, Ordering::SeqCst)
            .map_err(|_| bare(libc::EALREADY))?;
        self.control.wake()
    }

    /// Whether it is asked for; it is in progress then, until [`finish`](Self::finish).
    pub(super) fn take_request(&self, request: Request) -> bool {
        let state = &self.requests[request as usize];
        state.load(Ordering::Relaxed) == ASKED
            && state.compare_exchange(ASKED, IN_PROGRESS, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    pub(super) fn is_in_progress(&self, request: Request) -> bool {
        self.requests[request as usize].load(Ordering::Relaxed) == IN_PROGRESS
    }

    pub(super) fn finish(&self, request: Request) {
        self.requests[request as usize].store(NONE, Ordering::SeqCst);
    }

    /// Notifies the service manager: false when there is none.
    pub(super) fn notify(&self, state: &str) -> io::Result<bool> {
        match &self.notifier {
            Some(notifier) => notifier.send(state).map(|()| true),
            None => Ok(false),
        }
    }

    /// How many clients a worker may have. The shares add up to the limit, and none is 0, because there
    /// are no more workers than clients.
    pub(super) fn share_of_clients(&self, worker: usize) -> usize {
        let workers = self.counters.workers();
        match (self.options.each_loop.max_clients, self.options.model) {
            (Some(clients), _) => clients / workers + usize::from(worker < clients % workers),
            (None, Model::Thread | Model::Fork) => MAX_CLIENTS,
            (None, _) => usize::MAX,
        }
    }

    /// What a loop of this worker admits clients by, when they are accepted or when their headers have come.
    pub(super) fn admission(&self, worker: usize, with_header: bool) -> Option<Admission> {
        let limits =
            self.limits.as_ref().filter(|_| with_header == self.options.each_loop.proxy_header.is_some());
        limits.map(|limits| Admission::new(limits, self.counters.of(worker), worker))
    }

    /// Stops this process. Async-signal-safe in the process that made the server.
    /// `EOWNERDEAD` in one that the program has forked.
    pub(super) fn stop(&self, drain: Option<Duration>) -> io::Result<()> {
        if !self.is_of_this_process() {
            // Without words: the handler of a signal may have called.
            return Err(bare(libc::EOWNERDEAD));
        }
        self.stop.set(drain);
        match self.control.wake() {
            // A forked child has a loop of its own.
            Err(error) if error.raw_os_error() == Some(libc::EOWNERDEAD) => {
                self.wake_workers();
                Ok(())
            }
            done => done,
        }
    }

    /// After a run: leaves the signals that it watched to the program again.
    pub(super) fn unwatch_signals(&self) -> io::Result<()> {
        if !self.options.signals {
            return Ok(());
        }
        if self.options.restart.is_some() {
            self.control.signal_remove(libc::SIGHUP)?;
        }
        self.control.signal_remove(libc::SIGTERM)?;
        self.control.signal_remove(libc::SIGINT)
    }

    /// The stop of this process, if there is one, and how long it may take.
    pub(super) fn wanted_stop(&self) -> Option<Option<Duration>> {
        self.stop.get()
    }

    /// Wakes the other loops of this process.
    pub(super) fn wake_workers(&self) {
        for mailbox in lock(&self.loops).iter() {
            let _ = mailbox.wake();
        }
    }

    /// Leaves the children how long they may take to stop, for when their pipe ends.
    pub(super) fn publish_stop(&self) {
        self.for_children[0].store(self.stop.number(), Ordering::SeqCst);
    }

    /// In a child: stops as the parent has announced, or, if it died before it could, as the options
    /// say.
    pub(super) fn adopt_parent_stop(&self) {
        let stop = match self.for_children[0].load(Ordering::SeqCst) {
            0 => net::encode_stop(self.options.drain),
            stop => stop,
        };
        self.stop.set_number(stop);
    }

    /// In a child: leaves the error for which it could not serve to its parent.
    pub(super) fn publish_failure(&self, error: &io::Error) {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        self.for_children[1].store(errno.unsigned_abs().into(), Ordering::SeqCst);
    }

    /// The error that a child has left, if one has.
    pub(super) fn last_failure(&self) -> Option<io::Error> {
        let errno = self.for_children[1].load(Ordering::SeqCst) as i32;
        (errno != 0).then(|| fail(errno, format!("no worker process can serve: {}", explain(&plain(errno)))))
    }

    /// In a worker: leaves the error of `on_worker_start` to the loop that ends the server for it.
    pub(super) fn publish_start_failure(&self, error: &io::Error) {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        self.for_children[2].store(errno.unsigned_abs().into(), Ordering::SeqCst);
    }

    /// In the loop that the workers are of: the error for which one has not started. For once, because
    /// the loop stops then.
    pub(super) fn check_workers_start(&self, core: &Core) -> io::Result<()> {
        match self.for_children[2].load(Ordering::SeqCst) as i32 {
            errno if errno != 0 && !core.is_stopping => {
                Err(fail(errno, format!("a worker did not start: {}", explain(&plain(errno)))))
            }
            _ => Ok(()),
        }
    }

    /// Writes `data` to every connection of this process, or of a group, but `except`, and returns to how
    /// many.
    pub(super) fn broadcast(
        &self,
        group: Option<&str>,
        data: &[u8],
        except: Option<ConnId>,
    ) -> io::Result<usize> {
        if self.options.model.forks() {
            return Err(fail(
                libc::ENOTSUP,
                "under FORK and PREFORK clients are served by processes that share no memory: \
                 none of them reaches the clients of the others",
            ));
        }
        self.check_owner()?;
        let data = Arc::new(copy_of(data)?);
        let mut reached = Reached::default();
        match group {
            Some(group) => reached += self.groups.broadcast(group, &data, except)?,
            None => {
                for mailbox in lock(&self.loops).iter() {
                    reached += mailbox.broadcast(&data, except)?;
                }
            }
        }
        if reached.full > 0 {
            self.counters.of(0).add(Counter::WritesRefused, reached.full as u64);
        }
        Ok(reached.queued)
    }

    /// The datagram sockets of this process's loops.
    pub(super) fn datagram_sockets(&self) -> Vec<DatagramId> {
        let loops = self.try_lock(&self.loops);
        loops.map_or_else(Vec::new, |loops| loops.iter().flat_map(|mailbox| mailbox.datagram_ids()).collect())
    }

    pub(super) fn stats(&self) -> ServerStats {
        ServerStats::of(&self.counters)
    }
}
