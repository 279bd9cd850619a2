//! The waits in progress on an engine whose system call holds on to the files it was passed.
//!
//! Closing a descriptor closes nothing while another thread's system call holds its file: the
//! peer hears no end of file, and a port stays bound. So a removal ends the calls in progress
//! that began before it, and returns when they have: [`Waits::until_known`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::registry::Registry;
use crate::sys::fork;
use crate::sys::{lock, Doorbell};

/// A wait that takes the ring of the doorbell for an older one may sleep: it is rung again.
const RING_AGAIN: Duration = Duration::from_millis(10);

#[derive(Default)]
pub(super) struct Waits {
    /// Locked only while the registry is.
    inner: Mutex<Inner>,
    /// How many there are. It changes with the registry locked, so that whoever has changed that
    /// sees each wait that began before.
    count: AtomicUsize,
    ended: Condvar,
}

#[derive(Default)]
struct Inner {
    /// Counts the changes.
    changes: u64,
    /// The changes that each wait in progress knows of.
    known: Vec<u64>,
    /// The threads in [`Waits::until_known`].
    removing: usize,
}

impl Waits {
    /// Begins a wait, which knows of every change until now. Returns what [`Waits::end`] takes.
    pub(super) fn begin(&self) -> u64 {
        let inner = &mut *lock(&self.inner);
        inner.known.push(inner.changes);
        self.count.store(inner.known.len(), Ordering::Relaxed);
        inner.changes
    }

    pub(super) fn end(&self, known: u64) {
        let inner = &mut *lock(&self.inner);
        if let Some(index) = inner.known.iter().position(|&it| it == known) {
            inner.known.swap_remove(index);
        }
        self.count.store(inner.known.len(), Ordering::Relaxed);
        if inner.removing > 0 {
            self.ended.notify_all();
        }
    }

    /// Notes a change. Says whether there is a wait in progress that knew of all those before:
    /// the others are on their way back already.
    pub(super) fn change(&self) -> bool {
        let inner = &mut *lock(&self.inner);
        let knows_all = inner.known.contains(&inner.changes);
        inner.changes += 1;
        knows_all
    }

    /// Whether a wait in progress does not know of every change.
    pub(super) fn any_behind(&self) -> bool {
        let inner = lock(&self.inner);
        inner.known.iter().any(|&known| known < inner.changes)
    }

    /// Returns when no wait in progress is older than the last change. Each of them needs the
    /// registry for its way back, and nothing else.
    pub(super) fn until_known(&self, registry: &Mutex<Registry>, doorbell: &Doorbell) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let process = fork::count();
        let mut registry = lock(registry);
        let change = lock(&self.inner).changes;
        // The handler of a signal may fork: in the child, nobody comes back.
        while fork::glance() == process && lock(&self.inner).known.iter().any(|&known| known < change) {
            lock(&self.inner).removing += 1;
            let (locked, waited) =
                self.ended.wait_timeout(registry, RING_AGAIN).unwrap_or_else(PoisonError::into_inner);
            registry = locked;
            lock(&self.inner).removing -= 1;
            if waited.timed_out() {
                // It can only fail when somebody closed the bell, which ends the waits with EBADF.
                let _ = doorbell.ring();
            }
        }
    }

    /// The waits were the parent's, of which this is a forked child.
    pub(super) fn forget(&self) {
        let inner = &mut *lock(&self.inner);
        inner.known.clear();
        inner.removing = 0;
        self.count.store(0, Ordering::Relaxed);
    }
}
