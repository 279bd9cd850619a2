//! [`EventLoop`]: one loop of a program's own, by handler.

use std::io;
use std::marker::PhantomData;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::acceptor::Acceptor;
use super::connections::{budget_of, Connections, LoopPlace};
use super::core::{Clients, Core, Hooks, EVENTS};
use super::handler::Handler;
use super::loop_handle::LoopHandle;
use super::options::LoopOptions;
use crate::error::fail;
use crate::net::driver::{AnyDriver, DriverKind};
use crate::net::{
    close_mailbox, open_mailbox, Admission, Conn, ConnId, ConnectOptions, Counters, DatagramId, LoopRef,
    Pipes, Spawned, StopRequest,
};
use crate::{EngineKind, EventKind, Events, Options, Poller};

/// One loop in one thread: connections in and out, datagram sockets, and all else that a program waits
/// for. A server's workers are such loops.
///
/// What happens is handed to a [`Handler`]; [`PulledLoop`](crate::PulledLoop) returns it as events. The
/// program's own timers, descriptors, signals, children and posts are those of the loop's
/// [`poller`](Self::poller), and come to [`Handler::on_event`].
///
/// It stays in the thread that has made it. Other threads have its [`handle`](Self::handle), and the
/// ids of its connections.
///
/// # Portability
///
/// Every method is the same on every system and engine, unless it says otherwise.
///
/// ```
/// use omnipoll::{Conn, Event, EventLoop, Handler, LoopRef};
/// use std::io;
/// use std::time::Duration;
///
/// /// Echoes, and stops after a moment.
/// struct Echo;
///
/// impl Handler for Echo {
///     type State = ();
///
///     fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
///         Ok(())
///     }
///
///     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) {
///         let _ = conn.write(data);
///     }
///
///     fn on_event(&self, event_loop: &mut LoopRef<'_>, event: &Event) {
///         assert_eq!(event.token(), 1);
///         let _ = event_loop.stop(None);
///     }
/// }
///
/// let mut event_loop = EventLoop::new(Echo)?;
/// let address = event_loop.listen("127.0.0.1:0", 7)?;
/// event_loop.poller().timer_add(Duration::from_millis(1), None, 1)?;
/// event_loop.run()?;
/// # Ok::<(), io::Error>(())
/// ```
pub struct EventLoop<H: Handler> {
    pub(super) core: Core,
    pub(super) connections: Connections<H>,
    events: Events,
    stop: Arc<StopRequest>,
    options: LoopOptions,
    engine: EngineKind,
    /// In an outer loop: nothing has to be done before the next wait.
    pub(super) is_armed: bool,
    /// A ring takes requests of the thread that has made it alone.
    of_this_thread: PhantomData<*const ()>,
}

impl<H: Handler> EventLoop<H> {
    /// A loop on the best engine of this machine, or on the one that `OMNIPOLL_ENGINE` names.
    ///
    /// See the example of [`EventLoop`].
    pub fn new(handler: H) -> io::Result<Self> {
        Self::with_options(handler, LoopOptions::new())
    }

