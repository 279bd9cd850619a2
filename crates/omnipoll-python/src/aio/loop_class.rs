//! The Python class `AsyncioLoop`, the base of `omnipoll.aio.EventLoop`: what it has, for the other files.

use std::cell::RefMut;
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use omnipoll::{Event, Events, Interest, Poller, Ready};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;
use pyo3::PyClass;

use super::handle::{is_ours_alone, Handle, TimerHandle};
use super::timers::Timers;
use super::watched::{Key, Registration, WatchedSet};
use crate::convert::error;
use crate::gil_cell::GilCell;

/// How many handles are kept to be used again.
const SPARE_HANDLES: usize = 128;

/// How many events one poll brings.
const EVENTS: usize = 512;

/// As much as the standard library receives at once.
const RECEIVE_BUFFER: usize = 256 * 1024;

/// The native half of omnipoll's asyncio loop; not for use by itself.
#[pyclass(frozen, subclass, weakref, module = "omnipoll._native")]
pub(crate) struct AsyncioLoop {
    pub(super) poller: OnceLock<Arc<Poller>>,
    pub(super) ready: GilCell<VecDeque<Py<Handle>>>,
    pub(super) timers: GilCell<Timers>,
    pub(super) watched: GilCell<WatchedSet<Watched>>,
    pub(super) spare_handles: GilCell<Vec<Py<Handle>>>,
    pub(super) spare_timers: GilCell<Vec<Py<TimerHandle>>>,
    pub(super) turn: GilCell<Turn>,
    pub(super) receive_buffer: GilCell<Vec<u8>>,
    /// By descriptor: weak references, of transports that may have ended.
    pub(super) transports: GilCell<Vec<Option<Py<PyWeakrefReference>>>>,
    pub(super) is_debug: AtomicBool,
    pub(super) is_closed: AtomicBool,
    pub(super) is_stopping: AtomicBool,
    /// While it waits and no wake has been asked for.
    pub(super) is_asleep: AtomicBool,
    /// The poller was built again in a forked child, and Python's half of the loop does not know yet.
    pub(super) was_forked: AtomicBool,
    /// The thread that runs it, as `threading.get_ident()` has it; 0 when none does.
    pub(super) thread: AtomicU64,
}

/// What is kept from one turn to the next.
pub(crate) struct Turn {
    pub(super) events: Events,
    /// Events to be delivered when what waited before them was called, or that an exception has kept
    /// from being delivered.
    pub(super) left: Vec<Event>,
    /// How many callbacks have been called since the last poll, and when that was.
    pub(super) calls: usize,
    pub(super) polled: f64,
    /// How many polls there have been.
    pub(super) polls: u64,
}

impl Turn {
    pub(crate) fn new() -> Self {
        Self { events: Events::with_capacity(EVENTS), left: Vec::new(), calls: 0, polled: 0.0, polls: 0 }
    }
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

    pub(crate) fn watched<'a>(&'a self, py: Python<'a>) -> RefMut<'a, WatchedSet<Watched>> {
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

/// What can be watched: an object whose descriptor becomes ready.
pub(crate) trait Watch: PyClass {
    /// It only has something called, which is done after what waits already.
    const QUEUES: bool = false;
    /// Its registration ends when another one is made of its descriptor.
    const GIVES_WAY: bool = false;

    fn ready(this: &Bound<'_, Self>, owner: &Bound<'_, AsyncioLoop>, key: Key, ready: Ready) -> PyResult<()>;
}

/// Such an object, whatever its class.
pub(crate) struct Watched {
    pub(super) object: Py<PyAny>,
    pub(super) queues: bool,
    pub(super) gives_way: bool,
    ready: fn(&Bound<'_, PyAny>, &Bound<'_, AsyncioLoop>, Key, Ready) -> PyResult<()>,
}

impl Watched {
    pub(crate) fn new<T: Watch>(object: &Bound<'_, T>) -> Self {
        fn ready<T: Watch>(
            object: &Bound<'_, PyAny>,
            owner: &Bound<'_, AsyncioLoop>,
            key: Key,
            ready: Ready,
        ) -> PyResult<()> {
            // SAFETY: it is the object that the function was put beside, of this class.
            T::ready(unsafe { object.cast_unchecked::<T>() }, owner, key, ready)
        }
        let object = object.clone().into_any().unbind();
        Self { object, queues: T::QUEUES, gives_way: T::GIVES_WAY, ready: ready::<T> }
    }

    /// The object, if it is of this class.
    pub(crate) fn get<'py, T: PyClass>(&self, py: Python<'py>) -> Option<Bound<'py, T>> {
        self.object.bind(py).cast::<T>().ok().cloned()
    }

    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { object: self.object.clone_ref(py), ..*self }
    }

    #[inline]
    pub(super) fn ready(&self, owner: &Bound<'_, AsyncioLoop>, key: Key, ready: Ready) -> PyResult<()> {
        (self.ready)(self.object.bind(owner.py()), owner, key, ready)
    }
}

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
        let is_of_calls = set.get_mut(key)?.watched.gives_way;
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
