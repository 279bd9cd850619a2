//! `omni_datagram` and the functions that take one.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU16, Ordering};

use libc::sockaddr;
use omnipoll::Datagram;

use crate::buffer::{read_bytes, write_sockaddr, write_str};
use crate::datagram_socket::socket_of;
use crate::error::{catch_panic, to_c_result, Failure};
use crate::handle::{handle_of, name_of, DATAGRAM};
use crate::types::{omni_datagram, omni_datagram_socket};

/// Lent to a callback for as long as it runs.
#[derive(Clone, Copy)]
struct Current {
    handle: usize,
    datagram: *mut Datagram<'static>,
}

thread_local! {
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };
    static LAST: Cell<usize> = const { Cell::new(0) };
}

/// Each thread counts its own, beside a number of the thread's.
fn new_handle() -> usize {
    static THREADS: AtomicU16 = AtomicU16::new(0);
    let last = match LAST.get() {
        0 => handle_of(name_of(0, DATAGRAM), THREADS.fetch_add(1, Ordering::Relaxed)),
        last => last,
    };
    LAST.set(last.wrapping_add(handle_of(name_of(1, DATAGRAM), 0)));
    LAST.get()
}

/// Calls C with a handle that for so long leads to `datagram`.
pub(crate) fn lend(datagram: &mut Datagram<'_>, call: impl FnOnce(*mut omni_datagram)) {
    let handle = new_handle();
    let outer = CURRENT.replace(Some(Current { handle, datagram: ptr::from_mut(datagram).cast() }));
    call(ptr::without_provenance_mut(handle));
    CURRENT.set(outer);
}

fn with(
    function: &str,
    datagram: *const omni_datagram,
    body: impl FnOnce(&mut Datagram<'_>) -> Result<c_int, Failure>,
) -> c_int {
    let find = || {
        if datagram.is_null() {
            return Err(Failure::new(libc::EINVAL, "the datagram is NULL"));
        }
        let current = CURRENT.get().filter(|current| current.handle == datagram.addr());
        let current = current.ok_or(Failure::new(libc::ESTALE, "the datagram's callback has returned"))?;
        // SAFETY: `lend` has borrowed it from its caller until the callback returns, into which
        // this thread has called us.
        body(unsafe { &mut *current.datagram })
    };
    to_c_result(function, catch_panic(find))
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Sends `length` bytes to where the datagram came from, from the address it was sent to. They are
/// copied, and sent together with other replies after the callback; UDP doesn't report whether they
/// arrive.
///
/// Returns 0, or:
///   -EMSGSIZE: it is too long for a datagram.
///   -ENOBUFS: too many replies are waiting to be sent.
///
/// System calls: none; sendmmsg later. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_datagram_reply(
    datagram: *mut omni_datagram,
    data: *const c_void,
    length: usize,
) -> c_int {
    with("omni_datagram_reply", datagram, |datagram| {
        // SAFETY: as this function's contract says.
        datagram.reply(unsafe { read_bytes(data, length) }?)?;
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Writes the address the datagram came from: "127.0.0.1:53124". Works like snprintf(3), as
/// `omni_poller_dump` does.
///
/// Returns the length of the whole text without the zero, or an error. System calls: none. Since
/// 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_datagram_peer(
    datagram: *const omni_datagram,
    buffer: *mut c_char,
    capacity: usize,
) -> c_int {
    with("omni_datagram_peer", datagram, |datagram| {
        // SAFETY: as this function's contract says.
        unsafe { write_str(&datagram.peer().to_string(), buffer, capacity) }
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Writes the address of this machine that the datagram was sent to, even where the socket is bound
/// to all of them: "127.0.0.2:53". For a broadcast or multicast it is the one that a reply has.
///
/// Returns as `omni_datagram_peer`. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_datagram_local(
    datagram: *const omni_datagram,
    buffer: *mut c_char,
    capacity: usize,
) -> c_int {
    with("omni_datagram_local", datagram, |datagram| {
        // SAFETY: as this function's contract says.
        unsafe { write_str(&datagram.local().to_string(), buffer, capacity) }
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Writes the address the datagram came from as getpeername(2) does: at most `*length` bytes to
/// `address`, and the length of all of them to `*length`. `omni_datagram_socket_send_to` takes it.
///
/// Returns 0 or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_datagram_peer_sockaddr(
    datagram: *const omni_datagram,
    address: *mut sockaddr,
    length: *mut u32,
) -> c_int {
    with("omni_datagram_peer_sockaddr", datagram, |datagram| {
        // SAFETY: as this function's contract says.
        unsafe { write_sockaddr(datagram.peer(), address, length) }
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Writes the address the datagram was sent to, which `omni_datagram_local` describes, as
/// `omni_datagram_peer_sockaddr` does.
///
/// Returns 0 or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_datagram_local_sockaddr(
    datagram: *const omni_datagram,
    address: *mut sockaddr,
    length: *mut u32,
) -> c_int {
    with("omni_datagram_local_sockaddr", datagram, |datagram| {
        // SAFETY: as this function's contract says.
        unsafe { write_sockaddr(&datagram.local(), address, length) }
    })
}

/// The socket that has received the datagram. NULL on an error, which `omni_last_error` describes.
///
/// System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_datagram_receiver(datagram: *const omni_datagram) -> *mut omni_datagram_socket {
    let mut socket = ptr::null_mut();
    with("omni_datagram_receiver", datagram, |datagram| {
        socket = socket_of(datagram.socket());
        Ok(0)
    });
    socket
}
