//! `StreamCoroutine`: what the calls of readers and writers return, to be awaited.
//!
//! It is what a coroutine of Python's is to whatever awaits it: nothing is done before it is first
//! resumed, it can be cancelled by an exception, and it is used once.

use std::ffi::CStr;

use pyo3::exceptions::{
    PyGeneratorExit, PyRuntimeError, PyRuntimeWarning, PyStopIteration, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit};

use super::reading::Reading;
use super::step::{Sent, Step};
use super::writing::Drain;
use crate::finalization::protect_thread;
use crate::gil_cell::GilCell;

/// What a call of a stream's reader or writer returns, to be awaited.
#[pyclass(frozen, weakref, module = "omnipoll._native")]
pub(super) struct StreamCoroutine {
    state: GilCell<State>,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Created,
    Suspended,
    Running,
    Closed,
}

struct State {
    phase: Phase,
    /// `None` while it runs, and once it is closed.
    operation: Option<Operation>,
}

pub(super) enum Operation {
    Read(Reading),
    Drain(Drain),
}

impl Operation {
    fn resume<'py>(&mut self, py: Python<'py>, sent: Sent) -> PyResult<Step<'py>> {
        match self {
            Self::Read(reading) => reading.resume(py, sent),
            Self::Drain(drain) => drain.resume(py, sent),
        }
    }

    fn name(&self) -> &'static CStr {
        match self {
            Self::Read(reading) => reading.name(),
            Self::Drain(_) => c"StreamWriter.drain",
        }
    }

    fn awaited<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        match self {
            Self::Read(reading) => reading.awaited(py),
            Self::Drain(drain) => drain.awaited(py),
        }
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Read(reading) => reading.traverse(visit),
            Self::Drain(drain) => drain.traverse(visit),
        }
    }
}

impl StreamCoroutine {
    #[inline]
    pub(super) fn make(py: Python<'_>, operation: Operation) -> PyResult<Bound<'_, PyAny>> {
        let state = State { phase: Phase::Created, operation: Some(operation) };
        Bound::new(py, Self { state: GilCell::new(py, state) }).map(Bound::into_any)
    }

    #[inline]
    fn resume<'py>(&self, py: Python<'py>, sent: Sent) -> PyResult<Step<'py>> {
        protect_thread();
        let mut state = self.state.borrow(py);
        let sent = match (state.phase, sent) {
            (Phase::Running, _) => return Err(PyValueError::new_err("coroutine already executing")),
            (Phase::Created, Sent::Exception(exception)) => {
                state.phase = Phase::Closed;
                let operation = state.operation.take();
                drop(state);
                drop(operation);
                return Err(exception);
            }
            (Phase::Created, _) => Sent::Start,
            (_, sent) => sent,
        };
        let Some(mut operation) = state.operation.take() else {
            return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine"));
        };
        state.phase = Phase::Running;
        drop(state);
        let step = operation.resume(py, sent);
        let mut state = self.state.borrow(py);
        if let Ok(Step::Yield(_)) = step {
            (state.phase, state.operation) = (Phase::Suspended, Some(operation));
            return step;
        }
        state.phase = Phase::Closed;
        drop(state);
        drop(operation);
        step.map_err(|failed| as_raised(py, failed))
    }

    #[inline]
    fn finish(step: Step<'_>) -> PyResult<Bound<'_, PyAny>> {
        match step {
            Step::Yield(awaited) => Ok(awaited),
            Step::Return(value) => Err(PyStopIteration::new_err(value.unbind())),
        }
    }
}

/// The exception that means a coroutine's return can't be one that it raises.
fn as_raised(py: Python<'_>, failed: PyErr) -> PyErr {
    if !failed.is_instance_of::<PyStopIteration>(py) {
        return failed;
    }
    let raised = PyRuntimeError::new_err("coroutine raised StopIteration");
    raised.set_cause(py, Some(failed));
    raised
}

/// What `throw()` is given: an exception, or a class and what to call it with.
fn exception(
    kind: &Bound<'_, PyAny>,
    value: Option<&Bound<'_, PyAny>>,
    traceback: Option<&Bound<'_, PyAny>>,
) -> PyResult<PyErr> {
    let exception = match (kind.cast::<PyType>(), value) {
        (Err(_), _) | (_, None) => PyErr::from_value(kind.clone()),
        (Ok(class), Some(value)) if value.is_instance(class)? => PyErr::from_value(value.clone()),
        (Ok(class), Some(value)) => match value.cast::<PyTuple>() {
            Ok(values) => PyErr::from_value(class.call1(values)?),
            Err(_) => PyErr::from_value(class.call1((value,))?),
        },
    };
    if let Some(traceback) = traceback {
        let value = exception.value(kind.py());
        value.setattr(pyo3::intern!(kind.py(), "__traceback__"), traceback)?;
    }
    Ok(exception)
}

