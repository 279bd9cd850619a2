//! [`ServerHandle`]: what other threads, and the handler, can do with a server.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::options::Model;
use super::shared::{Request, Shared};
use super::stats::ServerStats;
use crate::error::{bare, fail};
use crate::net::{Bound, ConnId, DatagramId};
use crate::EngineKind;

/// A server, for other threads and for its own handler.
///
/// # Portability
///
/// Every method is the same on every system and engine.
///
/// ```
/// use omnipoll::{Conn, Handler, Model, Server};
/// use std::time::Duration;
///
/// # struct Echo;
/// # impl Handler for Echo {
/// #     type State = ();
/// #     fn on_open(&self, _: &mut Conn<'_>) -> std::io::Result<()> { Ok(()) }
/// #     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) { let _ = conn.write(data); }
/// # }
/// let server = Server::new(Echo)?;
/// server.listen("127.0.0.1:0")?;
/// let handle = server.handle();
/// std::thread::scope(|scope| {
///     let serving = scope.spawn(|| server.run());
///     assert_eq!(handle.addresses().len(), 1);
///     assert!(handle.engine().is_available());
///     handle.stop(Some(Duration::from_secs(10)))?;
///     serving.join().unwrap()
/// })?;
/// assert_eq!(handle.stats().total.active, 0);
/// assert_eq!(handle.model(), Model::Reactor);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct ServerHandle {
    pub(super) shared: Arc<Shared>,
}

impl ServerHandle {
    /// Stops the server: no new clients, while those that are served have `drain` to finish
    /// (`None`: no limit; zero: no time) before their connections are reset. A
    /// stop before [`Server::run`](crate::Server::run) counts too; a second call sets a new limit.
    ///
    /// From any thread, and async-signal-safe in the process that made the server. In a process
    /// that FORK or PREFORK has forked, it ends that process's serving only; in any other forked
    /// child it is `EOWNERDEAD`.
    ///
    /// See the example of [`ServerHandle`].
    pub fn stop(&self, drain: Option<Duration>) -> io::Result<()> {
        self.shared.stop(drain)
    }

    /// Writes `data` to every connection that has room for it, and returns to how many;
    /// the others are counted in [`WorkerStats::writes_refused`](crate::WorkerStats). It is copied once.
    /// On each the promise of [`ConnId::write`](crate::ConnId::write) holds: where more than the high mark
    /// waits then, [`on_drain`](crate::Handler::on_drain) will be called.
    ///
    /// `ENOMEM` when there is no memory for a copy of it. `ENOTSUP` under FORK and PREFORK, whose
    /// processes don't reach each other's clients.
    ///
    /// ```
    /// use omnipoll::{Conn, Handler, Server, ServerHandle};
    /// # use std::io::{self, Read, Write};
    /// use std::sync::OnceLock;
    ///
    /// /// Sends what a client says to all of them.
    /// #[derive(Default)]
    /// struct Chat {
    ///     server: OnceLock<ServerHandle>,
    /// }
    ///
    /// impl Handler for Chat {
    ///     type State = ();
    ///
    ///     fn on_data(&self, _: &mut Conn<'_>, _: &mut (), data: &[u8]) {
    ///         if let Some(server) = self.server.get() {
    ///             let _ = server.broadcast(data);
    ///         }
    ///     }
    /// #   fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> { Ok(()) }
    /// }
    ///
    /// let server = Server::new(Chat::default())?;
    /// let _ = server.handler().server.set(server.handle());
    /// # let address = server.listen("127.0.0.1:0")?;
    /// # let handle = server.handle();
    /// # let running = std::thread::spawn(move || server.run());
    /// # let mut client = std::net::TcpStream::connect(address)?;
    /// # client.write_all(b"hello")?;
    /// # let mut answer = [0; 5];
    /// # client.read_exact(&mut answer)?;
    /// # assert_eq!(&answer, b"hello");
    /// # drop(client);
    /// # handle.stop(None)?;
    /// # running.join().unwrap()?;
    /// # Ok::<(), io::Error>(())
    /// ```
    #[doc(alias = "publish")]
    pub fn broadcast(&self, data: &[u8]) -> io::Result<usize> {
        self.shared.broadcast(None, data, None)
    }

