//! The protocol by which nobody sleeps through what was brought, in every interleaving with
//! three preemptions at most: a model of `src/source/mod.rs`, step by step, for loom.
//!
//! | here | there |
//! |---|---|
//! | `wake` | `Poller::wake`: `Wake::request`, and for the first `Sources::notify` |
//! | `post` | `Poller::post`: the queue, then `Sources::notify` |
//! | `arm` | `Sources::timers_changed` |
//! | `would_sleep` | `Sources::sleeper`, then `Sources::sleep_limit` |
//! | `tell` | `Sources::tell`: `pending` cleared, then `Wake::answer` or the queue |
//! | `sleepers` | `Waiters`: who began less who ended |
//! | `bell` | the waker: a ring that nobody took stays |
//!
//! A system call that would sleep for ever is one that finds the bell silent when all is over:
//! it is given up then, and the model looks whether anything was left untold.
//!
//! loom takes a SeqCst access for an AcqRel one, so it can't judge the code itself; what SeqCst
//! adds is written here as a fence between the two steps of each side. Each model is also run with that fence left out, or with
//! the two steps the other way round: then loom must find the sleeper who was forgotten.

use loom::sync::atomic::{fence, AtomicBool, AtomicU64, Ordering::*};
use loom::sync::Arc;
use loom::thread;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// What may be got wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// Acquire and Release where SeqCst is needed.
    NoTotalOrder,
    /// Who brings something looks for sleepers first and says so afterwards.
    LooksTooEarly,
    /// Who goes to sleep looks for what there is first and is counted afterwards.
    SleepsUncounted,
    /// `pending` is cleared after what there is was taken.
    ClearsTooLate,
}

const UNARMED: u64 = u64::MAX;

struct Model {
    mistake: Mistake,
    asked: AtomicU64,
    pending: AtomicBool,
    soonest: AtomicU64,
    sleepers: AtomicU64,
    bell: AtomicBool,
}

impl Model {
    fn new(mistake: Mistake) -> Self {
        Self {
            mistake,
            asked: AtomicU64::new(0),
            pending: AtomicBool::new(false),
            soonest: AtomicU64::new(UNARMED),
            sleepers: AtomicU64::new(0),
            bell: AtomicBool::new(false),
        }
    }

    /// What SeqCst adds to the access before and the access after.
    fn order(&self) {
        if self.mistake != Mistake::NoTotalOrder {
            fence(SeqCst);
        }
    }

    /// A wake: counted, and noticed if it is the first.
    fn wake(&self) {
        if self.asked.fetch_add(1, AcqRel) == 0 {
            self.bring(|| !self.pending.swap(true, AcqRel));
        }
    }

    /// A post: whoever finds `pending` set leaves it at that.
    fn post(&self) {
        self.asked.fetch_add(1, AcqRel);
        self.bring(|| !self.pending.swap(true, AcqRel));
    }

    /// A timer that nobody who sleeps knows of.
    fn arm(&self, deadline: u64) {
        self.bring(|| self.soonest.swap(deadline, AcqRel) > deadline);
    }

    /// Says that something has come, and rings if that is new and somebody sleeps.
    fn bring(&self, say: impl Fn() -> bool) {
        let there = || self.sleepers.load(Acquire) > 0;
        let (is_new, somebody) = if self.mistake == Mistake::LooksTooEarly {
            let somebody = there();
            self.order();
            (say(), somebody)
        } else {
            let is_new = say();
            self.order();
            (is_new, there())
        };
        if is_new && somebody {
            // write(2) and what epoll does with it are ordered by the kernel's locks.
            self.bell.swap(true, AcqRel);
        }
    }

    /// Whether one who looks would sleep for ever, unless rung for.
    fn would_sleep(&self) -> bool {
        let uncounted = self.mistake == Mistake::SleepsUncounted;
        if !uncounted {
            self.sleepers.fetch_add(1, AcqRel);
            self.order();
        }
        let quiet = !self.pending.load(Acquire) && self.soonest.load(Acquire) == UNARMED;
        if uncounted {
            self.order();
            self.sleepers.fetch_add(1, AcqRel);
        }
        quiet
    }

