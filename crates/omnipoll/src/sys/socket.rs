//! The system calls of sockets.
//!
//! Each is repeated when a signal interrupts it, and returns every other error of the system, `EAGAIN`
//! too.

use std::io::{self, IoSlice};
use std::mem::{offset_of, size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{
    c_int, sa_family_t, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, sockaddr_un, socklen_t,
};

use socket2::{Domain, SockRef, Socket, Type};

use super::pktinfo::{self, Control};
use super::{above_stdio, raw_syscalls, Address, FIRST_ABOVE_STDIO};
use crate::error::{bare, errno, Describe};

/// How many datagrams one system call takes at most.
pub(crate) const BATCH: usize = 32;

/// The most pieces that one call of [`send_vectored`] takes: `IOV_MAX` of Linux and the BSDs.
pub(crate) const MAX_PIECES: usize = 1024;

/// A write to a closed connection is `EPIPE`, not the signal. Apple's systems have a socket
/// option instead, which [`accept`] sets.
#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: c_int = libc::MSG_NOSIGNAL;
#[cfg(target_vendor = "apple")]
const NO_SIGNAL: c_int = 0;

/// Makes a system call until no signal interrupts it.
#[inline]
fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        let result = call();
        if result >= 0 {
            return Ok(result as usize);
        }
        match errno() {
            libc::EINTR => {}
            errno => return Err(bare(errno)),
        }
    }
}

/// Accepts a connection: its socket, non-blocking and closed by `exec`, and the peer's address. accept4(2)
/// on Linux, accept(2) and fcntl(2) elsewhere.
#[inline]
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Address)> {
    let mut address = SocketAddress::new();
    let fd = retry(|| {
        address.length = SocketAddress::CAPACITY;
        accept_number(listener.as_raw_fd(), &mut address) as isize
    })?;
    // SAFETY: the kernel has just given us this number.
    let socket = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    #[cfg(not(target_os = "linux"))]
    prepare(&socket)?;
    Ok((above_stdio(socket)?, address.peer()))
}

#[cfg(target_os = "linux")]
#[inline]
fn accept_number(listener: RawFd, address: &mut SocketAddress) -> c_int {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: `address` has room for what its length says.
    unsafe { libc::accept4(listener, address.as_mut_ptr(), &mut address.length, flags) }
}

#[cfg(not(target_os = "linux"))]
fn accept_number(listener: RawFd, address: &mut SocketAddress) -> c_int {
    // SAFETY: `address` has room for what its length says.
    unsafe { libc::accept(listener, address.as_mut_ptr(), &mut address.length) }
}

#[cfg(not(target_os = "linux"))]
fn prepare(socket: &OwnedFd) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    // SAFETY: fcntl with these commands takes no pointer.
    retry(|| unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) as isize })?;
    // SAFETY: as above.
    retry(|| unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) as isize })?;
    #[cfg(target_vendor = "apple")]
    set_option(fd, libc::SOL_SOCKET, libc::SO_NOSIGPIPE, &1 as &c_int)?;
    Ok(())
}

/// A socket that is non-blocking and closed by `exec`.
pub(crate) fn open(domain: Domain, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(domain, kind, None).describe("socket")?;
    socket.set_nonblocking(true).describe("O_NONBLOCK")?;
    Ok(above_stdio(socket.into())?.into())
}

/// Another descriptor of the same file, closed by `exec`: fcntl(2).
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    duplicate_number(fd.as_raw_fd())
}

/// Another descriptor of the file behind a number, which may be none.
pub(crate) fn duplicate_number(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with this command takes no pointer; a number that is no file is an error.
    let fd = retry(|| unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, FIRST_ABOVE_STDIO) as isize })
        .describe(format_args!("descriptor {number} can't be duplicated"))?;
    // SAFETY: the kernel has just given us this number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Has `exec` close a descriptor.
pub(crate) fn close_on_exec(number: RawFd) -> io::Result<()> {
    // SAFETY: fcntl with this command takes no pointer; a number that is no file is an error.
    retry(|| unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) as isize })
        .map(drop)
        .describe("FD_CLOEXEC")
}

/// Makes the file that a descriptor stands for non-blocking.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_nonblocking(true).describe("O_NONBLOCK")
}

