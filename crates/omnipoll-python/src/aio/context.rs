//! Running a callback in its context.
//!
//! `PyContext_Enter` and its neighbours are exported by every CPython from 3.7 on, but are not in the
//! limited API. Where they are missing, the context's own `run` does it.

use std::mem::transmute;
use std::sync::OnceLock;

use libc::{c_int, c_void};
use pyo3::ffi::PyObject;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::arguments::Arguments;
use super::vectorcall::symbol;

type Change = unsafe extern "C" fn(*mut PyObject) -> c_int;
type CopyCurrent = unsafe extern "C" fn() -> *mut PyObject;
type Copy = unsafe extern "C" fn(*mut PyObject) -> *mut PyObject;

struct Functions {
    enter: Change,
    exit: Change,
    copy_current: CopyCurrent,
    copy: Copy,
}

fn functions() -> Option<&'static Functions> {
    static FOUND: OnceLock<Option<Functions>> = OnceLock::new();
    let find = || {
        let enter = symbol(c"PyContext_Enter")?;
        let exit = symbol(c"PyContext_Exit")?;
        let copy_current = symbol(c"PyContext_CopyCurrent")?;
        let copy = symbol(c"PyContext_Copy")?;
        // SAFETY: CPython's functions of these names have these types.
        unsafe {
            Some(Functions {
                enter: transmute::<*mut c_void, Change>(enter),
                exit: transmute::<*mut c_void, Change>(exit),
                copy_current: transmute::<*mut c_void, CopyCurrent>(copy_current),
                copy: transmute::<*mut c_void, Copy>(copy),
            })
        }
    };
    FOUND.get_or_init(find).as_ref()
}

/// `contextvars.copy_context()`.
#[inline]
pub(crate) fn copy_current(py: Python<'_>) -> PyResult<Py<PyAny>> {
    match functions() {
        // SAFETY: it returns a new reference.
        Some(functions) => unsafe {
            Bound::from_owned_ptr_or_err(py, (functions.copy_current)()).map(Bound::unbind)
        },
        None => {
            Ok(py.import(intern!(py, "contextvars"))?.call_method0(intern!(py, "copy_context"))?.unbind())
        }
    }
}

/// `context.copy()`.
pub(crate) fn copy(py: Python<'_>, context: &Py<PyAny>) -> PyResult<Py<PyAny>> {
    match functions() {
        // SAFETY: the context is alive; what is none is refused. It returns a new reference.
        Some(functions) => unsafe {
            Bound::from_owned_ptr_or_err(py, (functions.copy)(context.as_ptr())).map(Bound::unbind)
        },
        None => context.call_method0(py, intern!(py, "copy")),
    }
}

/// Runs `body` in the context. `None` where that takes the context's own `run`.
#[inline]
pub(crate) fn within(
    py: Python<'_>,
    context: &Py<PyAny>,
    body: impl FnOnce() -> PyResult<()>,
) -> Option<PyResult<()>> {
    let functions = functions()?;
    // SAFETY: the context is alive. What is no context is refused.
    if unsafe { (functions.enter)(context.as_ptr()) } != 0 {
        return Some(Err(PyErr::fetch(py)));
    }
    let done = body();
    // SAFETY: as above; it was entered, and what was called has left it as it was.
    let left = unsafe { (functions.exit)(context.as_ptr()) };
    Some(match done {
        Ok(()) if left != 0 => Err(PyErr::fetch(py)),
        done => done,
    })
}

/// `context.run(callback, *arguments)`. What is no `Context` has a `run` of its own, or none.
#[inline]
pub(crate) fn run(
    py: Python<'_>,
    context: &Py<PyAny>,
    callback: &Py<PyAny>,
    arguments: &Arguments,
) -> PyResult<()> {
    match within(py, context, || arguments.call(py, callback).map(drop)) {
        Some(called) => called,
        None => run_by_method(py, context, callback, arguments),
    }
}

fn run_by_method(
    py: Python<'_>,
    context: &Py<PyAny>,
    callback: &Py<PyAny>,
    arguments: &Arguments,
) -> PyResult<()> {
    let mut all = vec![callback.bind(py).clone()];
    all.extend(arguments.iter().map(|argument| argument.bind(py).clone()));
    context.bind(py).call_method1(intern!(py, "run"), PyTuple::new(py, all)?).map(drop)
}
