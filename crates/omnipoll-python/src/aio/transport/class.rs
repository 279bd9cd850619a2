//! `Transport`: what transports of streams and of datagrams have in common.

use std::cell::RefMut;
use std::os::fd::RawFd;

use omnipoll::{Interest, Ready};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use pyo3::{PyTraverseError, PyVisit};

use super::calls::Calls;
use super::flow::Flow;
use super::write_queue::WriteQueue;
use crate::aio::accepted::{Accepted, AcceptedSocket};
use crate::aio::context::{self, copy_current};
use crate::aio::loop_class::{AsyncioLoop, Watch, Watched};
use crate::aio::watched::{self, Key};
use crate::convert::{descriptor, reason};
use crate::finalization::protect_thread;
use crate::gil_cell::GilCell;

/// The native half of a transport; not for use by itself.
#[pyclass(frozen, subclass, weakref, module = "omnipoll._native")]
pub(crate) struct Transport {
    pub(super) fd: RawFd,
    is_datagram: bool,
    state: GilCell<State>,
}

pub(super) struct State {
    /// `None` once the connection is lost, as are the next two.
    pub(super) owner: Option<Py<AsyncioLoop>>,
    pub(super) sock: Option<Py<PyAny>>,
    /// What `sock` is made of when it is asked for, and `extra`.
    pub(super) accepted: Option<Box<Accepted>>,
    pub(super) protocol: Option<Py<PyAny>>,
    pub(super) server: Option<Py<PyAny>>,
    pub(super) extra: Option<Py<PyDict>>,
    pub(super) calls: Calls,
    /// In which the protocol is called.
    pub(super) context: Option<Py<PyAny>>,
    watched: Option<(Key, Interest)>,
    /// It is read as soon as it is readable.
    pub(super) reads: bool,
    is_paused: bool,
    pub(super) is_closing: bool,
    /// Not 0 once connection_lost() is due; then it counts writes.
    pub(super) lost: usize,
    pub(super) queue: WriteQueue,
    pub(super) flow: Flow,
    pub(super) is_eof_written: bool,
    /// Waits for the queue to be empty.
    pub(super) empty_waiter: Option<Py<PyAny>>,
    /// Of datagrams: the only address that is sent to, and whether the socket knows it.
    pub(super) address: Option<Py<PyAny>>,
    pub(super) is_connected: bool,
}

impl State {
    /// Until the connection is lost.
    pub(super) fn is_open(&self) -> bool {
        self.sock.is_some() || self.accepted.as_ref().is_some_and(|accepted| accepted.is_open())
    }

    fn interest(&self) -> Interest {
        let reading = if self.reads { Interest::READ } else { Interest::NONE };
        let is_writing = self.lost == 0 && !self.queue.is_empty();
        if is_writing {
            reading | Interest::WRITE
        } else {
            reading
        }
    }
}

impl Transport {
    pub(super) fn new(
        owner: &Bound<'_, AsyncioLoop>,
        sock: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        extra: Option<&Bound<'_, PyDict>>,
        is_datagram: bool,
    ) -> PyResult<Self> {
        protect_thread();
        let py = owner.py();
        let accepted = match sock.cast_exact::<AcceptedSocket>() {
            Ok(accepted) => Some(accepted.get().take(py)?),
            Err(_) => None,
        };
        let fd = match accepted.as_ref().and_then(|accepted| accepted.parts().1) {
            Some(fd) => fd,
            None => descriptor(sock)?,
        };
        let state = State {
            owner: Some(owner.clone().unbind()),
            sock: accepted.is_none().then(|| sock.clone().unbind()),
            accepted,
            protocol: Some(protocol.clone().unbind()),
            server: None,
            extra: extra.map(|extra| extra.clone().unbind()),
            calls: Calls::new(protocol, is_datagram)?,
            context: Some(copy_current(py)?),
            watched: None,
            reads: false,
            is_paused: false,
            is_closing: false,
            lost: 0,
            queue: WriteQueue::default(),
            flow: Flow::default(),
            is_eof_written: false,
            empty_waiter: None,
            address: None,
            is_connected: false,
        };
        Ok(Self { fd, is_datagram, state: GilCell::new(py, state) })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd
    }

    #[inline]
    pub(super) fn state<'a>(&'a self, py: Python<'a>) -> RefMut<'a, State> {
        self.state.borrow(py)
    }

