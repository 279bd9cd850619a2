//! [`Shared`]: what a loop has in common with its handler.

use std::fmt::Arguments;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use omnipoll::Poller;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit};

use super::loop_event::PyLoopEvent;
use super::members::{Handlers, Members};
use crate::ending::Ending;
use crate::gil_cell::GilCell;
use crate::log;
use crate::methods::{Failures, Methods};
use crate::poller::PyPoller;
use crate::poller_core::PollerCore;

/// What the handlers of Python's are, and what is known by the core's tokens and keys.
pub(crate) struct Shared {
    pub(super) poller: Py<PyPoller>,
    /// There is a listener or a connection without a handler.
    lacks_handler: AtomicBool,
    pub(super) members: GilCell<Members>,
    handlers: GilCell<Handlers>,
    /// The handler that counts where no other is given, and takes the program's own events.
    pub(super) default: Option<Arc<Methods>>,
    /// By the token that the core has of them.
    listeners: GilCell<Vec<Listener>>,
    /// The events of the last wait whose bytes lie in its buffer.
    pub(super) returned: GilCell<Vec<Py<PyLoopEvent>>>,
    pub(super) ending: Ending,
    /// The object that the loop is in Python.
    object: OnceLock<Py<PyWeakrefReference>>,
}

/// What the connections and datagrams that come to an address get.
struct Listener {
    methods: Option<Arc<Methods>>,
    token: Py<PyAny>,
}

impl Shared {
    pub(super) fn new(
        py: Python<'_>,
        default: Option<(Bound<'_, PyAny>, Arc<Methods>)>,
        poller: Arc<Poller>,
    ) -> PyResult<Self> {
        let mut handlers = Handlers::default();
        let default = default.map(|(handler, methods)| {
            handlers.add(handler, methods.clone());
            methods
        });
        let core = PollerCore::of_loop(py, poller)?;
        Ok(Self {
            poller: Py::new(py, PyPoller::of_loop(core)?)?,
            lacks_handler: false.into(),
            members: GilCell::new(py, Members::default()),
            handlers: GilCell::new(py, handlers),
            default,
            listeners: GilCell::new(py, Vec::new()),
            returned: GilCell::new(py, Vec::new()),
            ending: Ending::new(py),
            object: OnceLock::new(),
        })
    }

    /// The object is this one.
    pub(super) fn set_object(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let object = PyWeakrefReference::new(object)?;
        // It was empty.
        let _ = self.object.set(object.unbind());
        Ok(())
    }

    /// The object, if it is still there.
    pub(super) fn object<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.object.get()?.bind(py).upgrade()
    }

    /// What stands for it in its calls.
    pub(super) fn as_owner(&self) -> *const () {
        std::ptr::from_ref(self).cast()
    }

    /// Releases everything: the loop is closed.
    pub(super) fn clear(&self, py: Python<'_>) {
        if let Ok(core) = self.poller.get().core() {
            core.close(py);
        }
        let members = std::mem::take(&mut *self.members.borrow(py));
        let handlers = std::mem::take(&mut *self.handlers.borrow(py));
        let listeners = std::mem::take(&mut *self.listeners.borrow(py));
        let returned = std::mem::take(&mut *self.returned.borrow(py));
        drop((members, handlers, listeners, returned));
    }

    /// The methods of a handler that was given, or of the default one.
    pub(super) fn methods(&self, handler: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Arc<Methods>>> {
        let Some(handler) = handler else {
            if self.default.is_none() {
                self.lacks_handler.store(true, Ordering::Relaxed);
            }
            return Ok(self.default.clone());
        };
        let py = handler.py();
        let known = self.handlers.borrow(py).get(handler);
        if let Some(methods) = known {
            return Ok(Some(methods));
        }
        let methods = Arc::new(Methods::new(handler, "a loop")?);
        self.handlers.borrow(py).add(handler.clone(), methods.clone());
        Ok(Some(methods))
    }

    /// `ValueError` when something has happened, or may, that no handler would be called for.
    pub(super) fn check_handlers(&self, py: Python<'_>) -> PyResult<()> {
        let has_any = !self.handlers.borrow(py).is_empty();
        if has_any && !self.lacks_handler.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(PyValueError::new_err(
            "a loop that runs calls a handler: Loop(handler=...), or one for each listen() and connect(); \
             wait() does without",
        ))
    }

    /// Before the buffer is filled again: those events that the program still has get copies.
    pub(super) fn keep_returned(&self, py: Python<'_>) {
        let returned = std::mem::take(&mut *self.returned.borrow(py));
        for event in returned {
            // SAFETY: a live object.
            if unsafe { ffi::Py_REFCNT(event.as_ptr()) } > 1 {
                event.get().keep(py);
            }
            event.drop_ref(py);
        }
    }

    /// A connection has ended.
    pub(super) fn remove(&self, py: Python<'_>, key: usize) {
        let connection = self.members.borrow(py).remove(key);
        if let Some(connection) = &connection {
            connection.get().end();
        }
        drop(connection);
        let unused = self.handlers.borrow(py).take_unused();
        drop(unused);
    }

    /// Keeps what belongs to an address that is about to be listened on, and returns the core's token.
    pub(super) fn add_listener(
        &self,
        py: Python<'_>,
        methods: Option<Arc<Methods>>,
        token: Py<PyAny>,
    ) -> u64 {
        let mut listeners = self.listeners.borrow(py);
        listeners.push(Listener { methods, token });
        (listeners.len() - 1) as u64
    }

    /// It has failed, or was the last.
    pub(super) fn forget_listener(&self, py: Python<'_>) {
        let last = self.listeners.borrow(py).pop();
        drop(last);
    }

    /// What connections and datagrams that came to the address have.
    pub(super) fn listener(&self, py: Python<'_>, token: u64) -> (Option<Arc<Methods>>, Py<PyAny>) {
        match self.listeners.borrow(py).get(token as usize) {
            Some(listener) => (listener.methods.clone(), listener.token.clone_ref(py)),
            None => (self.default.clone(), py.None()),
        }
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.poller)?;
        if let Some(members) = self.members.visit(visit) {
            members.traverse(visit)?;
        }
        if let Some(handlers) = self.handlers.visit(visit) {
            handlers.traverse(visit)?;
        }
        if let Some(listeners) = self.listeners.visit(visit) {
            listeners.iter().try_for_each(|listener| visit.call(&listener.token))?;
        }
        if let Some(returned) = self.returned.visit(visit) {
            returned.iter().try_for_each(|event| visit.call(event))?;
        }
        Ok(())
    }
}

impl Failures for Shared {
    /// Into the log with it, unless it is meant to end the program: it comes out of run() then, and the
    /// loop stays as it is.
    #[cold]
    fn failed(&self, py: Python<'_>, failed: PyErr, what: Arguments<'_>) {
        match failed.is_instance_of::<PyException>(py) {
            true => log::exception(py, failed, what),
            false => self.ending.keep(py, failed),
        }
    }
}
