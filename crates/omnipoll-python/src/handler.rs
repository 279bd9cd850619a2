//! The core's `Handler` over an object of Python's, for servers.
//!
//! The loops run detached from the interpreter; each call attaches, which costs about 0.05 us
//! while no other thread wants the interpreter. No lock of ours is held meanwhile.

use std::fmt::Arguments;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use omnipoll::{
    Conn, Datagram, DatagramId, Event, FailedConnect, Handler, LoopRef, Poller, ServerHandle, Timeout,
};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::connection::PyConnection;
use crate::ending::Ending;
use crate::finalization::attach;
use crate::methods::{Call, Failures, Methods};
use crate::worker::{self, PyWorker};
use crate::{current, event_loop, forking, log};

/// Calls the methods of a Python object.
pub(crate) struct PyHandler {
    methods: Methods,
    /// Set when the server has been made.
    pub(crate) server: OnceLock<ServerHandle>,
    /// What is to come out of `run`.
    pub(crate) ending: Ending,
    /// That an event is lost was logged.
    has_complained: AtomicBool,
    /// No method is called any more: the server was dropped.
    is_silent: AtomicBool,
}

impl PyHandler {
    pub(crate) fn new(handler: &Bound<'_, PyAny>) -> PyResult<Self> {
        let methods = Methods::new(handler, "a server")?;
        let ending = Ending::new(handler.py());
        let (has_complained, is_silent) = (false.into(), false.into());
        Ok(Self { methods, server: OnceLock::new(), ending, has_complained, is_silent })
    }

    /// Calls no method from now on.
    pub(crate) fn silence(&self) {
        self.is_silent.store(true, Ordering::Relaxed);
    }

    fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.methods.traverse(visit)
    }

    /// What stands for the server in its calls.
    pub(crate) fn as_owner(&self) -> *const () {
        std::ptr::from_ref(self).cast()
    }

    /// The object of a connection that has opened.
    fn begin(&self, py: Python<'_>, conn: &Conn<'_>) -> PyResult<Py<PyConnection>> {
        let asked_for = match conn.is_outgoing() {
            true => PyWorker::take_outgoing(py, self.as_owner(), conn.token()),
            false => None,
        };
        match asked_for {
            Some(connection) => {
                connection.get().open(conn);
                Ok(connection)
            }
            None => Py::new(py, PyConnection::accepted(py, conn, worker::home())),
        }
    }

    #[cold]
    fn event_is_lost(&self, py: Python<'_>) {
        if !self.has_complained.swap(true, Ordering::Relaxed) {
            let words = "on_event is called for what worker.poller watches, and the handler has none: an \
                         event is lost";
            log::warning(py, words);
        }
    }

    #[inline]
    fn call<R>(
        &self,
        conn: &mut Conn<'_>,
        connection: &Py<PyConnection>,
        make: impl FnOnce(&Methods, Call<'_, '_, '_>) -> R,
    ) -> R {
        attach(|py| make(&self.methods, Call { py, conn, connection, failures: self }))
    }
}

impl Failures for PyHandler {
    /// Into the log with it, unless it is meant to end the program.
    #[cold]
    fn failed(&self, py: Python<'_>, failed: PyErr, what: Arguments<'_>) {
        if failed.is_instance_of::<PyException>(py) {
            return log::exception(py, failed, what);
        }
        forking::leave_child(py, &failed);
        self.ending.keep(py, failed);
        if let Some(server) = self.server.get() {
            // It fails only when the server's own descriptors were closed elsewhere.
            let _ = server.stop(Some(Duration::ZERO));
        }
    }
}

