//! [`PollerCore`]: a core poller and what its tokens stand for ([`State`]). `Poller` and the selectors
//! differ in what they make of an event and share everything else.

mod sources;

use std::cell::RefMut;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Weak};
use std::{mem, process};

use omnipoll::{Capabilities, EngineKind, Events, Interest, Poller};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::convert::error;
use crate::gil_cell::GilCell;
use crate::inspect::{PyRegistered, PyStats};
use crate::state::State;
use crate::strict::{self, Findings};
use crate::table::DeferredDrop;

pub(crate) struct PollerCore {
    pub(crate) engine: EngineKind,
    /// Shared with the findings of strict mode alone.
    pub(crate) state: Arc<GilCell<State>>,
    /// When it is strict.
    findings: Option<Arc<Findings>>,
    /// A loop waits on it, and no one else.
    is_of_loop: bool,
}

/// Its fields are dropped in this order.
struct Change<'a> {
    state: RefMut<'a, State>,
    _reporter: Reporter<'a>,
}

/// Reports what strict mode has found, when it is dropped.
struct Reporter<'a> {
    core: &'a PollerCore,
    py: Python<'a>,
}

impl Drop for Reporter<'_> {
    fn drop(&mut self) {
        if let Some(findings) = &self.core.findings {
            findings.report(self.py, &self.core.state);
        }
    }
}

