//! Sequences of calls for event loops, pulled and by handler, with real sockets: made in the thread that has
//! the loops, in their callbacks, and in another thread. Nothing is expected of what a call returns;
//! AddressSanitizer, the library's own assertions and the end of each sequence are what is checked.
#![no_main]

mod call;
mod objects;

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use omnipoll_capi::*;

use call::Call;
use objects::{Objects, Owner};

/// Callbacks within callbacks: they may run another loop.
const MOST_WITHIN: usize = 3;

#[derive(Arbitrary, Debug)]
struct Input {
    calls: Vec<Call>,
    of_another_thread: Vec<Call>,
    /// What the callbacks call, one after another.
    reactions: Vec<Call>,
}

/// What the callbacks get.
struct Context<'a> {
    objects: &'a Objects,
    reactions: &'a [Call],
    next: AtomicUsize,
}

thread_local! {
    static OWNER: Owner = Owner::default();
    static WITHIN: Cell<usize> = const { Cell::new(0) };
}

fuzz_target!(|input: Input| {
    let objects = Objects::default();
    let context = Context { objects: &objects, reactions: &input.reactions, next: AtomicUsize::new(0) };
    let handler = handler(&context);
    thread::scope(|scope| {
        // Each is joined: the scope's own end waits for what a thread does, not for its end.
        let other = scope.spawn(|| run(&input.of_another_thread, &objects, &handler));
        run(&input.calls, &objects, &handler);
        let _ = other.join();
    });
});

struct Shared(omni_handler);

// SAFETY: the functions may be called, and the context be used, in every thread.
unsafe impl Sync for Shared {}

fn run(calls: &[Call], objects: &Objects, handler: &Shared) {
    OWNER.with(|owner| {
        calls.iter().for_each(|call| call.run(objects, owner, &handler.0));
        // Of this thread: no other may free them.
        owner.free();
    });
}

fn handler(context: &Context<'_>) -> Shared {
    Shared(omni_handler {
        size: size_of::<omni_handler>() as u32,
        reserved: 0,
        context: ptr::from_ref(context).cast_mut().cast(),
        on_open: Some(on_open),
        on_data: Some(on_data),
        on_drain: Some(on_conn),
        on_close: Some(on_close),
        on_end: Some(on_conn),
        on_post: Some(on_post),
        on_stop: Some(on_conn),
        on_datagram: Some(on_datagram),
        on_datagram_error: Some(on_datagram_error),
        on_timeout: Some(on_timeout),
        on_timer: Some(on_conn),
        on_event: Some(on_event),
        on_worker_start: None,
        on_worker_end: None,
    })
}

/// Makes the next call of a callback's.
///
/// # Safety
/// `context` is what `handler` has put there.
unsafe fn react(context: *mut c_void, conn: usize) {
    // SAFETY: the function's contract.
    let context = unsafe { &*context.cast::<Context<'_>>() };
    let number = context.next.fetch_add(1, Relaxed);
    context.objects.conns.put(number as u8, conn);
    let Some(reaction) = context.reactions.get(number % context.reactions.len().max(1)) else { return };
    if WITHIN.get() < MOST_WITHIN {
        WITHIN.set(WITHIN.get() + 1);
        OWNER.with(|owner| reaction.run(context.objects, owner, &handler(context).0));
        WITHIN.set(WITHIN.get() - 1);
    }
}

extern "C" fn on_open(conn: *mut omni_conn, context: *mut c_void) -> c_int {
    // SAFETY: the library gives back the context.
    unsafe { react(context, conn.addr()) };
    0
}

extern "C" fn on_data(conn: *mut omni_conn, data: *const u8, length: usize, context: *mut c_void) {
    // SAFETY: the library says that the bytes are there, and gives back the context.
    unsafe {
        omni_conn_write(conn, data.cast(), length);
        react(context, conn.addr());
    }
}

extern "C" fn on_conn(conn: *mut omni_conn, context: *mut c_void) {
    // SAFETY: the library gives back the context.
    unsafe { react(context, conn.addr()) };
}

extern "C" fn on_close(conn: *mut omni_conn, _: c_int, context: *mut c_void) {
    on_conn(conn, context);
}

extern "C" fn on_post(conn: *mut omni_conn, _: i64, context: *mut c_void) {
    on_conn(conn, context);
}

extern "C" fn on_timeout(conn: *mut omni_conn, _: u32, context: *mut c_void) {
    on_conn(conn, context);
}

extern "C" fn on_event(event_loop: *mut omni_loop, event: *const omni_event, context: *mut c_void) {
    // SAFETY: the library lends the event, and gives back the context.
    unsafe {
        assert!(!event_loop.is_null() && (*event).kind > 0);
        react(context, 0);
    }
}

extern "C" fn on_datagram(
    datagram: *mut omni_datagram,
    data: *const u8,
    length: usize,
    context: *mut c_void,
) {
    // SAFETY: the library says that the bytes are there, and gives back the context.
    unsafe {
        omni_datagram_reply(datagram, data.cast(), length);
        react(context, 0);
    }
}

extern "C" fn on_datagram_error(socket: *mut omni_datagram_socket, _: c_int, context: *mut c_void) {
    // SAFETY: the library gives back the context.
    unsafe { react(context, socket.addr()) };
}
