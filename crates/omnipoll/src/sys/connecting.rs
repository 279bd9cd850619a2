//! The system calls that make a connection.

use std::io;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use libc::{c_int, socklen_t};
use socket2::{Domain, SockRef, TcpKeepalive, Type};

use super::retry::retry;
use super::sockaddr::SocketAddress;
#[cfg(target_os = "linux")]
use super::socket_options::set_option;
use super::{socket, Address};
use crate::error::{bare, fail, Describe};

/// A stream socket that can be connected to `address`: non-blocking and closed by `exec`.
pub(crate) fn open(address: &Address) -> io::Result<OwnedFd> {
    let domain = address.as_socket_addr().map_or(Domain::UNIX, Domain::for_address);
    socket::open(domain, Type::STREAM).map(OwnedFd::from)
}

/// Binds a socket that is going to be connected. Without a port the system chooses one when it is
/// connected, and then one that may be in use for connections to other addresses: `ip(7)`,
/// `IP_BIND_ADDRESS_NO_PORT`. A port that is given may be so in use, too.
pub(crate) fn bind_local(fd: BorrowedFd<'_>, local: SocketAddr) -> io::Result<()> {
    let socket = SockRef::from(&fd);
    if local.port() != 0 {
        socket.set_reuse_address(true).describe("SO_REUSEADDR")?;
    } else {
        #[cfg(target_os = "linux")]
        set_option::<c_int>(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &1)
            .describe("IP_BIND_ADDRESS_NO_PORT")?;
    }
    socket.bind(&local.into()).describe("bind")
}

/// Asks a peer that has been silent for `time` whether it is there, and again after every further
/// `time`, in whole seconds: `SO_KEEPALIVE`, tcp(7).
pub(crate) fn keep_alive(fd: BorrowedFd<'_>, time: Duration) -> io::Result<()> {
    let keep_alive = TcpKeepalive::new().with_time(time);
    #[cfg(not(any(target_os = "openbsd", target_os = "haiku")))]
    let keep_alive = keep_alive.with_interval(time);
    SockRef::from(&fd).set_tcp_keepalive(&keep_alive).describe("SO_KEEPALIVE")
}

/// Connects a non-blocking socket: connect(2). `EINPROGRESS`, or `EALREADY` after a signal has interrupted
/// it, when that takes a while.
pub(crate) fn connect(fd: BorrowedFd<'_>, address: &Address) -> io::Result<()> {
    let mut peer = SocketAddress::new();
    peer.set(address)?;
    // SAFETY: the address is readable for its length.
    let call = || unsafe { libc::connect(fd.as_raw_fd(), peer.as_mut_ptr(), peer.length) as isize };
    match retry(call) {
        // It was connected by the call that was interrupted.
        Err(error) if error.raw_os_error() == Some(libc::EISCONN) => Ok(()),
        connected => connected.map(drop),
    }
}

/// The error that a socket has kept: getsockopt(2), `SO_ERROR`.
pub(crate) fn take_error(fd: BorrowedFd<'_>) -> io::Result<()> {
    let (mut kept, mut length): (c_int, _) = (0, size_of::<c_int>() as socklen_t);
    let (place, room) = (ptr::from_mut(&mut kept).cast(), ptr::from_mut(&mut length));
    // SAFETY: the value has the room that its length says.
    retry(|| unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ERROR, place, room) as isize
    })?;
    match kept {
        0 => Ok(()),
        errno => Err(bare(errno)),
    }
}

/// The address that a connected socket is connected to: getpeername(2). `ENOTCONN` for any other.
pub(crate) fn connected_to(fd: BorrowedFd<'_>) -> io::Result<Address> {
    let mut address = SocketAddress::new();
    // SAFETY: `address` has room for what its length says.
    retry(|| unsafe {
        libc::getpeername(fd.as_raw_fd(), address.as_mut_ptr(), &mut address.length) as isize
    })?;
    Ok(address.address())
}

/// A duplicate of the connected stream socket behind a number, and its peer. The number stays open and
/// is closed by `exec` from now on; the socket is non-blocking for all that have it.
pub(crate) fn adopt(number: c_int) -> io::Result<(OwnedFd, Address)> {
    let fd = socket::duplicate_number(number)?;
    let kind = SockRef::from(&fd).r#type().describe("SO_TYPE")?;
    if kind != Type::STREAM {
        return Err(fail(libc::EPROTOTYPE, "it is not a stream socket"));
    }
    let peer = connected_to(fd.as_fd()).describe("getpeername")?;
    socket::set_nonblocking(fd.as_fd())?;
    socket::close_on_exec(number)?;
    Ok((fd, peer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;

    fn refused(number: c_int) -> i32 {
        adopt(number).unwrap_err().raw_os_error().unwrap()
    }

    #[test]
    fn only_connected_stream_sockets_are_adopted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (adopted, peer) = adopt(stream.as_raw_fd()).unwrap();
        assert_eq!(peer.as_socket_addr(), Some(listener.local_addr().unwrap()));
        assert_ne!(adopted.as_raw_fd(), stream.as_raw_fd());
        assert!(SockRef::from(&stream).nonblocking().unwrap());
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(adopt(ours.as_raw_fd()).unwrap().1, Address::Unnamed);

        assert_eq!(refused(-1), libc::EBADF);
        assert_eq!(refused(listener.as_raw_fd()), libc::ENOTCONN);
        assert!(!SockRef::from(&listener).nonblocking().unwrap());
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        datagrams.connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(refused(datagrams.as_raw_fd()), libc::EPROTOTYPE);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(refused(file.as_raw_fd()), libc::ENOTSOCK);
    }
}