#[pymethods]
impl StreamCoroutine {
    fn __await__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        match slf.get().state.borrow(slf.py()).phase {
            Phase::Suspended => Err(PyRuntimeError::new_err("coroutine is being awaited already")),
            _ => Ok(slf.clone()),
        }
    }

    fn __iter__<'py>(slf: &Bound<'py, Self>) -> Bound<'py, Self> {
        slf.clone()
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.resume(py, Sent::Value)? {
            // To return None takes no exception.
            Step::Return(value) if value.is_none() => Ok(None),
            step => Self::finish(step).map(Some),
        }
    }

    /// Goes on; what is sent is not looked at.
    fn send<'py>(&self, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if !value.is_none() && self.state.borrow(py).phase == Phase::Created {
            return Err(PyTypeError::new_err("can't send non-None value to a just-started coroutine"));
        }
        self.resume(py, Sent::Value).and_then(Self::finish)
    }

    /// Raises an exception where it waits.
    #[pyo3(signature = (typ, val=None, tb=None))]
    fn throw<'py>(
        &self,
        py: Python<'py>,
        typ: &Bound<'py, PyAny>,
        val: Option<&Bound<'py, PyAny>>,
        tb: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let exception = exception(typ, val, tb)?;
        self.resume(py, Sent::Exception(exception)).and_then(Self::finish)
    }

    /// Ends it, where it waits or before it has begun.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.state.borrow(py).phase == Phase::Closed {
            return Ok(());
        }
        match self.resume(py, Sent::Exception(PyGeneratorExit::new_err(()))) {
            Ok(Step::Yield(_)) => Err(PyRuntimeError::new_err("coroutine ignored GeneratorExit")),
            Ok(Step::Return(_)) => Ok(()),
            Err(failed) if failed.is_instance_of::<PyGeneratorExit>(py) => Ok(()),
            Err(failed) => Err(failed),
        }
    }

    /// What `isinstance()` and with it `inspect.iscoroutine()` believe in.
    #[getter(__class__)]
    fn class(slf: &Bound<'_, Self>) -> PyResult<Py<PyType>> {
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        CLASS.import(slf.py(), "types", "CoroutineType").map(|class| class.clone().unbind())
    }

    #[getter]
    fn __name__(&self, py: Python<'_>) -> String {
        let name = self.__qualname__(py);
        name.split('.').next_back().unwrap_or_default().to_owned()
    }

    #[getter]
    fn __qualname__(&self, py: Python<'_>) -> String {
        let state = self.state.borrow(py);
        let name = state.operation.as_ref().map_or(c"StreamCoroutine", Operation::name);
        name.to_string_lossy().into_owned()
    }

    #[getter]
    fn cr_running(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).phase == Phase::Running
    }

    #[getter]
    fn cr_suspended(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).phase == Phase::Suspended
    }

    #[getter]
    fn cr_await<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.state.borrow(py).operation.as_ref()?.awaited(py)
    }

    /// None: it is no frame of Python's.
    #[getter]
    fn cr_frame(&self) -> Option<Py<PyAny>> {
        None
    }

    #[getter]
    fn cr_code(&self) -> Option<Py<PyAny>> {
        None
    }

    #[getter]
    fn cr_origin(&self) -> Option<Py<PyAny>> {
        None
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.state.visit(&visit).as_ref().and_then(|state| state.operation.as_ref()) {
            Some(operation) => operation.traverse(&visit),
            None => Ok(()),
        }
    }

    fn __clear__(&self, py: Python<'_>) {
        let mut state = self.state.borrow(py);
        state.phase = Phase::Closed;
        let operation = state.operation.take();
        drop(state);
        drop(operation);
    }
}

/// Warns of one that was never awaited, as Python does.
impl Drop for StreamCoroutine {
    fn drop(&mut self) {
        Python::attach(|py| {
            let state = self.state.borrow(py);
            let (Phase::Created, Some(operation)) = (state.phase, &state.operation) else { return };
            let name = operation.name();
            drop(state);
            warn_never_awaited(py, name);
        });
    }
}

#[cold]
fn warn_never_awaited(py: Python<'_>, name: &CStr) {
    let raised = PyErr::take(py);
    let text = format!("coroutine '{}' was never awaited\0", name.to_string_lossy());
    if let Ok(text) = CStr::from_bytes_with_nul(text.as_bytes()) {
        if let Err(failed) = PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), text, 1) {
            failed.write_unraisable(py, None);
        }
    }
    if let Some(raised) = raised {
        raised.restore(py);
    }
}
