//! Many datagrams in one system call: recvmmsg(2) and sendmmsg(2).

use std::io;
use std::mem::zeroed;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use super::pktinfo::{self, Control};
use super::retry::retry;
use super::sockaddr::SocketAddress;
use super::socket::NO_SIGNAL;
use super::Address;

/// How many datagrams one system call takes at most.
pub(crate) const BATCH: usize = 32;

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
    /// `None`: to the one that the socket is connected to.
    pub(crate) peer: Option<&'a Address>,
    /// From which of this machine's addresses; by default the system chooses.
    pub(crate) from: Option<IpAddr>,
    pub(crate) data: &'a [u8],
    /// It is several datagrams, each of so many bytes and the last of no more, where
    /// [`pktinfo::has_segments`].
    pub(crate) segment: Option<u16>,
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
        received.push(Received { peer: address.address(), local, length: header.msg_len as usize });
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
    for (datagram, (((address, piece), control), header)) in datagrams.zip(places) {
        match datagram.fill(&mut header.msg_hdr, address, piece, control) {
            Err(error) if count == 0 => return Err(error),
            Err(_) => break,
            Ok(()) => {}
        }
        count += 1;
    }
    send_headers(fd.as_raw_fd(), &mut headers[..count])
}

/// Sends one datagram, from any thread: sendmsg(2).
pub(crate) fn send(fd: BorrowedFd<'_>, datagram: &Outgoing<'_>) -> io::Result<()> {
    let (mut address, mut control) = (SocketAddress::new(), Control::new());
    let mut piece = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
    // SAFETY: the header is plain old data, for which all zeroes is a value.
    let mut header: libc::msghdr = unsafe { zeroed() };
    datagram.fill(&mut header, &mut address, &mut piece, &mut control)?;
    // SAFETY: the header points to an address, a piece, a control buffer and data that are here until
    // the call returns.
    retry(|| unsafe { libc::sendmsg(fd.as_raw_fd(), &header, NO_SIGNAL) }).map(drop)
}

impl Outgoing<'_> {
    /// How many datagrams it is.
    pub(crate) fn count(&self) -> usize {
        self.segment.map_or(1, |length| self.data.len().div_ceil(length.into()))
    }

    /// Has `header` point to the datagram by the others.
    fn fill(
        &self,
        header: &mut libc::msghdr,
        address: &mut SocketAddress,
        piece: &mut libc::iovec,
        control: &mut Control,
    ) -> io::Result<()> {
        if let Some(from) = self.from {
            control.set_source(header, from);
        }
        if let Some(length) = self.segment {
            control.set_segments(header, length);
        }
        if let Some(peer) = self.peer {
            address.set(peer)?;
            header.msg_name = address.as_mut_ptr().cast();
            header.msg_namelen = address.length;
        }
        piece.iov_base = self.data.as_ptr().cast_mut().cast();
        piece.iov_len = self.data.len();
        header.msg_iov = piece;
        header.msg_iovlen = 1;
        Ok(())
    }
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
