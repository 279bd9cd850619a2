//! The native base of the selectors: the wait, and the set it waits for. Keys and their map are
//! kept by the Python class on top, `omnipoll/selectors.py`.

use std::ffi::CStr;
use std::os::fd::RawFd;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{intern, PyTraverseError, PyVisit};

use omnipoll::{Event, WaitPolicy};

use crate::convert;
use crate::fastcall::{Argument, Method};
use crate::init_cell::InitCell;
use crate::poller_core::PollerCore;

/// READ, WRITE and PRIORITY.
const DIRECTIONS: u32 = 7;

/// What the selectors have in common; not for use by itself.
#[pyclass(frozen, subclass, weakref, module = "omnipoll._native")]
pub(crate) struct Selector {
    core: InitCell<PollerCore>,
}

#[pymethods]
impl Selector {
    #[new]
    #[pyo3(
        signature = (*_arguments, **_keywords),
        text_signature = "(engine, files_always_ready)"
    )]
    fn new(_arguments: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> Self {
        Self { core: InitCell::new() }
    }

    fn __init__(&self, py: Python<'_>, engine: Option<&str>, files_always_ready: bool) -> PyResult<()> {
        convert::check_greenlets(py)?;
        let core = convert::poller(py, engine, files_always_ready, false, WaitPolicy::Balanced)?;
        self.core.make(PollerCore::new(py, core, None)?)
    }

    /// The name of the engine.
    #[getter]
    fn engine(&self) -> PyResult<&'static str> {
        Ok(self.core.get()?.engine.name())
    }

    /// Rebuilds an inherited selector in a forked child, with all its registrations: until then
    /// its use there is an OSError (EOWNERDEAD). Does nothing in the process that made it.
    fn after_fork(&self, py: Python<'_>) -> PyResult<()> {
        self.core.get()?.call(|core| core.after_fork(py))
    }

    fn _fileno(&self, py: Python<'_>) -> PyResult<RawFd> {
        self.core.get()?.descriptor(py)
    }

    fn _add(&self, py: Python<'_>, fd: RawFd, events: &Bound<'_, PyAny>, key: Py<PyAny>) -> PyResult<()> {
        self.core.get()?.call(|core| core.add(py, fd, convert::interest(events)?, key))
    }

    fn _modify(&self, py: Python<'_>, fd: RawFd, events: &Bound<'_, PyAny>, key: Py<PyAny>) -> PyResult<()> {
        self.core.get()?.call(|core| core.modify(py, fd, convert::interest(events)?, Some(key)))
    }

    fn _rename(&self, py: Python<'_>, fd: RawFd, key: Py<PyAny>) -> PyResult<()> {
        self.core.get()?.rename(py, fd, key);
        Ok(())
    }

    fn _remove(&self, py: Python<'_>, fd: RawFd) -> PyResult<()> {
        self.core.get()?.call(|core| core.remove(py, fd))
    }

    fn _forget(&self, py: Python<'_>, fd: RawFd) -> PyResult<()> {
        self.core.get()?.forget(py, fd);
        Ok(())
    }

    fn _rearm(&self, py: Python<'_>, fd: RawFd, events: &Bound<'_, PyAny>) -> PyResult<()> {
        self.core.get()?.call(|core| core.rearm(py, fd, convert::interest(events)?))
    }

    fn _close(&self, py: Python<'_>) -> PyResult<()> {
        let Some(core) = self.core.get_opt() else { return Ok(()) };
        core.call(|core| {
            core.close(py);
            Ok(())
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.core.get_opt().map_or(Ok(()), |core| core.traverse(&visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        if let Some(core) = self.core.get_opt() {
            core.close(py);
        }
    }
}

impl Method<1> for Selector {
    type Class = Self;
    const METHOD: &'static CStr = c"select";
    const ARGUMENTS: [&'static str; 1] = ["timeout"];
    const DOCUMENTATION: &'static CStr = c"select($self, /, timeout=None)
--

Waits until something is ready and returns a list of (key, events), empty when time was up.

timeout: seconds, with fractions down to a nanosecond; None waits indefinitely, 0 or less looks and
returns. events are those of the key's that the file object is ready for; all of them when it
was closed while registered, which select and poll report once.

Signals and other threads are treated as the standard library's selectors do (PEP 475). Raises
ValueError when the selector is closed, also while it waits, and for a timeout that is no
number; OverflowError for one of more than 292 years.";

    fn call<'py>(this: &Bound<'py, Self>, [timeout]: [Argument<'_, 'py>; 1]) -> PyResult<Bound<'py, PyAny>> {
        let timeout = convert::timeout(timeout)?.duration();
        let list = this.get().core.get()?.call(|core| core.wait(this.py(), timeout, None, make))?;
        list.map(Bound::into_any).ok_or_else(convert::closed)
    }
}

/// `(key, events)`. A condition that is none of the directions asked for (a hang-up, an error,
/// a closed descriptor) is reported as all of them, so that none stays unseen.
fn make<'py>(
    py: Python<'py>,
    key: Option<Bound<'py, PyAny>>,
    event: &Event,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some(key) = key else { return Ok(None) };
    let mut events = event.ready().bits() & DIRECTIONS;
    if events == 0 {
        events = key.getattr(intern!(py, "events"))?.extract::<u32>()? & DIRECTIONS;
    }
    let events = events.into_pyobject(py)?.into_any();
    Ok(Some(PyTuple::new(py, [key, events])?.into_any()))
}
