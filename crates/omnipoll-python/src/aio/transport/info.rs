//! What is known of a transport by names, and its socket as an object of Python's. Of an accepted connection
//! both are made when they are asked for.

use std::os::fd::RawFd;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyType};

use super::class::Transport;
use crate::aio::accepted::{make_object, Accepted};
use crate::aio::address::SocketAddress;

impl Transport {
    /// None once the connection is lost.
    pub(super) fn socket<'py>(this: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (py, transport) = (this.py(), this.get());
        loop {
            let state = transport.state(py);
            if let Some(sock) = &state.sock {
                return Ok(Some(sock.bind(py).clone()));
            }
            let Some(accepted) = state.accepted.as_ref().filter(|accepted| accepted.is_open()) else {
                return Ok(None);
            };
            let parts = accepted.parts();
            drop(state);
            let made = make_object(py, parts)?;
            let mut state = transport.state(py);
            if let Some(accepted) = state.accepted.as_mut().filter(|accepted| accepted.is_open()) {
                accepted.disown();
                state.sock = Some(made.clone().unbind());
                return Ok(Some(made));
            }
            drop(state);
            // Another thread has made one meanwhile, or the connection was lost.
            made.call_method0(intern!(py, "detach"))?;
        }
    }

    /// `get_extra_info`.
    pub(super) fn extra_info<'py>(
        this: &Bound<'py, Self>,
        name: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = this.py();
        let state = this.get().state(py);
        let is_accepted = state.accepted.is_some();
        let extra = state.extra.as_ref().map(|extra| extra.bind(py).clone());
        drop(state);
        let found = extra.map_or(Ok(None), |extra| extra.get_item(name))?;
        match name.cast::<PyString>() {
            Ok(name) if found.is_none() && is_accepted => Self::accepted_info(this, name),
            _ => Ok(found),
        }
    }

    fn accepted_info<'py>(
        this: &Bound<'py, Self>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = this.py();
        let made = match &*name.to_cow()? {
            "peername" => Self::address(this, |accepted, _| Some(accepted.peer()))?,
            "sockname" => Self::address(this, Accepted::local)?,
            "socket" => Self::socket_info(this)?,
            _ => return Ok(None),
        };
        // Not while anything is borrowed: the collector may run.
        let new = PyDict::new(py).unbind();
        let extra = this.get().state(py).extra.get_or_insert(new).bind(py).clone();
        extra.set_item(name, &made)?;
        Ok(Some(made))
    }

    fn address<'py>(
        this: &Bound<'py, Self>,
        get: impl FnOnce(&Accepted, RawFd) -> Option<SocketAddress>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, transport) = (this.py(), this.get());
        let address = transport.state(py).accepted.as_ref().and_then(|accepted| get(accepted, transport.fd));
        match address {
            Some(address) => Ok(address.to_python(py)?.into_bound(py)),
            None => Ok(py.None().into_bound(py)),
        }
    }

    /// As the standard library has it, an object without the methods that would disturb the transport.
    fn socket_info<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let (py, transport) = (this.py(), this.get());
        let sock = match Self::socket(this)? {
            Some(sock) => sock,
            None => {
                let parts = transport.state(py).accepted.as_ref().map(|accepted| accepted.parts());
                match parts {
                    Some((kind, _)) => make_object(py, (kind, None))?,
                    None => return Ok(py.None().into_bound(py)),
                }
            }
        };
        CLASS.import(py, "asyncio.trsock", "TransportSocket")?.call1((sock,))
    }

    /// All of it.
    pub(super) fn all_extra_info<'py>(this: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let py = this.py();
        for name in [intern!(py, "peername"), intern!(py, "sockname"), intern!(py, "socket")] {
            Self::extra_info(this, name)?;
        }
        Ok(this.get().state(py).extra.as_ref().map(|extra| extra.bind(py).clone()))
    }
}
