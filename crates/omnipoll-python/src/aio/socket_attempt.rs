//! One attempt of a call on a socket, which never blocks.

use std::io;
use std::os::fd::RawFd;

use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::loop_class::AsyncioLoop;
use super::socket;
use crate::bytes::Bytes;
use crate::convert::{error, reason};

pub(crate) enum Attempt {
    Receive {
        size: usize,
    },
    SendAll {
        data: Py<PyAny>,
        sent: usize,
    },
    /// A method of the socket object's.
    Method {
        name: Py<PyString>,
        arguments: Py<PyTuple>,
    },
}

pub(crate) struct Outcome {
    /// `None` when it would block.
    pub(crate) result: Option<Py<PyAny>>,
    /// Less has come than there was room for.
    pub(crate) is_short: bool,
}

impl Attempt {
    /// `TypeError` for what has no buffer.
    pub(crate) fn send_all(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let data = match Bytes::of(data)? {
            Bytes::Fixed(bytes) => bytes.into_any(),
            Bytes::Mutable(bytes) => bytes.into_any(),
        };
        Ok(Self::SendAll { data: data.unbind(), sent: 0 })
    }

    pub(crate) fn run(
        &mut self,
        this: &Bound<'_, AsyncioLoop>,
        socket: &Bound<'_, PyAny>,
        fd: RawFd,
    ) -> PyResult<Outcome> {
        let py = this.py();
        match self {
            Self::Receive { size } => receive(this, fd, *size),
            Self::SendAll { data, sent } => send(data.bind(py), fd, sent),
            Self::Method { name, arguments } => {
                match socket.call_method1(name.bind(py), arguments.bind(py).clone()) {
                    Ok(result) => Ok(Outcome { result: Some(result.unbind()), is_short: false }),
                    Err(failed)
                        if failed.is_instance_of::<PyBlockingIOError>(py)
                            || failed.is_instance_of::<PyInterruptedError>(py) =>
                    {
                        Ok(Outcome { result: None, is_short: false })
                    }
                    Err(failed) => Err(failed),
                }
            }
        }
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Receive { .. } => Ok(()),
            Self::SendAll { data, .. } => visit.call(data),
            Self::Method { arguments, .. } => visit.call(arguments),
        }
    }
}

fn receive(this: &Bound<'_, AsyncioLoop>, fd: RawFd, size: usize) -> PyResult<Outcome> {
    let py = this.py();
    let mut buffer = this.get().receive_buffer(py);
    if size > buffer.len() {
        drop(buffer);
        return receive_much(py, fd, size);
    }
    let received = socket::receive(fd, &mut buffer[..size]).map_err(|failed| reason(&failed))?;
    let result = received.map(|received| PyBytes::new(py, &buffer[..received]).into_any().unbind());
    Ok(Outcome { result, is_short: received.is_some_and(|received| 0 < received && received < size) })
}

/// What is too large for the loop's own buffer.
fn receive_much(py: Python<'_>, fd: RawFd, size: usize) -> PyResult<Outcome> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(size).map_err(|_| error(io::Error::from_raw_os_error(libc::ENOMEM)))?;
    buffer.resize(size, 0);
    let received = socket::receive(fd, &mut buffer).map_err(|failed| reason(&failed))?;
    let result = received.map(|received| PyBytes::new(py, &buffer[..received]).into_any().unbind());
    Ok(Outcome { result, is_short: false })
}

/// As much as can be sent; more than once, as long as all that was given is taken.
fn send(data: &Bound<'_, PyAny>, fd: RawFd, sent: &mut usize) -> PyResult<Outcome> {
    loop {
        let bytes = Bytes::of(data)?;
        // A bytearray may have become shorter.
        let rest = bytes.get(*sent..).unwrap_or_default();
        let Some(written) = socket::send(fd, rest).map_err(|failed| reason(&failed))? else {
            return Ok(Outcome { result: None, is_short: false });
        };
        *sent += written;
        if written == rest.len() {
            return Ok(Outcome { result: Some(data.py().None()), is_short: false });
        }
    }
}

/// Whether it has no bounds of messages.
pub(crate) fn is_stream(fd: RawFd) -> bool {
    let mut kind: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both are ours, and the size is that of the value.
    let asked = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &raw mut size)
    };
    asked == 0 && kind == libc::SOCK_STREAM
}
