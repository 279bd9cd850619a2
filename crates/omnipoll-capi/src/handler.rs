//! `omni_handler`: C's functions.

use std::ffi::{c_int, c_void};

use omnipoll::Timeout;

use crate::error::Failure;
use crate::event::omni_event;
use crate::sized::{self, Sized32};
use crate::types::{omni_conn, omni_datagram, omni_datagram_socket, omni_loop};

/// The callbacks of a server or a loop, each of which gets `context` as its last argument. A callback
/// that is NULL does what it says of that.
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
    /// The caller's, passed to every callback. Stays in use until `omni_server_run` has returned, or
    /// `omni_loop_free`.
    pub context: *mut c_void,
    /// A client has connected, or a connection of `omni_loop_connect` is established. Return 0 to serve it. Anything else refuses it: what was written to it
    /// is sent, and no further callback comes for it, not even `on_close`. NULL: serves all.
    pub on_open: Option<unsafe extern "C" fn(conn: *mut omni_conn, context: *mut c_void) -> c_int>,
    /// Bytes have arrived: as many as one read returned, which may be part of a message or several
    /// messages; one frame after `omni_conn_set_frame_until` and the like. They are valid until the
    /// callback returns. NULL: they are dropped.
    pub on_data: Option<
        unsafe extern "C" fn(conn: *mut omni_conn, data: *const u8, length: usize, context: *mut c_void),
    >,
    /// More bytes than `high_water` were waiting to be sent, and no more than `low_water` are now.
    pub on_drain: Option<unsafe extern "C" fn(conn: *mut omni_conn, context: *mut c_void)>,
    /// The connection has ended, and no further callback comes for it. Called exactly once for each
    /// that `on_open` accepted, when all that was queued was sent or dropped, and for each of
    /// `omni_loop_connect` that never opened. `error` is 0 when it ended cleanly, or a negative errno: -ECONNRESET; -ETIMEDOUT; -ECONNABORTED after
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
    /// An event of the program's own: of what it has added to the poller of the loop, which
    /// `omni_loop_poller` returns. The event is valid until the callback returns. Of a loop that has
    /// several handlers, the one that `omni_loop_new` was given is called.
    pub on_event: Option<
        unsafe extern "C" fn(event_loop: *mut omni_loop, event: *const omni_event, context: *mut c_void),
    >,
    /// A worker of a server begins, in its own thread or process, and this is its loop: the one of
    /// OMNI_MODEL_REACTOR, in the thread that has called `omni_server_run`; each of OMNI_MODEL_CORES, the first
    /// of which is in that thread too; of each process of OMNI_MODEL_PREFORK; of each client under
    /// OMNI_MODEL_THREAD and OMNI_MODEL_FORK. `worker` is its number, as `omni_conn_worker` has it. None of its
    /// connections has been opened yet. This is the place for what each worker needs of its own, such as
    /// timers on the poller of its loop.
    ///
    /// Return 0 to go on. A negative errno ends the server at once, and `omni_server_run` returns it; so does
    /// any other number, with -ECANCELED. Not called for a loop of `omni_loop_new`.
    pub on_worker_start:
        Option<unsafe extern "C" fn(event_loop: *mut omni_loop, worker: u32, context: *mut c_void) -> c_int>,
    /// A worker ends, in its own thread or process: all its connections have, and its loop does not wait
    /// again. Called for each whose `on_worker_start` has returned 0, unless its process is killed.
    pub on_worker_end:
        Option<unsafe extern "C" fn(event_loop: *mut omni_loop, worker: u32, context: *mut c_void)>,
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

impl omni_handler {
    /// As the program has passed it.
    ///
    /// # Safety
    /// `handler` is not NULL, and the struct has as many bytes as its first member says.
    pub(crate) unsafe fn read(handler: *const Self) -> Result<Self, Failure> {
        // SAFETY: the caller's promise.
        let handler = unsafe { sized::read(handler) }?;
        match handler.reserved {
            0 => Ok(handler),
            _ => Err(Failure::new(libc::EINVAL, "reserved is not 0")),
        }
    }
}
