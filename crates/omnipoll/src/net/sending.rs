//! How a connection sends.
//!
//! A write goes straight to the socket. What the kernel does not take is queued, and while
//! something is queued the connection is registered for WRITE. While more than the high mark is
//! queued nothing more is read from a client: one that does not read its answers can't send further
//! requests, and memory does not grow.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::account::{total_limit, Room};
use super::connection::Connection;
use super::loop_context::LoopContext;
use super::write_queue::WriteQueue;
use crate::error::{fail, plain, Describe};
use crate::sys::{socket, socket_options};

impl Connection {
    #[inline]
    pub(crate) fn write(&mut self, data: &[u8], context: &LoopContext) -> io::Result<usize> {
        self.check_open()?;
        let mut sent = 0;
        if self.sends_directly(data.len(), context)? {
            sent = self.send(context, |fd| socket::send(fd, data))?;
        }
        if sent < data.len() {
            self.queue_rest(&data[sent..], sent > 0, context)?;
        }
        Ok(self.queue.queued())
    }

    /// Not inlined: most writes leave nothing.
    #[inline(never)]
    fn queue_rest(&mut self, rest: &[u8], is_part_written: bool, context: &LoopContext) -> io::Result<()> {
        let kept = self.reserve(rest.len()).and_then(|()| self.keep(context, |queue| queue.push(rest)));
        kept.map_err(|error| self.queue_failed(error, is_part_written))
    }

