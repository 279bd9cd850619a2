//! The methods of `AsyncioLoop` that Python calls, but for [those](super::entry) that are called often.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use omnipoll::{EngineKind, WaitPolicy};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyWeakrefMethods};
use pyo3::{PyTraverseError, PyVisit};

use super::loop_class::{AsyncioLoop, Turn};
use super::readers::{self, Direction};
use super::timers::Timers;
use super::watched::WatchedSet;
use super::{running, turn};
use crate::convert::{self, error};
use crate::finalization::protect_thread;
use crate::gil_cell::GilCell;

#[pymethods]
impl AsyncioLoop {
    #[new]
    #[pyo3(signature = (*_arguments, **_keywords))]
    fn new(py: Python<'_>, _arguments: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> Self {
        protect_thread();
        Self {
            poller: OnceLock::new(),
            ready: GilCell::new(py, VecDeque::new()),
            timers: GilCell::new(py, Timers::default()),
            watched: GilCell::new(py, WatchedSet::default()),
            spare_handles: GilCell::new(py, Vec::new()),
            spare_timers: GilCell::new(py, Vec::new()),
            turn: GilCell::new(py, Turn::new()),
            receive_buffer: GilCell::new(py, Vec::new()),
            transports: GilCell::new(py, Vec::new()),
            is_debug: AtomicBool::new(false),
            is_closed: AtomicBool::new(true),
            is_stopping: AtomicBool::new(false),
            is_asleep: AtomicBool::new(false),
            was_forked: AtomicBool::new(false),
            thread: AtomicU64::new(0),
        }
    }

    /// Makes its poller: what `__init__` does first.
    #[pyo3(signature = (engine=None))]
    fn _open(&self, py: Python<'_>, engine: Option<&str>) -> PyResult<()> {
        convert::check_greenlets(py)?;
        let poller = convert::poller(py, engine, false, false, WaitPolicy::Balanced)?;
        self.poller
            .set(Arc::new(poller))
            .map_err(|_| PyRuntimeError::new_err("__init__() has been called before"))
    }

    /// Drops what waits to be called and what is watched.
    fn _release(&self, py: Python<'_>) {
        let ready = std::mem::take(&mut *self.ready.borrow(py));
        let timers = std::mem::take(&mut *self.timers.borrow(py));
        let spare_handles = std::mem::take(&mut *self.spare_handles.borrow(py));
        let spare_timers = std::mem::take(&mut *self.spare_timers.borrow(py));
        let watched = self.watched.borrow(py).take();
        watched.remove_all(self.poller.get());
        let transports = std::mem::take(&mut *self.transports.borrow(py));
        drop((ready, timers, spare_handles, spare_timers, watched, transports));
    }

    /// Runs until `stop()` is called.
    fn run_forever(slf: &Bound<'_, Self>) -> PyResult<()> {
        running::run_forever(slf)
    }

    /// One turn of the loop.
    fn _run_once(slf: &Bound<'_, Self>) -> PyResult<()> {
        turn::once(slf)
    }

