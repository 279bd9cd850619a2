//! What a program calls, with arguments that are right, stale, foreign, NULL or garbage.

use std::ffi::{c_int, CString};
use std::ptr;

use arbitrary::Arbitrary;
use omnipoll_capi::*;

use super::objects::{Handle, Objects};

/// A descriptor as an argument: one of ours, or no descriptor at all.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Fd {
    Ours(u8),
    Negative(i8),
    Far(u16),
}

/// One call.
#[derive(Arbitrary, Clone, Debug)]
pub(crate) enum Operation {
    OpenPipe { slot: u8 },
    OpenSockets { slot: u8 },
    Close { slot: u8 },
    WriteTo { slot: u8, length: u8 },
    ReadFrom { slot: u8 },

    PollerNew { slot: u8, engine: u8, flags: u8 },
    PollerNewGarbage { engine: u32, flags: u32 },
    PollerFree { poller: Handle },
    Add { poller: Handle, fd: Fd, interest: u16, token: u64 },
    Modify { poller: Handle, fd: Fd, interest: u32, token: u64 },
    Set { poller: Handle, fd: Fd, interest: u16, token: u64 },
    Remove { poller: Handle, fd: Fd },
    Rearm { poller: Handle, fd: Fd, interest: u16 },
    Wait { poller: Handle, capacity: u8, microseconds: u8 },
    WaitNowhere { poller: Handle, capacity: u32 },
    Wake { poller: Handle },
    AfterFork { poller: Handle },
    TimerAdd { poller: Handle, delay: i32, period: i32 },
    TimerAddAt { poller: Handle, at: i64 },
    TimerSet { poller: Handle, id: u8, delay: i32, period: i64 },
    TimerCancel { poller: Handle, id: u8 },
    SignalAdd { poller: Handle, signo: i8 },
    SignalRemove { poller: Handle, signo: i8 },
    ChildAdd { poller: Handle, pid: i8 },
    ChildRemove { poller: Handle, pid: i8 },
    Post { poller: Handle, token: u64, value: i64 },
    Stats { poller: Handle, size: u16 },
    Dump { poller: Handle, capacity: u16 },
    Engine { poller: Handle },

    ServerListen { server: Handle, address: Vec<u8> },
    ServerAddress { server: Handle, capacity: u8 },
    ServerRun { server: Handle },
    ServerStop { server: Handle, drain: i32 },
    ServerFree { server: Handle },
    ServerStats { server: Handle, worker: i8, size: u16 },
    Broadcast { server: Handle, length: u16 },

    Conn(Handle, OfConnection),
    Words { error: i32 },
}

/// One call for a connection.
#[derive(Arbitrary, Clone, Debug)]
pub(crate) enum OfConnection {
    Write { length: u16 },
    Writev { count: u8, length: u16 },
    SendFile { offset: u64, length: u16 },
    Close,
    Abort,
    Shutdown,
    Pause,
    Resume,
    Post { value: i64 },
    Id,
    Peer { capacity: u8 },
    Local { capacity: u8 },
    Queued,
    Fd,
    Worker,
    Stopping,
    Context { context: usize },
    Timeouts { idle: i32, read: i32, write: i32 },
}

/// What is written: as long as the longest write.
static DATA: [u8; u16::MAX as usize] = [b'x'; u16::MAX as usize];

/// Structs that grow: as large as their size may say.
#[repr(C, align(8))]
struct Room([u8; u16::MAX as usize]);

