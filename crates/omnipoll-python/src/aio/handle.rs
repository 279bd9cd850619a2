//! `Handle` and `TimerHandle`: callbacks that wait to be called.
//!
//! What is called often is here. What is looked at, repr, order and equality, is the standard library's
//! own, which `omnipoll.aio.handles` gives to these classes.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{ffi, intern, PyTraverseError, PyVisit};

use super::arguments::Arguments;
use super::context;
use super::loop_class::AsyncioLoop;
use super::report::is_exit;
use crate::gil_cell::GilCell;

/// A callback that a loop calls. An `isinstance` of `asyncio.Handle`.
#[pyclass(frozen, subclass, weakref, module = "omnipoll._native")]
pub(crate) struct Handle {
    state: GilCell<State>,
}

/// A callback that a loop calls at a time. An `isinstance` of `asyncio.TimerHandle`.
#[pyclass(frozen, extends = Handle, module = "omnipoll._native")]
pub(crate) struct TimerHandle {
    timer: GilCell<Timer>,
}

struct Timer {
    when: f64,
    /// Among the loop's timers.
    is_scheduled: bool,
}

/// `callback` is `None` when it was cancelled, and while a handle that nobody else refers to is called.
#[derive(Default)]
struct State {
    callback: Option<Py<PyAny>>,
    arguments: Arguments,
    context: Option<Py<PyAny>>,
    owner: Option<Py<AsyncioLoop>>,
    is_cancelled: bool,
    is_timer: bool,
    debug: Option<Box<Debug>>,
}

/// Where in an object its list of weak references begins.
static WEAK_REFERENCES: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    let offset = py.get_type::<Handle>().getattr(intern!(py, "__weakrefoffset__"))?.extract()?;
    WEAK_REFERENCES.store(offset, Relaxed);
    Ok(())
}

/// What handles have in debug mode only.
#[derive(Default)]
struct Debug {
    source_traceback: Option<Py<PyAny>>,
    /// Of a cancelled one, which has no callback any more.
    repr: Option<Py<PyAny>>,
}

/// What is called, and in which context.
pub(crate) struct Call {
    pub(crate) callback: Py<PyAny>,
    pub(crate) arguments: Arguments,
    pub(crate) context: Py<PyAny>,
}

impl State {
    fn new(py: Python<'_>, owner: &Bound<'_, AsyncioLoop>, call: Call) -> PyResult<Self> {
        let debug = match owner.get().is_debug() {
            true => {
                let helpers = py.import(intern!(py, "omnipoll.aio.handles"))?;
                let source_traceback = Some(helpers.call_method0(intern!(py, "source_traceback"))?.unbind());
                Some(Box::new(Debug { source_traceback, repr: None }))
            }
            false => None,
        };
        let Call { callback, arguments, context } = call;
        let (callback, context) = (Some(callback), Some(context));
        let owner = Some(owner.clone().unbind());
        Ok(Self { callback, arguments, context, owner, is_cancelled: false, is_timer: false, debug })
    }

    /// What to call, taken out when nobody can look.
    fn call(&mut self, py: Python<'_>, take: bool) -> Option<Call> {
        if self.is_cancelled {
            return None;
        }
        if take {
            let arguments = std::mem::take(&mut self.arguments);
            return Some(Call { callback: self.callback.take()?, arguments, context: self.context.take()? });
        }
        let callback = self.callback.as_ref()?.clone_ref(py);
        let context = self.context.as_ref()?.clone_ref(py);
        Some(Call { callback, arguments: self.arguments.clone_ref(py), context })
    }

    /// Drops it with the token at hand, which is cheaper.
    fn release(self, py: Python<'_>) {
        self.arguments.release(py);
        for object in [self.callback, self.context].into_iter().flatten() {
            object.drop_ref(py);
        }
        if let Some(owner) = self.owner {
            owner.drop_ref(py);
        }
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.callback)?;
        self.arguments.traverse(visit)?;
        visit.call(&self.context)?;
        visit.call(&self.owner)?;
        match &self.debug {
            Some(debug) => visit.call(&debug.source_traceback),
            None => Ok(()),
        }
    }
}