impl Deref for Change<'_> {
    type Target = State;
    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Change<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl PollerCore {
    /// `EINVAL` for a listener when the core is not strict.
    pub(crate) fn new(py: Python<'_>, core: Poller, listener: Option<Py<PyAny>>) -> PyResult<Self> {
        Self::over(py, Arc::new(core), listener, false)
    }

    /// The poller of a loop, which alone waits on it and closes it.
    pub(crate) fn of_loop(py: Python<'_>, core: Arc<Poller>) -> PyResult<Self> {
        Self::over(py, core, None, true)
    }

    fn over(
        py: Python<'_>,
        core: Arc<Poller>,
        listener: Option<Py<PyAny>>,
        is_of_loop: bool,
    ) -> PyResult<Self> {
        let engine = core.engine();
        let state = Arc::new(GilCell::new(py, State::new(core, listener)));
        let findings = Self::listen(py, &state)?;
        Ok(Self { engine, state, findings, is_of_loop })
    }

    /// `EPERM` for what only its loop does.
    pub(crate) fn check_is_own(&self) -> PyResult<()> {
        match self.is_of_loop {
            true => Err(PyOSError::new_err((
                libc::EPERM,
                "it is the poller of a loop, which waits on it by run() or wait(), and closes it",
            ))),
            false => Ok(()),
        }
    }

    /// Takes the findings, if there may be any.
    fn listen(py: Python<'_>, state: &Arc<GilCell<State>>) -> PyResult<Option<Arc<Findings>>> {
        let findings = Arc::<Findings>::default();
        let listener = findings.clone().listener(Arc::downgrade(state));
        let state = state.borrow(py);
        match state.core()?.on_finding(listener) {
            Ok(()) => Ok(Some(findings)),
            Err(_) if state.listener.is_none() => Ok(None),
            Err(not_strict) => Err(error(not_strict)),
        }
    }

    /// The state, for a change of the core's. When it is done, what strict mode has found is
    /// reported.
    fn change<'a>(&'a self, py: Python<'a>) -> Change<'a> {
        Change { state: self.state.borrow(py), _reporter: Reporter { core: self, py } }
    }

    /// A call of the caller's. It raises what strict mode has to say as an exception; what it has
    /// done is done.
    #[inline]
    pub(crate) fn call<R>(&self, act: impl FnOnce(&Self) -> PyResult<R>) -> PyResult<R> {
        let done = act(self);
        match self.findings.as_ref().and_then(|_| strict::take_raised()) {
            Some(raised) => Err(raised),
            None => done,
        }
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
        let mut state = self.change(py);
        let core = state.core()?.clone();
        let token = state.table.insert(object);
        let added = core.add_raw(fd, interest, token).map_err(error);
        let dropped = match added {
            Ok(()) => state.table.link(fd, token),
            Err(_) => state.table.free(token),
        };
        drop(state);
        dropped.release(py);
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
        let mut state = self.change(py);
        // What is not registered here is not in the core, which has the words for it.
        let next_token = state.table.next_token(fd);
        state.core()?.modify_raw(fd, interest, next_token).map_err(error)?;
        let dropped = state.table.renew(fd, object);
        drop(state);
        dropped.release(py);
        Ok(())
    }

    /// Replaces the object alone. Nothing happens when the registration has ended.
    pub(crate) fn rename(&self, py: Python<'_>, fd: RawFd, object: Py<PyAny>) {
        let dropped = self.state.borrow(py).table.rename(fd, object);
        dropped.release(py);
    }

    pub(crate) fn remove(&self, py: Python<'_>, fd: RawFd) -> PyResult<()> {
        let mut state = self.change(py);
        let removed = state.core()?.remove_raw(fd);
        let ended = match &removed {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(libc::ENOENT),
        };
        let dropped = if ended { state.table.remove(fd) } else { DeferredDrop::default() };
        drop(state);
        dropped.release(py);
        removed.map_err(error)
    }

    /// Removes a descriptor in a forked child, where the core takes no change before `after_fork`: it
    /// is done then.
    pub(crate) fn forget(&self, py: Python<'_>, fd: RawFd) {
        let mut state = self.state.borrow(py);
        let dropped = state.table.remove(fd);
        state.removed_in_child.push(fd);
        drop(state);
        dropped.release(py);
    }

    pub(crate) fn rearm(&self, py: Python<'_>, fd: RawFd, interest: Interest) -> PyResult<()> {
        self.change(py).core()?.rearm_raw(fd, interest).map_err(error)
    }

    pub(crate) fn wake(&self, py: Python<'_>) -> PyResult<()> {
        self.change(py).core()?.wake().map_err(error)
    }

    pub(crate) fn after_fork(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.change(py);
        state.core()?.after_fork().map_err(error)?;
        state.drop_inherited_waits();
        for fd in mem::take(&mut state.removed_in_child) {
            // One that was closed meanwhile is gone already.
            let _ = state.core()?.remove_raw(fd);
        }
        let is_child = mem::replace(&mut state.owner, process::id()) != process::id();
        let dropped = if is_child { state.sources.after_fork() } else { Vec::new() };
        drop(state);
        dropped.into_iter().for_each(|dropped| dropped.release(py));
        Ok(())
    }

    /// The engine's own descriptor, if it has one.
    pub(crate) fn descriptor(&self, py: Python<'_>) -> PyResult<RawFd> {
        let state = self.state.borrow(py);
        let descriptor = state.core()?.descriptor().map(|descriptor| descriptor.as_raw_fd());
        drop(state);
        descriptor.ok_or_else(|| {
            let words = format!("the {} engine has no descriptor", self.engine.name());
            // Both an OSError and a ValueError, as of a file without one.
            match py.import("io").and_then(|io| io.getattr("UnsupportedOperation")?.call1((words,))) {
                Ok(unsupported) => PyErr::from_value(unsupported),
                Err(error) => error,
            }
        })
    }

    pub(crate) fn stats(&self, py: Python<'_>) -> PyResult<PyStats> {
        self.change(py).core()?.stats().map(PyStats).map_err(error)
    }

    /// Of a registration that has ended meanwhile nothing is said.
    pub(crate) fn dump(&self, py: Python<'_>) -> PyResult<Vec<PyRegistered>> {
        let state = self.change(py);
        let all = state.core()?.dump().map_err(error)?.into_iter();
        let known = all.filter_map(|registered| {
            let token = state.table.object(registered.token)?.clone_ref(py);
            Some(PyRegistered::new(registered, token))
        });
        Ok(known.collect())
    }

    /// Ends the waits in progress and releases everything. Closing twice is closing once.
    pub(crate) fn close(&self, py: Python<'_>) {
        let mut state = self.change(py);
        state.drop_inherited_waits();
        let core = state.core.take();
        let has_waiters = !state.waits.is_empty();
        state.closed = core.as_ref().map_or_else(Weak::new, Arc::downgrade);
        drop(state);
        if let Some(core) = core.filter(|_| has_waiters) {
            // It fails in a forked child only, where the thread that waits is this one.
            let _ = core.wake();
        }
        // The core is gone, and has reported with their tokens what was left registered.
        let mut state = self.state.borrow(py);
        let objects = (mem::take(&mut state.table), mem::take(&mut state.sources), state.listener.take());
        state.events = Events::with_capacity(0);
        drop(state);
        drop(objects);
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(state) = self.state.visit(visit) else { return Ok(()) };
        state.traverse(visit)
    }
}

/// What was left registered is reported with its tokens.
impl Drop for PollerCore {
    fn drop(&mut self) {
        if self.findings.is_some() {
            let _ = Python::try_attach(|py| {
                let pending = PyErr::take(py);
                self.close(py);
                // There is no caller.
                strict::take_raised().into_iter().for_each(|error| error.write_unraisable(py, None));
                pending.into_iter().for_each(|error| error.restore(py));
            });
        }
    }
}
