//! [`Shared`]: what a loop, its handler and its connections have in common.

use std::fmt::Arguments;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use omnipoll::{Conn, ConnId, EngineKind, EventLoop, LoopHandle};
use pyo3::exceptions::{PyException, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit};

use super::class::PyLoop;
use super::handler::{LoopHandler, Mode};
use super::members::{Handlers, Members};
use crate::ending::Ending;
use crate::gil_cell::GilCell;
use crate::log;
use crate::methods::{Failures, Methods};
use crate::poller::PyPoller;
use crate::poller_core::PollerCore;

/// Held by the object, by the core's loop and by every connection.
pub(crate) struct Shared {
    /// The number of the thread that the loop belongs to.
    thread: u64,
    pub(super) engine: EngineKind,
    pub(super) poller: Py<PyPoller>,
    /// What other threads reach it by; `None` when it is closed.
    pub(super) handle: GilCell<Option<LoopHandle>>,
    /// `None` while something is being done with it, and when it is closed. Taken and put back by its own
    /// thread alone, but for the last time.
    held: GilCell<Option<Box<EventLoop<LoopHandler>>>>,
    /// It was closed in a call of its own.
    is_closing: AtomicBool,
    /// There is a listener or a connection without a handler.
    lacks_handler: AtomicBool,
    pub(super) members: GilCell<Members>,
    handlers: GilCell<Handlers>,
    /// The handler that counts where no other is given, and takes the program's own events.
    pub(super) default: Option<Arc<Methods>>,
    /// By the token that the core has of them.
    listeners: GilCell<Vec<Listener>>,
    pub(super) ending: Ending,
    this: OnceLock<Py<PyWeakrefReference>>,
}

/// What the connections and datagrams that come to an address get.
struct Listener {
    methods: Option<Arc<Methods>>,
    token: Py<PyAny>,
}

impl Shared {
    pub(super) fn new(
        py: Python<'_>,
        handler: Option<&Bound<'_, PyAny>>,
        make: impl FnOnce(LoopHandler) -> PyResult<EventLoop<LoopHandler>>,
    ) -> PyResult<Arc<Self>> {
        let mut handlers = Handlers::default();
        let mut default = None;
        if let Some(handler) = handler {
            let methods = Arc::new(Methods::new(handler, "a loop")?);
            handlers.add(handler.clone(), methods.clone());
            default = Some(methods);
        }
        let event_loop = Box::new(make(LoopHandler::new())?);
        let core = PollerCore::of_loop(py, event_loop.poller().clone())?;
        let shared = Arc::new(Self {
            thread: this_thread(),
            engine: event_loop.engine(),
            poller: Py::new(py, PyPoller::of_loop(core)?)?,
            handle: GilCell::new(py, Some(event_loop.handle())),
            held: GilCell::new(py, None),
            is_closing: false.into(),
            lacks_handler: false.into(),
            members: GilCell::new(py, Members::default()),
            handlers: GilCell::new(py, handlers),
            default,
            listeners: GilCell::new(py, Vec::new()),
            ending: Ending::new(py),
            this: OnceLock::new(),
        });
        event_loop.handler().belong_to(shared.clone());
        *shared.held.borrow(py) = Some(event_loop);
        Ok(shared)
    }

    /// The object is this one.
    pub(super) fn set_object(&self, object: &Bound<'_, PyLoop>) -> PyResult<()> {
        let this = PyWeakrefReference::new(object)?;
        // It was empty.
        let _ = self.this.set(this.unbind());
        Ok(())
    }

    /// The object, if it is still there.
    pub(crate) fn event_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyLoop>> {
        self.this.get()?.bind(py).upgrade_as::<PyLoop>().ok().flatten()
    }

    /// Acts on a connection between two waits, in the loop's own thread.
    pub(crate) fn with_idle<R>(
        &self,
        py: Python<'_>,
        id: ConnId,
        act: impl FnOnce(&mut Conn<'_>) -> R,
    ) -> Option<R> {
        if self.thread != this_thread() {
            return None;
        }
        let mut held = self.held.try_borrow(py)?;
        held.as_mut()?.conn(id).ok().map(|mut conn| act(&mut conn))
    }

    /// `EPERM` in any other thread than the loop's own.
    pub(super) fn check_thread(&self) -> PyResult<()> {
        match self.thread == this_thread() {
            true => Ok(()),
            false => Err(PyOSError::new_err((
                libc::EPERM,
                "a loop belongs to the thread that has made it: another has its stop() and poller.post(), \
                 and the write(), close() and post() of its connections",
            ))),
        }
    }

    /// Acts on the core's loop, outside of its calls.
    pub(super) fn with<R>(
        &self,
        py: Python<'_>,
        act: impl FnOnce(&mut EventLoop<LoopHandler>) -> R,
    ) -> PyResult<R> {
        let mut event_loop = self.take(py)?;
        let done = act(&mut event_loop);
        self.put_back(py, event_loop);
        Ok(done)
    }

    /// Takes the core's loop out to use it.
    pub(super) fn take(&self, py: Python<'_>) -> PyResult<Box<EventLoop<LoopHandler>>> {
        self.check_thread()?;
        let held = self.held.borrow(py).take();
        held.ok_or_else(|| match self.is_closed(py) {
            true => closed(),
            false => PyRuntimeError::new_err("the loop is in a wait of its own: not in its calls"),
        })
    }

    pub(super) fn put_back(&self, py: Python<'_>, event_loop: Box<EventLoop<LoopHandler>>) {
        *self.held.borrow(py) = Some(event_loop);
        if self.is_closing.load(Ordering::Relaxed) {
            self.close(py, true);
        }
    }

    pub(super) fn is_closed(&self, py: Python<'_>) -> bool {
        self.handle.borrow(py).is_none()
    }

    /// What stands for it in its calls.
    pub(super) fn as_owner(&self) -> *const () {
        std::ptr::from_ref(self).cast()
    }

    /// In a call of the loop's: it is to be closed when that has returned.
    pub(super) fn close_later(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    /// Ends its connections and releases everything. `calls`: their on_close is called, if the loop was
    /// last run by handler.
    pub(super) fn close(&self, py: Python<'_>, calls: bool) {
        let event_loop = self.held.borrow(py).take();
        if let Some(event_loop) = event_loop {
            if !calls || event_loop.handler().is_pulled() {
                event_loop.handler().set_mode(Mode::Silent);
            }
            drop(event_loop);
        }
        let handle = self.handle.borrow(py).take();
        drop(handle);
        if let Ok(core) = self.poller.get().core() {
            core.close(py);
        }
        let members = std::mem::take(&mut *self.members.borrow(py));
        let handlers = std::mem::take(&mut *self.handlers.borrow(py));
        let listeners = std::mem::take(&mut *self.listeners.borrow(py));
        drop((members, handlers, listeners));
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

    /// `ValueError` when something has happened, or may, that nobody would be told of.
    pub(super) fn check_handlers(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_closed(py) {
            return Err(closed());
        }
        let has_any = !self.handlers.borrow(py).is_empty();
        if has_any && !self.lacks_handler.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(PyValueError::new_err(
            "a loop that runs calls a handler: Loop(handler=...), or one for each listen() and connect(); \
             wait() does without",
        ))
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

/// What is said of a loop that was closed.
pub(super) fn closed() -> PyErr {
    PyValueError::new_err("I/O operation on a closed loop")
}

/// A number that no other thread of this process ever has.
pub(super) fn this_thread() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    thread_local!(static NUMBER: u64 = LAST.fetch_add(1, Ordering::Relaxed));
    NUMBER.try_with(|number| *number).unwrap_or(u64::MAX)
}
