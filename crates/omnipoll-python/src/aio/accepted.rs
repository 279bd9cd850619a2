//! Connections that were accepted, and what is known of them. A program asks for little of it, mostly for
//! the peer's address: the objects are made when they are asked for.

use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::address::SocketAddress;
use super::arguments::Arguments;
use super::context::{self, copy_current};
use super::handle::{self, Call, Handle};
use super::loop_class::AsyncioLoop;
use super::socket;
use super::transport::Transport;
use crate::gil_cell::GilCell;

/// Family, type and protocol, as `socket.socket()` takes them.
pub(super) type SocketKind = (i32, i32, i32);

pub(super) struct Accepted {
    kind: SocketKind,
    /// `None` once there is an object that has it, and when it was closed.
    fd: Option<OwnedFd>,
    peer: Box<[u8]>,
    /// Once it was closed.
    local: Option<Box<[u8]>>,
}

impl Accepted {
    pub(super) fn is_open(&self) -> bool {
        self.fd.is_some()
    }

    /// Its own address can still be asked for then, as the standard library's transports have it.
    pub(super) fn close(&mut self) {
        if let Some(fd) = self.fd.take() {
            self.local = socket::local_address(fd.as_raw_fd()).ok().map(|address| address.to_bytes());
        }
    }

    /// What an object for it is [made](make_object) of. It is the descriptor's owner from
    /// [`disown`](Self::disown) on.
    pub(super) fn parts(&self) -> (SocketKind, Option<RawFd>) {
        (self.kind, self.fd.as_ref().map(AsRawFd::as_raw_fd))
    }

    pub(super) fn disown(&mut self) {
        let _ = self.fd.take().map(IntoRawFd::into_raw_fd);
    }

    pub(super) fn peer(&self) -> SocketAddress {
        SocketAddress::from_bytes(&self.peer)
    }

    pub(super) fn local(&self, fd: RawFd) -> Option<SocketAddress> {
        match &self.local {
            Some(local) => Some(SocketAddress::from_bytes(local)),
            None => socket::local_address(fd).ok(),
        }
    }
}

/// A `socket.socket`; a closed one without a descriptor.
pub(super) fn make_object<'py>(
    py: Python<'py>,
    (kind, fd): (SocketKind, Option<RawFd>),
) -> PyResult<Bound<'py, PyAny>> {
    static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    MAKE.import(py, "omnipoll.aio.transports", "make_socket")?.call1((kind, fd))
}

/// A connection that has no transport yet. Without one it is closed when it is dropped.
#[pyclass(frozen, module = "omnipoll._native")]
pub(crate) struct AcceptedSocket {
    owner: Py<AsyncioLoop>,
    /// How many callbacks waited when it was accepted.
    waiting: usize,
    accepted: GilCell<Option<Box<Accepted>>>,
}

impl AcceptedSocket {
    pub(super) fn new(
        owner: &Bound<'_, AsyncioLoop>,
        kind: SocketKind,
        fd: OwnedFd,
        peer: &SocketAddress,
    ) -> Self {
        let py = owner.py();
        let accepted = Accepted { kind, fd: Some(fd), peer: peer.to_bytes(), local: None };
        Self {
            owner: owner.clone().unbind(),
            waiting: owner.get().ready(py).len(),
            accepted: GilCell::new(py, Some(Box::new(accepted))),
        }
    }

    /// For its transport.
    pub(super) fn take(&self, py: Python<'_>) -> PyResult<Box<Accepted>> {
        let accepted = self.accepted.borrow(py).take();
        accepted.ok_or_else(|| PyValueError::new_err("the connection is another transport's, or closed"))
    }
}

#[pymethods]
impl AcceptedSocket {
    /// The peer's address.
    #[getter]
    fn peername(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let peer = self.accepted.borrow(py).as_ref().map(|accepted| accepted.peer());
        peer.map(|peer| peer.to_python(py)).transpose()
    }

    /// Closes it, unless a transport has it.
    fn close(&self, py: Python<'_>) {
        let accepted = self.accepted.borrow(py).take();
        drop(accepted);
    }

    /// Calls connection_made() and begins to read: at once, unless the protocol's maker has scheduled
    /// something that is to be called before. In debug mode both are callbacks, whose time is reported.
    fn begin(&self, transport: &Bound<'_, Transport>, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, owner) = (transport.py(), self.owner.bind(transport.py()));
        owner.get().set_transport(py, transport.get().fd(), Some(transport.as_any()))?;
        let callback = protocol.getattr(intern!(py, "connection_made"))?;
        let arguments = Arguments::One([transport.clone().into_any().unbind()]);
        let start_reading = || {
            let method = transport.getattr(intern!(py, "_start_reading"))?;
            AsyncioLoop::schedule(owner, method, Arguments::None)
        };
        if owner.get().is_debug() || owner.get().ready(py).len() != self.waiting {
            AsyncioLoop::schedule(owner, callback, arguments)?;
            return start_reading();
        }
        let call = Call { callback: callback.unbind(), arguments, context: copy_current(py)? };
        match context::run(py, &call.context, &call.callback, &call.arguments) {
            Ok(()) => {
                call.release(py);
                Transport::start_reading(transport)
            }
            Err(error) => {
                start_reading()?;
                handle::failed(Handle::make(owner, call)?.bind(py), error)
            }
        }
    }
}
