//! [`Conn`]: a connection in the hands of its handler.
//!
//! A write goes straight to the socket. What the kernel does not take is queued, and while
//! something is queued the connection is watched for WRITE. While more than the high mark is
//! queued nothing more is read: a client that does not read its answers gets to send no further
//! requests, and memory does not grow.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::account::{no_room_for_all, Room};
use super::conn_id::ConnId;
use super::loop_context::LoopContext;
use super::ring_io::RingIo;
use super::timeouts::Timeouts;
use super::write_queue::WriteQueue;
use crate::error::{fail, plain, Describe};
use crate::sys::{socket, Address};
use crate::Interest;

/// A ring sends many small writes with one system call, but has to keep a copy of each; for more
/// bytes than this a call of their own costs less.
const WORTH_A_CALL: usize = 2 * 1024;

/// How far a connection has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Both directions are in use.
    Open,
    /// It is to end once the queue is empty.
    Closing,
    /// All is sent and said; the peer's last bytes are thrown away until it ends too. A socket
    /// closed with unread bytes is reset, and a reset takes from the peer what it had not read.
    Lingering,
    /// It has ended, and waits to be taken away.
    Over,
}

/// The state of one connection, but for what its handler keeps.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    pub(crate) id: ConnId,
    pub(crate) peer: Address,
    pub(crate) queue: WriteQueue,
    pub(crate) timeouts: Timeouts,
    stage: Stage,
    /// The handler wants no data at present.
    paused: bool,
    /// More than the high mark was queued, and not yet less than the low one.
    pub(crate) above_high_water: bool,
    /// The peer has ended its direction.
    pub(crate) peer_ended: bool,
    /// We end ours once the queue is empty, or have: `Some(done)`.
    shutdown: Option<bool>,
    /// The interest it is registered with.
    pub(crate) registered: Option<Interest>,
    /// What of it a ring has under way.
    pub(crate) ring_io: RingIo,
    /// Why it ended.
    pub(crate) error: Option<i32>,
}

