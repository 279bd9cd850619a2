//! Methods of the loop that take a callback and its arguments: `call_soon(callback, *args, context=None)`
//! and its like, called without a tuple being made.

use std::ffi::CStr;
use std::marker::PhantomData;

use pyo3::ffi::PyObject;
use pyo3::prelude::*;
use pyo3::{intern, Borrowed};

use super::arguments::Arguments;
use super::loop_class::AsyncioLoop;
use crate::fastcall::{self, Entry};

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
    rest: &'a [*mut PyObject],
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
    fastcall::install_entry::<WithCallback<M, N>>(py)
}

/// Separates the callback's arguments from the method's.
struct WithCallback<M, const N: usize>(PhantomData<M>);

impl<M: Method<N>, const N: usize> Entry for WithCallback<M, N> {
    type Class = AsyncioLoop;
    const METHOD: &'static CStr = M::METHOD;
    const DOCUMENTATION: &'static CStr = M::DOCUMENTATION;

    #[inline]
    fn call<'py>(
        this: &Bound<'py, AsyncioLoop>,
        given: fastcall::Given<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mut leading, mut context) = (given.places::<N>(), None);
        for (name, argument) in given.named() {
            // A call's names are interned, as this one is: equality would be looked for in vain.
            let context_name = intern!(this.py(), "context");
            if M::TAKES_CONTEXT && (name.is(context_name) || name.eq(context_name)?) {
                context = Some(argument).filter(|context| !context.is_none());
                continue;
            }
            fastcall::put(&mut leading, &M::ARGUMENTS, (name, argument), M::METHOD)?;
        }
        if let Some(missing) = leading.iter().position(Option::is_none) {
            let name = M::ARGUMENTS[missing];
            return Err(fastcall::wrong(
                M::METHOD,
                format_args!("missing 1 required positional argument: '{name}'"),
            ));
        }
        let leading = leading.map(|argument| argument.unwrap_or_else(|| unreachable!("none is missing")));
        let rest = given.positional().get(N..).unwrap_or_default();
        M::call(this, Given { leading, rest, context })
    }
}
