//! [`Poller`]: registrations and sources over one engine.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::engine::{self, Capabilities, Doorbell, Engine, EngineKind};
use crate::error::fail;
use crate::event::{Event, Events};
use crate::interest::Interest;
use crate::registry::{self, Registry};
use crate::source::fork;
use crate::source::wake::Wake;

/// Watches descriptors and waits for events; every method may be called from any thread.
///
/// Dropping it closes what it opened itself, never a descriptor that was registered. A
/// registered descriptor is borrowed by number only: remove it before you close it.
pub struct Poller {
    engine: Box<dyn Engine>,
    registry: Mutex<Registry>,
    doorbell: Arc<Doorbell>,
    wake: Wake,
    /// The fork after which this poller was made or rebuilt.
    born: AtomicU32,
    interruptible: bool,
}

/// How to make a [`Poller`]; the default is what [`Poller::new`] uses.
///
/// ```
/// use omnipoll::{EngineKind, Options};
/// let poller = Options::new().engine(EngineKind::Poll).build()?;
/// assert_eq!(poller.engine(), EngineKind::Poll);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Options {
    engine: Option<EngineKind>,
    interruptible: bool,
    files_always_ready: bool,
}

impl Options {
    /// The engine best suited to this machine, EINTR retried, regular files refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for one engine by name; without it, `OMNIPOLL_ENGINE` in the environment names
    /// it, and without that it is the best this machine has.
    pub fn engine(mut self, engine: EngineKind) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Lets a signal end a wait with `EINTR` (`ErrorKind::Interrupted`) instead of waiting on.
    pub fn interruptible(mut self, yes: bool) -> Self {
        self.interruptible = yes;
        self
    }

    /// Takes regular files and directories as always ready, as `poll(2)` does, instead of
    /// refusing them with `EPERM`, as epoll does.
    pub fn files_always_ready(mut self, yes: bool) -> Self {
        self.files_always_ready = yes;
        self
    }

    /// Makes the poller. `ENOSYS` when the engine is not to be had here, `EINVAL` when
    /// `OMNIPOLL_ENGINE` names none, `EMFILE`/`ENFILE`/`ENOMEM` as the system says.
    pub fn build(&self) -> io::Result<Poller> {
        let kind = match self.engine {
            Some(kind) => kind,
            None => EngineKind::auto()?,
        };
        fork::observe()?;
        let doorbell = Arc::new(Doorbell::new()?);
        Ok(Poller {
            engine: engine::new(kind, doorbell.clone(), self.files_always_ready)?,
            registry: Mutex::default(),
            wake: Wake::default(),
            doorbell,
            born: AtomicU32::new(fork::count()),
            interruptible: self.interruptible,
        })
    }
}

impl Poller {
    /// A poller on the best engine of this machine, or on the one `OMNIPOLL_ENGINE` names.
    /// Errors as [`Options::build`].
    pub fn new() -> io::Result<Self> {
        Options::new().build()
    }

    /// A poller on the engine asked for. Errors as [`Options::build`].
    pub fn with_engine(engine: EngineKind) -> io::Result<Self> {
        Options::new().engine(engine).build()
    }

    /// The engine under this poller.
    pub fn engine(&self) -> EngineKind {
        self.engine.kind()
    }

    /// What that engine can tell apart.
    pub fn capabilities(&self) -> Capabilities {
        self.engine.kind().capabilities()
    }

    /// Starts watching `fd`; its events carry `token`.
    ///
    /// `EEXIST` when it is registered, `EBADF` when it is not open, `EPERM` when it is a kind
    /// of file that is always ready, `EINVAL` for an interest without a direction or a trigger
    /// the engine hasn't (EXCLUSIVE), `ENOMEM`/`ENOSPC` as `epoll_ctl(2)` says.
    pub fn add(&self, fd: &impl AsRawFd, interest: Interest, token: u64) -> io::Result<()> {
        let (fd, mut registry) = self.enter(fd)?;
        self.check(fd, interest)?;
        self.engine.add(&mut registry, fd, interest, token)
    }

