//! [`Poller`]: registrations and sources over one engine.

mod counters;
mod deadline;
mod dump;
mod options;
mod owner;
mod sources;
mod stats;
mod strict_mode;
mod wait;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Mutex, MutexGuard};

pub use dump::Registered;
pub use options::Options;
pub use stats::Stats;

use crate::engine::{AnyEngine, Capabilities, EngineKind};
use crate::error::{bare, fail};
use crate::event::EventKind;
use crate::interest::Interest;
use crate::registry::{Registry, Tag};
use crate::source::Sources;
use crate::strict::Strict;
use crate::sys::lock;
use counters::WaitCounters;

/// Watches descriptors and waits for events; every method may be called from any thread.
///
/// Dropping it closes what it opened itself, never a descriptor that was registered. A
/// registered descriptor is borrowed by number only: remove it before you close it.
pub struct Poller {
    engine: AnyEngine,
    registry: Mutex<Registry>,
    sources: Sources,
    /// The process that made or rebuilt it, in terms of [`fork`](crate::sys::fork), and whether
    /// it is strict.
    fork_epoch: AtomicU32,
    /// Flips at each round that has one slot for the events of descriptors and sources.
    alternate: AtomicBool,
    interruptible: bool,
    counters: WaitCounters,
    /// Strict mode, when it is on.
    strict: Option<Box<Strict>>,
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

    /// The descriptor of the engine's own set, where it has one (epoll): readable while a
    /// registered descriptor is ready, so that another poller can watch this one. Timers,
    /// wakes and posts don't make it readable. It belongs to the poller: never close it.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.engine.descriptor()
    }

    /// Starts watching `fd`; its events carry `token`.
    ///
    /// `EEXIST` when it is registered, `EBADF` when it is not open or was opened with `O_PATH`,
    /// `EPERM` when it is a kind of file that is always ready, `EINVAL` for an interest without a
    /// direction or a trigger the engine hasn't (EXCLUSIVE), `ENOMEM`, `ENOSPC` as `epoll_ctl(2)`
    /// says, `EMFILE` when only an epoll could tell whether the file can be watched, and none can
    /// be made.
    pub fn add(&self, fd: &impl AsRawFd, interest: Interest, token: u64) -> io::Result<()> {
        let (fd, mut registry) = self.enter(fd)?;
        self.check(fd, interest)?;
        registry.reserve(fd)?;
        self.engine.add(&mut registry, fd, interest, Tag { token, kind: EventKind::Io })?;
        self.in_strict_mode(registry, |strict, registry| strict.begun(registry, fd));
        Ok(())
    }

    /// Replaces interest, trigger and token. Re-enables a ONESHOT that has fired, and rearms
    /// an EDGE: what is ready now is reported by the next wait.
    ///
    /// `ENOENT` when it is not registered, `EBADF` when it is not open, `EINVAL` as for `add`
    /// and for a registration with EXCLUSIVE.
    pub fn modify(&self, fd: &impl AsRawFd, interest: Interest, token: u64) -> io::Result<()> {
        let (fd, mut registry) = self.enter(fd)?;
        self.check(fd, interest)?;
        let old = registry.of_caller(fd)?.interest;
        if old.is_exclusive() || interest.is_exclusive() {
            return Err(fail(libc::EINVAL, "an EXCLUSIVE registration can't be modified: remove and add it"));
        }
        self.engine.modify(&mut registry, fd, interest, token)?;
        self.in_strict_mode(registry, |strict, registry| strict.changed(registry, fd));
        Ok(())
    }

    /// Stops watching `fd`. No later wait returns an event of it, and nothing of the poller's
    /// holds on to its file: closed next, it is closed, and its peer hears of it. Where the
    /// engine's system call holds the files it watches (all but epoll's), that takes a wake-up
    /// of the threads that wait, for which this call waits. Works on a descriptor that was closed
    /// meanwhile. `ENOENT` when it is not registered.
    pub fn remove(&self, fd: &impl AsRawFd) -> io::Result<()> {
        let (fd, mut registry) = self.enter(fd)?;
        registry.of_caller(fd)?;
        self.engine.remove(&mut registry, fd);
        self.in_strict_mode(registry, |strict, _| strict.ended(fd));
        // Unless a callback has forked: the threads that wait are the parent's.
        if self.is_owner() {
            self.engine.let_go(&self.registry);
        }
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
        let wanted = registry.of_caller(fd)?.interest;
        if wanted.is_oneshot() {
            return Err(fail(libc::EINVAL, "a ONESHOT registration is re-enabled by modify, not by rearm"));
        }
        if wanted.is_edge() {
            self.engine.rearm(&mut registry, fd, interest);
        }
        Ok(())
    }

    /// Makes a wait return with a WAKE event: the one in progress, or else the next. Wakes that
    /// come before it are counted into one event. Async-signal-safe.
    pub fn wake(&self) -> io::Result<()> {
        if !self.is_owner() {
            // Without words: a thread's first use of its own storage may allocate.
            return Err(bare(libc::EOWNERDEAD));
        }
        if self.sources.wake.ask() {
            self.sources.notice()
        } else {
            Ok(())
        }
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }

    /// The way into every change: the descriptor's number, and the registry locked.
    fn enter(&self, fd: &impl AsRawFd) -> io::Result<(RawFd, MutexGuard<'_, Registry>)> {
        self.check_owner()?;
        let fd = fd.as_raw_fd();
        if fd < 0 {
            return Err(fail(libc::EBADF, "a descriptor is never negative"));
        }
        Ok((fd, self.registry()))
    }

    fn check(&self, fd: RawFd, interest: Interest) -> io::Result<()> {
        if !interest.is_possible() {
            return Err(fail(libc::EINVAL, "EXCLUSIVE goes with neither PRIORITY nor ONESHOT"));
        }
        if interest.is_exclusive() && !self.capabilities().contains(Capabilities::HAS_EXCLUSIVE) {
            return Err(fail(libc::EINVAL, "this engine has no EXCLUSIVE"));
        }
        if self.sources.doorbell.owns(fd) {
            return Err(fail(libc::EINVAL, "the descriptor is the poller's own"));
        }
        Ok(())
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
