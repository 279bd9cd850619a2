//! One readiness interface over `select`, `poll`, `epoll` and `io_uring`, with the same meaning on each,
//! and servers on top of it: one [`Handler`], and five ways to serve many clients with it.
//!
//! # Waiting
//!
//! A [`Poller`] watches descriptors; [`Poller::wait`] returns those that are ready. The
//! system call under it is an [`EngineKind`], chosen when the program runs; what
//! [`Trigger::LEVEL`], [`Trigger::EDGE`] and [`Trigger::ONESHOT`] mean does not depend on it.
//!
//! ```
//! use omnipoll::{Events, Interest, Poller};
//! use std::io::{Read, Write};
//! use std::os::unix::net::UnixStream;
//!
//! let (mut ours, mut theirs) = UnixStream::pair()?;
//! ours.set_nonblocking(true)?;
//! let poller = Poller::new()?;
//! poller.add(&ours, Interest::READ, 42)?;
//!
//! theirs.write_all(b"hello")?;
//! let mut events = Events::with_capacity(64);
//! poller.wait(&mut events, None)?;
//! for event in &events {
//!     assert_eq!(event.token(), 42);
//!     let mut buffer = [0; 64];
//!     assert_eq!(ours.read(&mut buffer)?, 5);
//! }
//! poller.remove(&ours)?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The same wait returns timers, signals, ends of children, and values that other threads post:
//! [`Poller::timer_add`] and its neighbours.
//!
//! # Serving
//!
//! A [`Server`] listens, accepts, reads, queues what a client does not take, and calls a
//! [`Handler`]. The [`Model`] says whether its clients share one loop, have one of a loop for
//! each core, a thread, a process, or one of a fixed set of processes; the handler stays as it is.
//!
//! ```
//! # #[cfg(feature = "serve")] {
//! use omnipoll::{Conn, Handler, Model, Server, ServerOptions};
//! use std::io::{self, Read, Write};
//! use std::net::{Shutdown, TcpStream};
//!
//! /// Answers with how many bytes it was sent.
//! struct Count;
//!
//! impl Handler for Count {
//!     type State = usize;
//!
//!     fn on_open(&self, _: &mut Conn<'_>) -> io::Result<usize> {
//!         Ok(0)
//!     }
//!
//!     fn on_data(&self, _: &mut Conn<'_>, count: &mut usize, data: &[u8]) {
//!         *count += data.len();
//!     }
//!
//!     fn on_end(&self, conn: &mut Conn<'_>, count: &mut usize) {
//!         // It fails when the client has gone, which ends the connection anyway.
//!         let _ = conn.write(format!("{count} bytes").as_bytes());
//!         conn.close();
//!     }
//! }
//!
//! let server = Server::with_options(Count, ServerOptions::new().model(Model::Thread))?;
//! let address = server.listen("127.0.0.1:0")?;
//! let handle = server.handle();
//! let running = std::thread::spawn(move || server.run());
//!
//! let mut client = TcpStream::connect(&address)?;
//! client.write_all(b"how many?")?;
//! client.shutdown(Shutdown::Write)?;
//! let mut answer = String::new();
//! client.read_to_string(&mut answer)?;
//! assert_eq!(answer, "9 bytes");
//! drop(client);
//!
//! handle.stop(None)?;
//! running.join().unwrap()?;
//! # }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! On [`EngineKind::IoUring`] a ring accepts, receives and sends for the clients of
//! [`Model::Reactor`], [`Model::Cores`] and [`Model::Prefork`], where the kernel can (Linux 6.1).
//!
//! # Features
//!
//! Both are on by default. Without them the crate is a poller alone, with no dependency but `libc`:
//! `omnipoll = { version = "0.1", default-features = false }`.
//!
//! - `serve`: servers and connections.
//! - `io-uring`: [`EngineKind::IoUring`]. Without it, or on a system without io_uring, that engine is
//!   not [available](EngineKind::is_available).
//!
//! # Memory
//!
//! Where a caller or a client chooses how much is kept, being out of memory is `ENOMEM`, and
//! everything continues: registrations, timers, posts, watched children, writes and datagrams. An
//! allocation of fixed size that fails, a few bytes for an error's words or for a new client, aborts
//! the process, as Rust's own do; so does an [`Events::with_capacity`] of more than there is.
//!
//! # Design
//!
//! A module depends on those below it, never on one above:
//!
//! - `serve`: servers and their models.
//! - `event_loop`: one loop, with its listeners, connections and datagram sockets.
//! - `net`: connections, listeners, datagrams. Its `driver` is the one place where a kernel that reports
//!   readiness and a kernel that completes requests differ.
//! - `poller`: registrations and the wait. It turns what an engine finds, and what the sources have,
//!   into events.
//! - `engine`: one file for each system call, behind one trait. An engine knows neither timers nor
//!   threads nor what a token means. `source`: timers, signals, children, wakes and posts.
//! - `sys`: what the operating system gives.
//!
//! # The contract
//!
//! What every engine means by what it reports:
//!
//! 1. **LEVEL**: reported by every wait as long as it holds.
//! 2. **EDGE**: reported when it arises, and not again until it went away and came back or new
//!    readiness arrived. An edge may be reported that turns out to be none; one is never lost.
//!    Read or write until `EAGAIN`, then call [`Poller::rearm`]: free where the engine has
//!    edges of its own, and what makes them exact on `select` and `poll`, which have none.
//!    Hang-up, an error and the peer's end are new readiness, also when nothing was drained, on
//!    every engine that can tell them apart ([`Capabilities`]).
//! 3. **ONESHOT**: reported once, then silent until [`Poller::modify`]; what arrived meanwhile
//!    is reported at once after it.
//!    An interest without a direction ([`Interest::NONE`]) reports hang-up and errors alone, where the
//!    engine can tell them apart.
//! 4. Adding what is registered is `EEXIST`; changing what is not, `ENOENT`; a descriptor that
//!    is not open or was opened with `O_PATH`, `EBADF`; a kind of file that is always ready (a
//!    regular file, a directory), `EPERM` on every engine, unless
//!    [`Options::files_always_ready`] was asked for.
//! 5. A descriptor above 1023 works on every engine.
//! 6. A descriptor closed while registered never breaks a wait or makes it spin. Where the
//!    system reports it, it is returned once as [`Ready::INVALID`] and its registration has
//!    ended. When its number is used again, no event of the old file reaches the new one.
//! 7. Any thread may add, modify, remove, rearm and wake while others wait; the change counts
//!    for the waits in progress. After `remove` nothing of the poller's holds the file: when the
//!    descriptor is closed next, the file is, and its peer notices, whether or not a thread waits.
//!    (On io_uring a thread that has waited and does something else now is interrupted for it.) An
//!    EDGE or ONESHOT event goes to one of the waiting threads. Under EDGE a second chunk may go to another thread while the first still reads: ONESHOT
//!    prevents that.
//! 8. Timeouts run on the monotonic clock, in nanoseconds, and are never early. `EINTR` is
//!    retried with the time that is left, unless [`Options::interruptible`] was asked for.
//! 9. In a forked child every use of an inherited poller is `EOWNERDEAD` until
//!    [`Poller::after_fork`]; the parent's registrations can't be disturbed.
//! 10. Readiness is a hint: use non-blocking descriptors. A wait never returns an event without
//!     a flag, never more than fit, and rotates when more is ready than fits. A wake is never
//!     lost, and a change of registrations never restarts a timeout.
//!
//! A batch of events is a snapshot: when handling one event removes another descriptor whose
//! event is in the same batch, that event is still in the list. Tokens that are never used
//! twice distinguish such an event from one of a descriptor registered since.
//!
//! # Finding mistakes
//!
//! [`Options::strict`], or `OMNIPOLL_STRICT=1` in the environment, looks for what people get
//! wrong with these system calls, and reports each [`Finding`] once, in words: for development.
//! [`Poller::stats`] counts what a poller holds and has done, and [`Poller::dump`] lists what it
//! watches: at any time.

