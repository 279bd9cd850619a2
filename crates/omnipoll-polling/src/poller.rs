//! [`Poller`]: registrations, and a wait for one thread at a time.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use omnipoll::{Capabilities, Interest, Trigger};

use crate::{AsRawSource, AsSource, Event, Events};

/// How often a condition is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PollMode {
    /// Once, and again after [`Poller::modify`]. The default.
    Oneshot,
    /// By every wait as long as it holds.
    Level,
    /// When it arises. Not on select and poll.
    Edge,
    /// When it arises, once, and again after [`Poller::modify`]. Not on select and poll.
    EdgeOneshot,
}

/// Watches descriptors. Every method may be called from any thread.
pub struct Poller {
    poller: omnipoll::Poller,
    /// Held by the thread that waits.
    waiting: Mutex<()>,
}

impl Poller {
    /// A poller on the engine that `OMNIPOLL_ENGINE` in the environment names, or on epoll.
    pub fn new() -> io::Result<Self> {
        Ok(Self { poller: omnipoll::Poller::new()?, waiting: Mutex::new(()) })
    }

    /// Whether there is [`PollMode::Level`]: always.
    pub fn supports_level(&self) -> bool {
        true
    }

    /// Whether there are [`PollMode::Edge`] and [`PollMode::EdgeOneshot`]: not on select and poll.
    pub fn supports_edge(&self) -> bool {
        self.poller.capabilities().contains(Capabilities::NATIVE_EDGE)
    }

    /// [`Poller::add_with_mode`] with [`PollMode::Oneshot`].
    ///
    /// # Safety
    ///
    /// The source must be deleted from this poller before it is closed. (It is as polling asks for; here a
    /// source that is not is no more than a mistake.)
    #[allow(unsafe_code)]
    pub unsafe fn add(&self, source: impl AsRawSource, interest: Event) -> io::Result<()> {
        self.register(source.raw(), interest, PollMode::Oneshot)
    }

    /// Starts watching a descriptor.
    ///
    /// # Safety
    ///
    /// As for [`Poller::add`].
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when it is registered, `InvalidInput` for the key `usize::MAX`, `Unsupported` for a
    /// mode that the engine doesn't have; `EBADF`, `EPERM`, `ENOMEM` and `ENOSPC` as `epoll_ctl(2)` says.
    #[allow(unsafe_code)]
    pub unsafe fn add_with_mode(
        &self,
        source: impl AsRawSource,
        interest: Event,
        mode: PollMode,
    ) -> io::Result<()> {
        self.register(source.raw(), interest, mode)
    }

    fn register(&self, fd: RawFd, interest: Event, mode: PollMode) -> io::Result<()> {
        self.poller.add_raw(fd, self.interest(interest, mode)?, interest.key as u64)
    }

    /// [`Poller::modify_with_mode`] with [`PollMode::Oneshot`].
    pub fn modify(&self, source: impl AsSource, interest: Event) -> io::Result<()> {
        self.modify_with_mode(source, interest, PollMode::Oneshot)
    }

    /// Replaces the interest in a descriptor and its mode, and enables it again.
    ///
    /// # Errors
    ///
    /// `NotFound` when it is not registered; else as [`Poller::add_with_mode`].
    pub fn modify_with_mode(&self, source: impl AsSource, interest: Event, mode: PollMode) -> io::Result<()> {
        self.poller.modify(source.source(), self.interest(interest, mode)?, interest.key as u64)
    }

    /// Stops watching a descriptor. `NotFound` when it is not registered.
    pub fn delete(&self, source: impl AsSource) -> io::Result<()> {
        self.poller.remove(source.source())
    }

    /// Waits until something is ready, until [`notify`](Self::notify), or for so long (`None`:
    /// indefinitely), adds the events to the list, and returns how many are in it. Returns at once when
    /// another thread waits. At times it returns early without an event.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the list is full, `ENOMEM`. A signal doesn't end it.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
        let Ok(_waiting) = self.waiting.try_lock() else { return Ok(0) };
        let reports_failures = self.poller.capabilities().contains(Capabilities::REPORTS_HANGUP);
        events.append(reports_failures, |batch, room| self.poller.wait_append(batch, room, timeout))?;
        Ok(events.len())
    }

    /// [`Poller::wait`] until a point in time.
    pub fn wait_deadline(&self, events: &mut Events, deadline: Instant) -> io::Result<usize> {
        self.wait(events, Some(deadline.saturating_duration_since(Instant::now())))
    }

    /// Ends the wait in progress, or else the next; several before it are one.
    pub fn notify(&self) -> io::Result<()> {
        self.poller.wake()
    }

    /// What an interest is to omnipoll.
    fn interest(&self, event: Event, mode: PollMode) -> io::Result<Interest> {
        if event.key == usize::MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "usize::MAX is not allowed as a key"));
        }
        let trigger = match mode {
            PollMode::Oneshot => Trigger::ONESHOT,
            PollMode::Level => Trigger::LEVEL,
            PollMode::Edge => Trigger::EDGE,
            PollMode::EdgeOneshot => Trigger::EDGE | Trigger::ONESHOT,
        };
        if trigger.contains(Trigger::EDGE) && !self.supports_edge() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "select and poll have no edges"));
        }
        Ok(event.directions() | trigger)
    }
}

/// Readable when a wait would return at once, so that another loop can watch it. To be called first by
/// the thread that waits: [`omnipoll::Poller::embed`] says why.
///
/// Panics on select and poll, which have no descriptor, and when none can be opened.
impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.poller.embed() {
            Ok(descriptor) => descriptor,
            Err(error) => panic!("a poller on {} has no descriptor: {error}", self.poller.engine().name()),
        }
    }
}

impl AsRawFd for Poller {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.poller.fmt(f)
    }
}
