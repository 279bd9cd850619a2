//! When an event of epoll's may be decoded without a look at the registry, in every interleaving:
//! a model of `src/engine/epoll/`, for loom.
//!
//! | here | there |
//! |---|---|
//! | `wait` | `Epoll::wait`: the clock, the system call, `Epoll::is_unchanged_since` |
//! | `remove` | `Epoll::remove`: `EPOLL_CTL_DEL`, the registry, `Epoll::note_change` |
//! | `rebuild_set` | `Epoll::rebuild_set`: a set without stale entries, `Epoll::note_rebuilt` |
//!
//! The kernel's set is one registration behind a lock, as it is in the kernel. Each model is
//! also run with a step left out or two in the other order: then loom must find the event of a
//! removed registration that was delivered.

use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering::*};
use loom::sync::{Arc, Mutex};
use loom::thread;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// A mistake in the protocol.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// A number that was closed before it was removed is taken for removed.
    ForgetsTheStaleEntry,
    /// The clock stands still when a registration ends.
    KeepsTheClock,
    /// `may_have_stale` is cleared before the clock moves.
    ClearsTooEarly,
}

struct Model {
    mistake: Mistake,
    /// Whether the kernel reports the registration.
    kernel: Mutex<bool>,
    clock: AtomicU32,
    may_have_stale: AtomicBool,
}

impl Model {
    fn new(mistake: Mistake, may_have_stale: bool) -> Arc<Self> {
        Arc::new(Self {
            mistake,
            kernel: Mutex::new(true),
            clock: AtomicU32::new(0),
            may_have_stale: AtomicBool::new(may_have_stale),
        })
    }

    /// Whether a wait delivers an event of the registration without a look at the registry. `during` is between the system
    /// call and the look at the clock.
    fn wait(&self, during: impl FnOnce()) -> bool {
        let clock = self.clock.load(Acquire);
        let found = *self.kernel.lock().unwrap();
        during();
        let unchanged = !self.may_have_stale.load(Acquire) && self.clock.load(Acquire) == clock;
        found && unchanged
    }

    /// Removes the registration. A descriptor closed before, whose duplicate lives on, stays in
    /// the kernel's set.
    fn remove(&self, closed_before: bool) {
        if !closed_before {
            *self.kernel.lock().unwrap() = false;
        } else if self.mistake != Mistake::ForgetsTheStaleEntry {
            self.may_have_stale.store(true, Release);
        }
        if self.mistake != Mistake::KeepsTheClock {
            self.clock.store(1, Release);
        }
    }

    /// Rebuilds the set without the stale entry.
    fn rebuild_set(&self) {
        *self.kernel.lock().unwrap() = false;
        if self.mistake == Mistake::ClearsTooEarly {
            self.may_have_stale.store(false, Release);
            self.clock.store(1, Release);
        } else {
            self.clock.store(1, Release);
            self.may_have_stale.store(false, Release);
        }
    }
}

/// A wait that begins after a removal has returned delivers no event of it.
fn removed_before(mistake: Mistake, closed_before: bool) {
    let model = Model::new(mistake, false);
    let removed = Arc::new(AtomicBool::new(false));
    let remover = {
        let (model, removed) = (model.clone(), removed.clone());
        thread::spawn(move || {
            model.remove(closed_before);
            removed.store(true, Release);
        })
    };
    if removed.load(Acquire) {
        assert!(!model.wait(|| ()), "an event of a registration removed before was delivered");
    }
    remover.join().unwrap();
    assert!(!model.wait(|| ()), "an event of a removed registration was delivered");
}

/// Nor does a wait that has found the event, when the removal returns before it reads the clock.
fn removed_meanwhile(mistake: Mistake) {
    let model = Model::new(mistake, false);
    let removed = Arc::new(AtomicBool::new(false));
    let remover = {
        let (model, removed) = (model.clone(), removed.clone());
        thread::spawn(move || {
            model.remove(false);
            removed.store(true, Release);
        })
    };
    let mut was_removed = false;
    let delivered = model.wait(|| was_removed = removed.load(Acquire));
    assert!(!(delivered && was_removed), "an event was delivered after its registration was removed");
    remover.join().unwrap();
}

/// A wait in progress that has found a stale entry does not deliver it when another thread rebuilds
/// the set.
fn rebuilt_meanwhile(mistake: Mistake) {
    let model = Model::new(mistake, true);
    let other = {
        let model = model.clone();
        thread::spawn(move || model.rebuild_set())
    };
    assert!(!model.wait(|| ()), "an event of a stale entry was delivered");
    other.join().unwrap();
}

fn finds(mistake: Mistake, model: impl Fn(Mistake) + Send + Sync + 'static) -> bool {
    catch_unwind(AssertUnwindSafe(|| loom::model(move || model(mistake)))).is_err()
}

#[test]
fn no_event_of_a_removed_registration_is_delivered() {
    for closed_before in [false, true] {
        loom::model(move || removed_before(Mistake::None, closed_before));
    }
    loom::model(|| removed_meanwhile(Mistake::None));
    loom::model(|| rebuilt_meanwhile(Mistake::None));
}

#[test]
fn each_mistake_is_found() {
    assert!(finds(Mistake::ForgetsTheStaleEntry, |mistake| removed_before(mistake, true)));
    assert!(finds(Mistake::KeepsTheClock, removed_meanwhile));
    assert!(finds(Mistake::ClearsTooEarly, rebuilt_meanwhile));
}
