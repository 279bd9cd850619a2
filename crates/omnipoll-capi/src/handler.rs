//! `omni_handler`: the core's handler, made of C's functions.

use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;

use omnipoll::{Conn, Datagram, DatagramId, Handler, Timeout};

use crate::callback_scope::enter;
use crate::conn::handle_of;
use crate::datagram;
use crate::datagram_socket::socket_of;
use crate::error::errno;
use crate::sized::Sized32;
use crate::types::{omni_conn, omni_datagram, omni_datagram_socket};

/// The callbacks of a server, each of which gets `context` as its last argument. A callback that is
/// NULL does what it says of that.
///
/// Calls for one connection come one after another, never at once, and always from the connection's
/// own loop. Calls for different connections come from several threads at once under
/// OMNI_MODEL_CORES and OMNI_MODEL_THREAD, and in processes of their own under OMNI_MODEL_FORK and
/// OMNI_MODEL_PREFORK. A long call delays the other clients of its loop.
///
/// A callback may call any function of this library, including `omni_server_stop` and
/// `omni_server_free`. It must return normally: no longjmp, no C++ exception, no pthread_exit. It may
/// fork; the child must not return, but execute a program or end by `_exit`: under
/// OMNI_MODEL_REACTOR `omni_server_run` is -EOWNERDEAD in one that does, under the other models it
/// ends with status 1.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
#[repr(C)]
pub struct omni_handler {
    /// sizeof(omni_handler).
    pub size: u32,
    /// Must be 0.
    pub reserved: u32,
    /// The caller's, passed to every callback. Stays in use until `omni_server_run` has returned.
    pub context: *mut c_void,
    /// A client has connected. Return 0 to serve it. Anything else refuses it: what was written to it
    /// is sent, and no further callback comes for it, not even `on_close`. NULL: serves all.
    pub on_open: Option<unsafe extern "C" fn(conn: *mut omni_conn, context: *mut c_void) -> c_int>,
    /// Bytes have arrived: as many as one read returned, which may be part of a message or several
    /// messages. They are valid until the callback returns. NULL: they are dropped.
    pub on_data: Option<
        unsafe extern "C" fn(conn: *mut omni_conn, data: *const u8, length: usize, context: *mut c_void),
    >,
    /// More bytes than `high_water` were waiting to be sent, and no more than `low_water` are now.
    pub on_drain: Option<unsafe extern "C" fn(conn: *mut omni_conn, context: *mut c_void)>,
    /// The connection has ended, and no further callback comes for it. Called exactly once for each
    /// that `on_open` accepted, when all that was queued was sent or dropped. `error` is 0 when it
    /// ended cleanly, or a negative errno: -ECONNRESET; -ETIMEDOUT; -ECONNABORTED after
    /// `omni_conn_abort`; -ECANCELED when the server has stopped and the time to drain it is
    /// over; or an error of the system.
    pub on_close: Option<unsafe extern "C" fn(conn: *mut omni_conn, error: c_int, context: *mut c_void)>,
    /// The peer has ended its direction. NULL: the connection is closed, as by `omni_conn_close`.
    /// A handler that continues to write closes it later.
    pub on_end: Option<unsafe extern "C" fn(conn: *mut omni_conn, context: *mut c_void)>,
    /// `omni_conn_post` was called with this value.
    pub on_post: Option<unsafe extern "C" fn(conn: *mut omni_conn, value: i64, context: *mut c_void)>,
    /// The server has begun to stop. Close a connection here that is between two requests; the
    /// others have time until the drain ends.
    pub on_stop: Option<unsafe extern "C" fn(conn: *mut omni_conn, context: *mut c_void)>,
    /// A datagram has arrived on a "udp:" address. Handle and bytes are valid until the callback returns.
    pub on_datagram: Option<
        unsafe extern "C" fn(
            datagram: *mut omni_datagram,
            data: *const u8,
            length: usize,
            context: *mut c_void,
        ),
    >,
    /// A datagram that was sent from this socket is lost, for the reason `error`: -ECONNREFUSED or
    /// another one that the network gives of a connected socket's, or what sendmsg(2) says of one that had
    /// to wait. Errors that come before the callback are one call.
    pub on_datagram_error:
        Option<unsafe extern "C" fn(socket: *mut omni_datagram_socket, error: c_int, context: *mut c_void)>,
    /// A timeout of the connection is over: one of OMNI_TIMEOUT_*. When this returns the connection ends
    /// with -ETIMEDOUT: with a reset if bytes are still queued, and cleanly if not. To prevent that:
    /// `omni_conn_restart_timeouts`, or setting a timeout, gives it more time; so does a write where
    /// the idle timeout is over. `omni_conn_close` ends it cleanly and without an error, with what is
    /// written here as the last words; a client that doesn't read them has the time of each timeout once
    /// more. Called for connections that are closing, too.
    pub on_timeout: Option<unsafe extern "C" fn(conn: *mut omni_conn, timeout: u32, context: *mut c_void)>,
    /// The time of `omni_conn_set_timer` has passed. The timer is not set any more; a heartbeat sets it
    /// again here.
    pub on_timer: Option<unsafe extern "C" fn(conn: *mut omni_conn, context: *mut c_void)>,
}

