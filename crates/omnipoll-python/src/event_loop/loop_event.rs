//! The Python class `LoopEvent`.

use std::ops::Range;
use std::sync::Arc;

use omnipoll::{Address, DatagramId, Event, EventKind, LoopEventKind};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3::{PyTraverseError, PyVisit};

use super::pull_buffer::{view_of, PullBuffer};
use super::shared::Shared;
use crate::connection::PyConnection;
use crate::datagram_socket::PyDatagramSocket;
use crate::event;
use crate::finalization::protect_thread;
use crate::gil_cell::GilCell;

/// What Loop.wait() returns: something that has happened. It can't be changed.
#[pyclass(frozen, name = "LoopEvent", module = "omnipoll")]
pub(crate) struct PyLoopEvent {
    happened: Happened,
    content: GilCell<Content>,
}

/// What it is about. What does not belong to its kind is empty.
pub(super) struct Happened {
    pub(super) kind: u32,
    pub(super) token: Py<PyAny>,
    pub(super) connection: Option<Py<PyConnection>>,
    pub(super) error: Option<Py<PyAny>>,
    pub(super) value: i64,
    pub(super) ready: u32,
    pub(super) count: u32,
    pub(super) socket: Option<DatagramId>,
    pub(super) addresses: Option<Box<(Address, Address)>>,
}

/// The bytes of an event.
#[derive(Default)]
pub(super) enum Content {
    #[default]
    None,
    Bytes(Py<PyBytes>),
    /// Until the next wait, and a copy if data was asked for.
    Buffered(Arc<PullBuffer>, Range<usize>, Option<Py<PyBytes>>),
}

impl Drop for PyLoopEvent {
    fn drop(&mut self) {
        protect_thread();
    }
}

impl Happened {
    fn new(py: Python<'_>, kind: u32) -> Self {
        Self {
            kind,
            token: py.None(),
            connection: None,
            error: None,
            value: 0,
            ready: 0,
            count: 1,
            socket: None,
            addresses: None,
        }
    }

    pub(super) fn of_connection(py: Python<'_>, shared: &Shared, kind: LoopEventKind, key: usize) -> Self {
        let connection = shared.members.borrow(py).connection(py, key);
        let token = connection.as_ref().map_or_else(|| py.None(), |connection| connection.get().token(py));
        Self { token, connection, ..Self::new(py, kind as u32) }
    }

    pub(super) fn of_datagram(
        py: Python<'_>,
        shared: &Shared,
        kind: LoopEventKind,
        socket: DatagramId,
        token: u64,
    ) -> Self {
        let (_, token) = shared.listener(py, token);
        Self { token, socket: Some(socket), ..Self::new(py, kind as u32) }
    }
}

/// The report of a loop's own poller.
pub(super) fn make<'py>(
    py: Python<'py>,
    token: Option<Bound<'py, PyAny>>,
    event: &Event,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let event = Happened {
        token: token.map_or_else(|| py.None(), Bound::unbind),
        value: event.value(),
        ready: event.ready().bits(),
        count: event.count(),
        ..Happened::new(py, event.kind() as u32)
    };
    Ok(Some(Bound::new(py, PyLoopEvent::new(py, event, Content::None))?.into_any()))
}

#[pymethods]
impl PyLoopEvent {
    /// ACCEPTED, CONNECTED, DATA, ENDED, DRAINED, CLOSED, STOPPING, CONN_POST, CONN_TIMER, DATAGRAM or
    /// DATAGRAM_ERROR; or IO, TIMER, SIGNAL, CHILD or POST, of the loop's poller.
    #[getter]
    fn kind(&self) -> u32 {
        self.happened.kind
    }

    /// What listen(), connect() or the registration with the loop's poller was given, or was posted.
    #[getter]
    fn token(&self, py: Python<'_>) -> Py<PyAny> {
        self.happened.token.clone_ref(py)
    }

    /// The Connection; None for what is of the poller and of datagrams.
    #[getter]
    fn connection(&self, py: Python<'_>) -> Option<Py<PyConnection>> {
        self.happened.connection.as_ref().map(|connection| connection.clone_ref(py))
    }

    /// CLOSED: why the connection has ended, or never opened, an OSError; None when it ended cleanly.
    /// DATAGRAM_ERROR: why a datagram is lost.
    #[getter]
    fn error(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.happened.error.as_ref().map(|error| error.clone_ref(py))
    }

    /// What Event.value is for the poller's kinds; what was posted for CONN_POST; else 0.
    #[getter]
    fn value(&self) -> i64 {
        self.happened.value
    }

    /// IO: what the descriptor is ready for, READ, WRITE, ... joined by |; else 0.
    #[getter]
    fn ready(&self) -> u32 {
        self.happened.ready
    }

    /// SIGNAL: how often it came; else 1.
    #[getter]
    fn count(&self) -> u32 {
        self.happened.count
    }

