//! The Python class `AsyncioLoop`, the base of `omnipoll.aio.EventLoop`.

use std::cell::RefMut;
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use omnipoll::{EngineKind, Interest, Poller, WaitPolicy};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit};

use super::handle::{is_ours_alone, Handle, TimerHandle};
use super::readers::{self, Direction};
use super::running;
use super::timers::Timers;
use super::turn::{self, Turn};
use super::watched::{Key, Registration, Watched, WatchedSet};
use crate::convert::{self, error};
use crate::finalization::protect_thread;
use crate::gil_cell::GilCell;

/// How many handles are kept to be used again.
const SPARE_HANDLES: usize = 128;

/// As much as the standard library receives at once.
const RECEIVE_BUFFER: usize = 256 * 1024;

/// The native half of omnipoll's asyncio loop; not for use by itself.
#[pyclass(frozen, subclass, weakref, module = "omnipoll._native")]
pub(crate) struct AsyncioLoop {
    poller: OnceLock<Arc<Poller>>,
    ready: GilCell<VecDeque<Py<Handle>>>,
    timers: GilCell<Timers>,
    watched: GilCell<WatchedSet>,
    spare_handles: GilCell<Vec<Py<Handle>>>,
    spare_timers: GilCell<Vec<Py<TimerHandle>>>,
    pub(super) turn: GilCell<Turn>,
    receive_buffer: GilCell<Vec<u8>>,
    /// By descriptor: weak references, of transports that may have ended.
    transports: GilCell<Vec<Option<Py<PyWeakrefReference>>>>,
    is_debug: AtomicBool,
    is_closed: AtomicBool,
    is_stopping: AtomicBool,
    /// While it waits and no wake has been asked for.
    is_asleep: AtomicBool,
    /// The poller was built again in a forked child, and Python's half of the loop does not know yet.
    was_forked: AtomicBool,
    /// The thread that runs it, as `threading.get_ident()` has it; 0 when none does.
    thread: AtomicU64,
}

/// Keeps it to be used again, unless there are enough.
#[inline]
fn keep<T>(spare: &GilCell<Vec<Py<T>>>, py: Python<'_>, handle: Py<T>) {
    let mut spare = spare.borrow(py);
    if spare.len() < SPARE_HANDLES {
        return spare.push(handle);
    }
    drop(spare);
    handle.drop_ref(py);
}

// ---- For the other files -------------------------------------------------------------------------

impl AsyncioLoop {
    pub(crate) fn is_debug(&self) -> bool {
        self.is_debug.load(Relaxed)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Relaxed)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Relaxed)
    }

    pub(crate) fn set_stopping(&self, is_stopping: bool) {
        self.is_stopping.store(is_stopping, Relaxed);
    }

    pub(crate) fn set_thread(&self, thread: Option<u64>) {
        self.thread.store(thread.unwrap_or(0), Relaxed);
    }

    pub(crate) fn check_open(&self) -> PyResult<()> {
        match self.is_closed() {
            true => Err(PyRuntimeError::new_err("Event loop is closed")),
            false => Ok(()),
        }
    }

    /// The loop's clock, as `time.monotonic()`.
    pub(crate) fn now() -> f64 {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the structure is ours. This clock can always be read.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
        (now.tv_sec * 1_000_000_000 + now.tv_nsec) as f64 / 1e9
    }

    /// # Errors
    ///
    /// `EBADF` before `_open`.
    pub(crate) fn poller(&self) -> io::Result<&Arc<Poller>> {
        self.poller.get().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    /// A call of the poller's. In a forked child the poller is first built again.
    pub(crate) fn on_poller<R>(&self, mut call: impl FnMut(&Poller) -> io::Result<R>) -> io::Result<R> {
        let poller = self.poller()?;
        match call(poller) {
            Err(failed) if failed.raw_os_error() == Some(libc::EOWNERDEAD) => {
                poller.after_fork()?;
                self.was_forked.store(true, Relaxed);
                call(poller)
            }
            done => done,
        }
    }

    /// Whether the poller was built again since the last time.
    pub(crate) fn take_was_forked(&self) -> bool {
        self.was_forked.load(Relaxed) && self.was_forked.swap(false, Relaxed)
    }

    pub(crate) fn ready<'a>(&'a self, py: Python<'a>) -> RefMut<'a, VecDeque<Py<Handle>>> {
        self.ready.borrow(py)
    }

    pub(crate) fn timers<'a>(&'a self, py: Python<'a>) -> RefMut<'a, Timers> {
        self.timers.borrow(py)
    }

    pub(crate) fn watched<'a>(&'a self, py: Python<'a>) -> RefMut<'a, WatchedSet> {
        self.watched.borrow(py)
    }

    /// Where what arrives is received; never borrowed while Python runs.
    pub(crate) fn receive_buffer<'a>(&'a self, py: Python<'a>) -> RefMut<'a, Vec<u8>> {
        let mut buffer = self.receive_buffer.borrow(py);
        if buffer.is_empty() {
            buffer.resize(RECEIVE_BUFFER, 0);
        }
        buffer
    }

    /// So that they can be used again, if there are many of them.
    #[inline]
    pub(crate) fn drop_cancelled_timers(&self, py: Python<'_>) {
        let cancelled = self.timers(py).take_cancelled(py);
        for timer in cancelled {
            self.recycle_timer(py, timer);
        }
    }

    pub(crate) fn recycle_timer(&self, py: Python<'_>, timer: Py<TimerHandle>) {
        timer.get().unschedule(py);
        self.recycle(py, TimerHandle::into_handle(timer, py));
    }

    pub(crate) fn count_cancelled_timer(&self, py: Python<'_>) {
        self.timers.borrow(py).count_cancelled();
    }

    /// Has it called in the next turn.
    #[inline]
    pub(crate) fn push(&self, py: Python<'_>, handle: Py<Handle>) {
        self.ready.borrow(py).push_back(handle);
    }

    pub(crate) fn spare_handle(&self, py: Python<'_>) -> Option<Py<Handle>> {
        self.spare_handles.borrow(py).pop()
    }

    pub(crate) fn spare_timer(&self, py: Python<'_>) -> Option<Py<TimerHandle>> {
        self.spare_timers.borrow(py).pop()
    }

    /// Keeps a handle that nobody refers to any more.
    #[inline]
    pub(crate) fn recycle(&self, py: Python<'_>, handle: Py<Handle>) {
        if !is_ours_alone(handle.as_ptr()) || Handle::has_weak_references(&handle) {
            return handle.drop_ref(py);
        }
        let is_timer = handle.get().is_timer(py);
        handle.get().clear(py);
        match is_timer {
            true => {
                // SAFETY: it says so.
                let timer = unsafe { TimerHandle::from_handle(handle, py) };
                keep(&self.spare_timers, py, timer);
            }
            false => keep(&self.spare_handles, py, handle),
        }
    }

    /// Remembers whose descriptor it is; nobody's without a transport.
    pub(crate) fn set_transport(
        &self,
        py: Python<'_>,
        fd: RawFd,
        transport: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let reference = transport.map(PyWeakrefReference::new).transpose()?;
        let place = fd as usize;
        let mut transports = self.transports.borrow(py);
        if transports.len() <= place {
            transports.resize_with(place + 1, || None);
        }
        let before = std::mem::replace(&mut transports[place], reference.map(Bound::unbind));
        drop(transports);
        drop(before);
        Ok(())
    }

    /// It is about to wait, or has waited.
    pub(crate) fn set_asleep(&self, is_asleep: bool) {
        self.is_asleep.store(is_asleep, Relaxed);
    }

    /// Ends its wait. Under the interpreter's lock nothing comes between its look at the queue and
    /// its being asleep, so one that is not asleep will look again.
    pub(crate) fn wake_sleeping(&self) -> PyResult<()> {
        if self.is_asleep.swap(false, Relaxed) {
            self.poller().and_then(|poller| poller.wake()).map_err(error)?;
        }
        Ok(())
    }
}

