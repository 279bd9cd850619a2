//! Stale entries: the set holds open files, so that a registration whose descriptor was closed
//! stays in it as long as a duplicate lives, and can be named by no number.
//!
//! While there may be one, no event is decoded without a lookup in the registry, where its
//! generation gives it away. Since a LEVEL one would spin, the set is rebuilt without it.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering;

use libc::{EBADF, EINVAL, ENOENT, EPERM, EPOLL_CTL_ADD, EPOLL_CTL_MOD};

use super::key::{self, Entry, WAKER};
use super::set::{control_error, epoll_bits, Set};
use super::Epoll;
use crate::interest::Interest;
use crate::registry::Registry;
use crate::sys::lock;

/// How many stale events are remembered at most; with so many, one must be of a stale entry.
const MAX_SEEN: usize = 64;

impl Epoll {
    /// Notes that a registration has changed, and whether there may be a stale entry from now on.
    /// In this order: a wait that finds the clock unchanged knows of stale entries.
    pub(super) fn note_change(&self, registry: &Registry, may_be_stale: bool) {
        if may_be_stale {
            self.may_have_stale.store(true, Ordering::Release);
        }
        self.clock.store(registry.clock(), Ordering::Release);
    }

    /// Notes that the set is rebuilt. The clock moves first, since a wait in progress may have
    /// been given an event of a stale entry.
    pub(super) fn note_rebuilt(&self, registry: &mut Registry) {
        lock(&self.seen_stale).clear();
        registry.tick();
        self.clock.store(registry.clock(), Ordering::Release);
        self.may_have_stale.store(false, Ordering::Release);
    }

    /// Whether no registration has changed since the clock was read, and no entry can be stale.
    #[inline]
    pub(super) fn is_unchanged_since(&self, clock: u32) -> bool {
        !self.may_have_stale.load(Ordering::Acquire) && self.clock.load(Ordering::Acquire) == clock
    }

    /// Whether a stale event is of a stale entry: one of a registration removed a moment ago is
    /// never seen again.
    #[cold]
    pub(super) fn is_stale_entry(&self, key: u64) -> bool {
        let mut seen = lock(&self.seen_stale);
        let is_entry = seen.contains(&key) || seen.len() == MAX_SEEN;
        if !is_entry {
            seen.push(key);
        }
        is_entry
    }

    /// Makes a new set without stale entries, under the same number. Waits in progress hold the
    /// old set: its waker becomes level-triggered and stays readable, so that each of them returns.
    #[cold]
    pub(super) fn rebuild_set(&self, registry: &mut Registry) -> io::Result<()> {
        let new = Set::new(&self.waker, self.busy_poll)?;
        self.move_into(&new, registry, |watched, interest, key| {
            // ENOENT is a number that stands for another file by now. An EXCLUSIVE entry can't be
            // modified: EINVAL is one that is there. With the flag, any number would be EINVAL.
            let events = epoll_bits(interest) & !(libc::EPOLLEXCLUSIVE as u32);
            match self.set.control_raw(EPOLL_CTL_MOD, watched, events, key) {
                Err(EINVAL) if interest.is_exclusive() => Ok(()),
                result => result,
            }
        })?;
        self.set
            .control_raw(EPOLL_CTL_MOD, self.waker.as_raw_fd(), libc::EPOLLIN as u32, WAKER)
            .map_err(control_error)?;
        self.waker.wake()?;
        self.replace_set(&new)?;
        self.note_rebuilt(registry);
        Ok(())
    }

    /// Makes the number stand for another set, for an outer loop too. A wait in progress may hold the
    /// file of the old one.
    pub(super) fn replace_set(&self, new: &Set) -> io::Result<()> {
        let Some(outer_set) = self.outer_set.get() else { return self.set.replace(new) };
        outer_set.remove(self.set.as_fd());
        let replaced = self.set.replace(new);
        outer_set.add(self.set.as_fd()).and(replaced)
    }

    /// Registers in another set what `is_live` accepts; the rest was closed unnoticed. The kernel
    /// can't add a ONESHOT disabled: one that has fired stays out until it is modified.
    pub(super) fn move_into(
        &self,
        new: &Set,
        registry: &mut Registry,
        is_live: impl Fn(RawFd, Interest, u64) -> Result<(), i32>,
    ) -> io::Result<()> {
        for fd in registry.descriptors() {
            let Some(registration) = registry.get_mut(fd) else { continue };
            let entry = Entry::of(registration);
            if registration.armed == 0 && entry != Entry::Placeholder {
                Entry::Disabled.set(registration);
                continue;
            }
            let (watched, interest) = (self.watched(fd, entry), registration.interest);
            let key = key::encode(fd, registration.generation, registration.token, entry);
            let moved = is_live(watched, interest, key)
                .and_then(|()| new.control(EPOLL_CTL_ADD, watched, interest, key));
            match moved {
                Err(EBADF | ENOENT | EPERM) => registry.mark_closed(fd),
                result => result.map_err(control_error)?,
            }
        }
        Ok(())
    }
}
