//! The functions that do something with an `omni_conn`: write, read, end, post.

use std::ffi::{c_char, c_int, c_void};
use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use libc::iovec;
use omnipoll::{ConnId, Frame, ProxyVersion};

use crate::buffer::{read_bytes, read_str, to_count};
use crate::conn_call::{call, call_here, id_of};
use crate::error::{to_c_result, Failure};
use crate::types::omni_conn;

/// The name of a group that C has passed.
///
/// # Safety
/// As [`read_str`].
pub(crate) unsafe fn read_name<'a>(group: *const c_char) -> Result<&'a str, Failure> {
    // SAFETY: as this function's contract says.
    unsafe { read_str(group, "group is NULL") }
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
    match unsafe { read_bytes(data, length) } {
        Ok(data) => call("omni_conn_write", conn, |conn| conn.write(data), |id| id.write(data)),
        Err(failure) => to_c_result("omni_conn_write", Err(failure)),
    }
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
/// files and queue are to be sent, nothing is read from a client, and `on_drain` follows. The descriptor is
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
/// Returns 0 or an error. May be called anywhere. System calls: shutdown; outside of the callbacks a
/// write to an eventfd. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_shutdown(conn: *mut omni_conn) -> c_int {
    call("omni_conn_shutdown", conn, |conn| conn.shutdown(), ConnId::shutdown)
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

/// cbindgen:postfix=OMNI_NONNULL(1,2)
/// Has another connection of the same loop send on all that this one receives from now on, instead of the
/// handler or as events: a proxy is made of two relays. While more than `high_water` bytes wait to be
/// sent on `to`, nothing is read from `conn`. The peer's end ends the other's direction when all is sent, as
/// `omni_conn_shutdown` does. When one of the two fails or is aborted, the other is reset; when one has
/// ended cleanly, the other is closed. Each has its `on_close`.
///
/// Returns 0, or:
///   -EBUSY: another connection is relayed to `to`.
///   -ESTALE: one of them has ended, or they are of two loops.
///
/// System calls: none for the call itself; recv and send. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_relay(conn: *mut omni_conn, to: *mut omni_conn) -> c_int {
    call_here("omni_conn_relay", conn, |conn| match to.is_null() {
        true => Err(Failure::new(libc::EINVAL, "the connection to relay to is NULL")),
        false => Ok(conn.relay_to(ConnId::from_number(id_of(to)))?),
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Writes a header of the PROXY protocol, of version 1 or 2, to a server behind this one: it says what
/// `omni_conn_peer` and `omni_conn_local` say of `client`, a connection of the same loop, which may have
/// that from such a header itself. It must be the first that is written to `conn`. NULL for `client`, and a
/// client of a unix socket: the header says that the addresses are not known.
///
/// Returns as `omni_conn_write`, or:
///   -EINVAL: there is no such version.
///   -ESTALE: one of them has ended, or they are of two loops.
///
/// System calls: getsockname, send. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_write_proxy_header(
    conn: *mut omni_conn,
    version: u32,
    client: *const omni_conn,
) -> c_int {
    call_here("omni_conn_write_proxy_header", conn, |conn| {
        let version = match version {
            1 => ProxyVersion::V1,
            2 => ProxyVersion::V2,
            _ => return Err(Failure::new(libc::EINVAL, "the PROXY protocol has versions 1 and 2")),
        };
        let client = (!client.is_null()).then(|| ConnId::from_number(id_of(client)));
        Ok(to_count(conn.write_proxy_header(version, client)?))
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1, 2)
/// Has what arrives divided after each delimiter, of `length` bytes, from the next byte on that `on_data`
/// has not got: `on_data` gets one frame in each call, which ends with the delimiter. What is incomplete is
/// kept for the connection. A frame of more than `max` bytes, its delimiter included, ends the connection
/// with -EMSGSIZE. When the peer ends its direction, what is left comes without a delimiter in a last
/// `on_data`. The frame may be changed in `on_data`, and a connection be paused between two frames.
///
/// Returns 0, or:
///   -EINVAL: the delimiter has not one to four bytes, or does not fit into `max`; `max` is more than the
///       size of the buffer of a loop that is pulled.
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
///   -EINVAL: the length is 0, or more than the size of the buffer of a loop that is pulled.
///
/// System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_set_frame_exactly(conn: *mut omni_conn, length: usize) -> c_int {
    call_here("omni_conn_set_frame_exactly", conn, |conn| conn.set_frame(Frame::Exactly(length)))
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Has what arrives wait until it is `length` bytes: `on_data` then gets all that is there, which may be
/// more. As with the other frames, that is from the next byte on that `on_data` has not got, and when the
/// peer ends its direction, what is left comes in a last `on_data`, which may be shorter.
///
/// Returns 0, or:
///   -EINVAL: the length is 0, or more than the size of the buffer of a loop that is pulled.
///
/// System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_conn_set_frame_at_least(conn: *mut omni_conn, length: usize) -> c_int {
    call_here("omni_conn_set_frame_at_least", conn, |conn| conn.set_frame(Frame::AtLeast(length)))
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Has what arrives come as it does from now on, as before `omni_conn_set_frame_until`,
/// `omni_conn_set_frame_exactly` or `omni_conn_set_frame_at_least`.
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
