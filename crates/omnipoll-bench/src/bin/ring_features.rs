//! What newer features of io_uring save a ring like that of a loop: each beside the same work without it.
//!
//! `ring_features [--quick]`. One round is what a loop with one busy connection does: one system call that
//! submits a send and waits, with a timeout, for what the other end of a socket pair receives. Prints the
//! thread's processor time for a round in nanoseconds and its ratio to the ring without any of them,
//! medians of turns, in a process with one thread and with several, whose descriptors cost more to look up.
//! Then how many completions 1 MiB in messages of 1 KiB takes with and without bundles of receive buffers.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{cqueue, opcode, squeue, IoUring};
use omnipoll_bench::machine;
use omnipoll_bench::turns::{median, median_ratio};

/// Rounds of one turn.
const ROUNDS: usize = 2000;

/// `IORING_*` of linux/io_uring.h.
const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const ENTER_EXT_ARG_REG: u32 = 1 << 6;
const ENTER_NO_IOWAIT: u32 = 1 << 7;
const REGISTER_RING_FDS: u32 = 20;
const REGISTER_ENABLE_RINGS: u32 = 12;
const REGISTER_MEM_REGION: u32 = 34;

#[derive(Clone, Copy, PartialEq)]
enum Feature {
    None,
    RegisteredRing,
    NoSqarray,
    RegisteredWait,
    NoIowait,
    All,
}

const FEATURES: [(Feature, &str); 6] = [
    (Feature::None, "none of them"),
    (Feature::RegisteredRing, "IORING_REGISTER_RING_FDS"),
    (Feature::NoSqarray, "IORING_SETUP_NO_SQARRAY"),
    (Feature::RegisteredWait, "IORING_ENTER_EXT_ARG_REG"),
    (Feature::NoIowait, "IORING_ENTER_NO_IOWAIT"),
    (Feature::All, "all of them"),
];

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct WaitArgument {
    mask: u64,
    mask_size: u32,
    min_wait: u32,
    timeout: *const libc::timespec,
}

/// `struct io_uring_reg_wait`, which lies in a page that is registered.
#[repr(C, align(4096))]
struct RegisteredWait {
    timeout: libc::timespec,
    min_wait: u32,
    flags: u32,
    mask: u64,
    mask_size: u32,
    padding: [u32; 3],
    more: [u64; 2],
}

struct Loop {
    ring: IoUring,
    descriptor: i32,
    flags: u32,
    timeout: libc::timespec,
    registered_wait: Box<RegisteredWait>,
    ours: UnixStream,
    theirs: UnixStream,
    message: [u8; 64],
    received: Box<[u8; 64]>,
}

fn register<T>(ring: &IoUring, operation: u32, argument: *mut T, count: u32) -> io::Result<i32> {
    let ring = ring.as_raw_fd();
    // SAFETY: the callers pass what the operation takes, which lives through the call, or as long as the ring.
    match unsafe { libc::syscall(libc::SYS_io_uring_register, ring, operation, argument, count) } {
        error if error < 0 => Err(io::Error::last_os_error()),
        result => Ok(result as i32),
    }
}

impl Loop {
    fn new(feature: Feature) -> io::Result<Self> {
        let has = |one| feature == one || feature == Feature::All;
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun();
        if has(Feature::NoSqarray) {
            builder.setup_no_sqarray();
        }
        if has(Feature::RegisteredWait) {
            builder.setup_r_disabled();
        }
        let ring = builder.build(64)?;
        let timeout = libc::timespec { tv_sec: 1, tv_nsec: 0 };
        let mut registered_wait = Box::new(RegisteredWait {
            timeout,
            min_wait: 0,
            flags: 1,
            mask: 0,
            mask_size: 0,
            padding: [0; 3],
            more: [0; 2],
        });
        let mut flags = ENTER_GETEVENTS | ENTER_EXT_ARG;
        if has(Feature::NoIowait) {
            flags |= ENTER_NO_IOWAIT;
        }
        if has(Feature::RegisteredWait) {
            // struct io_uring_region_desc: address, size, IORING_MEM_REGION_TYPE_USER.
            let mut region = [(&raw mut *registered_wait) as u64, 4096, 1, 0, 0, 0, 0, 0];
            // struct io_uring_mem_region_reg: IORING_MEM_REGION_REG_WAIT_ARG.
            let mut argument = [region.as_mut_ptr() as u64, 1, 0, 0];
            register(&ring, REGISTER_MEM_REGION, argument.as_mut_ptr(), 1)?;
            register(&ring, REGISTER_ENABLE_RINGS, std::ptr::null_mut::<u8>(), 0)?;
            flags |= ENTER_EXT_ARG_REG;
        }
        let mut descriptor = ring.as_raw_fd();
        if has(Feature::RegisteredRing) {
            // struct io_uring_rsrc_update: any place, and the descriptor.
            let mut update = [u64::from(u32::MAX), descriptor as u64];
            register(&ring, REGISTER_RING_FDS, update.as_mut_ptr(), 1)?;
            descriptor = update[0] as i32;
            flags |= ENTER_REGISTERED_RING;
        }
        let (ours, theirs) = UnixStream::pair()?;
        let (message, received) = ([7; 64], Box::new([0; 64]));
        Ok(Self { ring, descriptor, flags, timeout, registered_wait, ours, theirs, message, received })
    }

    fn push(&mut self, request: &squeue::Entry) {
        // SAFETY: the buffers live as long as the ring, and each request has ended when its round has.
        unsafe { self.ring.submission().push(request) }.expect("room for a request");
    }

