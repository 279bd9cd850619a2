//! The wait: a fast path for descriptors alone, and a slow path for everything else.
//!
//! A wait makes one or more rounds. A round is one call of [`Engine::wait`], for no longer than
//! the sources (timers, signals, children, wakes, posts) allow. The first round that brings an
//! event ends the wait. The protocol by which a round never sleeps through a source is in
//! [`source`](crate::source).
//!
//! [`Engine::wait`]: crate::engine::Engine::wait

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::deadline::Deadline;
use super::Poller;
use crate::engine::{self, Batch, InternalEvent};
use crate::errno::{self, ErrorClass};
use crate::error::{fail, no_memory};
use crate::event::{Event, Events};
use crate::registry::InternalSource;
use crate::source::SleepLimit;
use crate::strict::Strict;

/// How often a wait that the kernel has no memory for tries again, and how long it pauses before.
const TRIES: usize = 10;
const BACK_OFF: Duration = Duration::from_millis(1);

// ---- The public methods --------------------------------------------------------------------

/// # Waiting
///
/// A wait returns events of every kind: of descriptors, timers, signals, children, wakes and posts.
/// Several threads may wait on one poller; an event goes to one of them.
impl Poller {
    /// Waits until something is ready or `timeout` has passed (`None`: indefinitely; zero: look
    /// and return), and returns the number of events now in `events`, 0 when time was up.
    ///
    /// # Errors
    ///
    /// - `EINVAL`: `events` has no room.
    /// - `EINTR`: a signal came, and the poller is [interruptible](super::Options::interruptible).
    /// - `ENOMEM`, `EAGAIN`: the kernel has been short of memory for ten tries, a millisecond apart,
    ///   or until the time was up. Nothing is lost.
    /// - `EOWNERDEAD`: in a forked child before [`Poller::after_fork`].
    ///
    /// # Portability
    ///
    /// One `epoll_wait(2)`, `epoll_pwait2(2)`, `ppoll(2)`, `pselect(2)` or `io_uring_enter(2)`, and
    /// one more after each that brought nothing. Timeouts are whole milliseconds, rounded up, on
    /// epoll before Linux 5.11, and on poll where there is no `ppoll(2)`.
    ///
    /// ```
    /// use omnipoll::{EventKind, Events, Poller};
    /// use std::time::Duration;
    ///
    /// let poller = Poller::new()?;
    /// let mut events = Events::with_capacity(64);
    /// assert_eq!(poller.wait(&mut events, Some(Duration::from_millis(1)))?, 0);
    /// poller.post(7, 42)?;
    /// poller.wait(&mut events, None)?;
    /// for event in &events {
    ///     assert_eq!((event.kind(), event.token(), event.value()), (EventKind::Post, 7, 42));
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "epoll_wait")]
    #[doc(alias = "epoll_pwait2")]
    #[doc(alias = "poll")]
    #[doc(alias = "ppoll")]
    #[doc(alias = "select")]
    #[doc(alias = "pselect")]
    #[doc(alias = "io_uring_enter")]
    #[inline]
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
        let (list, capacity) = events.refill();
        engine::fill(list, capacity, |slots| self.wait_into(slots, timeout))
    }

    /// [`Poller::wait`] until a point in time, for a caller who has one: it stays where it is over
    /// several waits. A look when it has passed.
    ///
    /// # Portability
    ///
    /// As for [`Poller::wait`]; reads the clock once more.
    ///
    /// ```
    /// use omnipoll::{Events, Poller};
    /// use std::time::{Duration, Instant};
    ///
    /// let poller = Poller::new()?;
    /// let mut events = Events::with_capacity(64);
    /// let deadline = Instant::now() + Duration::from_millis(5);
    /// while poller.wait_deadline(&mut events, deadline)? > 0 {
    ///     // Handle the events.
    /// }
    /// assert!(Instant::now() >= deadline);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn wait_deadline(&self, events: &mut Events, deadline: Instant) -> io::Result<usize> {
        self.wait(events, Some(deadline.saturating_duration_since(Instant::now())))
    }

    /// [`Poller::wait`] for at most `capacity` events, which are appended to a list: for one that
    /// has events in it, of another poller perhaps. The number returned is of the new ones.
    ///
    /// # Errors
    ///
    /// As for [`Poller::wait`]; `ENOMEM` too when there is no memory for the list. The list is as it
    /// was.
    ///
    /// # Portability
    ///
    /// As for [`Poller::wait`].
    ///
    /// ```
    /// use omnipoll::Poller;
    ///
    /// let mut events = Vec::new();
    /// for poller in [Poller::new()?, Poller::new()?] {
    ///     poller.wake()?;
    ///     assert_eq!(poller.wait_append(&mut events, 64, None)?, 1);
    /// }
    /// assert_eq!(events.len(), 2);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn wait_append(
        &self,
        events: &mut Vec<Event>,
        capacity: usize,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        events.try_reserve(capacity).map_err(no_memory)?;
        engine::fill(events, capacity, |slots| self.wait_into(slots, timeout))
    }

    /// [`Poller::wait`] into memory of the caller's, which need not be initialised: on `Ok(n)`
    /// the first `n` elements are. What the C API is made of.
    ///
    /// # Portability
    ///
    /// As for [`Poller::wait`].
    ///
    /// ```
    /// use omnipoll::{Event, Poller};
    /// use std::mem::MaybeUninit;
    ///
    /// let poller = Poller::new()?;
    /// poller.wake()?;
    /// let mut events = [MaybeUninit::<Event>::uninit(); 8];
    /// assert_eq!(poller.wait_into(&mut events, None)?, 1);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    // One function from the caller to the system call: each return after it is mispredicted.
    #[inline(always)]
    pub fn wait_into(
        &self,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        if self.is_special() {
            return self.wait_specially(events, timeout);
        }
        if events.is_empty() {
            return Err(zero_capacity());
        }
        self.wait_fast(events, timeout)
    }
}

