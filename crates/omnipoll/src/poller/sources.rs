//! What a [`Poller`] waits for besides descriptors.

use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, SystemTime};

use super::Poller;
use crate::error::{fail, no_memory};
use crate::event::Event;
use crate::interest::Interest;
use crate::registry::{InternalSource, Role, Tag};
use crate::source::post::MAX_POSTS;
use crate::source::timer::MAX_EXPIRED;
use crate::source::wall_clock;
use crate::sys::lock;

/// Marks the ids of wall-clock timers.
const WALL: u64 = 1 << 31;

/// # Timers
///
/// A timer is known by its id until it is cancelled. One without a period that has expired
/// can be set again under it, until 65,536 others have expired after it.
impl Poller {
    /// Arms a timer: a TIMER event with `token` when `delay` has passed on the monotonic clock,
    /// and again after each `period`. Never early; the soonest first, and of two with the same
    /// deadline the older. A late timer is reported once, with how many periods have passed.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a period of zero, `ENOMEM` without memory, `EOWNERDEAD` in a forked child before
    /// [`Poller::after_fork`].
    ///
    /// # Portability
    ///
    /// The same on every system, by the timeout of the wait. No system call, unless a thread waits
    /// that must wake sooner now.
    ///
    /// ```
    /// use omnipoll::{EventKind, Events, Poller};
    /// use std::time::Duration;
    ///
    /// let poller = Poller::new()?;
    /// poller.timer_add(Duration::from_millis(5), None, 7)?;
    /// let mut events = Events::with_capacity(8);
    /// poller.wait(&mut events, None)?;
    /// let event = events.iter().next().unwrap();
    /// assert_eq!((event.kind(), event.token(), event.value()), (EventKind::Timer, 7, 1));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "timerfd_create")]
    #[doc(alias = "timer_create")]
    pub fn timer_add(&self, delay: Duration, period: Option<Duration>, token: u64) -> io::Result<u64> {
        self.check_token(token)?;
        self.timer_add_any(delay, period, token)
    }

    #[inline]
    pub(super) fn timer_add_any(
        &self,
        delay: Duration,
        period: Option<Duration>,
        token: u64,
    ) -> io::Result<u64> {
        self.check_owner()?;
        let period = in_nanoseconds(period)?;
        let mut state = self.sources.state();
        let deadline = self.sources.now().saturating_add(saturating(delay));
        let id = state.timers.add(deadline, period, token).map_err(no_memory)?;
        self.sources.timers_changed(&state);
        Ok(id)
    }

    /// Arms a timer for a time of the wall clock; it follows when the clock is set. Its value
    /// is 1.
    ///
    /// # Errors
    ///
    /// As for [`Poller::timer_add`].
    ///
    /// # Portability
    ///
    /// Linux: one `timerfd_settime(2)` when it is the soonest. `ENOTSUP` on other systems.
    ///
    /// ```
    /// use omnipoll::{Events, Poller};
    /// use std::time::{Duration, SystemTime};
    ///
    /// let poller = Poller::new()?;
    /// # if cfg!(not(target_os = "linux")) { return Ok(()) }
    /// poller.timer_add_at(SystemTime::now() + Duration::from_millis(5), 7)?;
    /// let mut events = Events::with_capacity(8);
    /// poller.wait(&mut events, None)?;
    /// assert_eq!(events.iter().next().map(|event| event.token()), Some(7));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "timerfd_settime")]
    pub fn timer_add_at(&self, time: SystemTime, token: u64) -> io::Result<u64> {
        self.check_token(token)?;
        self.check_owner()?;
        let mut state = self.sources.state();
        let (timerfd, is_new) = state.wall_timers.timerfd()?;
        if is_new {
            self.add_internal(timerfd, InternalSource::WallClock, 0)
                .inspect_err(|_| state.wall_timers.drop_timerfd())?;
        }
        Ok(state.wall_timers.add(wall_clock::nanoseconds(time), token)? | WALL)
    }