// ---- Watching descriptors ------------------------------------------------------------------------

impl AsyncioLoop {
    /// Watches a descriptor.
    ///
    /// # Errors
    ///
    /// As for [`Poller::add_raw`]: `EEXIST` when it is watched already.
    pub(crate) fn watch(
        &self,
        py: Python<'_>,
        fd: RawFd,
        interest: Interest,
        watched: Watched,
    ) -> io::Result<Key> {
        drop(self.end_socket_calls(py, fd));
        let mut set = self.watched.borrow(py);
        let key = set.next_key();
        let is_in_poller = !interest.is_empty();
        if is_in_poller {
            self.on_poller(|poller| poller.add_raw(fd, interest, key.token()))?;
        }
        set.insert(key, Registration { fd, interest, is_in_poller, watched });
        Ok(key)
    }

    /// Ends the registration of a socket's calls, which stays when none waits.
    fn end_socket_calls(&self, py: Python<'_>, fd: RawFd) -> Option<Watched> {
        let mut set = self.watched.borrow(py);
        let key = set.find(fd)?;
        let is_of_calls = matches!(set.get_mut(key)?.watched, Watched::Socket(_));
        drop(set);
        if !is_of_calls {
            return None;
        }
        self.unwatch(py, key)
    }

    /// Replaces the interest. An empty one takes the descriptor out of the poller, which would report a
    /// hang-up in every wait.
    ///
    /// # Errors
    ///
    /// As for [`Poller::modify_raw`]; `ENOENT` when it is not watched any more.
    pub(crate) fn set_interest(&self, py: Python<'_>, key: Key, interest: Interest) -> io::Result<()> {
        let mut set = self.watched.borrow(py);
        let Some(registration) = set.get_mut(key) else {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        };
        if registration.interest == interest {
            return Ok(());
        }
        let (fd, is_in_poller) = (registration.fd, registration.is_in_poller);
        self.on_poller(|poller| match (is_in_poller, interest.is_empty()) {
            (true, true) => poller.remove_raw(fd),
            (true, false) => poller.modify_raw(fd, interest, key.token()),
            (false, true) => Ok(()),
            (false, false) => poller.add_raw(fd, interest, key.token()),
        })?;
        registration.is_in_poller = !interest.is_empty();
        registration.interest = interest;
        Ok(())
    }

    /// Ends a registration, and returns what was watched, to be dropped when no cell is borrowed.
    pub(crate) fn unwatch(&self, py: Python<'_>, key: Key) -> Option<Watched> {
        let removed = self.watched.borrow(py).remove(key)?;
        if removed.is_in_poller {
            // A descriptor that was closed is not registered any more.
            let _ = self.on_poller(|poller| poller.remove_raw(removed.fd));
        }
        Some(removed.watched)
    }
}

// ---- For Python ------------------------------------------------------------------------------------

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
            Some(watched) => watched.traverse(&visit),
            None => Ok(()),
        }
    }

    fn __clear__(&self, py: Python<'_>) {
        self._release(py);
    }
}
