//! The methods of a handler, and how a connection's callbacks call them.

use std::fmt::Arguments;
use std::io;

use omnipoll::{Conn, Datagram, DatagramId, Timeout};
use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes};
use pyo3::{ffi, PyTraverseError, PyVisit};

use crate::connection::PyConnection;
use crate::convert::reason;
use crate::current;
use crate::datagram::PyDatagram;
use crate::datagram_socket::PyDatagramSocket;

/// The handler's methods, looked up once. What it hasn't is `None`.
pub(crate) struct Methods {
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
    pub(crate) on_event: Option<Py<PyAny>>,
    pub(crate) on_worker_start: Option<Py<PyAny>>,
    pub(crate) on_worker_end: Option<Py<PyAny>>,
}

/// Takes the exceptions that come out of a handler.
pub(crate) trait Failures {
    fn failed(&self, py: Python<'_>, failed: PyErr, what: Arguments<'_>);
}

impl Methods {
    /// `TypeError` for what can't be meant as a handler. `caller` is what calls it, in words.
    pub(crate) fn new(handler: &Bound<'_, PyAny>, caller: &str) -> PyResult<Self> {
        handler.py().import("omnipoll.handlers")?.call_method1("check", (handler, caller))?;
        let method = |name: &str| -> PyResult<Option<Py<PyAny>>> {
            let method = handler.getattr_opt(name)?.filter(|method| !method.is_none());
            Ok(method.map(Bound::unbind))
        };
        Ok(Self {
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
            on_event: method("on_event")?,
            on_worker_start: method("on_worker_start")?,
            on_worker_end: method("on_worker_end")?,
        })
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Self { on_open, on_data, on_end, on_drain, on_post, on_stop, on_close, .. } = self;
        let Self { on_datagram, on_datagram_error, on_timeout, on_timer, on_event, .. } = self;
        for method in [on_open, on_data, on_end, on_drain, on_post, on_stop, on_close] {
            visit.call(method)?;
        }
        for method in [on_datagram, on_datagram_error, on_timeout, on_timer, on_event] {
            visit.call(method)?;
        }
        visit.call(&self.on_worker_start)?;
        visit.call(&self.on_worker_end)
    }

    /// Whether one is called for a server's worker itself.
    pub(crate) fn are_any_of_workers(&self) -> bool {
        [&self.on_worker_start, &self.on_worker_end, &self.on_event].iter().any(|method| method.is_some())
    }
}

/// A connection for which a handler is called.
pub(crate) struct Call<'a, 'py, 'conn> {
    pub(crate) py: Python<'py>,
    pub(crate) conn: &'a mut Conn<'conn>,
    pub(crate) connection: &'a Py<PyConnection>,
    pub(crate) failures: &'a dyn Failures,
}

impl<'py> Call<'_, 'py, '_> {
    /// Calls a method, if there is one. Its exception is the connection's end.
    #[inline]
    fn call(
        &mut self,
        name: &str,
        method: &Option<Py<PyAny>>,
        argument: Option<Bound<'_, PyAny>>,
    ) -> Option<Bound<'py, PyAny>> {
        let Self { py, connection, .. } = *self;
        let method = method.as_ref()?;
        let owner = std::ptr::from_ref(self.failures).cast();
        let call = || invoke(py, method, connection.as_any(), argument.as_ref());
        let failed = match current::with_connection(self.conn, owner, call) {
            Ok(result) => return Some(result),
            Err(failed) => failed,
        };
        // A write has found the connection broken, and on_close will say so.
        if !(connection.get().is_broken() && failed.is_instance_of::<PyOSError>(py)) {
            self.failures.failed(py, failed, format_args!("{name} for {}", self.conn.peer()));
        }
        self.conn.abort();
        None
    }
}

/// For connections.
impl Methods {
    /// Whether the connection is not refused.
    pub(crate) fn open(&self, mut call: Call<'_, '_, '_>) -> bool {
        let is_open = self.on_open.is_none() || {
            let answer = call.call("on_open", &self.on_open, None);
            answer.is_some_and(|answer| !answer.is(PyBool::new(call.py, false)))
        };
        if !is_open {
            call.connection.get().end();
        }
        is_open
    }