impl Call {
    pub(crate) fn release(self, py: Python<'_>) {
        self.callback.drop_ref(py);
        self.arguments.release(py);
        self.context.drop_ref(py);
    }
}

impl Handle {
    pub(crate) fn make(owner: &Bound<'_, AsyncioLoop>, call: Call) -> PyResult<Py<Self>> {
        let py = owner.py();
        let state = State::new(py, owner, call)?;
        if let Some(spare) = owner.get().spare_handle(py) {
            *spare.get().state.borrow(py) = state;
            return Ok(spare);
        }
        Py::new(py, Self { state: GilCell::new(py, state) })
    }

    /// Whether it can't be used again, because a weak reference would see it live on.
    #[inline]
    pub(crate) fn has_weak_references(handle: &Py<Self>) -> bool {
        let offset = WEAK_REFERENCES.load(Relaxed);
        // SAFETY: there is the list of weak references of every object of the class, or NULL.
        offset != 0
            && unsafe { !handle.as_ptr().byte_add(offset).cast::<*mut ffi::PyObject>().read().is_null() }
    }

    pub(crate) fn is_cancelled(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).is_cancelled
    }

    /// Calls it. Its exceptions go to the loop's exception handler, but for `KeyboardInterrupt` and
    /// `SystemExit`.
    #[inline]
    pub(crate) fn run(handle: &Py<Self>, py: Python<'_>) -> PyResult<()> {
        let is_ours = is_ours_alone(handle.as_ptr());
        let this = handle.get();
        let Some(call) = this.state.borrow(py).call(py, is_ours) else { return Ok(()) };
        let called = context::run(py, &call.context, &call.callback, &call.arguments);
        match called {
            Ok(()) => call.release(py),
            Err(error) => {
                if is_ours {
                    let mut state = this.state.borrow(py);
                    (state.callback, state.context) = (Some(call.callback), Some(call.context));
                    state.arguments = call.arguments;
                }
                return failed(handle.bind(py), error);
            }
        }
        Ok(())
    }

    pub(crate) fn is_timer(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).is_timer
    }

    /// Drops what it refers to, and returns it as it was: for a handle that is to be used again.
    pub(crate) fn clear(&self, py: Python<'_>) {
        let state = std::mem::take(&mut *self.state.borrow(py));
        state.release(py);
    }

    /// Whether it was cancelled by this.
    fn cancel_once(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        let (callback, arguments, is_debug) = {
            let mut state = slf.get().state.borrow(py);
            if state.is_cancelled {
                return Ok(false);
            }
            state.is_cancelled = true;
            let is_debug = state.owner.as_ref().is_some_and(|owner| owner.get().is_debug());
            if is_debug {
                (None, Arguments::None, true)
            } else {
                (state.callback.take(), std::mem::take(&mut state.arguments), false)
            }
        };
        if is_debug {
            return Self::keep_repr(slf);
        }
        callback.into_iter().for_each(|callback| callback.drop_ref(py));
        arguments.release(py);
        Ok(true)
    }

    /// In debug mode a cancelled handle still says what it would have called.
    fn keep_repr(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        let repr = slf.repr()?.into_any().unbind();
        let mut state = slf.get().state.borrow(py);
        state.debug.get_or_insert_default().repr = Some(repr);
        let dropped = (state.callback.take(), std::mem::take(&mut state.arguments));
        drop(state);
        drop(dropped);
        Ok(true)
    }
}

/// Whether the caller has the only reference.
#[inline]
pub(crate) fn is_ours_alone(object: *mut ffi::PyObject) -> bool {
    // SAFETY: the caller has a reference.
    unsafe { ffi::Py_REFCNT(object) == 1 }
}

pub(crate) fn failed(handle: &Bound<'_, Handle>, error: PyErr) -> PyResult<()> {
    let py = handle.py();
    if is_exit(py, &error) {
        return Err(error);
    }
    let helpers = py.import(intern!(py, "omnipoll.aio.handles"))?;
    helpers.call_method1(intern!(py, "failed"), (handle, error.into_value(py))).map(drop)
}

#[pymethods]
impl Handle {
    /// Cancels the callback; does nothing when it was cancelled or called already.
    pub(crate) fn cancel(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::cancel_once(slf).map(drop)
    }

