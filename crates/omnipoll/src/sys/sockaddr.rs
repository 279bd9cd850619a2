//! Addresses in the kernel's form: sockaddr(3type).

use std::io;
use std::mem::{offset_of, size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::ptr;

use libc::{
    c_int, sa_family_t, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, sockaddr_un, socklen_t,
};

use super::Address;
use crate::error::{bare, fail};

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

    /// From bytes that a program has. `EINVAL` for fewer than an address of the family has, `EAFNOSUPPORT`
    /// for another family.
    fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        let mut address = Self::new();
        let least = [offset_of!(sockaddr_un, sun_path), size_of::<sockaddr_in>(), size_of::<sockaddr_in6>()];
        if bytes.len() < least[0] || bytes.len() > Self::CAPACITY as usize {
            return Err(fail(libc::EINVAL, "that is not the length of a socket address"));
        }
        let storage = ptr::from_mut(&mut address.storage).cast::<u8>();
        // SAFETY: the storage has room for as many bytes, and any bytes are a value.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), storage, bytes.len()) };
        address.length = bytes.len() as socklen_t;
        let least = match c_int::from(address.storage.ss_family) {
            libc::AF_UNIX => least[0],
            libc::AF_INET => least[1],
            libc::AF_INET6 => least[2],
            _ => return Err(fail(libc::EAFNOSUPPORT, "that is not an internet or Unix socket address")),
        };
        if bytes.len() < least {
            return Err(fail(libc::EINVAL, "the socket address is too short for its family"));
        }
        Ok(address)
    }

    fn bytes(&self) -> &[u8] {
        let bytes: *const u8 = ptr::from_ref(&self.storage).cast();
        // SAFETY: every byte of the storage is initialised, and the length is within it.
        unsafe { std::slice::from_raw_parts(bytes, self.length.min(Self::CAPACITY) as usize) }
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
        self.bytes().get(offset_of!(sockaddr_un, sun_path)..).unwrap_or_default()
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

/// For the bindings, as system calls have them.
#[doc(hidden)]
impl Address {
    /// The bytes of sockaddr(3type): of a socket without a name the family alone.
    pub fn to_sockaddr(&self) -> io::Result<Vec<u8>> {
        let mut address = SocketAddress::new();
        match self {
            Self::Unnamed => {
                address.storage.ss_family = libc::AF_UNIX as sa_family_t;
                address.length = offset_of!(sockaddr_un, sun_path) as socklen_t;
            }
            named => address.set(named)?,
        }
        Ok(address.bytes().to_vec())
    }

    /// The address that such bytes stand for. `EINVAL` for too few or too many, `EAFNOSUPPORT` for those of
    /// another family.
    pub fn from_sockaddr(bytes: &[u8]) -> io::Result<Self> {
        SocketAddress::from_bytes(bytes).map(|address| address.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn an_address_comes_back_from_its_bytes() {
        let internet = ["127.0.0.1:80", "[fe80::1%3]:53"].map(|text| text.parse::<SocketAddr>().unwrap());
        let names = [Address::Unnamed, Address::unix(b"/run/web"), Address::unix(&[b'x'; 108])];
        for address in internet.map(Address::from).into_iter().chain(names) {
            let bytes = address.to_sockaddr().unwrap();
            assert_eq!(Address::from_sockaddr(&bytes).unwrap(), address);
        }
    }

    #[test]
    fn bytes_that_are_no_address_are_refused() {
        let bytes = Address::from("[::1]:53".parse::<SocketAddr>().unwrap()).to_sockaddr().unwrap();
        for wrong in [&bytes[..0], &bytes[..1], &bytes[..2], &bytes[..20], &[0; 200]] {
            assert_eq!(Address::from_sockaddr(wrong).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
        let other = [libc::AF_NETLINK as u8, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Address::from_sockaddr(&other).unwrap_err().raw_os_error(), Some(libc::EAFNOSUPPORT));
    }
}
