//! The Python class `Worker`, and the calls of a handler that are a worker's own.

use std::cell::RefCell;
use std::io;

use omnipoll::{Event, LoopRef};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::event;
use crate::finalization::protect_thread;
use crate::poller::PyPoller;
use crate::poller_core::PollerCore;

/// One loop of a server, in a thread or process of its own: the same object in every call of the handler
/// that is the worker's, from on_worker_start to on_worker_end. It takes any attribute, and has no
/// subclasses but those that declare such attributes to a type checker.
#[pyclass(frozen, dict, weakref, name = "Worker", module = "omnipoll")]
pub(crate) struct PyWorker {
    number: usize,
    poller: Py<PyPoller>,
}

#[pymethods]
impl PyWorker {
    /// Its number, as connection.worker has it.
    #[getter]
    fn number(&self) -> usize {
        self.number
    }

    /// The Poller that its loop waits on, for timers, descriptors, signals, children and posts of the
    /// program's own: their events are handed to the handler's on_event(worker, event). Only the loop
    /// waits on it and closes it. Closed when on_worker_end has returned.
    #[getter]
    fn poller(&self, py: Python<'_>) -> Py<PyPoller> {
        protect_thread();
        self.poller.clone_ref(py)
    }

    fn __repr__(&self) -> String {
        format!("<omnipoll.Worker {}>", self.number)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.poller)
    }
}

thread_local! {
    /// The workers of this thread, of which the last one runs: a callback may run another server.
    static WORKERS: RefCell<Vec<Py<PyWorker>>> = const { RefCell::new(Vec::new()) };
}

impl PyWorker {
    /// The worker of the loop that begins in this thread.
    pub(crate) fn begin(py: Python<'_>, event_loop: &LoopRef<'_>) -> PyResult<Py<Self>> {
        let core = PollerCore::of_loop(py, event_loop.poller().clone())?;
        let poller = Py::new(py, PyPoller::of_loop(core)?)?;
        let worker = Py::new(py, Self { number: event_loop.worker(), poller })?;
        WORKERS.with_borrow_mut(|workers| workers.push(worker.clone_ref(py)));
        Ok(worker)
    }

    /// The worker whose loop this thread runs.
    pub(crate) fn current(py: Python<'_>) -> Option<Py<Self>> {
        WORKERS.with_borrow(|workers| workers.last().map(|worker| worker.clone_ref(py)))
    }

    /// Its loop will not wait again.
    pub(crate) fn end(py: Python<'_>) {
        let Some(worker) = WORKERS.with_borrow_mut(Vec::pop) else { return };
        if let Ok(core) = worker.get().poller.get().core() {
            core.close(py);
        }
    }

    /// What `on_event` gets for an event: nothing if what it is of has ended meanwhile.
    pub(crate) fn report(&self, py: Python<'_>, event: &Event) -> PyResult<Option<Py<PyAny>>> {
        self.poller.get().core()?.report(py, event, event::make)
    }
}

/// The error of a worker that has not started, for the process that ends the server: the number of an
/// `OSError`, or that of a panic.
pub(crate) fn start_error(py: Python<'_>, failed: &PyErr) -> io::Error {
    let errno = failed.value(py).getattr("errno").and_then(|errno| errno.extract::<i32>());
    let errno = errno.ok().filter(|&errno| errno > 0 && failed.is_instance_of::<PyException>(py));
    io::Error::from_raw_os_error(errno.unwrap_or(libc::ENOTRECOVERABLE))
}

/// Calls `method(worker)` or `method(worker, event)`.
pub(crate) fn invoke(
    py: Python<'_>,
    method: &Py<PyAny>,
    worker: Py<PyWorker>,
    event: Option<Py<PyAny>>,
) -> PyResult<()> {
    let called = match event {
        None => method.call1(py, (worker,)),
        Some(event) => method.call1(py, (worker, event)),
    };
    called.map(drop)
}
