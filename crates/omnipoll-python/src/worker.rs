//! The Python class `Worker`, and the calls of a handler that are a worker's own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use omnipoll::{Conn, ConnId, Event, LoopRef, Poller};
use pyo3::exceptions::{PyException, PyOSError};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::connection::{not_here, Home, PyConnection};
use crate::convert::{self, error, number, optional_text, text};
use crate::datagram_socket::PyDatagramSocket;
use crate::event_loop::connect_options;
use crate::finalization::protect_thread;
use crate::gil_cell::GilCell;
use crate::poller::PyPoller;
use crate::poller_core::PollerCore;
use crate::{current, event};

/// One loop of a server, in a thread or process of its own: the same object in every call of the handler
/// that is the worker's, from on_worker_start to on_worker_end. It takes any attribute, and has no
/// subclasses but those that declare such attributes to a type checker.
#[pyclass(frozen, dict, weakref, name = "Worker", module = "omnipoll")]
pub(crate) struct PyWorker {
    /// What stands for its server in calls.
    owner: usize,
    number: usize,
    poller: Py<PyPoller>,
    /// The connections that it has asked for and that are not open yet, by the core's token.
    outgoing: GilCell<Outgoing>,
}

#[derive(Default)]
struct Outgoing {
    connections: HashMap<u64, Py<PyConnection>>,
    last: u64,
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

    /// Begins to connect to an address, in a call of the worker's, and returns the Connection at once: as
    /// Loop.connect() does. The server's handler is called with what happens on it: on_open is called when it
    /// is open, or on_close alone when it can't be opened. token: any object, which the connection has.
    ///
    /// Raises ValueError for what is no address, PermissionError outside of its calls.
    #[pyo3(
        signature = (
            address, *, timeout=Some(30.0), local_address=None, no_delay=true, keep_alive=None, token=None,
        ),
        text_signature = "($self, address, *, timeout=30.0, local_address=None, no_delay=True, \
                          keep_alive=None, token=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "each is a keyword of Python's")]
    fn connect(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = text)] address: String,
        #[pyo3(from_py_with = number)] timeout: Option<f64>,
        #[pyo3(from_py_with = optional_text)] local_address: Option<String>,
        no_delay: bool,
        #[pyo3(from_py_with = number)] keep_alive: Option<f64>,
        token: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyConnection>> {
        let options = connect_options(timeout, local_address, no_delay, keep_alive)?;
        let mut outgoing = self.outgoing.borrow(py);
        outgoing.last += 1;
        let number = outgoing.last;
        drop(outgoing);
        let id = self.in_call(|event_loop| event_loop.connect(&address, &options, number))?.map_err(error)?;
        let token = token.unwrap_or_else(|| py.None());
        let connection = Py::new(py, PyConnection::outgoing(py, id, self.number, token, home()))?;
        self.outgoing.borrow(py).connections.insert(number, connection.clone_ref(py));
        Ok(connection)
    }

    /// Loop.connect_datagrams() for the worker's loop, in a call of the worker's. What comes comes to the
    /// server's handler. Raises PermissionError outside of its calls.
    fn connect_datagrams(&self, #[pyo3(from_py_with = text)] address: String) -> PyResult<PyDatagramSocket> {
        let socket = self.in_call(|event_loop| event_loop.connect_datagrams(&address, 0))?;
        socket.map(PyDatagramSocket).map_err(error)
    }

    /// Server.stop(), in a call of the worker's; under "fork" and "prefork" that of its process.
    #[pyo3(signature = (drain=None))]
    fn stop(&self, #[pyo3(from_py_with = number)] drain: Option<f64>) -> PyResult<()> {
        let drain = convert::optional_span(drain, "drain")?;
        self.in_call(|event_loop| event_loop.stop(drain))?.map_err(error)
    }

    fn __repr__(&self) -> String {
        format!("<omnipoll.Worker {}>", self.number)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.poller)?;
        match self.outgoing.visit(&visit) {
            Some(outgoing) => outgoing.connections.values().try_for_each(|one| visit.call(one)),
            None => Ok(()),
        }
    }
}

thread_local! {
    /// The workers of this thread: a callback may run another server, and servers may be run step by step
    /// in turns.
    static WORKERS: RefCell<Vec<Py<PyWorker>>> = const { RefCell::new(Vec::new()) };
}

