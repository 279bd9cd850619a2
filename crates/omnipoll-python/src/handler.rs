//! The core's `Handler` over an object of Python's.
//!
//! The loops run detached from the interpreter; each call attaches, which costs about 0.05 us
//! while no other thread wants the interpreter. No lock of ours is held meanwhile.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;
use std::time::Duration;

use omnipoll::{Conn, Datagram, DatagramId, Event, Handler, LoopRef, ServerHandle, Timeout};
use pyo3::exceptions::{PyException, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes};
use pyo3::{ffi, PyTraverseError, PyVisit};

use crate::connection::PyConnection;
use crate::datagram::PyDatagram;
use crate::datagram_socket::PyDatagramSocket;
use crate::finalization::attach;
use crate::gil_cell::GilCell;
use crate::worker::{self, PyWorker};
use crate::{forking, log};

/// The handler's methods, looked up once. What it hasn't is `None`.
struct Methods {
    on_open: Option<Py<PyAny>>,
    on_data: Option<Py<PyAny>>,
    on_end: Option<Py<PyAny>>,
    on_drain: Option<Py<PyAny>>,
    on_post: Option<Py<PyAny>>,
    on_stop: Option<Py<PyAny>>,
    on_close: Option<Py<PyAny>>,
    on_datagram: Option<Py<PyAny>>,
    on_datagram_error: Option<Py<PyAny>>,
    on_timeout: Option<Py<PyAny>>,
    on_timer: Option<Py<PyAny>>,
    on_worker_start: Option<Py<PyAny>>,
    on_worker_end: Option<Py<PyAny>>,
    on_event: Option<Py<PyAny>>,
}

impl Methods {
    /// Whether one is called for a worker itself.
    fn are_any_of_workers(&self) -> bool {
        [&self.on_worker_start, &self.on_worker_end, &self.on_event].iter().any(|method| method.is_some())
    }
}

/// Calls the methods of a Python object.
pub(crate) struct PyHandler {
    methods: Methods,
    /// Set when the server has been made.
    pub(crate) server: OnceLock<ServerHandle>,
    /// A KeyboardInterrupt, SystemExit or the like, which is to come out of `run`.
    ending: GilCell<Option<PyErr>>,
    /// That an event is lost was logged.
    has_complained: AtomicBool,
}

impl PyHandler {
    pub(crate) fn new(handler: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = handler.py();
        py.import("omnipoll.handlers")?.call_method1("check", (handler,))?;
        let method = |name: &str| -> PyResult<Option<Py<PyAny>>> {
            let method = handler.getattr_opt(name)?.filter(|method| !method.is_none());
            Ok(method.map(Bound::unbind))
        };
        let methods = Methods {
            on_open: method("on_open")?,
            on_data: method("on_data")?,
            on_end: method("on_end")?,
            on_drain: method("on_drain")?,
            on_post: method("on_post")?,
            on_stop: method("on_stop")?,
            on_close: method("on_close")?,
            on_datagram: method("on_datagram")?,
            on_datagram_error: method("on_datagram_error")?,
            on_timeout: method("on_timeout")?,
            on_timer: method("on_timer")?,
            on_worker_start: method("on_worker_start")?,
            on_worker_end: method("on_worker_end")?,
            on_event: method("on_event")?,
        };
        let ending = GilCell::new(py, None);
        Ok(Self { methods, server: OnceLock::new(), ending, has_complained: false.into() })
    }

    /// What is to come out of `run`, if anything.
    pub(crate) fn take_exit(&self, py: Python<'_>) -> Option<PyErr> {
        self.ending.borrow(py).take()
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Methods { on_open, on_data, on_end, on_drain, on_post, .. } = &self.methods;
        let Methods { on_timeout, on_timer, on_stop, on_close, .. } = &self.methods;
        for method in [on_open, on_data, on_end, on_drain, on_post, on_timeout, on_timer, on_stop, on_close] {
            visit.call(method)?;
        }
        let Methods { on_datagram, on_datagram_error, .. } = &self.methods;
        let Methods { on_worker_start, on_worker_end, on_event, .. } = &self.methods;
        for method in [on_datagram, on_datagram_error, on_worker_start, on_worker_end, on_event] {
            visit.call(method)?;
        }
        Ok(())
    }

