//! From one wait of a coroutine to the next.

use pyo3::prelude::*;

/// What a coroutine goes on with.
pub(super) enum Sent {
    Start,
    Value,
    Exception(PyErr),
}

/// How far it has come.
pub(super) enum Step<'py> {
    Yield(Bound<'py, PyAny>),
    Return(Bound<'py, PyAny>),
}