#![warn(rust_2018_idioms)]
#![deny(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]
// What only servers or only io_uring calls stays beside what it belongs to.
#![cfg_attr(not(all(feature = "serve", io_uring)), allow(dead_code, unused_imports))]

mod before_sleep;
#[allow(unsafe_code)]
mod engine;
mod errno;
mod error;
mod event;
#[cfg(feature = "serve")]
mod event_loop;
mod feature;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod interest;
#[cfg(feature = "serve")]
mod net;
mod poller;
mod registry;
#[cfg(feature = "serve")]
mod serve;
#[allow(unsafe_code)]
mod source;
mod strict;
#[allow(unsafe_code)]
mod sys;
mod wait_policy;

#[doc(hidden)]
pub use before_sleep::before_sleep;
pub use engine::{Capabilities, EngineKind};
pub use error::{explain, take_words};
pub use event::{Event, EventKind, Events, Ready};
#[cfg(feature = "serve")]
pub use event_loop::{EventLoop, LoopEvent, LoopEventKind, LoopHandle, LoopOptions, PulledLoop};
pub use feature::Feature;
pub use interest::{Interest, Trigger};
#[cfg(feature = "serve")]
pub use net::{
    Conn, ConnId, ConnectOptions, Datagram, DatagramId, FailedConnect, Frame, LoopRef, Pipes, ProxyVersion,
    Spawned, Timeout,
};
pub use poller::{Options, Poller, Registered, Stats};
#[cfg(feature = "serve")]
pub use serve::{
    AroundFork, Handler, Model, Restart, Server, ServerHandle, ServerOptions, ServerStats, StartedServer,
    WorkerStats,
};
pub use strict::{Finding, FindingKind};
#[cfg(feature = "serve")]
pub use sys::Address;
pub use wait_policy::WaitPolicy;

/// For the bindings: a number that this process has and none of its ancestors had, as soon as a
/// poller was made.
#[doc(hidden)]
#[inline]
pub fn process_epoch() -> u32 {
    sys::fork::epoch()
}
