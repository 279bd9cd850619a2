//! Addresses in the kernel's form: sockaddr(3type).

use std::io;
use std::mem::{offset_of, size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::ptr;

use libc::{
    c_int, sa_family_t, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, sockaddr_un, socklen_t,
};

use super::Address;
use crate::error::bare;

/// An address as the kernel writes and reads it.
pub(super) struct SocketAddress {
    storage: sockaddr_storage,
    pub(super) length: socklen_t,
}

impl SocketAddress {
    pub(super) const CAPACITY: socklen_t = size_of::<sockaddr_storage>() as socklen_t;

    #[inline]
    pub(super) const fn new() -> Self {
        // SAFETY: `sockaddr_storage` is plain old data, for which all zeroes is a value.
        Self { storage: unsafe { zeroed() }, length: Self::CAPACITY }
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut sockaddr {
        ptr::from_mut(&mut self.storage).cast()
    }

    /// What the kernel wrote; unnamed for any other family.
    #[inline]
    pub(super) fn address(&self) -> Address {
        let storage = ptr::from_ref(&self.storage);
        match c_int::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the storage is large enough and aligned for every address, and any bytes are a value.
                let address = unsafe { *storage.cast::<sockaddr_in>() };
                let ip = Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr));
                Address::V4(SocketAddrV4::new(ip, u16::from_be(address.sin_port)))
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let address = unsafe { *storage.cast::<sockaddr_in6>() };
                let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
                let port = u16::from_be(address.sin6_port);
                Address::V6(SocketAddrV6::new(ip, port, address.sin6_flowinfo, address.sin6_scope_id))
            }
            libc::AF_UNIX => Address::unix(self.path()),
            _ => Address::Unnamed,
        }
    }

    /// The bytes after the family of a unix address, as many as the kernel said.
    fn path(&self) -> &[u8] {
        // A name may fill its field without a zero at the end, and then counts one more.
        let end = (self.length.min(Self::CAPACITY)) as usize;
        let bytes: *const u8 = ptr::from_ref(&self.storage).cast();
        // SAFETY: every byte of the storage is initialised, and `end` is within it.
        let bytes = unsafe { std::slice::from_raw_parts(bytes, end) };
        bytes.get(offset_of!(sockaddr_un, sun_path)..).unwrap_or_default()
    }

    /// Sets what the kernel will read.
    #[inline]
    pub(super) fn set(&mut self, address: &Address) -> io::Result<()> {
        let storage = ptr::from_mut(&mut self.storage);
        self.length = match address {
            Address::V4(address) => {
                // SAFETY: the storage is large enough and aligned for every address; it was all zeroes.
                let raw = unsafe { &mut *storage.cast::<sockaddr_in>() };
                raw.sin_family = libc::AF_INET as sa_family_t;
                raw.sin_port = address.port().to_be();
                raw.sin_addr.s_addr = address.ip().to_bits().to_be();
                size_of::<sockaddr_in>()
            }
            Address::V6(address) => {
                // SAFETY: as above.
                let raw = unsafe { &mut *storage.cast::<sockaddr_in6>() };
                raw.sin6_family = libc::AF_INET6 as sa_family_t;
                raw.sin6_port = address.port().to_be();
                raw.sin6_addr.s6_addr = address.ip().octets();
                raw.sin6_flowinfo = address.flowinfo();
                raw.sin6_scope_id = address.scope_id();
                size_of::<sockaddr_in6>()
            }
            Address::Unix(name) => {
                // SAFETY: as above.
                let raw = unsafe { &mut *storage.cast::<sockaddr_un>() };
                raw.sun_family = libc::AF_UNIX as sa_family_t;
                if name.len() > raw.sun_path.len() {
                    return Err(bare(libc::ENAMETOOLONG));
                }
                for (to, &from) in raw.sun_path.iter_mut().zip(name.iter()) {
                    *to = from as _;
                }
                offset_of!(sockaddr_un, sun_path) + name.len()
            }
            Address::Unnamed => return Err(bare(libc::EDESTADDRREQ)),
        } as socklen_t;
        Ok(())
    }
}