impl Operation {
    /// Makes the call. Whatever it returns is right: what is looked for is what it must never do.
    pub(crate) fn run(&self, objects: &Objects) {
        let poller = |handle: &Handle| ptr::without_provenance_mut(objects.pollers.get(*handle, objects));
        let server = |handle: &Handle| ptr::without_provenance_mut(objects.servers.get(*handle, objects));
        let mut text = [0; u16::MAX as usize];
        // SAFETY: handles and numbers may be anything by the library's contract; each pointer is NULL or
        // to what the function wants of it, for as long as the call takes.
        unsafe {
            match self {
                Self::OpenPipe { slot } => objects.open_pipe(*slot),
                Self::OpenSockets { slot } => objects.open_sockets(*slot),
                Self::Close { slot } => objects.close(*slot),
                Self::WriteTo { slot, length } => objects.write(*slot, usize::from(*length)),
                Self::ReadFrom { slot } => objects.read(*slot),

                Self::PollerNew { slot, engine, flags } => {
                    let mut new = ptr::null_mut();
                    if omni_poller_new(u32::from(engine % 6), u32::from(flags % 8), &mut new) == 0 {
                        let old = objects.pollers.put(*slot, new.addr());
                        omni_poller_free(ptr::without_provenance_mut(old));
                    }
                }
                Self::PollerNewGarbage { engine, flags } => {
                    let _ = omni_poller_new(*engine, *flags, ptr::null_mut());
                }
                Self::PollerFree { poller: handle } => omni_poller_free(poller(handle)),
                Self::Add { poller: handle, fd, interest, token } => {
                    omni_poller_add(poller(handle), fd.number(objects), u32::from(*interest), *token);
                }
                Self::Modify { poller: handle, fd, interest, token } => {
                    omni_poller_modify(poller(handle), fd.number(objects), *interest, *token);
                }
                Self::Set { poller: handle, fd, interest, token } => {
                    omni_poller_set(poller(handle), fd.number(objects), u32::from(*interest), *token);
                }
                Self::Remove { poller: handle, fd } => {
                    omni_poller_remove(poller(handle), fd.number(objects));
                }
                Self::Rearm { poller: handle, fd, interest } => {
                    omni_poller_rearm(poller(handle), fd.number(objects), u32::from(*interest));
                }
                Self::Wait { poller: handle, capacity, microseconds } => {
                    let mut events = Vec::with_capacity(usize::from(*capacity));
                    let timeout = i64::from(*microseconds) * 1000;
                    let _ = omni_poller_wait(poller(handle), events.as_mut_ptr(), u32::from(*capacity), timeout);
                }
                Self::WaitNowhere { poller: handle, capacity } => {
                    let _ = omni_poller_wait(poller(handle), ptr::null_mut(), *capacity, 0);
                }
                Self::Wake { poller: handle } => {
                    omni_poller_wake(poller(handle));
                }
                Self::AfterFork { poller: handle } => {
                    omni_poller_after_fork(poller(handle));
                }
                Self::TimerAdd { poller: handle, delay, period } => {
                    let mut id = 0;
                    let (delay, period) = (i64::from(*delay), i64::from(*period));
                    if omni_poller_timer_add(poller(handle), delay, period, 7, &mut id) == 0 {
                        objects.timers.put(id as u8, id as usize);
                    }
                }
                Self::TimerAddAt { poller: handle, at } => {
                    omni_poller_timer_add_at(poller(handle), *at, 8, ptr::null_mut());
                }
                Self::TimerSet { poller: handle, id, delay, period } => {
                    let id = objects.timers.get(Handle::Ours(*id), objects) as u64;
                    omni_poller_timer_set(poller(handle), id, i64::from(*delay), *period);
                }
                Self::TimerCancel { poller: handle, id } => {
                    let id = objects.timers.get(Handle::Ours(*id), objects) as u64;
                    omni_poller_timer_cancel(poller(handle), id);
                }
                Self::SignalAdd { poller: handle, signo } => {
                    omni_poller_signal_add(poller(handle), number_of_signal(*signo), 9);
                }
                Self::SignalRemove { poller: handle, signo } => {
                    omni_poller_signal_remove(poller(handle), number_of_signal(*signo));
                }
                Self::ChildAdd { poller: handle, pid } => {
                    omni_poller_child_add(poller(handle), c_int::from(*pid), 10);
                }
                Self::ChildRemove { poller: handle, pid } => {
                    omni_poller_child_remove(poller(handle), c_int::from(*pid));
                }
                Self::Post { poller: handle, token, value } => {
                    omni_poller_post(poller(handle), *token, *value);
                }
                Self::Stats { poller: handle, size } => {
                    let mut room = Box::new(Room([0; u16::MAX as usize]));
                    room.0[..4].copy_from_slice(&u32::from(*size).to_ne_bytes());
                    omni_poller_stats(poller(handle), ptr::from_mut(&mut *room).cast());
                }
                Self::Dump { poller: handle, capacity } => {
                    omni_poller_dump(poller(handle), text.as_mut_ptr(), usize::from(*capacity));
                }
                Self::Engine { poller: handle } => {
                    omni_poller_engine(poller(handle));
                    omni_poller_capabilities(poller(handle));
                }

                Self::ServerListen { server: handle, address } => {
                    // Nothing of the file system's, and no name that a resolver would be asked for.
                    let text: Vec<u8> = [&b"udp:127.0.0.1:"[..], address].concat();
                    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
                    let text = CString::new(text).unwrap_or_default();
                    let _ = omni_server_listen(server(handle), text.as_ptr());
                }
                Self::ServerAddress { server: handle, capacity } => {
                    omni_server_address(server(handle), text.as_mut_ptr(), usize::from(*capacity));
                    omni_server_prometheus(server(handle), text.as_mut_ptr(), usize::from(*capacity));
                }
                // A second run of one that runs, or one of nothing.
                Self::ServerRun { server: handle } => {
                    if !matches!(handle, Handle::Ours(_)) {
                        let _ = omni_server_run(server(handle));
                    }
                }
                Self::ServerStop { server: handle, drain } => {
                    omni_server_stop(server(handle), i64::from(*drain));
                }
                Self::ServerFree { server: handle } => omni_server_free(server(handle)),
                Self::ServerStats { server: handle, worker, size } => {
                    let mut room = Box::new(Room([0; u16::MAX as usize]));
                    room.0[..4].copy_from_slice(&u32::from(*size).to_ne_bytes());
                    omni_server_stats(
                        server(handle),
                        i32::from(*worker) as u32,
                        ptr::from_mut(&mut *room).cast(),
                    );
                    omni_server_workers(server(handle));
                }
                Self::Broadcast { server: handle, length } => {
                    omni_server_broadcast(server(handle), DATA.as_ptr().cast(), usize::from(*length));
                }

                Self::Conn(handle, call) => {
                    call.run(ptr::without_provenance_mut(objects.conns.get(*handle, objects)), objects)
                }
                Self::Words { error } => {
                    assert!(!omni_strerror(*error).is_null());
                    assert!(!omni_last_error().is_null());
                }
            }
        }
    }
}

