//! The waits in progress on an engine whose system call holds the files it was passed.
//!
//! Closing a descriptor closes nothing while another thread's system call holds its file: the
//! peer sees no end of file, and a port stays bound. So a removal ends the calls in progress
//! that began before it, and returns when they have: [`InFlightWaits::wait_until_current`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::registry::Registry;
use crate::sys::fork;
use crate::sys::{lock, Waker};

/// A wait may take the wake-up meant for an older one, which sleeps on: it is woken again.
const WAKE_AGAIN: Duration = Duration::from_millis(10);

#[derive(Default)]
pub(super) struct InFlightWaits {
    /// Locked only while the registry is.
    inner: Mutex<Inner>,
    /// How many there are. It changes with the registry locked, so that a thread that has changed the
    /// registry sees each wait that began before.
    count: AtomicUsize,
    ended: Condvar,
}

#[derive(Default)]
struct Inner {
    /// Counts the changes of the set.
    version: u64,
    /// The version of the set that each wait in progress has.
    waits: Vec<u64>,
    /// The threads in [`InFlightWaits::wait_until_current`].
    removing: usize,
}

impl Inner {
    fn any_older_than(&self, version: u64) -> bool {
        self.waits.iter().any(|&wait| wait < version)
    }
}

impl InFlightWaits {
    /// Begins a wait with the present version of the set, which [`InFlightWaits::end`] takes.
    pub(super) fn begin(&self) -> u64 {
        let inner = &mut *lock(&self.inner);
        inner.waits.push(inner.version);
        self.count.store(inner.waits.len(), Ordering::Relaxed);
        inner.version
    }

    pub(super) fn end(&self, version: u64) {
        let inner = &mut *lock(&self.inner);
        if let Some(index) = inner.waits.iter().position(|&wait| wait == version) {
            inner.waits.swap_remove(index);
        }
        self.count.store(inner.waits.len(), Ordering::Relaxed);
        if inner.removing > 0 {
            self.ended.notify_all();
        }
    }

    /// Notes a change of the set. Returns whether a wait in progress had the version before: it
    /// must be woken. The others have been woken already.
    pub(super) fn change(&self) -> bool {
        let inner = &mut *lock(&self.inner);
        let any_current = inner.waits.contains(&inner.version);
        inner.version += 1;
        any_current
    }

    /// Whether a wait in progress has an older version of the set.
    pub(super) fn any_outdated(&self) -> bool {
        let inner = lock(&self.inner);
        inner.any_older_than(inner.version)
    }

    /// Returns when no wait in progress is older than the last change. To end, each of them needs
    /// the registry and nothing else.
    pub(super) fn wait_until_current(&self, registry: &Mutex<Registry>, waker: &Waker) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let process = fork::epoch();
        let mut registry = lock(registry);
        let version = lock(&self.inner).version;
        // The handler of a signal may fork: in the child, no other thread will end its wait.
        while fork::cached_epoch() == process && lock(&self.inner).any_older_than(version) {
            lock(&self.inner).removing += 1;
            let (locked, waited) =
                self.ended.wait_timeout(registry, WAKE_AGAIN).unwrap_or_else(PoisonError::into_inner);
            registry = locked;
            lock(&self.inner).removing -= 1;
            if waited.timed_out() {
                // It can only fail when the waker's descriptor was closed, which ends the waits with EBADF.
                let _ = waker.wake();
            }
        }
    }

    /// In a forked child: the waits were the parent's.
    pub(super) fn reset(&self) {
        let inner = &mut *lock(&self.inner);
        inner.waits.clear();
        inner.removing = 0;
        self.count.store(0, Ordering::Relaxed);
    }
}
