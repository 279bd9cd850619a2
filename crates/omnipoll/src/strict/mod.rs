//! Strict mode: finds what people get wrong with these system calls, and says it.
//!
//! It keeps a note of each registration, and before and after each wait asks the system about
//! every descriptor (`fstat`, and `poll` where something was handed out): a wait costs in
//! proportion to what is registered. A poller that is not strict has none of this.
//!
//! Findings are collected under the locks and said after them, so that a callback may use the
//! poller.

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

/// What findings are told to.
pub(crate) type Callback = Arc<dyn Fn(&Finding) + Send + Sync>;

pub(crate) struct Strict {
    /// Locked only while the registry is: who has that one after a fork can have this one.
    notes: Mutex<Notes>,
    /// How long something may be left, and a thread be away.
    limit: Duration,
    id: u64,
    /// The longest dispatch so far, in nanoseconds.
    longest: AtomicU64,
    /// The process in which the use of an inherited poller was last said, as a count of forks.
    said_in: AtomicU32,
}

#[derive(Default)]
struct Notes {
    of: BTreeMap<RawFd, Note>,
    callback: Option<Callback>,
    /// A dispatch that no registration can be blamed for was found to have taken too long.
    blocked: bool,
}

/// When a wait of this thread last returned with events.
#[derive(Clone, Copy)]
struct Back {
    poller: u64,
    at: Instant,
    /// The descriptor, when there was one event and it was a descriptor's.
    cause: Option<Cause>,
}

thread_local! {
    static BACK: Cell<Option<Back>> = const { Cell::new(None) };
}

impl Strict {
    pub(crate) fn new(limit: Duration) -> Self {
        static POLLERS: AtomicU64 = AtomicU64::new(0);
        Self {
            notes: Mutex::default(),
            limit,
            id: POLLERS.fetch_add(1, Relaxed),
            longest: AtomicU64::new(0),
            said_in: AtomicU32::new(fork::epoch()),
        }
    }

    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Whom to tell from now on. Returns who was told before.
    pub(crate) fn replace_callback(&self, callback: Callback) -> Option<Callback> {
        lock(&self.notes).callback.replace(callback)
    }

    /// A registration has begun.
    pub(crate) fn begun(&self, registry: &Registry, fd: RawFd) -> Vec<Finding> {
        let Some(registration) = registry.get(fd) else { return Vec::new() };
        let mut note = Note::new(fd, registration, Instant::now());
        let blocking = note.blocking();
        // One that was there before has not been removed.
        let old = lock(&self.notes).of.insert(fd, note);
        old.and_then(|mut old| old.lost()).into_iter().chain(blocking).collect()
    }

    /// A registration was modified.
    pub(crate) fn changed(&self, registry: &Registry, fd: RawFd) -> Vec<Finding> {
        let Some(registration) = registry.get(fd) else { return Vec::new() };
        let mut notes = lock(&self.notes);
        let note = match notes.of.entry(fd) {
            Entry::Occupied(old) => old.into_mut(),
            Entry::Vacant(place) => place.insert(Note::new(fd, registration, Instant::now())),
        };
        note.renew(registration);
        note.blocking().into_iter().collect()
    }

    /// A registration was removed.
    pub(crate) fn ended(&self, fd: RawFd) -> Vec<Finding> {
        let note = lock(&self.notes).of.remove(&fd);
        // On an engine that is not told of closed descriptors, this is where it comes to light.
        note.filter(|note| !note.is_whole()).and_then(|mut note| note.lost()).into_iter().collect()
    }

    /// A thread has come to wait.
    pub(crate) fn came_back(&self) -> Vec<Finding> {
        let Some(back) = BACK.get().filter(|back| back.poller == self.id) else { return Vec::new() };
        BACK.set(None);
        let took = back.at.elapsed();
        self.longest.fetch_max(took.as_nanos() as u64, Relaxed);
        if took <= self.limit {
            return Vec::new();
        }
        let notes = &mut *lock(&self.notes);
        let note = back.cause.and_then(|cause| notes.of.get_mut(&cause.fd).filter(|note| note.is_at(cause)));
        let finding = match note {
            Some(note) => note.say(FindingKind::BlockedLoop),
            None if std::mem::replace(&mut notes.blocked, true) => None,
            None => Some(FindingKind::BlockedLoop.about(back.cause)),
        };
        finding.into_iter().collect()
    }