impl OfConnection {
    /// Makes the call.
    pub(crate) fn run(&self, conn: *mut omni_conn, objects: &Objects) {
        let mut text = [0; u8::MAX as usize];
        // SAFETY: as in `Operation::run`.
        unsafe {
            match self {
                Self::Write { length } => {
                    omni_conn_write(conn, DATA.as_ptr().cast(), usize::from(*length));
                }
                Self::Writev { count, length } => {
                    let piece = libc::iovec {
                        iov_base: DATA.as_ptr().cast_mut().cast(),
                        iov_len: usize::from(*length),
                    };
                    let pieces = vec![piece; usize::from(*count)];
                    omni_conn_writev(conn, pieces.as_ptr().cast(), u32::from(*count));
                }
                Self::SendFile { offset, length } => {
                    omni_conn_send_file(conn, objects.file(), *offset, u64::from(*length));
                }
                Self::Close => drop(omni_conn_close(conn)),
                Self::Abort => drop(omni_conn_abort(conn)),
                Self::Shutdown => drop(omni_conn_shutdown(conn)),
                Self::Pause => drop(omni_conn_pause(conn)),
                Self::Resume => drop(omni_conn_resume(conn)),
                Self::Post { value } => drop(omni_conn_post(conn, *value)),
                Self::Id => drop(omni_conn_id(conn)),
                Self::Peer { capacity } => {
                    omni_conn_peer(conn, text.as_mut_ptr(), usize::from(*capacity));
                }
                Self::Local { capacity } => {
                    omni_conn_local(conn, text.as_mut_ptr(), usize::from(*capacity));
                }
                Self::Queued => drop(omni_conn_queued(conn)),
                Self::Fd => drop(omni_conn_fd(conn)),
                Self::Worker => drop(omni_conn_worker(conn)),
                Self::Stopping => drop(omni_conn_stopping(conn)),
                Self::Context { context } => {
                    omni_conn_set_context(conn, ptr::without_provenance_mut(*context));
                    omni_conn_context(conn);
                }
                Self::Timeouts { idle, read, write } => {
                    omni_conn_set_idle_timeout(conn, i64::from(*idle));
                    omni_conn_set_read_timeout(conn, i64::from(*read));
                    omni_conn_set_write_timeout(conn, i64::from(*write));
                    omni_conn_set_timer(conn, i64::from(*idle));
                    omni_conn_set_frame_exactly(conn, usize::from(*read as u8));
                }
            }
        }
    }
}

impl Fd {
    fn number(self, objects: &Objects) -> c_int {
        match self {
            Self::Ours(slot) => objects.number(slot),
            Self::Negative(number) => -c_int::from(number.unsigned_abs()),
            // Beyond the limit of open files, so that it is never open.
            Self::Far(number) => 1 << 20 | c_int::from(number),
        }
    }
}

/// Signals that end nothing when they come, and numbers that are none.
fn number_of_signal(signo: i8) -> c_int {
    match signo {
        0..=63 => libc::SIGWINCH,
        _ => c_int::from(signo),
    }
}
