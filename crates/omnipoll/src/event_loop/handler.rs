//! [`Handler`]: what a server does for its clients.

use std::io;

use crate::net::{Conn, Datagram, DatagramId, FailedConnect, LoopRef, Timeout};
use crate::Event;

/// What a server does for its clients; one handler serves them all, under every model.
///
/// Calls for one connection come one after another, never at once, and always from its own loop. Calls
/// for different connections come from several threads at once under
/// [`Model::Cores`](crate::Model::Cores) and [`Model::Thread`](crate::Model::Thread). A call that takes
/// long delays the other clients of its loop.
///
/// A panic in a call ends only that connection, with `ENOTRECOVERABLE`.
///
/// In the examples `ask` runs a server with the handler, sends it a request as a client that then ends its
/// direction, and returns what the client gets.
///
/// # Portability
///
/// The calls are the same on every system and engine.
///
/// ```
/// use omnipoll::{Conn, Handler};
/// use std::io;
///
/// /// Sends every line back in capitals.
/// struct Shout;
///
/// impl Handler for Shout {
///     type State = Vec<u8>;
///
///     fn on_open(&self, _: &mut Conn<'_>) -> io::Result<Vec<u8>> {
///         Ok(Vec::new())
///     }
///
///     fn on_data(&self, conn: &mut Conn<'_>, line: &mut Vec<u8>, data: &[u8]) {
///         for &byte in data {
///             line.push(byte.to_ascii_uppercase());
///             if byte == b'\n' {
///                 let _ = conn.write(line);
///                 line.clear();
///             }
///         }
///     }
/// }
/// ```
pub trait Handler {
    /// What is kept for each connection, from `on_open` to `on_close`.
    type State;

    /// A client has connected. An error refuses it: what was written to it is sent, and the connection
    /// is closed; `on_close` is not called for it.
    ///
    /// See the example of [`Handler`].
    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<Self::State>;

    /// Bytes have arrived: as many as one read returned, which may be part of a message or several; one
    /// frame where [`Conn::set_frame`] has been called. They are valid until the handler returns.
    ///
    /// See the example of [`Handler`].
    fn on_data(&self, conn: &mut Conn<'_>, state: &mut Self::State, data: &[u8]);

    /// A connection that [`EventLoop::connect`](crate::EventLoop::connect) was asked for has not opened, and
    /// never will; no other call comes for it. [`FailedConnect`] says why, and which addresses were tried.
    /// One that has opened is like one that was accepted: `on_open` is called.
    ///
    /// See the example of [`EventLoop::connect`](crate::EventLoop::connect).
    fn on_connect_error(&self, event_loop: &mut LoopRef<'_>, failed: &FailedConnect) {
        let _ = (event_loop, failed);
    }

    /// The peer has ended its direction. By default we then end ours, and thereby the connection,
    /// when what is queued has been sent. A handler that continues to write closes the connection
    /// later.
    ///
    /// See the example of [`Conn::has_ended`].
    fn on_end(&self, conn: &mut Conn<'_>, state: &mut Self::State) {
        let _ = state;
        conn.close();
    }

    /// The queued bytes were above the high mark and have fallen to the low one.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    ///
    /// /// Sends a thousand blocks, as fast as the client reads them.
    /// struct Blocks;
    ///
    /// impl Handler for Blocks {
    ///     type State = usize;
    ///
    ///     fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<usize> {
    ///         let mut left = 1000;
    ///         self.on_drain(conn, &mut left);
    ///         Ok(left)
    ///     }
    ///
    ///     fn on_drain(&self, conn: &mut Conn<'_>, left: &mut usize) {
    ///         while *left > 0 {
    ///             *left -= 1;
    ///             match conn.write(&[b'x'; 4096]) {
    ///                 // More than the high mark: continues when `on_drain` is called.
    ///                 Ok(queued) if queued > 64 << 10 => return,
    ///                 Ok(_) => {}
    ///                 Err(_) => return,
    ///             }
    ///         }
    ///         conn.close();
    ///     }
    ///
    ///     fn on_end(&self, _: &mut Conn<'_>, _: &mut usize) {}
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut usize, _: &[u8]) {}
    /// }
    ///
    /// assert_eq!(ask(Blocks, "")?.len(), 1000 * 4096);
    /// # Ok::<(), io::Error>(())
    /// ```
    fn on_drain(&self, conn: &mut Conn<'_>, state: &mut Self::State) {
        let _ = (conn, state);
    }

