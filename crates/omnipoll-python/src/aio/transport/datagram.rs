//! `DatagramTransport`: the transport of a socket of datagrams.

use std::ffi::CStr;
use std::io;

use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::class::Transport;
use super::write_queue::{Data, Piece};
use crate::aio::address::SocketAddress;
use crate::aio::arguments::Arguments;
use crate::aio::report::is_exit;
use crate::aio::socket;
use crate::aio::AsyncioLoop;
use crate::convert::reason;
use crate::fastcall::{self, Argument, Method};

/// How many datagrams are received before others have their turn.
const DATAGRAMS: usize = 16;

/// The native half of the transport of datagrams; not for use by itself.
#[pyclass(frozen, subclass, extends = Transport, module = "omnipoll._native")]
pub(crate) struct DatagramTransport;

struct SendTo;

pub(super) fn install(py: Python<'_>) -> PyResult<()> {
    fastcall::install::<SendTo, 2>(py)
}

impl Method<2> for SendTo {
    type Class = DatagramTransport;
    const METHOD: &'static CStr = c"sendto";
    const DOCUMENTATION: &'static CStr = c"sendto($self, data, addr=None)\n--\n\n\
        Sends a datagram to an address, or to the one the socket is connected with; queues it when the \
        socket doesn't take it.";
    const ARGUMENTS: [&'static str; 2] = ["data", "addr"];

    #[inline]
    fn call<'py>(
        this: &Bound<'py, DatagramTransport>,
        [data, address]: [Argument<'_, 'py>; 2],
    ) -> PyResult<Bound<'py, PyAny>> {
        let data = data.ok_or_else(|| {
            PyTypeError::new_err("data argument must be a bytes-like object, not 'NoneType'")
        })?;
        let address = address.map(|address| address.to_owned());
        Transport::send_to(this.as_super(), &data, address)?;
        Ok(this.py().None().into_bound(this.py()))
    }
}

