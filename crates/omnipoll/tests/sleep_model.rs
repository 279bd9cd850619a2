//! The lost-wake protocol of `src/source/mod.rs`, in every interleaving with three preemptions at
//! most: a model for loom of its steps, under the same numbers.
//!
//! | step | here | there |
//! |---|---|---|
//! | N1 | `requested` grows | `Wake::request`, or the queue of `Poller::post` |
//! | N2, N3 | `notify`, `arm` | `Sources::notify`, `Sources::timers_changed` |
//! | W1, W2 | `would_sleep` | `Sources::begin_wait`, then `Sources::sleep_limit` |
//! | W3 | `wait` | the system call: the waker's descriptor stays readable until it is drained |
//! | W4 | `wait` | the guard is dropped |
//! | W5, W6 | `deliver` | `Sources::deliver`: `pending` cleared, then `Wake::take` or the queue |
//! | E1, E2 | `embed` | `Sources::embed` |
//!
//! A system call that would sleep indefinitely is one that finds the waker unreadable when all is
//! over: it is given up then, and the model checks whether anything was left undelivered.
//!
//! loom takes a SeqCst access for an AcqRel one, so it can't judge the code itself; what SeqCst
//! adds is written here as a fence between the two steps of each side. Each model is also run
//! with that fence left out, or with the two steps in the other order: then loom must find the
//! waiter that was forgotten.

use loom::sync::atomic::{fence, AtomicBool, AtomicU64, Ordering::*};
use loom::sync::Arc;
use loom::thread;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// A mistake in the protocol.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// Acquire and Release where SeqCst is needed.
    NoTotalOrder,
    /// The notifier does N3 before N2.
    WakesBeforeAnnouncing,
    /// The waiter does W2 before W1.
    ChecksBeforeRegistering,
    /// The waiter does W6 before W5.
    TakesBeforeClearing,
}

const UNARMED: u64 = u64::MAX;

struct Model {
    mistake: Mistake,
    requested: AtomicU64,
    pending: AtomicBool,
    soonest: AtomicU64,
    waiters: AtomicU64,
    has_outer_loop: AtomicBool,
    waker: AtomicBool,
}

impl Model {
    fn new(mistake: Mistake) -> Self {
        Self {
            mistake,
            requested: AtomicU64::new(0),
            pending: AtomicBool::new(false),
            soonest: AtomicU64::new(UNARMED),
            waiters: AtomicU64::new(0),
            has_outer_loop: AtomicBool::new(false),
            waker: AtomicBool::new(false),
        }
    }

    /// What SeqCst adds to the access before and the access after.
    fn order(&self) {
        if self.mistake != Mistake::NoTotalOrder {
            fence(SeqCst);
        }
    }

    /// `Poller::wake`: only the first since the last event notifies.
    fn wake(&self) {
        if self.requested.fetch_add(1, AcqRel) == 0 {
            self.notify();
        }
    }

    /// `Poller::post`.
    fn post(&self) {
        self.requested.fetch_add(1, AcqRel);
        self.notify();
    }

    fn notify(&self) {
        self.announce(|| !self.pending.swap(true, AcqRel));
    }

    /// A timer that no waiter knows of.
    fn arm(&self, deadline: u64) {
        self.announce(|| self.soonest.swap(deadline, AcqRel) > deadline);
    }

    /// N2 and N3; `announce` returns whether it was news.
    fn announce(&self, announce: impl Fn() -> bool) {
        let any_waiter = || self.waiters.load(Acquire) > 0 || self.has_outer_loop.load(Acquire);
        let (is_new, any_waiter) = if self.mistake == Mistake::WakesBeforeAnnouncing {
            let any_waiter = any_waiter();
            self.order();
            (announce(), any_waiter)
        } else {
            let is_new = announce();
            self.order();
            (is_new, any_waiter())
        };
        if is_new && any_waiter {
            // write(2) and what epoll does with it are ordered by the kernel's locks.
            self.waker.swap(true, AcqRel);
        }
    }

    /// W1 and W2: whether the wait would sleep indefinitely, unless it is woken.
    fn would_sleep(&self) -> bool {
        let register_first = self.mistake != Mistake::ChecksBeforeRegistering;
        if register_first {
            self.waiters.fetch_add(1, AcqRel);
            self.order();
        }
        let idle = !self.pending.load(Acquire) && self.soonest.load(Acquire) == UNARMED;
        if !register_first {
            self.order();
            self.waiters.fetch_add(1, AcqRel);
        }
        idle
    }

    /// W5 and W6: how many wakes or posts were delivered.
    fn deliver(&self) -> u64 {
        let clear_first = self.mistake != Mistake::TakesBeforeClearing;
        if clear_first {
            self.pending.store(false, Release);
            self.order();
        }
        let delivered = self.requested.swap(0, AcqRel);
        if !clear_first {
            self.pending.store(false, Release);
        }
        delivered
    }

