//! Methods that are called without a tuple being made for their arguments.
//!
//! A wait with one descriptor ready takes 0.6 us, the system call included, and that tuple a
//! tenth of it. The calling convention without one, METH_FASTCALL | METH_KEYWORDS, has been the
//! same since CPython 3.7 but is in the limited API only since 3.10, so pyo3's macros don't use
//! it in a module that runs on 3.9.

use std::ffi::{c_int, CStr};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::{mem, ptr};

use pyo3::exceptions::PyTypeError;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::types::{PyString, PyTuple};
use pyo3::{ffi, Borrowed, PyClass};

use crate::finalization::protect_thread;

/// As in CPython's methodobject.h.
const METH_FASTCALL: c_int = 0x80;

type Entry = unsafe extern "C" fn(
    *mut ffi::PyObject,
    *const *mut ffi::PyObject,
    ffi::Py_ssize_t,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

/// A method whose arguments may each be given by position or by name, or be left out.
pub(crate) trait Method<const N: usize> {
    /// What has it.
    type Class: PyClass<Frozen = True> + Sync;
    const METHOD: &'static CStr;
    /// The first line is the signature, as in CPython's own.
    const DOCUMENTATION: &'static CStr;
    const ARGUMENTS: [&'static str; N];

    fn call<'py>(
        this: &Bound<'py, Self::Class>,
        arguments: [Argument<'_, 'py>; N],
    ) -> PyResult<Bound<'py, PyAny>>;
}

/// `None` when it was left out, or was None.
pub(crate) type Argument<'a, 'py> = Option<Borrowed<'a, 'py, PyAny>>;

/// Gives a class its method.
pub(crate) fn install<M: Method<N>, const N: usize>(py: Python<'_>) -> PyResult<()> {
    let class = py.get_type::<M::Class>();
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
    // pyo3's own entries also count that the thread is attached, which costs as much as the
    // tuple would. A plain drop of a `Py` looks at that count, and without it puts the drop off
    // until the next such entry: on a wait's way objects are dropped with the token at hand.
    // SAFETY: CPython calls methods attached.
    let py = unsafe { Python::assume_attached() };
    protect_thread();
    let call = || {
        // SAFETY: CPython holds `this`, the arguments and their names during the call, and
        // the method descriptor has checked the type of `this`.
        let (this, arguments) = unsafe {
            let names = Borrowed::from_ptr_or_opt(py, names).map(|names| names.cast_unchecked());
            let arguments = sort::<M, N>(py, given, positional as usize, names)?;
            (Borrowed::from_ptr(py, this).cast_unchecked::<M::Class>(), arguments)
        };
        M::call(&this, arguments)
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

/// Puts the arguments in the order in which the method has them.
///
/// # Safety
/// `given` must hold `positional` arguments and after them one for each of `names`, all of
/// which live for `'a`.
unsafe fn sort<'a, 'py, M: Method<N>, const N: usize>(
    py: Python<'py>,
    given: *const *mut ffi::PyObject,
    positional: usize,
    names: Option<Borrowed<'a, 'py, PyTuple>>,
) -> PyResult<[Argument<'a, 'py>; N]> {
    if positional > N {
        return Err(wrong::<M, N>(format_args!(
            "takes at most {N} argument{} ({positional} given)",
            if N == 1 { "" } else { "s" }
        )));
    }
    let mut sorted = [None; N];
    // SAFETY: as promised.
    let given = |index| unsafe { Borrowed::from_ptr(py, *given.add(index)) };
    for (index, argument) in sorted.iter_mut().take(positional).enumerate() {
        *argument = Some(given(index));
    }
    for (index, keyword) in names.iter().flat_map(|names| names.iter()).enumerate() {
        let known = M::ARGUMENTS.iter().position(|argument| keyword.eq(argument).unwrap_or(false));
        match known.map(|known| &mut sorted[known]) {
            Some(argument @ None) => *argument = Some(given(positional + index)),
            Some(_) => {
                return Err(wrong::<M, N>(format_args!("got multiple values for argument '{keyword}'")))
            }
            None => {
                return Err(wrong::<M, N>(format_args!("got an unexpected keyword argument '{keyword}'")))
            }
        }
    }
    Ok(sorted.map(|argument: Argument<'a, 'py>| argument.filter(|argument| !argument.is_none())))
}

fn wrong<M: Method<N>, const N: usize>(words: std::fmt::Arguments<'_>) -> PyErr {
    PyTypeError::new_err(format!("{}() {words}", M::METHOD.to_string_lossy()))
}