    pub(super) fn owner<'py>(&self, py: Python<'py>) -> Option<Bound<'py, AsyncioLoop>> {
        self.state(py).owner.as_ref().map(|owner| owner.bind(py).clone())
    }

    /// None when the connection is lost.
    pub(super) fn protocol<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        let state = self.state(py);
        state.protocol.as_ref().map_or_else(|| py.None().into_bound(py), |protocol| protocol.bind(py).clone())
    }

    pub(super) fn owner_and_protocol<'py>(
        &self,
        py: Python<'py>,
    ) -> Option<(Bound<'py, AsyncioLoop>, Bound<'py, PyAny>)> {
        Some((self.owner(py)?, self.protocol(py)))
    }

    /// The loop watches the socket for what is wanted now. For nothing it isn't watched at all, so that
    /// others may watch it: sendfile does. A socket that can't be watched is lost: it would wait in vain.
    pub(super) fn watch(this: &Bound<'_, Self>) -> PyResult<()> {
        let (py, transport) = (this.py(), this.get());
        let mut state = transport.state(py);
        let interest = state.interest();
        let State { owner: Some(owner), watched, .. } = &mut *state else { return Ok(()) };
        let owner = owner.get();
        if owner.is_closed() {
            return Ok(());
        }
        let (mut ended, before) = (None, *watched);
        let changed = match before {
            None if interest.is_empty() => Ok(None),
            None => {
                let transport = Watched::new(this);
                owner.watch(py, this.get().fd, interest, transport).map(|key| Some((key, interest)))
            }
            Some((_, before)) if before == interest => Ok(*watched),
            Some((key, _)) if interest.is_empty() => {
                ended = owner.unwatch(py, key);
                Ok(None)
            }
            Some((key, _)) => owner.set_interest(py, key, interest).map(|()| Some((key, interest))),
        };
        let failed = changed.map(|now| *watched = now).err();
        drop(state);
        drop(ended);
        match failed {
            None => Ok(()),
            Some(failed) => {
                Self::fatal_error(this, reason(&failed), "Fatal error: the socket can't be watched")
            }
        }
    }

    #[inline]
    fn transfer(this: &Bound<'_, Self>, can_read: bool, can_write: bool) -> PyResult<()> {
        let (py, transport) = (this.py(), this.get());
        if can_read && transport.state(py).reads {
            Self::read(this)?;
        }
        if can_write && !transport.state(py).queue.is_empty() {
            if transport.is_datagram {
                Self::flush_datagrams(this)?;
            } else {
                Self::flush(this)?;
            }
        }
        Ok(())
    }

    /// What follows connection_made().
    pub(crate) fn start_reading(this: &Bound<'_, Self>) -> PyResult<()> {
        let mut state = this.get().state(this.py());
        if state.is_closing || state.is_paused {
            return Ok(());
        }
        state.reads = true;
        drop(state);
        Self::watch(this)
    }

    /// In debug mode, a line of the log.
    pub(super) fn log(this: &Bound<'_, Self>, words: &str) -> PyResult<()> {
        let py = this.py();
        match this.get().owner(py) {
            Some(owner) if owner.get().is_debug() => py
                .import(intern!(py, "omnipoll.aio.transports"))?
                .call_method1(intern!(py, "log"), (this, words))
                .map(drop),
            _ => Ok(()),
        }
    }
}

impl Watch for Transport {
    /// In the transport's own context.
    #[inline]
    fn ready(this: &Bound<'_, Self>, owner: &Bound<'_, AsyncioLoop>, _: Key, ready: Ready) -> PyResult<()> {
        let py = this.py();
        let context = this.get().state(py).context.as_ref().map(|context| context.clone_ref(py));
        let Some(context) = context else { return Ok(()) };
        let is_closed = ready.contains(Ready::INVALID);
        let can_read = is_closed || watched::is_readable(ready);
        let can_write = is_closed || watched::is_writable(ready);
        let done = match context::within(py, &context, || Self::transfer(this, can_read, can_write)) {
            Some(done) => done,
            None => {
                let method = this.getattr(intern!(py, "_ready"))?;
                let context = context.bind(py);
                context.call_method1(intern!(py, "run"), (method, can_read, can_write)).map(drop)
            }
        };
        context.drop_ref(py);
        match done {
            Ok(()) => Ok(()),
            Err(failed) => {
                let message = format!("Exception in callback {}._ready()", this.get_type().name()?);
                AsyncioLoop::exception(owner, &message, failed, &[("transport", this.as_any())])
            }
        }
    }
}