/// Locks a file, or `EAGAIN` when another process has locked it: flock(2).
pub(crate) fn lock_file(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes no pointer.
    retry(|| unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) as isize }).map(drop)
}

/// Unlocks it.
pub(crate) fn unlock_file(fd: BorrowedFd<'_>) {
    // SAFETY: takes no pointer; it can't fail for a file that is locked.
    unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_UN) };
}

/// Reads what has arrived: recv(2). 0 is the end of the stream, if `buffer` is not empty.
#[inline]
pub(crate) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `buffer` is writable for its length.
    retry(|| unsafe { raw_syscalls::recv(fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) })
}

/// Writes as much of `data` as the kernel takes, without SIGPIPE: send(2).
#[inline]
pub(crate) fn send(fd: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
    // SAFETY: `data` is readable for its length.
    retry(|| unsafe { raw_syscalls::send(fd.as_raw_fd(), data.as_ptr(), data.len(), NO_SIGNAL) })
}

/// Writes as much of the pieces, in order, as the kernel takes, without SIGPIPE: sendmsg(2).
/// Pieces past [`MAX_PIECES`] are left for the next call.
#[inline]
pub(crate) fn send_vectored(fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: `msghdr` is plain old data, for which all zeroes is a value.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = pieces.as_ptr().cast_mut().cast();
    header.msg_iovlen = pieces.len().min(MAX_PIECES) as _;
    // SAFETY: an IoSlice has the layout of an iovec, and sendmsg writes to none of them.
    retry(|| unsafe { libc::sendmsg(fd.as_raw_fd(), &header, NO_SIGNAL) })
}

/// Sends up to `count` bytes of `file` from `offset`, and moves `offset` past what the kernel
/// took; 0 at the end of the file. sendfile(2) on Linux, pread(2) and send(2) elsewhere.
#[cfg(target_os = "linux")]
pub(crate) fn send_file(
    fd: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: &mut u64,
    count: usize,
) -> io::Result<usize> {
    let from = |offset| libc::off64_t::try_from(offset).map_err(|_| bare(libc::EOVERFLOW));
    let mut position = from(*offset)?;
    let sent = super::sigpipe::without(|| {
        // SAFETY: `position` is writable for the length of the call.
        retry(|| unsafe { libc::sendfile64(fd.as_raw_fd(), file.as_raw_fd(), &mut position, count) })
    })?;
    *offset += sent as u64;
    Ok(sent)
}

/// Sends up to `count` bytes of `file` from `offset`, and moves `offset` past what the kernel
/// took; 0 at the end of the file. sendfile(2) on Linux, pread(2) and send(2) elsewhere.
#[cfg(not(target_os = "linux"))]
pub(crate) fn send_file(
    fd: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: &mut u64,
    count: usize,
) -> io::Result<usize> {
    let mut piece = [0u8; 16 * 1024];
    let wanted = count.min(piece.len());
    let position = libc::off_t::try_from(*offset).map_err(|_| bare(libc::EOVERFLOW))?;
    // SAFETY: `piece` is writable for `wanted` bytes.
    let read =
        retry(|| unsafe { libc::pread(file.as_raw_fd(), piece.as_mut_ptr().cast(), wanted, position) })?;
    if read == 0 {
        return Ok(0);
    }
    let sent = send(fd, &piece[..read])?;
    *offset += sent as u64;
    Ok(sent)
}

/// Ends our direction; the peer may continue to send: shutdown(2).
pub(crate) fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes no pointer.
    retry(|| unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) as isize }).map(drop)
}

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

fn set_option<T>(fd: impl AsRawFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as socklen_t;
    // SAFETY: `value` is readable for its size.
    retry(|| unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, ptr::from_ref(value).cast(), size) as isize
    })
    .map(drop)
}

/// The socket's own address: getsockname(2).
pub(crate) fn local_address(fd: BorrowedFd<'_>) -> io::Result<Address> {
    let mut address = SocketAddress::new();
    // SAFETY: `address` has room for what its length says.
    retry(|| unsafe {
        libc::getsockname(fd.as_raw_fd(), address.as_mut_ptr(), &mut address.length) as isize
    })?;
    Ok(address.peer())
}

