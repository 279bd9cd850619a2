//! Accepting: a server's listener, whose connections get a transport without a task.

use std::io;
use std::os::fd::RawFd;

use omnipoll::Interest;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::address::SocketAddress;
use super::arguments::Arguments;
use super::context;
use super::loop_class::AsyncioLoop;
use super::watched::{Key, Watched};
use crate::convert::{descriptor, reason};
use crate::gil_cell::GilCell;

/// A listener that the loop accepts from.
#[pyclass(frozen, module = "omnipoll._native")]
pub(crate) struct Acceptor {
    fd: RawFd,
    /// How many connections are accepted before others have their turn.
    backlog: usize,
    calls: GilCell<Option<Calls>>,
}

struct Calls {
    /// `accepted(fd, address)`.
    accepted: Py<PyAny>,
    /// `failed(error)`.
    failed: Py<PyAny>,
    /// Each connection has a copy of it.
    context: Py<PyAny>,
}

impl Acceptor {
    /// In the poll's turn: accepts until nothing is left, or for as long as the backlog.
    pub(crate) fn ready(&self, this: &Bound<'_, AsyncioLoop>, key: Key) -> PyResult<()> {
        let py = this.py();
        let Some(Calls { accepted, failed, context }) = self.calls(py) else { return Ok(()) };
        for _ in 0..self.backlog {
            match accept(self.fd) {
                Ok(Some((fd, address))) => {
                    let address = address.to_python(py)?;
                    let arguments = Arguments::Two([fd.into_pyobject(py)?.into_any().unbind(), address]);
                    let copy = context.call_method0(py, intern!(py, "copy"))?;
                    if let Err(failed) = context::run(py, &copy, &accepted, &arguments) {
                        AsyncioLoop::exception(this, "Exception in accepting a connection", failed, &[])?;
                    }
                    // The server may have been closed, and the descriptor with it.
                    if this.get().watched(py).get_mut(key).is_none() {
                        return Ok(());
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    let arguments = Arguments::One([reason(&error).into_value(py).into_any()]);
                    return context::run(py, &context, &failed, &arguments);
                }
            }
        }
        Ok(())
    }

    fn calls(&self, py: Python<'_>) -> Option<Calls> {
        self.calls.borrow(py).as_ref().map(|calls| Calls {
            accepted: calls.accepted.clone_ref(py),
            failed: calls.failed.clone_ref(py),
            context: calls.context.clone_ref(py),
        })
    }
}

#[pymethods]
impl Acceptor {
    #[new]
    fn new(
        listener: &Bound<'_, PyAny>,
        backlog: usize,
        accepted: Py<PyAny>,
        failed: Py<PyAny>,
    ) -> PyResult<Self> {
        let py = listener.py();
        let calls = Calls { accepted, failed, context: context::copy_current(py)? };
        Ok(Self { fd: descriptor(listener)?, backlog, calls: GilCell::new(py, Some(calls)) })
    }

    /// Has the loop accept.
    fn start(slf: &Bound<'_, Self>, r#loop: &Bound<'_, AsyncioLoop>) -> PyResult<()> {
        let watched = Watched::Accepting(slf.clone().unbind());
        r#loop
            .get()
            .watch(slf.py(), slf.get().fd, Interest::READ, watched)
            .map(drop)
            .map_err(|failed| reason(&failed))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.calls.visit(&visit).as_deref() {
            Some(Some(Calls { accepted, failed, context })) => {
                [accepted, failed, context].into_iter().try_for_each(|object| visit.call(object))
            }
            _ => Ok(()),
        }
    }

    fn __clear__(&self, py: Python<'_>) {
        let calls = self.calls.borrow(py).take();
        drop(calls);
    }
}

/// `None` when there is nothing to accept, or its client has gone.
fn accept(fd: RawFd) -> io::Result<Option<(RawFd, SocketAddress)>> {
    let mut address = SocketAddress::empty();
    let (place, size) = address.place();
    // SAFETY: the address has room for as many bytes as `size` says.
    let accepted = unsafe { libc::accept4(fd, place, size, libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) };
    if accepted >= 0 {
        return Ok(Some((accepted, address)));
    }
    let failed = io::Error::last_os_error();
    match failed.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR | libc::ECONNABORTED) => Ok(None),
        _ => Err(failed),
    }
}
