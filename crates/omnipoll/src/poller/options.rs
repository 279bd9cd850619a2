//! How a poller is made.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::counters::WaitCounters;
use super::owner::fork_epoch;
use super::Poller;
use crate::engine::{AnyEngine, EngineKind};
use crate::source::Sources;
use crate::strict::Strict;
use crate::sys::fork;
use crate::sys::Waker;
use crate::WaitPolicy;

/// How to make a [`Poller`]; the default is what [`Poller::new`] uses.
///
/// # Portability
///
/// Each option means the same on every system and engine; which engines there are is said at
/// [`build`](Self::build).
///
/// ```
/// use omnipoll::{EngineKind, Options};
///
/// let poller = Options::new().engine(EngineKind::Poll).build()?;
/// assert_eq!(poller.engine(), EngineKind::Poll);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "`build` makes the poller"]
pub struct Options {
    engine: Option<EngineKind>,
    interruptible: bool,
    reserves_tokens: bool,
    files_always_ready: bool,
    strict: bool,
    strict_limit: Option<Duration>,
    wait_policy: WaitPolicy,
}

impl Options {
    /// The engine best suited to this machine, EINTR retried, regular files refused.
    ///
    /// ```
    /// use omnipoll::{Options, Poller};
    ///
    /// assert_eq!(Options::new().build()?.engine(), Poller::new()?.engine());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for one engine by name; without it, `OMNIPOLL_ENGINE` in the environment names
    /// it, and without that it is the best this machine has.
    ///
    /// See the example of [`Options`].
    pub fn engine(mut self, engine: EngineKind) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Lets a signal end a wait with `EINTR` (`ErrorKind::Interrupted`) instead of continuing it.
    ///
    /// ```
    /// use omnipoll::Options;
    ///
    /// // A wait that SIGINT ends, so that the caller can look at a flag that its handler has set.
    /// let poller = Options::new().interruptible(true).build()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn interruptible(mut self, yes: bool) -> Self {
        self.interruptible = yes;
        self
    }

    /// Takes regular files and directories as always ready, as `poll(2)` does, instead of
    /// refusing them with `EPERM`, as epoll does.
    ///
    /// ```
    /// use omnipoll::{Events, Interest, Options, Poller};
    /// use std::fs::File;
    ///
    /// let file = File::open("Cargo.toml")?;
    /// let error = Poller::new()?.add(&file, Interest::READ, 1).unwrap_err();
    /// assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    ///
    /// let poller = Options::new().files_always_ready(true).build()?;
    /// poller.add(&file, Interest::READ, 1)?;
    /// assert_eq!(poller.wait(&mut Events::with_capacity(8), None)?, 1);
    /// # poller.remove(&file)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn files_always_ready(mut self, yes: bool) -> Self {
        self.files_always_ready = yes;
        self
    }

    /// Looks for mistakes in the use of the poller, and reports each once, in words: see
    /// [`FindingKind`](crate::FindingKind) for which. So does `OMNIPOLL_STRICT=1` in the
    /// environment (anything but 0). Findings go to [`Poller::on_finding`], or else each is a
    /// line on stderr.
    ///
    /// For development: each wait then asks the system about every registered descriptor. A
    /// poller without it pays nothing for it.
    ///
    /// See the example of [`Poller::on_finding`].
    pub fn strict(mut self, yes: bool) -> Self {
        self.strict = yes;
        self
    }

    /// What strict mode takes for too long: for a thread to come back to wait, and for a
    /// descriptor that was reported to be left with something to read. 100 ms by default.
    ///
    /// ```
    /// use omnipoll::{Events, FindingKind, Options};
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// let poller = Options::new().strict(true).strict_limit(Duration::from_millis(1)).build()?;
    /// let (sender, findings) = mpsc::channel();
    /// poller.on_finding(Box::new(move |finding| sender.send(finding.kind).unwrap()))?;
    /// let mut events = Events::with_capacity(8);
    /// for _ in 0..2 {
    ///     poller.wake()?;
    ///     poller.wait(&mut events, None)?;
    ///     std::thread::sleep(Duration::from_millis(2));
    /// }
    /// assert_eq!(findings.recv(), Ok(FindingKind::BlockedLoop));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn strict_limit(mut self, limit: Duration) -> Self {
        self.strict_limit = Some(limit);
        self
    }

    /// What a wait does before it sleeps; [`WaitPolicy::Balanced`] by default.
    ///
    /// See the example of [`WaitPolicy`].
    pub fn wait_policy(mut self, policy: WaitPolicy) -> Self {
        self.wait_policy = policy;
        self
    }

    /// Makes the poller.
    ///
    /// # Errors
    ///
    /// `ENOSYS` when the engine is not available here, `EINVAL` when `OMNIPOLL_ENGINE` names none,
    /// `EMFILE`, `ENFILE` and `ENOMEM` as the system says; on io_uring also `EPERM` where it is
    /// forbidden, which [`explain`](crate::explain) puts in words.
    ///
    /// # Portability
    ///
    /// As for [`Poller::new`].
    ///
    /// ```
    /// use omnipoll::{EngineKind, Options};
    ///
    /// let error = Options::new().engine(EngineKind::Kqueue).build().unwrap_err();
    /// assert_eq!(error.raw_os_error(), Some(libc::ENOSYS));
    /// ```
    #[doc(alias = "epoll_create1")]
    #[doc(alias = "io_uring_setup")]
    pub fn build(&self) -> io::Result<Poller> {
        let kind = match self.engine {
            Some(kind) => kind,
            None => EngineKind::auto()?,
        };
        fork::observe()?;
        let waker = Arc::new(Waker::new()?);
        let strict = self.is_strict().then(|| {
            let limit = self.strict_limit.unwrap_or(Duration::from_millis(100));
            Box::new(Strict::new(limit))
        });
        let is_special = strict.is_some() || !self.wait_policy.is_balanced();
        let busy_poll = self.wait_policy.busy_poll();
        Ok(Poller {
            engine: AnyEngine::new(kind, waker.clone(), self.files_always_ready, busy_poll)?,
            registry: Mutex::default(),
            sources: Sources::new(waker),
            fork_epoch: AtomicU32::new(fork_epoch(is_special)),
            alternate: AtomicBool::new(false),
            interruptible: self.interruptible,
            reserves_tokens: self.reserves_tokens,
            counters: WaitCounters::default(),
            wait_policy: self.wait_policy,
            strict,
        })
    }

    /// Keeps tokens from [`RESERVED_TOKENS`](super::RESERVED_TOKENS) on for the loop that waits on it.
    pub(crate) fn reserve_tokens(mut self) -> Self {
        self.reserves_tokens = true;
        self
    }

    fn is_strict(&self) -> bool {
        let asked = |value: std::ffi::OsString| !value.is_empty() && value != "0";
        self.strict || std::env::var_os("OMNIPOLL_STRICT").is_some_and(asked)
    }
}
