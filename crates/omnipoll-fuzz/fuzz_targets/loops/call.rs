//! What a program calls, with arguments that are right, stale, foreign, NULL or garbage.

use std::ffi::CString;
use std::ptr;
use std::sync::atomic::Ordering::Relaxed;

use arbitrary::Arbitrary;
use omnipoll_capi::*;

use super::objects::{Handle, Objects, Owner};

/// One call.
#[derive(Arbitrary, Clone, Debug)]
pub(crate) enum Call {
    New {
        slot: u8,
        engine: u8,
        is_pulled: bool,
        flags: u8,
        max_clients: u8,
        high_water: u16,
        idle: u32,
    },
    Free {
        event_loop: Handle,
    },
    Listen {
        event_loop: Handle,
        place: Place,
        has_handler: bool,
        token: u64,
    },
    Address {
        event_loop: Handle,
        capacity: u8,
    },
    Connect {
        event_loop: Handle,
        slot: u8,
        to: Peer,
        has_handler: bool,
        flags: u8,
        timeout: u32,
    },
    ConnectDatagrams {
        event_loop: Handle,
        slot: u8,
        to: u8,
    },
    Wait {
        event_loop: Handle,
        capacity: u8,
        microseconds: u8,
    },
    RunOnce {
        event_loop: Handle,
        microseconds: u8,
    },
    /// To its end, which is near.
    StopAndRun {
        event_loop: Handle,
    },
    Stop {
        event_loop: Handle,
        drain: i32,
    },
    Buffer {
        event_loop: Handle,
    },
    Descriptor {
        event_loop: Handle,
    },
    WriteMany {
        event_loop: Handle,
        conns: [Handle; 3],
        length: u16,
    },
    Broadcast {
        event_loop: Handle,
        group: Option<u8>,
        except: Handle,
        length: u16,
    },
    Poller {
        event_loop: Handle,
        delay: u16,
        token: u64,
    },

    Client {
        port: u8,
    },
    ClientSends {
        client: u8,
        data: Vec<u8>,
    },
    ClientSendsMuch {
        client: u8,
        length: u16,
    },
    ClientEnds {
        client: u8,
    },

    Conn(Handle, OfConnection),
    SendDatagram {
        socket: Handle,
        length: u16,
    },
    CloseDatagrams {
        socket: Handle,
    },
}

/// Where a loop listens.
#[derive(Arbitrary, Clone, Debug)]
pub(crate) enum Place {
    Tcp(u8),
    Udp(u8),
    Garbage(Vec<u8>),
}

/// What a loop connects to.
#[derive(Arbitrary, Clone, Debug)]
pub(crate) enum Peer {
    Port(u8),
    Nobody,
    NoSocket,
    Garbage(Vec<u8>),
}

/// One call for a connection.
#[derive(Arbitrary, Clone, Debug)]
pub(crate) enum OfConnection {
    Write { length: u16 },
    Close,
    Abort,
    Shutdown,
    Pause,
    Resume,
    Post { value: i64 },
    Relay { to: Handle },
    Until { delimiter: [u8; 2], length: u8, max: u16 },
    Exactly { length: u32 },
    AtLeast { length: u32 },
    Any,
    Join { group: u8 },
    Leave { group: u8 },
    Timer { delay: i32 },
    Timeouts { idle: i32, read: i32, write: i32 },
    Facts { token: u64, context: usize },
}

/// What is written: as long as the longest write.
static DATA: [u8; u16::MAX as usize] = [b'x'; u16::MAX as usize];

/// Nothing of the file system's, and no name that a resolver would be asked for.
fn text(garbage: &[u8]) -> CString {
    let text = [&b"127.0.0.1:"[..], garbage].concat();
    CString::new(text.split(|&byte| byte == 0).next().unwrap_or_default()).unwrap_or_default()
}

fn name(group: u8) -> CString {
    CString::new(vec![b'a' + group % 3; usize::from(group / 3) * 4]).unwrap_or_default()
}

