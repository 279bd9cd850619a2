//! Sequences of calls to the C library, made by several threads at once on the same objects, while
//! a server runs with real clients and its callbacks make calls, too. Nothing is expected of what a
//! call returns; AddressSanitizer, the library's own assertions and the end of every thread are what
//! is checked.
#![no_main]

mod objects;
mod operation;

use std::ffi::{c_int, c_void};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use omnipoll_capi::*;

use objects::Objects;
use operation::{OfConnection, Operation};

#[derive(Arbitrary, Debug)]
struct Input {
    server: Option<Serving>,
    threads: [Vec<Operation>; 3],
}

#[derive(Arbitrary, Debug)]
struct Serving {
    model: u8,
    engine: u8,
    flags: u8,
    workers: u8,
    max_clients: u8,
    queue_limit: u16,
    high_water: u16,
    idle_timeout: i32,
    linger: i16,
    /// What the callbacks call, one after another.
    reactions: Vec<Reaction>,
    /// How much each client sends at once, and whether it waits for an end.
    clients: [Option<(u16, bool)>; 3],
}

#[derive(Arbitrary, Debug)]
enum Reaction {
    OfThis(OfConnection),
    Other(Operation),
}

/// What the callbacks get.
struct Context<'a> {
    objects: &'a Objects,
    reactions: &'a [Reaction],
    next: AtomicUsize,
}

fuzz_target!(|input: Input| {
    let objects = Objects::new();
    let context = input.server.as_ref().map(|serving| Context {
        objects: &objects,
        reactions: &serving.reactions,
        next: AtomicUsize::new(0),
    });
    thread::scope(|scope| {
        // Each is joined: the scope's own end waits for what a thread does, not for its end.
        let mut servers = Vec::new();
        if let (Some(serving), Some(context)) = (&input.server, &context) {
            if let Some((server, port)) = serving.open(context) {
                objects.servers.put(0, server);
                servers.extend(serving.clients.iter().flatten().map(|&(length, waits)| {
                    scope.spawn(move || be_client(port, usize::from(length), waits))
                }));
                servers.push(scope.spawn(move || {
                    let _ = omni_server_run(ptr::without_provenance_mut(server));
                }));
            }
        }
        let scripts = input.threads.iter().map(|script| {
            let objects = &objects;
            scope.spawn(move || script.iter().for_each(|operation| operation.run(objects)))
        });
        for script in scripts.collect::<Vec<_>>() {
            let _ = script.join();
        }
        for server in objects.servers.take() {
            omni_server_stop(ptr::without_provenance_mut(server), 0);
            omni_server_free(ptr::without_provenance_mut(server));
        }
        for server in servers {
            let _ = server.join();
        }
    });
    for poller in objects.pollers.take() {
        omni_poller_free(ptr::without_provenance_mut(poller));
    }
});

