//! What a loop watches: descriptors, each with what its readiness is for.

use std::os::fd::RawFd;
use std::sync::Arc;

use omnipoll::{Interest, Poller, Ready};

/// As `selectors` has it: a hang-up or an error is for both directions.
pub(crate) fn is_readable(ready: Ready) -> bool {
    ready.intersects(Ready::READ | Ready::PRIORITY | Ready::READ_CLOSED | Ready::HANGUP | Ready::ERROR)
}

pub(crate) fn is_writable(ready: Ready) -> bool {
    ready.intersects(Ready::WRITE | Ready::HANGUP | Ready::ERROR)
}

/// A registration: the place in the set and its generation. What the poller has as a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u64);

impl Key {
    fn new(index: usize, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | index as u64)
    }

    pub(crate) fn from_token(token: u64) -> Self {
        Self(token)
    }

    pub(crate) fn token(self) -> u64 {
        self.0
    }

    fn index(self) -> usize {
        self.0 as u32 as usize
    }
}

pub(crate) struct Registration<W> {
    pub(crate) fd: RawFd,
    pub(crate) interest: Interest,
    /// The poller has it: not while it is interested in nothing, nor after it was found closed.
    pub(crate) is_in_poller: bool,
    pub(crate) watched: W,
}

struct Slot<W> {
    generation: u32,
    registration: Option<Registration<W>>,
}

pub(crate) struct WatchedSet<W> {
    slots: Vec<Slot<W>>,
    free: Vec<usize>,
    /// By descriptor: the last registration of each.
    by_fd: Vec<Option<Key>>,
}

impl<W> Default for WatchedSet<W> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), by_fd: Vec::new() }
    }
}

impl<W> WatchedSet<W> {
    /// The key of the next registration.
    pub(crate) fn next_key(&mut self) -> Key {
        if self.free.is_empty() {
            self.free.push(self.slots.len());
            self.slots.push(Slot { generation: 0, registration: None });
        }
        let index = *self.free.last().unwrap_or(&0);
        Key::new(index, self.slots[index].generation)
    }

    /// Makes the registration whose key [`next_key`](Self::next_key) was.
    pub(crate) fn insert(&mut self, key: Key, registration: Registration<W>) {
        let fd = registration.fd as usize;
        if self.by_fd.len() <= fd {
            self.by_fd.resize(fd + 1, None);
        }
        self.by_fd[fd] = Some(key);
        self.free.pop();
        self.slots[key.index()].registration = Some(registration);
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Registration<W>> {
        let slot = self.slots.get_mut(key.index())?;
        let is_current = Key::new(key.index(), slot.generation) == key;
        slot.registration.as_mut().filter(|_| is_current)
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Registration<W>> {
        self.get_mut(key)?;
        let slot = &mut self.slots[key.index()];
        slot.generation = slot.generation.wrapping_add(1);
        let removed = slot.registration.take()?;
        self.free.push(key.index());
        if let Some(last) = self.by_fd.get_mut(removed.fd as usize).filter(|last| **last == Some(key)) {
            *last = None;
        }
        Some(removed)
    }

    /// The registration of a descriptor.
    pub(crate) fn find(&self, fd: RawFd) -> Option<Key> {
        *self.by_fd.get(usize::try_from(fd).ok()?)?
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Registration<W>> {
        self.slots.iter().filter_map(|slot| slot.registration.as_ref())
    }

    /// All of it, to be dropped.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Ends all registrations.
    pub(crate) fn remove_all(&self, poller: Option<&Arc<Poller>>) {
        for registration in self.iter().filter(|registration| registration.is_in_poller) {
            // A descriptor that was closed is not registered any more.
            let _ = poller.map(|poller| poller.remove_raw(registration.fd));
        }
    }
}