impl Call {
    /// Makes the call. Whatever it returns is right: what is looked for is what it must never do.
    pub(crate) fn run(&self, objects: &Objects, owner: &Owner, handler: &omni_handler) {
        let it = |handle: &Handle| ptr::without_provenance_mut(objects.loops.get(*handle, objects));
        let conn = |handle: &Handle| ptr::without_provenance_mut(objects.conns.get(*handle, objects));
        let socket = |handle: &Handle| ptr::without_provenance_mut(objects.sockets.get(*handle, objects));
        let handler_if = |is: bool| if is { ptr::from_ref(handler) } else { ptr::null() };
        let mut words = [0; u8::MAX as usize];
        // SAFETY: handles and numbers may be anything by the library's contract; each pointer is NULL or
        // to what the function wants of it, for as long as the call takes.
        unsafe {
            match self {
                Self::New { .. } => self.make(objects, owner, handler),
                Self::Free { event_loop } => omni_loop_free(it(event_loop)),
                Self::Listen { event_loop, place, has_handler, token } => {
                    listen(it(event_loop), place, handler_if(*has_handler), *token, objects);
                }
                Self::Address { event_loop, capacity } => {
                    omni_loop_address(it(event_loop), words.as_mut_ptr(), usize::from(*capacity));
                }
                Self::Connect { event_loop, slot, to, has_handler, flags, timeout } => {
                    let mut options: omni_connect_options = std::mem::zeroed();
                    options.size = size_of::<omni_connect_options>() as u32;
                    options.flags = u32::from(*flags & 3);
                    options.timeout_ns = i64::from(*timeout);
                    let (to, mut new) = (to.address(objects), ptr::null_mut());
                    let handler = handler_if(*has_handler);
                    if omni_loop_connect(it(event_loop), to.as_ptr(), &options, handler, 7, &mut new) == 0 {
                        objects.conns.put(*slot, new.addr());
                    }
                }
                Self::ConnectDatagrams { event_loop, slot, to } => {
                    let port = Objects::port(&objects.udp_ports, *to);
                    let to = CString::new(format!("udp:127.0.0.1:{port}")).unwrap_or_default();
                    let mut new = ptr::null_mut();
                    if omni_loop_connect_datagrams(it(event_loop), to.as_ptr(), 8, &mut new) == 0 {
                        objects.sockets.put(*slot, new.addr());
                    }
                }
                Self::Wait { event_loop, capacity, microseconds } => {
                    wait(it(event_loop), usize::from(*capacity), i64::from(*microseconds) * 1000, objects);
                }
                Self::RunOnce { event_loop, microseconds } => {
                    let _ = omni_loop_run_once(it(event_loop), i64::from(*microseconds) * 1000);
                }
                Self::StopAndRun { event_loop } => {
                    if omni_loop_stop(it(event_loop), 0) == 0 {
                        let _ = omni_loop_run(it(event_loop));
                    }
                }
                Self::Stop { event_loop, drain } => {
                    omni_loop_stop(it(event_loop), i64::from(*drain));
                }
                Self::Buffer { event_loop } => {
                    let (mut start, mut size) = (ptr::null(), 0);
                    omni_loop_buffer(it(event_loop), &mut start, &mut size);
                }
                Self::Descriptor { event_loop } => {
                    let _ = omni_loop_descriptor(it(event_loop));
                }
                Self::WriteMany { event_loop, conns, length } => {
                    let mut writes = conns.map(|handle| omni_write {
                        conn: conn(&handle),
                        data: DATA.as_ptr().cast(),
                        length: usize::from(*length),
                        result: 0,
                        reserved: 0,
                    });
                    omni_loop_write(it(event_loop), writes.as_mut_ptr(), 3);
                }
                Self::Broadcast { event_loop, group, except, length } => {
                    let (data, length) = (DATA.as_ptr().cast(), usize::from(*length));
                    match group.map(name) {
                        Some(group) => omni_loop_broadcast_group(
                            it(event_loop),
                            group.as_ptr(),
                            data,
                            length,
                            conn(except),
                        ),
                        None => omni_loop_broadcast_except(it(event_loop), data, length, conn(except)),
                    };
                }
                Self::Poller { event_loop, delay, token } => {
                    let poller = omni_loop_poller(it(event_loop));
                    omni_poller_timer_add(poller, i64::from(*delay), 0, *token, ptr::null_mut());
                    omni_poller_post(poller, *token, 5);
                    omni_poller_free(poller);
                }

                Self::Client { port } => owner.connect(Objects::port(&objects.ports, *port)),
                Self::ClientSends { client, data } => owner.with_client(*client, data),
                Self::ClientSendsMuch { client, length } => {
                    owner.with_client(*client, &DATA[..usize::from(*length)]);
                }
                Self::ClientEnds { client } => owner.end_client(*client),

                Self::Conn(handle, call) => call.run(conn(handle), objects),
                Self::SendDatagram { socket: handle, length } => {
                    omni_datagram_socket_send(socket(handle), DATA.as_ptr().cast(), usize::from(*length));
                    omni_datagram_socket_local(socket(handle), words.as_mut_ptr(), words.len());
                }
                Self::CloseDatagrams { socket: handle } => {
                    omni_datagram_socket_close(socket(handle));
                }
            }
        }
    }