/// The peer's address, as accept(2) returns it: getpeername(2), and for a TCP connection that has been
/// reset already `SO_PEERNAME`, which needs the length of the address.
#[cfg(io_uring)]
pub(crate) fn peer_address(fd: BorrowedFd<'_>) -> Address {
    // linux/socket.h; libc has no name for it.
    const SO_PEERNAME: c_int = 28;
    let mut address = SocketAddress::new();
    // SAFETY: `address` has room for what its length says.
    let mut named = retry(|| unsafe {
        libc::getpeername(fd.as_raw_fd(), address.as_mut_ptr(), &mut address.length) as isize
    });
    for length in [size_of::<sockaddr_in6>(), size_of::<sockaddr_in>()] {
        if named.is_err() {
            address.length = length as socklen_t;
            let (place, length) = (address.as_mut_ptr().cast(), ptr::from_mut(&mut address.length));
            // SAFETY: as above.
            named = retry(|| unsafe {
                libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, SO_PEERNAME, place, length) as isize
            });
        }
    }
    named.map_or(Address::Unnamed, |_| address.peer())
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

/// A datagram that was received.
pub(crate) struct Received {
    /// The sender's address.
    pub(crate) peer: Address,
    /// Which of this machine's addresses it was sent to, where [`pktinfo`] was enabled.
    pub(crate) local: Option<IpAddr>,
    /// Its bytes, from the beginning of its slot.
    pub(crate) length: usize,
}

/// A datagram to be sent.
pub(crate) struct Outgoing<'a> {
    pub(crate) peer: &'a Address,
    /// From which of this machine's addresses; by default the system chooses.
    pub(crate) from: Option<IpAddr>,
    pub(crate) data: &'a [u8],
}

/// Receives the datagrams that wait, one into each `slot` bytes of `memory` and at most [`BATCH`],
/// and replaces `received` by them. One that is longer than a slot is truncated. recvmmsg(2) on Linux, a
/// loop of recvmsg(2) elsewhere.
pub(crate) fn receive_batch(
    fd: BorrowedFd<'_>,
    memory: &mut [u8],
    slot: usize,
    received: &mut Vec<Received>,
) -> io::Result<usize> {
    received.clear();
    let mut addresses = [const { SocketAddress::new() }; BATCH];
    let mut pieces = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
    let mut controls = [const { Control::new() }; BATCH];
    // SAFETY: the headers are plain old data, for which all zeroes is a value.
    let mut headers: [Header; BATCH] = unsafe { zeroed() };
    let slots = memory.chunks_exact_mut(slot).take(BATCH);
    let mut count = 0;
    let places = addresses.iter_mut().zip(&mut pieces).zip(&mut controls).zip(&mut headers);
    for (slot, (((address, piece), control), header)) in slots.zip(places) {
        control.lend(&mut header.msg_hdr);
        piece.iov_base = slot.as_mut_ptr().cast();
        piece.iov_len = slot.len();
        header.msg_hdr.msg_name = address.as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = address.length;
        header.msg_hdr.msg_iov = piece;
        header.msg_hdr.msg_iovlen = 1;
        count += 1;
    }
    let taken = receive_headers(fd.as_raw_fd(), &mut headers[..count])?;
    for (header, address) in headers.iter().zip(&mut addresses).take(taken) {
        address.length = header.msg_hdr.msg_namelen;
        let local = pktinfo::local(&header.msg_hdr);
        received.push(Received { peer: address.peer(), local, length: header.msg_len as usize });
    }
    Ok(taken)
}