impl Serving {
    /// Makes the server, and says where it listens. Models that fork are left out: the fuzzer's own
    /// threads would not be in the children.
    fn open(&self, context: &Context<'_>) -> Option<(usize, u16)> {
        // SAFETY: for a struct of numbers all zeroes is a value.
        let mut options: omni_server_options = unsafe { std::mem::zeroed() };
        options.size = size_of::<omni_server_options>() as u32;
        options.model =
            [OMNI_MODEL_REACTOR, OMNI_MODEL_CORES, OMNI_MODEL_THREAD][usize::from(self.model) % 3];
        options.engine = u32::from(self.engine % 6);
        options.flags = u32::from(self.flags) & !OMNI_SERVER_SIGNALS;
        options.workers = u32::from(self.workers % 4);
        options.max_clients = u32::from(self.max_clients);
        options.queue_limit = u64::from(self.queue_limit);
        options.total_queue_limit = 2 * u64::from(self.queue_limit);
        options.high_water = u64::from(self.high_water);
        options.low_water = u64::from(self.high_water / 2);
        options.idle_timeout_ns = i64::from(self.idle_timeout);
        options.linger_ns = i64::from(self.linger);
        let handler = omni_handler {
            size: size_of::<omni_handler>() as u32,
            reserved: 0,
            context: ptr::from_ref(context).cast_mut().cast(),
            on_open: Some(on_open),
            on_data: Some(on_data),
            on_drain: Some(on_drain),
            on_close: Some(on_close),
            on_end: Some(on_drain),
            on_post: Some(on_post),
            on_stop: Some(on_drain),
            on_datagram: Some(on_datagram),
            on_datagram_error: None,
            on_timeout: None,
            on_timer: Some(on_drain),
            on_event: None,
            on_worker_start: None,
            on_worker_end: None,
        };
        let mut server = ptr::null_mut();
        let mut text = [0; 128];
        // SAFETY: the pointers are to what the functions want of them; the context outlives the server's run.
        let made = unsafe {
            omni_server_new(&options, &handler, &mut server) == 0
                && omni_server_listen(server, c"127.0.0.1:0".as_ptr()) == 0
                && omni_server_address(server, text.as_mut_ptr(), text.len()) > 0
        };
        let text: Vec<u8> = text.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0).collect();
        let port = std::str::from_utf8(&text).ok()?.rsplit(':').next()?.parse().ok();
        if !made || port.is_none() {
            omni_server_free(server);
        }
        Some((server.addr(), port?))
    }
}

impl Context<'_> {
    /// Makes the next call of a callback's.
    ///
    /// # Safety
    /// `context` is what `Serving::open` gave the handler.
    unsafe fn react(context: *mut c_void, conn: *mut omni_conn) {
        // SAFETY: the function's contract.
        let context = unsafe { &*context.cast::<Context<'_>>() };
        let number = context.next.fetch_add(1, Relaxed);
        context.objects.conns.put(number as u8, conn.addr());
        if let Some(reaction) = context.reactions.get(number % context.reactions.len().max(1)) {
            match reaction {
                Reaction::OfThis(call) => call.run(conn, context.objects),
                Reaction::Other(operation) => operation.run(context.objects),
            }
        }
    }
}

extern "C" fn on_open(conn: *mut omni_conn, context: *mut c_void) -> c_int {
    // SAFETY: the library gives back the context.
    unsafe { Context::react(context, conn) };
    0
}

extern "C" fn on_data(conn: *mut omni_conn, data: *const u8, length: usize, context: *mut c_void) {
    // SAFETY: the library says that the bytes are there, and gives back the context.
    unsafe {
        omni_conn_write(conn, data.cast(), length);
        Context::react(context, conn);
    }
}

extern "C" fn on_drain(conn: *mut omni_conn, context: *mut c_void) {
    // SAFETY: the library gives back the context.
    unsafe { Context::react(context, conn) };
}

extern "C" fn on_close(conn: *mut omni_conn, _: c_int, context: *mut c_void) {
    // SAFETY: the library gives back the context.
    unsafe { Context::react(context, conn) };
}

extern "C" fn on_post(conn: *mut omni_conn, _: i64, context: *mut c_void) {
    // SAFETY: the library gives back the context.
    unsafe { Context::react(context, conn) };
}

extern "C" fn on_datagram(datagram: *mut omni_datagram, data: *const u8, length: usize, _: *mut c_void) {
    let mut text = [0; 16];
    // SAFETY: the library says that the bytes are there; the text has the room that is said.
    unsafe {
        omni_datagram_reply(datagram, data.cast(), length);
        omni_datagram_peer(datagram, text.as_mut_ptr(), text.len());
    }
}

/// Sends, and reads until the end or for a moment.
fn be_client(port: u16, length: usize, waits: bool) {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let _ = stream.set_write_timeout(Some(Duration::from_millis(20)));
    let _ = stream.set_read_timeout(Some(Duration::from_millis(if waits { 20 } else { 1 })));
    let _ = stream.write(&vec![b'c'; length]);
    while stream.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {}
}