    /// [`ConnId::post`](crate::ConnId::post) was called with this value.
    ///
    /// See the example of [`Conn::pause`].
    fn on_post(&self, conn: &mut Conn<'_>, state: &mut Self::State, value: i64) {
        let _ = (conn, state, value);
    }

    /// A timeout of the connection is over. When this returns the connection ends with `ETIMEDOUT`: with a
    /// reset if bytes are still queued, and cleanly if not. To prevent that:
    ///
    /// - [`Conn::restart_timeouts`], or setting a timeout, gives it more time. So does a write, which ends
    ///   the silence, where the timeout is [`Timeout::Idle`].
    /// - [`Conn::close`] ends it cleanly and without an error, with what is written here as the last
    ///   words. A client that doesn't read them has the time of each timeout once more.
    ///
    /// It is called for connections that are closing, too.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// use omnipoll::Timeout;
    ///
    /// /// Asks a silent client once whether it is still there.
    /// struct Patient;
    ///
    /// impl Handler for Patient {
    ///     type State = bool;
    ///
    ///     fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<bool> {
    ///         conn.set_idle_timeout(Some(Duration::from_millis(5)));
    ///         Ok(false)
    ///     }
    ///
    ///     fn on_timeout(&self, conn: &mut Conn<'_>, asked: &mut bool, which: Timeout) {
    ///         assert_eq!(which, Timeout::Idle);
    ///         if *asked {
    ///             let _ = conn.write(b"goodbye\n");
    ///             conn.close();
    ///         } else {
    ///             *asked = true;
    ///             conn.restart_timeouts();
    ///             let _ = conn.write(b"are you there?\n");
    ///         }
    ///     }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut bool, _: &[u8]) {}
    /// #   fn on_end(&self, _: &mut Conn<'_>, _: &mut bool) {}
    /// }
    ///
    /// assert_eq!(ask(Patient, "")?, "are you there?\ngoodbye\n");
    /// # Ok::<(), io::Error>(())
    /// ```
    fn on_timeout(&self, conn: &mut Conn<'_>, state: &mut Self::State, which: Timeout) {
        let _ = (conn, state, which);
    }

    /// The time of [`Conn::set_timer`] has passed. The timer is not set any more; a heartbeat sets it
    /// again here.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// const PERIOD: Duration = Duration::from_millis(5);
    ///
    /// /// Counts down.
    /// struct Countdown;
    ///
    /// impl Handler for Countdown {
    ///     type State = u32;
    ///
    ///     fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<u32> {
    ///         conn.set_timer(Some(PERIOD))?;
    ///         Ok(3)
    ///     }
    ///
    ///     fn on_timer(&self, conn: &mut Conn<'_>, left: &mut u32) {
    ///         let _ = conn.write(format!("{left} ").as_bytes());
    ///         *left -= 1;
    ///         if *left == 0 || conn.set_timer(Some(PERIOD)).is_err() {
    ///             conn.close();
    ///         }
    ///     }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut u32, _: &[u8]) {}
    /// #   fn on_end(&self, _: &mut Conn<'_>, _: &mut u32) {}
    /// }
    ///
    /// assert_eq!(ask(Countdown, "")?, "3 2 1 ");
    /// # Ok::<(), io::Error>(())
    /// ```
    fn on_timer(&self, conn: &mut Conn<'_>, state: &mut Self::State) {
        let _ = (conn, state);
    }

    /// The server has begun to stop. A connection that is idle is best closed here; others have until
    /// the drain's end.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    ///
    /// /// Answers each line, and keeps what has arrived of the next one.
    /// struct Lines;
    ///
    /// impl Handler for Lines {
    ///     type State = Vec<u8>;
    ///
    ///     fn on_stop(&self, conn: &mut Conn<'_>, line: &mut Vec<u8>) {
    ///         if line.is_empty() {
    ///             conn.close();
    ///         }
    ///     }
    /// #   fn on_open(&self, _: &mut Conn<'_>) -> io::Result<Vec<u8>> { Ok(Vec::new()) }
    /// #   fn on_data(&self, conn: &mut Conn<'_>, line: &mut Vec<u8>, data: &[u8]) {
    /// #       line.extend_from_slice(data);
    /// #       if line.ends_with(b"\n") {
    /// #           let _ = conn.write(line);
    /// #           line.clear();
    /// #       }
    /// #   }
    /// }
    ///
    /// assert_eq!(ask(Lines, "hello\n")?, "hello\n");
    /// # Ok::<(), io::Error>(())
    /// ```
    fn on_stop(&self, conn: &mut Conn<'_>, state: &mut Self::State) {
        let _ = (conn, state);
    }

