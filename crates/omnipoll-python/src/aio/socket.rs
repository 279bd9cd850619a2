//! The system calls on sockets that Python holds. None of them waits, whatever the socket's own setting is.

use std::io::{self, IoSlice};
use std::os::fd::RawFd;

use libc::{c_int, c_void, socklen_t};

use super::address::SocketAddress;

/// Of what is sent: no waiting, and no signal when the peer has gone.
const SENDING: c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// Repeats a call that a signal has interrupted; `None` when it would have to wait.
fn call(mut call: impl FnMut() -> isize) -> io::Result<Option<usize>> {
    loop {
        if let Ok(count) = usize::try_from(call()) {
            return Ok(Some(count));
        }
        let failed = io::Error::last_os_error();
        match failed.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EAGAIN) => return Ok(None),
            _ => return Err(failed),
        }
    }
}

pub(crate) fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    // SAFETY: the buffer is ours for the length of the call.
    call(|| unsafe { libc::recv(fd, buffer.as_mut_ptr().cast::<c_void>(), buffer.len(), libc::MSG_DONTWAIT) })
}

pub(crate) fn send(fd: RawFd, data: &[u8]) -> io::Result<Option<usize>> {
    // SAFETY: the data stays for the length of the call.
    call(|| unsafe { libc::send(fd, data.as_ptr().cast::<c_void>(), data.len(), SENDING) })
}

pub(crate) fn send_all(fd: RawFd, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
    // SAFETY: all zeros is a message without an address, data or control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = slices.as_ptr().cast_mut().cast::<libc::iovec>();
    message.msg_iovlen = slices.len() as _;
    // SAFETY: an `IoSlice` is laid out as an iovec; nothing is written to any of it.
    call(|| unsafe { libc::sendmsg(fd, &message, SENDING) })
}

pub(crate) fn receive_from(
    fd: RawFd,
    buffer: &mut [u8],
    address: &mut SocketAddress,
) -> io::Result<Option<usize>> {
    let (data, len) = (buffer.as_mut_ptr().cast::<c_void>(), buffer.len());
    let (place, size) = address.place();
    // SAFETY: the buffer is ours for the length of the call, and the address has room for as many bytes
    // as `size` says.
    call(|| unsafe { libc::recvfrom(fd, data, len, libc::MSG_DONTWAIT, place, size) })
}

pub(crate) fn send_to(fd: RawFd, data: &[u8], address: &SocketAddress) -> io::Result<Option<usize>> {
    let (data, len) = (data.as_ptr().cast::<c_void>(), data.len());
    let (place, size) = address.get();
    // SAFETY: the data and the address stay for the length of the call.
    call(|| unsafe { libc::sendto(fd, data, len, SENDING, place, size) })
}

pub(crate) fn shut_down_writing(fd: RawFd) -> io::Result<()> {
    // SAFETY: it takes no memory.
    match unsafe { libc::shutdown(fd, libc::SHUT_WR) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The address that it is bound to.
pub(crate) fn local_address(fd: RawFd) -> io::Result<SocketAddress> {
    let mut address = SocketAddress::empty();
    let (place, size) = address.place();
    // SAFETY: the address has room for as many bytes as `size` says.
    match unsafe { libc::getsockname(fd, place, size) } {
        0 => Ok(address),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends small writes at once, whatever the socket object says its protocol is: what is no TCP refuses it.
pub(crate) fn set_no_delay(fd: RawFd) {
    let on: c_int = 1;
    let size = size_of::<c_int>() as socklen_t;
    // SAFETY: the value is ours, and of that size.
    unsafe {
        libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, (&raw const on).cast::<c_void>(), size)
    };
}
