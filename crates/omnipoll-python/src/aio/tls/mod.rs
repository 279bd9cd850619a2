//! TLS: the part of `asyncio.sslproto` that every message goes through.
//!
//! Handshakes, the end, timeouts and what is reported are the standard library's own code, from which
//! `omnipoll.aio.tls` derives its class. It has its state in attributes, those of which a message depends
//! on are here. The objects that encrypt and decrypt are the ssl module's.

mod buffer;
mod class;
mod ends;
mod reading;
mod writing;

use pyo3::prelude::*;

pub(crate) use self::buffer::TlsBuffer;
pub(crate) use self::class::Tls;

/// Gives the class the method that is called without a tuple for its argument.
pub(super) fn install(py: Python<'_>) -> PyResult<()> {
    writing::install(py)
}