    /// [`broadcast`](Self::broadcast) to every connection but one: usually that which has sent the data.
    /// If there is no such connection, to every one.
    ///
    /// See the example of [`Conn::join`](crate::Conn::join).
    pub fn broadcast_except(&self, data: &[u8], except: ConnId) -> io::Result<usize> {
        self.shared.broadcast(None, data, Some(except))
    }

    /// [`broadcast`](Self::broadcast) to every connection that has [joined](crate::Conn::join) a group, but
    /// one. It takes as long as they are many, however many connections there are besides. To a group
    /// without members it is 0.
    ///
    /// `EINVAL` for a name that is empty or has more than 255 bytes.
    ///
    /// See the example of [`Conn::join`](crate::Conn::join).
    pub fn broadcast_to(&self, group: &str, data: &[u8], except: Option<ConnId>) -> io::Result<usize> {
        self.shared.broadcast(Some(group), data, except)
    }

    /// For the bindings: any of these.
    #[doc(hidden)]
    pub fn broadcast_in(
        &self,
        group: Option<&str>,
        data: &[u8],
        except: Option<ConnId>,
    ) -> io::Result<usize> {
        self.shared.broadcast(group, data, except)
    }

    /// What the server has counted; under FORK and PREFORK in all its processes.
    ///
    /// See the example of [`ServerHandle`].
    pub fn stats(&self) -> ServerStats {
        self.shared.stats()
    }

    /// The addresses it listens on, with their real ports. None in a forked child, if another thread
    /// of the parent was listening on one at the very moment of the fork.
    ///
    /// See the example of [`ServerHandle`].
    pub fn addresses(&self) -> Vec<String> {
        self.shared.try_lock(&self.shared.addresses).map_or_else(Vec::new, |addresses| addresses.clone())
    }

    /// The ids of the datagram sockets that it listens on: of its `udp:` addresses in their order, for
    /// one loop after another, because under CORES and PREFORK each loop has a duplicate of each. None
    /// before the loops run and after a stop; under PREFORK each process has its own.
    ///
    /// See the example of [`DatagramId`].
    pub fn datagram_sockets(&self) -> Vec<DatagramId> {
        self.shared.datagram_sockets()
    }

    /// A duplicate of the socket at one of its [addresses](Self::addresses), by its place among
    /// them: to set an option, or for a new process that takes over without a gap in
    /// listening. Give that one the descriptors from 3 on and their number in `LISTEN_FDS`, let
    /// it listen on `"systemd"`, and stop this one when it serves. Nothing else changes: see
    /// [`keep_files`](Self::keep_files).
    ///
    /// `ENOENT` when there is none of that number; after a stop, and in a process that FORK or
    /// PREFORK has forked, there is none at all. `EMFILE` and `ENFILE` as `fcntl(2)` says. `EBUSY` in a
    /// forked child, if another thread of the parent was changing the server at the very moment of the
    /// fork.
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
    /// use std::net::TcpListener;
    ///
    /// let server = Server::new(Echo)?;
    /// let address = server.listen("127.0.0.1:0")?;
    /// let handle = server.handle();
    /// let listener = TcpListener::from(handle.dup_listener(0)?);
    /// assert_eq!(listener.local_addr()?.to_string(), address);
    /// assert_eq!(handle.dup_listener(1).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "dup")]
    #[doc(alias = "fcntl")]
    pub fn dup_listener(&self, number: usize) -> io::Result<OwnedFd> {
        let bound = self
            .shared
            .try_lock(&self.shared.bound)
            .ok_or_else(|| fail(libc::EBUSY, "another thread was changing the server during the fork"))?;
        bound.get(number).ok_or_else(|| fail(libc::ENOENT, "there is no such listening socket"))?.dup()
    }

