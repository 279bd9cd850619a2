//! Socket options: socket(7), tcp(7), ip(7), ipv6(7).

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
#[cfg(target_os = "linux")]
use std::time::Duration;

use libc::{c_int, socklen_t};

use super::retry::retry;

/// Makes the close of a TCP socket drop what is unsent and reset the connection: `SO_LINGER`
/// with no time, socket(7).
pub(crate) fn reset_on_close(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &libc::linger { l_onoff: 1, l_linger: 0 })
}

/// Whether the kernel takes `length` bytes on a stream as a whole, unless it is short of memory:
/// there is room for twice as many, as each may need as much for what belongs to its packet.
/// `SO_MEMINFO` (Linux 4.12).
#[cfg(target_os = "linux")]
pub(crate) fn has_room(fd: BorrowedFd<'_>, length: usize) -> bool {
    // SK_MEMINFO_WMEM_ALLOC, SK_MEMINFO_SNDBUF and SK_MEMINFO_WMEM_QUEUED of linux/sock_diag.h.
    const ALLOCATED: usize = 2;
    const LIMIT: usize = 3;
    const QUEUED: usize = 5;
    const OVERHEAD: usize = 4096;
    let mut info = [0_u32; 9];
    let mut size = size_of_val(&info) as socklen_t;
    // SAFETY: the array is of that size.
    let got = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &mut size,
        )
    };
    let used = info[ALLOCATED].max(info[QUEUED]) as usize;
    got == 0 && length.saturating_mul(2).saturating_add(used + OVERHEAD) <= info[LIMIT] as usize
}

/// Whether the kernel takes `length` bytes as a whole: unknown here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn has_room(_: BorrowedFd<'_>, _: usize) -> bool {
    false
}

/// Sends small writes at once: `TCP_NODELAY`, tcp(7). An error on other than TCP sockets.
pub(crate) fn no_delay(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_option::<c_int>(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1)
}

pub(crate) fn set_option<T>(fd: impl AsRawFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as socklen_t;
    // SAFETY: `value` is readable for its size.
    retry(|| unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, ptr::from_ref(value).cast(), size) as isize
    })
    .map(drop)
}

/// Has the kernel report a connection only when its peer has sent something, or after so long:
/// `TCP_DEFER_ACCEPT`, tcp(7).
#[cfg(target_os = "linux")]
pub(crate) fn defer_accept(fd: BorrowedFd<'_>, time: Duration) -> io::Result<()> {
    let seconds = c_int::try_from(time.as_secs().max(1)).unwrap_or(c_int::MAX);
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &seconds)
}

/// Takes data with the first packet of up to so many connections that are not established yet:
/// `TCP_FASTOPEN`, tcp(7).
#[cfg(target_os = "linux")]
pub(crate) fn fast_open(fd: BorrowedFd<'_>, length: u32) -> io::Result<()> {
    let length = c_int::try_from(length).unwrap_or(c_int::MAX);
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, &length)
}

/// May be bound to an address that this machine does not have yet: `IP_FREEBIND`, ip(7).
#[cfg(target_os = "linux")]
pub(crate) fn free_bind(fd: BorrowedFd<'_>, is_v6: bool) -> io::Result<()> {
    match is_v6 {
        true => set_option::<c_int>(fd, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, &1),
        false => set_option::<c_int>(fd, libc::IPPROTO_IP, libc::IP_FREEBIND, &1),
    }
}

