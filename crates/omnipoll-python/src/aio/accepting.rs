//! Accepting: a server's listener, whose connections get a transport without a task.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use omnipoll::{Interest, Ready};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::accepted::{AcceptedSocket, SocketKind};
use super::address::SocketAddress;
use super::arguments::Arguments;
use super::context;
use super::loop_class::{AsyncioLoop, Watch, Watched};
use super::socket;
use super::watched::Key;
use crate::convert::{descriptor, reason};
use crate::gil_cell::GilCell;

/// A listener that the loop accepts from.
#[pyclass(frozen, module = "omnipoll._native")]
pub(crate) struct Acceptor {
    fd: RawFd,
    kind: SocketKind,
    /// How many connections are accepted at most before others have their turn.
    backlog: usize,
    pace: GilCell<Pace>,
    calls: GilCell<Option<Calls>>,
}

/// A listener stays readable while connections wait, and a poll says so. One that comes alone costs one call;
/// while each poll brings some, twice as many are accepted as after the last.
#[derive(Default)]
struct Pace {
    poll: u64,
    count: usize,
}

impl Pace {
    fn next(&mut self, poll: u64, backlog: usize) -> usize {
        let is_busy = poll == self.poll + 1;
        self.count = if is_busy { self.count.saturating_mul(2).min(backlog.max(1)) } else { 1 };
        self.poll = poll;
        self.count
    }
}

struct Calls {
    /// `accepted(connection)`.
    accepted: Py<PyAny>,
    /// `failed(error)`.
    failed: Py<PyAny>,
    /// Each connection has a copy of it.
    context: Py<PyAny>,
}

impl Watch for Acceptor {
    fn ready(this: &Bound<'_, Self>, owner: &Bound<'_, AsyncioLoop>, key: Key, _: Ready) -> PyResult<()> {
        this.get().accept(owner, key)
    }
}

impl Acceptor {
    fn accept(&self, this: &Bound<'_, AsyncioLoop>, key: Key) -> PyResult<()> {
        let py = this.py();
        let Some(Calls { accepted, failed, context }) = self.calls(py) else { return Ok(()) };
        let polls = this.get().turn.borrow(py).polls;
        let count = self.pace.borrow(py).next(polls, self.backlog);
        for _ in 0..count {
            match accept(self.fd) {
                Ok(Some((fd, address))) => {
                    let connection = AcceptedSocket::new(this, self.kind, fd, &address);
                    let arguments = Arguments::One([Py::new(py, connection)?.into_any()]);
                    let copy = context::copy(py, &context)?;
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
    /// Its connections inherit that small writes are sent at once.
    #[new]
    fn new(
        listener: &Bound<'_, PyAny>,
        kind: SocketKind,
        backlog: usize,
        accepted: Py<PyAny>,
        failed: Py<PyAny>,
    ) -> PyResult<Self> {
        let py = listener.py();
        let calls = Calls { accepted, failed, context: context::copy_current(py)? };
        let fd = descriptor(listener)?;
        socket::set_no_delay(fd);
        let (pace, calls) = (GilCell::new(py, Pace::default()), GilCell::new(py, Some(calls)));
        Ok(Self { fd, kind, backlog, pace, calls })
    }

    /// Has the loop accept.
    fn start(slf: &Bound<'_, Self>, r#loop: &Bound<'_, AsyncioLoop>) -> PyResult<()> {
        let watched = Watched::new(slf);
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
fn accept(fd: RawFd) -> io::Result<Option<(OwnedFd, SocketAddress)>> {
    let mut address = SocketAddress::empty();
    let (place, size) = address.place();
    // SAFETY: the address has room for as many bytes as `size` says.
    let accepted = unsafe { libc::accept4(fd, place, size, libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) };
    if accepted >= 0 {
        // SAFETY: it is new, and nobody else's.
        return Ok(Some((unsafe { OwnedFd::from_raw_fd(accepted) }, address)));
    }
    let failed = io::Error::last_os_error();
    match failed.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR | libc::ECONNABORTED) => Ok(None),
        _ => Err(failed),
    }
}
