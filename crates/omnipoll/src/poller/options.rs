//! How a poller is made.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex};

use super::Poller;
use crate::engine::{AnyEngine, Doorbell, EngineKind};
use crate::source::{fork, Sources};

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
            engine: AnyEngine::new(kind, doorbell.clone(), self.files_always_ready)?,
            registry: Mutex::default(),
            sources: Sources::new(doorbell),
            born: AtomicU32::new(fork::count()),
            odd: AtomicBool::new(false),
            interruptible: self.interruptible,
        })
    }
}
