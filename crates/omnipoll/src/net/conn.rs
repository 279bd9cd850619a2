//! [`Conn`]: a connection as its handler's callbacks get it.
//!
//! A write goes straight to the socket. What the kernel does not take is queued, and while
//! something is queued the connection is registered for WRITE. While more than the high mark is
//! queued nothing more is read: a client that does not read its answers can't send further
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

/// An open connection, as each callback of a [`Handler`](crate::Handler) gets it. Elsewhere its
/// [`id`](Conn::id) stands for it.
///
/// - Writing: [`write`](Conn::write), [`write_vectored`](Conn::write_vectored),
///   [`send_file`](Conn::send_file), [`queued`](Conn::queued).
/// - Reading: [`pause`](Conn::pause), [`resume`](Conn::resume), [`has_ended`](Conn::has_ended).
/// - Ending: [`shutdown`](Conn::shutdown), [`close`](Conn::close), [`abort`](Conn::abort).
/// - Limits: [`set_idle_timeout`](Conn::set_idle_timeout) and those beside it.
///
/// In the examples `ask` runs a server with the handler, sends it a request as a client that then ends its
/// direction, and returns what the client gets.
///
/// # Portability
///
/// Every method is the same on every system and engine, unless it says otherwise.
#[derive(Debug)]
pub struct Conn<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) context: &'a LoopContext,
}