    /// A loop with options.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the low mark is above the high one, or no client is allowed; `ENOSYS` when the engine
    /// is not available here; `EMFILE`, `ENFILE` and `ENOMEM` as the system says; `EAGAIN` when the process
    /// has 65,536 loops.
    ///
    /// See the example of [`LoopOptions`].
    pub fn with_options(handler: H, options: LoopOptions) -> io::Result<Self> {
        if options.low_water > options.high_water {
            return Err(fail(libc::EINVAL, "the low water mark is above the high one"));
        }
        options.settings.check()?;
        if options.max_clients == Some(0) {
            return Err(fail(libc::EINVAL, "a loop must be allowed a client"));
        }
        let engine = options.engine.map_or_else(EngineKind::auto, Ok)?;
        let driver_kind = DriverKind::of(engine, true)?;
        let poller = Options::new().engine(driver_kind.poller_engine(engine)).interruptible(true);
        let poller = poller.wait_policy(driver_kind.poller_policy(options.wait_policy));
        let poller = Arc::new(poller.reserve_tokens().build()?);
        let driver = AnyDriver::new(driver_kind, options.wait_policy)?;
        let budget = Arc::new(budget_of(&options));
        let counters = Counters::new(1)?.of(0);
        let mailbox = open_mailbox(0, poller.clone(), budget.clone(), counters.clone(), Arc::default())?;
        let acceptor = Acceptor::new(Vec::new(), false, options.max_clients.is_none());
        let mut core = Core::new(poller.clone(), driver, acceptor, counters.clone(), true);
        let limits = options.address_limits(1, 0)?;
        let admission = limits.map(|limits| Admission::new(&limits, counters.clone(), 0));
        let has_header = options.proxy_header.is_some();
        core.admission = admission.clone().filter(|_| !has_header);
        let handle = LoopHandle { stop: Arc::default(), poller: poller.clone(), mailbox: mailbox.clone() };
        let stop = handle.stop.clone();
        let place = LoopPlace {
            poller,
            mailbox,
            budget,
            counters,
            worker: 0,
            driver_kind,
            backlog: Some(options.backlog),
            stop: Box::new(move |drain| handle.stop(drain)),
            admission: admission.clone().filter(|_| has_header),
        };
        let connections =
            Connections::new(handler, place, &options, options.max_clients.unwrap_or(usize::MAX));
        let events = Events::with_capacity(EVENTS);
        Ok(Self {
            core,
            connections,
            events,
            stop,
            options,
            engine,
            is_armed: false,
            of_this_thread: PhantomData,
        })
    }

    /// Listens on an address, and returns it with the port that the system has chosen where it was 0.
    /// Connections that are accepted from it have this [`token`](Conn::token).
    ///
    /// Addresses and errors are those of [`Server::listen`](crate::Server::listen); it may be called at any
    /// time, but after a stop: `EINVAL`.
    ///
    /// See the example of [`EventLoop`].
    #[doc(alias = "bind")]
    #[doc(alias = "socket")]
    pub fn listen(&mut self, address: &str, token: u64) -> io::Result<String> {
        self.loop_ref().listen(address, token)
    }

    /// A datagram socket that is connected to a `udp:` address: `"udp:192.0.2.1:53"`, with a number for
    /// the host. A name is the program's to look up, which then knows its addresses and chooses one; that may
    /// take long, and is not for a callback. It has a port of its own, receives from there only, and
    /// [`on_datagram_error`](Handler::on_datagram_error) is called when nobody is there.
    ///
    /// [`DatagramId::send`] sends. It is open until it is [closed](DatagramId::close), or the loop is
    /// stopped.
    ///
    /// # Errors
    ///
    /// `EINVAL` for any other address, `ESTALE` after a stop, `ENETUNREACH`, `EACCES` and
    /// `EADDRNOTAVAIL` as `connect(2)` says; `EMFILE`, `ENFILE`, `ENOMEM`.
    ///
    /// ```
    /// # use std::io;
    /// use omnipoll::{Conn, Datagram, EventLoop, Handler};
    /// use std::cell::RefCell;
    /// use std::net::UdpSocket;
    ///
    /// /// Keeps what it is sent.
    /// #[derive(Default)]
    /// struct Keep(RefCell<Vec<u8>>);
    ///
    /// impl Handler for Keep {
    ///     type State = ();
    ///
    ///     fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
    ///         assert_eq!(datagram.token(), 7);
    ///         self.0.borrow_mut().extend_from_slice(data);
    ///     }
    /// #   fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> { Ok(()) }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
    /// }
    ///
    /// let server = UdpSocket::bind("127.0.0.1:0")?;
    /// let mut event_loop = EventLoop::new(Keep::default())?;
    /// let socket = event_loop.connect_datagrams(&format!("udp:{}", server.local_addr()?), 7)?;
    /// assert_eq!(socket.token()?, 7);
    /// socket.send(b"question")?;
    ///
    /// let mut question = [0; 64];
    /// let (length, client) = server.recv_from(&mut question)?;
    /// assert_eq!(&question[..length], b"question");
    /// server.send_to(b"answer", client)?;
    /// while event_loop.handler().0.borrow().is_empty() {
    ///     event_loop.run_once(None)?;
    /// }
    /// assert_eq!(*event_loop.handler().0.borrow(), b"answer");
    /// # Ok::<(), io::Error>(())
    /// ```
    #[doc(alias = "connect")]
    pub fn connect_datagrams(&mut self, address: &str, token: u64) -> io::Result<DatagramId> {
        self.loop_ref().connect_datagrams(address, token)
    }

