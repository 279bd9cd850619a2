//! The Python class `Datagram`.

use std::ptr::NonNull;

use omnipoll::{Address, Datagram, DatagramId};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::address::{internet, to_python};
use crate::bytes::Bytes;
use crate::convert::error;
use crate::datagram_socket::PyDatagramSocket;
use crate::finalization::protect_thread;
use crate::scoped_ref::ScopedRef;

/// A datagram that has arrived, and the way to answer it: valid in the call of on_datagram that
/// it is handed to.
#[pyclass(frozen, name = "Datagram", module = "omnipoll")]
pub(crate) struct PyDatagram {
    datagram: ScopedRef<Datagram<'static>>,
    sender: Address,
    local: Address,
    socket: DatagramId,
}

impl PyDatagram {
    /// Calls with an object that stands for the core's datagram meanwhile.
    pub(crate) fn with<R>(
        py: Python<'_>,
        datagram: &mut Datagram<'_>,
        call: impl FnOnce(&Py<PyAny>) -> PyResult<R>,
    ) -> PyResult<R> {
        let (sender, local, socket) = (datagram.peer().clone(), datagram.local(), datagram.socket());
        let ours = Py::new(py, Self { datagram: ScopedRef::new(py), sender, local, socket })?;
        // SAFETY: the exclusive reference is ours during this call, and the guard lives no
        // longer.
        let _guard = unsafe { ours.get().datagram.set(py, NonNull::from(datagram).cast()) };
        call(ours.as_any())
    }

    fn here<R>(&self, py: Python<'_>, act: impl FnOnce(&mut Datagram<'_>) -> R) -> PyResult<R> {
        protect_thread();
        self.datagram
            .with(py, |datagram| act(datagram))
            .ok_or_else(|| PyOSError::new_err((libc::ESTALE, "a datagram is valid in its on_datagram only")))
    }
}

#[pymethods]
impl PyDatagram {
    /// The sender: "127.0.0.1:5000", "[::1]:5000".
    #[getter]
    fn peer(&self) -> String {
        self.sender.to_string()
    }

    /// The address of this machine that it was sent to, also where the socket is bound to all of
    /// them; for a broadcast or a multicast the one that a reply has.
    #[getter]
    fn local(&self) -> String {
        self.local.to_string()
    }

    /// The sender as the socket module has it: ("127.0.0.1", 5000), ("::1", 5000, 0, 0).
    #[getter]
    fn peername(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        to_python(&self.sender, py)
    }

    /// The same of local.
    #[getter]
    fn sockname(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        to_python(&self.local, py)
    }

    /// The socket that it came to, which sends from any thread and at any time: a DatagramSocket.
    #[getter]
    fn socket(&self) -> PyDatagramSocket {
        PyDatagramSocket(self.socket)
    }

    /// Sends a datagram back to its sender, from the address that it was sent to. Raises as
    /// send_to().
    fn reply(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = Bytes::of(data)?;
        self.here(py, |datagram| datagram.reply(&data))?.map_err(error)
    }

    /// Sends a datagram from the same socket to an address, which is written as peer or peername are.
    /// It is copied now and goes out when the datagrams that came together have been handled; one that
    /// the system refuses then is counted as dropped.
    ///
    /// Raises ValueError for what is no address, OSError (EMSGSIZE) past 65,507 bytes and
    /// (ENOBUFS) when too many wait to be sent, (ESTALE) outside its on_datagram.
    fn send_to(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = internet)] address: Address,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let data = Bytes::of(data)?;
        self.here(py, |datagram| datagram.send_to(&address, &data))?.map_err(error)
    }

    fn __repr__(&self) -> String {
        format!("<omnipoll.Datagram from {}>", self.sender)
    }
}
