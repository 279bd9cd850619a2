//! What other threads can do with a connection, by its [`ConnId`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::conn_id::ConnId;
use super::loop_table::LoopTable;
use super::mailbox::{stale, Command, Mailbox};
use super::timeouts::Timeout;
use super::write_queue::copy_of;
use crate::error::fail;

impl ConnId {
    /// Queues a copy of `data` after what was written before, and returns how many bytes wait to be
    /// sent then.
    ///
    /// `ESTALE` when the connection has ended or is closing, `EOWNERDEAD` when it belongs to the process
    /// that has forked this one, `EPIPE` when its sending side is
    /// [shut down](crate::Conn::shutdown), `ENOBUFS` when more would wait than the server's
    /// [limits](crate::ServerOptions::queue_limit) allow, or 16,384 writes and posts to this
    /// connection wait for its loop, `ENOMEM` when there is no memory for a copy: nothing was queued
    /// then. When the result is more than the [high mark](crate::ServerOptions::water_marks),
    /// [`on_drain`](crate::Handler::on_drain) will be called.
    ///
    /// See the example of [`Conn::id`](crate::Conn::id).
    pub fn write(self, data: &[u8]) -> io::Result<usize> {
        self.mailbox()?.write(self, Arc::new(copy_of(data)?))
    }

    /// Hands a value to the connection's handler: [`Handler::on_post`](crate::Handler::on_post)
    /// is called with it on the connection's own loop. `ESTALE` and `EOWNERDEAD` as for `write`, as
    /// for every method; `EAGAIN` when 16,384 posts and writes to this connection wait for its
    /// loop: try again later.
    ///
    /// See the example of [`Conn::pause`](crate::Conn::pause).
    pub fn post(self, value: i64) -> io::Result<()> {
        self.send(Command::Post(value))
    }

    /// [`Conn::close`](crate::Conn::close), from any thread. `ESTALE` as for `write`.
    ///
    /// See the example of [`Conn::id`](crate::Conn::id).
    pub fn close(self) -> io::Result<()> {
        self.send(Command::Close)
    }

    /// [`Conn::abort`](crate::Conn::abort), from any thread. `ESTALE` when it has ended.
    ///
    /// See the example of [`Conn::abort`](crate::Conn::abort).
    pub fn abort(self) -> io::Result<()> {
        self.send(Command::Abort)
    }

    /// [`Conn::pause`](crate::Conn::pause), from any thread. `ESTALE` as for `write`. Of several
    /// calls of `pause` and `resume` before the loop comes to them, the last counts.
    ///
    /// See the example of [`Conn::pause`](crate::Conn::pause).
    pub fn pause(self) -> io::Result<()> {
        self.send(Command::Pause(true))
    }

    /// [`Conn::resume`](crate::Conn::resume), from any thread. `ESTALE` as for `write`.
    ///
    /// See the example of [`Conn::pause`](crate::Conn::pause).
    pub fn resume(self) -> io::Result<()> {
        self.send(Command::Pause(false))
    }

    /// [`Conn::shutdown`](crate::Conn::shutdown), from any thread: what was written before is sent first, and
    /// a write afterwards is `EPIPE`. `ESTALE` as for `write`.
    pub fn shutdown(self) -> io::Result<()> {
        self.send(Command::Shutdown)
    }

    /// [`Conn::set_idle_timeout`](crate::Conn::set_idle_timeout) or one of those beside it, from any thread.
    /// `ESTALE` as for `write`, `EAGAIN` as for `post`.
    ///
    /// ```
    /// use omnipoll::{ConnId, Timeout};
    /// use std::time::Duration;
    ///
    /// let nobody = ConnId::from_number(7);
    /// let error = nobody.set_timeout(Timeout::Idle, Some(Duration::from_secs(5))).unwrap_err();
    /// assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
    /// assert_eq!(nobody.shutdown().unwrap_err().raw_os_error(), Some(libc::ESTALE));
    /// ```
    pub fn set_timeout(self, which: Timeout, time: Option<Duration>) -> io::Result<()> {
        self.send(Command::Timeout(which, time))
    }

    /// Whether the connection is open at this moment, and this process's.
    ///
    /// See the example of [`from_number`](Self::from_number).
    pub fn is_open(self) -> bool {
        self.check().is_ok()
    }

    /// For the bindings: why it is not open, `ESTALE` or `EOWNERDEAD`.
    #[doc(hidden)]
    pub fn check(self) -> io::Result<()> {
        if self.mailbox()?.has(self) {
            Ok(())
        } else {
            Err(stale())
        }
    }

    fn send(self, command: Command) -> io::Result<()> {
        self.mailbox()?.send(self, command)
    }

    /// `EOWNERDEAD` where only processes that this one descends from have had loops.
    pub(super) fn mailbox(self) -> io::Result<Arc<Mailbox>> {
        if LoopTable::is_parents() {
            return Err(fail(libc::EOWNERDEAD, "the connection belongs to the parent process"));
        }
        let index = Some(self.loop_index()).filter(|_| self.is_connection());
        index.and_then(LoopTable::mailbox).ok_or_else(stale)
    }
}