    /// Takes what there is: how many wakes.
    fn tell(&self) -> u64 {
        let late = self.mistake == Mistake::ClearsTooLate;
        if !late {
            self.pending.store(false, Release);
            self.order();
        }
        let told = self.asked.swap(0, AcqRel);
        if late {
            self.pending.store(false, Release);
        }
        told
    }

    /// A wait that is told at once or goes to sleep. `None` when it sleeps, and nobody has rung.
    fn wait(&self) -> Option<u64> {
        if self.would_sleep() && !self.bell.swap(false, AcqRel) {
            return None;
        }
        self.sleepers.fetch_sub(1, AcqRel);
        Some(self.tell())
    }
}

/// Runs the model in every interleaving.
fn explore(mistake: Mistake, model: impl Fn(Mistake) + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    // Without a bound, three threads take minutes.
    builder.preemption_bound = Some(3);
    builder.check(move || model(mistake));
}

/// Whether loom finds an interleaving in which `model` panics.
fn fails(mistake: Mistake, model: impl Fn(Mistake) + Copy + Send + Sync + 'static) -> bool {
    catch_unwind(AssertUnwindSafe(|| explore(mistake, model))).is_err()
}

/// One wakes, one waits: a waiter who sleeps was rung for, or will be.
fn a_wake_reaches_one_who_goes_to_sleep(mistake: Mistake) {
    let model = Arc::new(Model::new(mistake));
    let waker = {
        let model = model.clone();
        thread::spawn(move || model.wake())
    };
    let told = model.wait();
    waker.join().unwrap();
    if told != Some(1) {
        // It sleeps still, or it was told nothing and will look again.
        let knows = model.bell.load(Acquire) || (told.is_some() && model.pending.load(Acquire));
        assert!(knows, "a wake that nobody is told of");
    }
}

fn wakes_are_counted(mistake: Mistake) {
    two_bring(mistake, Model::wake);
}

fn posts_are_counted(mistake: Mistake) {
    two_bring(mistake, Model::post);
}

/// Two bring something while one waits: each is told once, or somebody will look.
fn two_bring(mistake: Mistake, what: fn(&Model)) {
    let model = Arc::new(Model::new(mistake));
    let bringers = [(); 2].map(|()| {
        let model = model.clone();
        thread::spawn(move || what(&model))
    });
    let told = model.wait();
    bringers.into_iter().for_each(|bringer| bringer.join().unwrap());
    let left = model.asked.load(Acquire);
    assert_eq!(told.unwrap_or(0) + left, 2);
    let knows = model.bell.load(Acquire) || (told.is_some() && model.pending.load(Acquire));
    assert!(left == 0 || knows, "something that nobody is told of");
}

/// One arms the first timer while one goes to sleep: it sleeps no longer than the timer says.
fn a_timer_shortens_a_sleep(mistake: Mistake) {
    let model = Arc::new(Model::new(mistake));
    let armer = {
        let model = model.clone();
        thread::spawn(move || model.arm(1))
    };
    let sleeps_for_ever = model.would_sleep();
    armer.join().unwrap();
    assert!(!sleeps_for_ever || model.bell.load(Acquire), "nobody looks at the timer");
}

#[test]
fn nobody_sleeps_through_a_wake() {
    explore(Mistake::None, a_wake_reaches_one_who_goes_to_sleep);
}

#[test]
fn every_wake_is_counted_once() {
    explore(Mistake::None, wakes_are_counted);
}

#[test]
fn every_post_is_counted_once() {
    explore(Mistake::None, posts_are_counted);
}

#[test]
fn nobody_sleeps_through_a_timer() {
    explore(Mistake::None, a_timer_shortens_a_sleep);
}

#[test]
fn each_mistake_is_found() {
    use Mistake::*;
    for mistake in [NoTotalOrder, LooksTooEarly, SleepsUncounted] {
        assert!(fails(mistake, a_wake_reaches_one_who_goes_to_sleep));
        assert!(fails(mistake, a_timer_shortens_a_sleep));
    }
    assert!(fails(ClearsTooLate, wakes_are_counted));
    assert!(fails(ClearsTooLate, posts_are_counted));
}
