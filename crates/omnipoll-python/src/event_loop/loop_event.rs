//! The Python class `LoopEvent`.

use omnipoll::{Address, DatagramId, Event, EventKind, LoopEventKind};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3::{PyTraverseError, PyVisit};

use super::shared::Shared;
use crate::connection::PyConnection;
use crate::datagram_socket::PyDatagramSocket;
use crate::event;
use crate::finalization::protect_thread;

/// What Loop.wait() returns: something that has happened. It can't be changed.
#[pyclass(frozen, name = "LoopEvent", module = "omnipoll")]
pub(crate) struct PyLoopEvent(pub(super) Happened);

/// What it is about. What does not belong to its kind is empty.
pub(super) struct Happened {
    pub(super) kind: u32,
    pub(super) token: Py<PyAny>,
    pub(super) connection: Option<Py<PyConnection>>,
    pub(super) data: Option<Py<PyBytes>>,
    pub(super) error: Option<Py<PyAny>>,
    pub(super) value: i64,
    pub(super) ready: u32,
    pub(super) count: u32,
    pub(super) socket: Option<DatagramId>,
    pub(super) addresses: Option<Box<(Address, Address)>>,
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
            data: None,
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
    Ok(Some(Bound::new(py, PyLoopEvent(event))?.into_any()))
}

#[pymethods]
impl PyLoopEvent {
    /// ACCEPTED, CONNECTED, DATA, ENDED, DRAINED, CLOSED, STOPPING, CONN_POST, CONN_TIMER, DATAGRAM or
    /// DATAGRAM_ERROR; or IO, TIMER, SIGNAL, CHILD or POST, of the loop's poller.
    #[getter]
    fn kind(&self) -> u32 {
        self.0.kind
    }

    /// What listen(), connect() or the registration with the loop's poller was given, or was posted.
    #[getter]
    fn token(&self, py: Python<'_>) -> Py<PyAny> {
        self.0.token.clone_ref(py)
    }

    /// The Connection; None for what is of the poller and of datagrams.
    #[getter]
    fn connection(&self, py: Python<'_>) -> Option<Py<PyConnection>> {
        self.0.connection.as_ref().map(|connection| connection.clone_ref(py))
    }

    /// CLOSED: why the connection has ended, or never opened, an OSError; None when it ended in order.
    /// DATAGRAM_ERROR: why a datagram is lost.
    #[getter]
    fn error(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.0.error.as_ref().map(|error| error.clone_ref(py))
    }

    /// What Event.value is for the poller's kinds; what was posted for CONN_POST; else 0.
    #[getter]
    fn value(&self) -> i64 {
        self.0.value
    }

    /// IO: what the descriptor is ready for, READ, WRITE, ... joined by |; else 0.
    #[getter]
    fn ready(&self) -> u32 {
        self.0.ready
    }

    /// SIGNAL: how often it came; else 1.
    #[getter]
    fn count(&self) -> u32 {
        self.0.count
    }

    /// The bytes of DATA and DATAGRAM; else b"".
    #[getter]
    fn data(&self, py: Python<'_>) -> Py<PyBytes> {
        match &self.0.data {
            Some(data) => data.clone_ref(py),
            None => PyBytes::new(py, b"").unbind(),
        }
    }

    /// The DatagramSocket of DATAGRAM and DATAGRAM_ERROR; else None.
    #[getter]
    fn socket(&self) -> Option<PyDatagramSocket> {
        self.0.socket.map(PyDatagramSocket)
    }

    /// DATAGRAM: the sender, "127.0.0.1:5000"; else None.
    #[getter]
    fn peer(&self) -> Option<String> {
        self.0.addresses.as_ref().map(|addresses| addresses.0.to_string())
    }

    /// DATAGRAM: the address of this machine that it was sent to; else None.
    #[getter]
    fn local(&self) -> Option<String> {
        self.0.addresses.as_ref().map(|addresses| addresses.1.to_string())
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        protect_thread();
        let own = event::KINDS.iter().map(|(name, kind)| (*name, *kind as u32));
        let mut names = own.chain(KINDS.iter().map(|(name, kind)| (*name, *kind as u32)));
        let name = names.find(|(_, kind)| *kind == self.0.kind).map_or("?", |(name, _)| name);
        let mut words = format!("LoopEvent(kind={name}, token={}", self.0.token.bind(py).repr()?);
        if let Some(connection) = &self.0.connection {
            words += &format!(", connection={}", connection.bind(py).repr()?);
        }
        if let Some(data) = &self.0.data {
            words += &format!(", data={}", data.bind(py).repr()?);
        }
        if let Some(error) = &self.0.error {
            words += &format!(", error={}", error.bind(py).repr()?);
        }
        if self.0.value != 0 {
            words += &format!(", value={}", self.0.value);
        }
        if self.0.kind == EventKind::Io as u32 {
            words += &format!(", ready={}", event::names(self.0.ready));
        }
        Ok(words + ")")
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0.token)?;
        visit.call(&self.0.connection)?;
        visit.call(&self.0.error)
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
