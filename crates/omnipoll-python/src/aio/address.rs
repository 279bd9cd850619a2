//! Addresses of sockets, as the `socket` module has them.

use std::ffi::{CStr, OsStr};
use std::mem::{self, offset_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::slice;

use libc::{sa_family_t, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, sockaddr_un, socklen_t};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString, PyTuple};

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

    /// What a system call reads.
    pub(super) fn get(&self) -> (*const sockaddr, socklen_t) {
        ((&raw const self.storage).cast(), self.len)
    }

    /// As much of it as the kernel has filled.
    pub(super) fn to_bytes(&self) -> Box<[u8]> {
        let len = (self.len as usize).min(size_of::<sockaddr_storage>());
        // SAFETY: there are that many bytes, and all of them were written when it was made.
        unsafe { slice::from_raw_parts((&raw const self.storage).cast::<u8>(), len) }.into()
    }

    /// What [`to_bytes`](Self::to_bytes) returned.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut address = Self::empty();
        let len = bytes.len().min(size_of::<sockaddr_storage>());
        // SAFETY: there is room for so many bytes, and an address has no invalid values.
        unsafe { (&raw mut address.storage).cast::<u8>().copy_from(bytes.as_ptr(), len) };
        address.len = len as socklen_t;
        address
    }

    fn new<T: Copy>(address: T) -> Self {
        const { assert!(size_of::<T>() <= size_of::<sockaddr_storage>()) };
        let mut made = Self::empty();
        // SAFETY: there is room for it, suitably aligned.
        unsafe { (&raw mut made.storage).cast::<T>().write(address) };
        made.len = size_of::<T>() as socklen_t;
        made
    }

    /// (host, port) of IPv4 and IPv6, the host in digits. `None` for what the `socket` module has to look
    /// up, or to refuse.
    pub(super) fn from_python(address: &Bound<'_, PyAny>) -> Option<Self> {
        let tuple = address.cast_exact::<PyTuple>().ok()?;
        if tuple.len() != 2 {
            return None;
        }
        let host = tuple.get_item(0).ok()?;
        let port: u16 = tuple.get_item(1).ok()?.cast_exact::<PyInt>().ok()?.extract().ok()?;
        let host: IpAddr = host.cast_exact::<PyString>().ok()?.to_cow().ok()?.parse().ok()?;
        // SAFETY: all zeros is an address of this kind.
        let (mut v4, mut v6): (sockaddr_in, sockaddr_in6) = unsafe { (mem::zeroed(), mem::zeroed()) };
        Some(match host {
            IpAddr::V4(host) => {
                v4.sin_family = libc::AF_INET as sa_family_t;
                v4.sin_port = port.to_be();
                v4.sin_addr.s_addr = u32::from(host).to_be();
                Self::new(v4)
            }
            IpAddr::V6(host) => {
                v6.sin6_family = libc::AF_INET6 as sa_family_t;
                v6.sin6_port = port.to_be();
                v6.sin6_addr.s6_addr = host.octets();
                Self::new(v6)
            }
        })
    }

    /// (host, port) of IPv4, (host, port, flowinfo, scope_id) of IPv6, a str for the path of a Unix socket
    /// and bytes for an abstract name. None where there is no address, and for other families.
    pub(super) fn to_python(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if self.len == 0 {
            return Ok(py.None());
        }
        let object = match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                let address: sockaddr_in = self.read();
                let host = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
                (host.to_string(), u16::from_be(address.sin_port)).into_pyobject(py)?.into_any()
            }
            libc::AF_INET6 => {
                let address: sockaddr_in6 = self.read();
                let port = u16::from_be(address.sin6_port);
                let flow = u32::from_be(address.sin6_flowinfo);
                (self.ipv6_host(&address), port, flow, address.sin6_scope_id).into_pyobject(py)?.into_any()
            }
            libc::AF_UNIX => self.unix_to_python(py)?,
            _ => py.None().into_bound(py),
        };
        Ok(object.unbind())
    }

    /// With the name of its interface, where it holds on one only.
    fn ipv6_host(&self, address: &sockaddr_in6) -> String {
        let digits = || Ipv6Addr::from(address.sin6_addr.s6_addr).to_string();
        if address.sin6_scope_id == 0 {
            return digits();
        }
        let mut host = [0_u8; libc::NI_MAXHOST as usize];
        let (place, size) = self.get();
        // SAFETY: the address is as long as `size` says, the text has as much room as is said.
        let failed = unsafe {
            let room = host.len() as socklen_t;
            let text = host.as_mut_ptr().cast();
            libc::getnameinfo(place, size, text, room, std::ptr::null_mut(), 0, libc::NI_NUMERICHOST)
        };
        let text = CStr::from_bytes_until_nul(&host).ok().filter(|_| failed == 0);
        text.map_or_else(digits, |text| text.to_string_lossy().into_owned())
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
