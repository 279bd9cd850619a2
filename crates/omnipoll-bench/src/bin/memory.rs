//! User memory per registration, and allocations of a warm wait, on each engine.
//!
//! The program's allocator counts. What the kernel keeps for a registration is not user memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use omnipoll::{EngineKind, Events, Interest, Poller};

const REGISTRATIONS: usize = 10_000;
const READY: usize = 1_000;
const WAITS: usize = 1_000;

struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on to the system's allocator; `realloc` is made of these two.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Relaxed);
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as promised by the caller; the memory is from `alloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

fn main() {
    let limit = omnipoll_bench::machine::raise_descriptor_limit(REGISTRATIONS as u64 + 100);
    assert!(limit >= REGISTRATIONS as u64 + 100, "the descriptor limit is {limit}");
    println!(
        "User memory of {REGISTRATIONS} registrations, and allocations in {WAITS} waits for {READY} ready\n"
    );
    println!("{:8}{:>24}{:>24}", "engine", "bytes a registration", "allocations when warm");
    for kind in [EngineKind::Epoll, EngineKind::Poll, EngineKind::Select] {
        let (bytes, allocations) = measure(kind);
        println!("{:8}{bytes:>24.1}{allocations:>24}", kind.name());
    }
}

/// The bytes of a registration, after a wait that may have copied it; and the allocations of
/// all waits but the first.
fn measure(kind: EngineKind) -> (f64, usize) {
    let descriptors: Vec<_> = (0..REGISTRATIONS).map(|index| eventfd((index < READY) as u32)).collect();
    let mut events = Events::with_capacity(READY);
    let poller = Poller::with_engine(kind).expect("an engine of this machine");
    let mut wait = || assert_eq!(poller.wait(&mut events, None).expect("a wait"), READY);

    let before = BYTES.load(Relaxed);
    for (token, descriptor) in descriptors.iter().enumerate() {
        poller.add(&descriptor.as_raw_fd(), Interest::READ, token as u64).expect("a new descriptor");
    }
    wait();
    let bytes = BYTES.load(Relaxed) - before;

    let before = ALLOCATIONS.load(Relaxed);
    (0..WAITS).for_each(|_| wait());
    (bytes as f64 / REGISTRATIONS as f64, ALLOCATIONS.load(Relaxed) - before)
}

/// One descriptor each, where a socket pair takes two. Readable unless its count is 0.
fn eventfd(count: u32) -> OwnedFd {
    // SAFETY: takes no pointer.
    let fd = unsafe { libc::eventfd(count, libc::EFD_NONBLOCK) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just given us this number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
