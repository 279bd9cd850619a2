//! `omni_server` and the functions that take one.

use std::ffi::{c_char, c_int, c_void};
use std::os::fd::IntoRawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Once};
use std::time::Duration;

use omnipoll::{Server, ServerHandle, ServerOptions};

use crate::conn::bytes;
use crate::error::{answer, guarded, Failure};
use crate::handle::{call_quietly, usable, Table, SERVER};
use crate::handler::{omni_handler, Callbacks};
use crate::options::omni_server_options;
use crate::sized;
use crate::text::{self, capped};

/// A server: addresses, a handler, and a way to serve many clients.
///
/// The pointer is a handle, as that of an omni_poller is: a server freed already, freed twice or
/// never made is -ESTALE instead of undefined behaviour.
#[allow(non_camel_case_types)]
pub struct omni_server(());

/// A server and its handle to the outside.
pub(crate) struct Serving {
    server: Server<Callbacks>,
    pub(crate) handle: ServerHandle,
}

const MOST_SERVERS: usize = 1024;

/// `omni_server_run` holds the server by itself and is no user of its slot: a child that it forks
/// has forgotten its parent's users.
static SERVERS: Table<Arc<Serving>, SERVER, MOST_SERVERS> = Table::new();

/// Runs one call on a server and gives C its answer. A panic ends here, and the server's use
/// with it.
pub(crate) fn call(
    function: &str,
    server: *const omni_server,
    body: impl FnOnce(&Arc<Serving>) -> Result<c_int, Failure>,
) -> c_int {
    let entry = match usable(server.addr(), SERVERS.enter(server.addr())) {
        Ok(entry) => entry,
        Err(errno) => return answer(function, Err(Failure::of(errno))),
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| body(&entry))).unwrap_or_else(|panic| {
        entry.poison();
        Err(Failure::panicked(panic))
    });
    answer(function, outcome)
}

/// Makes a server and stores its handle in `*out`. It serves nobody before `omni_server_listen`
/// and `omni_server_run`.
///
/// `options` may be NULL, which is one loop on the best engine. Both structs are copied. The
/// caller owns the server and ends it with `omni_server_free`. `*out` is written only on success.
///
/// Returns 0, or:
///   -EINVAL: `handler` or `out` is NULL; a struct's size is not set; an unknown model, engine or
///       flag; `reserved` is not 0; `low_water` above `high_water`; with OMNI_ENGINE_AUTO,
///       `OMNIPOLL_ENGINE` names no engine.
///   -E2BIG: a struct is a newer version's and asks for something that this version does not have.
///   -ENOSYS: the engine is not available here; or pointers have 32 bits here, which an omni_conn
///       does not fit.
///   -EMFILE, -ENFILE: too many open files in the process, in the system; -EMFILE also when the
///       process has 1,024 servers.
///   -ENOMEM: not enough memory.
///
/// May be called from any thread. System calls: those of `omni_poller_new`, and mmap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_server_new(
    options: *const omni_server_options,
    handler: *const omni_handler,
    out: *mut *mut omni_server,
) -> c_int {
    let make = || {
        if usize::BITS < u64::BITS {
            return Err(Failure::new(libc::ENOSYS, "a connection's id does not fit this machine's pointers"));
        }
        if handler.is_null() || out.is_null() {
            return Err(Failure::new(libc::EINVAL, "handler or out is NULL"));
        }
        let options = match options.is_null() {
            true => ServerOptions::new(),
            // SAFETY: not NULL, and so a struct of the size it says by this function's contract.
            false => unsafe { sized::read(options) }?.translate()?,
        };
        // SAFETY: as above.
        let handler = unsafe { sized::read(handler) }?;
        let handle = insert(Server::with_options(Callbacks(handler), options)?)?;
        // SAFETY: not NULL, and so a pointer's place by this function's contract.
        unsafe { out.write(handle) };
        Ok(0)
    };
    answer("omni_server_new", guarded(make))
}