    #[inline]
    pub(crate) fn data(&self, mut call: Call<'_, '_, '_>, data: &[u8]) {
        let data = PyBytes::new(call.py, data).into_any();
        call.call("on_data", &self.on_data, Some(data));
    }

    pub(crate) fn end(&self, mut call: Call<'_, '_, '_>) {
        match self.on_end {
            Some(_) => _ = call.call("on_end", &self.on_end, None),
            None => call.conn.close(),
        }
    }

    pub(crate) fn drain(&self, mut call: Call<'_, '_, '_>) {
        call.call("on_drain", &self.on_drain, None);
    }

    pub(crate) fn post(&self, mut call: Call<'_, '_, '_>, value: i64) {
        match value.into_pyobject(call.py) {
            Ok(value) => _ = call.call("on_post", &self.on_post, Some(value.into_any())),
            Err(never) => match never {},
        }
    }

    pub(crate) fn timeout(&self, mut call: Call<'_, '_, '_>, which: Timeout) {
        let py = call.py;
        let which = match which {
            Timeout::Idle => intern!(py, "idle"),
            Timeout::Read => intern!(py, "read"),
            Timeout::Write => intern!(py, "write"),
        };
        call.call("on_timeout", &self.on_timeout, Some(which.clone().into_any()));
    }

    pub(crate) fn timer(&self, mut call: Call<'_, '_, '_>) {
        call.call("on_timer", &self.on_timer, None);
    }

    pub(crate) fn stop(&self, mut call: Call<'_, '_, '_>) {
        call.call("on_stop", &self.on_stop, None);
    }

    pub(crate) fn close(&self, mut call: Call<'_, '_, '_>, error: Option<io::Error>) {
        let error = error_object(call.py, error.as_ref());
        call.call("on_close", &self.on_close, Some(error));
    }

    /// A connection that never opened: there is none to lend.
    pub(crate) fn never_opened(
        &self,
        py: Python<'_>,
        connection: &Py<PyConnection>,
        error: PyErr,
    ) -> PyResult<()> {
        let Some(method) = &self.on_close else { return Ok(()) };
        let error = error.into_value(py).into_bound(py).into_any();
        invoke(py, method, connection.as_any(), Some(&error)).map(drop)
    }
}

/// For datagrams.
impl Methods {
    pub(crate) fn datagram(
        &self,
        py: Python<'_>,
        datagram: &mut Datagram<'_>,
        data: &[u8],
        failures: &dyn Failures,
    ) {
        let Some(method) = &self.on_datagram else { return };
        let peer = datagram.peer().to_string();
        let called = PyDatagram::with(py, datagram, |ours| {
            invoke(py, method, ours, Some(&PyBytes::new(py, data).into_any()))
        });
        if let Err(failed) = called {
            failures.failed(py, failed, format_args!("on_datagram for {peer}"));
        }
    }

    pub(crate) fn datagram_error(
        &self,
        py: Python<'_>,
        socket: DatagramId,
        error: &io::Error,
        failures: &dyn Failures,
    ) {
        let Some(method) = &self.on_datagram_error else { return };
        let error = error_object(py, Some(error));
        let called = Py::new(py, PyDatagramSocket(socket))
            .and_then(|ours| invoke(py, method, ours.as_any(), Some(&error)));
        if let Err(failed) = called {
            failures.failed(py, failed, format_args!("on_datagram_error"));
        }
    }
}

/// An `OSError`, or None.
pub(crate) fn error_object<'py>(py: Python<'py>, error: Option<&io::Error>) -> Bound<'py, PyAny> {
    match error {
        None => py.None().into_bound(py),
        Some(error) => reason(error).into_value(py).into_bound(py).into_any(),
    }
}

/// Calls `method(object)` or `method(object, argument)`, without a tuple.
#[inline]
pub(crate) fn invoke<'py>(
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