    /// Replaces interest, trigger and token. Re-enables a ONESHOT that has fired, and rearms
    /// an EDGE: what is ready now is reported by the next wait.
    ///
    /// `ENOENT` when it is not registered, `EBADF` when it is not open, `EINVAL` as for `add`
    /// and for a registration with EXCLUSIVE.
    pub fn modify(&self, fd: &impl AsRawFd, interest: Interest, token: u64) -> io::Result<()> {
        let (fd, mut registry) = self.enter(fd)?;
        self.check(fd, interest)?;
        let old = registry.get(fd).ok_or_else(registry::unknown)?.interest;
        if old.is_exclusive() || interest.is_exclusive() {
            return Err(fail(libc::EINVAL, "an EXCLUSIVE registration can't be modified: remove and add it"));
        }
        self.engine.modify(&mut registry, fd, interest, token)
    }

    /// Stops watching `fd`. No later wait returns an event of it. Works on a descriptor that
    /// was closed meanwhile. `ENOENT` when it is not registered.
    pub fn remove(&self, fd: &impl AsRawFd) -> io::Result<()> {
        let (fd, mut registry) = self.enter(fd)?;
        registry.get(fd).ok_or_else(registry::unknown)?;
        self.engine.remove(&mut registry, fd);
        Ok(())
    }

    /// Says of an EDGE registration that these directions were read or written until `EAGAIN`:
    /// the next readiness is an edge again. Costs no system call where the engine has
    /// [edges of its own](Capabilities::NATIVE_EDGE), and none elsewhere unless a thread waits.
    /// Directions that are not registered are passed over; on LEVEL it does nothing.
    ///
    /// `ENOENT` when `fd` is not registered, `EINVAL` on a ONESHOT: `modify` re-enables that.
    pub fn rearm(&self, fd: &impl AsRawFd, interest: Interest) -> io::Result<()> {
        let (fd, mut registry) = self.enter(fd)?;
        let wanted = registry.get(fd).ok_or_else(registry::unknown)?.interest;
        if wanted.is_oneshot() {
            return Err(fail(libc::EINVAL, "a ONESHOT registration is re-enabled by modify, not by rearm"));
        }
        if wanted.is_edge() {
            self.engine.rearm(&mut registry, fd, interest);
        }
        Ok(())
    }