    fn round(&mut self) -> io::Result<()> {
        let receive = opcode::Recv::new(Fd(self.theirs.as_raw_fd()), self.received.as_mut_ptr(), 64).build();
        self.push(&receive);
        let send = opcode::Send::new(Fd(self.ours.as_raw_fd()), self.message.as_ptr(), 64).build();
        self.push(&send);
        let argument = WaitArgument { mask: 0, mask_size: 0, min_wait: 0, timeout: &self.timeout };
        let (argument, size) = match self.flags & ENTER_EXT_ARG_REG {
            0 => (&raw const argument, size_of::<WaitArgument>()),
            // Where in the region it lies, and how long it is in the kernel's header.
            _ => (std::ptr::null(), 64),
        };
        let (descriptor, flags) = (self.descriptor, self.flags);
        // SAFETY: the argument lives through the call.
        let entered =
            unsafe { libc::syscall(libc::SYS_io_uring_enter, descriptor, 2, 2, flags, argument, size) };
        if entered < 0 {
            return Err(io::Error::last_os_error());
        }
        assert_eq!(self.ring.completion().map(|done| done.result()).sum::<i32>(), 128, "both are done");
        debug_assert_eq!(self.registered_wait.flags, 1);
        Ok(())
    }

    /// Nanoseconds of this thread's processor time for each round.
    fn turn(&mut self) -> io::Result<f64> {
        let begin = machine::thread_time();
        for _ in 0..ROUNDS {
            self.round()?;
        }
        Ok((machine::thread_time() - begin) / ROUNDS as f64)
    }
}

fn compare(turns: usize) {
    let mut loops: Vec<_> = FEATURES.iter().map(|&(feature, name)| (name, Loop::new(feature))).collect();
    let mut times = vec![Vec::new(); loops.len()];
    for turn in 0..=turns {
        for ((_, each), times) in loops.iter_mut().zip(&mut times) {
            let Ok(each) = each else { continue };
            let time = each.turn().expect("a round");
            // The first is for the caches.
            if turn > 0 {
                times.push(time);
            }
        }
    }
    for ((name, each), own) in loops.iter().zip(&times) {
        match each {
            Err(error) => println!("  {name:<26} not here: {error}"),
            Ok(_) => {
                let ratio = median_ratio(own, &times[0]);
                println!("  {name:<26} {:6.0} ns  {ratio:.3}", median(own.clone()));
            }
        }
    }
}

/// How many completions 1 MiB takes that has come in messages of 1 KiB, each drained at 16 of them.
fn count_completions(bundle: bool) -> io::Result<usize> {
    const BUFFERS: u16 = 16;
    const BUFFER: usize = 64 * 1024;
    const INCREMENTAL: u16 = 2;
    const BUNDLE: u16 = 1 << 4;
    /// The offset of `ioprio` in struct io_uring_sqe.
    const FLAGS: usize = 2;
    let mut ring: IoUring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(64)?;
    let layout = std::alloc::Layout::from_size_align(4096, 4096).expect("a page");
    // SAFETY: the layout is not empty.
    let entries = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<BufRingEntry>();
    let memory = vec![0u8; usize::from(BUFFERS) * BUFFER];
    for index in 0..BUFFERS {
        // SAFETY: the page has room for that many, and nobody else uses it yet.
        let entry = unsafe { &mut *entries.add(index.into()) };
        entry.set_addr(memory.as_ptr() as u64 + (usize::from(index) * BUFFER) as u64);
        entry.set_len(BUFFER as u32);
        entry.set_bid(index);
    }
    // SAFETY: the page and the buffers live until the ring is dropped.
    unsafe {
        BufRingEntry::tail(entries).cast_mut().write(BUFFERS);
        ring.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS, 0, INCREMENTAL)?;
    }
    let (ours, theirs) = UnixStream::pair()?;
    let mut receive = opcode::RecvMulti::new(Fd(theirs.as_raw_fd()), 0).build();
    if bundle {
        // SAFETY: an entry is a struct io_uring_sqe, whose `ioprio` are two bytes there.
        unsafe {
            let flags = (&raw mut receive).cast::<u8>().add(FLAGS).cast::<u16>();
            flags.write_unaligned(flags.read_unaligned() | BUNDLE);
        }
    }
    let (mut received, mut completions, mut is_receiving) = (0, 0, false);
    while received < 1 << 20 {
        for _ in 0..16 {
            io::Write::write_all(&mut &ours, &[7; 1024])?;
        }
        let enough = received + (16 << 10);
        while received < enough {
            if !std::mem::replace(&mut is_receiving, true) {
                // SAFETY: the buffers live until the ring is dropped.
                unsafe { ring.submission().push(&receive) }.expect("room for a request");
            }
            ring.submit_and_wait(1)?;
            for done in ring.completion() {
                assert!(done.result() > 0, "{}", io::Error::from_raw_os_error(-done.result()));
                received += done.result() as usize;
                completions += 1;
                is_receiving = cqueue::more(done.flags());
            }
        }
    }
    drop(ring);
    // SAFETY: allocated above by this layout, and the ring is gone.
    unsafe { std::alloc::dealloc(entries.cast(), layout) };
    Ok(completions)
}

fn main() -> io::Result<()> {
    let turns = if std::env::args().any(|word| word == "--quick") { 5 } else { 101 };
    machine::settle_down();
    println!("one thread");
    compare(turns);
    let (end, ended) = mpsc::channel::<()>();
    let idle = thread::spawn(move || ended.recv().is_err());
    println!("several threads");
    compare(turns);
    drop(end);
    idle.join().expect("an idle thread");
    for (bundle, name) in [(false, "one buffer"), (true, "bundles")] {
        match count_completions(bundle) {
            Ok(count) => println!("1 MiB in messages of 1 KiB, {name}: {count} completions"),
            Err(error) => println!("1 MiB in messages of 1 KiB, {name}: {error}"),
        }
    }
    Ok(())
}