    /// A loop of the calling thread's.
    fn make(&self, objects: &Objects, owner: &Owner, handler: &omni_handler) {
        let Self::New { slot, engine, is_pulled, flags, max_clients, high_water, idle } = self else {
            return;
        };
        if !owner.may_have_another_loop() {
            return;
        }
        // SAFETY: for a struct of numbers all zeroes is a value.
        let mut options: omni_loop_options = unsafe { std::mem::zeroed() };
        options.size = size_of::<omni_loop_options>() as u32;
        options.engine = u32::from(engine % 6);
        options.flags = u32::from(flags & 1) * OMNI_INTERRUPTIBLE;
        options.max_clients = u32::from(*max_clients);
        options.high_water = u64::from(*high_water);
        options.low_water = u64::from(high_water / 2);
        options.idle_timeout_ns = i64::from(*idle);
        options.linger_ns = -1;
        let handler = if *is_pulled { ptr::null() } else { ptr::from_ref(handler) };
        let mut new = ptr::null_mut();
        // SAFETY: the pointers are NULL or to what the function wants of them.
        if unsafe { omni_loop_new(&options, handler, &mut new) } == 0 {
            objects.loops.put(*slot, new.addr());
            owner.add(new.addr());
        }
    }
}

impl Peer {
    fn address(&self, objects: &Objects) -> CString {
        let address = match self {
            Self::Port(at) => format!("127.0.0.1:{}", Objects::port(&objects.ports, *at)),
            Self::Nobody => "127.0.0.1:1".into(),
            Self::NoSocket => "unix:@no such omnipoll socket".into(),
            Self::Garbage(garbage) => return text(garbage),
        };
        CString::new(address).unwrap_or_default()
    }
}

fn listen(
    event_loop: *mut omni_loop,
    place: &Place,
    handler: *const omni_handler,
    token: u64,
    objects: &Objects,
) {
    let (address, ports) = match place {
        Place::Tcp(at) => (CString::from(c"127.0.0.1:0"), Some((&objects.ports, *at))),
        Place::Udp(at) => (CString::from(c"udp:127.0.0.1:0"), Some((&objects.udp_ports, *at))),
        Place::Garbage(garbage) => (text(garbage), None),
    };
    let mut words = [0; 4096];
    // SAFETY: the handle may be anything; the pointers are to texts and to a place for one.
    let length = unsafe {
        if omni_loop_listen(event_loop, address.as_ptr(), handler, token) < 0 {
            return;
        }
        omni_loop_address(event_loop, words.as_mut_ptr(), words.len())
    };
    let length = usize::try_from(length).unwrap_or(0).min(words.len() - 1);
    let words: Vec<u8> = words[..length].iter().map(|&byte| byte as u8).collect();
    let port = std::str::from_utf8(&words).ok().and_then(|words| words.rsplit(':').next()?.parse().ok());
    if let (Some((ports, at)), Some(port)) = (ports, port) {
        ports[usize::from(at) % 4].store(port, Relaxed);
    }
}