    /// The name of the engine.
    #[getter]
    fn engine(&self) -> PyResult<&'static str> {
        self.poller().map(|poller| EngineKind::name(poller.engine())).map_err(error)
    }

    /// The time by the loop's clock, in seconds.
    fn time(&self) -> f64 {
        Self::now()
    }

    /// Ends `run_forever()` after the current turn.
    fn stop(&self) {
        self.set_stopping(true);
    }

    /// Whether it runs.
    fn is_running(&self) -> bool {
        self.thread.load(Relaxed) != 0
    }

    #[pyo3(name = "is_closed")]
    fn closed(&self) -> bool {
        self.is_closed()
    }

    fn _check_closed(&self) -> PyResult<()> {
        self.check_open()
    }

    /// Whether it is in debug mode.
    fn get_debug(&self) -> bool {
        self.is_debug()
    }

    #[getter(_debug)]
    fn debug_flag(&self) -> bool {
        self.is_debug()
    }

    #[setter(_debug)]
    fn set_debug_flag(&self, on: &Bound<'_, PyAny>) -> PyResult<()> {
        self.is_debug.store(on.is_truthy()?, Relaxed);
        Ok(())
    }

    #[getter(_closed)]
    fn closed_flag(&self) -> bool {
        self.is_closed()
    }

    #[setter(_closed)]
    fn set_closed_flag(&self, on: bool) {
        self.is_closed.store(on, Relaxed);
    }

    #[getter(_stopping)]
    fn stopping_flag(&self) -> bool {
        self.is_stopping()
    }

    #[setter(_stopping)]
    fn set_stopping_flag(&self, on: bool) {
        self.set_stopping(on);
    }

    #[getter]
    fn _thread_id(&self) -> Option<u64> {
        Some(self.thread.load(Relaxed)).filter(|&thread| thread != 0)
    }

    #[setter(_thread_id)]
    fn set_thread_id(&self, thread: Option<u64>) {
        self.set_thread(thread);
    }

    fn _write_to_self(&self) -> PyResult<()> {
        self.wake_sleeping()
    }

    /// A file's descriptor, and what it is watched for: a bit for reading, and one for writing.
    fn _registration(&self, py: Python<'_>, file: &Bound<'_, PyAny>) -> PyResult<Option<(RawFd, u32)>> {
        let fd = self.descriptor_of(file)?;
        let mut set = self.watched.borrow(py);
        let Some(key) = set.find(fd) else { return Ok(None) };
        Ok(set.get_mut(key).map(|registration| (fd, registration.interest.bits() & 3)))
    }

    /// The transport that has the descriptor, or had it: none has that of a closed file, which is negative.
    fn _transport_of<'py>(&self, py: Python<'py>, fd: RawFd) -> Option<Bound<'py, PyAny>> {
        let place = usize::try_from(fd).ok()?;
        let transports = self.transports.borrow(py);
        transports.get(place)?.as_ref()?.bind(py).upgrade()
    }

    fn _set_transport(&self, fd: &Bound<'_, PyAny>, transport: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        self.set_transport(fd.py(), readers::descriptor(fd)?, transport)
    }

    fn _remove_reader(&self, py: Python<'_>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.remove_callback(py, fd, Direction::Reading)
    }

    fn _remove_writer(&self, py: Python<'_>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.remove_callback(py, fd, Direction::Writing)
    }

    fn _start_receiving(
        slf: &Bound<'_, Self>,
        socket: &Bound<'_, PyAny>,
        size: usize,
    ) -> PyResult<Py<PyAny>> {
        Self::start_receiving(slf, socket, size)
    }

    fn _start_sending(
        slf: &Bound<'_, Self>,
        socket: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        Self::start_sending(slf, socket, data)
    }

    #[pyo3(signature = (socket, is_writing, name, *arguments))]
    fn _start_call<'py>(
        slf: &Bound<'py, Self>,
        socket: &Bound<'py, PyAny>,
        is_writing: bool,
        name: &Bound<'py, PyString>,
        arguments: &Bound<'py, PyTuple>,
    ) -> PyResult<(bool, Py<PyAny>)> {
        let direction = if is_writing { Direction::Writing } else { Direction::Reading };
        Self::start_call(slf, socket, direction, name, arguments)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(ready) = self.ready.visit(&visit) {
            ready.iter().try_for_each(|handle| visit.call(handle))?;
        }
        if let Some(timers) = self.timers.visit(&visit) {
            timers.iter().try_for_each(|handle| visit.call(handle))?;
        }
        match self.watched.visit(&visit) {
            Some(watched) => watched.iter().try_for_each(|one| visit.call(&one.watched.object)),
            None => Ok(()),
        }
    }

    fn __clear__(&self, py: Python<'_>) {
        self._release(py);
    }
}