    /// A wait that returns at once or goes to sleep. `None` when it sleeps, and was not woken.
    fn wait(&self) -> Option<u64> {
        if self.would_sleep() && !self.waker.swap(false, AcqRel) {
            return None;
        }
        self.waiters.fetch_sub(1, AcqRel);
        Some(self.deliver())
    }

    /// E1 and E2 for what came before: an outer loop will look when the waker is readable.
    fn embed(&self) {
        let register_first = self.mistake != Mistake::ChecksBeforeRegistering;
        if register_first {
            self.has_outer_loop.store(true, Release);
            self.order();
        }
        let pending = self.pending.load(Acquire);
        if !register_first {
            self.order();
            self.has_outer_loop.store(true, Release);
        }
        if pending {
            self.waker.swap(true, AcqRel);
        }
    }

    /// The outer loop looks, if the descriptor is readable: how many wakes its wait delivered.
    fn look_in_outer_loop(&self) -> u64 {
        if self.waker.load(Acquire) {
            self.would_sleep();
            self.waker.swap(false, AcqRel);
            self.waiters.fetch_sub(1, AcqRel);
            return self.deliver();
        }
        0
    }

    /// Whether a thread will look again: the waker is readable, or the wait that ended did so
    /// before `pending` was set.
    fn will_look(&self, delivered: Option<u64>) -> bool {
        self.waker.load(Acquire) || (delivered.is_some() && self.pending.load(Acquire))
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

/// One wakes, one waits: a waiter that sleeps was woken, or will be.
fn a_wake_reaches_a_waiter_that_goes_to_sleep(mistake: Mistake) {
    let model = Arc::new(Model::new(mistake));
    let notifier = {
        let model = model.clone();
        thread::spawn(move || model.wake())
    };
    let delivered = model.wait();
    notifier.join().unwrap();
    if delivered != Some(1) {
        assert!(model.will_look(delivered), "a wake that is never delivered");
    }
}

fn wakes_are_counted(mistake: Mistake) {
    two_notify(mistake, Model::wake);
}

fn posts_are_counted(mistake: Mistake) {
    two_notify(mistake, Model::post);
}

/// Two notify while one waits: each is delivered once, or a thread will look.
fn two_notify(mistake: Mistake, what: fn(&Model)) {
    let model = Arc::new(Model::new(mistake));
    let notifiers = [(); 2].map(|()| {
        let model = model.clone();
        thread::spawn(move || what(&model))
    });
    let delivered = model.wait();
    notifiers.into_iter().for_each(|notifier| notifier.join().unwrap());
    let left = model.requested.load(Acquire);
    assert_eq!(delivered.unwrap_or(0) + left, 2);
    assert!(left == 0 || model.will_look(delivered), "something that is never delivered");
}

/// Two wake while the poller is embedded, and the outer loop looks: each wake is delivered, or the
/// descriptor is readable.
fn an_outer_loop_is_told(mistake: Mistake) {
    let model = Arc::new(Model::new(mistake));
    let notifiers = [(); 2].map(|()| {
        let model = model.clone();
        thread::spawn(move || model.post())
    });
    model.embed();
    let delivered = model.look_in_outer_loop();
    notifiers.into_iter().for_each(|notifier| notifier.join().unwrap());
    let left = model.requested.load(Acquire);
    assert_eq!(delivered + left, 2);
    assert!(left == 0 || model.waker.load(Acquire), "something for which the descriptor is not readable");
}

/// One arms the first timer while one goes to sleep: it sleeps no longer than the timer allows.
fn a_timer_shortens_a_sleep(mistake: Mistake) {
    let model = Arc::new(Model::new(mistake));
    let notifier = {
        let model = model.clone();
        thread::spawn(move || model.arm(1))
    };
    let sleeps_indefinitely = model.would_sleep();
    notifier.join().unwrap();
    assert!(!sleeps_indefinitely || model.waker.load(Acquire), "a timer that no wait knows of");
}

#[test]
fn no_waiter_sleeps_through_a_wake() {
    explore(Mistake::None, a_wake_reaches_a_waiter_that_goes_to_sleep);
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
fn no_waiter_sleeps_through_a_timer() {
    explore(Mistake::None, a_timer_shortens_a_sleep);
}

#[test]
fn no_outer_loop_sleeps_through_a_post() {
    explore(Mistake::None, an_outer_loop_is_told);
}

#[test]
fn each_mistake_is_found() {
    use Mistake::*;
    for mistake in [NoTotalOrder, WakesBeforeAnnouncing, ChecksBeforeRegistering] {
        assert!(fails(mistake, a_wake_reaches_a_waiter_that_goes_to_sleep));
        assert!(fails(mistake, a_timer_shortens_a_sleep));
        assert!(fails(mistake, an_outer_loop_is_told));
    }
    assert!(fails(TakesBeforeClearing, wakes_are_counted));
    assert!(fails(TakesBeforeClearing, posts_are_counted));
    assert!(fails(TakesBeforeClearing, an_outer_loop_is_told));
}
