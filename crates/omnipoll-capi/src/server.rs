//! `omni_server` and the functions that take one.

use std::ffi::{c_char, c_int, c_void};
use std::os::fd::IntoRawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Once};
use std::time::Duration;

use omnipoll::{Server, ServerHandle, ServerOptions, StartedServer};

use crate::buffer::{read_bytes, read_str, to_count, write_str};
use crate::conn::read_name;
use crate::conn_call::conn_id;
use crate::datagram_socket::socket_of;
use crate::error::{catch_panic, to_c_result, Failure};
use crate::handle::{call_signal_safe, checked, Table, SERVER};
use crate::handler::omni_handler;
use crate::options::omni_server_options;
use crate::server_handler::Callbacks;
use crate::sized;
use crate::started_servers;
use crate::types::{omni_conn, omni_datagram_socket, omni_server};

/// A server and its handle to the outside.
pub(crate) struct Serving {
    server: Server<Callbacks>,
    pub(crate) handle: ServerHandle,
}

const MAX_SERVERS: usize = 1024;

impl Serving {
    pub(crate) fn start(&self) -> std::io::Result<StartedServer<Callbacks>> {
        self.server.start()
    }
}

/// `omni_server_run` holds the server by itself and is no user of its slot: a child that it forks
/// has forgotten its parent's users.
pub(crate) static SERVERS: Table<Arc<Serving>, SERVER, MAX_SERVERS> = Table::new();

/// Runs one call on a server and gives C its answer. A panic ends here, and the server's use
/// with it.
pub(crate) fn call(
    function: &str,
    server: *const omni_server,
    body: impl FnOnce(&Arc<Serving>) -> Result<c_int, Failure>,
) -> c_int {
    let entry = match checked(server.addr(), SERVERS.enter(server.addr())) {
        Ok(entry) => entry,
        Err(errno) => return to_c_result(function, Err(Failure::of(errno))),
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| body(&entry))).unwrap_or_else(|panic| {
        entry.poison();
        Err(Failure::panicked(panic))
    });
    to_c_result(function, outcome)
}

/// cbindgen:postfix=OMNI_NONNULL(2,3)
/// Makes a server and stores its handle in `*out`. It serves after `omni_server_listen` and
/// `omni_server_run`.
///
/// `options` may be NULL, for one loop on the best engine. Both structs are copied. The caller owns
/// the server and ends it with `omni_server_free`. `*out` is written only on success.
///
/// Returns 0, or:
///   -EINVAL: a struct's size is not set; an unknown model, engine or flag; `reserved` is not 0;
///       `low_water` above `high_water`; with OMNI_ENGINE_AUTO, `OMNIPOLL_ENGINE` names no
///       engine; with OMNI_SERVER_NOTIFY, `NOTIFY_SOCKET` or `WATCHDOG_USEC` makes no sense;
///       `restart` with OMNI_SERVER_REUSE_PORT.
///   -E2BIG: a struct is a newer version's and asks for something that this version doesn't have.
///   -ENOSYS: the engine is not available here; or pointers have 32 bits here, too few for an
///       omni_conn.
///   -EMFILE, -ENFILE: too many open files in the process, in the system; -EMFILE also when the
///       process has 1,024 servers.
///
/// System calls: those of `omni_poller_new`, and mmap. Since 0.1.
#[must_use]
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
            false => {
                // SAFETY: not NULL, and so a struct of the size it says by this function's contract.
                let options = unsafe { sized::read(options) }?;
                // SAFETY: as the structs' documentation says.
                unsafe { options.translate() }?
            }
        };
        // SAFETY: as above.
        let handler = unsafe { omni_handler::read(handler) }?;
        let handle = insert(Server::with_options(Callbacks(handler), options)?)?;
        // SAFETY: not NULL, and so a pointer's place by this function's contract.
        unsafe { out.write(handle) };
        Ok(0)
    };
    to_c_result("omni_server_new", catch_panic(make))
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

