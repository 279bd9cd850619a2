//! The Python class `Event`.

use omnipoll::{Event, EventKind};
use pyo3::prelude::*;
use pyo3::types::PyInt;
use pyo3::{PyTraverseError, PyVisit};

use crate::finalization::protect_thread;

/// One event of a wait. It can't be changed, and while a descriptor's readiness stays the same
/// the same object is handed out again and again.
// Python objects throughout: reading one is then a load, without a call.
#[pyclass(frozen, name = "Event", module = "omnipoll")]
pub(crate) struct PyEvent {
    /// The token given at registration, or posted; None for a WAKE event.
    #[pyo3(get)]
    token: Py<PyAny>,
    /// IO: the descriptor. TIMER: how many of its periods have passed. SIGNAL: the signal's
    /// number. CHILD: the status os.wait() has, of which os.waitstatus_to_exitcode() makes an
    /// exit code; -1 when the child was reaped elsewhere, which leaves it unknown. WAKE:
    /// how many calls of wake() this event stands for. POST: the value posted.
    #[pyo3(get)]
    value: Py<PyInt>,
    /// What the descriptor is ready for: READ, WRITE, ... joined by |. 0 unless the kind is IO.
    #[pyo3(get)]
    ready: Py<PyInt>,
    /// IO, TIMER, SIGNAL, CHILD, WAKE or POST.
    #[pyo3(get)]
    kind: Py<PyInt>,
    /// How often the signal came, of which there is one event; 1 unless the kind is SIGNAL.
    #[pyo3(get)]
    count: u32,
}

impl Drop for PyEvent {
    fn drop(&mut self) {
        protect_thread();
    }
}

/// The report of a Poller.
pub(crate) fn make<'py>(
    py: Python<'py>,
    token: Option<Bound<'py, PyAny>>,
    event: &Event,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let event = PyEvent {
        token: token.map_or_else(|| py.None(), Bound::unbind),
        value: event.value().into_pyobject(py)?.unbind(),
        ready: event.ready().bits().into_pyobject(py)?.unbind(),
        kind: (event.kind() as u32).into_pyobject(py)?.unbind(),
        count: event.count(),
    };
    Ok(Some(Bound::new(py, event)?.into_any()))
}

#[pymethods]
impl PyEvent {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        protect_thread();
        let (kind, value) = (self.kind.extract::<u32>(py)?, self.value.bind(py));
        let name = KINDS.iter().find(|(_, number)| *number as u32 == kind).map_or("?", |(name, _)| name);
        if kind == EventKind::Wake as u32 {
            return Ok(format!("Event(kind={name}, value={value})"));
        }
        let more = match kind {
            kind if kind == EventKind::Io as u32 => format!(", ready={}", names(self.ready.extract(py)?)),
            kind if kind == EventKind::Signal as u32 => format!(", count={}", self.count),
            _ => String::new(),
        };
        let token = self.token.bind(py).repr()?;
        Ok(format!("Event(kind={name}, token={token}, value={value}{more})"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.token)
    }
}

/// What an event is about.
pub(crate) const KINDS: [(&str, EventKind); 6] = [
    ("IO", EventKind::Io),
    ("TIMER", EventKind::Timer),
    ("SIGNAL", EventKind::Signal),
    ("CHILD", EventKind::Child),
    ("WAKE", EventKind::Wake),
    ("POST", EventKind::Post),
];

/// The flags of an interest and of what is ready, as in the C API.
pub(crate) const FLAGS: [(&str, u32); 10] = [
    ("READ", 1),
    ("WRITE", 2),
    ("PRIORITY", 4),
    ("READ_CLOSED", 8),
    ("HANGUP", 16),
    ("ERROR", 32),
    ("INVALID", 64),
    ("EDGE", 0x100),
    ("ONESHOT", 0x200),
    ("EXCLUSIVE", 0x400),
];

pub(crate) fn names(bits: u32) -> String {
    let set = FLAGS.iter().filter(|(_, bit)| bits & bit != 0).map(|(name, _)| *name);
    set.collect::<Vec<_>>().join("|")
}
