//! Methods that are called without a tuple being made for their arguments.
//!
//! A wait with one descriptor ready takes 0.6 us, the system call included, and that tuple a
//! tenth of it. The calling convention without one, METH_FASTCALL | METH_KEYWORDS, has been the
//! same since CPython 3.7 but is in the limited API only since 3.10, so pyo3's macros don't use
//! it in a module that runs on 3.9.

use std::ffi::{c_int, CStr};
use std::marker::PhantomData;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::{array, mem, ptr, slice};

use pyo3::exceptions::PyTypeError;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};
use pyo3::{ffi, Borrowed, PyTypeInfo};

use crate::finalization::protect_thread;

/// As in CPython's methodobject.h.
const METH_FASTCALL: c_int = 0x80;

type Function = unsafe extern "C" fn(
    *mut ffi::PyObject,
    *const *mut ffi::PyObject,
    ffi::Py_ssize_t,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

// ---- Any method --------------------------------------------------------------------------------------

/// A method that sorts its arguments itself.
pub(crate) trait Entry {
    /// What has it.
    type Class;
    const METHOD: &'static CStr;
    /// The first line is the signature, as in CPython's own.
    const DOCUMENTATION: &'static CStr;

    fn call<'py>(this: &Bound<'py, Self::Class>, given: Given<'_, 'py>) -> PyResult<Bound<'py, PyAny>>;
}

/// What a method is called with.
pub(crate) struct Given<'a, 'py> {
    py: Python<'py>,
    /// Live objects, as those of `named` are.
    positional: &'a [*mut ffi::PyObject],
    /// One for each of `names`.
    named: &'a [*mut ffi::PyObject],
    names: Option<Borrowed<'a, 'py, PyTuple>>,
}

impl<'a, 'py> Given<'a, 'py> {
    #[inline]
    pub(crate) fn positional(&self) -> &'a [*mut ffi::PyObject] {
        self.positional
    }

    /// Gives `N` places what is given by position.
    #[inline]
    pub(crate) fn places<const N: usize>(&self) -> [Argument<'a, 'py>; N] {
        array::from_fn(|index| {
            // SAFETY: it is alive during the call.
            self.positional.get(index).map(|&object| unsafe { Borrowed::from_ptr(self.py, object) })
        })
    }

    /// Names and what they are given.
    #[inline]
    pub(crate) fn named(&self) -> impl Iterator<Item = (Bound<'py, PyAny>, Borrowed<'a, 'py, PyAny>)> + '_ {
        let names = self.names.iter().flat_map(|names| names.iter());
        // SAFETY: it is alive during the call.
        names.zip(self.named).map(|(name, &object)| (name, unsafe { Borrowed::from_ptr(self.py, object) }))
    }
}

/// Gives the place of that name its argument.
pub(crate) fn put<'a, 'py, const N: usize>(
    places: &mut [Argument<'a, 'py>; N],
    names: &[&str; N],
    (name, argument): (Bound<'py, PyAny>, Borrowed<'a, 'py, PyAny>),
    method: &CStr,
) -> PyResult<()> {
    let known = names.iter().position(|known| name.eq(known).unwrap_or(false));
    match known.map(|known| &mut places[known]) {
        Some(place @ None) => *place = Some(argument),
        Some(_) => return Err(wrong(method, format_args!("got multiple values for argument '{name}'"))),
        None => return Err(wrong(method, format_args!("got an unexpected keyword argument '{name}'"))),
    }
    Ok(())
}

/// A call that the method does not take.
pub(crate) fn wrong(method: &CStr, words: std::fmt::Arguments<'_>) -> PyErr {
    PyTypeError::new_err(format!("{}() {words}", method.to_string_lossy()))
}

/// Gives a class its method.
pub(crate) fn install_entry<E: Entry>(py: Python<'_>) -> PyResult<()>
where
    E::Class: PyTypeInfo,
{
    install_in::<E>(&py.get_type::<E::Class>())
}

/// Gives a method to a class of Python's, whose objects [`Entry::Class`] must be right for.
pub(crate) fn install_in<E: Entry>(class: &Bound<'_, PyType>) -> PyResult<()> {
    let py = class.py();
    // SAFETY: CPython goes by the flags and calls it as the function that it is.
    let function = unsafe { mem::transmute::<Function, ffi::PyCFunctionWithKeywords>(enter::<E>) };
    let definition = Box::new(ffi::PyMethodDef {
        ml_name: E::METHOD.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionWithKeywords: function },
        ml_flags: METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: E::DOCUMENTATION.as_ptr(),
    });
    // SAFETY: the class is alive, and the definition is never freed.
    let method = unsafe {
        let method = ffi::PyDescr_NewMethod(class.as_type_ptr(), Box::leak(definition));
        Bound::from_owned_ptr_or_err(py, method)?
    };
    class.setattr(PyString::from_bytes(py, E::METHOD.to_bytes())?, method)
}

/// What CPython calls. A panic becomes an exception, as it does in pyo3's own entries.
unsafe extern "C" fn enter<E: Entry>(
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
        unsafe {
            let names = Borrowed::from_ptr_or_opt(py, names).map(|names| names.cast_unchecked::<PyTuple>());
            let positional = slice_at(given, positional as usize);
            let named = names.map_or(0, |names| names.len());
            let named = slice_at(given.wrapping_add(positional.len()), named);
            let given = Given { py, positional, named, names };
            E::call(&Borrowed::from_ptr(py, this).cast_unchecked::<E::Class>(), given)
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

/// Without arguments there may be no array.
///
/// # Safety
/// There must be that many objects, which stay for `'a`.
#[inline]
unsafe fn slice_at<'a>(start: *const *mut ffi::PyObject, length: usize) -> &'a [*mut ffi::PyObject] {
    match length {
        0 => &[],
        // SAFETY: as promised.
        _ => unsafe { slice::from_raw_parts(start, length) },
    }
}

// ---- Methods with arguments of fixed names -----------------------------------------------------------

/// A method whose arguments may each be given by position or by name, or be left out.
pub(crate) trait Method<const N: usize> {
    /// What has it.
    type Class: PyTypeInfo;
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
    install_entry::<Sorted<M, N>>(py)
}

/// Puts the arguments in the order in which the method has them.
struct Sorted<M, const N: usize>(PhantomData<M>);

impl<M: Method<N>, const N: usize> Entry for Sorted<M, N> {
    type Class = M::Class;
    const METHOD: &'static CStr = M::METHOD;
    const DOCUMENTATION: &'static CStr = M::DOCUMENTATION;

    #[inline]
    fn call<'py>(this: &Bound<'py, Self::Class>, given: Given<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        let places = sort(&given, &M::ARGUMENTS, M::METHOD)?;
        M::call(this, places.map(|argument| argument.filter(|argument| !argument.is_none())))
    }
}

/// The arguments in the order of their names.
#[inline]
pub(crate) fn sort<'a, 'py, const N: usize>(
    given: &Given<'a, 'py>,
    names: &[&str; N],
    method: &CStr,
) -> PyResult<[Argument<'a, 'py>; N]> {
    let count = given.positional().len();
    if count > N {
        let plural = if N == 1 { "" } else { "s" };
        return Err(wrong(method, format_args!("takes at most {N} argument{plural} ({count} given)")));
    }
    let mut places = given.places();
    for argument in given.named() {
        put(&mut places, names, argument, method)?;
    }
    Ok(places)
}