// ---- The fast path: nothing but descriptors ------------------------------------------------

impl Poller {
    /// One round, which is the whole wait when no source has anything and no timer is armed:
    /// what nearly every wait is. Anything else continues on the slow path.
    #[inline(always)]
    pub(super) fn wait_fast(
        &self,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let deadline = Deadline::after(timeout);
        if self.sources.is_idle() {
            let guard = self.sources.begin_wait();
            let limit = self.sources.sleep_limit(timeout);
            let batch = self.engine.wait(&self.registry, events, limit.timeout);
            match batch {
                Ok(batch) => {
                    guard.end_with(batch.filled);
                    if batch.has_only_events() && self.sources.is_idle() {
                        return Ok(batch.filled);
                    }
                    return self.wait_slow(events, &deadline, Ok(batch), limit.due);
                }
                Err(error) => {
                    drop(guard);
                    return self.wait_slow(events, &deadline, Err(error), limit.due);
                }
            }
        }
        let (batch, due) = self.round(events, timeout);
        self.wait_slow(events, &deadline, batch, due)
    }
}

// ---- The slow path: sources, interruptions, shortages --------------------------------------

impl Poller {
    /// Continues a wait whose last round brought `batch`, before which the sources were `due`.
    #[cold]
    fn wait_slow(
        &self,
        events: &mut [MaybeUninit<Event>],
        deadline: &Deadline,
        mut batch: io::Result<Batch>,
        mut due: bool,
    ) -> io::Result<usize> {
        let mut left = deadline.timeout();
        let mut tries = TRIES;
        let outcome = loop {
            match batch {
                Ok(batch) => {
                    let all = !batch.dropped && !batch.woken && batch.internal.is_empty();
                    let filled = self.complete(events, batch, due);
                    if filled > 0 || (all && left == Some(Duration::ZERO)) {
                        break Ok(filled);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted && !self.interruptible => {
                    // The signal's handler may have forked: this may be the child.
                    self.check_owner()?;
                }
                // What the sources have needs no system call, and this thread may be the only one
                // that was woken for it.
                Err(error) => match self.deliver_sources(events, 0) {
                    0 if errno::classify_wait(&error) == ErrorClass::Temporary
                        && tries > 0
                        && left != Some(Duration::ZERO) =>
                    {
                        tries -= 1;
                        std::thread::sleep(left.map_or(BACK_OFF, |left| left.min(BACK_OFF)));
                    }
                    0 => break Err(error),
                    filled => break Ok(filled),
                },
            }
            left = deadline.left();
            self.counters.count_retry(left);
            (batch, due) = self.round(events, left);
        };
        self.sources.renotify();
        outcome
    }

    /// One round, and whether the sources were due before it.
    fn round(&self, events: &mut [MaybeUninit<Event>], left: Option<Duration>) -> (io::Result<Batch>, bool) {
        let guard = self.sources.begin_wait();
        let SleepLimit { timeout, due } = self.sources.sleep_limit(left);
        // Neither the descriptors nor the sources must fill every batch.
        let batch = match events.len() - usize::from(due) {
            // With a single slot they alternate. Should the sources have nothing, there is
            // another round.
            0 if self.alternate.fetch_not(Ordering::Relaxed) => {
                self.counters.skipped.fetch_add(1, Ordering::Relaxed);
                Ok(Batch { dropped: true, ..Batch::default() })
            }
            0 => self.engine.wait(&self.registry, events, timeout),
            room => self.engine.wait(&self.registry, &mut events[..room], timeout),
        };
        guard.end_with(batch.as_ref().map_or(0, |batch| batch.filled));
        (batch, due)
    }

    /// Adds to a batch the events of everything besides descriptors.
    fn complete(&self, events: &mut [MaybeUninit<Event>], mut batch: Batch, due: bool) -> usize {
        let mut filled = batch.filled;
        for event in batch.internal.take_all().into_iter().filter_map(|ready| self.interpret(ready)) {
            events[filled].write(event);
            filled += 1;
        }
        // A timer that has become due meanwhile can wait for the next round if there are events.
        let due = due || batch.woken || self.sources.is_pending() || (filled == 0 && self.sources.is_due());
        if due && filled < events.len() {
            filled = self.deliver_sources(events, filled);
        }
        filled
    }

    /// The event, if any, that the readiness of one of the poller's own descriptors stands for.
    fn interpret(&self, InternalEvent { fd, source }: InternalEvent) -> Option<Event> {
        match source {
            InternalSource::Child => self.reap(fd),
            InternalSource::WallClock => {
                self.sources.state().wall_timers.acknowledge();
                // The clock may have been set to a time at which no timer is due.
                let _ = self.sources.notify();
                None
            }
        }
    }

    /// Delivers the registrations found closed, and what the sources have.
    fn deliver_sources(&self, events: &mut [MaybeUninit<Event>], mut filled: usize) -> usize {
        while filled < events.len() {
            let Some(event) = self.registry().closed_events.pop_front() else { break };
            self.sources.state().count(&event);
            events[filled].write(event);
            filled += 1;
        }
        let filled = self.sources.deliver(events, filled);
        if !self.registry().closed_events.is_empty() {
            // It can only fail when the waker's descriptor was closed, which ends the wait with EBADF.
            let _ = self.sources.notify();
        }
        filled
    }

    /// Sleeps elsewhere than in the engine: calls `sleep` with what the sources leave of the longest time
    /// that it may take, which returns when [`Poller::descriptor`] is readable. The next `wait` then
    /// returns what there is.
    pub(crate) fn sleep_elsewhere<T>(
        &self,
        limit: Option<Duration>,
        sleep: impl FnOnce(Option<Duration>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.check_owner()?;
        let guard = self.sources.begin_wait();
        let slept = sleep(self.sources.sleep_limit(limit).timeout);
        drop(guard);
        slept
    }
}

// ---- The strict path ------------------------------------------------------------------------------

/// A strict wait keeps a list of what it brings, whatever room the caller says there is.
const MAX_STRICT_EVENTS: usize = 4_096;

impl Poller {
    /// An ordinary wait between two checks of everything. As long as something is left unread it returns in
    /// between to check again: the mistake may be that nothing will ever end the wait.
    pub(super) fn wait_strictly(
        &self,
        strict: &Strict,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        self.in_strict_mode(self.registry(), |strict, _| strict.wait_begins());
        let deadline = Deadline::after(timeout);
        let mut left = timeout;
        loop {
            let mut has_unread = false;
            self.in_strict_mode(self.registry(), |strict, registry| {
                let (findings, unread) = strict.before_wait(registry);
                has_unread = unread;
                findings
            });
            let slice = if has_unread {
                Some(left.map_or(strict.limit(), |left| left.min(strict.limit())))
            } else {
                left
            };
            let filled = self.wait_and_check(events, slice)?;
            if filled > 0 || slice == left {
                return Ok(filled);
            }
            left = deadline.left();
            // Only the slice is over: that is no wait of the caller's, and nothing spurious.
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An ordinary wait, and a check of what it brought.
    fn wait_and_check(
        &self,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        // The callback of a finding may have forked: this may be the child.
        self.check_owner()?;
        let deadline = Deadline::after(timeout);
        let most = events.len().min(MAX_STRICT_EVENTS);
        let mut list = Vec::with_capacity(most);
        engine::fill(&mut list, most, |slots| {
            let (batch, due) = self.round(slots, timeout);
            self.wait_slow(slots, &deadline, batch, due)
        })?;
        for (slot, event) in events.iter_mut().zip(&list) {
            slot.write(*event);
        }
        self.in_strict_mode(self.registry(), |strict, registry| {
            strict.after_wait(registry, &list, list.len() == most)
        });
        Ok(list.len())
    }
}

pub(super) fn zero_capacity() -> io::Error {
    fail(libc::EINVAL, "there is no room for an event")
}
