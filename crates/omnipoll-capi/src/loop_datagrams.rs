//! The datagram sockets of an `omni_loop`.

use std::ffi::{c_char, c_int};
use std::io;

use libc::sockaddr;
use omnipoll::{Address, DatagramId, LoopEvent};

use crate::buffer::{read_str, write_sockaddr};
use crate::datagram_socket::socket_of;
use crate::error::Failure;
use crate::event_loop::pulled;
use crate::loop_event::omni_loop_event;
use crate::loop_table::{call, call_here, call_shared};
use crate::types::{omni_datagram_socket, omni_loop};

/// cbindgen:postfix=OMNI_NONNULL(1,2)
/// Connects a datagram socket to an address, "udp:192.0.2.1:53", with a number for the host, and stores
/// its handle in `*out` unless that is NULL. It has a port of its own, receives from there only, and hears
/// at once when nobody is there. `omni_datagram_socket_send` sends. A name is the program's to look up.
///
/// What it receives comes to `on_datagram` and `on_datagram_error` of the loop's handler, or as events with
/// this token where the loop is pulled. It is open until `omni_datagram_socket_close`, or a stop.
///
/// Returns 0, or:
///   -EINVAL: this is no such address.
///   -ENETUNREACH, -EACCES, -EADDRNOTAVAIL: as connect(2) says.
///   -ESTALE: the loop was stopped.
///   -EMFILE, -ENFILE: too many open files in the process, in the system.
///   -EPERM: the loop is a server's, and this is no callback of it.
///
/// May be called anywhere, the callbacks included. System calls: socket, connect; a write to an eventfd.
/// Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_loop_connect_datagrams(
    event_loop: *mut omni_loop,
    address: *const c_char,
    token: u64,
    out: *mut *mut omni_datagram_socket,
) -> c_int {
    let function = "omni_loop_connect_datagrams";
    let connect = |event_loop: &mut dyn FnMut(&str) -> io::Result<DatagramId>| {
        // SAFETY: NULL or a text by this function's contract.
        let id = event_loop(unsafe { read_str(address, "address is NULL") }?)?;
        if !out.is_null() {
            // SAFETY: not NULL, and so a pointer's place by this function's contract.
            unsafe { out.write(socket_of(id)) };
        }
        Ok(0)
    };
    let mut is_servers = false;
    let outcome = call_shared(function, event_loop, |shared| match shared.handle() {
        Some(handle) => connect(&mut |address| handle.connect_datagrams(address, token)),
        None => {
            is_servers = true;
            Ok(0)
        }
    });
    if !is_servers {
        return outcome;
    }
    call_here(function, event_loop, |event_loop| {
        connect(&mut |address| event_loop.connect_datagrams(address, token))
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1,2)
/// Where a datagram of the last `omni_loop_wait` came from, as `omni_datagram_peer_sockaddr` writes it.
///
/// Returns 0, or:
///   -EINVAL: this is no OMNI_EVENT_DATAGRAM of the last wait; the loop has a handler.
///   -EPERM: as for `omni_loop_listen`.
///
/// System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_loop_event_peer_sockaddr(
    event_loop: *mut omni_loop,
    event: *const omni_loop_event,
    address: *mut sockaddr,
    length: *mut u32,
) -> c_int {
    let function = "omni_loop_event_peer_sockaddr";
    // SAFETY: as this function's contract says.
    unsafe { write_address(function, event_loop, event, |(peer, _)| peer, address, length) }
}

/// cbindgen:postfix=OMNI_NONNULL(1,2)
/// The address that it was sent to, as `omni_datagram_local_sockaddr` writes it.
///
/// Returns as `omni_loop_event_peer_sockaddr`. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_loop_event_local_sockaddr(
    event_loop: *mut omni_loop,
    event: *const omni_loop_event,
    address: *mut sockaddr,
    length: *mut u32,
) -> c_int {
    let function = "omni_loop_event_local_sockaddr";
    // SAFETY: as this function's contract says.
    unsafe { write_address(function, event_loop, event, |(_, local)| local, address, length) }
}

/// # Safety
/// `event` is NULL or an event, and the others as [`write_sockaddr`] wants them.
unsafe fn write_address(
    function: &str,
    event_loop: *mut omni_loop,
    event: *const omni_loop_event,
    choose: impl FnOnce((Address, Address)) -> Address,
    address: *mut sockaddr,
    length: *mut u32,
) -> c_int {
    call(function, event_loop, |_, face| {
        // SAFETY: NULL or an event, which has the same layout, and of which any bits are a value.
        let event = unsafe { event.cast::<LoopEvent>().as_ref() };
        let event = event.ok_or(Failure::new(libc::EINVAL, "the event is NULL"))?;
        let addresses = pulled(face)?.addresses(event);
        let addresses =
            addresses.ok_or(Failure::new(libc::EINVAL, "the event is not a datagram of the last wait"))?;
        // SAFETY: the caller's promise.
        unsafe { write_sockaddr(&choose(addresses), address, length) }
    })
}