/// Sends datagrams, at most [`BATCH`], until the first that the kernel refuses, and returns how
/// many it took; the error is of the first if it took none. sendmmsg(2) on Linux, a loop of
/// sendmsg(2) elsewhere.
pub(crate) fn send_batch<'a>(
    fd: BorrowedFd<'_>,
    datagrams: impl Iterator<Item = Outgoing<'a>>,
) -> io::Result<usize> {
    let mut addresses = [const { SocketAddress::new() }; BATCH];
    let mut pieces = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
    // SAFETY: the headers are plain old data, for which all zeroes is a value.
    let mut headers: [Header; BATCH] = unsafe { zeroed() };
    let mut controls = [const { Control::new() }; BATCH];
    let mut count = 0;
    let places = addresses.iter_mut().zip(&mut pieces).zip(&mut controls).zip(&mut headers);
    for (Outgoing { peer, from, data }, (((address, piece), control), header)) in datagrams.zip(places) {
        if let Some(from) = from {
            control.set(&mut header.msg_hdr, from);
        }
        match address.set(peer) {
            Err(error) if count == 0 => return Err(error),
            Err(_) => break,
            Ok(()) => {}
        }
        piece.iov_base = data.as_ptr().cast_mut().cast();
        piece.iov_len = data.len();
        header.msg_hdr.msg_name = address.as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = address.length;
        header.msg_hdr.msg_iov = piece;
        header.msg_hdr.msg_iovlen = 1;
        count += 1;
    }
    send_headers(fd.as_raw_fd(), &mut headers[..count])
}

#[cfg(target_os = "linux")]
type Header = libc::mmsghdr;

/// Linux's `mmsghdr`.
#[cfg(not(target_os = "linux"))]
struct Header {
    msg_hdr: libc::msghdr,
    msg_len: libc::c_uint,
}

/// The pointers in `headers` must be to live memory: only the two callers above make them.
#[cfg(target_os = "linux")]
fn receive_headers(fd: RawFd, headers: &mut [Header]) -> io::Result<usize> {
    let count = headers.len() as _;
    // SAFETY: the headers point to addresses, pieces and slots that the caller keeps.
    retry(|| unsafe { libc::recvmmsg(fd, headers.as_mut_ptr(), count, 0, ptr::null_mut()) as isize })
}

#[cfg(target_os = "linux")]
fn send_headers(fd: RawFd, headers: &mut [Header]) -> io::Result<usize> {
    let count = headers.len() as _;
    // SAFETY: the headers point to addresses, pieces and data that the caller keeps.
    retry(|| unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), count, NO_SIGNAL as _) as isize })
}

#[cfg(not(target_os = "linux"))]
fn receive_headers(fd: RawFd, headers: &mut [Header]) -> io::Result<usize> {
    each(headers, |header| {
        // SAFETY: the header points to an address, a piece and a slot that the caller keeps.
        header.msg_len = retry(|| unsafe { libc::recvmsg(fd, &mut header.msg_hdr, 0) })? as _;
        Ok(())
    })
}

#[cfg(not(target_os = "linux"))]
fn send_headers(fd: RawFd, headers: &mut [Header]) -> io::Result<usize> {
    each(headers, |header| {
        // SAFETY: the header points to an address, a piece and data that the caller keeps.
        retry(|| unsafe { libc::sendmsg(fd, &header.msg_hdr, NO_SIGNAL) }).map(drop)
    })
}

/// How many calls succeeded before the first error, which is returned only if none did.
#[cfg(not(target_os = "linux"))]
fn each(headers: &mut [Header], mut call: impl FnMut(&mut Header) -> io::Result<()>) -> io::Result<usize> {
    for (done, header) in headers.iter_mut().enumerate() {
        match call(header) {
            Ok(()) => {}
            Err(error) if done == 0 => return Err(error),
            Err(_) => return Ok(done),
        }
    }
    Ok(headers.len())
}

/// An address as the kernel writes and reads it.
struct SocketAddress {
    storage: sockaddr_storage,
    length: socklen_t,
}

impl SocketAddress {
    const CAPACITY: socklen_t = size_of::<sockaddr_storage>() as socklen_t;

    #[inline]
    const fn new() -> Self {
        // SAFETY: `sockaddr_storage` is plain old data, for which all zeroes is a value.
        Self { storage: unsafe { zeroed() }, length: Self::CAPACITY }
    }

    fn as_mut_ptr(&mut self) -> *mut sockaddr {
        ptr::from_mut(&mut self.storage).cast()
    }

