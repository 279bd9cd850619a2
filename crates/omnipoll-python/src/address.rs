//! Addresses as the `socket` module has them.

use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;

use omnipoll::Address;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::finalization::protect_thread;

/// An internet address: "127.0.0.1:53", or the (host, port) of the socket module, whose host is an IP
/// address too.
pub(crate) fn internet(object: &Bound<'_, PyAny>) -> PyResult<Address> {
    protect_thread();
    let parsed = match object.cast::<PyTuple>() {
        Ok(tuple) => from_tuple(tuple)?,
        Err(_) => object.extract::<String>()?.parse().ok(),
    };
    let address: SocketAddr = parsed.ok_or_else(|| {
        PyValueError::new_err(format!(
            "{} is no IP address with a port",
            object.repr().map_or_else(|_| "it".into(), |it| it.to_string())
        ))
    })?;
    Ok(address.into())
}

/// (host, port), and of IPv6 also (host, port, flowinfo, scope_id). `None` for a host that is no IP address.
fn from_tuple(tuple: &Bound<'_, PyTuple>) -> PyResult<Option<SocketAddr>> {
    let (host, port, flowinfo, scope): (String, u16, u32, u32) = match tuple.len() {
        2 => {
            let (host, port) = tuple.extract()?;
            (host, port, 0, 0)
        }
        _ => tuple.extract()?,
    };
    Ok(host.parse().ok().map(|ip| match ip {
        IpAddr::V4(ip) => (ip, port).into(),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, flowinfo, scope).into(),
    }))
}

/// As `getpeername()` of the socket module returns it: (host, port) of IPv4, (host, port, flowinfo,
/// scope_id) of IPv6, a str for the path of a unix socket, empty without a name, and bytes for an abstract
/// name. An IPv4 address of an IPv6 socket is one of IPv4, as in the text.
pub(crate) fn to_python(address: &Address, py: Python<'_>) -> PyResult<Py<PyAny>> {
    let object = match address {
        Address::V4(address) => (address.ip().to_string(), address.port()).into_pyobject(py)?.into_any(),
        Address::V6(address) => match address.ip().to_ipv4_mapped() {
            Some(ip) => (ip.to_string(), address.port()).into_pyobject(py)?.into_any(),
            None => (address.ip().to_string(), address.port(), address.flowinfo(), address.scope_id())
                .into_pyobject(py)?
                .into_any(),
        },
        Address::Unnamed => PyString::new(py, "").into_any(),
        Address::Unix(name) if name.starts_with(b"\0") => PyBytes::new(py, name).into_any(),
        Address::Unix(path) => OsStr::from_bytes(path).into_pyobject(py)?.into_any(),
    };
    Ok(object.unbind())
}