    /// Calls a method for a connection. Its exception is the connection's end.
    #[inline]
    fn call<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        method: &Py<PyAny>,
        conn: &mut Conn<'_>,
        connection: &Py<PyConnection>,
        argument: Option<Bound<'_, PyAny>>,
    ) -> Option<Bound<'py, PyAny>> {
        let ours = connection.get();
        let guard = ours.set(py, conn);
        let called = invoke(py, method, connection.as_any(), argument.as_ref());
        drop(guard);
        let failed = match called {
            Ok(result) => return Some(result),
            Err(failed) => failed,
        };
        let broken = ours.is_broken() && failed.is_instance_of::<PyOSError>(py);
        // A write has found the connection broken, and on_close will say so.
        if !broken {
            self.failed(py, failed, format_args!("{name} for {}", conn.peer()));
        }
        conn.abort();
        None
    }

    /// An exception has come out of a method: into the log with it, unless it is meant to end
    /// the program.
    #[cold]
    fn failed(&self, py: Python<'_>, failed: PyErr, what: std::fmt::Arguments<'_>) {
        if failed.is_instance_of::<PyException>(py) {
            return log::exception(py, failed, what);
        }
        forking::leave_child(py, &failed);
        self.end(py, failed);
        if let Some(server) = self.server.get() {
            // It fails only when the server's own descriptors were closed elsewhere.
            let _ = server.stop(Some(Duration::ZERO));
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

    /// Keeps what is to come out of `run`; the first counts.
    fn end(&self, py: Python<'_>, failed: PyErr) {
        let mut ending = self.ending.borrow(py);
        let second = match *ending {
            None => ending.replace(failed),
            Some(_) => Some(failed),
        };
        drop(ending);
        drop(second);
    }
}

/// Calls `method(object)` or `method(object, argument)`, without a tuple.
#[inline]
fn invoke<'py>(
    py: Python<'py>,
    method: &Py<PyAny>,
    object: &Py<PyAny>,
    argument: Option<&Bound<'_, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    // The first NULL ends the arguments.
    let argument = argument.map_or(std::ptr::null_mut(), |argument| argument.as_ptr());
    let end = std::ptr::null_mut::<ffi::PyObject>();
    // SAFETY: live objects, and a NULL after the last. A new reference comes back, or NULL.
    unsafe {
        let called = ffi::PyObject_CallFunctionObjArgs(method.as_ptr(), object.as_ptr(), argument, end);
        Bound::from_owned_ptr_or_err(py, called)
    }
}

impl Handler for PyHandler {
    type State = Py<PyConnection>;

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<Py<PyConnection>> {
        attach(|py| {
            let no_memory = |_| io::Error::from_raw_os_error(libc::ENOMEM);
            let connection = Py::new(py, PyConnection::new(py, conn)).map_err(no_memory)?;
            let Some(method) = &self.methods.on_open else { return Ok(connection) };
            match self.call(py, "on_open", method, conn, &connection, None) {
                Some(answer) if !answer.is(PyBool::new(py, false)) => Ok(connection),
                _ => {
                    connection.get().end();
                    Err(io::Error::from_raw_os_error(libc::ECONNREFUSED))
                }
            }
        })
    }

    #[inline]
    fn on_data(&self, conn: &mut Conn<'_>, connection: &mut Py<PyConnection>, data: &[u8]) {
        let Some(method) = &self.methods.on_data else { return };
        attach(|py| {
            let data = PyBytes::new(py, data).into_any();
            self.call(py, "on_data", method, conn, connection, Some(data));
        });
    }

    fn on_end(&self, conn: &mut Conn<'_>, connection: &mut Py<PyConnection>) {
        let Some(method) = &self.methods.on_end else { return conn.close() };
        attach(|py| _ = self.call(py, "on_end", method, conn, connection, None));
    }

    fn on_drain(&self, conn: &mut Conn<'_>, connection: &mut Py<PyConnection>) {
        let Some(method) = &self.methods.on_drain else { return };
        attach(|py| _ = self.call(py, "on_drain", method, conn, connection, None));
    }

    fn on_post(&self, conn: &mut Conn<'_>, connection: &mut Py<PyConnection>, value: i64) {
        let Some(method) = &self.methods.on_post else { return };
        attach(|py| match value.into_pyobject(py) {
            Ok(value) => _ = self.call(py, "on_post", method, conn, connection, Some(value.into_any())),
            Err(never) => match never {},
        });
    }

    fn on_timeout(&self, conn: &mut Conn<'_>, connection: &mut Py<PyConnection>, which: Timeout) {
        let Some(method) = &self.methods.on_timeout else { return };
        attach(|py| {
            let which = match which {
                Timeout::Idle => intern!(py, "idle"),
                Timeout::Read => intern!(py, "read"),
                Timeout::Write => intern!(py, "write"),
            };
            self.call(py, "on_timeout", method, conn, connection, Some(which.clone().into_any()));
        });
    }