/// Waits, and keeps the handles that the events have.
fn wait(event_loop: *mut omni_loop, capacity: usize, timeout: i64, objects: &Objects) {
    let mut events: Vec<omni_loop_event> = Vec::with_capacity(capacity);
    // SAFETY: the handle may be anything; there is room for as many events, and as many are initialised as
    // the call says.
    unsafe {
        let count = omni_loop_wait(event_loop, events.as_mut_ptr(), capacity as u32, timeout);
        events.set_len(usize::try_from(count).unwrap_or(0));
    }
    for (slot, event) in events.iter().enumerate() {
        let kept = match event.kind {
            OMNI_EVENT_DATAGRAM | OMNI_EVENT_DATAGRAM_ERROR => &objects.sockets,
            OMNI_EVENT_ACCEPTED..=OMNI_EVENT_CONN_TIMER => &objects.conns,
            _ => continue,
        };
        kept.put(slot as u8, event.value as usize);
    }
}

impl OfConnection {
    fn run(&self, conn: *mut omni_conn, objects: &Objects) {
        let mut words = [0; u8::MAX as usize];
        // SAFETY: as in `Call::run`.
        unsafe {
            match self {
                Self::Write { length } => {
                    omni_conn_write(conn, DATA.as_ptr().cast(), usize::from(*length));
                }
                Self::Close => drop(omni_conn_close(conn)),
                Self::Abort => drop(omni_conn_abort(conn)),
                Self::Shutdown => drop(omni_conn_shutdown(conn)),
                Self::Pause => drop(omni_conn_pause(conn)),
                Self::Resume => drop(omni_conn_resume(conn)),
                Self::Post { value } => drop(omni_conn_post(conn, *value)),
                Self::Relay { to } => {
                    omni_conn_relay(conn, ptr::without_provenance_mut(objects.conns.get(*to, objects)));
                }
                Self::Until { delimiter, length, max } => {
                    let length = usize::from(*length).min(delimiter.len());
                    let delimiter = delimiter.as_ptr().cast();
                    omni_conn_set_frame_until(conn, delimiter, length, usize::from(*max));
                }
                Self::Exactly { length } => drop(omni_conn_set_frame_exactly(conn, *length as usize)),
                Self::AtLeast { length } => drop(omni_conn_set_frame_at_least(conn, *length as usize)),
                Self::Any => drop(omni_conn_set_frame_any(conn)),
                Self::Join { group } => drop(omni_conn_join(conn, name(*group).as_ptr())),
                Self::Leave { group } => drop(omni_conn_leave(conn, name(*group).as_ptr())),
                Self::Timer { delay } => drop(omni_conn_set_timer(conn, i64::from(*delay))),
                Self::Timeouts { idle, read, write } => {
                    omni_conn_set_idle_timeout(conn, i64::from(*idle));
                    omni_conn_set_read_timeout(conn, i64::from(*read));
                    omni_conn_set_write_timeout(conn, i64::from(*write));
                    omni_conn_restart_timeouts(conn);
                }
                Self::Facts { token, context } => {
                    omni_conn_set_token(conn, *token);
                    omni_conn_token(conn);
                    omni_conn_set_context(conn, ptr::without_provenance_mut(*context));
                    omni_conn_context(conn);
                    omni_conn_has_ended(conn);
                    omni_conn_queued(conn);
                    omni_conn_is_outgoing(conn);
                    omni_conn_loop(conn);
                    omni_conn_peer(conn, words.as_mut_ptr(), words.len());
                }
            }
        }
    }
}
