//! Calls without a tuple for the arguments.
//!
//! `PyObject_Vectorcall` is in the limited API since 3.12, and exported since 3.11; before it,
//! `PyObject_VectorcallDict` does the same without names. `PyObject_VectorcallMethod` is exported since 3.9.

use std::ffi::CStr;
use std::mem::transmute;
use std::sync::OnceLock;

use libc::c_void;
use pyo3::exceptions::PySystemError;
use pyo3::ffi::PyObject;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

type Vectorcall =
    unsafe extern "C" fn(*mut PyObject, *const *mut PyObject, usize, *mut PyObject) -> *mut PyObject;

/// As in CPython's abstract.h: the place before the arguments may be used by what is called.
const ARGUMENTS_OFFSET: usize = 1 << (usize::BITS - 1);

/// A function of the interpreter's that its limited API doesn't have.
pub(crate) fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name ends with a zero byte.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

fn vectorcall() -> Option<Vectorcall> {
    static FOUND: OnceLock<Option<Vectorcall>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let found = symbol(c"PyObject_Vectorcall").or_else(|| symbol(c"PyObject_VectorcallDict"));
        // SAFETY: both have this type; without names, both do the same.
        found.map(|found| unsafe { transmute::<*mut c_void, Vectorcall>(found) })
    })
}

/// Calls it with the `count` arguments from the second place on.
///
/// # Safety
/// `callable` must be alive during the call, as must be the arguments; before them there must be one
/// place more.
#[inline]
pub(crate) unsafe fn call<'py>(
    py: Python<'py>,
    callable: *mut PyObject,
    places: &mut [*mut PyObject],
) -> PyResult<Bound<'py, PyAny>> {
    let arguments = &mut places[1..];
    let Some(vectorcall) = vectorcall() else {
        return Err(PySystemError::new_err("the interpreter has no PyObject_Vectorcall"));
    };
    // SAFETY: as promised.
    unsafe {
        let result = vectorcall(
            callable,
            arguments.as_mut_ptr(),
            arguments.len() | ARGUMENTS_OFFSET,
            std::ptr::null_mut(),
        );
        Bound::from_owned_ptr_or_err(py, result)
    }
}

fn vectorcall_method() -> Option<Vectorcall> {
    static FOUND: OnceLock<Option<Vectorcall>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: CPython's function of this name has this type.
        symbol(c"PyObject_VectorcallMethod")
            .map(|found| unsafe { transmute::<*mut c_void, Vectorcall>(found) })
    })
}

/// Calls a method of the first of the objects with the others.
#[inline]
pub(crate) fn call_method<'py, const N: usize>(
    name: &Bound<'py, PyString>,
    objects: [&Bound<'py, PyAny>; N],
) -> PyResult<Bound<'py, PyAny>> {
    let Some(vectorcall) = vectorcall_method() else {
        let arguments = PyTuple::new(name.py(), &objects[1..])?;
        return objects[0].call_method1(name, arguments);
    };
    let places = objects.map(Bound::as_ptr);
    // SAFETY: the name and the objects are alive during the call. None of the places may be used by what
    // is called: there is no flag for it.
    unsafe {
        let result = vectorcall(name.as_ptr(), places.as_ptr(), N, std::ptr::null_mut());
        Bound::from_owned_ptr_or_err(name.py(), result)
    }
}