/// Timeout: nothing was read or written for so long.
pub const OMNI_TIMEOUT_IDLE: u32 = 1;
/// Timeout: nothing arrived for so long while the connection was being read.
pub const OMNI_TIMEOUT_READ: u32 = 2;
/// Timeout: bytes were queued and none could be sent for so long.
pub const OMNI_TIMEOUT_WRITE: u32 = 3;

// cbindgen reads literals only; that they are the core's numbers is checked here.
const _: () = {
    assert!(OMNI_TIMEOUT_IDLE == Timeout::Idle as u32);
    assert!(OMNI_TIMEOUT_READ == Timeout::Read as u32);
    assert!(OMNI_TIMEOUT_WRITE == Timeout::Write as u32);
};

// SAFETY: as declared above; a function's zero is none.
unsafe impl Sized32 for omni_handler {
    const MIN_SIZE: usize = size_of::<Self>();
    const UNSET: &'static str = "the size of the handler is not set";
}

/// A handler made of C's functions, to be called from any thread.
pub(crate) struct Callbacks(pub(crate) omni_handler);

// SAFETY: the caller has promised that the functions and their context may be used by the
// threads of the model it has chosen.
unsafe impl Send for Callbacks {}
// SAFETY: as above, by several at a time.
unsafe impl Sync for Callbacks {}

// SAFETY, in every block: a function of the caller's, with the arguments that the struct's
// documentation promises it.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one comment for all of them")]
impl Handler for Callbacks {
    /// What `omni_conn_set_context` has set.
    type State = *mut c_void;

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<*mut c_void> {
        let mut state = ptr::null_mut();
        let Some(on_open) = self.0.on_open else { return Ok(state) };
        match enter(conn, &mut state, |id| unsafe { on_open(handle_of(id), self.0.context) }) {
            0 => Ok(state),
            _ => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    #[inline]
    fn on_data(&self, conn: &mut Conn<'_>, state: &mut *mut c_void, data: &[u8]) {
        let Some(on_data) = self.0.on_data else { return };
        enter(conn, state, |id| unsafe { on_data(handle_of(id), data.as_ptr(), data.len(), self.0.context) });
    }

    fn on_end(&self, conn: &mut Conn<'_>, state: &mut *mut c_void) {
        match self.0.on_end {
            Some(on_end) => enter(conn, state, |id| unsafe { on_end(handle_of(id), self.0.context) }),
            None => conn.close(),
        }
    }

    fn on_drain(&self, conn: &mut Conn<'_>, state: &mut *mut c_void) {
        let Some(on_drain) = self.0.on_drain else { return };
        enter(conn, state, |id| unsafe { on_drain(handle_of(id), self.0.context) });
    }

    fn on_post(&self, conn: &mut Conn<'_>, state: &mut *mut c_void, value: i64) {
        let Some(on_post) = self.0.on_post else { return };
        enter(conn, state, |id| unsafe { on_post(handle_of(id), value, self.0.context) });
    }

    fn on_timeout(&self, conn: &mut Conn<'_>, state: &mut *mut c_void, which: Timeout) {
        let Some(on_timeout) = self.0.on_timeout else { return };
        enter(conn, state, |id| unsafe { on_timeout(handle_of(id), which as u32, self.0.context) });
    }

    fn on_timer(&self, conn: &mut Conn<'_>, state: &mut *mut c_void) {
        let Some(on_timer) = self.0.on_timer else { return };
        enter(conn, state, |id| unsafe { on_timer(handle_of(id), self.0.context) });
    }

    fn on_stop(&self, conn: &mut Conn<'_>, state: &mut *mut c_void) {
        let Some(on_stop) = self.0.on_stop else { return };
        enter(conn, state, |id| unsafe { on_stop(handle_of(id), self.0.context) });
    }

    fn on_close(&self, conn: &mut Conn<'_>, mut state: *mut c_void, error: Option<io::Error>) {
        let Some(on_close) = self.0.on_close else { return };
        let error = error.map_or(0, |error| -errno(&error));
        enter(conn, &mut state, |id| unsafe { on_close(handle_of(id), error, self.0.context) });
    }

    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        let Some(on_datagram) = self.0.on_datagram else { return };
        datagram::lend(datagram, |datagram| unsafe {
            on_datagram(datagram, data.as_ptr(), data.len(), self.0.context);
        });
    }

    fn on_datagram_error(&self, socket: DatagramId, error: io::Error) {
        let Some(on_datagram_error) = self.0.on_datagram_error else { return };
        unsafe { on_datagram_error(socket_of(socket), -errno(&error), self.0.context) };
    }
}