impl PyWorker {
    /// The worker of the loop that begins in this thread. `owner` stands for the server in its calls.
    pub(crate) fn begin(
        py: Python<'_>,
        owner: *const (),
        (poller, number): (Arc<Poller>, usize),
    ) -> PyResult<Py<Self>> {
        let poller = Py::new(py, PyPoller::of_loop(PollerCore::of_loop(py, poller)?)?)?;
        let outgoing = GilCell::new(py, Outgoing::default());
        let worker = Py::new(py, Self { owner: owner as usize, number, poller, outgoing })?;
        let closed = WORKERS.with_borrow_mut(|workers| {
            workers.push(worker.clone_ref(py));
            // Of servers that another thread has dropped.
            let (closed, open) = std::mem::take(workers).into_iter().partition(|one| one.get().is_closed(py));
            *workers = open;
            closed
        });
        drop::<Vec<_>>(closed);
        Ok(worker)
    }

    /// The worker of this server whose loop this thread runs.
    pub(crate) fn current(py: Python<'_>, owner: *const ()) -> Option<Py<Self>> {
        WORKERS.with_borrow(|workers| {
            let is_its =
                |worker: &&Py<Self>| worker.get().owner == owner as usize && !worker.get().is_closed(py);
            workers.iter().find(is_its).map(|worker| worker.clone_ref(py))
        })
    }

    /// The worker that makes the call in progress, whose poller and number these are.
    fn of_call(py: Python<'_>, place: (Arc<Poller>, usize)) -> PyResult<Py<Self>> {
        let owner = current::owner().ok_or_else(not_in_call)?;
        match Self::current(py, owner) {
            Some(worker) => Ok(worker),
            None => Self::begin(py, owner, place),
        }
    }

    /// Its loop will not wait again.
    pub(crate) fn end(py: Python<'_>, owner: *const ()) {
        let Some(worker) = Self::current(py, owner) else { return };
        WORKERS.with_borrow_mut(|workers| workers.retain(|one| !one.is(&worker)));
        worker.get().close(py);
    }

    /// Closes its poller, and gives up what it has asked for.
    pub(crate) fn close(&self, py: Python<'_>) {
        if let Ok(core) = self.poller.get().core() {
            core.close(py);
        }
        let outgoing = std::mem::take(&mut *self.outgoing.borrow(py));
        drop(outgoing);
    }

    fn is_closed(&self, py: Python<'_>) -> bool {
        self.poller.get().core().map_or(true, |core| core.is_closed(py))
    }

    /// The connection that the core has made, or has failed to make.
    pub(crate) fn take_outgoing(py: Python<'_>, owner: *const (), token: u64) -> Option<Py<PyConnection>> {
        Self::current(py, owner)?.get().outgoing.borrow(py).connections.remove(&token)
    }

    fn in_call<R>(&self, act: impl FnOnce(&mut LoopRef<'_>) -> R) -> PyResult<R> {
        protect_thread();
        current::event_loop(self.owner as *const (), act).ok_or_else(not_in_call)
    }

    /// What `on_event` gets for an event: nothing if what it is of has ended meanwhile.
    pub(crate) fn report(&self, py: Python<'_>, event: &Event) -> PyResult<Option<Py<PyAny>>> {
        self.poller.get().core()?.report(py, event, event::make)
    }
}

/// The workers of servers, for connections.
struct Workers;

impl Home for Workers {
    /// The worker that makes the call in progress.
    fn event_loop(&self, py: Python<'_>, id: ConnId) -> PyResult<Py<PyAny>> {
        let place = current::connection(id, |conn| (conn.event_loop().poller().clone(), conn.worker()));
        PyWorker::of_call(py, place.ok_or_else(|| not_here(id))?).map(Py::into_any)
    }

    /// A worker's loop is used in its calls alone.
    fn with_idle(&self, _py: Python<'_>, _id: ConnId, _act: &mut dyn FnMut(&mut Conn<'_>)) {}
}

/// The home of a server's connections.
pub(crate) fn home() -> Arc<dyn Home> {
    Arc::new(Workers)
}

fn not_in_call() -> PyErr {
    PyOSError::new_err((libc::EPERM, "only in a call of the handler by the worker's loop"))
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
