//! `_add_reader` and its neighbours: callbacks for descriptors.

use std::ffi::CStr;
use std::io;
use std::os::fd::RawFd;

use omnipoll::{Interest, Ready};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyInt;
use pyo3::{PyTraverseError, PyVisit};

use super::accepting::Acceptor;
use super::context::copy_current;
use super::entry::{self, Given, Method};
use super::handle::{Call, Handle};
use super::loop_class::{AsyncioLoop, Watch, Watched};
use super::watched::{self, Key};
use crate::convert::{self, error};
use crate::gil_cell::GilCell;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Direction {
    Reading,
    Writing,
}

use Direction::{Reading, Writing};

struct AddReader;
struct AddWriter;

impl Method<2> for AddReader {
    const METHOD: &'static CStr = c"_add_reader";
    const DOCUMENTATION: &'static CStr = c"_add_reader($self, fd, callback, *args)\n--\n\n";
    const ARGUMENTS: [&'static str; 2] = ["fd", "callback"];
    const TAKES_CONTEXT: bool = false;

    fn call<'py>(this: &Bound<'py, AsyncioLoop>, given: Given<'_, 'py, 2>) -> PyResult<Bound<'py, PyAny>> {
        add(this, given, Reading)
    }
}

impl Method<2> for AddWriter {
    const METHOD: &'static CStr = c"_add_writer";
    const DOCUMENTATION: &'static CStr = c"_add_writer($self, fd, callback, *args)\n--\n\n";
    const ARGUMENTS: [&'static str; 2] = ["fd", "callback"];
    const TAKES_CONTEXT: bool = false;

    fn call<'py>(this: &Bound<'py, AsyncioLoop>, given: Given<'_, 'py, 2>) -> PyResult<Bound<'py, PyAny>> {
        add(this, given, Writing)
    }
}

pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    entry::install::<AddReader, 2>(py)?;
    entry::install::<AddWriter, 2>(py)
}

/// What `add_reader` and `add_writer` have a descriptor watched for.
#[pyclass(frozen, module = "omnipoll._native")]
struct Callbacks {
    /// The file object that the first was added for, unless that was a number: once it is closed and has no
    /// descriptor, they are found by it, as in `selectors`.
    file: Option<Py<PyAny>>,
    handles: GilCell<Handles>,
}

#[derive(Default)]
struct Handles {
    reader: Option<Py<Handle>>,
    writer: Option<Py<Handle>>,
}

impl Handles {
    fn replace(&mut self, direction: Direction, handle: Option<Py<Handle>>) -> Option<Py<Handle>> {
        let place = match direction {
            Reading => &mut self.reader,
            Writing => &mut self.writer,
        };
        std::mem::replace(place, handle)
    }

    fn interest(&self) -> Interest {
        let reading = if self.reader.is_some() { Interest::READ } else { Interest::NONE };
        let writing = if self.writer.is_some() { Interest::WRITE } else { Interest::NONE };
        reading | writing
    }
}

#[pymethods]
impl Callbacks {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.file)?;
        let Some(handles) = self.handles.visit(&visit) else { return Ok(()) };
        visit.call(&handles.reader)?;
        visit.call(&handles.writer)
    }

    fn __clear__(&self, py: Python<'_>) {
        let handles = std::mem::take(&mut *self.handles.borrow(py));
        drop(handles);
    }
}

impl Watch for Callbacks {
    const QUEUES: bool = true;

    fn ready(this: &Bound<'_, Self>, owner: &Bound<'_, AsyncioLoop>, _: Key, ready: Ready) -> PyResult<()> {
        let py = this.py();
        let handles = this.get().handles.borrow(py);
        let reader = handles.reader.as_ref().filter(|_| watched::is_readable(ready));
        let writer = handles.writer.as_ref().filter(|_| watched::is_writable(ready));
        for handle in reader.into_iter().chain(writer) {
            owner.get().push(py, handle.clone_ref(py));
        }
        Ok(())
    }
}

/// What a descriptor is watched for.
enum Found {
    Nothing,
    Callbacks(Key, Py<Callbacks>),
    Acceptor(Key),
    Transport,
}

/// As the standard library has it: a second callback takes the place of the first.
fn add<'py>(
    this: &Bound<'py, AsyncioLoop>,
    given: Given<'_, 'py, 2>,
    direction: Direction,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    this.get().check_open()?;
    let fd = descriptor(&given.leading[0])?;
    let call =
        Call { callback: given.callback(), arguments: given.arguments(py), context: copy_current(py)? };
    let handle = Handle::make(this, call)?;
    let put = put(this.get(), &given.leading[0], fd, Some(handle.clone_ref(py)), direction)?;
    if let Some(replaced) = put {
        Handle::cancel(replaced.bind(py))?;
    }
    Ok(handle.into_bound(py).into_any())
}

