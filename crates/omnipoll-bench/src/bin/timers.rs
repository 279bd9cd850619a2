//! What a timer costs through Rust crates. The C program `timers.c` says what is measured, and has
//! the same arguments: `timers ARMED MILLISECONDS`.
//!
//! Besides tokio's, a hierarchical wheel stands beside the library's heap. It is given what the
//! poller does about its heap: a lock, a look at the clock, a note of the soonest. It sorts what
//! falls into one of its ticks (65,536 ns) and expires a timer up to a tick late; the heap has no
//! ticks, tokio's are milliseconds.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use omnipoll::{Events, Poller};
use omnipoll_bench::{figures, machine, random::Random, wheel::Wheel};

/// Timers that are armed, and cancelled or expired, in one turn.
const BATCH: usize = 1_000;
const FIGURES: [&str; 4] = ["arm_ns", "cancel_ns", "again_ns", "expire_ns"];

/// Timers by their numbers.
trait Timers {
    fn arm(&mut self, timer: usize, delay: Duration);
    fn cancel(&mut self, timer: usize);
    /// Runs what is due, without waiting, and says how much it was.
    fn run(&mut self) -> usize;
}

struct Ours {
    poller: Poller,
    events: Events,
    ids: Vec<u64>,
}

impl Timers for Ours {
    fn arm(&mut self, timer: usize, delay: Duration) {
        self.ids[timer] = self.poller.timer_add(delay, None, timer as u64).expect("a timer");
    }

    fn cancel(&mut self, timer: usize) {
        self.poller.timer_cancel(self.ids[timer]).expect("an armed timer");
    }

    fn run(&mut self) -> usize {
        self.poller.wait(&mut self.events, Some(Duration::ZERO)).expect("a wait")
    }
}

struct OnWheel {
    wheel: Mutex<Wheel>,
    soonest: AtomicU64,
    epoch: Instant,
    ids: Vec<u64>,
}

impl OnWheel {
    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn note(&self, wheel: &Wheel) {
        self.soonest.swap(wheel.next().unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Timers for OnWheel {
    fn arm(&mut self, timer: usize, delay: Duration) {
        let mut wheel = self.wheel.lock().expect("a lock");
        self.ids[timer] = wheel.add(self.now() + delay.as_nanos() as u64, timer as u64);
        self.note(&wheel);
    }

    fn cancel(&mut self, timer: usize) {
        let mut wheel = self.wheel.lock().expect("a lock");
        assert!(wheel.cancel(self.ids[timer]), "an armed timer");
        self.note(&wheel);
    }

    fn run(&mut self) -> usize {
        let mut wheel = self.wheel.lock().expect("a lock");
        let now = self.now();
        let expired = (0..BATCH).map_while(|_| wheel.expire(now)).map(std::hint::black_box).count();
        self.note(&wheel);
        expired
    }
}

struct Tokio {
    runtime: tokio::runtime::Runtime,
    expired: Arc<Expired>,
    waker: Waker,
    sleeps: Vec<Option<Pin<Box<tokio::time::Sleep>>>>,
}

#[derive(Default)]
struct Expired(AtomicUsize);

impl Wake for Expired {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Timers for Tokio {
    fn arm(&mut self, timer: usize, delay: Duration) {
        let _entered = self.runtime.enter();
        let mut sleep = Box::pin(tokio::time::sleep(delay));
        // The first poll arms it.
        assert!(sleep.as_mut().poll(&mut Context::from_waker(&self.waker)).is_pending());
        self.sleeps[timer] = Some(sleep);
    }

    fn cancel(&mut self, timer: usize) {
        self.sleeps[timer] = None;
    }

    fn run(&mut self) -> usize {
        self.runtime.block_on(tokio::task::yield_now());
        self.expired.0.swap(0, Ordering::Relaxed)
    }
}

fn contenders(timers: usize) -> Vec<(&'static str, Box<dyn Timers>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let expired = Arc::new(Expired::default());
    let ours = Ours {
        poller: Poller::new().expect("a poller"),
        events: Events::with_capacity(BATCH),
        ids: vec![0; timers],
    };
    let wheel = OnWheel {
        wheel: Mutex::default(),
        soonest: AtomicU64::new(u64::MAX),
        epoch: Instant::now(),
        ids: vec![0; timers],
    };
    let sleeps = (0..timers).map(|_| None).collect();
    let tokio = Tokio { runtime, waker: Waker::from(expired.clone()), expired, sleeps };
    vec![
        ("omnipoll, Rust", Box::new(ours)),
        ("tokio, Rust", Box::new(tokio)),
        ("a hierarchical wheel, Rust", Box::new(wheel)),
    ]
}

/// Between 10 and 1,000 seconds: longer than the measurement.
fn long(random: &mut Random) -> Duration {
    Duration::from_micros(10_000_000 + random.below(990_000_000))
}

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|word| word.parse().expect("a number")).collect();
    let &[armed, milliseconds] = numbers.as_slice() else {
        eprintln!("usage: timers ARMED MILLISECONDS");
        std::process::exit(2);
    };
    machine::settle_down();
    let mut contenders = contenders(armed + BATCH);
    let mut random = Random::new();
    for (_, timers) in &mut contenders {
        (0..armed).for_each(|timer| timers.arm(timer, long(&mut random)));
    }
    let mut times = vec![[const { Vec::new() }; FIGURES.len()]; contenders.len()];
    let (begin, budget) = (Instant::now(), Duration::from_millis(milliseconds as u64));
    for sweep in 0.. {
        if sweep >= 3 && begin.elapsed() > budget {
            break;
        }
        for index in 0..contenders.len() {
            let index = if sweep % 2 == 0 { index } else { contenders.len() - 1 - index };
            let turn = turn(contenders[index].1.as_mut(), armed, &mut random);
            times[index].iter_mut().zip(turn).for_each(|(all, one)| all.push(one));
        }
    }
    for ((name, _), times) in contenders.iter().zip(times) {
        figures::print(name, &FIGURES.into_iter().zip(times).collect::<Vec<_>>());
    }
}

/// Nanoseconds to arm, to cancel, to do both to one of the others, and to expire.
fn turn(timers: &mut dyn Timers, armed: usize, random: &mut Random) -> [f64; FIGURES.len()] {
    let delays: Vec<_> = (0..BATCH).map(|_| long(random)).collect();
    let mut order: Vec<_> = (armed..armed + BATCH).collect();
    let arm = each(|| order.iter().zip(&delays).for_each(|(&timer, &delay)| timers.arm(timer, delay)));
    random.shuffle(&mut order);
    let cancel = each(|| order.iter().for_each(|&timer| timers.cancel(timer)));

    let chosen: Vec<_> = delays.iter().map(|_| random.below(armed as u64) as usize).collect();
    let again = each(|| {
        for (&other, &delay) in chosen.iter().zip(&delays) {
            timers.cancel(other);
            timers.arm(other, delay);
        }
    });

    let begun = Instant::now();
    order.iter().for_each(|&timer| timers.arm(timer, Duration::from_nanos(1 + random.below(1_000_000))));
    // Until the last is due, for every library's tick too.
    while begun.elapsed() < Duration::from_millis(4) {
        std::hint::spin_loop();
    }
    let expire = each(|| {
        let mut expired = 0;
        while expired < BATCH {
            expired += timers.run();
        }
    });
    [arm, cancel, again, expire]
}

fn each(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_nanos() as f64 / BATCH as f64
}
