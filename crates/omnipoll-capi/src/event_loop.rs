//! `omni_loop` and the functions that take one.

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Duration;

use omnipoll::{ConnId, EventLoop, LoopEvent, LoopHandle, LoopOptions, LoopRef, PulledLoop};

use crate::buffer::{read_bytes, read_str, to_count, write_str};
use crate::conn::read_name;
use crate::conn_call::conn_id;
use crate::error::{catch_panic, to_c_result, Failure};
use crate::handler::omni_handler;
use crate::kept_handlers::{Callee, LoopCallbacks};
use crate::loop_event::omni_loop_event;
use crate::loop_options::omni_loop_options;
use crate::loop_table::{self, call, call_here, call_shared, handlers_of, Face};
use crate::sized;
use crate::types::{omni_conn, omni_loop, omni_poller};

/// cbindgen:postfix=OMNI_NONNULL(3)
/// Makes a loop and stores its handle in `*out`. It belongs to the calling thread, which runs it or
/// waits on it, and ends it with `omni_loop_free`.
///
/// With a handler, the loop calls it: see `omni_loop_run`. It is the one for connections of
/// `omni_loop_listen` and `omni_loop_connect` that are given no other, and its `on_event` is called
/// for what the program adds to the loop's poller. With `handler` NULL the loop is pulled: it returns
/// what happens as events and calls nothing, see `omni_loop_wait`.
///
/// `options` may be NULL, for the best engine and the defaults. Both structs are copied. `*out` is
/// written only on success.
///
/// Returns 0, or:
///   -EINVAL: a struct's size is not set; an unknown engine or flag; `reserved` is not 0; `low_water`
///       above `high_water`; with OMNI_ENGINE_AUTO, `OMNIPOLL_ENGINE` names no engine.
///   -E2BIG: a struct is a newer version's and asks for something that this version doesn't have.
///   -ENOSYS: the engine is not available here; or pointers have 32 bits here, too few for an
///       omni_conn.
///   -EMFILE, -ENFILE: too many open files in the process, in the system; -EMFILE also when the
///       process has 65,536 loops.
///
/// System calls: those of `omni_poller_new`, and mmap. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_loop_new(
    options: *const omni_loop_options,
    handler: *const omni_handler,
    out: *mut *mut omni_loop,
) -> c_int {
    let make = || {
        if usize::BITS < u64::BITS {
            return Err(Failure::new(libc::ENOSYS, "a connection's id does not fit this machine's pointers"));
        }
        if out.is_null() {
            return Err(Failure::new(libc::EINVAL, "out is NULL"));
        }
        let (options, is_interruptible) = match options.is_null() {
            true => (LoopOptions::new(), false),
            false => {
                // SAFETY: not NULL, and so a struct of the size it says by this function's contract.
                let options = unsafe { sized::read(options) }?;
                (options.translate()?, options.is_interruptible())
            }
        };
        // SAFETY: as above.
        let face = match unsafe { read_handler(handler) }? {
            Some(handler) => {
                let callbacks = LoopCallbacks::new(handler, is_interruptible);
                Face::ByHandler(EventLoop::with_options(callbacks, options)?)
            }
            None => Face::Pulled(PulledLoop::with_options(options)?),
        };
        let handle = loop_table::insert(face)?;
        // SAFETY: not NULL, and so a pointer's place by this function's contract.
        unsafe { out.write(handle) };
        Ok(0)
    };
    to_c_result("omni_loop_new", catch_panic(make))
}

/// # Safety
/// `handler` is NULL, or the struct has as many bytes as its first member says.
pub(crate) unsafe fn read_handler(handler: *const omni_handler) -> Result<Option<omni_handler>, Failure> {
    // SAFETY: the caller's promise.
    (!handler.is_null()).then(|| unsafe { omni_handler::read(handler) }).transpose()
}

