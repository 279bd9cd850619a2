//! [`Server`]: addresses to listen on, a handler, and a model.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;

use super::models::{cores, fork, prefork, reactor, thread as threads};
use super::options::{Model, ServerOptions};
use super::server_handle::ServerHandle;
use super::server_loop::watch_stop_signals;
use super::shared::Shared;
use super::started_server::StartedServer;
use super::tokens;
use super::worker::WorkerSockets;
use crate::error::{explain, fail};
use crate::event_loop::Handler;
use crate::net::{passed, Bound, ListenAddress};
use crate::sys::lock;

/// Serves clients by a [`Handler`], as its [options](ServerOptions) say.
///
/// # Portability
///
/// Every method is the same on every system and engine, unless it says otherwise.
///
/// ```
/// use omnipoll::{Conn, Handler, Server};
/// use std::io::{self, Read, Write};
/// use std::net::TcpStream;
///
/// struct Echo;
///
/// impl Handler for Echo {
///     type State = ();
///     fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
///         Ok(())
///     }
///     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) {
///         let _ = conn.write(data);
///     }
/// }
///
/// let server = Server::new(Echo)?;
/// let address = server.listen("127.0.0.1:0")?;
/// let handle = server.handle();
/// let running = std::thread::spawn(move || server.run());
///
/// let mut client = TcpStream::connect(&address)?;
/// client.write_all(b"hello")?;
/// let mut answer = [0; 5];
/// client.read_exact(&mut answer)?;
/// assert_eq!(&answer, b"hello");
/// drop(client);
///
/// handle.stop(None)?;
/// running.join().unwrap()?;
/// # Ok::<(), io::Error>(())
/// ```
pub struct Server<H> {
    handler: Arc<H>,
    shared: Arc<Shared>,
    ran: AtomicBool,
}

impl<H: Handler + Send + Sync> Server<H> {
    /// A server with one loop on the best engine. Errors as [`Server::with_options`].
    ///
    /// # Portability
    ///
    /// As for [`Poller::new`](crate::Poller::new).
    ///
    /// See the example of [`Server`].
    pub fn new(handler: H) -> io::Result<Self> {
        Self::with_options(handler, ServerOptions::new())
    }