    pub(super) fn write_vectored(
        &mut self,
        pieces: &[IoSlice<'_>],
        context: &LoopContext,
    ) -> io::Result<usize> {
        self.check_open()?;
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let mut skip = 0;
        if self.sends_directly(length, context)? {
            skip = self.send(context, |fd| socket::send_vectored(fd, pieces))?;
        }
        let mut left = length - skip;
        if left > 0 {
            self.reserve(left).map_err(|error| self.queue_failed(error, left < length))?;
        }
        for piece in pieces {
            let now = skip.min(piece.len());
            skip -= now;
            if now < piece.len() {
                let rest = &piece[now..];
                if let Err(error) = self.keep(context, |queue| queue.push(rest)) {
                    self.queue.account().release(left - rest.len());
                    return Err(self.queue_failed(error, left < length));
                }
                left -= rest.len();
            }
        }
        Ok(self.queue.queued())
    }

    /// Bytes from another thread, which are counted already; `above_high_water` when its result was more
    /// than the high mark.
    pub(crate) fn write_shared(&mut self, data: Arc<Vec<u8>>, above_high_water: bool, context: &LoopContext) {
        self.above_high_water |= above_high_water;
        let sent = match self.check_open() {
            Ok(()) if !self.can_send_directly(data.len(), context) => 0,
            Ok(()) => self.send(context, |fd| socket::send(fd, &data)).unwrap_or(data.len()),
            Err(_) => data.len(),
        };
        self.queue.account().release(sent);
        if let Err(error) = self.keep(context, |queue| queue.push_shared(data, sent)) {
            // The writer's result said that it would be sent.
            self.send_failed(error);
        }
    }

    pub(super) fn send_file(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        length: u64,
        context: &LoopContext,
    ) -> io::Result<()> {
        self.check_open()?;
        if !self.queue.has_room_for_a_file() {
            return Err(fail(libc::ENOBUFS, "16 files wait to be sent on the connection"));
        }
        let file = file.try_clone_to_owned().describe("the file's descriptor can't be duplicated")?;
        let was_empty = self.queue.is_empty();
        self.queue.push_file(file, offset, length);
        if was_empty {
            self.flush(context)?;
        }
        self.above_high_water |= self.queue.waiting() > context.budget.high_water;
        Ok(())
    }

    /// Sends from the queue what the kernel takes.
    pub(crate) fn flush(&mut self, context: &LoopContext) -> io::Result<()> {
        match self.queue.flush(self.socket.as_fd()) {
            Ok(sent) => {
                self.sent(sent, context);
                Ok(())
            }
            Err(error) => Err(self.send_failed(error)),
        }
    }

    /// One attempt to send; 0 when it would block.
    #[inline]
    pub(super) fn send(
        &mut self,
        context: &LoopContext,
        send: impl FnOnce(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        match send(self.socket.as_fd()) {
            Ok(sent) => {
                self.sent(sent as u64, context);
                Ok(sent)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(self.send_failed(error)),
        }
    }

    /// The kernel has taken so many bytes.
    #[inline]
    pub(crate) fn sent(&mut self, bytes: u64, context: &LoopContext) {
        context.counters.sent(bytes);
        let waits = !self.queue.is_empty();
        self.timeouts.note_sent(waits, &context.clock);
    }

    /// Queues what is counted.
    pub(super) fn keep(
        &mut self,
        context: &LoopContext,
        push: impl FnOnce(&mut WriteQueue) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.queue.is_empty() {
            self.timeouts.note_queued(&context.clock);
        }
        push(&mut self.queue)?;
        if self.queue.queued() > context.budget.high_water {
            self.above_high_water = true;
        }
        Ok(())
    }

    /// Whether so many bytes go to the socket at once: nothing is queued before them, and the driver
    /// has no cheaper way.
    #[inline]
    pub(super) fn can_send_directly(&self, length: usize, context: &LoopContext) -> bool {
        self.queue.is_empty() && length >= context.min_direct_write
    }

    /// Whether so many bytes are sent at once. `ENOBUFS` when they may not be written at all.
    #[inline]
    fn sends_directly(&self, length: usize, context: &LoopContext) -> io::Result<bool> {
        if !self.can_send_directly(length, context) && !self.queue.is_empty() {
            return Ok(false);
        }
        match self.queue.account().room(length)? {
            Room::Enough => Ok(self.can_send_directly(length, context)),
            // What can't be queued is sent only if the kernel takes it as a whole.
            Room::TotalExhausted if socket_options::has_room(self.socket.as_fd(), length) => Ok(true),
            Room::TotalExhausted => Err(total_limit()),
        }
    }

    pub(super) fn reserve(&self, rest: usize) -> io::Result<()> {
        self.queue.account().reserve(rest).map(drop)
    }

    /// The rest of a write can't be queued: there is no memory, or other threads were faster to use up
    /// the server's limit. Nothing is written then, unless a part of it already is.
    #[cold]
    fn queue_failed(&mut self, error: io::Error, is_part_written: bool) -> io::Error {
        if is_part_written {
            self.send_failed(plain(libc::ENOMEM));
            return plain(libc::ECONNABORTED);
        }
        error
    }

    /// A send has failed.
    pub(crate) fn send_failed(&mut self, error: io::Error) -> io::Error {
        // What the peer has got is incomplete, and must not look complete.
        self.reset();
        // We end our direction ourselves only when all is sent: EPIPE comes from a reset that another
        // call has returned.
        let errno = error.raw_os_error().filter(|&errno| errno != libc::EPIPE);
        self.end(errno.or(Some(libc::ECONNRESET)));
        plain(error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// Has it followed up before the next wait.
    pub(crate) fn touch(&mut self, slot: usize, context: &LoopContext) {
        if !std::mem::replace(&mut self.is_touched, true) {
            context.touched.borrow_mut().push(slot);
        }
    }

    /// Ends it for a reason, with a reset if something can't be sent at once: an incomplete answer must not
    /// look complete.
    pub(crate) fn end_incomplete(&mut self, errno: i32, context: &LoopContext) {
        if !self.queue.is_empty() && !self.io.is_sending {
            // Some drivers send only before the next wait.
            let _ = self.flush(context);
        }
        if !self.queue.is_empty() {
            self.reset();
        }
        self.end(Some(errno));
    }
}