    /// The ids of its datagram sockets, the oldest first.
    ///
    /// See the example of [`DatagramId`].
    pub fn datagram_sockets(&self) -> Vec<DatagramId> {
        self.connections.mailbox().datagram_ids()
    }

    /// Connects to an address, and returns the id of the connection: when it is open,
    /// [`Handler::on_open`] is called, and if it never opens, [`Handler::on_connect_error`], each not before
    /// the next wait. What is written to the id before is sent when it is open; a close or an abort of it
    /// ends the attempt.
    ///
    /// `"192.0.2.1:80"`, `"[2001:db8::1]:80"`; `"example.org:80"`, a name, which is looked up by
    /// `getaddrinfo(3)` on one of a few threads, and whose addresses are tried as RFC 8305 says: the families
    /// take turns, the next is tried when one has failed or has not answered for 250 ms, and the first
    /// connection wins; `"unix:/path"`, `"unix:@abstract"`; `"fd:5"`, a stream socket that is connected
    /// already.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an address that is none, `EAGAIN` when the loop has as many connections as it can have
    /// (1,048,576), `EOWNERDEAD` in a forked child; for `"fd:"`, `EBADF`, `ENOTSOCK`, `ENOTCONN`. The handler
    /// gets all that fails later.
    ///
    /// ```
    /// use omnipoll::{Conn, ConnId, ConnectOptions, EventLoop, FailedConnect, Handler, LoopRef};
    /// use std::io;
    /// # use std::io::{Read, Write};
    /// # use std::net::{TcpListener, TcpStream};
    ///
    /// /// A proxy: a client's connection, and the one to the backend for it, are relayed to each other.
    /// struct Proxy {
    ///     backend: String,
    /// }
    ///
    /// impl Handler for Proxy {
    ///     type State = ();
    ///
    ///     fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
    ///         if !conn.is_outgoing() {
    ///             conn.pause();
    ///             let client = conn.id().number();
    ///             conn.event_loop().connect(&self.backend, &ConnectOptions::new(), client)?;
    ///             return Ok(());
    ///         }
    ///         let (backend, client) = (conn.id(), ConnId::from_number(conn.token()));
    ///         conn.relay_to(client)?;
    ///         let mut client = conn.other(client)?;
    ///         client.relay_to(backend)?;
    ///         client.resume();
    ///         Ok(())
    ///     }
    ///
    ///     fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
    ///
    ///     fn on_connect_error(&self, event_loop: &mut LoopRef<'_>, failed: &FailedConnect) {
    ///         eprintln!("{}", omnipoll::explain(&failed.error()));
    ///         if let Ok(mut client) = event_loop.conn(ConnId::from_number(failed.token())) {
    ///             client.abort();
    ///         }
    ///     }
    /// }
    ///
    /// # let backend = TcpListener::bind("127.0.0.1:0")?;
    /// # let backend_address = backend.local_addr()?.to_string();
    /// let mut proxy = EventLoop::new(Proxy { backend: backend_address })?;
    /// let address = proxy.listen("127.0.0.1:0", 0)?;
    /// # let handle = proxy.handle();
    /// # let client = std::thread::spawn(move || -> io::Result<()> {
    /// #     let mut client = TcpStream::connect(address)?;
    /// #     client.write_all(b"hello")?;
    /// #     let mut served = backend.accept()?.0;
    /// #     let mut word = [0; 5];
    /// #     served.read_exact(&mut word)?;
    /// #     assert_eq!(&word, b"hello");
    /// #     handle.stop(Some(std::time::Duration::ZERO))
    /// # });
    /// proxy.run()?;
    /// # client.join().unwrap()?;
    /// # Ok::<(), io::Error>(())
    /// ```
    #[doc(alias = "getaddrinfo")]
    pub fn connect(&mut self, address: &str, options: &ConnectOptions, token: u64) -> io::Result<ConnId> {
        self.loop_ref().connect(address, options, token)
    }

