//! The functions that ask about an `omni_conn`, and set what holds for it.

use std::ffi::{c_char, c_int, c_void};
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Duration;

use libc::sockaddr;
use omnipoll::{LoopRef, Timeout};

use crate::buffer::{write_sockaddr, write_str};
use crate::callback_scope;
use crate::conn_call::{call, call_here, id_of};
use crate::error::Failure;
use crate::loop_table;
use crate::option_values::some_time;
use crate::types::{omni_conn, omni_loop};

/// The connection's id as a number, which is the value of `conn`: never 0, and not used again when
/// the connection has gone. 0 when `conn` is NULL.
///
/// Can't fail. May be called anywhere. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_id(conn: *const omni_conn) -> u64 {
    conn.addr() as u64
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Writes the peer's address: "127.0.0.1:53124", "[::1]:53124", "unix:" (a client without a name).
/// Works like snprintf(3), as `omni_poller_dump` does.
///
/// Returns the length of the whole text without the zero, or an error. System calls: none. Since
/// 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_conn_peer(
    conn: *const omni_conn,
    buffer: *mut c_char,
    capacity: usize,
) -> c_int {
    call_here("omni_conn_peer", conn, |conn| {
        // SAFETY: as this function's contract says.
        unsafe { write_str(&conn.peer().to_string(), buffer, capacity) }
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Writes the peer's address as getpeername(2) does: at most `*length` bytes to `address`, and the
/// length of all of them to `*length`. 128 bytes (`struct sockaddr_storage`) are enough.
///
/// Returns 0 or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_conn_peer_sockaddr(
    conn: *const omni_conn,
    address: *mut sockaddr,
    length: *mut u32,
) -> c_int {
    call_here("omni_conn_peer_sockaddr", conn, |conn| {
        // SAFETY: as this function's contract says.
        unsafe { write_sockaddr(conn.peer(), address, length) }
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Writes the address that the client connected to, as `omni_conn_peer` writes the peer's.
///
/// Returns as `omni_conn_peer`. System calls: getsockname. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_conn_local(
    conn: *const omni_conn,
    buffer: *mut c_char,
    capacity: usize,
) -> c_int {
    call_here("omni_conn_local", conn, |conn| {
        // SAFETY: as this function's contract says.
        unsafe { write_str(&conn.local()?.to_string(), buffer, capacity) }
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// How many bytes are queued in memory to be sent.
///
/// Returns the number (INT_MAX when it is more) or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_queued(conn: *const omni_conn) -> c_int {
    call_here("omni_conn_queued", conn, |conn| conn.queued())
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// The connection's socket, for its options. It stays the library's: only the loop may read, write
/// or close it.
///
/// Returns the descriptor or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_fd(conn: *const omni_conn) -> c_int {
    call_here("omni_conn_fd", conn, |conn| conn.socket().as_raw_fd())
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// The number of the loop or process that serves the connection, from 0, as `omni_server_stats`
/// takes it.
///
/// Returns the number or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_worker(conn: *const omni_conn) -> c_int {
    call_here("omni_conn_worker", conn, |conn| conn.worker())
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Whether the server is stopping, so that a reply may be the last on its connection.
///
/// Returns 1 if so, 0 if not, or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_stopping(conn: *const omni_conn) -> c_int {
    call_here("omni_conn_stopping", conn, |conn| c_int::from(conn.is_stopping()))
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Whether the peer has ended its direction, so that nothing more comes: true from `on_end` on
/// (OMNI_EVENT_ENDED), and in the last `on_data` of a connection with frames, which may have none.
///
/// Returns 1 if so, 0 if not, or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_has_ended(conn: *const omni_conn) -> c_int {
    call_here("omni_conn_has_ended", conn, |conn| c_int::from(conn.has_ended()))
}

/// The loop that the connection lives on: one that the program has made, or the one of the server's
/// worker that serves it.
///
/// NULL on an error, which `omni_last_error` describes: -EPERM and -ESTALE as for every function of a
/// connection, and -EMFILE when the process has 65,536 loops or pollers. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_loop(conn: *const omni_conn) -> *mut omni_loop {
    let mut event_loop = ptr::null_mut();
    let mut set = |of: &LoopRef<'_>| {
        event_loop = loop_table::handle_of(of)?;
        Ok::<_, Failure>(())
    };
    if callback_scope::failed(id_of(conn)).is_some() {
        callback_scope::with_current_loop(|event_loop| set(event_loop));
    } else {
        call_here("omni_conn_loop", conn, |conn| set(&conn.event_loop()));
    }
    event_loop
}

/// The token of the connection: what `omni_loop_listen` or `omni_loop_connect` was given, or
/// `omni_conn_set_token` since; 0 on a server.
///
/// 0 on an error too, which `omni_last_error` describes. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_token(conn: *const omni_conn) -> u64 {
    if let Some(failed) = callback_scope::failed(id_of(conn)) {
        return failed.token;
    }
    let mut token = 0;
    call_here("omni_conn_token", conn, |conn| token = conn.token());
    token
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Changes the token of the connection, which its events carry from then on.
///
/// Returns 0 or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_set_token(conn: *mut omni_conn, token: u64) -> c_int {
    call_here("omni_conn_set_token", conn, |conn| conn.set_token(token))
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Whether this program has connected to the peer, and not the peer to it.
///
/// Returns 1 if so, 0 if not, or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_is_outgoing(conn: *const omni_conn) -> c_int {
    call_here("omni_conn_is_outgoing", conn, |conn| c_int::from(conn.is_outgoing()))
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Stores a pointer of the caller's with the connection, for `omni_conn_context`. What it points to
/// stays the caller's, to be released in `on_close`, or in an `on_open` that refuses.
///
/// Returns 0 or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_set_context(conn: *mut omni_conn, context: *mut c_void) -> c_int {
    call_here("omni_conn_set_context", conn, |conn| conn.set_context(context.expose_provenance()))
}

/// The pointer that `omni_conn_set_context` has stored; NULL before, and on an error, which
/// `omni_last_error` describes.
///
/// System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_context(conn: *const omni_conn) -> *mut c_void {
    // Handlers ask in each callback, mostly for the connection that it is about.
    match callback_scope::with_own_conn(id_of(conn), |conn| conn.context()) {
        Ok(context) => ptr::with_exposed_provenance_mut(context),
        Err(_) => context_elsewhere(conn),
    }
}

#[inline(never)]
fn context_elsewhere(conn: *const omni_conn) -> *mut c_void {
    if let Some(failed) = callback_scope::failed(id_of(conn)) {
        return failed.context;
    }
    let mut context = 0;
    call_here("omni_conn_context", conn, |conn| context = conn.context());
    ptr::with_exposed_provenance_mut(context)
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Ends the connection with -ETIMEDOUT when nothing was read or written for so long: its own limit
/// instead of `idle_timeout_ns`. 0 or less: none. `on_timeout` can prevent the end. The time of every
/// timeout begins again.
///
/// Returns 0 or an error, outside of the callbacks -EAGAIN as for `omni_conn_post`. May be called
/// anywhere. System calls: none; outside of the callbacks a write to an eventfd. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_set_idle_timeout(conn: *mut omni_conn, timeout_ns: i64) -> c_int {
    let time = some_time(timeout_ns);
    call(
        "omni_conn_set_idle_timeout",
        conn,
        |conn| conn.set_idle_timeout(time),
        |id| id.set_timeout(Timeout::Idle, time),
    )
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// The same when nothing arrived for so long while it was being read, instead of `read_timeout_ns`.
///
/// Returns 0 or an error, outside of the callbacks -EAGAIN as for `omni_conn_post`. May be called
/// anywhere. System calls: none; outside of the callbacks a write to an eventfd. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_set_read_timeout(conn: *mut omni_conn, timeout_ns: i64) -> c_int {
    let time = some_time(timeout_ns);
    call(
        "omni_conn_set_read_timeout",
        conn,
        |conn| conn.set_read_timeout(time),
        |id| id.set_timeout(Timeout::Read, time),
    )
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// The same when bytes were queued and none could be sent for so long, instead of
/// `write_timeout_ns`.
///
/// Returns 0 or an error, outside of the callbacks -EAGAIN as for `omni_conn_post`. May be called
/// anywhere. System calls: none; outside of the callbacks a write to an eventfd. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_set_write_timeout(conn: *mut omni_conn, timeout_ns: i64) -> c_int {
    let time = some_time(timeout_ns);
    call(
        "omni_conn_set_write_timeout",
        conn,
        |conn| conn.set_write_timeout(time),
        |id| id.set_timeout(Timeout::Write, time),
    )
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Begins the time of every timeout again, as if something had just been read and written.
///
/// Returns 0 or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_restart_timeouts(conn: *mut omni_conn) -> c_int {
    call_here("omni_conn_restart_timeouts", conn, |conn| conn.restart_timeouts())
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Has `on_timer` called once when `delay_ns` nanoseconds have passed, never early; as soon as the present
/// callbacks have returned, when it is 0. A negative delay cancels that. A connection has one timer:
/// setting it again replaces what was set, and it ends with the connection. Setting it again and again to
/// a later time costs no more than reading the clock.
///
/// Returns 0, or:
///   -ENOMEM: there is no memory for it.
///
/// System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_set_timer(conn: *mut omni_conn, delay_ns: i64) -> c_int {
    let delay = u64::try_from(delay_ns).ok().map(Duration::from_nanos);
    call_here("omni_conn_set_timer", conn, |conn| conn.set_timer(delay))
}