#[pymethods]
impl Transport {
    /// Returns what is known by a name, such as `peername`, `sockname` and `socket`.
    #[pyo3(signature = (name, default=None))]
    fn get_extra_info<'py>(
        slf: &Bound<'py, Self>,
        name: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(Self::extra_info(slf, name)?.or(default))
    }

    /// Has another protocol called from now on.
    fn set_protocol(&self, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        let calls = Calls::new(protocol, self.is_datagram)?;
        let mut state = self.state(protocol.py());
        let before =
            (state.protocol.replace(protocol.clone().unbind()), std::mem::replace(&mut state.calls, calls));
        drop(state);
        drop(before);
        Ok(())
    }

    /// Returns the protocol.
    fn get_protocol<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.protocol(py)
    }

    /// Whether it is closing, or closed.
    fn is_closing(&self, py: Python<'_>) -> bool {
        self.state(py).is_closing
    }

    /// Whether it may call the protocol with what arrives.
    fn is_reading(&self, py: Python<'_>) -> bool {
        let state = self.state(py);
        !state.is_closing && !state.is_paused
    }

    /// Leaves what arrives in the socket until resume_reading().
    fn pause_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        let mut state = slf.get().state(slf.py());
        if state.is_closing || state.is_paused {
            return Ok(());
        }
        (state.is_paused, state.reads) = (true, false);
        drop(state);
        Self::watch(slf)?;
        Self::log(slf, "pauses reading")
    }

    /// Undoes pause_reading().
    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        let mut state = slf.get().state(slf.py());
        if state.is_closing || !state.is_paused {
            return Ok(());
        }
        (state.is_paused, state.reads) = (false, true);
        drop(state);
        Self::watch(slf)?;
        Self::log(slf, "resumes reading")
    }

    fn _ready(slf: &Bound<'_, Self>, can_read: bool, can_write: bool) -> PyResult<()> {
        Self::transfer(slf, can_read, can_write)
    }

    fn _start_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::start_reading(slf)
    }

    /// Sets how many bytes may wait to be sent before the protocol is paused, and at how many it resumes.
    #[pyo3(signature = (high=None, low=None))]
    fn set_write_buffer_limits(slf: &Bound<'_, Self>, high: Option<i64>, low: Option<i64>) -> PyResult<()> {
        slf.get().state(slf.py()).flow.set_limits(high, low)?;
        Self::pause_protocol_if_due(slf)
    }

    /// Returns these limits as `(low, high)`.
    fn get_write_buffer_limits(&self, py: Python<'_>) -> (usize, usize) {
        self.state(py).flow.limits()
    }

    /// Returns how many bytes wait to be sent.
    fn get_write_buffer_size(&self, py: Python<'_>) -> usize {
        self.state(py).queue.size()
    }

    /// Sends what waits, then closes.
    #[pyo3(name = "close")]
    fn close_method(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::close(slf)
    }

    /// Closes at once; what waits is dropped.
    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::force_close(slf, slf.py().None())
    }

    fn _force_close(slf: &Bound<'_, Self>, exc: Py<PyAny>) -> PyResult<()> {
        Self::force_close(slf, exc)
    }

    #[pyo3(signature = (exc, message="Fatal error on transport"))]
    fn _fatal_error(slf: &Bound<'_, Self>, exc: &Bound<'_, PyAny>, message: &str) -> PyResult<()> {
        Self::fatal_error(slf, PyErr::from_value(exc.clone()), message)
    }

    fn _call_connection_lost(slf: &Bound<'_, Self>, exc: Py<PyAny>) -> PyResult<()> {
        Self::lose_connection(slf, exc)
    }

    /// What `isinstance()` believes in: a native class can't have a base of Python's.
    #[getter(__class__)]
    fn class<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get_type().getattr(intern!(slf.py(), "_asyncio_class"))
    }

    /// Warns when it was never closed, and closes it.
    fn _collect(slf: &Bound<'_, Self>) -> PyResult<()> {
        static COLLECT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = slf.py();
        let is_open = slf.get().state(py).is_open();
        match is_open {
            true => COLLECT.import(py, "omnipoll.aio.transports", "collect")?.call1((slf,)).map(drop),
            false => Ok(()),
        }
    }

    #[getter]
    fn _extra<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyDict>>> {
        Self::all_extra_info(slf)
    }

    #[getter]
    fn _sock<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Self::socket(slf)
    }

    #[getter]
    fn _sock_fd(&self) -> RawFd {
        self.fd
    }

    #[getter]
    fn _loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, AsyncioLoop>> {
        self.owner(py)
    }

    #[getter]
    fn _protocol<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.protocol(py)
    }

    #[getter]
    fn _server(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state(py).server.as_ref().map(|server| server.clone_ref(py))
    }

    #[setter(_server)]
    fn set_server(&self, py: Python<'_>, server: Option<Py<PyAny>>) {
        let before = std::mem::replace(&mut self.state(py).server, server);
        drop(before);
    }

    #[getter]
    fn _closing(&self, py: Python<'_>) -> bool {
        self.state(py).is_closing
    }

    #[getter]
    fn _conn_lost(&self, py: Python<'_>) -> usize {
        self.state(py).lost
    }

    #[getter]
    fn _paused(&self, py: Python<'_>) -> bool {
        self.state(py).is_paused
    }

    #[getter]
    fn _protocol_paused(&self, py: Python<'_>) -> bool {
        self.state(py).flow.is_paused
    }

    /// Whether it waits to read, and whether to write.
    #[getter]
    fn _waits(&self, py: Python<'_>) -> (bool, bool) {
        let interest = self.state(py).interest();
        (interest.is_readable(), interest.is_writable())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(state) = self.state.visit(&visit) else { return Ok(()) };
        for object in [&state.sock, &state.protocol, &state.server, &state.context, &state.empty_waiter] {
            visit.call(object)?;
        }
        visit.call(&state.owner)?;
        visit.call(&state.extra)?;
        visit.call(&state.address)?;
        state.calls.traverse(&visit)?;
        state.queue.traverse(&visit)
    }

    fn __clear__(&self, py: Python<'_>) {
        let mut state = self.state(py);
        let objects = (state.sock.take(), state.protocol.take(), state.server.take(), state.context.take());
        let others =
            (state.empty_waiter.take(), state.owner.take(), state.extra.take(), state.address.take());
        let calls = std::mem::replace(&mut state.calls, Calls::none());
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        drop((objects, others, calls, queue));
    }
}
