//! [`Watch`]: a core poller and what its tokens stand for. `Poller` and the selectors differ in
//! what they make of an event and share everything else.
//!
//! Whoever has borrowed the state runs no Python, allocates no Python object (the collector
//! might run a finalizer), drops none, and doesn't detach from the interpreter.

mod sources;

use std::os::fd::RawFd;
use std::rc::Rc;
use std::{mem, process};

use omnipoll::{Capabilities, EngineKind, Events, Interest, Poller};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::attached::Attached;
use crate::convert::{closed, error};
use crate::sources::Sources;
use crate::table::{Leftover, Table};

pub(crate) struct Watch {
    pub(crate) engine: EngineKind,
    pub(crate) state: Attached<State>,
}

pub(crate) struct State {
    /// `None` once closed. A wait under way holds it, too.
    pub(crate) core: Option<Rc<Poller>>,
    pub(crate) table: Table,
    pub(crate) sources: Sources,
    /// What the last wait filled, for the next one.
    pub(crate) events: Events,
    /// How many waits are under way.
    pub(crate) waiting: usize,
    /// The process that made the poller, or has rebuilt it.
    owner: u32,
}

impl State {
    pub(crate) fn core(&self) -> PyResult<&Rc<Poller>> {
        self.core.as_ref().ok_or_else(closed)
    }
}

impl Watch {
    pub(crate) fn new(py: Python<'_>, core: Poller) -> Self {
        let engine = core.engine();
        let events = Events::with_capacity(0);
        let state = State {
            core: Some(Rc::new(core)),
            table: Table::default(),
            sources: Sources::default(),
            events,
            waiting: 0,
            owner: process::id(),
        };
        Self { engine, state: Attached::new(py, state) }
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.engine.capabilities()
    }

    pub(crate) fn is_closed(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).core.is_none()
    }

    /// How much it watches: descriptors, and what else there is.
    pub(crate) fn len(&self, py: Python<'_>) -> (usize, usize) {
        let state = self.state.borrow(py);
        (state.table.len(), state.sources.len())
    }

    pub(crate) fn add(
        &self,
        py: Python<'_>,
        fd: RawFd,
        interest: Interest,
        object: Py<PyAny>,
    ) -> PyResult<()> {
        let mut state = self.state.borrow(py);
        let core = state.core()?.clone();
        let token = state.table.insert(object);
        let added = core.add(&fd, interest, token).map_err(error);
        let leftover = match added {
            Ok(()) => state.table.link(fd, token),
            Err(_) => state.table.free(token),
        };
        drop(state);
        leftover.release(py);
        added
    }

    /// Replaces the interest, and the object when there is a new one.
    pub(crate) fn modify(
        &self,
        py: Python<'_>,
        fd: RawFd,
        interest: Interest,
        object: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let mut state = self.state.borrow(py);
        // What is not registered here is not in the core, which has the words for it.
        let renewed = state.table.renewed(fd);
        state.core()?.modify(&fd, interest, renewed).map_err(error)?;
        let leftover = state.table.renew(fd, object);
        drop(state);
        leftover.release(py);
        Ok(())
    }

    /// Replaces the object alone. Nothing happens when the registration has ended.
    pub(crate) fn rename(&self, py: Python<'_>, fd: RawFd, object: Py<PyAny>) {
        let leftover = self.state.borrow(py).table.rename(fd, object);
        leftover.release(py);
    }

    pub(crate) fn remove(&self, py: Python<'_>, fd: RawFd) -> PyResult<()> {
        let mut state = self.state.borrow(py);
        let removed = state.core()?.remove(&fd);
        let ended = match &removed {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(libc::ENOENT),
        };
        let leftover = if ended { state.table.remove(fd) } else { Leftover::default() };
        drop(state);
        leftover.release(py);
        removed.map_err(error)
    }

    pub(crate) fn rearm(&self, py: Python<'_>, fd: RawFd, interest: Interest) -> PyResult<()> {
        self.state.borrow(py).core()?.rearm(&fd, interest).map_err(error)
    }

    pub(crate) fn wake(&self, py: Python<'_>) -> PyResult<()> {
        self.state.borrow(py).core()?.wake().map_err(error)
    }

    pub(crate) fn after_fork(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.state.borrow(py);
        state.core()?.after_fork().map_err(error)?;
        let is_child = mem::replace(&mut state.owner, process::id()) != process::id();
        let leftovers = if is_child { state.sources.after_fork() } else { Vec::new() };
        drop(state);
        leftovers.into_iter().for_each(|leftover| leftover.release(py));
        Ok(())
    }

    /// Ends the waits under way and gives everything back. Closing twice is closing once.
    pub(crate) fn close(&self, py: Python<'_>) {
        let mut state = self.state.borrow(py);
        let core = state.core.take();
        let objects = (mem::take(&mut state.table), mem::take(&mut state.sources));
        state.events = Events::with_capacity(0);
        let waiting = state.waiting > 0;
        drop(state);
        if let Some(core) = core.filter(|_| waiting) {
            // It fails in a forked child only, where nobody waits.
            let _ = core.wake();
        }
        drop(objects);
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(state) = self.state.visit(visit) else { return Ok(()) };
        state.table.traverse(visit)?;
        state.sources.traverse(visit)
    }
}