    /// The connection has ended, and no further call comes for it. Called exactly once for each
    /// that `on_open` accepted, when all that was queued has been sent or discarded. `error` is `None`
    /// when it ended cleanly; else `ECONNRESET`, `ETIMEDOUT`, `ECONNABORTED` after an abort,
    /// `ECANCELED` when the server's drain was over, or the system's error.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// struct Log;
    ///
    /// impl Handler for Log {
    ///     type State = ();
    ///
    ///     fn on_close(&self, conn: &mut Conn<'_>, _: (), error: Option<io::Error>) {
    ///         match error {
    ///             None => println!("{} has ended", conn.peer()),
    ///             Some(error) => println!("{}: {error}", conn.peer()),
    ///         }
    ///     }
    /// #   fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> { Ok(()) }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
    /// }
    ///
    /// ask(Log, "hello")?;
    /// # Ok::<(), io::Error>(())
    /// ```
    fn on_close(&self, conn: &mut Conn<'_>, state: Self::State, error: Option<io::Error>) {
        let _ = (conn, state, error);
    }

    /// A signal interrupted the wait of the thread that called [`Server::run`](crate::Server::run).
    /// An error ends the server at once, and `run` returns it: for runtimes that must handle their own
    /// signals in an ordinary thread.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// use std::sync::atomic::{AtomicBool, Ordering};
    ///
    /// /// Set by the handler of a signal.
    /// static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    ///
    /// struct Interruptible;
    ///
    /// impl Handler for Interruptible {
    ///     type State = ();
    ///
    ///     fn on_interrupt(&self) -> io::Result<()> {
    ///         if INTERRUPTED.load(Ordering::Relaxed) {
    ///             return Err(io::ErrorKind::Interrupted.into());
    ///         }
    ///         Ok(())
    ///     }
    /// #   fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> { Ok(()) }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
    /// }
    ///
    /// ask(Interruptible, "hello")?;
    /// # Ok::<(), io::Error>(())
    /// ```
    fn on_interrupt(&self) -> io::Result<()> {
        Ok(())
    }

    /// A worker of a server begins, in its own thread or process: the loop of REACTOR, in the thread that
    /// has called [`Server::run`](crate::Server::run), each loop of CORES, of which the first is in that
    /// thread too, each process of PREFORK, and under THREAD and FORK that of each client. A loop that only
    /// accepts, or waits for processes, is none. No connection of the worker has been opened yet.
    ///
    /// This is the place for what each worker needs of its own, such as timers and descriptors on its
    /// [poller](LoopRef::poller), whose events come to [`on_event`](Self::on_event).
    ///
    /// An error ends the server at once, and `run` returns it: its number alone where it comes from another
    /// process or a client's thread. A panic is `ENOTRECOVERABLE`. Not called by an
    /// [`EventLoop`](crate::EventLoop) that is no server's.
    ///
    /// ```
    /// # use std::io;
    /// use omnipoll::{Conn, Event, Handler, LoopRef, Model, Server, ServerOptions};
    /// use std::time::Duration;
    ///
    /// /// Each worker does something every ten seconds.
    /// struct Periodic;
    ///
    /// impl Handler for Periodic {
    ///     type State = ();
    ///
    ///     fn on_worker_start(&self, event_loop: &mut LoopRef<'_>) -> io::Result<()> {
    ///         let period = Duration::from_secs(10);
    ///         event_loop.poller().timer_add(period, Some(period), 1).map(drop)
    ///     }
    ///
    ///     fn on_event(&self, event_loop: &mut LoopRef<'_>, event: &Event) {
    ///         println!("worker {}: timer {}", event_loop.worker(), event.token());
    ///     }
    ///
    ///     fn on_worker_end(&self, event_loop: &mut LoopRef<'_>) {
    ///         println!("worker {} ends", event_loop.worker());
    ///     }
    /// #   fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> { Ok(()) }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
    /// }
    ///
    /// let server = Server::with_options(Periodic, ServerOptions::new().model(Model::Cores).workers(2))?;
    /// server.listen("127.0.0.1:0")?;
    /// server.handle().stop(None)?;
    /// server.run()?;
    /// # Ok::<(), io::Error>(())
    /// ```
    fn on_worker_start(&self, event_loop: &mut LoopRef<'_>) -> io::Result<()> {
        let _ = event_loop;
        Ok(())
    }

