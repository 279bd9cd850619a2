//! The arguments of a callback: most have none, one or two.

use std::ptr::null_mut;

use pyo3::ffi::PyObject;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit};

use super::vectorcall;

#[derive(Default)]
pub(crate) enum Arguments {
    #[default]
    None,
    One([Py<PyAny>; 1]),
    Two([Py<PyAny>; 2]),
    Many(Box<[Py<PyAny>]>),
}

impl Arguments {
    /// # Safety
    /// They must be live objects.
    #[inline]
    pub(crate) unsafe fn from_raw(py: Python<'_>, raw: &[*mut PyObject]) -> Self {
        // SAFETY: as promised.
        let own = |raw: &*mut PyObject| unsafe { Bound::from_borrowed_ptr(py, *raw).unbind() };
        match raw {
            [] => Self::None,
            [one] => Self::One([own(one)]),
            [one, two] => Self::Two([own(one), own(two)]),
            many => Self::Many(many.iter().map(own).collect()),
        }
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[Py<PyAny>] {
        match self {
            Self::None => &[],
            Self::One(one) => one,
            Self::Two(two) => two,
            Self::Many(many) => many,
        }
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Py<PyAny>> {
        self.as_slice().iter()
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::None => Self::None,
            Self::One([one]) => Self::One([one.clone_ref(py)]),
            Self::Two([one, two]) => Self::Two([one.clone_ref(py), two.clone_ref(py)]),
            Self::Many(many) => Self::Many(many.iter().map(|argument| argument.clone_ref(py)).collect()),
        }
    }

    pub(crate) fn to_tuple<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.iter().map(|argument| argument.bind(py)))
    }

    #[inline]
    pub(crate) fn call<'py>(&self, py: Python<'py>, callback: &Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let callback = callback.as_ptr();
        // SAFETY: the callback and the arguments are held by references that the caller has; the first
        // of the places is free.
        unsafe {
            match self {
                Self::None => vectorcall::call(py, callback, &mut [null_mut()]),
                Self::One([one]) => vectorcall::call(py, callback, &mut [null_mut(), one.as_ptr()]),
                Self::Two([one, two]) => {
                    vectorcall::call(py, callback, &mut [null_mut(), one.as_ptr(), two.as_ptr()])
                }
                Self::Many(many) => {
                    let mut places = vec![null_mut()];
                    places.extend(many.iter().map(Py::as_ptr));
                    vectorcall::call(py, callback, &mut places)
                }
            }
        }
    }

    /// Drops them with the token at hand, which is cheaper.
    #[inline]
    pub(crate) fn release(self, py: Python<'_>) {
        match self {
            Self::None => {}
            Self::One([one]) => one.drop_ref(py),
            Self::Two([one, two]) => {
                one.drop_ref(py);
                two.drop_ref(py);
            }
            Self::Many(many) => many.into_vec().into_iter().for_each(|argument| argument.drop_ref(py)),
        }
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.iter().try_for_each(|argument| visit.call(argument))
    }
}