    /// What the kernel wrote; unnamed for any other family.
    #[inline]
    fn peer(&self) -> Address {
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
    fn set(&mut self, peer: &Address) -> io::Result<()> {
        let storage = ptr::from_mut(&mut self.storage);
        self.length = match peer {
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::net::Listener;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::sync::RwLock;

    /// Write-locked by tests that fork, read-locked by tests that need a socket to be closed when it is
    /// dropped: a child has a copy of every descriptor until it ends or executes a program.
    pub(crate) static FORKING: RwLock<()> = RwLock::new(());

    /// The exit status of a child that runs `body`, which takes no lock.
    fn in_child(body: impl FnOnce() -> i32) -> i32 {
        let _alone = FORKING.write().unwrap();
        // SAFETY: the child runs `body` and exits, without a lock that another thread may hold.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let status = body();
            // SAFETY: takes no pointer.
            unsafe { libc::_exit(status) };
        }
        let mut status = 0;
        // SAFETY: `status` is writable for the length of the call.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        status
    }

    #[test]
    fn pieces_are_sent_in_order_and_no_more_than_fit() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let byte = [7];
        let pieces = vec![IoSlice::new(&byte); MAX_PIECES + 1];
        assert_eq!(send_vectored(ours.as_fd(), &pieces).unwrap(), MAX_PIECES);
        theirs.read_exact(&mut [0; MAX_PIECES]).unwrap();
        send_vectored(ours.as_fd(), &[IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"c")]).unwrap();
        let mut data = [0; 4];
        assert_eq!(receive(theirs.as_fd(), &mut data).unwrap(), 3);
        assert_eq!(&data[..3], b"abc");
    }

    #[test]
    fn a_file_is_sent_from_its_offset() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let mut offset = 1;
        assert_eq!(send_file(ours.as_fd(), file.as_fd(), &mut offset, 3).unwrap(), 3);
        assert_eq!(offset, 4);
        let mut data = [0; 3];
        theirs.read_exact(&mut data).unwrap();
        assert_eq!(&data, b"ELF");
        offset = file.metadata().unwrap().len();
        assert_eq!(send_file(ours.as_fd(), file.as_fd(), &mut offset, 3).unwrap(), 0);
    }

    #[test]
    fn a_write_to_a_closed_peer_is_an_error_and_no_signal() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        shutdown_write(theirs.as_fd()).unwrap();
        assert_eq!(receive(ours.as_fd(), &mut [0]).unwrap(), 0);
        let status = in_child(|| {
            // The child has both ends, and so does the parent: only this closes the other.
            // SAFETY: takes no pointer.
            unsafe { libc::shutdown(theirs.as_raw_fd(), libc::SHUT_RDWR) };
            // SAFETY: the default action needs no handler; the runtime of Rust ignores the signal.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            let is_broken_pipe = |result: io::Result<usize>| {
                result.is_err_and(|error| error.raw_os_error() == Some(libc::EPIPE))
            };
            let sent = send(ours.as_fd(), b"x");
            let pieces = send_vectored(ours.as_fd(), &[IoSlice::new(b"x")]);
            i32::from(!(is_broken_pipe(sent) && is_broken_pipe(pieces)))
        });
        assert_eq!(status, 0);
    }

    #[test]
    fn a_forked_child_leaves_the_file_of_a_listener() {
        let path = std::env::temp_dir().join(format!("omnipoll-{}-forked", std::process::id()));
        let address = format!("unix:{}", path.display()).parse().unwrap();
        let listener = Listener::open(&address, 1, false).unwrap();
        let listener = std::cell::Cell::new(Some(listener));
        assert_eq!(in_child(|| listener.take().map_or(1, |_| 0)), 0);
        assert!(path.exists());
        drop(listener);
        assert!(!path.exists());
    }

    /// The harness ignores SIGPIPE, as every Rust program does.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_for_a_closed_peer_raises_no_signal() {
        extern "C" fn die(_: c_int) {
            std::process::abort();
        }
        let _no_fork = FORKING.read().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        // SAFETY: the handler only ends the process.
        let before = unsafe { libc::signal(libc::SIGPIPE, die as *const () as libc::sighandler_t) };
        let error = send_file(ours.as_fd(), file.as_fd(), &mut 0, 4096).unwrap_err();
        // SAFETY: it is what was there before.
        unsafe { libc::signal(libc::SIGPIPE, before) };
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    }
}
