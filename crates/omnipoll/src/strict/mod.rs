//! Strict mode: finds what people get wrong with these system calls, and reports it.
//!
//! It keeps a note of each registration, and before and after each wait asks the system about
//! every descriptor (`fstat`, and `poll` where an event was delivered): a wait costs in
//! proportion to what is registered. A poller that is not strict has none of this.
//!
//! Findings are collected under the locks and reported after them, so that a callback may use
//! the poller.

mod finding;
mod note;

use std::cell::Cell;
use std::collections::btree_map::{BTreeMap, Entry};
use std::os::fd::RawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use finding::{Finding, FindingKind};

use crate::event::{Event, EventKind, Ready};
use crate::registry::Registry;
use crate::sys::fork;
use crate::sys::{lock, probe};
use finding::Cause;
use note::Note;

/// What findings are reported to.
pub(crate) type Callback = Arc<dyn Fn(&Finding) + Send + Sync>;

pub(crate) struct Strict {
    /// Locked only while the registry is: where that can be locked after a fork, so can this.
    notes: Mutex<Notes>,
    /// How long something may be left unread, and a dispatch take.
    limit: Duration,
    id: u64,
    /// The longest dispatch so far, in nanoseconds.
    longest: AtomicU64,
    /// The process in which the use of an inherited poller was last reported, in terms of [`fork`].
    reported_in: AtomicU32,
}

#[derive(Default)]
struct Notes {
    by_fd: BTreeMap<RawFd, Note>,
    callback: Option<Callback>,
    /// A dispatch that took too long was reported without a registration.
    blocked_reported: bool,
}

/// When a wait of this thread last returned with events.
#[derive(Clone, Copy)]
struct LastReturn {
    poller: u64,
    at: Instant,
    /// The descriptor, when there was one event and it was a descriptor's.
    cause: Option<Cause>,
}

thread_local! {
    static LAST_RETURN: Cell<Option<LastReturn>> = const { Cell::new(None) };
}

impl Strict {
    pub(crate) fn new(limit: Duration) -> Self {
        static POLLERS: AtomicU64 = AtomicU64::new(0);
        Self {
            notes: Mutex::default(),
            limit,
            id: POLLERS.fetch_add(1, Relaxed),
            longest: AtomicU64::new(0),
            reported_in: AtomicU32::new(fork::epoch()),
        }
    }

    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Sets what findings are reported to. Returns the callback before.
    pub(crate) fn replace_callback(&self, callback: Callback) -> Option<Callback> {
        lock(&self.notes).callback.replace(callback)
    }

    /// A registration has begun.
    pub(crate) fn added(&self, registry: &Registry, fd: RawFd) -> Vec<Finding> {
        let Some(registration) = registry.get(fd) else { return Vec::new() };
        let mut note = Note::new(fd, registration, Instant::now());
        let blocking = note.blocking();
        // One that was there before was not removed.
        let old = lock(&self.notes).by_fd.insert(fd, note);
        old.and_then(|mut old| old.closed()).into_iter().chain(blocking).collect()
    }

    /// A registration was modified.
    pub(crate) fn modified(&self, registry: &Registry, fd: RawFd) -> Vec<Finding> {
        let Some(registration) = registry.get(fd) else { return Vec::new() };
        let mut notes = lock(&self.notes);
        let note = match notes.by_fd.entry(fd) {
            Entry::Occupied(old) => old.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(Note::new(fd, registration, Instant::now())),
        };
        note.update(registration);
        note.blocking().into_iter().collect()
    }

    /// A registration was removed.
    pub(crate) fn removed(&self, fd: RawFd) -> Vec<Finding> {
        let note = lock(&self.notes).by_fd.remove(&fd);
        // An engine that does not notice closed descriptors leaves it to this.
        note.filter(|note| !note.is_same_file()).and_then(|mut note| note.closed()).into_iter().collect()
    }

    /// This thread begins a wait.
    pub(crate) fn wait_begins(&self) -> Vec<Finding> {
        let Some(last) = LAST_RETURN.get().filter(|last| last.poller == self.id) else { return Vec::new() };
        LAST_RETURN.set(None);
        let took = last.at.elapsed();
        self.longest.fetch_max(took.as_nanos() as u64, Relaxed);
        if took <= self.limit {
            return Vec::new();
        }
        let notes = &mut *lock(&self.notes);
        let note =
            last.cause.and_then(|cause| notes.by_fd.get_mut(&cause.fd).filter(|note| note.is_at(cause)));
        let finding = match note {
            Some(note) => note.report(FindingKind::BlockedLoop),
            None if std::mem::replace(&mut notes.blocked_reported, true) => None,
            None => Some(FindingKind::BlockedLoop.about(last.cause)),
        };
        finding.into_iter().collect()
    }