    /// Waits until something is ready or `timeout` has passed (`None`: for ever; zero: look
    /// and return), and returns the number of events now in `events`, 0 when time was up.
    ///
    /// `EINVAL` when `events` has no room, `EINTR` only if the poller is
    /// [interruptible](Options::interruptible).
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
        let (list, capacity) = events.refill();
        engine::fill(list, capacity, |slots| self.wait_into(slots, timeout))
    }

    /// [`Poller::wait`] into memory of the caller's, which need not be initialised: on `Ok(n)`
    /// the first `n` elements are. What the C API is made of.
    pub fn wait_into(
        &self,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        self.check_owner()?;
        if events.is_empty() {
            return Err(fail(libc::EINVAL, "there is no room for an event"));
        }
        let deadline = Deadline::after(timeout);
        let mut left = timeout;
        loop {
            match self.engine.wait(&self.registry, events, left) {
                Ok(batch) => {
                    let filled = if batch.rung { self.answer(events, batch.filled) } else { batch.filled };
                    let looked = !batch.dropped && !batch.rung;
                    let up = left == Some(Duration::ZERO) && looked;
                    if filled > 0 || up {
                        return Ok(filled);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted && !self.interruptible => {}
                Err(error) => return Err(error),
            }
            left = deadline.left();
        }
    }

    /// Makes a wait return with a WAKE event: the one under way, or else the next. Wakes that
    /// come before it are counted into one event. Async-signal-safe.
    pub fn wake(&self) -> io::Result<()> {
        if !self.is_owner() {
            // Without words: a thread's first use of its own storage may allocate.
            return Err(io::Error::from_raw_os_error(libc::EOWNERDEAD));
        }
        self.wake.ring(&self.doorbell)
    }

    /// Rebuilds an inherited poller in a forked child, with all its registrations. Descriptors
    /// that the child has closed are reported by the next wait as INVALID. Does nothing in the
    /// process that made the poller.
    ///
    /// `EBUSY` when another thread of the parent was changing the poller at the very moment of
    /// the fork: nobody can finish that change; drop the poller and make a new one.
    pub fn after_fork(&self) -> io::Result<()> {
        if self.is_owner() {
            return Ok(());
        }
        let Ok(mut registry) = self.registry.try_lock() else {
            return Err(fail(
                libc::EBUSY,
                "another thread was changing the poller during the fork: make a new one",
            ));
        };
        self.doorbell.rebuild()?;
        self.wake.forget();
        self.engine.rebuild(&mut registry)?;
        self.born.store(fork::count(), Ordering::Release);
        Ok(())
    }

    fn is_owner(&self) -> bool {
        self.born.load(Ordering::Acquire) == fork::count()
    }

    fn check_owner(&self) -> io::Result<()> {
        if self.is_owner() {
            return Ok(());
        }
        Err(fail(libc::EOWNERDEAD, "the poller belongs to the parent process: call after_fork first"))
    }

    /// The way into every change: the descriptor's number, and the registry locked.
    fn enter(&self, fd: &impl AsRawFd) -> io::Result<(RawFd, MutexGuard<'_, Registry>)> {
        self.check_owner()?;
        let fd = fd.as_raw_fd();
        if fd < 0 {
            return Err(fail(libc::EBADF, "a descriptor is never negative"));
        }
        Ok((fd, engine::lock(&self.registry)))
    }

    fn check(&self, fd: RawFd, interest: Interest) -> io::Result<()> {
        if !interest.is_possible() {
            return Err(fail(libc::EINVAL, "EXCLUSIVE goes with neither PRIORITY nor ONESHOT"));
        }
        if interest.is_exclusive() && !self.capabilities().contains(Capabilities::HAS_EXCLUSIVE) {
            return Err(fail(libc::EINVAL, "this engine has no EXCLUSIVE"));
        }
        if self.doorbell.owns(fd) {
            return Err(fail(libc::EINVAL, "the descriptor is the poller's own"));
        }
        Ok(())
    }

    /// Answers the doorbell: with the wakes asked for and the registrations found lost, as far
    /// as there is room. What is left over rings again.
    #[cold]
    fn answer(&self, events: &mut [MaybeUninit<Event>], mut filled: usize) -> usize {
        let mut put = |event| {
            events[filled].write(event);
            filled += 1;
            filled < events.len()
        };
        let wakes = self.wake.answer();
        let mut room = wakes == 0 || put(Event::wake(wakes));
        let mut registry = engine::lock(&self.registry);
        while room {
            let Some(event) = registry.lost.pop_front() else { return filled };
            room = put(event);
        }
        if !registry.lost.is_empty() {
            let _ = self.doorbell.ring();
        }
        filled
    }
}

/// When a wait ends. No clock is read unless there is an end that lies in the future.
struct Deadline(Option<Instant>, Option<Duration>);

impl Deadline {
    fn after(timeout: Option<Duration>) -> Self {
        let end = match timeout {
            None | Some(Duration::ZERO) => None,
            // An end past what the clock can show is no end.
            Some(timeout) => Instant::now().checked_add(timeout),
        };
        Self(end, timeout)
    }

    /// The time that is left: zero when it is up, `None` when it never will be.
    fn left(&self) -> Option<Duration> {
        match (self.0, self.1) {
            (Some(end), _) => Some(end.saturating_duration_since(Instant::now())),
            (None, Some(Duration::ZERO)) => Some(Duration::ZERO),
            (None, _) => None,
        }
    }
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller").field("engine", &self.engine()).finish_non_exhaustive()
    }
}

const _: fn() = || {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Poller>();
};
