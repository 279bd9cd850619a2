//! `Tls`: the base of the class of `omnipoll.aio.tls`.

use std::cell::RefMut;
use std::sync::OnceLock;

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::buffer::TlsBuffer;
use super::ends::Ends;
use crate::finalization::protect_thread;
use crate::gil_cell::GilCell;

/// The native half of the protocol between a transport and an application's protocol; not for use by
/// itself.
#[pyclass(frozen, subclass, weakref, module = "omnipoll._native")]
pub(crate) struct Tls {
    /// What is lent its memory, and the ssl module's objects.
    opened: OnceLock<(Py<TlsBuffer>, Ends)>,
    state: GilCell<State>,
}

#[derive(Clone, Copy, Default, PartialEq)]
pub(super) enum Phase {
    /// Messages go both ways.
    Wrapped,
    /// It is about to end: what has arrived is still read.
    Flushing,
    #[default]
    Other,
}

type Object = Option<Py<PyAny>>;

/// Under the names that they have in `asyncio.sslproto`.
#[derive(Default)]
pub(super) struct State {
    /// `_state`.
    name: Object,
    pub(super) phase: Phase,
    /// `_transport`, and its `write`.
    transport: Object,
    pub(super) send: Object,
    /// `_app_protocol`, and its `data_received`, which one of buffers doesn't have.
    protocol: Object,
    pub(super) data_received: Object,
    pub(super) is_buffered: bool,
    pub(super) is_reading_paused: bool,
    pub(super) is_protocol_paused: bool,
    pub(super) is_sending_paused: bool,
    /// How many bytes the application has written that are not encrypted.
    pub(super) unencrypted: usize,
    /// Whether a limit of 0 has reading, or the protocol, paused with nothing buffered.
    pub(super) is_reading_limited: bool,
    pub(super) is_writing_limited: bool,
}

impl Tls {
    #[inline]
    pub(super) fn state<'a>(&'a self, py: Python<'a>) -> RefMut<'a, State> {
        self.state.borrow(py)
    }

    #[inline]
    pub(super) fn opened(&self) -> PyResult<&(Py<TlsBuffer>, Ends)> {
        self.opened.get().ok_or_else(|| PyRuntimeError::new_err("the protocol was not initialized"))
    }

    /// Calls one of the standard library's own methods.
    pub(super) fn call(this: &Bound<'_, Self>, method: &Bound<'_, PyString>) -> PyResult<()> {
        this.call_method0(method).map(drop)
    }

    /// Ends the connection for what was raised, unless that leaves the loop.
    pub(super) fn fail(this: &Bound<'_, Self>, failed: PyErr) -> PyResult<()> {
        let py = this.py();
        this.call_method1(intern!(py, "_failed"), (failed.into_value(py),)).map(drop)
    }
}

fn phase(name: &Bound<'_, PyAny>) -> PyResult<Phase> {
    let name = name.getattr(intern!(name.py(), "name"))?;
    Ok(match name.extract::<String>()?.as_str() {
        "WRAPPED" => Phase::Wrapped,
        "FLUSHING" => Phase::Flushing,
        _ => Phase::Other,
    })
}

/// The object, unless it is None, and a method of it, if it has one.
fn with_method(object: Bound<'_, PyAny>, method: &Bound<'_, PyString>) -> PyResult<(Object, Object)> {
    let method = object.getattr_opt(method)?;
    Ok(((!object.is_none()).then(|| object.unbind()), method.map(Bound::unbind)))
}

fn own(py: Python<'_>, object: &Object) -> Object {
    object.as_ref().map(|object| object.clone_ref(py))
}

#[pymethods]
impl Tls {
    #[new]
    #[pyo3(signature = (*_arguments, **_options))]
    fn new(py: Python<'_>, _arguments: &Bound<'_, PyTuple>, _options: Option<&Bound<'_, PyDict>>) -> Self {
        protect_thread();
        Self { opened: OnceLock::new(), state: GilCell::new(py, State::default()) }
    }

    /// Takes the loop's buffer and the ssl module's objects, once.
    fn _open(
        &self,
        buffer: Py<TlsBuffer>,
        ssl_object: &Bound<'_, PyAny>,
        incoming: &Bound<'_, PyAny>,
        outgoing: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let ends = Ends::new(ssl_object, incoming, outgoing)?;
        let opened = self.opened.set((buffer, ends));
        opened.map_err(|_| PyRuntimeError::new_err("the protocol is initialized already"))
    }

