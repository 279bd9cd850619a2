//! What stands beside the data of a message, cmsg(3): to which of the machine's addresses a datagram was
//! sent, and from which one an answer is, `IP_PKTINFO` of ip(7) and `IPV6_PKTINFO` of ipv6(7); and that it
//! is several datagrams, `UDP_SEGMENT` of udp(7).
//!
//! By default a socket that is bound to every address answers from the address of the route to the
//! client, and a client that is connected to another one does not receive that. A datagram from IPv4 on
//! an IPv6 socket has both kinds of information; only IPv4's has the address to answer a broadcast
//! from. On systems other than Linux the system chooses.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

#[cfg(target_os = "linux")]
pub(crate) use linux::{enable, has_segments, local, Control};
#[cfg(not(target_os = "linux"))]
pub(crate) use none::{enable, has_segments, local, Control};

#[cfg(target_os = "linux")]
mod linux {
    use std::mem::size_of;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::os::fd::AsRawFd;
    use std::ptr;

    use libc::{c_int, cmsghdr, in6_pktinfo, in_pktinfo, msghdr};

    use super::*;
    use crate::error::system;

    /// Room for one message of each kind that is received, 32 and 40 bytes, and for the two that are sent.
    const CAPACITY: usize = 72;

    /// The control messages of a datagram: cmsg(3).
    #[repr(C, align(8))]
    pub(crate) struct Control {
        bytes: [u8; CAPACITY],
        /// How many of them are messages to be sent.
        length: usize,
    }

    /// Has the kernel report it for each datagram.
    pub(crate) fn enable(fd: BorrowedFd<'_>, is_ipv6: bool) -> io::Result<()> {
        set(fd, libc::IPPROTO_IP, libc::IP_PKTINFO)?;
        if is_ipv6 {
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?;
        }
        Ok(())
    }

    fn set(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<()> {
        let (yes, size): (c_int, _) = (1, size_of::<c_int>() as libc::socklen_t);
        // SAFETY: the value is readable for its size.
        let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, ptr::from_ref(&yes).cast(), size) };
        if done < 0 {
            return Err(system("IP_PKTINFO can't be set"));
        }
        Ok(())
    }

    impl Control {
        pub(crate) const fn new() -> Self {
            Self { bytes: [0; CAPACITY], length: 0 }
        }

        /// Has the kernel write the control messages here.
        #[inline]
        pub(crate) fn lend(&mut self, header: &mut msghdr) {
            header.msg_control = self.bytes.as_mut_ptr().cast();
            header.msg_controllen = CAPACITY as _;
        }

        /// Has the kernel send from `ip`.
        pub(crate) fn set_source(&mut self, header: &mut msghdr, ip: IpAddr) {
            match ip.to_canonical() {
                IpAddr::V4(ip) => {
                    let source = libc::in_addr { s_addr: ip.to_bits().to_be() };
                    let info = in_pktinfo {
                        ipi_ifindex: 0,
                        ipi_spec_dst: source,
                        ipi_addr: libc::in_addr { s_addr: 0 },
                    };
                    self.push(header, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
                }
                IpAddr::V6(ip) => {
                    let source = libc::in6_addr { s6_addr: ip.octets() };
                    let info = in6_pktinfo { ipi6_addr: source, ipi6_ifindex: 0 };
                    self.push(header, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
                }
            }
        }

        /// Has the kernel send one datagram for each `length` bytes: `UDP_SEGMENT` of udp(7).
        pub(crate) fn set_segments(&mut self, header: &mut msghdr, length: u16) {
            self.push(header, libc::SOL_UDP, libc::UDP_SEGMENT, length);
        }

        /// Adds a message to those of `header`, which are here.
        fn push<T>(&mut self, header: &mut msghdr, level: c_int, kind: c_int, info: T) {
            let size = size_of::<T>() as libc::c_uint;
            // SAFETY: takes no pointer.
            let space = unsafe { libc::CMSG_SPACE(size) } as usize;
            let message: *mut cmsghdr = self.bytes[self.length..self.length + space].as_mut_ptr().cast();
            self.length += space;
            header.msg_control = self.bytes.as_mut_ptr().cast();
            header.msg_controllen = self.length as _;
            // SAFETY: the room for it is checked above. It is aligned as the buffer is, since every message
            // before has the length that alignment asks for.
            unsafe {
                (*message).cmsg_level = level;
                (*message).cmsg_type = kind;
                (*message).cmsg_len = libc::CMSG_LEN(size) as _;
                libc::CMSG_DATA(message).cast::<T>().write_unaligned(info);
            }
        }
    }

    /// Whether the socket knows `UDP_SEGMENT`: one of UDP, on Linux 4.18. Any other takes what it does not
    /// know for nothing, and sends a single datagram.
    pub(crate) fn has_segments(fd: BorrowedFd<'_>) -> bool {
        let (mut value, mut size): (c_int, _) = (0, size_of::<c_int>() as libc::socklen_t);
        let (place, option) = (ptr::from_mut(&mut value).cast(), libc::UDP_SEGMENT);
        // SAFETY: the value is writable for its size.
        unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_UDP, option, place, &mut size) == 0 }
    }

    /// The address that a datagram was sent to, and that an answer is sent from; none if the kernel has
    /// not reported it, or for a multicast address, from which nothing can be sent.
    #[inline]
    pub(crate) fn local(header: &msghdr) -> Option<IpAddr> {
        let mut found = None;
        // SAFETY: the kernel has filled the control buffer as far as the header says.
        let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
        while !message.is_null() {
            // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR have checked that it is there.
            let (level, kind) = unsafe { ((*message).cmsg_level, (*message).cmsg_type) };
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    // SAFETY: this is what a message of the kind carries.
                    let info: in_pktinfo =
                        unsafe { libc::CMSG_DATA(message).cast::<in_pktinfo>().read_unaligned() };
                    return Some(IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(info.ipi_spec_dst.s_addr))));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    // SAFETY: as above.
                    let info: in6_pktinfo =
                        unsafe { libc::CMSG_DATA(message).cast::<in6_pktinfo>().read_unaligned() };
                    let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    found = (!ip.is_multicast()).then_some(IpAddr::V6(ip));
                }
                _ => {}
            }
            // SAFETY: as above.
            message = unsafe { libc::CMSG_NXTHDR(header, message) };
        }
        found
    }
}

#[cfg(not(target_os = "linux"))]
mod none {
    use super::*;

    pub(crate) struct Control;

    pub(crate) fn enable(_: BorrowedFd<'_>, _: bool) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn has_segments(_: BorrowedFd<'_>) -> bool {
        false
    }

    pub(crate) fn local(_: &libc::msghdr) -> Option<IpAddr> {
        None
    }

    impl Control {
        pub(crate) const fn new() -> Self {
            Self
        }

        pub(crate) fn lend(&mut self, _: &mut libc::msghdr) {}

        pub(crate) fn set_source(&mut self, _: &mut libc::msghdr, _: IpAddr) {}

        pub(crate) fn set_segments(&mut self, _: &mut libc::msghdr, _: u16) {}
    }
}