    /// A server with these options.
    ///
    /// # Errors
    ///
    /// `ENOSYS` when the engine is not available, `EINVAL` when an option makes no sense,
    /// `EMFILE`, `ENFILE` and `ENOMEM` from the system.
    ///
    /// # Portability
    ///
    /// Every model runs on every engine. On io_uring a ring accepts, receives and sends under
    /// REACTOR, CORES and PREFORK, where the kernel can (Linux 6.1).
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
    /// let server = Server::with_options(Echo, ServerOptions::new().max_clients(1000))?;
    /// server.listen("127.0.0.1:0")?;
    ///
    /// let error = Server::with_options(Echo, ServerOptions::new().workers(0)).unwrap_err();
    /// assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn with_options(handler: H, options: ServerOptions) -> io::Result<Self> {
        if options.each_loop.low_water > options.each_loop.high_water {
            return Err(fail(libc::EINVAL, "the low mark is above the high one"));
        }
        options.each_loop.settings.check()?;
        if options.workers == Some(0) || options.each_loop.max_clients == Some(0) {
            return Err(fail(libc::EINVAL, "a server needs a worker, and must be allowed a client"));
        }
        if options.restart.is_some() && options.reuse_port == Some(true) {
            return Err(fail(
                libc::EINVAL,
                "a server that is replaced shares its sockets: a client at that of one worker would be lost",
            ));
        }
        let workers = match options.model {
            Model::Cores | Model::Prefork => options.workers.unwrap_or_else(cores_of_this_process),
            _ => 1,
        };
        // One that may serve no client would keep waiting those that the kernel gives it.
        let workers = options.each_loop.max_clients.map_or(workers, |clients| workers.min(clients));
        let shared = Arc::new(Shared::new(options, workers)?);
        Ok(Self { handler: Arc::new(handler), shared, ran: AtomicBool::new(false) })
    }

    /// Listens on an address, and returns it with the port that the system has chosen where it
    /// was 0. Several calls add up; clients wait in the socket's queue until [`Server::run`].
    ///
    /// `"127.0.0.1:8080"`, `"[::1]:8080"`, `"localhost:8080"`, `":8080"` or `"*:8080"`
    /// (every address of this machine), `"unix:/path"`, `"unix:@abstract"`, `"fd:3"` (a socket that
    /// was inherited), `"systemd"` (all that systemd has passed), `"systemd:web"` (those of that name,
    /// `FileDescriptorName=web`), `"udp:127.0.0.1:53"` (datagrams, under REACTOR, CORES and PREFORK).
    ///
    /// # Errors
    ///
    /// `EINVAL` for an address that is none, and once the server runs; `EOWNERDEAD` in a forked
    /// child; `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES` as `bind(2)` says, `ENOTSUP` for datagrams under
    /// THREAD and FORK.
    ///
    /// # Portability
    ///
    /// Abstract names (`"unix:@abstract"`) are Linux's.
    ///
    /// ```
    /// # use omnipoll::{Conn, Handler};
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type State = ();
    /// #     fn on_open(&self, _: &mut Conn<'_>) -> std::io::Result<()> { Ok(()) }
    /// #     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) { let _ = conn.write(data); }
    /// # }
    /// use omnipoll::{explain, Server};
    ///
    /// let server = Server::new(Echo)?;
    /// let address = server.listen("127.0.0.1:0")?;
    /// assert!(address.starts_with("127.0.0.1:") && address != "127.0.0.1:0");
    /// server.listen("udp:127.0.0.1:0")?;
    ///
    /// let error = Server::new(Echo)?.listen(&address).unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    /// println!("{}", explain(&error));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "bind")]
    #[doc(alias = "socket")]
    #[doc(alias = "getaddrinfo")]
    pub fn listen(&self, address: &str) -> io::Result<String> {
        // The explanation belongs to this very error.
        self.open(address).map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            fail(errno, format!("{address:?}: {}", explain(&error)))
        })
    }

    fn open(&self, address: &str) -> io::Result<String> {
        let parsed: ListenAddress = address.parse()?;
        self.check_is_new()?;
        self.shared.check_owner()?;
        let options = &self.shared.options;
        let takes_datagrams = !matches!(options.model, Model::Thread | Model::Fork);
        let opened = match passed::take(address) {
            Some(sockets) => Bound::adopt(&parsed, sockets, takes_datagrams)?,
            None => {
                let reuses_ports = self.shared.reuses_ports();
                let (backlog, settings) = (options.each_loop.backlog, &options.each_loop.settings);
                Bound::open(&parsed, backlog, reuses_ports, takes_datagrams, settings)?
            }
        };
        let addresses: Vec<String> = opened.iter().map(Bound::address).collect();
        let mut bound = lock(&self.shared.bound);
        self.check_is_new()?;
        lock(&self.shared.listening).push((address.to_owned(), opened.len()));
        bound.extend(opened);
        lock(&self.shared.addresses).extend_from_slice(&addresses);
        Ok(addresses.join(" "))
    }

    /// The loops take the sockets when they start.
    fn check_is_new(&self) -> io::Result<()> {
        if self.ran.load(Ordering::SeqCst) {
            return Err(fail(libc::EINVAL, "a server listens before it runs, not afterwards"));
        }
        Ok(())
    }

    /// What other threads, and the handler, reach the server by.
    ///
    /// See the example of [`ServerHandle`].
    pub fn handle(&self) -> ServerHandle {
        ServerHandle { shared: self.shared.clone() }
    }

    /// The handler.
    ///
    /// See the example of [`ServerHandle::broadcast`].
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// Serves until the server is [stopped](ServerHandle::stop), and every client has gone. A
    /// server runs once; `EINVAL` the second time. `EOWNERDEAD` in a forked child: make it there.
    ///
    /// Under FORK and PREFORK, call it while the process has no other threads: a forked child
    /// has only the thread that forked, and a lock that another held stays locked in it.
    ///
    /// A child that a callback of the handler forks should not return from it. In one that does,
    /// `run` is `EOWNERDEAD` under REACTOR, and under the other models the process ends with status 1.
    ///
    /// # Portability
    ///
    /// The same on every system and engine. The system calls are those of
    /// [`Poller::wait`](crate::Poller::wait), `accept4(2)`, `recv(2)` and `send(2)`, or on a ring
    /// `io_uring_enter(2)` for all of them.
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
    ///
    /// let server = Server::new(Echo)?;
    /// server.listen("127.0.0.1:0")?;
    /// server.handle().stop(None)?;
    /// server.run()?;
    /// assert_eq!(server.run().unwrap_err().raw_os_error(), Some(libc::EINVAL));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "accept")]
    pub fn run(&self) -> io::Result<()> {
        let (handler, shared) = (&*self.handler, &self.shared);
        let mut sockets = self.begin()?;
        let served = match shared.options.model {
            Model::Reactor => reactor::run(handler, shared, sockets.remove(0)),
            Model::Cores => cores::run(handler, shared, sockets),
            Model::Thread => threads::run(handler, shared, sockets.remove(0)),
            Model::Fork => fork::run(handler, shared, sockets.remove(0)),
            Model::Prefork => prefork::run(handler, shared, sockets),
        };
        lock(&shared.bound).clear();
        // From now on the program handles them again.
        served.and(shared.unwatch_signals())
    }

    /// Starts to serve in this thread, step by step: see [`StartedServer`]. That is a run of the server,
    /// too: `EINVAL` the second time.
    ///
    /// # Errors
    ///
    /// `ENOTSUP` under another model than REACTOR, as which a loop serves alone. Else those that
    /// [`run`](Self::run) begins with.
    ///
    /// # Portability
    ///
    /// As for [`run`](Self::run).
    ///
    /// See the example of [`StartedServer`].
    pub fn start(&self) -> io::Result<StartedServer<H>> {
        self.shared.check_owner()?;
        if self.shared.options.model != Model::Reactor {
            return Err(fail(libc::ENOTSUP, "only under REACTOR a server can be run step by step"));
        }
        let mut sockets = self.begin()?;
        StartedServer::new(self.handler.clone(), self.shared.clone(), sockets.remove(0))
    }

    /// Begins the only run of the server. Returns the sockets of each worker.
    fn begin(&self) -> io::Result<Vec<WorkerSockets>> {
        self.shared.check_owner()?;
        if self.ran.swap(true, Ordering::SeqCst) {
            return Err(fail(libc::EINVAL, "a server runs once: make another"));
        }
        let sockets = self.sockets()?;
        if self.shared.options.signals {
            // Before the first client: until then a signal ends the process.
            watch_stop_signals(&self.shared.control)?;
        }
        if self.shared.options.signals && self.shared.options.restart.is_some() {
            self.shared.control.signal_add_reserved(libc::SIGHUP, tokens::RESTART)?;
        }
        passed::close_rest();
        Ok(sockets)
    }

    /// The sockets of each worker.
    fn sockets(&self) -> io::Result<Vec<WorkerSockets>> {
        let (bound, options) = (lock(&self.shared.bound), &self.shared.options.each_loop);
        let workers = self.shared.counters.workers();
        let mut sockets: Vec<_> = (0..workers).map(|_| WorkerSockets::default()).collect();
        let mut are_shared = false;
        for (number, sockets) in sockets.iter_mut().enumerate() {
            for bound in bound.iter() {
                match bound {
                    Bound::Datagrams(socket) => sockets.datagrams.push(socket.try_clone()?),
                    Bound::Stream(listener) if number > 0 && listener.shares_port() => {
                        match listener.sibling(options.backlog, &options.settings) {
                            // Of another user than the first, after privileges have been dropped.
                            Err(error) if is_denied(&error) => {
                                sockets.listeners.push(listener.try_clone()?);
                                are_shared = true;
                            }
                            sibling => sockets.listeners.push(sibling?),
                        }
                    }
                    Bound::Stream(listener) => {
                        sockets.listeners.push(listener.try_clone()?);
                        sockets.is_shared |= workers > 1 && !listener.shares_port();
                    }
                }
            }
        }
        sockets.iter_mut().for_each(|sockets| sockets.is_shared |= are_shared);
        Ok(sockets)
    }
}

impl<H> std::fmt::Debug for Server<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// Whether this user may not add a socket to the port of another's.
fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EADDRINUSE))
}

fn cores_of_this_process() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
