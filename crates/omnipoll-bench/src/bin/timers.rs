//! Timers: the library's heap, through its public interface, beside a hierarchical wheel.
//!
//! `timers [--quick]`. With 10, 10,000 and 1,000,000 others armed: the time to add one, to
//! cancel one, and to be told of one that is due; "again" cancels one of the others, chosen at
//! random, and adds another in its place. The wheel is given what the poller does about its
//! heap: a lock, a look at the clock, a note of the soonest. It sorts what falls into one of its
//! ticks (65,536 ns) and tells a timer up to a tick late; the heap has no ticks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use omnipoll::{Events, Poller};
use omnipoll_bench::{figures, machine, wheel::Wheel};

/// Timers that are added, and cancelled or told, in one turn.
const BATCH: usize = 1_000;

trait Timers {
    fn add(&self, delay: Duration, token: u64) -> u64;
    fn cancel(&self, id: u64);
    /// Takes all that are due and returns how many there were.
    fn expire(&mut self) -> usize;
}

struct Ours(Poller, Events);

impl Timers for Ours {
    fn add(&self, delay: Duration, token: u64) -> u64 {
        self.0.timer_add(delay, None, token).expect("a timer")
    }

    fn cancel(&self, id: u64) {
        self.0.timer_cancel(id).expect("an armed timer");
    }

    fn expire(&mut self) -> usize {
        self.0.wait(&mut self.1, Some(Duration::ZERO)).expect("a wait")
    }
}

struct OnWheel {
    wheel: Mutex<Wheel>,
    soonest: AtomicU64,
    epoch: Instant,
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
    fn add(&self, delay: Duration, token: u64) -> u64 {
        let mut wheel = self.wheel.lock().expect("a lock");
        let id = wheel.add(self.now() + delay.as_nanos() as u64, token);
        self.note(&wheel);
        id
    }

    fn cancel(&self, id: u64) {
        let mut wheel = self.wheel.lock().expect("a lock");
        assert!(wheel.cancel(id), "an armed timer");
        self.note(&wheel);
    }

    fn expire(&mut self) -> usize {
        let mut wheel = self.wheel.lock().expect("a lock");
        let now = self.now();
        let told = (0..BATCH).map_while(|_| wheel.expire(now)).map(std::hint::black_box).count();
        self.note(&wheel);
        told
    }
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % end
    }

    /// Between 10 and 1,000 seconds: longer than the measurement.
    fn long(&mut self) -> Duration {
        Duration::from_micros(10_000_000 + self.below(990_000_000))
    }

    fn shuffle<T>(&mut self, all: &mut [T]) {
        (1..all.len()).for_each(|index| all.swap(index, self.below(index as u64 + 1) as usize));
    }
}

fn main() {
    machine::settle_down();
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let turns = if is_quick { 21 } else { 101 };
    println!("Timers, Rust, ns each (median of {turns} turns of {BATCH})\n");
    println!("{:>9}  {:16}{:>9}{:>9}{:>9}{:>9}", "armed", "", "add", "cancel", "again", "expire");
    for armed in [10, 10_000, 1_000_000] {
        measure(armed, turns);
    }
}

fn measure(armed: usize, turns: usize) {
    let mut contenders: [(&str, Box<dyn Timers>); 2] = [
        ("omnipoll (heap)", Box::new(Ours(Poller::new().expect("a poller"), Events::with_capacity(BATCH)))),
        (
            "wheel",
            Box::new(OnWheel {
                wheel: Mutex::default(),
                soonest: AtomicU64::new(u64::MAX),
                epoch: Instant::now(),
            }),
        ),
    ];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut others: Vec<Vec<_>> = Vec::new();
    for (_, timers) in &contenders {
        others.push((0..armed).map(|token| timers.add(random.long(), token as u64)).collect());
    }
    let mut times = vec![[const { Vec::new() }; 4]; contenders.len()];
    for number in 0..turns * contenders.len() {
        let index = number % contenders.len();
        let turn = turn(contenders[index].1.as_mut(), &mut others[index], &mut random);
        times[index].iter_mut().zip(turn).for_each(|(all, one)| all.push(one));
    }
    for ((name, _), times) in contenders.iter().zip(&mut times) {
        let [add, cancel, again, expire] = times.each_mut().map(|times| figures::middle(times));
        println!("{armed:>9}  {name:16}{add:>9.1}{cancel:>9.1}{again:>9.1}{expire:>9.1}");
    }
}

/// Nanoseconds to add, to cancel, to do both to one of the others, and to be told.
fn turn(timers: &mut dyn Timers, others: &mut [u64], random: &mut Random) -> [f64; 4] {
    let delays: Vec<_> = (0..BATCH).map(|_| random.long()).collect();
    let mut ids = Vec::with_capacity(BATCH);
    let add = each(|| ids.extend(delays.iter().map(|&delay| timers.add(delay, 0))));
    random.shuffle(&mut ids);
    let cancel = each(|| ids.iter().for_each(|&id| timers.cancel(id)));

    let chosen: Vec<_> = delays.iter().map(|_| random.below(others.len() as u64) as usize).collect();
    let again = each(|| {
        for (&other, &delay) in chosen.iter().zip(&delays) {
            timers.cancel(others[other]);
            others[other] = timers.add(delay, other as u64);
        }
    });

    let begun = Instant::now();
    (0..BATCH).for_each(|token| _ = timers.add(Duration::from_nanos(random.below(1_000_000)), token as u64));
    // Until the last is due, for the wheel's tick too.
    while begun.elapsed() < Duration::from_millis(3) {
        std::hint::spin_loop();
    }
    let expire = each(|| {
        let mut told = 0;
        while told < BATCH {
            told += timers.expire();
        }
    });
    [add, cancel, again, expire]
}

fn each(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_nanos() as f64 / BATCH as f64
}
