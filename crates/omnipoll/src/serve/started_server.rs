//! [`StartedServer`]: a server that is run step by step, in an outer loop.

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::server_loop::{Progress, ServerLoop, Until};
use super::shared::Shared;
use super::worker::{self, WorkerSockets};
use crate::event_loop::{Clients, Connections, Handler};
use crate::sys::lock;

/// A server that was [started](super::Server::start), and serves a step at a time: in the loop of GLib,
/// Qt, Node.js or another library, or between other things that a program does.
///
/// It stays in the thread that has started it. Dropped before it has ended, it resets its connections,
/// and `on_close` is called for each.
///
/// # Portability
///
/// Every method is the same on every system and engine, unless it says otherwise.
///
/// ```
/// # use omnipoll::{Conn, Handler};
/// # struct Echo;
/// # impl Handler for Echo {
/// #     type State = ();
/// #     fn on_open(&self, _: &mut Conn<'_>) -> std::io::Result<()> { Ok(()) }
/// #     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) { let _ = conn.write(data); }
/// # }
/// use omnipoll::Server;
/// use std::time::Duration;
///
/// let server = Server::new(Echo)?;
/// server.listen("127.0.0.1:0")?;
/// let handle = server.handle();
/// let mut started = server.start()?;
/// assert!(started.run_once(Some(Duration::ZERO))?);
/// handle.stop(None)?;
/// while started.run_once(None)? {}
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct StartedServer<H: Handler> {
    server_loop: ServerLoop,
    connections: Connections<Arc<H>>,
    shared: Arc<Shared>,
    progress: Progress,
    has_ended: bool,
    /// A ring takes requests of the thread that has made it alone.
    of_this_thread: PhantomData<*const ()>,
}

impl<H: Handler> StartedServer<H> {
    pub(super) fn new(handler: Arc<H>, shared: Arc<Shared>, sockets: WorkerSockets) -> io::Result<Self> {
        let (server_loop, connections) =
            worker::make_loop(handler, &shared, shared.control.clone(), 0, sockets)?;
        let mut started = Self {
            server_loop,
            connections,
            shared,
            progress: Progress::default(),
            has_ended: false,
            of_this_thread: PhantomData,
        };
        let begun = started.connections.start_worker();
        started.server_loop.check_is_in_parent()?;
        if let Err(error) = begun {
            // Without `on_worker_end`.
            started.has_ended = true;
            started.release()?;
            return Err(error);
        }
        started.shared.worker_serves();
        started.server_loop.apply_stop(&mut started.connections);
        Ok(started)
    }

    /// Waits once, for no longer than `timeout`, and serves what has come. False when the server was
    /// [stopped](super::ServerHandle::stop), and every client has gone: then, and from then on.
    ///
    /// It returns after every wait: also when what came was the server's own business. Errors as
    /// [`Server::run`](super::Server::run).
    ///
    /// See the example of [`StartedServer`].
    pub fn run_once(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        if self.has_ended {
            return Ok(false);
        }
        let Self { server_loop, connections, progress, .. } = self;
        match server_loop.turn(connections, Until::Stopped, timeout, progress) {
            Ok(true) => {
                if server_loop.core.poller.is_embedded() {
                    server_loop.arm(connections, Until::Stopped, progress)?;
                }
                Ok(true)
            }
            ended => ended.and(self.end()).map(|()| false),
        }
    }

    /// A descriptor for an outer loop, as [`EventLoop::descriptor`](crate::EventLoop::descriptor): whenever
    /// it is readable, call [`run_once`](Self::run_once) with a timeout of zero.
    ///
    /// # Errors
    ///
    /// `ENOTSUP` on select and poll; else as [`Poller::embed`](crate::Poller::embed).
    ///
    /// # Portability
    ///
    /// As for [`EventLoop::descriptor`](crate::EventLoop::descriptor).
    ///
    /// ```
    /// # use omnipoll::{Conn, EngineKind, Handler, ServerOptions};
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type State = ();
    /// #     fn on_open(&self, _: &mut Conn<'_>) -> std::io::Result<()> { Ok(()) }
    /// #     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) { let _ = conn.write(data); }
    /// # }
    /// use omnipoll::{Events, Interest, Poller, Server};
    /// use std::time::Duration;
    ///
    /// # if !EngineKind::Epoll.is_available() { return Ok(()) }
    /// let server = Server::with_options(Echo, ServerOptions::new().engine(EngineKind::Epoll))?;
    /// server.listen("127.0.0.1:0")?;
    /// let mut started = server.start()?;
    ///
    /// // The outer loop, here of a poller.
    /// let outer = Poller::new()?;
    /// outer.add(started.descriptor()?, Interest::READ, 1)?;
    /// # server.handle().stop(None)?;
    /// let mut events = Events::with_capacity(8);
    /// loop {
    ///     outer.wait(&mut events, None)?;
    ///     if !started.run_once(Some(Duration::ZERO))? {
    ///         break;
    ///     }
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        self.server_loop.core.embed()
    }

    fn end(&mut self) -> io::Result<()> {
        self.has_ended = true;
        if !self.server_loop.core.poller.is_owner() {
            return Ok(());
        }
        self.connections.end_worker();
        self.release()
    }

    /// Gives up what the server has outside of its loop.
    fn release(&self) -> io::Result<()> {
        self.shared.close_mailbox(self.connections.mailbox());
        lock(&self.shared.bound).clear();
        self.shared.unwatch_signals()
    }
}

impl<H: Handler> Drop for StartedServer<H> {
    fn drop(&mut self) {
        if !self.has_ended && self.server_loop.core.poller.is_owner() {
            self.connections.force_close(&mut self.server_loop.core);
            let _ = self.end();
        }
    }
}

impl<H: Handler> std::fmt::Debug for StartedServer<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StartedServer").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}