impl Connection {
    pub(crate) fn new(
        socket: OwnedFd,
        peer: Address,
        id: ConnId,
        queue: WriteQueue,
        timeouts: Timeouts,
    ) -> Self {
        Self {
            socket,
            id,
            peer,
            queue,
            timeouts,
            stage: Stage::Open,
            paused: false,
            above_high_water: false,
            peer_ended: false,
            shutdown: None,
            registered: None,
            ring_io: RingIo::default(),
            error: None,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    pub(crate) fn is_lingering(&self) -> bool {
        self.stage == Stage::Lingering
    }

    /// Ends it now, with what is queued unsent.
    pub(crate) fn end(&mut self, error: Option<i32>) {
        if self.stage != Stage::Over {
            self.stage = Stage::Over;
            self.error = error;
        }
    }

    /// Whether it is open with nothing queued and nothing asked for but to read, as most are after
    /// most calls.
    #[inline]
    pub(crate) fn is_only_reading(&self) -> bool {
        self.is_reading() && self.shutdown.is_none() && self.queue.is_empty()
    }

    /// Whether what arrives is read, and handed to the handler.
    #[inline]
    fn is_reading(&self) -> bool {
        self.stage == Stage::Open && !self.paused && !self.above_high_water && !self.peer_ended
    }

    /// Whether what arrives is read.
    #[inline]
    pub(crate) fn wants_input(&self) -> bool {
        match self.stage {
            Stage::Open => self.is_reading(),
            Stage::Lingering => true,
            Stage::Closing | Stage::Over => false,
        }
    }

    /// Whether there is data for the handler, or may be.
    pub(crate) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// What it is to be watched for.
    #[inline]
    pub(crate) fn interest(&self) -> Option<Interest> {
        match (self.wants_input(), !self.queue.is_empty()) {
            (true, true) => Some(Interest::READ | Interest::WRITE),
            (true, false) => Some(Interest::READ),
            (false, true) => Some(Interest::WRITE),
            (false, false) => None,
        }
    }

    /// What is to be done now that the queue is empty.
    pub(crate) fn advance(&mut self) {
        if !self.queue.is_empty() || self.stage == Stage::Over {
            return;
        }
        if self.shutdown == Some(false) || self.stage == Stage::Closing {
            self.shutdown = Some(true);
            // It fails when the peer has reset the connection, which the next read tells.
            let _ = socket::shutdown_write(self.socket.as_fd());
        }
        let both_ended = self.shutdown == Some(true) && self.peer_ended;
        match self.stage {
            _ if both_ended => self.stage = Stage::Over,
            Stage::Closing => self.stage = Stage::Lingering,
            _ => {}
        }
    }

    /// Makes the close of the socket a reset, and throws away what is queued.
    pub(crate) fn reset(&mut self) {
        // It fails on kinds of sockets that have no reset: closing is all there is then.
        let _ = socket::reset_on_close(self.socket.as_fd());
        self.queue.clear();
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn check_open(&self) -> io::Result<()> {
        match self.stage {
            Stage::Open if self.shutdown.is_none() => Ok(()),
            _ => Err(fail(libc::EPIPE, "the connection is closing, or its sending side is shut down")),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An open connection, as each call of a [`Handler`](crate::Handler) gets it. From elsewhere it
/// is reached by its [`id`](Conn::id).
#[derive(Debug)]
pub struct Conn<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) context: &'a LoopContext,
}

/// Writing.
impl Conn<'_> {
    /// Writes `data` with `send(2)`, queues what the kernel does not take, and returns how many
    /// bytes are queued now: 0 when all has gone. The data is copied only if queued. When more than
    /// the [high mark](crate::ServerOptions::water_marks) are, [`on_drain`](crate::Handler::on_drain)
    /// will be called.
    ///
    /// `ENOBUFS` when more would be queued than the [limits](crate::ServerOptions::queue_limit)
    /// allow: nothing was written then, and the connection goes on. What the kernel takes at once
    /// does not count, so that others who fill the server's queues keep nobody from writing.
    /// `ENOMEM` when there is no memory to queue it: nothing was written either.
    /// `EPIPE` after `close`, `abort` and `shutdown`. Any other error, such as `ECONNRESET`, ends
    /// the connection; [`on_close`](crate::Handler::on_close) tells it too. So does `ECONNABORTED`,
    /// for which `on_close` has `ENOMEM`: the kernel has taken a part, and the rest can't be kept
    /// for want of memory, or because other threads have meanwhile used up the limits.
    #[inline]
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

    /// Bytes from another thread, which were counted when they were taken; `above_high_water` when it was
    /// told that more than the high mark waits.
    pub(crate) fn write_shared(&mut self, data: Arc<Vec<u8>>, above_high_water: bool) {
        self.connection.above_high_water |= above_high_water;
        let sent = match self.connection.check_open() {
            Ok(()) if !self.can_send_directly(data.len()) => 0,
            Ok(()) => self.send(|fd| socket::send(fd, &data)).unwrap_or(data.len()),
            Err(_) => data.len(),
        };
        self.connection.queue.account().release(sent);
        if let Err(error) = self.queue(|queue| queue.push_shared(data, sent)) {
            // The writer was told that it would be sent.
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
    /// on this connection: each holds a descriptor. Nothing was taken then.
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
    /// read from the connection until it has fallen to the low one.
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

    /// One attempt to send; what would block sends nothing.
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

    /// Whether so many bytes go to the socket at once: nothing is before them, and no ring sends
    /// them cheaper.
    #[inline]
    fn can_send_directly(&self, length: usize) -> bool {
        self.connection.queue.is_empty() && (!self.context.uses_ring || length > WORTH_A_CALL)
    }

    /// Whether so many bytes are to be sent at once. `ENOBUFS` when they are not to be written.
    #[inline]
    fn sends_directly(&self, length: usize) -> io::Result<bool> {
        if !self.can_send_directly(length) && !self.connection.queue.is_empty() {
            return Ok(false);
        }
        match self.connection.queue.account().room(length)? {
            Room::Enough => Ok(self.can_send_directly(length)),
            // What can't wait is sent only if the kernel takes it as a whole.
            Room::NoneOfAll if socket::has_room(self.connection.socket.as_fd(), length) => Ok(true),
            Room::NoneOfAll => Err(no_room_for_all()),
        }
    }

    fn reserve(&self, rest: usize) -> io::Result<()> {
        self.connection.queue.account().reserve(rest).map(drop)
    }

    /// The rest of a write can't be kept: there is no memory, or other threads were faster to use
    /// up what the server may hold. Nothing is written then, unless a part of it already is.
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
        // What the peer has got is not the whole, and must not look like it.
        self.connection.reset();
        // We end our direction ourselves only when all is sent: the pipe was broken by a reset, of
        // which another call has been told.
        let errno = error.raw_os_error().filter(|&errno| errno != libc::EPIPE);
        self.connection.end(errno.or(Some(libc::ECONNRESET)));
        plain(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// Ending.
impl Conn<'_> {
    /// Ends the connection in order: no more data is handed to the handler, what is queued is
    /// sent, the peer is told the end, and is given the server's
    /// [linger](crate::ServerOptions::linger) time to read it all. Then `on_close` is called.
    pub fn close(&mut self) {
        if self.connection.stage == Stage::Open {
            self.connection.stage = Stage::Closing;
            self.context.mailbox.set_closing(self.connection.id);
        }
    }

    /// Ends the connection at once: what is queued is thrown away and the peer sees a reset.
    /// `on_close` is called with `ECONNABORTED` when the present call has returned.
    pub fn abort(&mut self) {
        if !self.connection.is_over() {
            self.connection.reset();
            self.connection.end(Some(libc::ECONNABORTED));
        }
    }

    /// Ends our direction once what is queued has been sent, by `shutdown(2)`: the peer sees
    /// the end of our data, and its own data still arrives. When both have ended, the
    /// connection has.
    pub fn shutdown(&mut self) {
        if self.connection.shutdown.is_none() {
            self.connection.shutdown = Some(false);
            self.context.mailbox.set_shut(self.connection.id);
        }
    }
}

/// Reading.
impl Conn<'_> {
    /// Takes no more data from the peer, which by and by can't send either. That it ends or
    /// resets the connection is noticed after [`resume`](Conn::resume), or by a failing write.
    pub fn pause(&mut self) {
        self.connection.paused = true;
    }

    /// Takes data again.
    pub fn resume(&mut self) {
        if self.connection.paused {
            self.connection.paused = false;
            self.connection.timeouts.note_read(&self.context.clock);
        }
    }

    /// Whether [`pause`](Conn::pause) is in force.
    pub fn is_paused(&self) -> bool {
        self.connection.paused
    }

    /// Whether the peer has ended its direction.
    pub fn has_ended(&self) -> bool {
        self.connection.peer_ended
    }
}

/// Its surroundings.
impl Conn<'_> {
    /// What other threads know it by.
    pub fn id(&self) -> ConnId {
        self.connection.id
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Address {
        &self.connection.peer
    }

    /// The address it came to. `getsockname(2)`.
    pub fn local(&self) -> io::Result<Address> {
        socket::local_address(self.connection.socket.as_fd()).describe("getsockname")
    }

    /// The socket, for its options. Reading, writing or closing it is the loop's.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.connection.socket.as_fd()
    }

    /// Ends the connection with `ETIMEDOUT` when nothing was read or written for so long; this
    /// one's own, instead of [`ServerOptions::idle_timeout`](crate::ServerOptions::idle_timeout).
    pub fn set_idle_timeout(&mut self, timeout: Option<Duration>) {
        self.connection.timeouts.set_idle(timeout, &self.context.clock);
    }

    /// Ends it with `ETIMEDOUT` when nothing was read for so long while it was being read.
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.connection.timeouts.set_read(timeout, &self.context.clock);
    }

    /// Ends it with `ETIMEDOUT` when bytes were queued for so long and none could be sent.
    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.connection.timeouts.set_write(timeout, &self.context.clock);
    }

    /// Whether the server is stopping: an answer may be the last on its connection.
    pub fn is_stopping(&self) -> bool {
        self.context.stopping.get()
    }

    /// The number of the loop or process that serves it, from 0, as in
    /// [`ServerStats::workers`](crate::ServerStats::workers).
    pub fn worker(&self) -> usize {
        self.context.worker
    }
}