/// Accepts what is routed here for any address: `IP_TRANSPARENT`, ip(7). It needs CAP_NET_ADMIN.
#[cfg(target_os = "linux")]
pub(crate) fn transparent(fd: BorrowedFd<'_>, is_v6: bool) -> io::Result<()> {
    match is_v6 {
        true => set_option::<c_int>(fd, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, &1),
        false => set_option::<c_int>(fd, libc::IPPROTO_IP, libc::IP_TRANSPARENT, &1),
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{defer_accept, fast_open, free_bind, transparent};

/// Options that only Linux has.
#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::io;
    use std::os::fd::BorrowedFd;
    use std::time::Duration;

    use crate::error::plain;

    pub(crate) fn defer_accept(_: BorrowedFd<'_>, _: Duration) -> io::Result<()> {
        Err(plain(libc::ENOTSUP))
    }

    pub(crate) fn fast_open(_: BorrowedFd<'_>, _: u32) -> io::Result<()> {
        Err(plain(libc::ENOTSUP))
    }

    pub(crate) fn free_bind(_: BorrowedFd<'_>, _: bool) -> io::Result<()> {
        Err(plain(libc::ENOTSUP))
    }

    pub(crate) fn transparent(_: BorrowedFd<'_>, _: bool) -> io::Result<()> {
        Err(plain(libc::ENOTSUP))
    }
}

/// The index of a network interface, if there is one of that name.
pub(crate) fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the text ends with a zero.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

/// Sets on one listening TCP socket the options of another that its clients inherit, as far as the
/// system has them: socket(7), tcp(7), ip(7), ipv6(7). What is equal already is left alone, so that
/// nothing is asked for that needs a privilege.
pub(crate) fn copy_options(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET};
    let common = [
        (SOL_SOCKET, libc::SO_KEEPALIVE),
        (SOL_SOCKET, libc::SO_LINGER),
        (SOL_SOCKET, libc::SO_OOBINLINE),
        (SOL_SOCKET, libc::SO_DONTROUTE),
        (SOL_SOCKET, libc::SO_RCVLOWAT),
        (SOL_SOCKET, libc::SO_RCVBUF),
        (SOL_SOCKET, libc::SO_SNDBUF),
        (IPPROTO_TCP, libc::TCP_NODELAY),
        (IPPROTO_TCP, libc::TCP_MAXSEG),
        (IPPROTO_IP, libc::IP_TOS),
        (IPPROTO_IP, libc::IP_TTL),
    ];
    #[cfg(target_os = "linux")]
    let of_linux = [
        (SOL_SOCKET, libc::SO_PRIORITY),
        (SOL_SOCKET, libc::SO_MARK),
        (SOL_SOCKET, libc::SO_BUSY_POLL),
        (IPPROTO_TCP, libc::TCP_CONGESTION),
        (IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
        (IPPROTO_TCP, libc::TCP_FASTOPEN),
        (IPPROTO_TCP, libc::TCP_KEEPIDLE),
        (IPPROTO_TCP, libc::TCP_KEEPINTVL),
        (IPPROTO_TCP, libc::TCP_KEEPCNT),
        (IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
        (IPPROTO_TCP, libc::TCP_LINGER2),
        (IPPROTO_TCP, libc::TCP_SYNCNT),
        (IPPROTO_TCP, libc::TCP_WINDOW_CLAMP),
        (IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT),
        (IPPROTO_IPV6, libc::IPV6_TCLASS),
        (IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    ];
    #[cfg(not(target_os = "linux"))]
    let of_linux = [(IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS)];
    for (level, name) in common.into_iter().chain(of_linux) {
        let (Some(wanted), Some(present)) = (option(from, level, name), option(to, level, name)) else {
            continue;
        };
        if wanted != present {
            // Linux doubles what is asked for the buffers, socket(7).
            let is_doubled = cfg!(target_os = "linux")
                && level == SOL_SOCKET
                && [libc::SO_RCVBUF, libc::SO_SNDBUF].contains(&name);
            let [first, second, third, fourth] = wanted;
            let first = if is_doubled { first / 2 } else { first };
            let _ = set_option(to, level, name, &[first, second, third, fourth]);
        }
    }
}

/// An option, if the socket has it: a number, or what else fits, as the name of a congestion control.
fn option(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> Option<[c_int; 4]> {
    let (mut value, mut length) = ([0; 4], size_of::<[c_int; 4]>() as socklen_t);
    let (place, room) = (ptr::from_mut(&mut value).cast(), ptr::from_mut(&mut length));
    // SAFETY: the value has the room that its length says.
    retry(|| unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, place, room) as isize }).ok()?;
    Some(value)
}
