//! Methods of the loop that take a callback and its arguments: `call_soon(callback, *args, context=None)`
//! and its like, called without a tuple being made (see [`crate::fastcall`]).

use std::ffi::{c_int, CStr};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::{mem, ptr, slice};

use pyo3::exceptions::PyTypeError;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use pyo3::{ffi, intern, Borrowed};

use super::arguments::Arguments;
use super::loop_class::AsyncioLoop;
use crate::finalization::protect_thread;

/// As in CPython's methodobject.h.
const METH_FASTCALL: c_int = 0x80;

type Entry = unsafe extern "C" fn(
    *mut ffi::PyObject,
    *const *mut ffi::PyObject,
    ffi::Py_ssize_t,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

/// A method with `N` arguments, the last of which is the callback, and after them the callback's.
pub(crate) trait Method<const N: usize> {
    const METHOD: &'static CStr;
    /// The first line is the signature, as in CPython's own.
    const DOCUMENTATION: &'static CStr;
    const ARGUMENTS: [&'static str; N];
    const TAKES_CONTEXT: bool;

    fn call<'py>(this: &Bound<'py, AsyncioLoop>, given: Given<'_, 'py, N>) -> PyResult<Bound<'py, PyAny>>;
}

pub(crate) struct Given<'a, 'py, const N: usize> {
    pub(crate) leading: [Borrowed<'a, 'py, PyAny>; N],
    rest: &'a [*mut ffi::PyObject],
    pub(crate) context: Option<Borrowed<'a, 'py, PyAny>>,
}

impl<'py, const N: usize> Given<'_, 'py, N> {
    #[inline]
    pub(crate) fn callback(&self) -> Py<PyAny> {
        self.leading[N - 1].to_owned().unbind()
    }

    #[inline]
    pub(crate) fn arguments(&self, py: Python<'py>) -> Arguments {
        // SAFETY: the caller holds them during the call.
        unsafe { Arguments::from_raw(py, self.rest) }
    }
}

/// Gives the loop's class its method.
pub(crate) fn install<M: Method<N>, const N: usize>(py: Python<'_>) -> PyResult<()> {
    let class = py.get_type::<AsyncioLoop>();
    // SAFETY: CPython goes by the flags and calls it as the entry that it is.
    let function = unsafe { mem::transmute::<Entry, ffi::PyCFunctionWithKeywords>(entry::<M, N>) };
    let definition = Box::new(ffi::PyMethodDef {
        ml_name: M::METHOD.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionWithKeywords: function },
        ml_flags: METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: M::DOCUMENTATION.as_ptr(),
    });
    // SAFETY: the class is alive, and the definition is never freed.
    let method = unsafe {
        let method = ffi::PyDescr_NewMethod(class.as_type_ptr(), Box::leak(definition));
        Bound::from_owned_ptr_or_err(py, method)?
    };
    class.setattr(PyString::from_bytes(py, M::METHOD.to_bytes())?, method)
}

/// What CPython calls. A panic becomes an exception, as it does in pyo3's own entries.
unsafe extern "C" fn entry<M: Method<N>, const N: usize>(
    this: *mut ffi::PyObject,
    given: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls methods attached.
    let py = unsafe { Python::assume_attached() };
    protect_thread();
    let call = || {
        // SAFETY: CPython holds `this`, the arguments and their names during the call, and
        // the method descriptor has checked the type of `this`.
        unsafe {
            let names = Borrowed::from_ptr_or_opt(py, names).map(|names| names.cast_unchecked());
            let given = sort::<M, N>(py, given, positional as usize, names)?;
            M::call(&Borrowed::from_ptr(py, this).cast_unchecked::<AsyncioLoop>(), given)
        }
    };
    let called = catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(PanicException::new_err("omnipoll panicked")));
    match called {
        Ok(result) => result.into_ptr(),
        Err(error) => {
            error.restore(py);
            ptr::null_mut()
        }
    }
}

/// Separates the callback's arguments from the method's.
///
/// # Safety
/// `given` must hold `positional` arguments and after them one for each of `names`, all of
/// which live for `'a`.
#[inline]
unsafe fn sort<'a, 'py, M: Method<N>, const N: usize>(
    py: Python<'py>,
    given: *const *mut ffi::PyObject,
    positional: usize,
    names: Option<Borrowed<'a, 'py, PyTuple>>,
) -> PyResult<Given<'a, 'py, N>> {
    // SAFETY: as promised.
    let get = |index| unsafe { Borrowed::from_ptr(py, *given.add(index)) };
    let mut context = None;
    let mut leading = [None; N];
    for (index, argument) in leading.iter_mut().enumerate().take(positional) {
        *argument = Some(get(index));
    }
    for (index, name) in names.iter().flat_map(|names| names.iter()).enumerate() {
        let context_name = intern!(py, "context");
        // A call's names are interned, as this one is: equality would be looked for in vain.
        if M::TAKES_CONTEXT && (name.is(context_name) || name.eq(context_name)?) {
            context = Some(get(positional + index)).filter(|context| !context.is_none());
            continue;
        }
        let known = M::ARGUMENTS.iter().position(|argument| name.eq(argument).unwrap_or(false));
        match known.map(|known| &mut leading[known]) {
            Some(argument @ None) => *argument = Some(get(positional + index)),
            Some(_) => return Err(wrong::<M, N>(format_args!("got multiple values for argument '{name}'"))),
            None => return Err(wrong::<M, N>(format_args!("got an unexpected keyword argument '{name}'"))),
        }
    }
    if let Some(missing) = leading.iter().position(Option::is_none) {
        let missing = M::ARGUMENTS[missing];
        return Err(wrong::<M, N>(format_args!("missing 1 required positional argument: '{missing}'")));
    }
    let rest = match positional > N {
        // SAFETY: as promised.
        true => unsafe { slice::from_raw_parts(given.add(N), positional - N) },
        false => &[],
    };
    let leading = leading.map(|argument| argument.unwrap_or_else(|| unreachable!("none is missing")));
    Ok(Given { leading, rest, context })
}

fn wrong<M: Method<N>, const N: usize>(words: std::fmt::Arguments<'_>) -> PyErr {
    PyTypeError::new_err(format!("{}() {words}", M::METHOD.to_string_lossy()))
}
