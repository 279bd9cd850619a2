//! `omni_conn` and the functions that take one.

use std::ffi::{c_char, c_int, c_void};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::iovec;
use omnipoll::{Conn, ConnId};

use crate::current;
use crate::error::{answer, guarded, Failure};
use crate::options::some_time;
use crate::text::{self, capped};

/// A connection, as each callback of its handler gets it.
///
/// The pointer is a handle, not an address: its value is the connection's id, which is not used
/// again, so that a program that has kept the number casts it back. A connection that is gone is -ESTALE, and in a forked child each one of its parent's is
/// -EOWNERDEAD. In a callback of this very connection every
/// function does what it says at once; anywhere else, on any thread, `omni_conn_write`, `_close`,
/// `_abort`, `_pause`, `_resume` and `_post` have the connection's own loop do it, and the others
/// are -EPERM. There is nothing behind the pointer, and nothing to free.
#[allow(non_camel_case_types)]
pub struct omni_conn(());

/// Runs a call that any thread may make: on the connection itself where this is its callback,
/// or else by its id.
fn call<H: Outcome, E: Outcome>(
    function: &str,
    conn: *const omni_conn,
    here: impl FnOnce(&mut Conn<'_>) -> H,
    elsewhere: impl FnOnce(ConnId) -> E,
) -> c_int {
    answer(
        function,
        guarded(|| match current::with(conn, |conn, _| here(conn).into_count()) {
            Some(outcome) => outcome,
            None if conn.is_null() => Err(Failure::new(libc::EINVAL, "the connection is NULL")),
            None => elsewhere(ConnId::from_number(conn.addr() as u64)).into_count(),
        }),
    )
}

/// Runs a call that only a callback of this connection may make.
fn call_here<H: Outcome>(
    function: &str,
    conn: *const omni_conn,
    here: impl FnOnce(&mut Conn<'_>) -> H,
) -> c_int {
    call(function, conn, here, not_here)
}

fn not_here(id: ConnId) -> Result<(), Failure> {
    id.check()?;
    Err(Failure::new(libc::EPERM, "that is for callbacks of this connection only"))
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
        Ok(capped(self))
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

/// The bytes that C has passed.
///
/// # Safety
/// `data` is NULL, or has `length` bytes, which stay as they are meanwhile.
pub(crate) unsafe fn bytes<'a>(data: *const c_void, length: usize) -> Result<&'a [u8], Failure> {
    match (data.is_null(), length) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Failure::new(libc::EINVAL, "data is NULL")),
        (false, _) if length > isize::MAX as usize => {
            Err(Failure::new(libc::EINVAL, "length is more than there is memory"))
        }
        // SAFETY: not NULL, and so as promised.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(data.cast(), length) }),
    }
}

/// Writes `length` bytes. They go straight to the socket, and what the kernel does not take is
/// queued, copied, and sent by and by. From elsewhere than a callback of this connection they
/// are always copied, and sent after what was written before.
///
/// Returns how many bytes wait to be sent now, 0 when all has gone (INT_MAX when it is more), or:
///   -ENOBUFS: more would wait than `queue_limit` or `total_queue_limit` allow, or 16,384 writes
///       and posts wait for the connection's loop. Nothing was taken, and the connection goes on.
///   -ENOMEM: there is no memory to keep it until it can be sent. Nothing was taken either.
///   -EPIPE: it was closed, or its sending side shut down.
///   -ECONNABORTED: the system took a part, and there is no memory for the rest. It has ended, as
///       `on_close` will report with ENOMEM.
///   -ECONNRESET, or what else send(2) says: it has ended, as `on_close` will tell.
///   -EINVAL: `conn` is NULL; `data` is NULL and `length` is not 0.
///   -ESTALE: it is gone; elsewhere than in its callback also when it was closed.
///   -EOWNERDEAD: it belongs to the process that has forked this one. So every function says that
///       takes a connection.
///
/// May be called from any thread. System calls: send; elsewhere a write to an eventfd.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_conn_write(conn: *mut omni_conn, data: *const c_void, length: usize) -> c_int {
    // SAFETY: as this function's contract says.
    let data = || unsafe { bytes(data, length) };
    call(
        "omni_conn_write",
        conn,
        |conn| Ok::<_, Failure>(conn.write(data()?)?),
        |id| Ok::<_, Failure>(id.write(data()?)?),
    )
}

