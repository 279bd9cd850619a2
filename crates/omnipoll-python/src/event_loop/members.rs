//! What a loop holds on to in Python: its connections, by a key that the core carries for them, and
//! the handlers that they have.

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::connection::PyConnection;
use crate::methods::Methods;

/// The tokens of connections out: from here on, the key of the connection. Below are the listeners'.
pub(super) const OUTGOING: u64 = 1 << 32;

/// The connections of a loop, from the beginning to on_close.
#[derive(Default)]
pub(crate) struct Members {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

#[derive(Default)]
struct Slot {
    connection: Option<Py<PyConnection>>,
    methods: Option<Arc<Methods>>,
}

impl Members {
    /// A key for a connection that comes next.
    pub(super) fn reserve(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        })
    }

    pub(super) fn set(&mut self, key: usize, connection: Py<PyConnection>, methods: Option<Arc<Methods>>) {
        if let Some(slot) = self.slots.get_mut(key) {
            *slot = Slot { connection: Some(connection), methods };
        }
    }

    #[inline]
    pub(super) fn connection(&self, py: Python<'_>, key: usize) -> Option<Py<PyConnection>> {
        self.slots.get(key)?.connection.as_ref().map(|connection| connection.clone_ref(py))
    }

    pub(super) fn methods(&self, key: usize) -> Option<Arc<Methods>> {
        self.slots.get(key)?.methods.clone()
    }

    /// The connection has ended. What is returned is to be dropped when nothing is borrowed.
    pub(super) fn remove(&mut self, key: usize) -> Option<Py<PyConnection>> {
        let slot = std::mem::take(self.slots.get_mut(key)?);
        self.free.push(key);
        slot.connection
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.slots.iter().try_for_each(|slot| visit.call(&slot.connection))
    }
}

/// How many handlers there are before unused ones are looked for.
const MANY: usize = 64;

/// The handlers of a loop, each of which is looked into once, however many connections have it.
pub(crate) struct Handlers {
    by_object: HashMap<usize, (Py<PyAny>, Arc<Methods>)>,
    /// How many there are when unused ones are looked for next.
    many: usize,
}

impl Default for Handlers {
    fn default() -> Self {
        Self { by_object: HashMap::new(), many: MANY }
    }
}

impl Handlers {
    pub(super) fn get(&self, handler: &Bound<'_, PyAny>) -> Option<Arc<Methods>> {
        self.by_object.get(&(handler.as_ptr() as usize)).map(|(_, methods)| methods.clone())
    }

    pub(super) fn add(&mut self, handler: Bound<'_, PyAny>, methods: Arc<Methods>) {
        self.by_object.insert(handler.as_ptr() as usize, (handler.unbind(), methods));
    }

    /// Once in a while, takes out those that nothing uses any more. What is returned is to be dropped when
    /// nothing is borrowed.
    pub(super) fn take_unused(&mut self) -> Vec<(Py<PyAny>, Arc<Methods>)> {
        if self.by_object.len() < self.many {
            return Vec::new();
        }
        let is_unused = |(_, methods): &(Py<PyAny>, Arc<Methods>)| Arc::strong_count(methods) == 1;
        let unused = self.by_object.iter().filter(|(_, entry)| is_unused(entry)).map(|(key, _)| *key);
        let unused: Vec<_> = unused.collect();
        let taken = unused.into_iter().filter_map(|key| self.by_object.remove(&key)).collect();
        self.many = MANY.max(2 * self.by_object.len());
        taken
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_object.is_empty()
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.by_object.values().try_for_each(|(handler, methods)| {
            visit.call(handler)?;
            methods.traverse(visit)
        })
    }
}