#[pymethods]
impl DatagramTransport {
    #[new]
    #[pyo3(signature = (r#loop, sock, protocol, extra, address=None))]
    fn new(
        r#loop: &Bound<'_, AsyncioLoop>,
        sock: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        extra: &Bound<'_, PyDict>,
        address: Option<Py<PyAny>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let base = Transport::new(r#loop, sock, protocol, Some(extra), true)?;
        let py = sock.py();
        let peer = extra.get_item(intern!(py, "peername"))?;
        let mut state = base.state(py);
        state.is_connected = peer.is_some_and(|peer| !peer.is_none());
        state.address = address;
        drop(state);
        Ok(PyClassInitializer::from(base).add_subclass(Self))
    }

    #[getter]
    fn _address(slf: &Bound<'_, Self>) -> Option<Py<PyAny>> {
        let py = slf.py();
        let state = slf.as_super().get().state(py);
        state.address.as_ref().map(|address| address.clone_ref(py))
    }
}

// ---- Receiving -----------------------------------------------------------------------------------

impl Transport {
    /// A few datagrams, while there are any and they are wanted.
    pub(super) fn read_datagrams(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        for _ in 0..DATAGRAMS {
            let state = this.get().state(py);
            if state.lost != 0 || !state.reads {
                return Ok(());
            }
            drop(state);
            if !read_datagram(this)? {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Whether there may be more.
fn read_datagram(this: &Bound<'_, Transport>) -> PyResult<bool> {
    let py = this.py();
    let received = receive(this)?;
    let (name, method, arguments) = match received {
        Ok(None) => return Ok(false),
        Ok(Some((data, address, method))) => {
            (intern!(py, "datagram_received"), method, Arguments::Two([data, address]))
        }
        Err(failed) => {
            let error = reason(&failed).into_value(py).into_any();
            (intern!(py, "error_received"), None, Arguments::One([error]))
        }
    };
    let called = Transport::call_protocol(this, name, method, &arguments);
    arguments.release(py);
    match called {
        Ok(_) => Ok(true),
        Err(failed) => report(this, failed, "_read_ready").map(|()| true),
    }
}

type Received = (Py<PyAny>, Py<PyAny>, Option<Py<PyAny>>);

/// The datagram, its sender's address and the method that takes them.
fn receive(this: &Bound<'_, Transport>) -> PyResult<io::Result<Option<Received>>> {
    let (py, transport) = (this.py(), this.get());
    let mut address = SocketAddress::empty();
    let (data, method) = {
        let state = transport.state(py);
        let Some(owner) = &state.owner else { return Ok(Ok(None)) };
        let mut buffer = owner.get().receive_buffer(py);
        match socket::receive_from(transport.fd, &mut buffer, &mut address) {
            // An object of this type is made without the collector, which might run a finalizer.
            Ok(Some(count)) => (
                pyo3::types::PyBytes::new(py, &buffer[..count]).into_any().unbind(),
                state.calls.first.as_ref().map(|method| method.clone_ref(py)),
            ),
            Ok(None) => return Ok(Ok(None)),
            Err(failed) => return Ok(Err(failed)),
        }
    };
    Ok(Ok(Some((data, address.to_python(py)?, method))))
}

/// What the protocol raises doesn't end the transport.
fn report(this: &Bound<'_, Transport>, error: PyErr, place: &str) -> PyResult<()> {
    let py = this.py();
    let Some(owner) = this.get().owner(py) else { return Err(error) };
    let message = format!("Exception in callback {}.{place}()", this.get_type().name()?);
    AsyncioLoop::exception(&owner, &message, error, &[("transport", this.as_any())])
}

// ---- Sending -------------------------------------------------------------------------------------

impl Transport {
    fn send_to(
        this: &Bound<'_, Self>,
        object: &Bound<'_, PyAny>,
        address: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (py, transport) = (this.py(), this.get());
        let data = Data::new(object)?;
        let address = check_address(transport, address)?;
        let state = transport.state(py);
        if state.lost != 0 && state.address.is_some() {
            drop(state);
            return Self::count_lost_write(this);
        }
        let is_first = state.queue.is_empty();
        drop(state);
        if is_first {
            match send(this, data.as_slice(), object, address.as_ref()) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(failed) => return send_failed(this, failed),
            }
        }
        let piece = data.keep(py, 0).for_datagram(address.map(Bound::unbind));
        transport.state(py).queue.push(py, piece);
        Self::watch(this)?;
        Self::pause_protocol_if_due(this)
    }

    /// Sends the datagrams that wait.
    pub(super) fn flush_datagrams(this: &Bound<'_, Self>) -> PyResult<()> {
        let (py, transport) = (this.py(), this.get());
        loop {
            let piece = transport.state(py).queue.pop(py);
            let Some(piece) = piece else { break };
            match send_piece(this, &piece) {
                Ok(true) => {}
                Ok(false) => {
                    transport.state(py).queue.put_back(py, piece);
                    break;
                }
                Err(failed) => {
                    if let Err(failed) = send_failed(this, failed) {
                        report(this, failed, "_sendto_ready")?;
                    }
                }
            }
        }
        Self::resume_protocol_if_due(this)?;
        Self::finish_flush(this)
    }
}

/// The address to send to: the transport's own, if it has one.
fn check_address<'py>(
    transport: &Transport,
    given: Option<Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some(given) = given else { return Ok(None) };
    let py = given.py();
    let own = transport.state(py).address.as_ref().map(|address| address.bind(py).clone());
    match own {
        Some(own) if !given.eq(&own)? => {
            Err(PyValueError::new_err(format!("Invalid address: must be None or {own}")))
        }
        Some(_) => Ok(None),
        None => Ok(Some(given)),
    }
}

fn send_piece(this: &Bound<'_, Transport>, piece: &Piece) -> PyResult<bool> {
    let py = this.py();
    let address = piece.address.as_ref().map(|address| address.bind(py).clone());
    send(this, piece.as_slice(py), &piece.object(py), address.as_ref())
}

/// Whether the socket has taken it. What the `socket` module has to look up, it also sends.
fn send(
    this: &Bound<'_, Transport>,
    data: &[u8],
    object: &Bound<'_, PyAny>,
    address: Option<&Bound<'_, PyAny>>,
) -> PyResult<bool> {
    let (py, transport) = (this.py(), this.get());
    let state = transport.state(py);
    let own = state.address.as_ref().map(|address| address.bind(py).clone());
    let (is_connected, sock) = (state.is_connected, state.sock.as_ref().map(|sock| sock.bind(py).clone()));
    drop(state);
    let none = py.None().into_bound(py);
    // The socket object refuses what isn't an address, None too.
    let sent = match address.or(own.as_ref()).unwrap_or(&none) {
        _ if is_connected => socket::send(transport.fd, data),
        address => match SocketAddress::from_python(address) {
            Some(address) => socket::send_to(transport.fd, data, &address),
            None => {
                let Some(sock) = sock else { return Ok(true) };
                return match sock.call_method1(intern!(py, "sendto"), (object, address)) {
                    Ok(_) => Ok(true),
                    Err(error) if error.is_instance_of::<pyo3::exceptions::PyBlockingIOError>(py) => {
                        Ok(false)
                    }
                    Err(error) => Err(error),
                };
            }
        },
    };
    sent.map(|sent| sent.is_some()).map_err(|failed| reason(&failed))
}

/// The network's errors are the protocol's to hear of; others end the transport.
fn send_failed(this: &Bound<'_, Transport>, failed: PyErr) -> PyResult<()> {
    let py = this.py();
    if is_exit(py, &failed) || !failed.is_instance_of::<PyOSError>(py) {
        return Transport::fatal_error(this, failed, "Fatal write error on datagram transport");
    }
    let error = Arguments::One([failed.into_value(py).into_any()]);
    Transport::call_protocol(this, intern!(py, "error_received"), None, &error).map(drop)
}
