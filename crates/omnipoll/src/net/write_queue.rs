//! [`WriteQueue`]: what was written to a connection and the kernel has not taken yet.
//!
//! `send(2)` on a non-blocking socket takes a part, or nothing. The rest waits here in order and
//! is sent by `sendmsg(2)`, many pieces in one call, or from a file by `sendfile(2)`.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::account::Account;
use crate::error::{bare, no_memory};
use crate::sys::socket;

/// Small writes are gathered into pieces of this size.
const PIECE: usize = 16 * 1024;
/// Pieces that one `sendmsg(2)` takes; the kernel's limit (`IOV_MAX`) is 1,024.
const PIECES_PER_CALL: usize = 64;
/// Files that one connection may queue: each holds a descriptor, of which there are not many.
const MAX_FILES: usize = 16;
/// What one flush sends at most, so that a fast reader does not delay the loop's other connections.
const BYTES_PER_FLUSH: u64 = 1024 * 1024;

#[derive(Debug)]
enum Piece {
    Owned { bytes: Vec<u8>, sent: usize },
    Shared { bytes: Arc<Vec<u8>>, sent: usize },
    File { file: OwnedFd, offset: u64, left: u64 },
}

/// A copy of a caller's bytes, which may be more than there is memory for: `ENOMEM`.
pub(crate) fn copy_of(data: &[u8]) -> io::Result<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(data.len()).map_err(no_memory)?;
    copy.extend_from_slice(data);
    Ok(copy)
}

/// A queue of bytes and parts of files.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct WriteQueue {
    // First, what each message needs: see `Connection`.
    /// The bytes held in memory, all of which the account counts.
    queued: usize,
    /// How many of the pieces are files.
    files: usize,
    pieces: VecDeque<Piece>,
    /// Those of the bytes that the driver is sending.
    in_flight: usize,
    account: Arc<Account>,
}

impl WriteQueue {
    pub(crate) fn new(account: Arc<Account>) -> Self {
        Self { pieces: VecDeque::new(), queued: 0, in_flight: 0, files: 0, account }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queued == 0 && self.files == 0
    }

    /// How many bytes it holds in memory, which excludes files.
    #[inline]
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// How many bytes wait to be sent: those in memory, those of files, and what other threads
    /// have written that the loop has not taken.
    pub(crate) fn waiting(&self) -> usize {
        self.account.waiting().saturating_add(usize::try_from(self.left_of_files()).unwrap_or(usize::MAX))
    }

    fn left_of_files(&self) -> u64 {
        if self.files == 0 {
            return 0;
        }
        let left = |piece: &Piece| if let Piece::File { left, .. } = piece { *left } else { 0 };
        self.pieces.iter().map(left).fold(0, u64::saturating_add)
    }

    /// The count of its bytes.
    #[inline]
    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// Queues bytes that the account has counted. On `ENOMEM` they are released.
    pub(crate) fn push(&mut self, data: &[u8]) -> io::Result<()> {
        let copied = self.copy(data);
        self.add(data.len());
        if copied.is_err() {
            self.release(data.len());
        }
        copied
    }

    fn copy(&mut self, data: &[u8]) -> io::Result<()> {
        if let Some(Piece::Owned { bytes, .. }) = self.pieces.back_mut() {
            if bytes.len() + data.len() <= PIECE {
                bytes.try_reserve(data.len()).map_err(no_memory)?;
                bytes.extend_from_slice(data);
                return Ok(());
            }
        }
        if !data.is_empty() {
            let bytes = copy_of(data)?;
            self.pieces.try_reserve(1).map_err(no_memory)?;
            self.pieces.push_back(Piece::Owned { bytes, sent: 0 });
        }
        Ok(())
    }

    /// Queues bytes that connections share. Those before `sent` are sent, the rest is counted. On
    /// `ENOMEM` it is released.
    pub(crate) fn push_shared(&mut self, bytes: Arc<Vec<u8>>, sent: usize) -> io::Result<()> {
        let left = bytes.len() - sent;
        if left == 0 {
            return Ok(());
        }
        self.add(left);
        if let Err(error) = self.pieces.try_reserve(1) {
            self.release(left);
            return Err(no_memory(error));
        }
        self.pieces.push_back(Piece::Shared { bytes, sent });
        Ok(())
    }

    /// Whether one more file may be queued.
    pub(crate) fn has_room_for_a_file(&self) -> bool {
        self.files < MAX_FILES
    }

    pub(crate) fn push_file(&mut self, file: OwnedFd, offset: u64, length: u64) {
        if length > 0 {
            self.files += 1;
            self.pieces.push_back(Piece::File { file, offset, left: length });
        }
    }

    fn add(&mut self, more: usize) {
        self.queued += more;
        self.check_count();
    }