    fn _do_read(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::read(slf)
    }

    #[getter(_state)]
    fn get_state(&self, py: Python<'_>) -> Object {
        own(py, &self.state(py).name)
    }

    #[setter(_state)]
    fn set_state(&self, name: &Bound<'_, PyAny>) -> PyResult<()> {
        let phase = phase(name)?;
        let mut state = self.state(name.py());
        state.phase = phase;
        let before = state.name.replace(name.clone().unbind());
        drop(state);
        drop(before);
        Ok(())
    }

    #[getter(_transport)]
    fn get_transport(&self, py: Python<'_>) -> Object {
        own(py, &self.state(py).transport)
    }

    #[setter(_transport)]
    fn set_transport(&self, transport: Bound<'_, PyAny>) -> PyResult<()> {
        let py = transport.py();
        let (transport, send) = with_method(transport, intern!(py, "write"))?;
        let mut state = self.state(py);
        let before = (state.transport.take(), state.send.take());
        (state.transport, state.send) = (transport, send);
        drop(state);
        drop(before);
        Ok(())
    }

    #[getter(_app_protocol)]
    fn get_app_protocol(&self, py: Python<'_>) -> Object {
        own(py, &self.state(py).protocol)
    }

    #[setter(_app_protocol)]
    fn set_app_protocol(&self, protocol: Bound<'_, PyAny>) -> PyResult<()> {
        let py = protocol.py();
        let (protocol, data_received) = with_method(protocol, intern!(py, "data_received"))?;
        let mut state = self.state(py);
        let before = (state.protocol.take(), state.data_received.take());
        (state.protocol, state.data_received) = (protocol, data_received);
        drop(state);
        drop(before);
        Ok(())
    }

    #[getter(_app_protocol_is_buffer)]
    fn is_buffered(&self, py: Python<'_>) -> bool {
        self.state(py).is_buffered
    }

    #[setter(_app_protocol_is_buffer)]
    fn set_buffered(&self, py: Python<'_>, is_buffered: bool) {
        self.state(py).is_buffered = is_buffered;
    }

    #[getter(_app_reading_paused)]
    fn is_reading_paused(&self, py: Python<'_>) -> bool {
        self.state(py).is_reading_paused
    }

    #[setter(_app_reading_paused)]
    fn set_reading_paused(&self, py: Python<'_>, is_paused: bool) {
        self.state(py).is_reading_paused = is_paused;
    }

    #[getter(_app_writing_paused)]
    fn is_protocol_paused(&self, py: Python<'_>) -> bool {
        self.state(py).is_protocol_paused
    }

    #[setter(_app_writing_paused)]
    fn set_protocol_paused(&self, py: Python<'_>, is_paused: bool) {
        self.state(py).is_protocol_paused = is_paused;
    }

    #[getter(_ssl_writing_paused)]
    fn is_sending_paused(&self, py: Python<'_>) -> bool {
        self.state(py).is_sending_paused
    }

    #[setter(_ssl_writing_paused)]
    fn set_sending_paused(&self, py: Python<'_>, is_paused: bool) {
        self.state(py).is_sending_paused = is_paused;
    }

    #[getter(_write_buffer_size)]
    fn unencrypted(&self, py: Python<'_>) -> usize {
        self.state(py).unencrypted
    }

    #[setter(_write_buffer_size)]
    fn set_unencrypted(&self, py: Python<'_>, bytes: usize) {
        self.state(py).unencrypted = bytes;
    }

    #[setter(_is_reading_limited)]
    fn set_reading_limited(&self, py: Python<'_>, is_limited: bool) {
        self.state(py).is_reading_limited = is_limited;
    }

    #[setter(_is_writing_limited)]
    fn set_writing_limited(&self, py: Python<'_>, is_limited: bool) {
        self.state(py).is_writing_limited = is_limited;
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some((buffer, ends)) = self.opened.get() {
            visit.call(buffer)?;
            ends.traverse(&visit)?;
        }
        let Some(state) = self.state.visit(&visit) else { return Ok(()) };
        for object in [&state.name, &state.transport, &state.send, &state.protocol, &state.data_received] {
            visit.call(object)?;
        }
        Ok(())
    }

    fn __clear__(&self, py: Python<'_>) {
        let state = std::mem::take(&mut *self.state(py));
        drop(state);
    }
}