    /// The bytes of DATA and DATAGRAM; else b"".
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let (buffer, range) = match &*self.content.borrow(py) {
            Content::None => return PyBytes::new(py, b""),
            Content::Bytes(bytes) | Content::Buffered(_, _, Some(bytes)) => return bytes.bind(py).clone(),
            Content::Buffered(buffer, range, None) => (buffer.clone(), range.clone()),
        };
        let data = buffer.copy(py, range);
        if let Content::Buffered(_, _, copy) = &mut *self.content.borrow(py) {
            *copy = Some(data.clone().unbind());
        }
        data
    }

    /// The same without a copy: a read-only memoryview of the loop's buffer. The loop's next wait releases it
    /// (ValueError afterwards), and raises BufferError while something that was made of it still uses the
    /// bytes: a slice, an array. An event of an earlier wait has a view of its data.
    ///
    /// >>> import omnipoll
    /// >>> with omnipoll.Loop() as loop:
    /// ...     out = loop.connect(loop.listen("127.0.0.1:0"))
    /// ...     _ = out.write(b"hello")
    /// ...     received = bytearray()
    /// ...     while len(received) < 5:
    /// ...         for event in loop.wait():
    /// ...             received += event.view
    /// ...     print(received)
    /// bytearray(b'hello')
    #[getter]
    fn view<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        protect_thread();
        let buffered = match &*self.content.borrow(py) {
            Content::Buffered(buffer, range, _) => Some((buffer.clone(), range.clone())),
            _ => None,
        };
        match buffered {
            Some((buffer, range)) => buffer.view(py, range),
            None => view_of(&self.data(py)),
        }
    }

    /// The DatagramSocket of DATAGRAM and DATAGRAM_ERROR; else None.
    #[getter]
    fn socket(&self) -> Option<PyDatagramSocket> {
        self.happened.socket.map(PyDatagramSocket)
    }

    /// DATAGRAM: the sender, "127.0.0.1:5000"; else None.
    #[getter]
    fn peer(&self) -> Option<String> {
        self.happened.addresses.as_ref().map(|addresses| addresses.0.to_string())
    }

    /// DATAGRAM: the address of this machine that it was sent to; else None.
    #[getter]
    fn local(&self) -> Option<String> {
        self.happened.addresses.as_ref().map(|addresses| addresses.1.to_string())
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        protect_thread();
        let own = event::KINDS.iter().map(|(name, kind)| (*name, *kind as u32));
        let mut names = own.chain(KINDS.iter().map(|(name, kind)| (*name, *kind as u32)));
        let name = names.find(|(_, kind)| *kind == self.happened.kind).map_or("?", |(name, _)| name);
        let mut words = format!("LoopEvent(kind={name}, token={}", self.happened.token.bind(py).repr()?);
        if let Some(connection) = &self.happened.connection {
            words += &format!(", connection={}", connection.bind(py).repr()?);
        }
        if self.content.borrow(py).is_some() {
            words += &format!(", data={}", self.data(py).repr()?);
        }
        if let Some(error) = &self.happened.error {
            words += &format!(", error={}", error.bind(py).repr()?);
        }
        if self.happened.value != 0 {
            words += &format!(", value={}", self.happened.value);
        }
        if self.happened.kind == EventKind::Io as u32 {
            words += &format!(", ready={}", event::names(self.happened.ready));
        }
        Ok(words + ")")
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.happened.token)?;
        visit.call(&self.happened.connection)?;
        visit.call(&self.happened.error)
    }
}

impl PyLoopEvent {
    pub(super) fn new(py: Python<'_>, happened: Happened, content: Content) -> Self {
        Self { happened, content: GilCell::new(py, content) }
    }

    /// Before the buffer is filled again: has a copy from now on.
    pub(super) fn keep(&self, py: Python<'_>) {
        let data = Content::Bytes(self.data(py).unbind());
        let replaced = std::mem::replace(&mut *self.content.borrow(py), data);
        drop(replaced);
    }
}

impl Content {
    fn is_some(&self) -> bool {
        !matches!(self, Self::None)
    }

    pub(super) fn is_buffered(&self) -> bool {
        matches!(self, Self::Buffered(..))
    }
}

/// What an event of a loop is about, besides what a poller's is.
pub(crate) const KINDS: [(&str, LoopEventKind); 11] = [
    ("ACCEPTED", LoopEventKind::Accepted),
    ("CONNECTED", LoopEventKind::Connected),
    ("DATA", LoopEventKind::Data),
    ("ENDED", LoopEventKind::Ended),
    ("DRAINED", LoopEventKind::Drained),
    ("CLOSED", LoopEventKind::Closed),
    ("STOPPING", LoopEventKind::Stopping),
    ("CONN_POST", LoopEventKind::ConnPost),
    ("DATAGRAM", LoopEventKind::Datagram),
    ("DATAGRAM_ERROR", LoopEventKind::DatagramError),
    ("CONN_TIMER", LoopEventKind::ConnTimer),
];
