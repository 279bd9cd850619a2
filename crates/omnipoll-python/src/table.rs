//! What the tokens of descriptors stand for in Python: an object for each registration, and the
//! report of it that was given last.
//!
//! A token is a slot's index and, above it, the slot's generation. A registration that ends or
//! is modified takes a new generation, so an event that another thread collected before that
//! finds nothing here. Generations begin at 1: no token is 0, which is what a WAKE event has.

use std::collections::HashMap;
use std::os::fd::RawFd;

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

#[derive(Default)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    tokens: HashMap<RawFd, u64>,
}

/// 24 bytes besides the objects themselves.
struct Slot {
    object: Option<Py<PyAny>>,
    /// What was handed out last, handed out again as long as the readiness is the same.
    report: Option<Py<PyAny>>,
    ready: u32,
    generation: u32,
}

/// Objects that nothing leads to any more, to be dropped when the table is no longer borrowed:
/// a finalizer may come back to it.
#[must_use = "release it"]
#[derive(Default)]
pub(crate) struct DeferredDrop(Option<Py<PyAny>>, Option<Py<PyAny>>);

impl DeferredDrop {
    pub(crate) fn of(object: Py<PyAny>) -> Self {
        Self(Some(object), None)
    }

    pub(crate) fn release(self, py: Python<'_>) {
        for object in [self.0, self.1].into_iter().flatten() {
            object.drop_ref(py);
        }
    }
}

impl Table {
    /// How many descriptors are registered.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Takes a slot for an object. No descriptor leads to it yet.
    pub(crate) fn insert(&mut self, object: Py<PyAny>) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { object: None, report: None, ready: 0, generation: 1 });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.object = Some(object);
        token(index, slot.generation)
    }

    /// Makes a descriptor lead to a slot; what it led to before is over.
    pub(crate) fn link(&mut self, fd: RawFd, token: u64) -> DeferredDrop {
        match self.tokens.insert(fd, token) {
            Some(old) => self.free(old),
            None => DeferredDrop::default(),
        }
    }

    /// Gives back a slot.
    pub(crate) fn free(&mut self, token: u64) -> DeferredDrop {
        let Some(slot) = self.slot_mut(token) else { return DeferredDrop::default() };
        slot.generation = next(slot.generation);
        let dropped = DeferredDrop(slot.object.take(), slot.report.take());
        self.free.push(index(token) as u32);
        dropped
    }

    /// Ends what a descriptor leads to.
    pub(crate) fn remove(&mut self, fd: RawFd) -> DeferredDrop {
        match self.tokens.remove(&fd) {
            Some(token) => self.free(token),
            None => DeferredDrop::default(),
        }
    }

    /// Ends a registration, if it is still the one its descriptor leads to.
    pub(crate) fn end(&mut self, fd: RawFd, token: u64) -> DeferredDrop {
        if self.tokens.get(&fd) == Some(&token) {
            self.tokens.remove(&fd);
        }
        self.free(token)
    }

    /// The token a descriptor's registration will have once modified; 0 when there is none.
    pub(crate) fn next_token(&self, fd: RawFd) -> u64 {
        self.tokens.get(&fd).map_or(0, |&now| token(index(now) as u32, next(generation(now))))
    }

    /// Goes over to the token of [`Table::next_token`], and to a new object if there is one.
    pub(crate) fn renew(&mut self, fd: RawFd, object: Option<Py<PyAny>>) -> DeferredDrop {
        let next_token = self.next_token(fd);
        let Some(now) = self.tokens.get_mut(&fd) else { return DeferredDrop(object, None) };
        let now = std::mem::replace(now, next_token);
        let Some(slot) = self.slot_mut(now) else { return DeferredDrop(object, None) };
        slot.generation = generation(next_token);
        let replaced = object.and_then(|object| slot.object.replace(object));
        DeferredDrop(replaced, slot.report.take())
    }

    /// Changes a registration's object and nothing else.
    pub(crate) fn rename(&mut self, fd: RawFd, object: Py<PyAny>) -> DeferredDrop {
        let token = self.tokens.get(&fd).copied();
        match token.and_then(|token| self.slot_mut(token)) {
            Some(slot) => DeferredDrop(slot.object.replace(object), slot.report.take()),
            None => DeferredDrop(Some(object), None),
        }
    }

    /// The last report of this registration, if it was of the same readiness.
    #[inline]
    pub(crate) fn report(&self, token: u64, ready: u32) -> Option<&Py<PyAny>> {
        let slot = self.slots.get(index(token))?;
        if slot.generation != generation(token) || slot.ready != ready {
            return None;
        }
        slot.report.as_ref()
    }

    /// The object of this registration; `None` when it has ended.
    pub(crate) fn object(&self, token: u64) -> Option<&Py<PyAny>> {
        let slot = self.slots.get(index(token))?;
        slot.object.as_ref().filter(|_| slot.generation == generation(token))
    }

    /// Keeps a report for the next time.
    pub(crate) fn remember(&mut self, token: u64, ready: u32, report: Py<PyAny>) -> DeferredDrop {
        let Some(slot) = self.slot_mut(token) else { return DeferredDrop(Some(report), None) };
        slot.ready = ready;
        DeferredDrop(slot.report.replace(report), None)
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for slot in &self.slots {
            visit.call(&slot.object)?;
            visit.call(&slot.report)?;
        }
        Ok(())
    }

    fn slot_mut(&mut self, token: u64) -> Option<&mut Slot> {
        self.slots.get_mut(index(token)).filter(|slot| slot.generation == generation(token))
    }
}

fn token(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

fn index(token: u64) -> usize {
    token as u32 as usize
}

fn generation(token: u64) -> u32 {
    (token >> 32) as u32
}

fn next(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}