/// cbindgen:postfix=OMNI_NONNULL(1,2)
/// Listens on an address; several calls add up. Clients wait in the socket's queue until
/// `omni_server_run`.
///
/// "127.0.0.1:8080", "[::1]:8080", "localhost:8080" (every address of that name), ":8080" or
/// "*:8080" (every address of this machine, IPv6 and IPv4), "unix:/path", "unix:@abstract", "fd:3"
/// (an inherited socket, which listens or is for datagrams), "systemd" (all that systemd has
/// passed), "systemd:web" (those of that name, `FileDescriptorName=web`), "udp:127.0.0.1:53"
/// (datagrams). With port 0 the system chooses one, which `omni_server_address` returns.
///
/// Returns 0, or:
///   -EINVAL: this is no address; the server runs, or has run; the descriptor of "fd:" or
///       "systemd" neither listens nor is for datagrams; systemd has passed none, or none so named.
///   -EADDRINUSE, -EADDRNOTAVAIL, -EACCES, -ENOENT: as bind(2) says.
///   -EBADF, -ENOTSOCK: the descriptor of "fd:" or "systemd" is not open, or no socket.
///   -ENOTSUP: datagrams under OMNI_MODEL_THREAD and OMNI_MODEL_FORK: a datagram belongs to no
///       client.
///   -EMFILE, -ENFILE: too many open files in the process, in the system.
///
/// System calls: socket, setsockopt, bind, listen, getsockname. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_server_listen(server: *mut omni_server, address: *const c_char) -> c_int {
    call("omni_server_listen", server, |serving| {
        // SAFETY: NULL or a text by this function's contract.
        serving.server.listen(unsafe { read_str(address, "address is NULL") }?)?;
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Writes the addresses that the server listens on, with their actual ports, in the order of the
/// calls of `omni_server_listen`, separated by spaces. Works like snprintf(3), as
/// `omni_poller_dump` does.
///
/// Returns the length of the whole text without the zero, or an error. System calls: none. Since
/// 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_server_address(
    server: *const omni_server,
    buffer: *mut c_char,
    capacity: usize,
) -> c_int {
    call("omni_server_address", server, |serving| {
        // SAFETY: as this function's contract says.
        unsafe { write_str(&serving.handle.addresses().join(" "), buffer, capacity) }
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Serves until the server is stopped and every client has gone. A server runs once.
///
/// Under OMNI_MODEL_FORK and OMNI_MODEL_PREFORK call it while the process has no other threads: a
/// forked child has only the one that forked, and a lock that another held stays locked in it. It
/// returns only in the process that called it; the children end by themselves.
///
/// Returns 0, or:
///   -EINVAL: the server has run before.
///   -EOWNERDEAD: the server was made before this process was forked: make it here. Or a callback
///       has forked this process, and returned in it.
///   -EMFILE, -ENFILE, -EAGAIN: the system has no descriptors or threads for the loops.
///   -ESTALE: the server was freed, before or while it ran.
///
/// System calls: those of a wait, and accept4, recv, send, sendmsg and close for the clients. Since
/// 0.1.
#[must_use]
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

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Stops the server: it accepts no new clients, and those that are served have `drain_ns`
/// nanoseconds to finish before their connections are reset (negative: no limit; 0: no time). A
/// call before `omni_server_run` counts too, and a second call sets a new limit. In a process that
/// the server has forked, it ends only the serving of that process.
///
/// Returns 0 or an error. In the process that made the server it may be called from a signal
/// handler: it takes no lock, allocates nothing, and leaves errno and `omni_last_error` as they
/// are. System calls: a write to an eventfd. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_server_stop(server: *mut omni_server, drain_ns: i64) -> c_int {
    let drain = u64::try_from(drain_ns).ok().map(Duration::from_nanos);
    call_signal_safe(&SERVERS, server.addr(), |server| server.handle.stop(drain))
}

/// Ends a server. One that runs is stopped without time to drain: its connections are reset,
/// `on_close` is called for each with -ECANCELED, and `omni_server_run` returns -ESTALE; the
/// handler's functions and context stay in use until then. Does nothing with NULL or a server that
/// was freed already.
///
/// May be called from a callback. System calls: a write to an eventfd, close, munmap. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_server_free(server: *mut omni_server) {
    if server.is_null() {
        return;
    }
    match SERVERS.enter(server.addr()) {
        Some(entry) if entry.close() => {
            let _ = catch_unwind(AssertUnwindSafe(|| entry.handle.stop(Some(Duration::ZERO))));
            drop(entry);
            started_servers::forget(server.addr());
        }
        _ => {
            to_c_result("omni_server_free", Err(Failure::of(libc::ESTALE)));
        }
    }
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Writes `length` bytes to every connection that has room for them. They are copied once.
/// Connections without room are counted in `writes_refused`. Where more than `high_water` bytes
/// wait then, `on_drain` follows, as after `omni_conn_write`.
///
/// Returns the number of connections written to, or:
///   -ENOTSUP: under OMNI_MODEL_FORK and OMNI_MODEL_PREFORK, whose processes don't reach each
///       other's clients.
///
/// May be called anywhere. System calls: a write to an eventfd for each loop. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_server_broadcast(
    server: *mut omni_server,
    data: *const c_void,
    length: usize,
) -> c_int {
    call("omni_server_broadcast", server, |serving| {
        // SAFETY: as this function's contract says.
        let data = unsafe { read_bytes(data, length) }?;
        Ok(to_count(serving.handle.broadcast(data)?))
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// `omni_server_broadcast` to every connection but one, usually that which has sent the data. When
/// `except` is no connection of the server's, or no more, every one is written to.
///
/// Returns as `omni_server_broadcast`. May be called anywhere. System calls: as for it. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_server_broadcast_except(
    server: *mut omni_server,
    data: *const c_void,
    length: usize,
    except: *const omni_conn,
) -> c_int {
    call("omni_server_broadcast_except", server, |serving| {
        // SAFETY: as this function's contract says.
        let data = unsafe { read_bytes(data, length) }?;
        Ok(to_count(serving.handle.broadcast_except(data, conn_id(except))?))
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// `omni_server_broadcast` to the connections that have joined a group by `omni_conn_join`, but
/// one; NULL for `except`: to all of them. It takes as long as they are many, however many other
/// connections there are.
///
/// Returns as `omni_server_broadcast`, 0 for a group without members, or:
///   -EINVAL: `group` is NULL, or not the name of a group.
///
/// May be called anywhere. System calls: a write to an eventfd for each loop with members. Since
/// 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_server_broadcast_group(
    server: *mut omni_server,
    group: *const c_char,
    data: *const c_void,
    length: usize,
    except: *const omni_conn,
) -> c_int {
    call("omni_server_broadcast_group", server, |serving| {
        // SAFETY: as this function's contract says.
        let (group, data) = unsafe { (read_name(group)?, read_bytes(data, length)?) };
        let except = (!except.is_null()).then(|| conn_id(except));
        Ok(to_count(serving.handle.broadcast_to(group, data, except)?))
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// The sockets of its "udp:" addresses in their order, for one loop after another, because under
/// OMNI_MODEL_CORES and OMNI_MODEL_PREFORK each loop has a duplicate of each. Writes at most `capacity`
/// of them to `sockets`. None before the loops run and after a stop; under OMNI_MODEL_PREFORK each process
/// has its own.
///
/// Returns how many there are, or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_server_datagram_sockets(
    server: *const omni_server,
    sockets: *mut *mut omni_datagram_socket,
    capacity: u32,
) -> c_int {
    call("omni_server_datagram_sockets", server, |serving| {
        if sockets.is_null() && capacity > 0 {
            return Err(Failure::new(libc::EINVAL, "sockets is NULL"));
        }
        let ids = serving.handle.datagram_sockets();
        for (index, id) in ids.iter().take(capacity as usize).enumerate() {
            // SAFETY: `capacity` of them by this function's contract, of which this is one.
            unsafe { sockets.add(index).write(socket_of(*id)) };
        }
        Ok(to_count(ids.len()))
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Duplicates the socket of one of the server's addresses, counted from 0 in their order: to set an
/// option, or for a new process that takes over while one of both always listens. Pass to that
/// process the descriptors from 3 on and their number in `LISTEN_FDS`, let it listen on "systemd",
/// and stop this server when it serves. Nothing else changes: see `omni_server_keep_files`.
///
/// Returns the descriptor, which is the caller's to close and doesn't survive an exec (unless
/// dup2(2) gives it its new number), or:
///   -ENOENT: there is none of that number; after a stop, and in a process that the server has
///       forked, there is none at all.
///   -EMFILE, -ENFILE: too many open files in the process, in the system.
///
/// System calls: fcntl. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn omni_server_dup_listener(server: *const omni_server, number: u32) -> c_int {
    call("omni_server_dup_listener", server, |serving| {
        Ok(serving.handle.dup_listener(number as usize)?.into_raw_fd())
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Leaves the files of the server's Unix sockets in place when it stops, for another process that
/// has duplicates of the sockets.
///
/// Returns 0 or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_server_keep_files(server: *mut omni_server) -> c_int {
    call("omni_server_keep_files", server, |serving| {
        serving.handle.keep_files();
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Has a new process replace the server, as `restart` of its options says: no client is refused or lost over
/// it. With OMNI_SERVER_SIGNALS, SIGHUP does the same. The new process gets duplicates of all the sockets;
/// where it listens on the same address, by the same text, it has these. "systemd" is those that no other
/// address has taken by then; what is left when it begins to serve is closed.
///
/// This server serves until the workers of the new one have all begun to. Then it stops, with the `drain_ns`
/// of its options, and leaves the files of Unix sockets. If the new process can't be started, ends, or does
/// not serve in time, this one goes on as before; either is reported to `on_done`. The service manager is sent
/// `RELOADING=1` and, in the end, `READY=1`, of a new process with its `MAINPID`. A program with several
/// servers restarts one of them only.
///
/// Returns 0 at once, or:
///   -ENOTSUP: the options had no `restart`.
///   -EALREADY: a restart is in progress, or the server was replaced.
///   -EOWNERDEAD: in a process that the server, or the program, has forked.
///
/// May be called from a signal handler: it takes no lock, allocates nothing, and leaves errno and
/// `omni_last_error` as they are. System calls: a write to an eventfd; in the thread of `omni_server_run`
/// socketpair, posix_spawn, pidfd_open. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_server_restart(server: *mut omni_server) -> c_int {
    call_signal_safe(&SERVERS, server.addr(), |server| server.handle.restart())
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Replaces the workers of OMNI_MODEL_PREFORK, one after another: a new process serves before the old one stops
/// accepting, and the clients of that have the `drain_ns` of the options. A process that does not come to
/// serve is tried again later, and the old one goes on.
///
/// Returns 0 at once, or:
///   -ENOTSUP: under another model.
///   -EALREADY: it is in progress.
///   -EOWNERDEAD: in a process that the server, or the program, has forked.
///
/// May be called from a signal handler, as `omni_server_stop`. System calls: a write to an eventfd; in the
/// thread of `omni_server_run` fork. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_server_restart_workers(server: *mut omni_server) -> c_int {
    call_signal_safe(&SERVERS, server.addr(), |server| server.handle.restart_workers())
}

/// cbindgen:postfix=OMNI_NONNULL(1,2)
/// Sends the service manager lines of sd_notify(3), such as "STATUS=warm", or several, parted by line
/// feeds. From any thread.
///
/// Returns 1; 0 when there is none: the server was made without OMNI_SERVER_NOTIFY, or
/// `NOTIFY_SOCKET` was not set then; or:
///   -EINVAL: `state` is NULL, or not UTF-8.
///   -ECONNREFUSED, -ENOENT: nothing reads from that socket.
///   -EAGAIN: it has had no room for a second.
///   -EMFILE, -ENFILE: too many open files in the process, in the system.
///
/// System calls: socket, sendto, close. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_server_notify(server: *const omni_server, state: *const c_char) -> c_int {
    call("omni_server_notify", server, |serving| {
        // SAFETY: NULL or a text by this function's contract.
        let state = unsafe { read_str(state, "state is NULL") }?;
        Ok(serving.handle.notify(state)?.into())
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// The engine of the server's loops: never OMNI_ENGINE_AUTO. 0 on an error, which `omni_last_error`
/// describes.
///
/// System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_server_engine(server: *const omni_server) -> u32 {
    let number = call("omni_server_engine", server, |serving| Ok(serving.handle.engine() as c_int));
    number.try_into().unwrap_or(0)
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// The model of the server. 0 on an error, which `omni_last_error` describes.
///
/// System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_server_model(server: *const omni_server) -> u32 {
    let number = call("omni_server_model", server, |serving| Ok(serving.handle.model() as c_int));
    number.try_into().unwrap_or(0)
}
