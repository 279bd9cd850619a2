//! The signal handler: it counts, and wakes the pollers that watch the signal.

use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering::SeqCst};

use super::action::{self, Installed};
use super::SIGNALS;
use crate::sys::{errno_location, fork, write_to_waker};

static COUNTS: [AtomicU32; SIGNALS] = [const { AtomicU32::new(0) }; SIGNALS];
/// The first slot of the list.
static SLOTS: AtomicPtr<WatcherSlot> = AtomicPtr::new(ptr::null_mut());
/// The process in the upper half, in terms of [`fork::epoch`], and in the lower half how many of its
/// handlers are walking along the slots: those of its parent don't count in a child.
static ACTIVE_HANDLERS: AtomicU64 = AtomicU64::new(0);

/// How often a signal has come.
pub(super) fn count(signo: i32) -> u32 {
    COUNTS[signo as usize].load(SeqCst)
}

/// Async-signal-safe: atomics, write(2), sigaction(2) and kill(2), with `errno` as it was.
pub(super) extern "C" fn handle(signo: libc::c_int) {
    // SAFETY: errno's address is valid for the life of the thread.
    let errno = unsafe { *errno_location() };
    let process = fork::epoch();
    match action::installed_for(signo, process) {
        Installed::ByAncestor => action::restore_and_raise(signo),
        Installed::Here => count_and_wake(signo, process),
    }
    // SAFETY: as above.
    unsafe { *errno_location() = errno };
}

fn count_and_wake(signo: libc::c_int, process: u32) {
    COUNTS[signo as usize].fetch_add(1, SeqCst);
    let none = u64::from(process) << 32;
    let enter = |active| Some(if active >> 32 == none >> 32 { active + 1 } else { none | 1 });
    let _ = ACTIVE_HANDLERS.fetch_update(SeqCst, SeqCst, enter);
    for slot in slots() {
        let wake_fd = slot.wake_fd.load(SeqCst);
        let is_watched = slot.watched.load(SeqCst) & bit(signo) != 0;
        if wake_fd >= 0 && is_watched && slot.owner() == process {
            // Before a slot's number can be closed, its poller waits for the active handlers to
            // end: it is still the waker's.
            let _ = write_to_waker(wake_fd);
        }
    }
    let leave = |active| (active >> 32 == none >> 32).then(|| active - 1);
    let _ = ACTIVE_HANDLERS.fetch_update(SeqCst, SeqCst, leave);
}

/// Whether a handler is walking along the slots.
fn any_active_handler() -> bool {
    let active = ACTIVE_HANDLERS.load(SeqCst);
    active >> 32 == u64::from(fork::epoch()) && active as u32 > 0
}

/// Every slot there is. Async-signal-safe.
fn slots() -> impl Iterator<Item = &'static WatcherSlot> {
    // SAFETY: slots are leaked when they are made, so every pointer in the list stays valid.
    let mut next = unsafe { SLOTS.load(SeqCst).cast_const().as_ref() };
    std::iter::from_fn(move || {
        let slot = next?;
        // SAFETY: as above.
        next = unsafe { slot.next.as_ref() };
        Some(slot)
    })
}

/// One poller's entry in the list. Slots are never freed, only used again, so that a handler can
/// walk along them at any moment.
pub(super) struct WatcherSlot {
    next: *const WatcherSlot,
    /// The signals watched: bit `signo - 1`.
    watched: AtomicU64,
    /// The descriptor that the handler writes to; -1 while no poller has the slot.
    wake_fd: AtomicI32,
    /// The process that the poller belongs to, in terms of [`fork::epoch`].
    owner: AtomicU32,
}

impl WatcherSlot {
    /// A slot that no poller has, or a new one.
    pub(super) fn claim(wake_fd: RawFd) -> &'static Self {
        let free = slots().find(|slot| slot.wake_fd.compare_exchange(-1, wake_fd, SeqCst, SeqCst).is_ok());
        if let Some(slot) = free {
            slot.owner.store(fork::epoch(), SeqCst);
            return slot;
        }
        let new = Box::leak(Box::new(Self {
            next: ptr::null(),
            watched: AtomicU64::new(0),
            wake_fd: AtomicI32::new(wake_fd),
            owner: AtomicU32::new(fork::epoch()),
        }));
        loop {
            let first = SLOTS.load(SeqCst);
            new.next = first;
            if SLOTS.compare_exchange(first, new, SeqCst, SeqCst).is_ok() {
                return new;
            }
        }
    }

    pub(super) fn owner(&self) -> u32 {
        self.owner.load(SeqCst)
    }

    pub(super) fn watch(&self, signo: i32) {
        self.watched.fetch_or(bit(signo), SeqCst);
    }

    pub(super) fn unwatch(&self, signo: i32) {
        self.watched.fetch_and(!bit(signo), SeqCst);
    }

    /// In a forked child, whose poller it is now.
    pub(super) fn after_fork(&self) {
        self.owner.store(fork::epoch(), SeqCst);
    }

    /// Frees the slot, and returns when no handler uses its descriptor any more.
    pub(super) fn release(&self) {
        self.watched.store(0, SeqCst);
        self.wake_fd.store(-1, SeqCst);
        while any_active_handler() {
            std::thread::yield_now();
        }
    }
}

const fn bit(signo: i32) -> u64 {
    1 << (signo - 1)
}

// SAFETY: a slot's `next` is written once, before the slot is in the list.
unsafe impl Send for WatcherSlot {}
// SAFETY: as above; everything else in it is atomic.
unsafe impl Sync for WatcherSlot {}