    /// Looks at everything before a thread sleeps. Also whether anything is left that deserves
    /// another look before long.
    pub(crate) fn before(&self, registry: &Registry) -> (Vec<Finding>, bool) {
        let (mut findings, now) = (Vec::new(), Instant::now());
        let notes = &mut lock(&self.notes).of;
        notes.retain(|&fd, note| {
            let lives = note.is_of(registry.get(fd));
            findings.extend(match lives {
                true => note.inspect(self.limit, now),
                // The engine has ended it, which it only does with what was closed.
                false => note.lost(),
            });
            lives
        });
        (findings, notes.values().any(Note::is_suspect))
    }

    /// Looks at what a wait has returned; `full` when there was no room for more.
    pub(crate) fn after(&self, registry: &Registry, events: &[Event], full: bool) -> Vec<Finding> {
        let (mut findings, now) = (Vec::new(), Instant::now());
        let notes = &mut lock(&self.notes).of;
        if !full {
            notes.values_mut().for_each(Note::passed_over);
        }
        let io = |event: &&Event| event.kind() == EventKind::Io;
        for event in events.iter().filter(io) {
            let fd = event.value() as RawFd;
            let Entry::Occupied(mut note) = notes.entry(fd) else { continue };
            if event.ready() != Ready::INVALID {
                findings.extend(note.get_mut().reported(event, now));
            } else if !note.get().is_of(registry.get(fd)) {
                findings.extend(note.remove().lost());
            }
        }
        if !events.is_empty() {
            let only = events.first().filter(|_| events.len() == 1).filter(io);
            let cause = only.map(|event| Cause { fd: event.value() as RawFd, token: event.token() });
            BACK.set(Some(Back { poller: self.id, at: now, cause }));
        }
        findings
    }

    /// What is left of a poller that ends.
    pub(crate) fn leaks(&self, registry: &Registry) -> Vec<Finding> {
        let notes = &mut lock(&self.notes).of;
        let left = notes.iter_mut().filter_map(|(&fd, note)| match note.is_of(registry.get(fd)) {
            true => note.leaked(),
            false => note.lost(),
        });
        left.collect()
    }

    /// In a forked child, which may have closed what it doesn't need.
    pub(crate) fn after_fork(&self, registry: &Registry) {
        BACK.set(None);
        lock(&self.notes).of.retain(|&fd, note| note.is_of(registry.get(fd)) && note.is_whole());
    }

    /// A forked child has used its parent's poller.
    pub(crate) fn used_by_child(&self) {
        if self.said_in.swap(fork::epoch(), Relaxed) != fork::epoch() {
            deliver([FindingKind::ForkedChild.about(None)], self.callback());
        }
    }

    /// Whom to tell; nobody when another thread of the parent had the lock during a fork.
    pub(crate) fn callback(&self) -> Option<Callback> {
        match self.notes.try_lock() {
            Ok(notes) => notes.callback.clone(),
            Err(_) => None,
        }
    }

    /// How long a registration has lasted, and what it last reported and when.
    pub(crate) fn history(&self, fd: RawFd) -> (Option<Duration>, Option<(Ready, Duration)>) {
        let notes = lock(&self.notes);
        let Some(note) = notes.of.get(&fd) else { return (None, None) };
        (Some(note.since.elapsed()), note.last.map(|(ready, at)| (ready, at.elapsed())))
    }

    pub(crate) fn longest_dispatch(&self) -> Duration {
        Duration::from_nanos(self.longest.load(Relaxed))
    }
}

/// Says the findings. A callback that panics has said its own.
pub(crate) fn deliver(findings: impl IntoIterator<Item = Finding>, callback: Option<Callback>) {
    for finding in findings {
        match &callback {
            Some(callback) => _ = catch_unwind(AssertUnwindSafe(|| callback(&finding))),
            None => probe::write_line(&format!("omnipoll: {}\n", finding.words)),
        }
    }
}
