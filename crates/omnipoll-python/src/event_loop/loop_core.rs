//! [`LoopCore`]: the core's loop, and where and when it may be used.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use omnipoll::{Conn, ConnId, EngineKind, EventLoop, LoopHandle};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use super::handler::{LoopHandler, Mode};
use super::shared::Shared;
use crate::connection::Home;
use crate::gil_cell::GilCell;
use crate::methods::Methods;
use crate::thread_cell::ThreadCell;

/// Held by the object and by every connection.
pub(super) struct LoopCore {
    pub(super) engine: EngineKind,
    pub(super) shared: Arc<Shared>,
    /// `None` when it is closed.
    handle: GilCell<Option<LoopHandle>>,
    held: ThreadCell<EventLoop<LoopHandler>>,
    /// It was closed in a call of its own.
    is_closing: AtomicBool,
}

impl LoopCore {
    pub(super) fn new(
        py: Python<'_>,
        handler: Option<&Bound<'_, PyAny>>,
        make: impl FnOnce(LoopHandler) -> PyResult<EventLoop<LoopHandler>>,
    ) -> PyResult<Arc<Self>> {
        let default = handler.map(|handler| Methods::new(handler, "a loop")).transpose()?;
        let event_loop = Box::new(make(LoopHandler::new())?);
        let default = handler.cloned().zip(default.map(Arc::new));
        let shared = Arc::new(Shared::new(py, default, event_loop.poller().clone())?);
        let core = Arc::new(Self {
            engine: event_loop.engine(),
            shared: shared.clone(),
            handle: GilCell::new(py, Some(event_loop.handle())),
            held: ThreadCell::new(py, None),
            is_closing: false.into(),
        });
        event_loop.handler().belong_to(shared, core.clone());
        core.held.put_back(py, event_loop);
        Ok(core)
    }

    /// `EPERM` in any other thread than the loop's own.
    pub(super) fn check_thread(&self) -> PyResult<()> {
        match self.held.is_here() {
            true => Ok(()),
            false => Err(PyOSError::new_err((
                libc::EPERM,
                "a loop belongs to the thread that has made it: another has its stop(), broadcast() and \
                 poller.post(), and the write(), close() and post() of its connections",
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
        self.held.take(py).ok_or_else(|| match self.is_closed(py) {
            true => closed(),
            false => PyRuntimeError::new_err("the loop is in a wait of its own: not in its calls"),
        })
    }

    pub(super) fn put_back(&self, py: Python<'_>, event_loop: Box<EventLoop<LoopHandler>>) {
        self.held.put_back(py, event_loop);
        if self.is_closing.load(Ordering::Relaxed) {
            self.close(py, true);
        }
    }

    /// What any thread may reach the core's loop by.
    pub(super) fn handle(&self, py: Python<'_>) -> PyResult<LoopHandle> {
        self.handle.borrow(py).clone().ok_or_else(closed)
    }

    pub(super) fn is_closed(&self, py: Python<'_>) -> bool {
        self.handle.borrow(py).is_none()
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
        if let Some(event_loop) = self.held.take(py) {
            if !calls || event_loop.handler().is_pulled() {
                event_loop.handler().set_mode(Mode::Silent);
            }
            drop(event_loop);
        }
        let handle = self.handle.borrow(py).take();
        drop(handle);
        self.shared.clear(py);
    }
}

impl Home for LoopCore {
    fn event_loop(&self, py: Python<'_>, _id: ConnId) -> PyResult<Py<PyAny>> {
        let gone = || PyOSError::new_err((libc::ESTALE, "the connection's loop is gone"));
        self.shared.object(py).map(Bound::unbind).ok_or_else(gone)
    }

    /// Between two waits, in the loop's own thread.
    fn with_idle(&self, py: Python<'_>, id: ConnId, act: &mut dyn FnMut(&mut Conn<'_>)) {
        self.held.with_idle(py, |event_loop| {
            if let Ok(mut conn) = event_loop.conn(id) {
                act(&mut conn);
            }
        });
    }
}

/// What is said of a loop that was closed.
pub(super) fn closed() -> PyErr {
    PyValueError::new_err("I/O operation on a closed loop")
}