/// Writes several pieces at once, as writev(2) does: `omni_conn_write` of all of them, and all or
/// none is taken.
///
/// Returns as `omni_conn_write`, and:
///   -EINVAL: `conn` is NULL; `pieces` is NULL and `count` is not 0; a piece that has a length is
///       at NULL.
///   -ENOMEM: there is no memory for a list of so many.
///   -EPERM: this is no callback of this connection.
///
/// System calls: sendmsg.
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
                bytes(piece.iov_base, piece.iov_len)?
            };
            slices.push(IoSlice::new(piece));
        }
        Ok(conn.write_vectored(&slices)?)
    })
}

/// Sends `length` bytes of a file from `offset` on, after what was written before. They never
/// pass through the process's memory and don't count as waiting; while more than `high_water` bytes
/// of files and others wait, nothing is read, and `on_drain` tells when. The descriptor is duplicated:
/// it stays the caller's, who may close it at once. The file must keep its length until then:
/// one that turns out shorter ends the connection with -EIO.
///
/// Returns 0, or:
///   -EPIPE, -ESTALE: as for `omni_conn_write`.
///   -EBADF: `fd` is not open, or negative.
///   -EMFILE: it can't be duplicated.
///   -ENOBUFS: 16 files wait to be sent on the connection.
///   -EINVAL: `conn` is NULL; the end of the stretch is no offset of a file.
///   -EPERM: this is no callback of this connection.
///   What sendfile(2) says: the connection has ended, as `on_close` will tell.
///
/// System calls: fcntl, sendfile.
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

/// Ends the connection in order: no more data is handed to the handler, what waits is sent, the
/// peer is told the end, and has `linger_ns` to read it all. Then `on_close` is called. Does
/// nothing the second time.
///
/// Returns 0, or:
///   -EINVAL: `conn` is NULL.
///   -ESTALE: it is gone; elsewhere than in its callback also when it was closed.
///
/// May be called from any thread. System calls: elsewhere a write to an eventfd.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_close(conn: *mut omni_conn) -> c_int {
    call("omni_conn_close", conn, |conn| conn.close(), ConnId::close)
}

/// Ends the connection at once: what waits to be sent is thrown away, and the peer sees a reset.
/// `on_close` is called with -ECONNABORTED when the present call has returned.
///
/// Returns 0, or:
///   -EINVAL: `conn` is NULL.
///   -ESTALE: it is gone.
///
/// May be called from any thread. System calls: setsockopt; elsewhere a write to an eventfd.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_abort(conn: *mut omni_conn) -> c_int {
    call("omni_conn_abort", conn, |conn| conn.abort(), ConnId::abort)
}

/// Ends our direction once what waits has been sent: the peer sees the end of our data, and its
/// own still arrives. A write afterwards is -EPIPE.
///
/// Returns 0, or:
///   -EINVAL: `conn` is NULL.
///   -EPERM: this is no callback of this connection.
///   -ESTALE: it is gone.
///
/// System calls: shutdown.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_shutdown(conn: *mut omni_conn) -> c_int {
    call_here("omni_conn_shutdown", conn, |conn| conn.shutdown())
}

/// Takes no more data from the peer, which by and by can't send either. That it ends or resets
/// the connection is noticed after `omni_conn_resume`, or by a write that fails.
///
/// Returns 0, or:
///   -EINVAL: `conn` is NULL.
///   -ESTALE: as for `omni_conn_close`.
///
/// May be called from any thread. System calls: as for `omni_conn_close`.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_pause(conn: *mut omni_conn) -> c_int {
    call("omni_conn_pause", conn, |conn| conn.pause(), ConnId::pause)
}

/// Takes data again.
///
/// Returns 0, or:
///   -EINVAL: `conn` is NULL.
///   -ESTALE: as for `omni_conn_close`.
///
/// May be called from any thread. System calls: as for `omni_conn_close`.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_resume(conn: *mut omni_conn) -> c_int {
    call("omni_conn_resume", conn, |conn| conn.resume(), ConnId::resume)
}

/// Has `on_post` called with this value, on the connection's own loop, when the present call has
/// returned.
///
/// Returns 0, or:
///   -EINVAL: `conn` is NULL.
///   -ESTALE: it is gone, or was closed.
///   -EAGAIN: 16,384 posts and writes to it wait for its loop; post again later.
///
/// May be called from any thread. System calls: a write to an eventfd.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_post(conn: *mut omni_conn, value: i64) -> c_int {
    call("omni_conn_post", conn, |conn| conn.id().post(value), |id| id.post(value))
}

/// The connection's id, as a number: the value of `conn`. Never 0, and not used again when it has
/// gone. 0 when `conn` is NULL.
///
/// Can't fail. May be called from any thread. Makes no system call.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_id(conn: *const omni_conn) -> u64 {
    conn.addr() as u64
}