/// Writing.
impl Conn<'_> {
    /// Writes `data` with `send(2)`, queues what the kernel does not take, and returns how many
    /// bytes are queued now: 0 when all is sent. The data is copied only if queued. When more than
    /// the [high mark](crate::ServerOptions::water_marks) are, [`on_drain`](crate::Handler::on_drain)
    /// will be called.
    ///
    /// `ENOBUFS` when more would be queued than the [limits](crate::ServerOptions::queue_limit)
    /// allow: nothing was written then, and the connection continues. What the kernel takes at once
    /// does not count, so that connections that fill the server's queues don't keep others from writing.
    /// `ENOMEM` when there is no memory to queue it: nothing was written either.
    /// `EPIPE` after `close`, `abort` and `shutdown`. Any other error, such as `ECONNRESET`, ends
    /// the connection; [`on_close`](crate::Handler::on_close) gets it too. So does `ECONNABORTED`,
    /// for which `on_close` gets `ENOMEM`: the kernel has taken a part, and the rest can't be queued
    /// because memory has run out, or other threads have meanwhile used up the limits.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// struct Greet;
    ///
    /// impl Handler for Greet {
    ///     type State = ();
    ///
    ///     fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
    ///         let queued = conn.write(b"welcome\n")?;
    ///         assert_eq!(conn.queued(), queued);
    ///         Ok(())
    ///     }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
    /// }
    ///
    /// assert_eq!(ask(Greet, "")?, "welcome\n");
    /// # Ok::<(), io::Error>(())
    /// ```
    #[inline]
    #[doc(alias = "send")]
    pub fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.connection.check_open()?;
        let mut rest = data;
        if self.sends_directly(data.len())? {
            rest = &data[self.send(|fd| socket::send(fd, data))?..];
        }
        if !rest.is_empty() {
            let kept = self.reserve(rest.len()).and_then(|()| self.queue(|queue| queue.push(rest)));
            kept.map_err(|error| self.queue_failed(error, rest.len() < data.len()))?;
        }
        Ok(self.queued())
    }

    /// [`write`](Conn::write) of several pieces, in one `sendmsg(2)`: `writev(2)` for sockets.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// use std::io::IoSlice;
    ///
    /// struct Quote;
    ///
    /// impl Handler for Quote {
    ///     type State = ();
    ///
    ///     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) {
    ///         // It fails when the client has gone, which ends the connection anyway.
    ///         let _ = conn.write_vectored(&[IoSlice::new(b"you said "), IoSlice::new(data)]);
    ///     }
    /// #   fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> { Ok(()) }
    /// }
    ///
    /// assert_eq!(ask(Quote, "yes")?, "you said yes");
    /// # Ok::<(), io::Error>(())
    /// ```
    #[doc(alias = "writev")]
    #[doc(alias = "sendmsg")]
    pub fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.connection.check_open()?;
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let mut skip = 0;
        if self.sends_directly(length)? {
            skip = self.send(|fd| socket::send_vectored(fd, pieces))?;
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
                if let Err(error) = self.queue(|queue| queue.push(rest)) {
                    self.connection.queue.account().release(left - rest.len());
                    return Err(self.queue_failed(error, left < length));
                }
                left -= rest.len();
            }
        }
        Ok(self.queued())
    }

    /// Bytes from another thread, which are counted already; `above_high_water` when its result was more
    /// than the high mark.
    pub(crate) fn write_shared(&mut self, data: Arc<Vec<u8>>, above_high_water: bool) {
        self.connection.above_high_water |= above_high_water;
        let sent = match self.connection.check_open() {
            Ok(()) if !self.can_send_directly(data.len()) => 0,
            Ok(()) => self.send(|fd| socket::send(fd, &data)).unwrap_or(data.len()),
            Err(_) => data.len(),
        };
        self.connection.queue.account().release(sent);
        if let Err(error) = self.queue(|queue| queue.push_shared(data, sent)) {
            // The writer's result said that it would be sent.
            self.fail(error);
        }
    }

    /// Sends `length` bytes of a file from `offset` on with `sendfile(2)`, after what is queued.
    /// They never pass through this process's memory and don't count as queued bytes; but while
    /// more than the high mark wait, those of files included, nothing is read from the peer, and
    /// `on_drain` is called when no more than the low one do. The file is duplicated: it may be
    /// closed at once. It must keep its length until then: one that turns out shorter ends the
    /// connection with `EIO`.
    ///
    /// `EPIPE` as for `write`, `EMFILE` when it can't be duplicated, `ENOBUFS` when 16 files wait
    /// on this connection, each of which holds a descriptor. Nothing was queued then.
    ///
    /// # Portability
    ///
    /// Where there is no `sendfile(2)` to a socket (on all systems but Linux), the file is read and sent.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// use std::fs::{self, File};
    ///
    /// struct SendFile;
    ///
    /// impl Handler for SendFile {
    ///     type State = ();
    ///
    ///     fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
    ///         let file = File::open("Cargo.toml")?;
    ///         conn.send_file(&file, 0, file.metadata()?.len())
    ///     }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
    /// }
    ///
    /// assert_eq!(ask(SendFile, "")?, fs::read_to_string("Cargo.toml")?);
    /// # Ok::<(), io::Error>(())
    /// ```
    #[doc(alias = "sendfile")]
    pub fn send_file(&mut self, file: &impl AsFd, offset: u64, length: u64) -> io::Result<()> {
        self.connection.check_open()?;
        if !self.connection.queue.has_room_for_a_file() {
            return Err(fail(libc::ENOBUFS, "16 files wait to be sent on the connection"));
        }
        let file = file.as_fd().try_clone_to_owned().describe("the file's descriptor can't be duplicated")?;
        let was_empty = self.connection.queue.is_empty();
        self.connection.queue.push_file(file, offset, length);
        if was_empty {
            self.flush()?;
        }
        self.connection.above_high_water |= self.connection.queue.waiting() > self.context.budget.high_water;
        Ok(())
    }

    /// How many bytes wait in memory to be sent. Above the server's high mark, nothing more is
    /// read from the connection until they have fallen to the low one.
    ///
    /// See the example of [`write`](Conn::write).
    #[inline]
    pub fn queued(&self) -> usize {
        self.connection.queue.queued()
    }

    /// Sends from the queue what the kernel takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let connection = &mut *self.connection;
        let flushed = connection.queue.flush(connection.socket.as_fd());
        match flushed {
            Ok(sent) => {
                self.sent(sent);
                Ok(())
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// One attempt to send; 0 when it would block.
    #[inline]
    fn send(&mut self, send: impl FnOnce(BorrowedFd<'_>) -> io::Result<usize>) -> io::Result<usize> {
        match send(self.connection.socket.as_fd()) {
            Ok(sent) => {
                self.sent(sent as u64);
                Ok(sent)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// The kernel has taken so many bytes.
    #[inline]
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.context.counters.sent(bytes);
        let waits = !self.connection.queue.is_empty();
        self.connection.timeouts.note_sent(waits, &self.context.clock);
    }

    fn queue(&mut self, push: impl FnOnce(&mut WriteQueue) -> io::Result<()>) -> io::Result<()> {
        let queue = &mut self.connection.queue;
        if queue.is_empty() {
            self.connection.timeouts.note_queued(&self.context.clock);
        }
        push(queue)?;
        if queue.queued() > self.context.budget.high_water {
            self.connection.above_high_water = true;
        }
        Ok(())
    }

    /// Whether so many bytes go to the socket at once: nothing is queued before them, and the driver
    /// has no cheaper way.
    #[inline]
    fn can_send_directly(&self, length: usize) -> bool {
        self.connection.queue.is_empty() && length >= self.context.min_direct_write
    }

    /// Whether so many bytes are sent at once. `ENOBUFS` when they may not be written at all.
    #[inline]
    fn sends_directly(&self, length: usize) -> io::Result<bool> {
        if !self.can_send_directly(length) && !self.connection.queue.is_empty() {
            return Ok(false);
        }
        match self.connection.queue.account().room(length)? {
            Room::Enough => Ok(self.can_send_directly(length)),
            // What can't be queued is sent only if the kernel takes it as a whole.
            Room::TotalExhausted if socket_options::has_room(self.connection.socket.as_fd(), length) => {
                Ok(true)
            }
            Room::TotalExhausted => Err(total_limit()),
        }
    }

    fn reserve(&self, rest: usize) -> io::Result<()> {
        self.connection.queue.account().reserve(rest).map(drop)
    }

    /// The rest of a write can't be queued: there is no memory, or other threads were faster to use up
    /// the server's limit. Nothing is written then, unless a part of it already is.
    #[cold]
    fn queue_failed(&mut self, error: io::Error, is_part_written: bool) -> io::Error {
        if is_part_written {
            self.fail(plain(libc::ENOMEM));
            return plain(libc::ECONNABORTED);
        }
        error
    }

    /// A send has failed.
    pub(crate) fn fail(&mut self, error: io::Error) -> io::Error {
        // What the peer has got is incomplete, and must not look complete.
        self.connection.reset();
        // We end our direction ourselves only when all is sent: EPIPE comes from a reset that another
        // call has returned.
        let errno = error.raw_os_error().filter(|&errno| errno != libc::EPIPE);
        self.connection.end(errno.or(Some(libc::ECONNRESET)));
        plain(error.raw_os_error().unwrap_or(libc::EIO))
    }
}
