//! [`Poller`]: registrations and sources over one engine.

mod counters;
mod deadline;
mod dump;
mod options;
mod owner;
mod registrations;
mod sources;
mod stats;
mod strict_mode;
mod wait;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Mutex, MutexGuard};

pub use dump::Registered;
pub use options::Options;
pub use stats::Stats;

use crate::engine::{AnyEngine, Capabilities, EngineKind};
use crate::error::bare;
use crate::registry::Registry;
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

    /// Makes a wait return with a WAKE event: the one in progress, or else the next. Wakes that
    /// come before it are counted into one event. Async-signal-safe.
    pub fn wake(&self) -> io::Result<()> {
        if !self.is_owner() {
            // Without words: a thread's first use of its own storage may allocate.
            return Err(bare(libc::EOWNERDEAD));
        }
        if self.sources.wake.request() {
            self.sources.notify()
        } else {
            Ok(())
        }
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
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