/// As `selectors` has it.
pub(crate) fn descriptor(object: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let fd = match object.extract::<RawFd>() {
        Ok(fd) => fd,
        Err(_) => convert::descriptor(object)
            .map_err(|_| PyValueError::new_err(format!("Invalid file object: {object:?}")))?,
    };
    match fd < 0 {
        true => Err(PyValueError::new_err(format!("Invalid file descriptor: {fd}"))),
        false => Ok(fd),
    }
}

/// Puts a callback in its place, or takes it out, and returns the one that was there.
fn put(
    this: &AsyncioLoop,
    object: &Bound<'_, PyAny>,
    fd: RawFd,
    handle: Option<Py<Handle>>,
    direction: Direction,
) -> PyResult<Option<Py<Handle>>> {
    let py = object.py();
    let found = match (this.find_callbacks(py, fd), &handle) {
        (Found::Nothing, _) => None,
        (Found::Callbacks(key, callbacks), _) => Some((key, callbacks)),
        (_, Some(_)) => return Err(error(io::Error::from_raw_os_error(libc::EEXIST))),
        (Found::Acceptor(key), None) if direction == Reading => {
            // So the standard library's code stops a server.
            drop(this.unwatch(py, key));
            return Ok(None);
        }
        (_, None) => return Ok(None),
    };
    let Some((key, callbacks)) = found else {
        let mut handles = Handles::default();
        handles.replace(direction, handle);
        let interest = handles.interest();
        if interest.is_empty() {
            return Ok(None);
        }
        let file = (!object.is_instance_of::<PyInt>()).then(|| object.clone().unbind());
        let callbacks = Bound::new(py, Callbacks { file, handles: GilCell::new(py, handles) })?;
        this.watch(py, fd, interest, Watched::new(&callbacks)).map_err(error)?;
        return Ok(None);
    };
    let handles = &callbacks.get().handles;
    let is_removed = handle.is_none();
    let before = handles.borrow(py).replace(direction, handle);
    let wanted = handles.borrow(py).interest();
    if wanted.is_empty() {
        drop(this.unwatch(py, key));
    } else if let Err(failed) = this.set_interest(py, key, wanted) {
        if is_removed && failed.raw_os_error() == Some(libc::EBADF) {
            // A closed file: nothing waits for it any more.
            return Ok(before);
        }
        let added = handles.borrow(py).replace(direction, before);
        drop(added);
        return Err(error(failed));
    }
    Ok(before)
}

impl AsyncioLoop {
    /// The registration of a descriptor that has callbacks. One that was for a socket's calls gives way.
    fn find_callbacks(&self, py: Python<'_>, fd: RawFd) -> Found {
        let mut set = self.watched(py);
        let Some(key) = set.find(fd) else { return Found::Nothing };
        let Some(watched) = set.get_mut(key).map(|registration| &registration.watched) else {
            return Found::Nothing;
        };
        if let Some(callbacks) = watched.get::<Callbacks>(py) {
            return Found::Callbacks(key, callbacks.unbind());
        }
        if watched.get::<Acceptor>(py).is_some() {
            return Found::Acceptor(key);
        }
        match watched.gives_way {
            true => Found::Nothing,
            false => Found::Transport,
        }
    }

    /// The descriptor that a file object had when callbacks were added for it.
    fn descriptor_of_file(&self, object: &Bound<'_, PyAny>) -> Option<RawFd> {
        let is_its = |watched: &Watched| {
            let callbacks = watched.get::<Callbacks>(object.py());
            callbacks
                .is_some_and(|callbacks| callbacks.get().file.as_ref().is_some_and(|file| file.is(object)))
        };
        let set = self.watched(object.py());
        let found = set.iter().find(|registration| is_its(&registration.watched));
        found.map(|registration| registration.fd)
    }

    /// The descriptor of an object: the one that it had, when it has been closed and is still watched.
    pub(crate) fn descriptor_of(&self, object: &Bound<'_, PyAny>) -> PyResult<RawFd> {
        descriptor(object).or_else(|error| self.descriptor_of_file(object).ok_or(error))
    }

    /// Whether there was a callback to remove.
    pub(crate) fn remove_callback(
        &self,
        py: Python<'_>,
        object: &Bound<'_, PyAny>,
        direction: Direction,
    ) -> PyResult<bool> {
        if self.is_closed() {
            return Ok(false);
        }
        let removed = put(self, object, self.descriptor_of(object)?, None, direction)?;
        match &removed {
            Some(removed) => Handle::cancel(removed.bind(py)).map(|()| true),
            None => Ok(false),
        }
    }
}