fn insert(server: Server<Callbacks>) -> Result<*mut omni_server, Failure> {
    static WATCH_FORKS: Once = Once::new();
    extern "C" fn in_child() {
        SERVERS.after_fork();
    }
    WATCH_FORKS.call_once(|| {
        // SAFETY: as in poller.rs.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });

    let handle = server.handle();
    let handle = SERVERS
        .insert(Arc::new(Serving { server, handle }))
        .map_err(|errno| Failure::full(errno, "the process has 1,024 servers"))?;
    Ok(std::ptr::without_provenance_mut(handle))
}

/// Listens on an address; several calls add up. Clients wait in the socket's queue until
/// `omni_server_run`.
///
/// "127.0.0.1:8080", "[::1]:8080", "localhost:8080" (every address that the name has), ":8080" or
/// "*:8080" (every address of this machine, IPv6 and IPv4), "unix:/path", "unix:@abstract", "fd:3" (a
/// socket that was inherited, which listens or is for datagrams), "systemd" (all that systemd has
/// passed), "udp:127.0.0.1:53" (datagrams). With port 0 the system chooses one, which
/// `omni_server_address` returns.
///
/// Returns 0, or:
///   -EINVAL: `server` or `address` is NULL; the address is none; the server runs, or has run.
///   -EADDRINUSE, -EADDRNOTAVAIL, -EACCES: as bind(2) says; -ENOENT: there is no such directory.
///   -EBADF, -ENOTSOCK: a descriptor of "fd:" or "systemd" is not open, is no socket; -EINVAL: neither
///       listens nor is for datagrams, or systemd has passed none.
///   -ENOTSUP: datagrams under OMNI_MODEL_THREAD and OMNI_MODEL_FORK: a datagram belongs to no
///       client.
///   -EMFILE, -ENFILE, -ENOMEM: as for `omni_server_new`.
///   -EOWNERDEAD: the server was made before this process was forked.
///   -ESTALE, -ENOTRECOVERABLE: as for `omni_server_stats`.
///
/// May be called from any thread. System calls: socket, setsockopt, bind, listen, getsockname.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_server_listen(server: *mut omni_server, address: *const c_char) -> c_int {
    call("omni_server_listen", server, |serving| {
        // SAFETY: NULL or a text by this function's contract.
        serving.server.listen(unsafe { text::taken(address, "address is NULL") }?)?;
        Ok(0)
    })
}

/// Writes the addresses that the server listens on, with their real ports, in the order of the
/// calls of `omni_server_listen`, separated by a space. Works like snprintf(3), as `omni_poller_dump`
/// does.
///
/// Returns the length of the whole text without the zero, whether there was room for it or not;
/// or:
///   -EINVAL: `server` is NULL; `buffer` is NULL and `capacity` is not 0.
///   -ESTALE, -ENOTRECOVERABLE: as for `omni_server_stats`.
///
/// May be called from any thread. Makes no system call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_server_address(
    server: *const omni_server,
    buffer: *mut c_char,
    capacity: usize,
) -> c_int {
    call("omni_server_address", server, |serving| {
        // SAFETY: as this function's contract says.
        unsafe { text::give(&serving.handle.addresses().join(" "), buffer, capacity) }
    })
}

/// Serves until the server is stopped and every client has gone. A server runs once.
///
/// Under OMNI_MODEL_FORK and OMNI_MODEL_PREFORK call it while the process has no other threads: a
/// forked child has only the one that forked, and a lock that another held stays locked in it.
/// It returns in the process that called it only; the children end by themselves.
///
/// Returns 0, or:
///   -EINVAL: `server` is NULL; it has run before.
///   -EOWNERDEAD: the server was made before this process was forked: make it here. Or a callback
///       has forked this process, which has returned from it.
///   -EMFILE, -ENFILE, -ENOMEM, -EAGAIN: the system has no descriptors, memory or threads for the
///       loops.
///   -ESTALE: the server was freed, before or while it ran.
///   -ENOTRECOVERABLE: a bug in the library has left the server unusable: free it.
///
/// May be called from any thread. System calls: those of a wait, and accept4, recv, send, sendmsg
/// and close for the clients.
#[unsafe(no_mangle)]
pub extern "C" fn omni_server_run(server: *mut omni_server) -> c_int {
    let mut held = None;
    let found = call("omni_server_run", server, |serving| {
        held = Some(serving.clone());
        Ok(0)
    });
    let Some(serving) = held else { return found };
    let served = catch_unwind(AssertUnwindSafe(|| serving.server.run()));
    call("omni_server_run", server, |_| {
        served.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(0)
    })
}

/// Stops the server: no new clients, while those that are served have `drain_ns` nanoseconds to
/// finish (negative: as long as they like; 0: no time) before their connections are reset. It
/// counts if it comes before `omni_server_run`, too; a second call sets a new limit. In a
/// process that the server has forked, it ends that process's serving only.
///
/// Returns 0, or:
///   -EINVAL: `server` is NULL.
///   -EOWNERDEAD: the program has forked this process, which is none of the server's.
///   -ESTALE, -ENOTRECOVERABLE: as for `omni_server_stats`.
///
/// May be called from any thread; in the process that made the server from a signal handler as
/// well: it takes no lock, allocates nothing, and leaves errno and `omni_last_error` as they are.
/// System calls: a write to an eventfd.
#[unsafe(no_mangle)]
pub extern "C" fn omni_server_stop(server: *mut omni_server, drain_ns: i64) -> c_int {
    let drain = u64::try_from(drain_ns).ok().map(Duration::from_nanos);
    call_quietly(&SERVERS, server.addr(), |server| server.handle.stop(drain))
}