    fn on_timer(&self, conn: &mut Conn<'_>, connection: &mut Py<PyConnection>) {
        let Some(method) = &self.methods.on_timer else { return };
        attach(|py| _ = self.call(py, "on_timer", method, conn, connection, None));
    }

    fn on_stop(&self, conn: &mut Conn<'_>, connection: &mut Py<PyConnection>) {
        let Some(method) = &self.methods.on_stop else { return };
        attach(|py| _ = self.call(py, "on_stop", method, conn, connection, None));
    }

    fn on_close(&self, conn: &mut Conn<'_>, connection: Py<PyConnection>, error: Option<io::Error>) {
        attach(|py| {
            if let Some(method) = &self.methods.on_close {
                let error = match error {
                    None => py.None().into_bound(py),
                    Some(error) => crate::convert::reason(&error).into_value(py).into_bound(py).into_any(),
                };
                self.call(py, "on_close", method, conn, &connection, Some(error));
            }
            connection.get().end();
            drop(connection);
        });
    }

    /// Python's own handlers of signals run here, as between two steps of a program.
    fn on_interrupt(&self) -> io::Result<()> {
        attach(|py| {
            py.check_signals().map_err(|failed| {
                self.end(py, failed);
                io::Error::from_raw_os_error(libc::EINTR)
            })
        })
    }

    /// An exception comes out of `run`; in a process that the server has forked it is logged, and `run`
    /// raises an OSError.
    fn on_worker_start(&self, event_loop: &mut LoopRef<'_>) -> io::Result<()> {
        if !self.methods.are_any_of_workers() {
            return Ok(());
        }
        attach(|py| {
            let worker =
                PyWorker::begin(py, event_loop).map_err(|failed| worker::start_error(py, &failed))?;
            let Some(method) = &self.methods.on_worker_start else { return Ok(()) };
            worker::invoke(py, method, worker, None).map_err(|failed| {
                PyWorker::end(py);
                let error = worker::start_error(py, &failed);
                if forking::is_in_child() {
                    log::exception(py, failed, format_args!("on_worker_start"));
                } else {
                    self.end(py, failed);
                }
                error
            })
        })
    }

    fn on_worker_end(&self, _: &mut LoopRef<'_>) {
        if !self.methods.are_any_of_workers() {
            return;
        }
        attach(|py| {
            if let (Some(method), Some(worker)) = (&self.methods.on_worker_end, PyWorker::current(py)) {
                if let Err(failed) = worker::invoke(py, method, worker, None) {
                    self.failed(py, failed, format_args!("on_worker_end"));
                }
            }
            PyWorker::end(py);
        });
    }

    fn on_event(&self, _: &mut LoopRef<'_>, event: &Event) {
        attach(|py| {
            let Some(worker) = PyWorker::current(py) else { return };
            let Some(method) = &self.methods.on_event else { return self.event_is_lost(py) };
            let handled = worker.get().report(py, event).and_then(|report| match report {
                Some(report) => worker::invoke(py, method, worker, Some(report)),
                None => Ok(()),
            });
            if let Err(failed) = handled {
                self.failed(py, failed, format_args!("on_event"));
            }
        });
    }

    /// A thread state is made once for each thread, and not at each call.
    fn run_worker(&self, serve: &mut dyn FnMut()) {
        attach(|py| {
            forking::detached(py, serve);
            forking::flush_in_child(py, self.server.get());
        });
    }

    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        let Some(method) = &self.methods.on_datagram else { return };
        attach(|py| {
            let peer = datagram.peer().to_string();
            let called = PyDatagram::with(py, datagram, |ours| {
                invoke(py, method, ours, Some(&PyBytes::new(py, data).into_any()))
            });
            if let Err(failed) = called {
                self.failed(py, failed, format_args!("on_datagram for {peer}"));
            }
        });
    }

    fn on_datagram_error(&self, socket: DatagramId, error: io::Error) {
        let Some(method) = &self.methods.on_datagram_error else { return };
        attach(|py| {
            let error = crate::convert::reason(&error).into_value(py).into_bound(py).into_any();
            let called = Py::new(py, PyDatagramSocket(socket))
                .and_then(|ours| invoke(py, method, ours.as_any(), Some(&error)));
            if let Err(failed) = called {
                self.failed(py, failed, format_args!("on_datagram_error"));
            }
        });
    }
}
