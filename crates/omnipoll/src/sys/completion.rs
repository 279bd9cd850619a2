//! What a request that the kernel carries out by itself has brought.

use std::io;
use std::os::fd::OwnedFd;

use super::Address;

/// The result of a request; with `more`, the request stays active and brings further ones.
#[derive(Debug)]
pub(crate) enum Completion {
    /// A connection to a listening socket: non-blocking and closed by `exec`.
    Accepted { key: usize, result: io::Result<(OwnedFd, Address)>, more: bool },
    /// The end of connecting a socket.
    Connected { key: usize, result: io::Result<()> },
    /// Bytes, the end of the stream, or an error.
    Received { key: usize, result: io::Result<Chunk>, more: bool },
    /// The end of a send. All before `sent` is sent, which is not all of it after an error.
    Sent { key: usize, result: io::Result<usize>, bytes: Vec<u8>, sent: usize },
}

/// Received bytes, in a buffer that is shared and must be recycled. An empty one is the end of the
/// stream, which takes no buffer.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(super) buffer: u16,
    pub(super) start: usize,
    pub(super) length: usize,
    /// It is the last in its buffer.
    pub(super) is_last: bool,
    pub(super) is_partial: bool,
}

impl Chunk {
    #[inline]
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Whether more had arrived, and is missing only because the buffer was full or the receive had
    /// reached its limit: a read into a buffer of its own would have brought it too.
    #[inline]
    pub(crate) fn is_partial(&self) -> bool {
        self.is_partial
    }
}