/// Ends a server. One that runs is stopped without time to drain: its connections are reset,
/// `on_close` is called for each with -ECANCELED, and `omni_server_run` returns -ESTALE; the
/// handler's functions and context stay in use until then. With NULL, or a server freed already,
/// it does nothing.
///
/// May be called from any thread, and from a callback. System calls: a write to an eventfd, close,
/// munmap.
#[unsafe(no_mangle)]
pub extern "C" fn omni_server_free(server: *mut omni_server) {
    if server.is_null() {
        return;
    }
    match SERVERS.enter(server.addr()) {
        Some(entry) if entry.close() => {
            let _ = catch_unwind(AssertUnwindSafe(|| entry.handle.stop(Some(Duration::ZERO))));
        }
        _ => {
            answer("omni_server_free", Err(Failure::of(libc::ESTALE)));
        }
    }
}

/// Has `length` bytes written to every connection that has room for them. They are copied once.
/// Those without room are counted in `writes_refused`.
///
/// Returns to how many connections, or:
///   -ENOTSUP: under OMNI_MODEL_FORK and OMNI_MODEL_PREFORK, whose processes don't reach each
///       other's clients.
///   -EINVAL: `server` is NULL; `data` is NULL and `length` is not 0.
///   -EOWNERDEAD: the server was made before this process was forked.
///   -ESTALE, -ENOTRECOVERABLE: as for `omni_server_stats`.
///
/// May be called from any thread. System calls: a write to an eventfd for each loop.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_server_broadcast(
    server: *mut omni_server,
    data: *const c_void,
    length: usize,
) -> c_int {
    call("omni_server_broadcast", server, |serving| {
        // SAFETY: as this function's contract says.
        let data = unsafe { bytes(data, length) }?;
        Ok(capped(serving.handle.broadcast(data)?))
    })
}

/// Duplicates the socket at one of the server's addresses, from number 0 on in their order: to set an
/// option, or for a new process that takes over without a moment in which nobody listens. Give that one
/// the descriptors from 3 on and their number in `LISTEN_FDS`, let it listen on "systemd", and stop this
/// server when it serves. Nothing else changes: see `omni_server_keep_files`.
///
/// Returns the descriptor, which is the caller's to close and does not survive an exec (unless
/// dup2(2) gives it its new number), or:
///   -ENOENT: there is none of that number; after a stop, and in a process that the server has forked,
///       there is none at all.
///   -EMFILE, -ENFILE: too many open files.
///   -EBUSY: in a forked child, if another thread of its parent was changing the server at the very
///       moment of the fork.
///   -EINVAL: `server` is NULL.
///   -ESTALE, -ENOTRECOVERABLE: as for `omni_server_stats`.
///
/// May be called from any thread. System calls: fcntl.
#[unsafe(no_mangle)]
pub extern "C" fn omni_server_dup_listener(server: *const omni_server, number: u32) -> c_int {
    call("omni_server_dup_listener", server, |serving| {
        Ok(serving.handle.dup_listener(number as usize)?.into_raw_fd())
    })
}

/// Leaves the files of the server's unix sockets where they are when it stops: they lead to another
/// process, which has duplicates of the sockets.
///
/// Returns 0, or:
///   -EINVAL: `server` is NULL.
///   -ESTALE, -ENOTRECOVERABLE: as for `omni_server_stats`.
///
/// May be called from any thread. Makes no system call.
#[unsafe(no_mangle)]
pub extern "C" fn omni_server_keep_files(server: *mut omni_server) -> c_int {
    call("omni_server_keep_files", server, |serving| {
        serving.handle.keep_files();
        Ok(0)
    })
}

/// The engine of the server's loops: never OMNI_ENGINE_AUTO.
///
/// Returns 0 when there is none to tell: the server is NULL, stale or unusable, as
/// `omni_last_error` says. May be called from any thread. Makes no system call.
#[unsafe(no_mangle)]
pub extern "C" fn omni_server_engine(server: *const omni_server) -> u32 {
    let number = call("omni_server_engine", server, |serving| Ok(serving.handle.engine() as c_int));
    number.try_into().unwrap_or(0)
}

/// The model that the server serves by.
///
/// Returns 0 when there is none to tell, as `omni_server_engine`. May be called from any thread.
/// Makes no system call.
#[unsafe(no_mangle)]
pub extern "C" fn omni_server_model(server: *const omni_server) -> u32 {
    let number = call("omni_server_model", server, |serving| Ok(serving.handle.model() as c_int));
    number.try_into().unwrap_or(0)
}