    /// Moves a timer to a new delay from now, and a new period; arms it again if it has expired,
    /// whether its event was returned or is still in a batch.
    ///
    /// # Errors
    ///
    /// `ESTALE` when it was cancelled, or has expired and 65,536 others after it; `EINVAL` for a period
    /// of zero or a wall-clock timer.
    ///
    /// # Portability
    ///
    /// As for [`Poller::timer_add`].
    ///
    /// ```
    /// use omnipoll::{Events, Poller};
    /// use std::time::Duration;
    ///
    /// const IDLE: Duration = Duration::from_millis(5);
    /// let poller = Poller::new()?;
    /// let timer = poller.timer_add(IDLE, None, 7)?;
    /// let mut events = Events::with_capacity(8);
    /// poller.wait(&mut events, None)?;
    /// // Data came in the same batch: it is not idle after all.
    /// poller.timer_set(timer, IDLE, None)?;
    /// poller.wait(&mut events, None)?;
    /// assert_eq!(events.iter().next().unwrap().token(), 7);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn timer_set(&self, id: u64, delay: Duration, period: Option<Duration>) -> io::Result<()> {
        self.check_owner()?;
        let period = in_nanoseconds(period)?;
        if id & WALL != 0 {
            return Err(fail(libc::EINVAL, "a wall-clock timer can't be moved: cancel it and add another"));
        }
        let mut state = self.sources.state();
        let found = state.timers.set(id, self.sources.now().saturating_add(saturating(delay)), period);
        self.sources.timers_changed(&state);
        found.then_some(()).ok_or_else(stale)
    }

    /// Disarms a timer: no later wait reports it. `ESTALE` when it has expired or was cancelled.
    /// Its id is stale from then on, either way.
    ///
    /// # Portability
    ///
    /// The same on every system. Makes no system call.
    ///
    /// ```
    /// use omnipoll::Poller;
    /// use std::time::Duration;
    ///
    /// let poller = Poller::new()?;
    /// let timer = poller.timer_add(Duration::from_secs(60), None, 7)?;
    /// poller.timer_cancel(timer)?;
    /// assert!(poller.timer_cancel(timer).is_err());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn timer_cancel(&self, id: u64) -> io::Result<()> {
        self.check_owner()?;
        let mut state = self.sources.state();
        let found = match id & WALL {
            0 => state.timers.cancel(id),
            _ => state.wall_timers.cancel(id & !WALL),
        };
        self.sources.timers_changed(&state);
        found.then_some(()).ok_or_else(stale)
    }
}

/// # Signals
impl Poller {
    /// Turns a signal into SIGNAL events: the value is its number, [`Event::count`] how often
    /// it came. Several pollers may watch one signal; each reports it. Replaces the signal's
    /// disposition by `sigaction(2)` until the last of them removes it.
    ///
    /// `EEXIST` when this poller watches it, `EINVAL` for a number that is no signal, for
    /// SIGKILL and SIGSTOP, and for faults (SIGSEGV, SIGBUS, SIGFPE, SIGILL).
    ///
    /// # Portability
    ///
    /// The same on every system: a handler that wakes the pollers, and no `signalfd(2)`, so that no
    /// thread has to block the signal.
    ///
    /// ```
    /// use omnipoll::{EventKind, Events, Poller};
    ///
    /// let poller = Poller::new()?;
    /// poller.signal_add(libc::SIGUSR1, 7)?;
    /// // SAFETY: it is handled.
    /// unsafe { libc::raise(libc::SIGUSR1) };
    /// let mut events = Events::with_capacity(8);
    /// poller.wait(&mut events, None)?;
    /// let event = events.iter().next().unwrap();
    /// assert_eq!((event.kind(), event.value()), (EventKind::Signal, i64::from(libc::SIGUSR1)));
    /// poller.signal_remove(libc::SIGUSR1)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "sigaction")]
    #[doc(alias = "signalfd")]
    pub fn signal_add(&self, signo: i32, token: u64) -> io::Result<()> {
        self.check_token(token)?;
        self.signal_add_any(signo, token)
    }

    pub(super) fn signal_add_any(&self, signo: i32, token: u64) -> io::Result<()> {
        self.check_owner()?;
        self.sources.state().signals.add(self.sources.wake_fd(), signo, Some(token))?;
        // It may have come before the handler knew of this poller.
        self.sources.notify()
    }

    /// Stops watching a signal; the last poller to do so restores the disposition it had.
    /// `ENOENT` when this poller does not watch it. See the example of [`Poller::signal_add`].
    ///
    /// # Portability
    ///
    /// As for [`Poller::signal_add`].
    pub fn signal_remove(&self, signo: i32) -> io::Result<()> {
        self.check_owner()?;
        self.sources.state().signals.remove(signo)
    }
}