/// Ends a loop. Its connections are reset, `on_close` is called for each with -ECANCELED, and its
/// sockets are closed; the handle of its poller is stale from then on. In a callback of the loop
/// that happens when the call that runs it returns, with -ESTALE. Does nothing with NULL or a loop
/// that was freed already, nor, as `omni_last_error` says, in another thread than the one that has made
/// it, or with a loop of a server's.
///
/// In a forked child it frees the child's copy, without any call of the handler; the parent's stays
/// as it is. System calls: close, munmap. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_loop_free(event_loop: *mut omni_loop) {
    if !event_loop.is_null() {
        to_c_result("omni_loop_free", loop_table::free(event_loop.addr()).map(|()| 0));
    }
}

/// cbindgen:postfix=OMNI_NONNULL(1,2)
/// Listens on an address; several calls add up. Connections that are accepted there begin with this
/// token, and are served by this handler, which is copied. NULL: by the one of `omni_loop_new`; it must
/// be NULL where the loop is pulled.
///
/// Addresses are those of `omni_server_listen`. With port 0 the system chooses one, which
/// `omni_loop_address` returns. Called before the loop runs, in between, or in a callback of it, after
/// which the first connection is accepted.
///
/// Returns 0, or:
///   -EINVAL: this is no address; the loop was stopped; the descriptor of "fd:" or "systemd" neither
///       listens nor is for datagrams; systemd has passed none; the handler's size is not set; a
///       handler for a loop that is pulled.
///   -EADDRINUSE, -EADDRNOTAVAIL, -EACCES, -ENOENT, -EBADF, -ENOTSOCK, -EMFILE, -ENFILE: as for
///       `omni_server_listen`.
///   -EPERM: this is not the thread that has made the loop, or it is a server's.
///   -EBUSY: a callback of the loop runs another loop, and this is a callback of that.
///
/// System calls: socket, setsockopt, bind, listen, getsockname. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_loop_listen(
    event_loop: *mut omni_loop,
    address: *const c_char,
    handler: *const omni_handler,
    token: u64,
) -> c_int {
    call_here("omni_loop_listen", event_loop, |event_loop| {
        // SAFETY: NULL or a text by this function's contract.
        let address = unsafe { read_str(address, "address is NULL") }?;
        // SAFETY: NULL or a struct of the size it says by this function's contract.
        let handler = unsafe { read_handler(handler) }?;
        let handlers = handlers_of(event_loop).ok_or(Failure::of(libc::ESTALE))?;
        let opened = match &handlers.callee {
            Callee::Nobody if handler.is_some() => return Err(calls_nothing()),
            Callee::Nobody | Callee::Server => event_loop.listen(address, token)?,
            Callee::Handlers(listeners) => {
                let handler = handler.map(|handler| handlers.share(handler));
                listeners.add(handler, token, |token| event_loop.listen(address, token))?
            }
        };
        handlers.addresses.borrow_mut().push(opened);
        Ok(0)
    })
}

