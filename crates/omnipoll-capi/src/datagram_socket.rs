//! `omni_datagram_socket` and the functions that take one.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use libc::sockaddr;
use omnipoll::DatagramId;

use crate::buffer::{read_bytes, read_sockaddr, write_str};
use crate::error::{catch_panic, to_c_result, Failure};
use crate::types::omni_datagram_socket;

/// The pointer whose value is the id.
pub(crate) fn socket_of(id: DatagramId) -> *mut omni_datagram_socket {
    ptr::without_provenance_mut(id.number() as usize)
}

fn call(
    function: &str,
    socket: *const omni_datagram_socket,
    body: impl FnOnce(DatagramId) -> Result<c_int, Failure>,
) -> c_int {
    let call = || {
        if socket.is_null() {
            return Err(Failure::new(libc::EINVAL, "the datagram socket is NULL"));
        }
        body(DatagramId::from_number(socket.addr() as u64))
    };
    to_c_result(function, catch_panic(call))
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Sends `length` bytes as one datagram to an address, now. If the kernel's buffer for the socket is
/// full, they are copied and sent by the socket's loop as soon as there is room. The system chooses
/// the source address if the socket is bound to all of the machine's:
/// `omni_datagram_socket_send_from` replies from another thread.
///
/// Returns 0, or:
///   -EMSGSIZE: it is too long for a datagram.
///   -ENOBUFS: 1,024 datagrams or 4 MiB wait to be sent.
///   -EAFNOSUPPORT: `address` is not an internet address.
///   -EACCES, -ENETUNREACH, -EPERM or another error of sendmsg(2).
///
/// What the peer says of an earlier datagram is not returned: `on_datagram_error` gets it. May be called
/// anywhere. System calls: sendmsg. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_datagram_socket_send_to(
    socket: *mut omni_datagram_socket,
    address: *const sockaddr,
    address_length: u32,
    data: *const c_void,
    length: usize,
) -> c_int {
    call("omni_datagram_socket_send_to", socket, |id| {
        // SAFETY: as this function's contract says.
        let (peer, data) = unsafe { (read_sockaddr(address, address_length)?, read_bytes(data, length)?) };
        id.send_to(&peer, data)?;
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// `omni_datagram_socket_send_to` from one of the machine's addresses, on Linux: a reply to a datagram
/// from its `omni_datagram_local_sockaddr`, without which a client that is connected to that address
/// receives nothing. A socket that is bound to one address sends from that one.
///
/// Returns as `omni_datagram_socket_send_to`, and:
///   -EINVAL: `local` is not an address of this machine.
///
/// May be called anywhere. System calls: sendmsg. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_datagram_socket_send_from(
    socket: *mut omni_datagram_socket,
    local: *const sockaddr,
    local_length: u32,
    address: *const sockaddr,
    address_length: u32,
    data: *const c_void,
    length: usize,
) -> c_int {
    call("omni_datagram_socket_send_from", socket, |id| {
        // SAFETY: as this function's contract says.
        let (local, peer) =
            unsafe { (read_sockaddr(local, local_length)?, read_sockaddr(address, address_length)?) };
        // SAFETY: as above.
        id.send_from(&local, &peer, unsafe { read_bytes(data, length) }?)?;
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// `omni_datagram_socket_send_to` to the address that the socket is connected to.
///
/// Returns as `omni_datagram_socket_send_to`, and:
///   -EDESTADDRREQ: it is not connected.
///
/// May be called anywhere. System calls: sendmsg. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_datagram_socket_send(
    socket: *mut omni_datagram_socket,
    data: *const c_void,
    length: usize,
) -> c_int {
    call("omni_datagram_socket_send", socket, |id| {
        // SAFETY: as this function's contract says.
        id.send(unsafe { read_bytes(data, length) }?)?;
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Writes the address that the socket is bound to, with the port that the system chose:
/// "127.0.0.1:53". Works like snprintf(3), as `omni_poller_dump` does.
///
/// Returns the length of the whole text without the zero, or an error. May be called anywhere. System
/// calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_datagram_socket_local(
    socket: *const omni_datagram_socket,
    buffer: *mut c_char,
    capacity: usize,
) -> c_int {
    call("omni_datagram_socket_local", socket, |id| {
        // SAFETY: as this function's contract says.
        unsafe { write_str(&id.local()?.to_string(), buffer, capacity) }
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Writes the address that the socket is connected to, as `omni_datagram_socket_local` does: an empty
/// text when it is not connected.
///
/// Returns as `omni_datagram_socket_local`. May be called anywhere. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_datagram_socket_peer(
    socket: *const omni_datagram_socket,
    buffer: *mut c_char,
    capacity: usize,
) -> c_int {
    call("omni_datagram_socket_peer", socket, |id| {
        let peer = id.peer()?.map_or_else(String::new, |peer| peer.to_string());
        // SAFETY: as this function's contract says.
        unsafe { write_str(&peer, buffer, capacity) }
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Closes the socket: -ESTALE from now on. What waits to be sent is sent, or counted as dropped, when its
/// loop closes it; datagrams that it has received already may still come to the handler.
///
/// Returns 0 or an error. May be called anywhere. System calls: a write to an eventfd. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_datagram_socket_close(socket: *mut omni_datagram_socket) -> c_int {
    call("omni_datagram_socket_close", socket, |id| {
        id.close()?;
        Ok(0)
    })
}
