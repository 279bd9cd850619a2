//! `call_soon` and its neighbours.

use std::ffi::CStr;

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;

use super::arguments::Arguments;
use super::context::copy_current;
use super::entry::{self, Given, Method};
use super::handle::{Call, Handle, TimerHandle};
use super::loop_class::AsyncioLoop;

struct CallSoon;
struct CallSoonThreadsafe;
struct CallLater;
struct CallAt;

pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    entry::install::<CallSoon, 1>(py)?;
    entry::install::<CallSoonThreadsafe, 1>(py)?;
    entry::install::<CallLater, 2>(py)?;
    entry::install::<CallAt, 2>(py)
}

impl Method<1> for CallSoon {
    const METHOD: &'static CStr = c"call_soon";
    const DOCUMENTATION: &'static CStr = c"call_soon($self, callback, *args, context=None)\n--\n\n\
        Calls `callback(*args)` in the loop's next turn, in `context` or a copy of the current one, and \
        returns a Handle by which that can be cancelled.";
    const ARGUMENTS: [&'static str; 1] = ["callback"];
    const TAKES_CONTEXT: bool = true;

    #[inline]
    fn call<'py>(this: &Bound<'py, AsyncioLoop>, given: Given<'_, 'py, 1>) -> PyResult<Bound<'py, PyAny>> {
        check(this, &given, true, "call_soon")?;
        soon(this, given)
    }
}

impl Method<1> for CallSoonThreadsafe {
    const METHOD: &'static CStr = c"call_soon_threadsafe";
    const DOCUMENTATION: &'static CStr =
        c"call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n\
        call_soon() for any thread: it wakes the loop.";
    const ARGUMENTS: [&'static str; 1] = ["callback"];
    const TAKES_CONTEXT: bool = true;

    #[inline]
    fn call<'py>(this: &Bound<'py, AsyncioLoop>, given: Given<'_, 'py, 1>) -> PyResult<Bound<'py, PyAny>> {
        check(this, &given, false, "call_soon_threadsafe")?;
        let handle = soon(this, given)?;
        this.get().wake_sleeping()?;
        Ok(handle)
    }
}

impl Method<2> for CallLater {
    const METHOD: &'static CStr = c"call_later";
    const DOCUMENTATION: &'static CStr = c"call_later($self, delay, callback, *args, context=None)\n--\n\n\
        Calls `callback(*args)` after `delay` seconds, and returns a TimerHandle by which that can be \
        cancelled.";
    const ARGUMENTS: [&'static str; 2] = ["delay", "callback"];
    const TAKES_CONTEXT: bool = true;

    #[inline]
    fn call<'py>(this: &Bound<'py, AsyncioLoop>, given: Given<'_, 'py, 2>) -> PyResult<Bound<'py, PyAny>> {
        let when = AsyncioLoop::now() + seconds(&given, "delay must not be None")?;
        at(this, given, when)
    }
}

impl Method<2> for CallAt {
    const METHOD: &'static CStr = c"call_at";
    const DOCUMENTATION: &'static CStr = c"call_at($self, when, callback, *args, context=None)\n--\n\n\
        call_later() with a time of the loop's clock, time().";
    const ARGUMENTS: [&'static str; 2] = ["when", "callback"];
    const TAKES_CONTEXT: bool = true;

    #[inline]
    fn call<'py>(this: &Bound<'py, AsyncioLoop>, given: Given<'_, 'py, 2>) -> PyResult<Bound<'py, PyAny>> {
        let when = seconds(&given, "when cannot be None")?;
        at(this, given, when)
    }
}

fn seconds(given: &Given<'_, '_, 2>, missing: &'static str) -> PyResult<f64> {
    if given.leading[0].is_none() {
        return Err(PyTypeError::new_err(missing));
    }
    given.leading[0].extract()
}

/// The loop must be open; in debug mode, the thread must be the loop's and the callback can be called.
#[inline]
fn check<const N: usize>(
    this: &Bound<'_, AsyncioLoop>,
    given: &Given<'_, '_, N>,
    is_own_thread: bool,
    method: &str,
) -> PyResult<()> {
    this.get().check_open()?;
    if this.get().is_debug() {
        let py = this.py();
        if is_own_thread {
            this.call_method0(intern!(py, "_check_thread"))?;
        }
        this.call_method1(intern!(py, "_check_callback"), (given.callback(), method))?;
    }
    Ok(())
}

#[inline]
fn call<'py, const N: usize>(py: Python<'py>, given: &Given<'_, 'py, N>) -> PyResult<Call> {
    let context = match given.context {
        Some(context) => context.to_owned().unbind(),
        None => copy_current(py)?,
    };
    Ok(Call { callback: given.callback(), arguments: given.arguments(py), context })
}

#[inline]
fn soon<'py>(this: &Bound<'py, AsyncioLoop>, given: Given<'_, 'py, 1>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let handle = Handle::make(this, call(py, &given)?)?;
    this.get().push(py, handle.clone_ref(py));
    Ok(handle.into_bound(py).into_any())
}

#[inline]
fn at<'py>(
    this: &Bound<'py, AsyncioLoop>,
    given: Given<'_, 'py, 2>,
    when: f64,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    check(this, &given, true, "call_at")?;
    this.get().drop_cancelled_timers(py);
    let timer = TimerHandle::make(this, when, call(py, &given)?)?;
    this.get().timers(py).push(when, timer.clone_ref(py));
    Ok(timer.into_bound(py).into_any())
}

impl AsyncioLoop {
    /// `call_soon` for the loop's own: in a copy of the current context, and without a handle to cancel.
    pub(crate) fn schedule(
        this: &Bound<'_, Self>,
        callback: Bound<'_, PyAny>,
        arguments: Arguments,
    ) -> PyResult<()> {
        let py = this.py();
        let call = Call { callback: callback.unbind(), arguments, context: copy_current(py)? };
        let handle = Handle::make(this, call)?;
        this.get().push(py, handle);
        Ok(())
    }
}