    /// In debug builds: it holds no byte that is not counted.
    fn check_count(&self) {
        debug_assert!(self.queued <= self.account.waiting(), "{} bytes are not counted", self.queued);
        debug_assert!(self.in_flight <= self.queued);
    }

    /// So many bytes are held no longer.
    #[inline]
    fn release(&mut self, bytes: usize) {
        if bytes > 0 {
            self.queued -= bytes;
            self.account.release(bytes);
            self.check_count();
        }
    }

    /// Gives the first piece of bytes to a send, and where in it to begin; `None` while one is in
    /// flight, or when a file comes first. `ENOMEM`.
    pub(crate) fn begin_send(&mut self) -> io::Result<Option<(Vec<u8>, usize)>> {
        if self.in_flight > 0 || self.is_file_next() {
            return Ok(None);
        }
        if let Some(Piece::Shared { bytes, sent }) = self.pieces.front() {
            let bytes = copy_of(&bytes[*sent..])?;
            self.pieces[0] = Piece::Owned { bytes, sent: 0 };
        }
        let Some(Piece::Owned { bytes, sent }) = self.pieces.pop_front() else { return Ok(None) };
        self.in_flight = bytes.len() - sent;
        Ok(Some((bytes, sent)))
    }

    /// Takes back what was in flight, of which the part before `sent` is sent.
    pub(crate) fn finish_send(&mut self, bytes: Vec<u8>, sent: usize) {
        let left = bytes.len() - sent;
        let in_flight = std::mem::take(&mut self.in_flight);
        self.release(in_flight - left);
        if left > 0 {
            self.pieces.push_front(Piece::Owned { bytes, sent });
        } else if self.pieces.is_empty() {
            self.pieces = VecDeque::new();
        }
    }

    /// Whether a file is next, which `sendfile(2)` sends.
    pub(crate) fn is_file_next(&self) -> bool {
        self.in_flight == 0 && matches!(self.pieces.front(), Some(Piece::File { .. }))
    }

    /// Sends what the kernel takes, and returns how much that was. Afterwards the queue is empty, or
    /// the socket's buffer is full, or the limit of one flush is reached. A file that is shorter than
    /// was announced is `EIO`: the peer has no other way to know.
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<u64> {
        let mut total = 0;
        while !self.pieces.is_empty() && total < BYTES_PER_FLUSH {
            let sent = match self.pieces.front_mut() {
                Some(Piece::File { file, offset, left }) => send_file(socket, file.as_fd(), offset, left),
                _ => self.send_bytes(socket),
            };
            match sent {
                Ok(sent) => {
                    total += sent as u64;
                    self.advance(sent);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.pieces.is_empty() {
            // Most connections never queue again, and must not keep the memory.
            self.pieces = VecDeque::new();
        }
        Ok(total)
    }

    fn send_bytes(&self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); PIECES_PER_CALL];
        let mut filled = 0;
        for piece in &self.pieces {
            let slice = match piece {
                Piece::Owned { bytes, sent } => &bytes[*sent..],
                Piece::Shared { bytes, sent } => &bytes[*sent..],
                Piece::File { .. } => break,
            };
            slices[filled] = IoSlice::new(slice);
            filled += 1;
            if filled == slices.len() {
                break;
            }
        }
        socket::send_vectored(socket, &slices[..filled])
    }

    /// Removes what has been sent from the front.
    fn advance(&mut self, count: usize) {
        if matches!(self.pieces.front(), Some(Piece::File { .. })) {
            return self.advance_file();
        }
        self.release(count);
        let mut count = count;
        while let Some(piece) = self.pieces.front_mut() {
            let (length, sent) = match piece {
                Piece::Owned { bytes, sent } => (bytes.len(), sent),
                Piece::Shared { bytes, sent } => (bytes.len(), sent),
                Piece::File { .. } => return,
            };
            let now = count.min(length - *sent);
            *sent += now;
            count -= now;
            if *sent < length {
                return;
            }
            self.pieces.pop_front();
            if count == 0 {
                return;
            }
        }
    }

    /// The same for a file at the front.
    fn advance_file(&mut self) {
        if let Some(Piece::File { left: 0, .. }) = self.pieces.front() {
            self.files -= 1;
            self.pieces.pop_front();
        }
    }

    /// Discards all but what is in flight.
    pub(crate) fn clear(&mut self) {
        self.pieces = VecDeque::new();
        self.files = 0;
        self.release(self.queued - self.in_flight);
    }
}

fn send_file(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: &mut u64,
    left: &mut u64,
) -> io::Result<usize> {
    let wanted = (*left).min(BYTES_PER_FLUSH) as usize;
    let sent = socket::send_file(socket, file, offset, wanted)?;
    if sent == 0 {
        return Err(bare(libc::EIO));
    }
    *left -= sent as u64;
    Ok(sent)
}
