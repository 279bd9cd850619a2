//! `StreamTransport`: the transport of a connected stream socket.

use std::ffi::CStr;

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::class::Transport;
use crate::aio::socket;
use crate::aio::AsyncioLoop;
use crate::fastcall::{self, Argument, Method};

/// The native half of the transport of a stream; not for use by itself.
#[pyclass(frozen, subclass, extends = Transport, module = "omnipoll._native")]
pub(crate) struct StreamTransport;

struct Write;
struct WriteLines;

pub(super) fn install(py: Python<'_>) -> PyResult<()> {
    fastcall::install::<Write, 1>(py)?;
    fastcall::install::<WriteLines, 1>(py)
}

impl Method<1> for Write {
    type Class = StreamTransport;
    const METHOD: &'static CStr = c"write";
    const DOCUMENTATION: &'static CStr = c"write($self, data)\n--\n\n\
        Sends data, or queues what the socket doesn't take: without a copy, unless it can be changed.";
    const ARGUMENTS: [&'static str; 1] = ["data"];

    #[inline]
    fn call<'py>(
        this: &Bound<'py, StreamTransport>,
        [data]: [Argument<'_, 'py>; 1],
    ) -> PyResult<Bound<'py, PyAny>> {
        let data =
            data.ok_or_else(|| missing("data argument must be a bytes-like object, not 'NoneType'"))?;
        Transport::write(this.as_super(), &data)?;
        Ok(this.py().None().into_bound(this.py()))
    }
}

impl Method<1> for WriteLines {
    type Class = StreamTransport;
    const METHOD: &'static CStr = c"writelines";
    const DOCUMENTATION: &'static CStr = c"writelines($self, list_of_data)\n--\n\n\
        Writes all of them, in one system call if the socket takes them.";
    const ARGUMENTS: [&'static str; 1] = ["list_of_data"];

    fn call<'py>(
        this: &Bound<'py, StreamTransport>,
        [lines]: [Argument<'_, 'py>; 1],
    ) -> PyResult<Bound<'py, PyAny>> {
        let lines = lines.ok_or_else(|| missing("list_of_data must be an iterable of bytes-like objects"))?;
        Transport::write_lines(this.as_super(), &lines)?;
        Ok(this.py().None().into_bound(this.py()))
    }
}

fn missing(words: &'static str) -> PyErr {
    PyTypeError::new_err(words)
}

#[pymethods]
impl StreamTransport {
    #[new]
    #[pyo3(signature = (r#loop, sock, protocol, extra=None))]
    fn new(
        r#loop: &Bound<'_, AsyncioLoop>,
        sock: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        extra: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let base = Transport::new(r#loop, sock, protocol, extra, false)?;
        if extra.is_some() {
            // An accepted one has inherited it from its listener.
            socket::set_no_delay(base.fd);
        }
        Ok(PyClassInitializer::from(base).add_subclass(Self))
    }

    /// Shuts the socket down for writing, once what waits is sent.
    fn write_eof(slf: &Bound<'_, Self>) -> PyResult<()> {
        Transport::write_eof(slf.as_super())
    }

    /// Returns True.
    fn can_write_eof(&self) -> bool {
        true
    }

    /// Returns a future of the time when nothing waits to be sent. Until it is reset nothing can be written.
    fn _make_empty_waiter<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, base) = (slf.py(), slf.as_super());
        if base.get().state(py).empty_waiter.is_some() {
            return Err(PyRuntimeError::new_err("Empty waiter is already set"));
        }
        let owner = base.get().owner(py).ok_or_else(|| PyRuntimeError::new_err("the transport is closed"))?;
        let waiter = owner.call_method0(intern!(py, "create_future"))?;
        let mut state = base.get().state(py);
        state.empty_waiter = Some(waiter.clone().unbind());
        let is_empty = state.queue.is_empty();
        drop(state);
        if is_empty {
            Transport::wake_empty_waiter(base, Ok(()))?;
        }
        Ok(waiter)
    }

    fn _reset_empty_waiter(slf: &Bound<'_, Self>) {
        let waiter = slf.as_super().get().state(slf.py()).empty_waiter.take();
        drop(waiter);
    }

    #[getter]
    fn _eof(slf: &Bound<'_, Self>) -> bool {
        slf.as_super().get().state(slf.py()).is_eof_written
    }

    #[getter]
    fn _empty_waiter<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        let py = slf.py();
        let state = slf.as_super().get().state(py);
        state.empty_waiter.as_ref().map(|waiter| waiter.bind(py).clone())
    }
}
