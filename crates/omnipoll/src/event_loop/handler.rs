//! [`Handler`]: what a server does for its clients.

use std::io;

use crate::net::{Conn, Datagram};

/// What a server does for its clients; one handler serves them all, under every model.
///
/// Calls for one connection come one after another, never at once, and always from its own loop. Calls
/// for different connections come from several threads at once under
/// [`Model::Cores`](crate::Model::Cores) and [`Model::Thread`](crate::Model::Thread). A call that takes
/// long delays the other clients of its loop.
///
/// A panic in a call ends only that connection, with `ENOTRECOVERABLE`.
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
pub trait Handler: Send + Sync {
    /// What is kept for each connection, from `on_open` to `on_close`.
    type State;

    /// A client has connected. An error refuses it: what was written to it is sent, and the connection
    /// is closed; `on_close` is not called for it.
    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<Self::State>;

    /// Bytes have arrived: as many as one read returned, which may be part of a message or several.
    /// They are valid until the handler returns.
    fn on_data(&self, conn: &mut Conn<'_>, state: &mut Self::State, data: &[u8]);

    /// The peer has ended its direction. By default we then end ours, and thereby the connection,
    /// when what is queued has been sent. A handler that continues to write closes the connection
    /// later.
    fn on_end(&self, conn: &mut Conn<'_>, state: &mut Self::State) {
        let _ = state;
        conn.close();
    }

    /// The queued bytes were above the high mark and have fallen to the low one.
    fn on_drain(&self, conn: &mut Conn<'_>, state: &mut Self::State) {
        let _ = (conn, state);
    }

    /// [`ConnId::post`](crate::ConnId::post) was called with this value.
    fn on_post(&self, conn: &mut Conn<'_>, state: &mut Self::State, value: i64) {
        let _ = (conn, state, value);
    }

    /// The server has begun to stop. A connection that is idle is best closed here; others have until
    /// the drain's end.
    fn on_stop(&self, conn: &mut Conn<'_>, state: &mut Self::State) {
        let _ = (conn, state);
    }

    /// The connection has ended, and no further call comes for it. Called exactly once for each
    /// that `on_open` accepted, when all that was queued has been sent or discarded. `error` is `None`
    /// when it ended cleanly; else `ECONNRESET`, `ETIMEDOUT`, `ECONNABORTED` after an abort,
    /// `ECANCELED` when the server's drain was over, or the system's error.
    fn on_close(&self, conn: &mut Conn<'_>, state: Self::State, error: Option<io::Error>) {
        let _ = (conn, state, error);
    }

    /// A signal interrupted the wait of the thread that called [`Server::run`](crate::Server::run).
    /// An error ends the server at once, and `run` returns it: for runtimes that must handle their own
    /// signals in an ordinary thread.
    fn on_interrupt(&self) -> io::Result<()> {
        Ok(())
    }

    /// Called in each thread or process that the server makes: it must call `serve`, which returns when
    /// there is nothing left to serve. For runtimes that must know their threads, or do something
    /// before a process ends.
    fn on_worker(&self, serve: &mut dyn FnMut()) {
        serve();
    }

    /// A datagram has arrived on a `udp:` address.
    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        let _ = (datagram, data);
    }
}