    /// Checks everything before a thread sleeps. Also returns whether something is left unread, so
    /// that another check is due before long.
    pub(crate) fn before_wait(&self, registry: &Registry) -> (Vec<Finding>, bool) {
        let (mut findings, now) = (Vec::new(), Instant::now());
        let notes = &mut lock(&self.notes).by_fd;
        notes.retain(|&fd, note| {
            let is_registered = note.is_of(registry.get(fd));
            findings.extend(if is_registered {
                note.check(self.limit, now)
            } else {
                // The engine has ended it, which it does only when the descriptor was closed.
                note.closed()
            });
            is_registered
        });
        (findings, notes.values().any(Note::has_unread))
    }

    /// Checks what a wait has returned; `full` when there was no room for more.
    pub(crate) fn after_wait(&self, registry: &Registry, events: &[Event], full: bool) -> Vec<Finding> {
        let (mut findings, now) = (Vec::new(), Instant::now());
        let notes = &mut lock(&self.notes).by_fd;
        if !full {
            notes.values_mut().for_each(Note::not_delivered);
        }
        let io = |event: &&Event| event.kind() == EventKind::Io;
        for event in events.iter().filter(io) {
            let fd = event.value() as RawFd;
            let Entry::Occupied(mut note) = notes.entry(fd) else { continue };
            if event.ready() != Ready::INVALID {
                findings.extend(note.get_mut().delivered(event, now));
            } else if !note.get().is_of(registry.get(fd)) {
                findings.extend(note.remove().closed());
            }
        }
        if !events.is_empty() {
            let only = events.first().filter(|_| events.len() == 1).filter(io);
            let cause = only.map(|event| Cause { fd: event.value() as RawFd, token: event.token() });
            LAST_RETURN.set(Some(LastReturn { poller: self.id, at: now, cause }));
        }
        findings
    }

    /// The poller is dropped.
    pub(crate) fn dropped(&self, registry: &Registry) -> Vec<Finding> {
        let notes = &mut lock(&self.notes).by_fd;
        let left = notes.iter_mut().filter_map(|(&fd, note)| {
            if note.is_of(registry.get(fd)) {
                note.leaked()
            } else {
                note.closed()
            }
        });
        left.collect()
    }

    /// In a forked child, which may have closed descriptors that it doesn't need.
    pub(crate) fn after_fork(&self, registry: &Registry) {
        LAST_RETURN.set(None);
        lock(&self.notes).by_fd.retain(|&fd, note| note.is_of(registry.get(fd)) && note.is_same_file());
    }

    /// A forked child has used its parent's poller.
    pub(crate) fn used_by_child(&self) {
        if self.reported_in.swap(fork::epoch(), Relaxed) != fork::epoch() {
            report([FindingKind::ForkedChild.about(None)], self.callback());
        }
    }

    /// The callback; none when another thread of the parent had the lock during a fork.
    pub(crate) fn callback(&self) -> Option<Callback> {
        match self.notes.try_lock() {
            Ok(notes) => notes.callback.clone(),
            Err(_) => None,
        }
    }

    /// How long a registration has lasted, and its last event and when that was.
    pub(crate) fn history(&self, fd: RawFd) -> (Option<Duration>, Option<(Ready, Duration)>) {
        let notes = lock(&self.notes);
        let Some(note) = notes.by_fd.get(&fd) else { return (None, None) };
        (Some(note.since.elapsed()), note.last.map(|(ready, at)| (ready, at.elapsed())))
    }

    pub(crate) fn longest_dispatch(&self) -> Duration {
        Duration::from_nanos(self.longest.load(Relaxed))
    }
}

/// Reports the findings. A callback that panics loses only its own.
pub(crate) fn report(findings: impl IntoIterator<Item = Finding>, callback: Option<Callback>) {
    for finding in findings {
        match &callback {
            Some(callback) => _ = catch_unwind(AssertUnwindSafe(|| callback(&finding))),
            None => probe::write_line(&format!("omnipoll: {}\n", finding.words)),
        }
    }
}