    /// Whether it was cancelled.
    fn cancelled(&self, py: Python<'_>) -> bool {
        self.is_cancelled(py)
    }

    /// Calls the callback, as the loop does.
    fn _run(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::run(slf.as_unbound(), slf.py())
    }

    #[getter(__class__)]
    fn class<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        slf.get_type().getattr(intern!(py, "_asyncio_class"))
    }

    #[getter]
    fn _cancelled(&self, py: Python<'_>) -> bool {
        self.is_cancelled(py)
    }

    #[getter]
    fn _callback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.borrow(py).callback.as_ref().map(|callback| callback.clone_ref(py))
    }

    #[getter]
    fn _args<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let state = self.state.borrow(py);
        match state.callback {
            Some(_) => state.arguments.to_tuple(py).map(Some),
            None => Ok(None),
        }
    }

    #[getter]
    fn _context(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.borrow(py).context.as_ref().map(|context| context.clone_ref(py))
    }

    #[getter]
    fn _loop(&self, py: Python<'_>) -> Option<Py<AsyncioLoop>> {
        self.state.borrow(py).owner.as_ref().map(|owner| owner.clone_ref(py))
    }

    #[getter]
    fn _source_traceback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let state = self.state.borrow(py);
        state.debug.as_ref()?.source_traceback.as_ref().map(|traceback| traceback.clone_ref(py))
    }

    #[getter]
    fn _repr(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.borrow(py).debug.as_ref()?.repr.as_ref().map(|repr| repr.clone_ref(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.state.visit(&visit) {
            Some(state) => state.traverse(&visit),
            None => Ok(()),
        }
    }

    fn __clear__(&self, py: Python<'_>) {
        self.clear(py);
    }
}

impl TimerHandle {
    pub(crate) fn make(owner: &Bound<'_, AsyncioLoop>, when: f64, call: Call) -> PyResult<Py<Self>> {
        let py = owner.py();
        let state = State { is_timer: true, ..State::new(py, owner, call)? };
        let timer = Timer { when, is_scheduled: true };
        if let Some(spare) = owner.get().spare_timer(py) {
            *spare.bind_borrowed(py).as_super().get().state.borrow(py) = state;
            *spare.get().timer.borrow(py) = timer;
            return Ok(spare);
        }
        let base = Handle { state: GilCell::new(py, state) };
        let timer = Self { timer: GilCell::new(py, timer) };
        Py::new(py, PyClassInitializer::from(base).add_subclass(timer))
    }

    pub(crate) fn is_cancelled(handle: &Py<Self>, py: Python<'_>) -> bool {
        handle.bind_borrowed(py).as_super().get().is_cancelled(py)
    }

    /// It is not among the loop's timers any more.
    pub(crate) fn unschedule(&self, py: Python<'_>) {
        self.timer.borrow(py).is_scheduled = false;
    }

    /// # Safety
    /// It must be [a timer](Handle::is_timer).
    pub(crate) unsafe fn from_handle(handle: Py<Handle>, py: Python<'_>) -> Py<Self> {
        // SAFETY: as promised.
        unsafe { handle.into_bound(py).cast_into_unchecked::<Self>().unbind() }
    }

    pub(crate) fn into_handle(handle: Py<Self>, py: Python<'_>) -> Py<Handle> {
        handle.into_bound(py).into_super().unbind()
    }
}

#[pymethods]
impl TimerHandle {
    /// Cancels the callback; does nothing when it was cancelled or called already.
    fn cancel(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        if !Handle::cancel_once(slf.as_super())? || !slf.get()._scheduled(py) {
            return Ok(());
        }
        if let Some(owner) = slf.as_super().get()._loop(py) {
            owner.get().count_cancelled_timer(py);
        }
        Ok(())
    }

    /// The time at which it is due, by the loop's clock.
    fn when(&self, py: Python<'_>) -> f64 {
        self.timer.borrow(py).when
    }

    #[getter]
    fn _when(&self, py: Python<'_>) -> f64 {
        self.when(py)
    }

    #[getter]
    fn _scheduled(&self, py: Python<'_>) -> bool {
        self.timer.borrow(py).is_scheduled
    }
}
