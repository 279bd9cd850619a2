//! From `wake` to the return of `wait` in another thread, beside a bare eventfd and
//! `epoll_wait`; and how long a post takes.
//!
//! `wake [--quick]`. Two threads wake each other in turn, each asleep meanwhile: half a round is
//! one wake. Once on one core, where the kernel switches from one to the other, and once on two.
//! The bare pair is measured as it is usually written, level-triggered and read after each wake,
//! and with an edge, which needs no read. The first runs twice: how far its second ratio is from
//! 1 is how far to trust the others.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use omnipoll::{Events, Poller};
use omnipoll_bench::{figures, machine};

/// Rounds of one turn.
const ROUNDS: usize = 2_000;

/// Something to sleep on and be woken from.
trait Bed: Sync {
    fn wake(&self);
    fn sleep(&self, events: &mut Events);
}

impl Bed for Poller {
    fn wake(&self) {
        Poller::wake(self).expect("a wake");
    }

    fn sleep(&self, events: &mut Events) {
        assert_eq!(self.wait(events, None).expect("a wait"), 1);
    }
}

/// An eventfd that an epoll watches: what any program would write by hand.
struct Bare {
    eventfd: OwnedFd,
    set: OwnedFd,
    has_edge: bool,
}

impl Bare {
    fn new(has_edge: bool) -> Self {
        // SAFETY: no pointer is passed but the event's, which lives through its call; both
        // numbers are new.
        unsafe {
            let eventfd = OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK));
            let set = OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC));
            let edge = if has_edge { libc::EPOLLET } else { 0 };
            let mut event = libc::epoll_event { events: (libc::EPOLLIN | edge) as u32, u64: 0 };
            let add = libc::EPOLL_CTL_ADD;
            assert_eq!(libc::epoll_ctl(set.as_raw_fd(), add, eventfd.as_raw_fd(), &mut event), 0);
            Self { eventfd, set, has_edge }
        }
    }
}

impl Bed for Bare {
    fn wake(&self) {
        let one = 1u64;
        // SAFETY: `one` is readable for its length.
        let written = unsafe { libc::write(self.eventfd.as_raw_fd(), (&raw const one).cast(), 8) };
        assert_eq!(written, 8);
    }

    fn sleep(&self, _: &mut Events) {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let mut count = 0u64;
        // SAFETY: there is room for one event and one count.
        unsafe {
            assert_eq!(libc::epoll_wait(self.set.as_raw_fd(), &mut event, 1, -1), 1);
            if !self.has_edge {
                assert_eq!(libc::read(self.eventfd.as_raw_fd(), (&raw mut count).cast(), 8), 8);
            }
        }
    }
}

fn main() {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let turns = if is_quick { 15 } else { 101 };
    println!("Wake of a thread asleep in a wait, ns (median of {turns} turns of {ROUNDS} rounds)\n");
    println!(
        "{:12}{:>10}{:>10}{:>10}   ratio to bare, to edge, bare to bare",
        "", "bare", "edge", "omnipoll"
    );
    for (name, shared) in [("one core", true), ("two cores", false)] {
        if !shared && thread::available_parallelism().map_or(1, usize::from) < 2 {
            println!("{name:12}not measured: there is one");
            continue;
        }
        thread::scope(|scope| _ = scope.spawn(|| measure_wakes(name, shared, turns)));
    }
    println!("\nPosts taken by a thread that waits, ns each\n");
    for threads in [1, 4] {
        println!("{threads:>2} posting {:>9.1}", posts(threads, if is_quick { 200_000 } else { 1_000_000 }));
    }
}

fn measure_wakes(name: &str, shared: bool, turns: usize) {
    if shared {
        machine::settle_down();
    }
    let bare = [Bare::new(false), Bare::new(false)];
    let edge = [Bare::new(true), Bare::new(true)];
    let ours = [Poller::new().expect("a poller"), Poller::new().expect("a poller")];
    let mut times = [const { Vec::new() }; 3];
    let mut ratios = [const { Vec::new() }; 3];
    for _ in 0..turns {
        let turn = [rounds(&bare, shared), rounds(&edge, shared), rounds(&ours, shared)];
        let again = rounds(&bare, shared);
        times.iter_mut().zip(turn).for_each(|(all, one)| all.push(one));
        let compared = [2.0 * turn[2] / (turn[0] + again), turn[2] / turn[1], again / turn[0]];
        ratios.iter_mut().zip(compared).for_each(|(all, one)| all.push(one));
    }
    let [bare, edge, ours] = times.each_mut().map(|times| figures::middle(times));
    let [to_bare, to_edge, control] = ratios.each_mut().map(|ratios| figures::middle(ratios));
    println!("{name:12}{bare:>10.0}{edge:>10.0}{ours:>10.0}   {to_bare:.3}, {to_edge:.3}, {control:.3}");
}

/// Nanoseconds of half a round.
fn rounds(beds: &[impl Bed; 2], shared: bool) -> f64 {
    let [here, there] = beds;
    thread::scope(|scope| {
        // Threads inherit the core of the one that starts them.
        scope.spawn(|| {
            if !shared {
                machine::settle_down();
            }
            let mut events = Events::with_capacity(1);
            for _ in 0..ROUNDS {
                there.sleep(&mut events);
                here.wake();
            }
        });
        let mut events = Events::with_capacity(1);
        let begin = Instant::now();
        for _ in 0..ROUNDS {
            there.wake();
            here.sleep(&mut events);
        }
        begin.elapsed().as_nanos() as f64 / (2 * ROUNDS) as f64
    })
}

/// Nanoseconds a post when that many threads post as fast as they can.
fn posts(threads: usize, all: usize) -> f64 {
    let poller = Poller::new().expect("a poller");
    let enough = AtomicBool::new(false);
    let mut events = Events::with_capacity(1_024);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    if poller.post(1, 1).is_err() {
                        // The queue is full.
                        thread::yield_now();
                    }
                }
            });
        }
        let (begin, mut taken) = (Instant::now(), 0);
        while taken < all {
            taken += poller.wait(&mut events, Some(Duration::from_secs(1))).expect("a wait");
        }
        let elapsed = begin.elapsed();
        enough.store(true, Ordering::Relaxed);
        elapsed.as_nanos() as f64 / taken as f64
    })
}