impl Handler for PyHandler {
    type State = Py<PyConnection>;

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<Py<PyConnection>> {
        let connection =
            attach(|py| self.begin(py, conn)).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
        match self.call(conn, &connection, Methods::open) {
            true => Ok(connection),
            false => Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)),
        }
    }

    fn on_connect_error(&self, event_loop: &mut LoopRef<'_>, failed: &FailedConnect) {
        attach(|py| {
            let Some(connection) = PyWorker::take_outgoing(py, self.as_owner(), failed.token()) else {
                return;
            };
            if self.is_silent() {
                return;
            }
            let reason = event_loop::reason(failed);
            let close = || self.methods.never_opened(py, &connection, reason);
            if let Err(failed) = current::with_loop(event_loop, self.as_owner(), close) {
                self.failed(py, failed, format_args!("on_close of what never opened"));
            }
        });
    }

    #[inline]
    fn on_data(&self, conn: &mut Conn<'_>, connection: &mut Py<PyConnection>, data: &[u8]) {
        self.call(conn, connection, |methods, call| methods.data(call, data));
    }

    fn on_end(&self, conn: &mut Conn<'_>, connection: &mut Py<PyConnection>) {
        self.call(conn, connection, Methods::end);
    }

    fn on_drain(&self, conn: &mut Conn<'_>, connection: &mut Py<PyConnection>) {
        self.call(conn, connection, Methods::drain);
    }

    fn on_post(&self, conn: &mut Conn<'_>, connection: &mut Py<PyConnection>, value: i64) {
        self.call(conn, connection, |methods, call| methods.post(call, value));
    }

    fn on_timeout(&self, conn: &mut Conn<'_>, connection: &mut Py<PyConnection>, which: Timeout) {
        self.call(conn, connection, |methods, call| methods.timeout(call, which));
    }

    fn on_timer(&self, conn: &mut Conn<'_>, connection: &mut Py<PyConnection>) {
        self.call(conn, connection, Methods::timer);
    }

    fn on_stop(&self, conn: &mut Conn<'_>, connection: &mut Py<PyConnection>) {
        self.call(conn, connection, Methods::stop);
    }

    fn on_close(&self, conn: &mut Conn<'_>, connection: Py<PyConnection>, error: Option<io::Error>) {
        attach(|py| {
            if !self.is_silent() {
                self.methods.close(Call { py, conn, connection: &connection, failures: self }, error);
            }
            connection.get().end();
            drop(connection);
        });
    }

    /// Python's own handlers of signals run here, as between two steps of a program.
    fn on_interrupt(&self) -> io::Result<()> {
        self.ending.check_signals()
    }

    /// A thread state is made once for each thread, and not at each call.
    fn run_worker(&self, serve: &mut dyn FnMut()) {
        attach(|py| {
            forking::detached(py, serve);
            forking::flush_in_child(py, self.server.get());
        });
    }

    /// An exception comes out of `run`; in a process that the server has forked it is logged, and `run`
    /// raises an OSError.
    fn on_worker_start(&self, event_loop: &mut LoopRef<'_>) -> io::Result<()> {
        if !self.methods.are_any_of_workers() {
            return Ok(());
        }
        attach(|py| {
            let worker = PyWorker::begin(py, self.as_owner(), place_of(event_loop))
                .map_err(|failed| worker::start_error(py, &failed))?;
            let Some(method) = &self.methods.on_worker_start else { return Ok(()) };
            let start = || worker::invoke(py, method, worker, None);
            current::with_loop(event_loop, self.as_owner(), start).map_err(|failed| {
                PyWorker::end(py, self.as_owner());
                let error = worker::start_error(py, &failed);
                if forking::is_in_child() {
                    log::exception(py, failed, format_args!("on_worker_start"));
                } else {
                    self.ending.keep(py, failed);
                }
                error
            })
        })
    }

    fn on_worker_end(&self, event_loop: &mut LoopRef<'_>) {
        attach(|py| {
            let method = self.methods.on_worker_end.as_ref().filter(|_| !self.is_silent());
            if let (Some(method), Some(worker)) = (method, PyWorker::current(py, self.as_owner())) {
                let end = || worker::invoke(py, method, worker, None);
                if let Err(failed) = current::with_loop(event_loop, self.as_owner(), end) {
                    self.failed(py, failed, format_args!("on_worker_end"));
                }
            }
            PyWorker::end(py, self.as_owner());
        });
    }

    fn on_event(&self, event_loop: &mut LoopRef<'_>, event: &Event) {
        attach(|py| {
            let Some(worker) = PyWorker::current(py, self.as_owner()) else { return };
            let Some(method) = &self.methods.on_event else { return self.event_is_lost(py) };
            let handled = worker.get().report(py, event).and_then(|report| match report {
                Some(report) => current::with_loop(event_loop, self.as_owner(), || {
                    worker::invoke(py, method, worker, Some(report))
                }),
                None => Ok(()),
            });
            if let Err(failed) = handled {
                self.failed(py, failed, format_args!("on_event"));
            }
        });
    }

    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        attach(|py| self.methods.datagram(py, datagram, data, self));
    }

    fn on_datagram_error(&self, socket: DatagramId, error: io::Error) {
        attach(|py| self.methods.datagram_error(py, socket, &error, self));
    }
}

fn place_of(event_loop: &LoopRef<'_>) -> (Arc<Poller>, usize) {
    (event_loop.poller().clone(), event_loop.worker())
}