pub(crate) fn calls_nothing() -> Failure {
    Failure::new(libc::EINVAL, "the loop is pulled, and calls no handler")
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Writes the addresses that the loop listens on, with their actual ports, in the order of the calls
/// of `omni_loop_listen`, separated by spaces. Works like snprintf(3), as `omni_poller_dump` does.
///
/// Returns the length of the whole text without the zero, or:
///   -EBUSY, -EPERM: as for `omni_loop_listen`.
///
/// System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_loop_address(
    event_loop: *const omni_loop,
    buffer: *mut c_char,
    capacity: usize,
) -> c_int {
    call_here("omni_loop_address", event_loop, |event_loop| {
        let handlers = handlers_of(event_loop).ok_or(Failure::of(libc::ESTALE))?;
        if matches!(handlers.callee, Callee::Server) {
            return Err(loop_table::of_server());
        }
        // SAFETY: as this function's contract says.
        unsafe { write_str(&handlers.addresses.borrow().join(" "), buffer, capacity) }
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Runs a loop that has a handler, until it is stopped and every connection has ended. An error of the
/// wait is returned at once, and the loop can go on after it.
///
/// Returns 0, or:
///   -EINVAL: the loop is pulled.
///   -EINTR: a signal was handled, under OMNI_INTERRUPTIBLE.
///   -EOWNERDEAD: a callback has forked this process, and returned in it.
///   -EBUSY: this is a callback of the loop.
///   -EPERM: as for `omni_loop_listen`.
///   -ESTALE: the loop was freed, before or while it ran.
///   -ENOMEM, -EMFILE, -EBADF: as for `omni_poller_wait`.
///
/// System calls: those of a wait, and accept4, recv, send, sendmsg and close for the connections.
/// Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn omni_loop_run(event_loop: *mut omni_loop) -> c_int {
    call("omni_loop_run", event_loop, |_, face| {
        by_handler(face)?.run()?;
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Waits once on a loop that has a handler, for at most `timeout_ns` nanoseconds (negative:
/// indefinitely; 0: returns at once), and hands it what has come. Returns after every wait, also when
/// what came was the loop's own business.
///
/// Returns 1, 0 when the loop was stopped and every connection has ended, or an error as
/// `omni_loop_run`. System calls: those of `omni_loop_run`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn omni_loop_run_once(event_loop: *mut omni_loop, timeout_ns: i64) -> c_int {
    call("omni_loop_run_once", event_loop, |_, face| {
        Ok(by_handler(face)?.run_once(time_limit(timeout_ns))?.into())
    })
}

fn by_handler(face: &mut Face) -> Result<&mut EventLoop<LoopCallbacks>, Failure> {
    match face {
        Face::ByHandler(event_loop) => Ok(event_loop),
        Face::Pulled(_) => Err(Failure::new(libc::EINVAL, "the loop is pulled: omni_loop_wait is its call")),
    }
}

pub(crate) fn pulled(face: &mut Face) -> Result<&mut PulledLoop, Failure> {
    match face {
        Face::Pulled(pulled) => Ok(pulled),
        Face::ByHandler(_) => {
            Err(Failure::new(libc::EINVAL, "the loop has a handler: omni_loop_run is its call"))
        }
    }
}

/// None when it is negative.
pub(crate) fn time_limit(nanoseconds: i64) -> Option<Duration> {
    u64::try_from(nanoseconds).ok().map(Duration::from_nanos)
}

/// cbindgen:postfix=OMNI_NONNULL(1,2)
/// Waits on a loop that is pulled until something has happened, for at most `timeout_ns` nanoseconds
/// (negative: indefinitely; 0: looks and returns), and stores events in `events`, which has room for
/// `capacity` of them. What doesn't fit is returned by the next call, at once.
///
/// The bytes of the events lie in the loop's buffer (`omni_loop_buffer`) until the next call. When it
/// is full, what arrives stays unread until then.
///
/// Returns the number of events, or 0 when the time is up, and also when the loop was stopped and every
/// connection has ended; or:
///   -EINVAL: `capacity` is 0; the loop has a handler.
///   -EINTR: a signal was handled, under OMNI_INTERRUPTIBLE.
///   -EPERM: as for `omni_loop_listen`.
///   -ENOMEM, -EMFILE, -EBADF: as for `omni_poller_wait`.
///
/// System calls: those of `omni_loop_run`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_loop_wait(
    event_loop: *mut omni_loop,
    events: *mut omni_loop_event,
    capacity: u32,
    timeout_ns: i64,
) -> c_int {
    call("omni_loop_wait", event_loop, |_, face| {
        let pulled = pulled(face)?;
        if events.is_null() {
            return Err(Failure::new(libc::EINVAL, "events is NULL"));
        }
        let room = (c_int::MAX as usize).min(capacity as usize);
        // SAFETY: room for `capacity` events by this function's contract, initialised or not.
        let events = unsafe { std::slice::from_raw_parts_mut(events.cast::<MaybeUninit<LoopEvent>>(), room) };
        Ok(to_count(pulled.wait_into(events, time_limit(timeout_ns))?))
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1,2)
/// Where the bytes of the events of `omni_loop_wait` lie: stores the address of the loop's buffer in
/// `*start`, and its size in `*size` unless that is NULL. Both stay the same until the loop is freed, so
/// that a program asks once; the content is the library's, and changes with each wait.
///
/// Returns 0, or:
///   -EINVAL: the loop has a handler.
///   -EPERM: as for `omni_loop_listen`.
///
/// System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_loop_buffer(
    event_loop: *mut omni_loop,
    start: *mut *const u8,
    size: *mut usize,
) -> c_int {
    call("omni_loop_buffer", event_loop, |_, face| {
        if start.is_null() {
            return Err(Failure::new(libc::EINVAL, "start is NULL"));
        }
        let (place, length) = pulled(face)?.buffer();
        // SAFETY: not NULL, and so places for them by this function's contract.
        unsafe {
            start.write(place);
            if !size.is_null() {
                size.write(length);
            }
        }
        Ok(0)
    })
}

/// One write of `omni_loop_write`.
#[allow(non_camel_case_types)]
#[repr(C)]
pub struct omni_write {
    /// The connection.
    pub conn: *mut omni_conn,
    /// The bytes.
    pub data: *const c_void,
    /// How many there are.
    pub length: usize,
    /// Set by the call: what `omni_conn_write` returns.
    pub result: c_int,
    /// Not used.
    pub reserved: u32,
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Makes several writes by one call, in their order: `omni_conn_write` for each of the `count` elements of
/// `writes`, which has the result. For languages in which a call is expensive.
///
/// Returns how many of them have not failed, or:
///   -EINVAL: `writes` is NULL and `count` is not 0.
///   -EBUSY, -EPERM: as for `omni_loop_listen`; a callback of the loop may call it.
///
/// System calls: a send for each connection. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_loop_write(
    event_loop: *mut omni_loop,
    writes: *mut omni_write,
    count: u32,
) -> c_int {
    call_here("omni_loop_write", event_loop, |event_loop| {
        if writes.is_null() && count > 0 {
            return Err(Failure::new(libc::EINVAL, "writes is NULL"));
        }
        let mut taken = 0;
        for index in 0..count as usize {
            // SAFETY: `count` elements by this function's contract.
            let write = unsafe { &mut *writes.add(index) };
            // SAFETY: as many bytes as it says by this function's contract.
            let written = unsafe { read_bytes(write.data, write.length) }
                .and_then(|data| Ok(write_here(event_loop, write.conn, data)?));
            write.result = to_c_result("omni_loop_write", written.map(to_count));
            taken += c_int::from(write.result >= 0);
        }
        Ok(taken)
    })
}

fn write_here(event_loop: &mut LoopRef<'_>, conn: *mut omni_conn, data: &[u8]) -> io::Result<usize> {
    let id = ConnId::from_number(conn.addr() as u64);
    match event_loop.reborrow().find(id) {
        Some(mut conn) => conn.write(data),
        None => id.write(data),
    }
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// A descriptor for an outer loop: of GLib, Qt, libuv or another library. It is readable while there is
/// something to do, be it of connections, or of what the loop's poller waits for: timers, wakes and posts
/// too. Whenever it is, call `omni_loop_run_once` or `omni_loop_wait` with a timeout of 0, once or more
/// often: it stays readable until nothing is left. It is readable at first, and at times for nothing.
///
/// It is the loop's: never read or close it. It is the same at each call, and closed by
/// `omni_loop_free`.
///
/// Returns the descriptor, or:
///   -ENOTSUP: on select and poll, whose sets are not the kernel's.
///   -EMFILE, -ENFILE: too many open files in the process, in the system.
///   -EBUSY, -EPERM: as for `omni_loop_run`.
///
/// System calls: timerfd_create, and on io_uring eventfd2 and io_uring_register, at the first call.
/// Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn omni_loop_descriptor(event_loop: *mut omni_loop) -> c_int {
    call("omni_loop_descriptor", event_loop, |_, face| {
        Ok(match face {
            Face::ByHandler(event_loop) => event_loop.descriptor()?.as_raw_fd(),
            Face::Pulled(pulled) => pulled.descriptor()?.as_raw_fd(),
        })
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Writes `length` bytes to every connection of the loop that has room for them, outgoing ones too:
/// `omni_server_broadcast` for one loop.
///
/// Returns the number of connections written to, or:
///   -EPERM: the loop is a server's: see `omni_server_broadcast`.
///
/// May be called anywhere. System calls: a write to an eventfd. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_loop_broadcast(
    event_loop: *mut omni_loop,
    data: *const c_void,
    length: usize,
) -> c_int {
    call_handle("omni_loop_broadcast", event_loop, |handle| {
        // SAFETY: as this function's contract says.
        Ok(handle.broadcast(unsafe { read_bytes(data, length) }?)?)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// `omni_loop_broadcast` to every connection but one, as `omni_server_broadcast_except`.
///
/// Returns as `omni_loop_broadcast`. May be called anywhere. System calls: as for it. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_loop_broadcast_except(
    event_loop: *mut omni_loop,
    data: *const c_void,
    length: usize,
    except: *const omni_conn,
) -> c_int {
    call_handle("omni_loop_broadcast_except", event_loop, |handle| {
        // SAFETY: as this function's contract says.
        let data = unsafe { read_bytes(data, length) }?;
        Ok(handle.broadcast_except(data, conn_id(except))?)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// `omni_loop_broadcast` to the members of a group, as `omni_server_broadcast_group`. The groups of one loop
/// have nothing to do with those of another.
///
/// Returns as `omni_loop_broadcast`, or:
///   -EINVAL: `group` is NULL, or not the name of a group.
///
/// May be called anywhere. System calls: as for it. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_loop_broadcast_group(
    event_loop: *mut omni_loop,
    group: *const c_char,
    data: *const c_void,
    length: usize,
    except: *const omni_conn,
) -> c_int {
    call_handle("omni_loop_broadcast_group", event_loop, |handle| {
        // SAFETY: as this function's contract says.
        let (group, data) = unsafe { (read_name(group)?, read_bytes(data, length)?) };
        let except = (!except.is_null()).then(|| conn_id(except));
        Ok(handle.broadcast_to(group, data, except)?)
    })
}

/// Runs a broadcast on a loop of the program's.
fn call_handle(
    function: &str,
    event_loop: *const omni_loop,
    broadcast: impl FnOnce(&LoopHandle) -> Result<usize, Failure>,
) -> c_int {
    call_shared(function, event_loop, |shared| match shared.handle() {
        Some(handle) => Ok(to_count(broadcast(handle)?)),
        None => Err(Failure::new(libc::EPERM, "the loop is a server's: broadcast on the server")),
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Stops a loop: it accepts no more, `on_stop` is called for each connection (OMNI_EVENT_STOPPING),
/// and those that are left after `drain_ns` nanoseconds are reset (negative: no limit; 0: no time).
/// `omni_loop_run` returns when the last has ended; so does `omni_loop_wait`, with 0. A second call sets
/// a new limit.
///
/// Returns 0, or:
///   -EPERM: the loop is a server's: `omni_server_stop` stops that.
///
/// May be called from any thread, and from a signal handler: it takes no lock, allocates nothing, and
/// leaves errno and `omni_last_error` as they are. System calls: a write to an eventfd. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_loop_stop(event_loop: *mut omni_loop, drain_ns: i64) -> c_int {
    loop_table::stop(event_loop, drain_ns)
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// The poller that the loop waits on, for the program's own timers, descriptors, signals, children and
/// posts. Their events come to `on_event`, or are returned by `omni_loop_wait`, with the tokens that
/// they were given; tokens from 0xffffffff80000000 on are the loop's: -EINVAL. Waiting on it, taking it
/// over after a fork and freeing it are the loop's: -EPERM. A wake has no event: post.
///
/// NULL on an error, which `omni_last_error` describes. The handle is stale when the loop is freed, or
/// its server's worker has ended. May be called from any thread, as may the poller's functions. System
/// calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_loop_poller(event_loop: *const omni_loop) -> *mut omni_poller {
    let mut poller = ptr::null_mut();
    call_shared("omni_loop_poller", event_loop, |shared| {
        poller = ptr::without_provenance_mut(shared.poller);
        Ok(0)
    });
    poller
}
