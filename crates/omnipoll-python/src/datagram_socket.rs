//! The Python class `DatagramSocket`.

use omnipoll::{Address, DatagramId};
use pyo3::prelude::*;

use crate::address::{internet, to_python};
use crate::bytes::Bytes;
use crate::convert::error;
use crate::finalization::protect_thread;

/// A datagram socket of a server, by which any thread sends at any time: Datagram.socket, or one of
/// Server.datagram_sockets. Its methods raise OSError (ESTALE) when the socket is closed, as all of
/// a server's are when it stops.
#[pyclass(frozen, eq, hash, name = "DatagramSocket", module = "omnipoll")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct PyDatagramSocket(pub(crate) DatagramId);

#[pymethods]
impl PyDatagramSocket {
    /// Sends a datagram to an address, "127.0.0.1:53" or ("127.0.0.1", 53), now. Where the kernel's buffer
    /// for the socket is full, a copy waits and is sent by the server as soon as there is room.
    ///
    /// local: the address to send from, on Linux, for a socket that is bound to all of the machine's: of
    /// a reply the datagram's local, or else a client that is connected to that address receives nothing.
    ///
    /// Raises ValueError for what is no address, and for a local one that is not this machine's; OSError
    /// (EMSGSIZE) past 65,507 bytes, (ENOBUFS) when too many wait to be sent, (EACCES, ENETUNREACH,
    /// EPERM) as the system says.
    #[pyo3(signature = (address, data, local=None))]
    fn send_to(
        &self,
        #[pyo3(from_py_with = internet)] address: Address,
        data: &Bound<'_, PyAny>,
        local: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let data = Bytes::of(data)?;
        match local {
            Some(local) => self.0.send_from(&internet(local)?, &address, &data),
            None => self.0.send_to(&address, &data),
        }
        .map_err(error)
    }

    /// send_to() the address that the socket is connected to. Raises OSError (EDESTADDRREQ) when it is
    /// not.
    fn send(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.send(&Bytes::of(data)?).map_err(error)
    }

    /// Closes the socket. What waits to be sent is sent, or counted as dropped; datagrams that it has
    /// received already may still come to the handler.
    fn close(&self) -> PyResult<()> {
        protect_thread();
        self.0.close().map_err(error)
    }

    /// Where it is bound, with the port that the system chose: "127.0.0.1:53".
    #[getter]
    fn local(&self) -> PyResult<String> {
        self.0.local().map(|local| local.to_string()).map_err(error)
    }

    /// The same as the socket module's getsockname() has it: ("127.0.0.1", 53).
    #[getter]
    fn sockname(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        to_python(&self.0.local().map_err(error)?, py)
    }

    /// The address that it is connected to, written as local is; None when it is not.
    #[getter]
    fn peer(&self) -> PyResult<Option<String>> {
        self.0.peer().map(|peer| peer.map(|peer| peer.to_string())).map_err(error)
    }

    /// Whether it is open: a bool.
    #[getter]
    fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// What no other datagram socket of this process ever has: an int.
    #[getter]
    fn id(&self) -> u64 {
        self.0.number()
    }

    fn __repr__(&self) -> String {
        match self.0.local() {
            Ok(local) => format!("<omnipoll.DatagramSocket at {local}>"),
            Err(_) => "<omnipoll.DatagramSocket, closed>".into(),
        }
    }
}
