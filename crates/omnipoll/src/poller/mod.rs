//! [`Poller`]: registrations and sources over one engine.

mod counters;
mod deadline;
mod dump;
mod embed;
mod options;
mod owner;
mod policy;
mod registrations;
mod reserved;
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
pub(crate) use reserved::RESERVED_TOKENS;
pub use stats::Stats;

use crate::engine::{AnyEngine, Capabilities, EngineKind};
use crate::error::bare;
use crate::registry::Registry;
use crate::source::Sources;
use crate::strict::Strict;
use crate::sys::lock;
use crate::WaitPolicy;
use counters::WaitCounters;

/// Watches descriptors and waits for events; every method may be called from any thread.
///
/// Dropping it closes what it opened itself, never a descriptor that was registered. A
/// registered descriptor is borrowed by number only: remove it before you close it.
///
/// In the order in which a program calls them: [`new`](Self::new); [`add`](Self::add), and
/// [`timer_add`](Self::timer_add), [`signal_add`](Self::signal_add) or
/// [`child_add`](Self::child_add); [`wait`](Self::wait); [`modify`](Self::modify) or
/// [`rearm`](Self::rearm); [`remove`](Self::remove). From other threads, [`wake`](Self::wake) and
/// [`post`](Self::post).
pub struct Poller {
    engine: AnyEngine,
    registry: Mutex<Registry>,
    sources: Sources,
    /// The process that made or rebuilt it, in terms of [`fork`](crate::sys::fork), and whether
    /// its waits are special.
    fork_epoch: AtomicU32,
    /// Flips at each round that has one slot for the events of descriptors and sources.
    alternate: AtomicBool,
    interruptible: bool,
    /// It is a loop's, which keeps some tokens for itself.
    reserves_tokens: bool,
    counters: WaitCounters,
    wait_policy: WaitPolicy,
    /// Strict mode, when it is on.
    strict: Option<Box<Strict>>,
}

/// # Making one
impl Poller {
    /// A poller on the best engine of this machine, or on the one `OMNIPOLL_ENGINE` names.
    /// Errors as [`Options::build`].
    ///
    /// # Portability
    ///
    /// The best is epoll on Linux, and poll elsewhere. io_uring has to be asked for.
    ///
    /// ```
    /// use omnipoll::Poller;
    ///
    /// let poller = Poller::new()?;
    /// assert!(poller.engine().is_available());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "epoll_create1")]
    #[doc(alias = "io_uring_setup")]
    pub fn new() -> io::Result<Self> {
        Options::new().build()
    }

    /// A poller on the engine asked for. Errors as [`Options::build`].
    ///
    /// # Portability
    ///
    /// `ENOSYS` for an engine that [is not available](EngineKind::is_available); select and poll
    /// are available everywhere.
    ///
    /// ```
    /// use omnipoll::{EngineKind, Poller};
    ///
    /// for engine in EngineKind::ALL.into_iter().filter(|engine| engine.is_available()) {
    ///     assert_eq!(Poller::with_engine(engine)?.engine(), engine);
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn with_engine(engine: EngineKind) -> io::Result<Self> {
        Options::new().engine(engine).build()
    }

    /// The engine under this poller.
    ///
    /// See the example of [`Poller::with_engine`].
    ///
    /// # Portability
    ///
    /// As for [`Poller::new`].
    pub fn engine(&self) -> EngineKind {
        self.engine.kind()
    }

    /// What that engine can distinguish.
    ///
    /// # Portability
    ///
    /// [`Capabilities`] says what each engine has.
    ///
    /// ```
    /// use omnipoll::{Capabilities, Interest, Poller, Trigger};
    /// use std::net::TcpListener;
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let poller = Poller::new()?;
    /// let mut interest = Interest::READ;
    /// if poller.capabilities().contains(Capabilities::HAS_EXCLUSIVE) {
    ///     interest = interest | Trigger::EXCLUSIVE;
    /// }
    /// poller.add(&listener, interest, 1)?;
    /// # poller.remove(&listener)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn capabilities(&self) -> Capabilities {
        self.engine.kind().capabilities()
    }

    /// The descriptor of the engine's own set, where it has one: readable while a registered
    /// descriptor is ready, so that another poller can watch this one. Timers, wakes and posts don't
    /// make it readable: that of [`embed`](Self::embed) has all. It belongs to the poller: never close it.
    ///
    /// # Portability
    ///
    /// Only epoll has one. The engine is chosen when the program runs, so that a poller is no
    /// [`AsFd`](std::os::fd::AsFd), which could not say that there is none.
    ///
    /// ```
    /// use omnipoll::{EngineKind, Interest, Poller};
    ///
    /// let (outer, inner) = (Poller::new()?, Poller::new()?);
    /// if let Some(descriptor) = inner.descriptor() {
    ///     outer.add(descriptor, Interest::READ, 1)?;
    /// }
    /// assert!(Poller::with_engine(EngineKind::Poll)?.descriptor().is_none());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "epoll_create1")]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.engine.descriptor()
    }

    /// Makes a wait return with a WAKE event: the one in progress, or else the next. Wakes that
    /// come before it are counted into one event. Async-signal-safe.
    ///
    /// # Errors
    ///
    /// `EOWNERDEAD`, without [words](crate::explain): in a forked child before
    /// [`Poller::after_fork`].
    ///
    /// # Portability
    ///
    /// A write to an eventfd, or to a pipe where there is none, unless a wake is pending already.
    ///
    /// ```
    /// use omnipoll::{EventKind, Events, Poller};
    ///
    /// let poller = Poller::new()?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| poller.wake());
    ///     let mut events = Events::with_capacity(8);
    ///     poller.wait(&mut events, None)?;
    ///     assert_eq!(events.iter().next().map(|event| event.kind()), Some(EventKind::Wake));
    ///     Ok::<(), std::io::Error>(())
    /// })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "eventfd")]
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
