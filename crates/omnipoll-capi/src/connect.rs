//! `omni_loop_connect` and its options.

use std::ffi::{c_char, c_int, c_void};
use std::mem::offset_of;
use std::ptr;
use std::time::Duration;

use omnipoll::{ConnectOptions, LoopRef};

use crate::buffer::read_str;
use crate::conn_call::handle_of;
use crate::error::Failure;
use crate::event_loop::{calls_nothing, read_handler};
use crate::handler::omni_handler;
use crate::kept_handlers::{Callee, Pending};
use crate::loop_table::{self, call_here};
use crate::option_values::some_time;
use crate::sized::{self, Sized32};
use crate::types::{omni_conn, omni_loop};

/// Flag of omni_connect_options: small writes may be held back until what was sent before is
/// acknowledged (TCP_NODELAY is not set).
pub const OMNI_CONNECT_DELAY: u32 = 0x1;

/// How a connection is made. 0 is the default in every field: fill the struct with zeros, set `size`,
/// and then what is to differ.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
#[repr(C)]
pub struct omni_connect_options {
    /// sizeof(omni_connect_options).
    pub size: u32,
    /// 0 or OMNI_CONNECT_DELAY.
    pub flags: u32,
    /// How long it may take in all, to look the name up and to try each of its addresses, in nanoseconds;
    /// then it fails with -ETIMEDOUT. 0: 30 seconds; negative: as long as the system tries, which may be
    /// minutes.
    pub timeout_ns: i64,
    /// How long a peer may be silent before the system asks whether it is still there, in whole seconds
    /// (SO_KEEPALIVE). 0 or less: it never asks.
    pub keep_alive_ns: i64,
    /// The address of this machine to connect from, as text: "192.0.2.1", or with a port
    /// "192.0.2.1:7000", "[::1]:7000". NULL: the system chooses.
    pub local_address: *const c_char,
    /// What `omni_conn_context` returns for the connection from the start, in the `on_close` of one that
    /// never opened, too. Must be NULL where the loop is pulled: it has tokens.
    pub context: *mut c_void,
}

// SAFETY: as declared above; each zero is a number's or NULL.
unsafe impl Sized32 for omni_connect_options {
    const MIN_SIZE: usize = offset_of!(Self, context) + size_of::<usize>();
    const UNSET: &'static str = "the size of the connect options is not set";
}

impl omni_connect_options {
    /// # Safety
    /// `local_address` is NULL or a text.
    unsafe fn translate(&self) -> Result<ConnectOptions, Failure> {
        if self.flags & !OMNI_CONNECT_DELAY != 0 {
            return Err(Failure::new(libc::EINVAL, "flags has an unknown bit"));
        }
        let keep_alive = some_time(self.keep_alive_ns);
        let options =
            ConnectOptions::new().no_delay(self.flags & OMNI_CONNECT_DELAY == 0).keep_alive(keep_alive);
        let options = match self.timeout_ns {
            0 => options,
            timeout => options.timeout(u64::try_from(timeout).ok().map(Duration::from_nanos)),
        };
        if self.local_address.is_null() {
            return Ok(options);
        }
        // SAFETY: not NULL, and so as the caller promises.
        Ok(options.local_address(unsafe { read_str(self.local_address, "") }?))
    }
}

/// cbindgen:postfix=OMNI_NONNULL(1,2)
/// Connects to an address. The connection begins with this token, and is served by this handler, which is
/// copied. NULL: by the loop's own; it must be NULL where the loop is pulled, or a server's.
///
/// "192.0.2.1:80", "[2001:db8::1]:80"; "example.org:80", a name, which is looked up by getaddrinfo(3) in
/// another thread, and whose addresses are tried as RFC 8305 says: the families take turns, the next is
/// tried when one has failed or has not answered for 250 ms, and the first connection wins; "unix:/path",
/// "unix:@abstract"; "fd:5", a stream socket that is connected already, which is duplicated.
///
/// When it is established `on_open` is called (OMNI_EVENT_CONNECTED), never before this function has
/// returned. One that never opens has one `on_close` alone (OMNI_EVENT_CLOSED), with the error of the
/// address that was tried last; during that call `omni_last_error` has the words, with every address
/// that was tried, and of the functions of a connection `omni_conn_id`, `omni_conn_token`,
/// `omni_conn_context` and `omni_conn_loop` work.
///
/// The connection's handle is stored in `*out`, unless `out` is NULL. Until it opens `omni_conn_write` keeps
/// what is to be sent then, and `omni_conn_close` and `omni_conn_abort` end the attempt: -ECANCELED.
///
/// `options` may be NULL, for the defaults, and is not used after the call. `*out` is written only on
/// success.
///
/// Returns 0, or:
///   -EINVAL: this is no address, or no local address; a struct's size is not set; an unknown flag; a
///       handler or a context for a loop that is pulled, a handler for one of a server's.
///   -EAGAIN: the loop has 1,048,576 connections.
///   -EBADF, -ENOTSOCK, -EPROTOTYPE, -ENOTCONN: the descriptor of "fd:" is not open, or no stream socket
///       that is connected.
///   -EBUSY, -EPERM: as for `omni_loop_listen`; a callback of the loop may call it.
///   -ESTALE: the loop is over.
///
/// System calls: none for the call itself; getaddrinfo, socket, connect. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_loop_connect(
    event_loop: *mut omni_loop,
    address: *const c_char,
    options: *const omni_connect_options,
    handler: *const omni_handler,
    token: u64,
    out: *mut *mut omni_conn,
) -> c_int {
    call_here("omni_loop_connect", event_loop, |event_loop| {
        // SAFETY: NULL or a text by this function's contract.
        let address = unsafe { read_str(address, "address is NULL") }?;
        let (options, context) = match options.is_null() {
            true => (ConnectOptions::new(), ptr::null_mut()),
            false => {
                // SAFETY: not NULL, and so a struct of the size it says by this function's contract.
                let options = unsafe { sized::read(options) }?;
                // SAFETY: NULL or a text by this function's contract.
                (unsafe { options.translate() }?, options.context)
            }
        };
        // SAFETY: NULL or a struct of the size it says by this function's contract.
        let handler = unsafe { read_handler(handler) }?;
        let id = connect(event_loop, address, &options, handler, context, token)?;
        if !out.is_null() {
            // SAFETY: not NULL, and so a pointer's place by this function's contract.
            unsafe { out.write(handle_of(id)) };
        }
        Ok(0)
    })
}

fn connect(
    event_loop: &mut LoopRef<'_>,
    address: &str,
    options: &ConnectOptions,
    handler: Option<omni_handler>,
    context: *mut c_void,
    token: u64,
) -> Result<u64, Failure> {
    let handlers = loop_table::handlers_of(event_loop).ok_or(Failure::of(libc::ESTALE))?;
    match &handlers.callee {
        Callee::Nobody if handler.is_some() || !context.is_null() => return Err(calls_nothing()),
        Callee::Server if handler.is_some() => {
            let words = "connections of a server's loop are served by the server's handler";
            return Err(Failure::new(libc::EINVAL, words));
        }
        _ => {}
    }
    let id = event_loop.connect(address, options, token)?;
    handlers.add_pending(id, Pending { handler: handler.map(|handler| handlers.share(handler)), context });
    Ok(id.number())
}
