//! `omni_conn` and the functions that take one.

use std::ffi::{c_char, c_int, c_void};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

use libc::{iovec, sockaddr};
use omnipoll::{Conn, ConnId, Frame};

use crate::buffer::{read_bytes, read_str, to_count, write_sockaddr, write_str};
use crate::callback_scope;
use crate::error::{catch_panic, to_c_result, Failure};
use crate::loop_table;
use crate::options::some_time;
use crate::types::{omni_conn, omni_loop};

/// The name of a group that C has passed.
///
/// # Safety
/// As [`read_str`].
pub(crate) unsafe fn read_name<'a>(group: *const c_char) -> Result<&'a str, Failure> {
    // SAFETY: as this function's contract says.
    unsafe { read_str(group, "group is NULL") }
}

/// The value of the pointer.
fn id_of(conn: *const omni_conn) -> u64 {
    conn.addr() as u64
}

/// What the core names the connection by.
pub(crate) fn conn_id(conn: *const omni_conn) -> ConnId {
    ConnId::from_number(id_of(conn))
}

/// The pointer of that value.
pub(crate) fn handle_of(id: u64) -> *mut omni_conn {
    ptr::without_provenance_mut(id as usize)
}

/// Runs a call that any thread may make: on the connection itself where this thread can use it, or else
/// by its id.
fn call<H: Outcome, E: Outcome>(
    function: &str,
    conn: *const omni_conn,
    here: impl FnOnce(&mut Conn<'_>) -> H,
    elsewhere: impl FnOnce(ConnId) -> E,
) -> c_int {
    to_c_result(
        function,
        catch_panic(|| match callback_scope::with_conn(id_of(conn), |conn| here(conn).into_count()) {
            Some(outcome) => outcome,
            None if conn.is_null() => Err(Failure::new(libc::EINVAL, "the connection is NULL")),
            None => elsewhere(conn_id(conn)).into_count(),
        }),
    )
}

/// Runs a call that only the connection's own loop may make.
fn call_here<H: Outcome>(
    function: &str,
    conn: *const omni_conn,
    here: impl FnOnce(&mut Conn<'_>) -> H,
) -> c_int {
    call(function, conn, here, not_here)
}

fn not_here(id: ConnId) -> Result<(), Failure> {
    id.check()?;
    Err(Failure::new(
        libc::EPERM,
        "that is for callbacks of the connection's loop, and for the thread that has made the loop",
    ))
}

/// What a call of the core comes to, as C gets it: 0 or a count, or why not.
trait Outcome {
    fn into_count(self) -> Result<c_int, Failure>;
}

impl Outcome for () {
    fn into_count(self) -> Result<c_int, Failure> {
        Ok(0)
    }
}

impl Outcome for usize {
    fn into_count(self) -> Result<c_int, Failure> {
        Ok(to_count(self))
    }
}

impl Outcome for c_int {
    fn into_count(self) -> Result<c_int, Failure> {
        Ok(self)
    }
}

impl<T: Outcome, E: Into<Failure>> Outcome for Result<T, E> {
    fn into_count(self) -> Result<c_int, Failure> {
        self.map_err(Into::into)?.into_count()
    }
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Writes `length` bytes. They are sent at once, and what the kernel doesn't take is copied into
/// the connection's queue and sent later. Where another loop or thread writes, all of them are copied,
/// and sent after what was written before.
///
/// Returns how many bytes are queued now, 0 when all were sent (INT_MAX when it is more), or:
///   -ENOBUFS: more would be queued than `queue_limit` or `total_queue_limit` allow, or 16,384
///       writes and posts wait for the connection's loop. Nothing was taken, and the connection
///       continues.
///   -ENOMEM: there is no memory to queue it. Nothing was taken.
///   -EPIPE: it was closed, or its sending side shut down.
///   -ECONNABORTED: the system took a part, and there is no memory for the rest. The connection
///       has ended; `on_close` gets -ENOMEM.
///   -ECONNRESET, or another error of send(2): the connection has ended, as `on_close` reports.
///
/// May be called anywhere. System calls: send; outside of the callbacks a write to an eventfd.
/// Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_conn_write(conn: *mut omni_conn, data: *const c_void, length: usize) -> c_int {
    // SAFETY: as this function's contract says.
    let data = || unsafe { read_bytes(data, length) };
    call(
        "omni_conn_write",
        conn,
        |conn| Ok::<_, Failure>(conn.write(data()?)?),
        |id| Ok::<_, Failure>(id.write(data()?)?),
    )
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Writes several pieces at once, as writev(2) does: `omni_conn_write` of all of them, of which all
/// or none is taken.
///
/// Returns as `omni_conn_write`, and:
///   -EINVAL: `pieces` is NULL and `count` is not 0; a piece that has a length is at NULL.
///
/// System calls: sendmsg. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_conn_writev(conn: *mut omni_conn, pieces: *const iovec, count: u32) -> c_int {
    call_here("omni_conn_writev", conn, |conn| {
        if pieces.is_null() && count > 0 {
            return Err(Failure::new(libc::EINVAL, "pieces is NULL"));
        }
        let mut slices = Vec::new();
        let no_memory = |_| Failure::of(libc::ENOMEM);
        slices.try_reserve_exact(count as usize).map_err(no_memory)?;
        for index in 0..count as usize {
            // SAFETY: `count` pieces by this function's contract, each with as many bytes as it says.
            let piece = unsafe {
                let piece = &*pieces.add(index);
                read_bytes(piece.iov_base, piece.iov_len)?
            };
            slices.push(IoSlice::new(piece));
        }
        Ok(conn.write_vectored(&slices)?)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Sends `length` bytes of a file, starting at `offset`, after what was written before. They are
/// not copied into the process and don't count as queued; while more than `high_water` bytes of
/// files and queue are to be sent, nothing is read, and `on_drain` follows. The descriptor is
/// duplicated: it stays the caller's and may be closed at once. The file must keep its length until
/// it is sent: one that turns out shorter ends the connection with -EIO.
///
/// Returns 0, or:
///   -EPIPE: as for `omni_conn_write`.
///   -EBADF: `fd` is not open.
///   -EMFILE: it can't be duplicated.
///   -ENOBUFS: 16 files are waiting to be sent on the connection.
///   -EINVAL: `offset` and `length` exceed every file.
///   An error of sendfile(2): the connection has ended, as `on_close` reports.
///
/// System calls: fcntl, sendfile. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_send_file(conn: *mut omni_conn, fd: c_int, offset: u64, length: u64) -> c_int {
    call_here("omni_conn_send_file", conn, |conn| {
        if fd < 0 {
            return Err(Failure::of(libc::EBADF));
        }
        if offset.checked_add(length).is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(Failure::new(libc::EINVAL, "no file is so long"));
        }
        // SAFETY: it is duplicated at once, and a number that is not open is an error there.
        let file = unsafe { BorrowedFd::borrow_raw(fd) };
        Ok(conn.send_file(&file, offset, length)?)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Closes the connection cleanly: the handler gets no more data, what is queued is sent and then
/// the end of the stream, and the peer has `linger_ns` to read it all. Then `on_close` is called.
/// Does nothing the second time.
///
/// Returns 0 or an error. May be called anywhere. System calls: outside of the callbacks a write to
/// an eventfd. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_close(conn: *mut omni_conn) -> c_int {
    call("omni_conn_close", conn, |conn| conn.close(), ConnId::close)
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Ends the connection at once: what is queued is dropped, and the peer sees a reset. `on_close` is
/// called with -ECONNABORTED when the present callback has returned.
///
/// Returns 0 or an error. May be called anywhere. System calls: setsockopt; outside of the
/// callbacks a write to an eventfd. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_abort(conn: *mut omni_conn) -> c_int {
    call("omni_conn_abort", conn, |conn| conn.abort(), ConnId::abort)
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Ends our direction when what is queued has been sent: the peer sees the end of the stream and
/// can still send. A write afterwards is -EPIPE.
///
/// Returns 0 or an error. System calls: shutdown. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_shutdown(conn: *mut omni_conn) -> c_int {
    call_here("omni_conn_shutdown", conn, |conn| conn.shutdown())
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Stops reading from the peer, which eventually can't send any more either. Its end or reset is
/// noticed after `omni_conn_resume`, or by a write that fails.
///
/// Returns 0 or an error. May be called anywhere. System calls: as for `omni_conn_close`. Since
/// 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_pause(conn: *mut omni_conn) -> c_int {
    call("omni_conn_pause", conn, |conn| conn.pause(), ConnId::pause)
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Reads from the peer again.
///
/// Returns 0 or an error. May be called anywhere. System calls: as for `omni_conn_close`. Since
/// 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_resume(conn: *mut omni_conn) -> c_int {
    call("omni_conn_resume", conn, |conn| conn.resume(), ConnId::resume)
}

/// cbindgen:postfix=OMNI_NONNULL(1, 2)
/// Has what arrives divided after each delimiter, of `length` bytes, from the next byte on that `on_data`
/// has not got: `on_data` gets one frame in each call, which ends with the delimiter. What is incomplete is
/// kept for the connection. A frame of more than `max` bytes, its delimiter included, ends the connection
/// with -EMSGSIZE. When the peer ends its direction, what is left comes without a delimiter in a last
/// `on_data`. The frame may be changed in `on_data`, and a connection be paused between two frames.
///
/// Returns 0, or:
///   -EINVAL: the delimiter has not one to four bytes, or does not fit into `max`.
///
/// System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_conn_set_frame_until(
    conn: *mut omni_conn,
    delimiter: *const c_void,
    length: usize,
    max: usize,
) -> c_int {
    call_here("omni_conn_set_frame_until", conn, |conn| {
        // SAFETY: as this function's contract says.
        let delimiter = unsafe { read_bytes(delimiter, length)? };
        Ok::<_, Failure>(conn.set_frame(Frame::Until { delimiter, max })?)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Has what arrives divided into frames of `length` bytes, as `omni_conn_set_frame_until` does after
/// delimiters. When the peer ends its direction, what is left comes in a last `on_data`, which is shorter. A
/// message that begins with its length is two such frames, the second of which is set when the first has
/// come.
///
/// Returns 0, or:
///   -EINVAL: the length is 0.
///
/// System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_set_frame_exactly(conn: *mut omni_conn, length: usize) -> c_int {
    call_here("omni_conn_set_frame_exactly", conn, |conn| conn.set_frame(Frame::Exactly(length)))
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Has what arrives come as it does from now on, as before `omni_conn_set_frame_until` or
/// `omni_conn_set_frame_exactly`.
///
/// Returns 0 or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_set_frame_any(conn: *mut omni_conn) -> c_int {
    call_here("omni_conn_set_frame_any", conn, |conn| conn.set_frame(Frame::Any))
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Has `on_post` called with this value by the connection's own loop, when the present callback has
/// returned.
///
/// Returns 0, or:
///   -EAGAIN: 16,384 posts and writes wait for the connection's loop; post again later.
///
/// May be called anywhere. System calls: a write to an eventfd. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_post(conn: *mut omni_conn, value: i64) -> c_int {
    call("omni_conn_post", conn, |conn| conn.id().post(value), |id| id.post(value))
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Joins a group, which `omni_server_broadcast_group` writes to. A name is any UTF-8 text of 1 to
/// 255 bytes, without a zero. A group exists from its first member to its last. A connection that
/// is in it already stays in it, and leaves all its groups when it ends.
///
/// Returns 0, or:
///   -EINVAL: `group` is NULL, or no such name.
///   -ENOBUFS: the connection is in 64 groups.
///   -ESTALE: it is closing.
///
/// May be called anywhere. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_conn_join(conn: *mut omni_conn, group: *const c_char) -> c_int {
    // SAFETY: as this function's contract says.
    let name = || unsafe { read_name(group) };
    call(
        "omni_conn_join",
        conn,
        |conn| Ok::<_, Failure>(conn.join(name()?)?),
        |id| Ok::<_, Failure>(id.join(name()?)?),
    )
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Leaves a group. Does nothing when the connection isn't in it.
///
/// Returns 0, or -EINVAL and -ESTALE as `omni_conn_join`.
///
/// May be called anywhere. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_conn_leave(conn: *mut omni_conn, group: *const c_char) -> c_int {
    // SAFETY: as this function's contract says.
    let name = || unsafe { read_name(group) };
    call(
        "omni_conn_leave",
        conn,
        |conn| Ok::<_, Failure>(conn.leave(name()?)?),
        |id| Ok::<_, Failure>(id.leave(name()?)?),
    )
}

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

/// The loop that the connection lives on: one that the program has made, or the one of the server's
/// worker that serves it.
///
/// NULL on an error, which `omni_last_error` describes: -EPERM and -ESTALE as for every function of a
/// connection, and -EMFILE when the process has 65,536 loops or pollers. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_loop(conn: *const omni_conn) -> *mut omni_loop {
    let mut event_loop = ptr::null_mut();
    call_here("omni_conn_loop", conn, |conn| {
        event_loop = loop_table::handle_of(&conn.event_loop())?;
        Ok::<_, Failure>(())
    });
    event_loop
}

/// The token of the connection: what `omni_loop_listen` or `omni_loop_connect` was given, or
/// `omni_conn_set_token` since; 0 on a server.
///
/// 0 on an error too, which `omni_last_error` describes. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_token(conn: *const omni_conn) -> u64 {
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
    let mut context = 0;
    call_here("omni_conn_context", conn, |conn| context = conn.context());
    ptr::with_exposed_provenance_mut(context)
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Ends the connection with -ETIMEDOUT when nothing was read or written for so long: its own limit
/// instead of `idle_timeout_ns`. 0 or less: none. `on_timeout` can prevent the end. The time of every
/// timeout begins again.
///
/// Returns 0 or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_set_idle_timeout(conn: *mut omni_conn, timeout_ns: i64) -> c_int {
    call_here("omni_conn_set_idle_timeout", conn, |conn| conn.set_idle_timeout(some_time(timeout_ns)))
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// The same when nothing arrived for so long while it was being read, instead of `read_timeout_ns`.
///
/// Returns 0 or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_set_read_timeout(conn: *mut omni_conn, timeout_ns: i64) -> c_int {
    call_here("omni_conn_set_read_timeout", conn, |conn| conn.set_read_timeout(some_time(timeout_ns)))
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// The same when bytes were queued and none could be sent for so long, instead of
/// `write_timeout_ns`.
///
/// Returns 0 or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_set_write_timeout(conn: *mut omni_conn, timeout_ns: i64) -> c_int {
    call_here("omni_conn_set_write_timeout", conn, |conn| conn.set_write_timeout(some_time(timeout_ns)))
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
