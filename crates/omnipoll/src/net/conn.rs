//! [`Conn`]: a connection as its handler's callbacks get it.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use super::connection_table::ConnectionTable;
use super::loop_context::LoopContext;

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
    pub(crate) table: &'a mut ConnectionTable,
    pub(crate) slot: usize,
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
        self.table[self.slot].write(data, self.context)
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
        self.table[self.slot].write_vectored(pieces, self.context)
    }

    /// Sends `length` bytes of a file from `offset` on with `sendfile(2)`, after what is queued.
    /// They never pass through this process's memory and don't count as queued bytes; but while
    /// more than the high mark wait, those of files included, nothing is read from a client, and
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
        self.table[self.slot].send_file(file.as_fd(), offset, length, self.context)
    }

    /// How many bytes wait in memory to be sent. Above the high mark, nothing more is read from a connection
    /// that was accepted until they have fallen to the low one.
    ///
    /// See the example of [`write`](Conn::write).
    #[inline]
    pub fn queued(&self) -> usize {
        self.table[self.slot].queue.queued()
    }
}
