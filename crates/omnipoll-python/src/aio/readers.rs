//! `_add_reader` and its neighbours: callbacks for descriptors.

use std::ffi::CStr;
use std::io;
use std::os::fd::RawFd;

use omnipoll::Interest;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyInt;

use super::context::copy_current;
use super::entry::{self, Given, Method};
use super::handle::{Call, Handle};
use super::loop_class::AsyncioLoop;
use super::watched::{Key, Watched, WatchedSet};
use crate::convert::{self, error};

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

/// The place of a direction's callback.
fn place<'a>(
    reader: &'a mut Option<Py<Handle>>,
    writer: &'a mut Option<Py<Handle>>,
    direction: Direction,
) -> &'a mut Option<Py<Handle>> {
    match direction {
        Reading => reader,
        Writing => writer,
    }
}

/// What a descriptor is watched for.
enum Found {
    Nothing,
    Callbacks(Key),
    Acceptor(Key),
    Transport,
}

type Place = Option<Py<Handle>>;

fn callbacks(set: &mut WatchedSet, key: Key) -> Option<(&mut Place, &mut Place)> {
    match &mut set.get_mut(key)?.watched {
        Watched::Callbacks { reader, writer, .. } => Some((reader, writer)),
        _ => None,
    }
}

/// What the callbacks of a descriptor wait for.
fn interest(reader: &Option<Py<Handle>>, writer: &Option<Py<Handle>>) -> Interest {
    let mut interest = Interest::NONE;
    if reader.is_some() {
        interest |= Interest::READ;
    }
    if writer.is_some() {
        interest |= Interest::WRITE;
    }
    interest
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
        (Found::Callbacks(key), _) => Some(key),
        (_, Some(_)) => return Err(error(io::Error::from_raw_os_error(libc::EEXIST))),
        (Found::Acceptor(key), None) if direction == Reading => {
            // So the standard library's code stops a server.
            drop(this.unwatch(py, key));
            return Ok(None);
        }
        (_, None) => return Ok(None),
    };
    let Some(key) = found else {
        let Some(handle) = handle else { return Ok(None) };
        let (reader, writer) = match direction {
            Reading => (Some(handle), None),
            Writing => (None, Some(handle)),
        };
        let interest = interest(&reader, &writer);
        let file = (!object.is_instance_of::<PyInt>()).then(|| object.clone().unbind());
        this.watch(py, fd, interest, Watched::Callbacks { file, reader, writer }).map_err(error)?;
        return Ok(None);
    };
    let mut set = this.watched(py);
    let Some((reader, writer)) = callbacks(&mut set, key) else { return Ok(None) };
    let is_removed = handle.is_none();
    let before = std::mem::replace(place(reader, writer, direction), handle);
    let wanted = interest(reader, writer);
    drop(set);
    if wanted.is_empty() {
        this.unwatch(py, key);
    } else if let Err(failed) = this.set_interest(py, key, wanted) {
        if is_removed && failed.raw_os_error() == Some(libc::EBADF) {
            // A closed file: nothing waits for it any more.
            return Ok(before);
        }
        if let Some((reader, writer)) = callbacks(&mut this.watched(py), key) {
            *place(reader, writer, direction) = before;
        }
        return Err(error(failed));
    }
    Ok(before)
}

impl AsyncioLoop {
    /// The registration of a descriptor that has callbacks. One that was for a socket's calls gives way.
    fn find_callbacks(&self, py: Python<'_>, fd: RawFd) -> Found {
        let mut set = self.watched(py);
        let Some(key) = set.find(fd) else { return Found::Nothing };
        match set.get_mut(key).map(|registration| &registration.watched) {
            None | Some(Watched::Socket(_)) => Found::Nothing,
            Some(Watched::Callbacks { .. }) => Found::Callbacks(key),
            Some(Watched::Accepting(_)) => Found::Acceptor(key),
            Some(Watched::Transport(_)) => Found::Transport,
        }
    }

    /// The descriptor of an object: the one that it had, when it has been closed and is still watched.
    pub(crate) fn descriptor_of(&self, object: &Bound<'_, PyAny>) -> PyResult<RawFd> {
        descriptor(object).or_else(|error| self.watched(object.py()).descriptor_of(object).ok_or(error))
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