    /// Starts a program whose standard streams are connections of this loop, as far as `pipes` says: they
    /// open like others that were connected, with this token. Its end is an event of the loop's poller, with
    /// this token too: [`EventKind::Child`], which reaps it, and whose value is its status.
    ///
    /// The streams are sockets, a pair for each. End [`Spawned::stdin`] by [`Conn::shutdown`] or
    /// [`Conn::close`] to have the program see the end of its input.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `EACCES` and what else `execve(2)` says, `EAGAIN` and `ENOMEM` when the system has no room
    /// for a process, `EMFILE`; `EOWNERDEAD` in a forked child. Nothing was started then.
    ///
    /// ```
    /// use omnipoll::{LoopEvent, LoopEventKind, Pipes, PulledLoop};
    /// use std::process::Command;
    ///
    /// let mut event_loop = PulledLoop::new()?;
    /// let cat = event_loop.spawn(&mut Command::new("cat"), Pipes::STDIN | Pipes::STDOUT, 1)?;
    /// let stdin = cat.stdin.expect("asked for");
    /// stdin.write(b"hello")?;
    /// stdin.close()?;
    ///
    /// let mut output = Vec::new();
    /// let mut events = [LoopEvent::default(); 16];
    /// 'run: loop {
    ///     let count = event_loop.wait(&mut events, None)?;
    ///     for event in &events[..count] {
    ///         match event.kind() {
    ///             LoopEventKind::Data => output.extend_from_slice(&event_loop.data(event)),
    ///             LoopEventKind::Ended => event_loop.conn(event.conn())?.close(),
    ///             LoopEventKind::Closed if Some(event.conn()) == cat.stdout => break 'run,
    ///             _ => {}
    ///         }
    ///     }
    /// }
    /// assert_eq!(output, b"hello");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "fork")]
    #[doc(alias = "execve")]
    pub fn spawn(&mut self, command: &mut Command, pipes: Pipes, token: u64) -> io::Result<Spawned> {
        self.loop_ref().spawn(command, pipes, token)
    }

    /// The poller that the loop waits on: for timers, descriptors, signals, children and posts of the
    /// program's own. Tokens from `0xffff_ffff_8000_0000` on are the loop's: `EINVAL`. Don't wait on it.
    ///
    /// See the example of [`EventLoop`].
    pub fn poller(&self) -> &Arc<Poller> {
        &self.core.poller
    }

    /// The engine that the loop was asked for. Its poller may have another: where the kernel carries out
    /// the loop's requests by itself, on io_uring, all else is waited for by epoll.
    pub fn engine(&self) -> EngineKind {
        self.engine
    }