    /// Leaves the files of its unix sockets where they are when it stops: they lead to another
    /// process, which has duplicates of the sockets. A forked child leaves them in any case.
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
    /// use std::env::temp_dir;
    ///
    /// let path = temp_dir().join(format!("omnipoll-{}.socket", std::process::id()));
    /// let server = Server::new(Echo)?;
    /// server.listen(&format!("unix:{}", path.display()))?;
    /// server.handle().keep_files();
    /// drop(server);
    /// assert!(path.exists());
    /// # std::fs::remove_file(path)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn keep_files(&self) {
        if let Some(mut bound) = self.shared.try_lock(&self.shared.bound) {
            bound.iter_mut().for_each(Bound::keep_file);
        }
    }

    /// Has a new process replace this server, as [`ServerOptions::restart`](crate::ServerOptions::restart) says:
    /// no client is refused or lost over it. The new process gets duplicates of all its sockets; where it
    /// listens on the same address, by the same text, it has these, whatever the order. `"systemd"` is those
    /// that no other address has taken by then; what is left when it begins to serve is closed.
    ///
    /// This server serves until the new one says that it does: when its workers have all begun, and
    /// [`on_worker_start`](crate::Handler::on_worker_start) has returned. Then it stops, with the
    /// [drain](crate::ServerOptions::drain) of the options, and leaves the files of unix sockets. If the new
    /// process can't be started, ends, or does not serve in time, this one goes on as before; either is
    /// reported to [`Restart::on_done`](crate::Restart::on_done). The service manager is sent
    /// `RELOADING=1` and, in the end, `READY=1`, of a new process with its `MAINPID`.
    ///
    /// It returns at once, from any thread, and is async-signal-safe. A program with several servers restarts
    /// one of them only.
    ///
    /// # Errors
    ///
    /// `ENOTSUP` for a server without that option; `EALREADY` while one is in progress, and when the server has
    /// been replaced; `EOWNERDEAD` in a forked child.
    ///
    /// # Portability
    ///
    /// The system call is `posix_spawn(3)`; systems that look for a new program's descriptors in `LISTEN_FDS`
    /// find them there.
    ///
    /// See the example of [`Restart`](crate::Restart).
    pub fn restart(&self) -> io::Result<()> {
        if self.shared.options.restart.is_none() {
            return Err(bare(libc::ENOTSUP));
        }
        self.shared.ask(Request::Restart)
    }

    /// Replaces the workers of PREFORK, one after another: a new process serves before the old one stops
    /// accepting, and the clients of that have the [drain](crate::ServerOptions::drain). It returns at once, and
    /// is async-signal-safe. A process that does not come to serve is tried again later, and the old one goes on.
    ///
    /// # Errors
    ///
    /// `ENOTSUP` under another model; `EALREADY` while it is in progress; `EOWNERDEAD` in a forked child.
    ///
    /// ```
    /// # use omnipoll::{Conn, Handler};
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type State = ();
    /// #     fn on_open(&self, _: &mut Conn<'_>) -> std::io::Result<()> { Ok(()) }
    /// #     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) { let _ = conn.write(data); }
    /// # }
    /// use omnipoll::{Model, Server, ServerOptions};
    ///
    /// let server = Server::with_options(Echo, ServerOptions::new().model(Model::Prefork))?;
    /// server.handle().restart_workers()?; // when it runs
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn restart_workers(&self) -> io::Result<()> {
        if self.shared.options.model != Model::Prefork {
            return Err(bare(libc::ENOTSUP));
        }
        self.shared.ask(Request::RestartWorkers)
    }

    /// Sends the service manager lines of sd_notify(3), such as `"STATUS=warm"`, or several, parted by line
    /// feeds. False when there is none: the server was made without
    /// [`notify`](crate::ServerOptions::notify), or `NOTIFY_SOCKET` was not set then. From any thread.
    ///
    /// # Errors
    ///
    /// As `sendto(2)` says: `ECONNREFUSED` and `ENOENT` when nothing reads from that socket, `EAGAIN` when
    /// it has had no room for a second.
    ///
    /// ```
    /// # use omnipoll::{Conn, Handler};
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type State = ();
    /// #     fn on_open(&self, _: &mut Conn<'_>) -> std::io::Result<()> { Ok(()) }
    /// #     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) { let _ = conn.write(data); }
    /// # }
    /// use omnipoll::{Server, ServerOptions};
    ///
    /// let server = Server::with_options(Echo, ServerOptions::new().notify(true))?;
    /// // True in a unit of systemd of Type=notify.
    /// let is_told = server.handle().notify("STATUS=The tables are loaded")?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "sd_notify")]
    pub fn notify(&self, state: &str) -> io::Result<bool> {
        self.shared.notify(state)
    }

    /// The engine of its loops.
    ///
    /// See the example of [`ServerHandle`].
    pub fn engine(&self) -> EngineKind {
        self.shared.engine
    }

    /// The model it serves by.
    ///
    /// See the example of [`ServerHandle`].
    pub fn model(&self) -> Model {
        self.shared.options.model
    }
}

impl std::fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerHandle").field("options", &self.shared.options).finish_non_exhaustive()
    }
}
