//! The protocol's methods that are called for what arrives, looked up when the protocol is set.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};
use pyo3::{PyTraverseError, PyVisit};

use super::class::Transport;
use crate::aio::arguments::Arguments;
use crate::aio::streams;
use crate::aio::tls::Tls;

/// How a protocol takes what arrives.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// `data_received(data)`.
    Data,
    /// The same, where a stream's reader can be fed without it.
    Stream,
    /// `get_buffer(size)` and `buffer_updated(size)`.
    Buffered,
    /// By itself, to decrypt it.
    Encrypted,
    /// `datagram_received(data, address)`.
    Datagrams,
}

pub(super) struct Calls {
    pub(super) kind: Kind,
    /// What is called first; `None` where the protocol has no such method.
    pub(super) first: Option<Py<PyAny>>,
    pub(super) second: Option<Py<PyAny>>,
}

impl Calls {
    pub(super) fn none() -> Self {
        Self { kind: Kind::Data, first: None, second: None }
    }

    pub(super) fn new(protocol: &Bound<'_, PyAny>, is_datagram: bool) -> PyResult<Self> {
        static BUFFERED: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let py = protocol.py();
        let method = |name: &Bound<'_, PyString>| -> PyResult<Option<Py<PyAny>>> {
            Ok(protocol.getattr_opt(name)?.map(Bound::unbind))
        };
        if is_datagram {
            let first = method(intern!(py, "datagram_received"))?;
            return Ok(Self { kind: Kind::Datagrams, first, second: None });
        }
        if protocol.is_instance_of::<Tls>() {
            return Ok(Self { kind: Kind::Encrypted, first: None, second: None });
        }
        if protocol.is_instance(BUFFERED.import(py, "asyncio", "BufferedProtocol")?)? {
            let first = method(intern!(py, "get_buffer"))?;
            return Ok(Self { kind: Kind::Buffered, first, second: method(intern!(py, "buffer_updated"))? });
        }
        let kind = if streams::is_fed(protocol)? { Kind::Stream } else { Kind::Data };
        Ok(Self { kind, first: method(intern!(py, "data_received"))?, second: None })
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.first)?;
        visit.call(&self.second)
    }
}

impl Transport {
    /// Calls a method of the protocol: the one that was looked up before, if it is `known`.
    #[inline]
    pub(super) fn call_protocol<'py>(
        this: &Bound<'py, Self>,
        name: &Bound<'py, PyString>,
        known: Option<Py<PyAny>>,
        arguments: &Arguments,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let method = match known {
            Some(known) => known,
            None => this.get().protocol(py).getattr(name)?.unbind(),
        };
        let called = arguments.call(py, &method);
        method.drop_ref(py);
        called
    }
}
