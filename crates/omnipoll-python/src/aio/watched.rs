//! What a loop watches: descriptors, each with what its readiness is for.

use std::os::fd::RawFd;
use std::sync::Arc;

use omnipoll::{Interest, Poller, Ready};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::accepting::Acceptor;
use super::handle::Handle;
use super::socket_calls::SocketCalls;
use super::transport::Transport;

/// What is done when a descriptor is ready.
pub(crate) enum Watched {
    /// Callbacks of `add_reader` and `add_writer`, and the file object they were first added for, unless that
    /// was a number: once it is closed and has no descriptor, they are found by it, as in `selectors`.
    Callbacks { file: Option<Py<PyAny>>, reader: Option<Py<Handle>>, writer: Option<Py<Handle>> },
    /// Reads and writes by itself.
    Transport(Py<Transport>),
    /// Accepts by itself.
    Accepting(Py<Acceptor>),
    /// Calls of `sock_recv` and its neighbours.
    Socket(Py<SocketCalls>),
}

impl Watched {
    /// As `selectors` has it: a hang-up or an error is for both directions.
    pub(crate) fn is_readable(ready: Ready) -> bool {
        ready.intersects(Ready::READ | Ready::PRIORITY | Ready::READ_CLOSED | Ready::HANGUP | Ready::ERROR)
    }

    pub(crate) fn is_writable(ready: Ready) -> bool {
        ready.intersects(Ready::WRITE | Ready::HANGUP | Ready::ERROR)
    }

    /// Another reference to the same.
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        let clone = |handle: &Option<Py<Handle>>| handle.as_ref().map(|handle| handle.clone_ref(py));
        match self {
            Self::Callbacks { file, reader, writer } => Self::Callbacks {
                file: file.as_ref().map(|file| file.clone_ref(py)),
                reader: clone(reader),
                writer: clone(writer),
            },
            Self::Transport(transport) => Self::Transport(transport.clone_ref(py)),
            Self::Accepting(acceptor) => Self::Accepting(acceptor.clone_ref(py)),
            Self::Socket(calls) => Self::Socket(calls.clone_ref(py)),
        }
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Callbacks { file, reader, writer } => {
                visit.call(file)?;
                visit.call(reader)?;
                visit.call(writer)
            }
            Self::Transport(transport) => visit.call(transport),
            Self::Accepting(acceptor) => visit.call(acceptor),
            Self::Socket(calls) => visit.call(calls),
        }
    }
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

pub(crate) struct Registration {
    pub(crate) fd: RawFd,
    pub(crate) interest: Interest,
    /// The poller has it: not while it is interested in nothing, nor after it was found closed.
    pub(crate) is_in_poller: bool,
    pub(crate) watched: Watched,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    registration: Option<Registration>,
}

#[derive(Default)]
pub(crate) struct WatchedSet {
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// By descriptor: the last registration of each.
    by_fd: Vec<Option<Key>>,
}

impl WatchedSet {
    /// The key of the next registration.
    pub(crate) fn next_key(&mut self) -> Key {
        if self.free.is_empty() {
            self.free.push(self.slots.len());
            self.slots.push(Slot::default());
        }
        let index = *self.free.last().unwrap_or(&0);
        Key::new(index, self.slots[index].generation)
    }

    /// Makes the registration whose key [`next_key`](Self::next_key) was.
    pub(crate) fn insert(&mut self, key: Key, registration: Registration) {
        let fd = registration.fd as usize;
        if self.by_fd.len() <= fd {
            self.by_fd.resize(fd + 1, None);
        }
        self.by_fd[fd] = Some(key);
        self.free.pop();
        self.slots[key.index()].registration = Some(registration);
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Registration> {
        let slot = self.slots.get_mut(key.index())?;
        let is_current = Key::new(key.index(), slot.generation) == key;
        slot.registration.as_mut().filter(|_| is_current)
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Registration> {
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

    /// The descriptor that a file object had when callbacks were added for it.
    pub(crate) fn descriptor_of(&self, object: &Bound<'_, PyAny>) -> Option<RawFd> {
        let mut registrations = self.slots.iter().filter_map(|slot| slot.registration.as_ref());
        let is_its = |watched: &Watched| match watched {
            Watched::Callbacks { file: Some(file), .. } => file.is(object),
            _ => false,
        };
        registrations.find(|registration| is_its(&registration.watched)).map(|registration| registration.fd)
    }

    /// All of it, to be dropped.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Ends all registrations.
    pub(crate) fn remove_all(&self, poller: Option<&Arc<Poller>>) {
        let registrations = self.slots.iter().filter_map(|slot| slot.registration.as_ref());
        for registration in registrations.filter(|registration| registration.is_in_poller) {
            // A descriptor that was closed is not registered any more.
            let _ = poller.map(|poller| poller.remove_raw(registration.fd));
        }
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let registrations = self.slots.iter().filter_map(|slot| slot.registration.as_ref());
        registrations
            .map(|registration| &registration.watched)
            .try_for_each(|watched| watched.traverse(visit))
    }
}