/// # Children
impl Poller {
    /// Reports by a CHILD event that a child of this process has ended, and reaps it: the value
    /// is its status as `waitpid(2)` has it. The watch ends with that.
    ///
    /// # Errors
    ///
    /// `ECHILD` when there is no such child of this process or it was reaped, `EEXIST` when it
    /// is watched, `EMFILE` as the system says.
    ///
    /// # Portability
    ///
    /// `pidfd_open(2)` (Linux 5.3), or SIGCHLD where there is none: then nothing else may set its
    /// disposition.
    ///
    /// ```
    /// use omnipoll::{Events, Poller};
    /// use std::process::Command;
    ///
    /// let poller = Poller::new()?;
    /// let child = Command::new("true").spawn()?;
    /// poller.child_add(child.id() as i32, 7)?;
    /// let mut events = Events::with_capacity(8);
    /// poller.wait(&mut events, None)?;
    /// assert_eq!(events.iter().next().map(|event| event.value()), Some(0));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "waitpid")]
    #[doc(alias = "pidfd_open")]
    pub fn child_add(&self, pid: i32, token: u64) -> io::Result<()> {
        self.check_token(token)?;
        self.child_add_any(pid, token)
    }

    pub(super) fn child_add_any(&self, pid: i32, token: u64) -> io::Result<()> {
        self.check_owner()?;
        let mut state = self.sources.state();
        let watched = match state.children.add(pid, token)? {
            Some(pidfd) => self.add_internal(pidfd, InternalSource::Child, token),
            None => state.signals.watch_internally(self.sources.wake_fd(), libc::SIGCHLD),
        };
        if let Err(error) = watched {
            let _ = state.children.remove(pid);
            return Err(error);
        }
        // Without a pidfd, it may have ended before SIGCHLD was watched.
        self.sources.notify()
    }

    /// Stops watching a child, without reaping it. `ENOENT` when it is not watched.
    ///
    /// # Portability
    ///
    /// As for [`Poller::child_add`].
    ///
    /// ```
    /// use omnipoll::Poller;
    /// use std::process::Command;
    ///
    /// let poller = Poller::new()?;
    /// let mut child = Command::new("true").spawn()?;
    /// poller.child_add(child.id() as i32, 7)?;
    /// poller.child_remove(child.id() as i32)?;
    /// assert!(child.wait()?.success());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn child_remove(&self, pid: i32) -> io::Result<()> {
        self.check_owner()?;
        let mut state = self.sources.state();
        if let Some(pidfd) = state.children.remove(pid)? {
            self.remove_internal(&pidfd);
        }
        Ok(())
    }

    pub(super) fn reap(&self, pidfd: RawFd) -> Option<Event> {
        let (ended, pidfd) = self.sources.state().children.reap_by(pidfd)?;
        self.remove_internal(&pidfd);
        let event = ended.event();
        self.sources.state().count(&event);
        Some(event)
    }
}

/// # Other threads
impl Poller {
    /// Hands a value to a thread that waits: a POST event with this token and value. Posts arrive in
    /// the order they were made, and none is lost.
    ///
    /// `EAGAIN` when 65,536 posts wait to be taken, `ENOMEM` without memory; nothing was posted then.
    ///
    /// # Portability
    ///
    /// The same on every system: a queue in memory, and a write to the waker's descriptor.
    ///
    /// ```
    /// use omnipoll::{Events, Poller};
    ///
    /// let poller = Poller::new()?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| poller.post(7, 42));
    ///     let mut events = Events::with_capacity(8);
    ///     poller.wait(&mut events, None)?;
    ///     assert_eq!(events.iter().next().map(|event| event.value()), Some(42));
    ///     Ok::<(), std::io::Error>(())
    /// })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn post(&self, token: u64, value: i64) -> io::Result<()> {
        self.check_token(token)?;
        const { assert!(MAX_POSTS == 65_536 && MAX_EXPIRED == 65_536) };
        self.check_owner()?;
        self.sources.state().posts.push(token, value)?;
        self.sources.notify()
    }
}

impl Poller {
    /// Registers a descriptor of the poller's own.
    fn add_internal(&self, fd: RawFd, source: InternalSource, token: u64) -> io::Result<()> {
        let mut registry = lock(&self.registry);
        registry.reserve(fd)?;
        self.engine.add(&mut registry, fd, Interest::READ, Tag { token, role: Role::Internal(source) })
    }

    fn remove_internal(&self, fd: &impl std::os::fd::AsRawFd) {
        self.engine.remove(&mut lock(&self.registry), fd.as_raw_fd());
    }
}

fn stale() -> io::Error {
    fail(libc::ESTALE, "the timer has expired or was cancelled")
}

fn saturating(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// A period as the timers keep it, for which 0 is none.
fn in_nanoseconds(period: Option<Duration>) -> io::Result<u64> {
    match period.map(saturating) {
        Some(0) => Err(fail(libc::EINVAL, "a period must be longer than nothing")),
        period => Ok(period.unwrap_or(0)),
    }
}
