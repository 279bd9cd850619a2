//! What a poller costs in memory: nothing in a wait once warm, and little for a registration.

#[path = "support/mod.rs"]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use omnipoll::{EngineKind, Events, Interest, Poller, Trigger};
use support::expect::poller;
use support::{engines, fds::*, sys};

/// The system's allocator, which counts what the thread asks of it: the tests run side by side.
struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work; counting touches plain cells only. Moving
// memory falls back on these two.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        BYTES.set(BYTES.get().wrapping_add(layout.size()));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get().wrapping_sub(layout.size()));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How often a wait asks for memory while a server's work continues around it: what was ready is
/// drained, rearmed and modified, wakes come, and the time runs out.
fn allocations_in_waits(kind: EngineKind) -> usize {
    let poller = poller(kind);
    let pipes: Vec<_> = (0..90).map(|_| pipe()).collect();
    let interests = [Trigger::LEVEL, Trigger::EDGE, Trigger::ONESHOT].map(|trigger| Interest::READ | trigger);
    for ((reader, _), token) in pipes.iter().zip(0..) {
        poller.add(reader, interests[token as usize % 3], token).unwrap();
    }
    let mut events = Events::with_capacity(16);
    let mut allocations = 0;
    for round in 0..200 {
        pipes.iter().skip(round % 7).step_by(5).for_each(|(_, writer)| write_byte(writer));
        poller.wake().unwrap();
        loop {
            let before = CALLS.get();
            let count = poller.wait(&mut events, Some(Duration::from_micros(100))).unwrap();
            // Half of the rounds are for warming up.
            allocations += if round < 100 { 0 } else { CALLS.get() - before };
            for event in events.iter().filter(|event| event.is_readable()) {
                let token = event.token() as usize;
                drain(&pipes[token].0);
                support::expect::acknowledge(&poller, &pipes[token].0, interests[token % 3], event.token());
            }
            if count == 0 {
                break;
            }
        }
    }
    allocations
}

#[test]
fn no_allocation_in_a_wait_once_warm() {
    for kind in engines() {
        assert_eq!(allocations_in_waits(kind), 0, "{}", kind.name());
    }
}

/// The bytes that a poller holds, of which its events and what it opened itself are no part.
fn bytes_held(poller: impl FnOnce() -> Poller) -> usize {
    let mut events = Events::with_capacity(1);
    let before = BYTES.get();
    let poller = poller();
    // What a wait needs for itself grows with what is watched.
    poller.wait(&mut events, Some(Duration::ZERO)).unwrap();
    let held = BYTES.get() - before;
    drop(poller);
    assert_eq!(BYTES.get(), before, "a poller that was dropped still holds memory");
    held
}

#[test]
fn at_most_48_bytes_for_a_registration() {
    const REGISTRATIONS: usize = 10_000;
    sys::allow_descriptors(REGISTRATIONS as u64 + 200);
    let (reader, _writer) = pipe();
    let descriptors: Vec<_> = (0..REGISTRATIONS).map(|_| dup(&reader)).collect();
    for kind in engines() {
        for interest in [Interest::READ | Trigger::LEVEL, Interest::READ | Interest::WRITE | Trigger::EDGE] {
            let held = bytes_held(|| {
                let poller = poller(kind);
                for (descriptor, token) in descriptors.iter().zip(0..) {
                    poller.add(descriptor, interest, token).unwrap();
                }
                poller
            });
            let each = held as f64 / REGISTRATIONS as f64;
            println!("{}: {each:.1} bytes for a registration", kind.name());
            assert!(each <= 48.0, "{}: {each:.1} bytes for a registration", kind.name());
        }
    }
}