    /// One of its connections, outside of a callback: what is done to it is done at once, and followed up
    /// by the next wait. `ESTALE` when it has ended, or is of another loop.
    pub fn conn(&mut self, id: ConnId) -> io::Result<Conn<'_>> {
        self.core.poller.check_owner()?;
        self.loop_ref().into_conn(id)
    }

    /// For the bindings: the loop outside of a callback, as callbacks get it.
    #[doc(hidden)]
    pub fn loop_ref(&mut self) -> LoopRef<'_> {
        // It can only fail when the waker's descriptor was closed, which ends the next wait with EBADF.
        let _ = self.core.poller.request_wait();
        LoopRef { table: &mut self.connections.table, context: &self.connections.context }
    }

    /// What other threads reach the loop by.
    ///
    /// See the example of [`LoopHandle`].
    pub fn handle(&self) -> LoopHandle {
        let mailbox = self.connections.mailbox().clone();
        LoopHandle { stop: self.stop.clone(), poller: self.core.poller.clone(), mailbox }
    }

    /// The handler.
    pub fn handler(&self) -> &H {
        &self.connections.handler
    }

    /// Runs until the loop is [stopped](LoopHandle::stop), and every connection has ended. An error of
    /// the wait is returned at once, and the loop can go on after it. `EOWNERDEAD` in a forked child.
    ///
    /// See the example of [`EventLoop`].
    pub fn run(&mut self) -> io::Result<()> {
        while self.step(None)? {}
        Ok(())
    }

    /// Waits once, for no longer than `timeout`, and hands what has come to the handler. False when the
    /// loop was stopped, and every connection has ended.
    ///
    /// It returns after every wait: also when what came was the loop's own business.
    pub fn run_once(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        // What was done to connections is followed up before the wait, which may call the handler.
        let is_done = !self.connections.context.touched.get_mut().is_empty();
        self.step(if is_done { Some(Duration::ZERO) } else { timeout })
    }

    fn step(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let is_running = self.turn(timeout)?;
        if is_running && self.core.poller.is_embedded() {
            return self.arm();
        }
        Ok(is_running)
    }

    /// What is to be done before a wait. False when the loop has ended.
    pub(super) fn prepare(&mut self) -> io::Result<bool> {
        let Self { core, connections, .. } = self;
        apply_stop(core, connections, &self.stop, self.options.backlog);
        connections.before_wait(core)?;
        Ok(!core.is_stopping || !connections.is_empty())
    }

    /// One wait, and what it brings. False when the loop has ended.
    pub(super) fn turn(&mut self, limit: Option<Duration>) -> io::Result<bool> {
        let turned = self.wait_and_dispatch(limit);
        if turned.is_err() {
            // What is left is done after the next wait.
            self.core.poller.request_wait()?;
        }
        turned
    }

    fn wait_and_dispatch(&mut self, limit: Option<Duration>) -> io::Result<bool> {
        self.core.poller.check_owner()?;
        if !std::mem::take(&mut self.is_armed) && !self.prepare()? {
            return Ok(false);
        }
        let Self { core, connections, events, .. } = self;
        core.wait(connections, events, limit)?;
        // In a child that a callback has forked the rest is the parent's.
        core.poller.check_owner()?;
        for event in &*events {
            if event.kind() == EventKind::Wake {
                apply_stop(core, connections, &self.stop, self.options.backlog);
            }
            core.dispatch(connections, event)?;
            core.poller.check_owner()?;
        }
        connections.free_ended(core)?;
        Ok(true)
    }
}

/// Applies the stop that was last asked for, if it is new.
fn apply_stop<H: Handler>(
    core: &mut Core,
    connections: &mut Connections<H>,
    stop: &StopRequest,
    backlog: i32,
) {
    if let Some(drain) = stop.get().filter(|&drain| core.is_new_stop(drain)) {
        // Clients may wait there already.
        connections.take_listeners(core);
        core.stop(connections, drain, backlog, || {});
    }
}

/// What is left of a time limit.
pub(super) fn left(until: Option<Instant>) -> Option<Duration> {
    until.map(|until| until.saturating_duration_since(Instant::now()))
}

impl<H: Handler> Drop for EventLoop<H> {
    /// Ends its connections: each handler's `on_close` gets `ECANCELED`.
    fn drop(&mut self) {
        let Self { core, connections, .. } = self;
        if core.poller.is_owner() {
            connections.force_close(core);
            connections.datagrams.close(&connections.context);
            // In a child the mailbox may be locked by a thread that it does not have.
            close_mailbox(connections.mailbox());
        }
    }
}

impl<H: Handler> std::fmt::Debug for EventLoop<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLoop").field("engine", &self.engine).finish_non_exhaustive()
    }
}
