//! Which process a poller belongs to, and how a forked child takes it over.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use super::Poller;
use crate::error::fail;
use crate::sys::fork;

/// Marks a poller whose waits are special: a process is never 2^31 forks away from the one that loaded the
/// library.
const SPECIAL: u32 = 1 << 31;

/// What [`Poller::fork_epoch`] is for a poller made or rebuilt now.
pub(super) fn fork_epoch(is_special: bool) -> u32 {
    fork::epoch() | if is_special { SPECIAL } else { 0 }
}

impl Poller {
    /// Rebuilds an inherited poller in a forked child, with all its registrations. Descriptors
    /// that the child has closed are reported by the next wait as INVALID. Does nothing in the
    /// process that made the poller.
    ///
    /// `EBUSY` when another thread of the parent was changing the poller at the very moment of
    /// the fork: no thread can finish that change: drop the poller and make a new one.
    ///
    /// # Portability
    ///
    /// Every kind of fork is noticed, `_Fork(3)` and a bare `clone(2)` too, on Linux; elsewhere those
    /// that run the handlers of `pthread_atfork(3)`. Makes the engine's descriptors again, and one
    /// `epoll_ctl(2)` for each registration on epoll.
    ///
    /// ```
    /// use omnipoll::Poller;
    ///
    /// let poller = Poller::new()?;
    /// // In a forked child, before anything else is done with it:
    /// poller.after_fork()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "fork")]
    pub fn after_fork(&self) -> io::Result<()> {
        if self.is_owner() {
            return Ok(());
        }
        let (Some(mut state), Ok(mut registry)) = (self.sources.try_state(), self.registry.try_lock()) else {
            return Err(fail(
                libc::EBUSY,
                "another thread was changing the poller during the fork: make a new one",
            ));
        };
        self.sources.waker.rebuild()?;
        state.wall_timers.after_fork()?;
        self.sources.rebuild_outer_loop(&state)?;
        self.engine.rebuild(&mut registry)?;
        for pidfd in state.children.after_fork() {
            self.engine.remove(&mut registry, pidfd.as_raw_fd());
        }
        self.sources.after_fork(&mut state);
        self.counters.reset();
        self.strict.iter().for_each(|strict| strict.after_fork(&registry));
        self.fork_epoch.store(fork_epoch(self.is_made_special()), Ordering::Release);
        Ok(())
    }

    /// In a forked child that will not use it: closes what the kernel keeps for the parent.
    pub(crate) fn leave_to_parent(&self) {
        self.engine.leave_to_parent();
    }

    /// Whether this is the process that made or rebuilt it, and no child forked since.
    #[inline]
    pub(crate) fn is_owner(&self) -> bool {
        self.fork_epoch.load(Ordering::Acquire) & !SPECIAL == fork::epoch()
    }

    #[inline]
    pub(crate) fn check_owner(&self) -> io::Result<()> {
        if self.is_owner() {
            Ok(())
        } else {
            Err(self.not_owner())
        }
    }

    /// The error of a forked child that uses its parent's poller.
    #[cold]
    fn not_owner(&self) -> io::Error {
        self.strict.iter().for_each(|strict| strict.used_by_child());
        fail(libc::EOWNERDEAD, "the poller belongs to the parent process: call after_fork first")
    }

    /// Whether the poller is strict, or has a wait policy.
    fn is_made_special(&self) -> bool {
        self.strict.is_some() || !self.wait_policy.is_balanced()
    }

    /// Whether a wait must not take the fast path: the poller is made special, or another process's.
    /// One comparison, since the fast path makes it too.
    #[inline]
    pub(super) fn is_special(&self) -> bool {
        self.fork_epoch.load(Ordering::Acquire) != fork::cached_epoch()
    }
}
