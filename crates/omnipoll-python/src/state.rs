//! [`State`]: the core's poller, and what its tokens stand for.
//!
//! Code that has borrowed the state runs no Python, allocates no Python object (the collector
//! might run a finalizer), drops none, and doesn't detach from the interpreter.

use std::os::fd::RawFd;
use std::process;
use std::sync::{Arc, Weak};

use omnipoll::{Events, Poller};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::convert::closed;
use crate::sources::Sources;
use crate::table::Table;
use crate::waits::Waits;

pub(crate) struct State {
    /// `None` once closed. A wait in progress holds it, too.
    pub(crate) core: Option<Arc<Poller>>,
    /// What the waits that were in progress when it was closed still hold.
    pub(crate) closed: Weak<Poller>,
    pub(crate) table: Table,
    pub(crate) sources: Sources,
    /// What the last wait filled, for the next one.
    pub(crate) events: Events,
    pub(crate) waits: Waits,
    /// What to call with the findings of strict mode; `None` warns.
    pub(crate) listener: Option<Py<PyAny>>,
    /// What is to be removed when it is rebuilt in this forked child.
    pub(crate) removed_in_child: Vec<RawFd>,
    /// The process that made the poller, or has rebuilt it.
    pub(crate) owner: u32,
}

impl State {
    pub(crate) fn new(core: Arc<Poller>, listener: Option<Py<PyAny>>) -> Self {
        Self {
            core: Some(core),
            closed: Weak::new(),
            table: Table::default(),
            sources: Sources::default(),
            events: Events::with_capacity(0),
            waits: Waits::none(),
            listener,
            removed_in_child: Vec::new(),
            owner: process::id(),
        }
    }

    pub(crate) fn core(&self) -> PyResult<&Arc<Poller>> {
        self.core.as_ref().ok_or_else(closed)
    }

    /// In a forked child: the threads that waited in the parent are not here, and would keep the
    /// core, and its descriptors, indefinitely.
    pub(crate) fn drop_inherited_waits(&mut self) {
        let inherited = self.waits.drop_inherited();
        if inherited == 0 {
            return;
        }
        let Some(core) = self.core.clone().or_else(|| self.closed.upgrade()) else { return };
        for _ in 0..inherited {
            // SAFETY: each wait has a reference to the core, which its thread never drops here.
            unsafe { Arc::decrement_strong_count(Arc::as_ptr(&core)) };
        }
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.table.traverse(visit)?;
        self.sources.traverse(visit)?;
        visit.call(&self.listener)
    }
}