/// Writes who is at the other end: "127.0.0.1:53124", "[::1]:53124", "unix:" (a client without a
/// name). Works like snprintf(3), as `omni_poller_dump` does.
///
/// Returns the length of the whole text without the zero, whether there was room for it or not;
/// or:
///   -EINVAL: `conn` is NULL; `buffer` is NULL and `capacity` is not 0.
///   -EPERM: this is no callback of this connection.
///   -ESTALE: it is gone.
///
/// Makes no system call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_conn_peer(
    conn: *const omni_conn,
    buffer: *mut c_char,
    capacity: usize,
) -> c_int {
    call_here("omni_conn_peer", conn, |conn| {
        // SAFETY: as this function's contract says.
        unsafe { text::give(&conn.peer().to_string(), buffer, capacity) }
    })
}

/// Writes the address the client came to, as `omni_conn_peer` writes the peer's, with the same
/// results and errors. System calls: getsockname.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_conn_local(
    conn: *const omni_conn,
    buffer: *mut c_char,
    capacity: usize,
) -> c_int {
    call_here("omni_conn_local", conn, |conn| {
        // SAFETY: as this function's contract says.
        unsafe { text::give(&conn.local()?.to_string(), buffer, capacity) }
    })
}

/// How many bytes wait in memory to be sent.
///
/// Returns the number (INT_MAX when it is more), or:
///   -EINVAL: `conn` is NULL.
///   -EPERM: this is no callback of this connection.
///   -ESTALE: it is gone.
///
/// Makes no system call.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_queued(conn: *const omni_conn) -> c_int {
    call_here("omni_conn_queued", conn, |conn| conn.queued())
}

/// The connection's socket, for its options. It stays the library's: reading, writing and
/// closing it is for the loop.
///
/// Returns the descriptor, or an error as `omni_conn_queued`. Makes no system call.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_fd(conn: *const omni_conn) -> c_int {
    call_here("omni_conn_fd", conn, |conn| conn.socket().as_raw_fd())
}

/// The number of the loop or process that serves the connection, from 0, as
/// `omni_server_stats` takes it.
///
/// Returns the number, or an error as `omni_conn_queued`. Makes no system call.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_worker(conn: *const omni_conn) -> c_int {
    call_here("omni_conn_worker", conn, |conn| conn.worker())
}

/// Whether the server is stopping: an answer may be the last on its connection.
///
/// Returns 1 if so, 0 if not, or an error as `omni_conn_queued`. Makes no system call.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_stopping(conn: *const omni_conn) -> c_int {
    call_here("omni_conn_stopping", conn, |conn| c_int::from(conn.is_stopping()))
}

/// Keeps a pointer of the caller's for the connection, for `omni_conn_context` to return. What it
/// points to stays the caller's, to be released in `on_close`; or in `on_open`, if that refuses.
///
/// Returns 0, or an error as `omni_conn_queued`. Makes no system call.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_set_context(conn: *mut omni_conn, context: *mut c_void) -> c_int {
    current::with(conn, |_, slot| *slot = context);
    call_here("omni_conn_set_context", conn, |_| ())
}

/// What `omni_conn_set_context` has set; NULL before. NULL as well where this is no callback of
/// this connection, as `omni_last_error` says. Makes no system call.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_context(conn: *const omni_conn) -> *mut c_void {
    current::with(conn, |_, context| *context).unwrap_or_else(|| {
        call_here("omni_conn_context", conn, |_| ());
        ptr::null_mut()
    })
}

/// Ends the connection with -ETIMEDOUT when nothing was read or written for so long: this one's
/// own limit, instead of `idle_timeout_ns`. 0 or less: none.
///
/// Returns 0, or an error as `omni_conn_queued`. Makes no system call.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_set_idle_timeout(conn: *mut omni_conn, timeout_ns: i64) -> c_int {
    call_here("omni_conn_set_idle_timeout", conn, |conn| conn.set_idle_timeout(some_time(timeout_ns)))
}

/// The same when nothing arrived for so long while it was being read, instead of
/// `read_timeout_ns`.
///
/// Returns 0, or an error as `omni_conn_queued`. Makes no system call.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_set_read_timeout(conn: *mut omni_conn, timeout_ns: i64) -> c_int {
    call_here("omni_conn_set_read_timeout", conn, |conn| conn.set_read_timeout(some_time(timeout_ns)))
}

/// The same when bytes waited to be sent and none could be for so long, instead of
/// `write_timeout_ns`.
///
/// Returns 0, or an error as `omni_conn_queued`. Makes no system call.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_set_write_timeout(conn: *mut omni_conn, timeout_ns: i64) -> c_int {
    call_here("omni_conn_set_write_timeout", conn, |conn| conn.set_write_timeout(some_time(timeout_ns)))
}
