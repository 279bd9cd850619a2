//! Addresses of sockets, as the `socket` module has them.

use std::ffi::OsStr;
use std::mem::{self, offset_of};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;

use libc::{sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, sockaddr_un, socklen_t};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// An address as the kernel has it.
pub(super) struct SocketAddress {
    storage: sockaddr_storage,
    len: socklen_t,
}

impl SocketAddress {
    pub(super) fn empty() -> Self {
        // SAFETY: all zeros is an address without a family.
        Self { storage: unsafe { mem::zeroed() }, len: size_of::<sockaddr_storage>() as socklen_t }
    }

    /// What a system call fills.
    pub(super) fn place(&mut self) -> (*mut sockaddr, *mut socklen_t) {
        ((&raw mut self.storage).cast(), &raw mut self.len)
    }

    fn read<T: Copy>(&self) -> T {
        const { assert!(size_of::<T>() <= size_of::<sockaddr_storage>()) };
        // SAFETY: there are as many bytes, suitably aligned, and an address has no invalid values.
        unsafe { (&raw const self.storage).cast::<T>().read() }
    }

    /// (host, port) of IPv4, (host, port, flowinfo, scope_id) of IPv6, a str for the path of a Unix socket
    /// and bytes for an abstract name. `None` for what only the `socket` module can tell: other families,
    /// and IPv6 addresses whose host has the name of an interface.
    pub(super) fn to_python(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let object = match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                let address: sockaddr_in = self.read();
                let host = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
                (host.to_string(), u16::from_be(address.sin_port)).into_pyobject(py)?.into_any()
            }
            libc::AF_INET6 => {
                let address: sockaddr_in6 = self.read();
                if address.sin6_scope_id != 0 {
                    return Ok(None);
                }
                let host = Ipv6Addr::from(address.sin6_addr.s6_addr).to_string();
                let port = u16::from_be(address.sin6_port);
                (host, port, u32::from_be(address.sin6_flowinfo), 0).into_pyobject(py)?.into_any()
            }
            libc::AF_UNIX => self.unix_to_python(py)?,
            _ => return Ok(None),
        };
        Ok(Some(object.unbind()))
    }

    fn unix_to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let address: sockaddr_un = self.read();
        let len = (self.len as usize).saturating_sub(offset_of!(sockaddr_un, sun_path));
        let name: Vec<u8> = address.sun_path.iter().take(len).map(|&byte| byte as u8).collect();
        if name.first() == Some(&0) {
            return Ok(PyBytes::new(py, &name).into_any());
        }
        let path = name.split(|&byte| byte == 0).next().unwrap_or_default();
        match path {
            [] => Ok(PyString::new(py, "").into_any()),
            path => Ok(OsStr::from_bytes(path).into_pyobject(py)?.into_any()),
        }
    }
}
