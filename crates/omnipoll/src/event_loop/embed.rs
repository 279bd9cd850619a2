//! A loop in an outer loop, which holds its descriptor.

use std::io;
use std::os::fd::BorrowedFd;

use super::handler::Handler;
use super::run::EventLoop;

impl<H: Handler> EventLoop<H> {
    /// A descriptor for an outer loop: of GLib, Qt, Node.js or another library. It is readable while there is
    /// something to do, be it of connections, or of what the [`poller`](Self::poller) waits for: timers,
    /// wakes and posts too. Whenever it is, call [`run_once`](Self::run_once) with a timeout of zero, once
    /// or more often: it stays readable until nothing is left.
    ///
    /// It is readable at first, and at times for nothing. What is done to the loop from outside of its
    /// callbacks makes it readable too. It belongs to the loop: never close it. It is the same at each
    /// call.
    ///
    /// # Errors
    ///
    /// `ENOTSUP` on select and poll, whose sets are not the kernel's; `EMFILE`, `ENFILE` and `ENOMEM` as the
    /// system says; `EOWNERDEAD` in a forked child.
    ///
    /// # Portability
    ///
    /// That of [`Poller::embed`](crate::Poller::embed), and on io_uring an `eventfd(2)` that the ring writes to.
    ///
    /// ```
    /// # use omnipoll::{Conn, EngineKind, Handler, LoopOptions};
    /// # use std::io::{Read, Write};
    /// # use std::net::TcpStream;
    /// # use std::os::fd::AsRawFd;
    /// # use std::time::Duration;
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type State = ();
    /// #     fn on_open(&self, _: &mut Conn<'_>) -> std::io::Result<()> { Ok(()) }
    /// #     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) { let _ = conn.write(data); }
    /// # }
    /// use omnipoll::EventLoop;
    ///
    /// # if !EngineKind::Epoll.is_available() { return Ok(()) }
    /// let mut event_loop = EventLoop::with_options(Echo, LoopOptions::new().engine(EngineKind::Epoll))?;
    /// let address = event_loop.listen("127.0.0.1:0", 1)?;
    /// let handle = event_loop.handle();
    /// # let client = std::thread::spawn(move || {
    /// #     let mut client = TcpStream::connect(address)?;
    /// #     client.write_all(b"hello")?;
    /// #     client.read_exact(&mut [0; 5])?;
    /// #     handle.stop(Some(Duration::ZERO))
    /// # });
    /// let mut watched = [libc::pollfd {
    ///     fd: event_loop.descriptor()?.as_raw_fd(),
    ///     events: libc::POLLIN,
    ///     revents: 0,
    /// }];
    /// loop {
    ///     // SAFETY: the array is writable for its length.
    ///     unsafe { libc::poll(watched.as_mut_ptr(), 1, -1) };
    ///     if watched[0].revents != 0 && !event_loop.run_once(Some(Duration::ZERO))? {
    ///         break;
    ///     }
    /// }
    /// # client.join().unwrap()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        self.core.embed()
    }

    /// In an outer loop: does what would be done before the next wait, so that nothing is left when that
    /// loop sleeps. False when this loop has ended.
    pub(super) fn arm(&mut self) -> io::Result<bool> {
        if !self.prepare()? {
            return Ok(false);
        }
        self.core.arm(&self.connections)?;
        self.is_armed = true;
        Ok(true)
    }
}
