//! The system calls of sockets.
//!
//! Each is repeated when a signal interrupts it, and returns every other error of the system, `EAGAIN`
//! too.

use std::io::{self, IoSlice};
#[cfg(io_uring)]
use std::mem::size_of;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
#[cfg(io_uring)]
use std::ptr;

use libc::c_int;
#[cfg(io_uring)]
use libc::{sockaddr_in, sockaddr_in6, socklen_t};
use socket2::{Domain, SockRef, Socket, Type};

use super::retry::retry;
use super::sockaddr::SocketAddress;
#[cfg(target_vendor = "apple")]
use super::socket_options::set_option;
use super::{above_stdio, raw_syscalls, Address, FIRST_ABOVE_STDIO};
use crate::error::{bare, Describe};

/// The most pieces that one call of [`send_vectored`] takes: `IOV_MAX` of Linux and the BSDs.
pub(crate) const MAX_PIECES: usize = 1024;

/// A write to a closed connection is `EPIPE`, not the signal. Apple's systems have a socket
/// option instead, which [`accept`] sets.
#[cfg(not(target_vendor = "apple"))]
pub(super) const NO_SIGNAL: c_int = libc::MSG_NOSIGNAL;
#[cfg(target_vendor = "apple")]
pub(super) const NO_SIGNAL: c_int = 0;

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
    Ok((above_stdio(socket)?, address.address()))
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
    #[cfg(target_os = "linux")]
    let kind = kind.nonblocking();
    let socket = Socket::new(domain, kind, None).describe("socket")?;
    #[cfg(not(target_os = "linux"))]
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

/// The socket's own address: getsockname(2).
pub(crate) fn local_address(fd: BorrowedFd<'_>) -> io::Result<Address> {
    let mut address = SocketAddress::new();
    // SAFETY: `address` has room for what its length says.
    retry(|| unsafe {
        libc::getsockname(fd.as_raw_fd(), address.as_mut_ptr(), &mut address.length) as isize
    })?;
    Ok(address.address())
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
    named.map_or(Address::Unnamed, |_| address.address())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::sync::RwLock;

    /// Write-locked by tests that fork, read-locked by tests that need a socket to be closed when it is
    /// dropped: a child has a copy of every descriptor until it ends or executes a program.
    pub(crate) static FORKING: RwLock<()> = RwLock::new(());

    /// The exit status of a child that runs `body`, which takes no lock.
    pub(crate) fn in_child(body: impl FnOnce() -> i32) -> i32 {
        let _alone = FORKING.write().unwrap();
        // SAFETY: the child runs `body` and exits, without a lock that another thread may hold.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: takes no pointer. One that hangs is killed.
            unsafe { libc::alarm(60) };
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
