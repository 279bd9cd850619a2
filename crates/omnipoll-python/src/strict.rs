//! Strict mode: findings to a callable of the caller's, or else to `warnings`.
//!
//! The core reports what it finds at once and on any thread: in the middle of a change, when no
//! Python may run, or of a wait that nothing else may ever end. So each finding is queued, and
//! reported as soon as Python may run: by the core's call itself, or when the change is done.

use std::cell::RefCell;
use std::ffi::CString;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use omnipoll::Finding;
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyRuntimeWarning};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::finalization::protect_thread;
use crate::gil_cell::GilCell;
use crate::state::State;

create_exception!(
    omnipoll,
    StrictWarning,
    PyRuntimeWarning,
    "A mistake that strict mode has found, when there is no on_finding."
);

thread_local! {
    /// What the call in progress on this thread is to raise when it is done.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// What was found and not yet reported.
#[derive(Default)]
pub(crate) struct Findings(Mutex<Vec<Finding>>);

impl Findings {
    /// What the core calls with its findings.
    pub(crate) fn listener(
        self: Arc<Self>,
        state: Weak<GilCell<State>>,
    ) -> Box<dyn Fn(&Finding) + Send + Sync> {
        Box::new(move |finding| {
            self.with(|queue| queue.push(finding.clone()));
            // Not while the interpreter ends.
            protect_thread();
            let _ = Python::try_attach(|py| {
                let Some(state) = state.upgrade() else { return };
                self.report(py, &state);
                if RAISED.with_borrow(Option::is_some) {
                    end_wait(py, &state);
                }
            });
        })
    }

    /// Reports all there is, unless a change is in progress, which does it when it is done.
    pub(crate) fn report(&self, py: Python<'_>, state: &GilCell<State>) {
        let Some(state) = state.try_borrow(py) else { return };
        let findings = self.with(mem::take);
        let with_token = |finding: Finding| {
            let token = state.table.object(finding.token).map(|object| object.clone_ref(py));
            (finding, token)
        };
        let findings: Vec<_> = findings.into_iter().map(with_token).collect();
        let listener = state.listener.as_ref().map(|listener| listener.clone_ref(py));
        drop(state);
        for (finding, token) in findings {
            match report(py, listener.as_ref(), &finding, token) {
                Ok(()) => {}
                // What fails in on_finding is no failure of the call that has found something.
                Err(error) if listener.is_some() && error.is_instance_of::<PyException>(py) => {
                    error.write_unraisable(py, listener.as_ref().map(|listener| listener.bind(py)));
                }
                Err(error) => RAISED.set(Some(error)),
            }
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<Finding>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The call is to raise it: a warning that a filter has made an error, a KeyboardInterrupt.
pub(crate) fn take_raised() -> Option<PyErr> {
    RAISED.take()
}

/// So that a wait that has found something can raise: there is none without a core.
fn end_wait(py: Python<'_>, state: &GilCell<State>) {
    let core = state.try_borrow(py).and_then(|state| state.core.clone());
    // It fails in a forked child only.
    let _ = core.map(|core| core.wake());
}

fn report(
    py: Python<'_>,
    listener: Option<&Py<PyAny>>,
    finding: &Finding,
    token: Option<Py<PyAny>>,
) -> PyResult<()> {
    let words = match &token {
        // The core knows the number that stands for the object.
        Some(token) => {
            let repr = token.bind(py).repr()?.to_string();
            finding.words.replacen(&format!("(token {})", finding.token), &format!("(token {repr})"), 1)
        }
        None => finding.words.clone(),
    };
    let Some(listener) = listener else {
        let words = CString::new(words.replace('\0', "\\0"))?;
        return PyErr::warn(py, &py.get_type::<StrictWarning>(), &words, 1);
    };
    let finding = PyFinding {
        kind: upper_snake(&format!("{:?}", finding.kind)),
        fd: (finding.fd >= 0).then_some(finding.fd),
        token: token.unwrap_or_else(|| py.None()),
        words,
    };
    listener.call1(py, (finding,)).map(drop)
}

/// `BlockingEdge` as Python names constants: `BLOCKING_EDGE`.
fn upper_snake(camel: &str) -> String {
    let mut name = String::new();
    for character in camel.chars() {
        if character.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(character.to_ascii_uppercase());
    }
    name
}

/// A mistake that strict mode has found.
#[pyclass(frozen, name = "Finding", module = "omnipoll")]
pub(crate) struct PyFinding {
    /// Which mistake: "BLOCKING_EDGE", "UNDRAINED", "FORGOTTEN_ONESHOT", "CLOSED", "REUSED",
    /// "BUSY_WRITER", "BLOCKED_LOOP", "FORKED_CHILD" or "LEAKED".
    #[pyo3(get)]
    kind: String,
    /// The descriptor; None when it is about no single one.
    #[pyo3(get)]
    fd: Option<i32>,
    /// The descriptor's token; None when there is none any more.
    #[pyo3(get)]
    token: Py<PyAny>,
    /// What was found and what to do, in one sentence.
    #[pyo3(get)]
    words: String,
}

impl Drop for PyFinding {
    fn drop(&mut self) {
        protect_thread();
    }
}

#[pymethods]
impl PyFinding {
    fn __str__(&self) -> &str {
        &self.words
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        protect_thread();
        let Self { kind, words, .. } = self;
        let (fd, token) = (self.fd.into_pyobject(py)?.repr()?, self.token.bind(py).repr()?);
        Ok(format!("Finding(kind={kind:?}, fd={fd}, token={token}, words={words:?})"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.token)
    }
}