    /// A worker ends, in its own thread or process: all its connections have, and its loop will not wait
    /// again. Called for each whose [`on_worker_start`](Self::on_worker_start) has succeeded, unless its
    /// process is killed.
    ///
    /// See the example of [`on_worker_start`](Self::on_worker_start).
    fn on_worker_end(&self, event_loop: &mut LoopRef<'_>) {
        let _ = event_loop;
    }

    /// For the bindings, which must know the threads and processes that the server makes: must call `serve`
    /// in each, which returns when there is nothing left to serve.
    #[doc(hidden)]
    fn run_worker(&self, serve: &mut dyn FnMut()) {
        serve();
    }

    /// An event of the program's own: of what it has added to the loop's
    /// [poller](LoopRef::poller).
    ///
    /// See the example of [`on_worker_start`](Self::on_worker_start).
    fn on_event(&self, event_loop: &mut LoopRef<'_>, event: &Event) {
        let _ = (event_loop, event);
    }

    /// How many bytes the next `on_data` may bring; none are read when it is 0.
    #[doc(hidden)]
    #[inline]
    fn room(&self) -> usize {
        usize::MAX
    }

    /// Whether the next wait must not sleep.
    #[doc(hidden)]
    #[inline]
    fn is_pending(&self) -> bool {
        false
    }

    /// A datagram has arrived on a `udp:` address.
    ///
    /// See the example of [`Datagram`].
    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        let _ = (datagram, data);
    }

    /// A datagram that was sent from this socket is lost: `ECONNREFUSED`, `EHOSTUNREACH` and their
    /// like when the network has said so of an earlier one, which it says of a socket that is connected
    /// and of no other; any error of `sendmsg(2)` when one that waited could not be sent. Errors that come
    /// before the handler was called for the last are one call.
    ///
    /// ```
    /// # use omnipoll::{Conn, Server};
    /// # use std::os::fd::AsRawFd;
    /// # use std::{io, thread};
    /// use omnipoll::{DatagramId, Handler};
    /// use std::net::UdpSocket;
    /// use std::sync::mpsc::{channel, Sender};
    ///
    /// /// Asks one server, and another when that is not there.
    /// struct Forward {
    ///     refused: Sender<io::Error>,
    /// }
    ///
    /// impl Handler for Forward {
    ///     type State = ();
    ///
    ///     fn on_datagram_error(&self, socket: DatagramId, error: io::Error) {
    ///         // Nothing more is asked here.
    ///         let _ = socket.close();
    ///         let _ = self.refused.send(error);
    ///     }
    /// #   fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> { Ok(()) }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
    /// }
    ///
    /// let nobody = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    /// let connected = UdpSocket::bind("127.0.0.1:0")?;
    /// connected.connect(nobody)?;
    ///
    /// let (refused, errors) = channel();
    /// let server = Server::new(Forward { refused })?;
    /// server.listen(&format!("fd:{}", connected.as_raw_fd()))?;
    /// let handle = server.handle();
    /// let running = thread::spawn(move || server.run());
    ///
    /// let socket = loop {
    ///     match handle.datagram_sockets().first() {
    ///         Some(socket) => break *socket,
    ///         // It has not begun to serve.
    ///         None => thread::yield_now(),
    ///     }
    /// };
    /// assert_eq!(socket.peer()?, Some(nobody.into()));
    /// socket.send(b"hello")?;
    /// assert_eq!(errors.recv().unwrap().kind(), io::ErrorKind::ConnectionRefused);
    /// assert!(!socket.is_open());
    ///
    /// handle.stop(None)?;
    /// running.join().unwrap()?;
    /// # Ok::<(), io::Error>(())
    /// ```
    fn on_datagram_error(&self, socket: DatagramId, error: io::Error) {
        let _ = (socket, error);
    }
}
