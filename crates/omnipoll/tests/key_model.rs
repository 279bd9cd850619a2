//! When an event of epoll's may be believed without a look at the registry, in every
//! interleaving: a model of `src/engine/epoll.rs`, for loom.
//!
//! | here | there |
//! |---|---|
//! | `wait` | `Epoll::wait`: the clock, the system call, `Epoll::is_calm_since` |
//! | `remove` | `Epoll::remove`: `EPOLL_CTL_DEL`, the registry, `Epoll::note_change` |
//! | `exorcise` | `Epoll::exorcise`: a set without ghosts, `Epoll::note_calm` |
//!
//! The kernel's set is one registration behind a lock, as it is in the kernel. Each model is
//! also run with a step left out or two the other way round: then loom must find the event of
//! nobody that was believed.

use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering::*};
use loom::sync::{Arc, Mutex};
use loom::thread;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// What may be got wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// A number that was closed before it was removed is taken for removed.
    ForgetsTheGhost,
    /// The clock stands still when a registration ends.
    KeepsTheClock,
    /// `haunted` is cleared before the clock moves.
    CalmsTooEarly,
}

struct Model {
    mistake: Mistake,
    /// Whether the kernel reports the registration.
    kernel: Mutex<bool>,
    clock: AtomicU32,
    haunted: AtomicBool,
}

impl Model {
    fn new(mistake: Mistake, haunted: bool) -> Arc<Self> {
        Arc::new(Self {
            mistake,
            kernel: Mutex::new(true),
            clock: AtomicU32::new(0),
            haunted: AtomicBool::new(haunted),
        })
    }

    /// Whether a wait believes an event of the registration. `during` is between the system
    /// call and the look at the clock.
    fn wait(&self, during: impl FnOnce()) -> bool {
        let clock = self.clock.load(Acquire);
        let found = *self.kernel.lock().unwrap();
        during();
        let calm = !self.haunted.load(Acquire) && self.clock.load(Acquire) == clock;
        found && calm
    }

    /// Removes the registration. A descriptor closed before, whose duplicate lives on, stays in
    /// the kernel's set.
    fn remove(&self, closed_before: bool) {
        if !closed_before {
            *self.kernel.lock().unwrap() = false;
        } else if self.mistake != Mistake::ForgetsTheGhost {
            self.haunted.store(true, Release);
        }
        if self.mistake != Mistake::KeepsTheClock {
            self.clock.store(1, Release);
        }
    }

    /// Makes the set anew, without the ghost.
    fn exorcise(&self) {
        *self.kernel.lock().unwrap() = false;
        if self.mistake == Mistake::CalmsTooEarly {
            self.haunted.store(false, Release);
            self.clock.store(1, Release);
        } else {
            self.clock.store(1, Release);
            self.haunted.store(false, Release);
        }
    }
}

/// A wait that begins after a removal has returned believes nothing of it.
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
        assert!(!model.wait(|| ()), "an event of a registration removed before was believed");
    }
    remover.join().unwrap();
    assert!(!model.wait(|| ()), "an event of a removed registration was believed");
}

/// Nor does a wait that has met the event, when the removal returns before it looks.
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
    let believed = model.wait(|| was_removed = removed.load(Acquire));
    assert!(!(believed && was_removed), "an event was believed after its registration was removed");
    remover.join().unwrap();
}

/// A wait under way that has met a ghost does not believe it when another has driven it out.
fn driven_out(mistake: Mistake) {
    let model = Model::new(mistake, true);
    let other = {
        let model = model.clone();
        thread::spawn(move || model.exorcise())
    };
    assert!(!model.wait(|| ()), "a ghost was believed");
    other.join().unwrap();
}

fn finds(mistake: Mistake, model: impl Fn(Mistake) + Send + Sync + 'static) -> bool {
    catch_unwind(AssertUnwindSafe(|| loom::model(move || model(mistake)))).is_err()
}

#[test]
fn no_event_of_nobody_is_believed() {
    for closed_before in [false, true] {
        loom::model(move || removed_before(Mistake::None, closed_before));
    }
    loom::model(|| removed_meanwhile(Mistake::None));
    loom::model(|| driven_out(Mistake::None));
}

#[test]
fn each_mistake_is_found() {
    assert!(finds(Mistake::ForgetsTheGhost, |mistake| removed_before(mistake, true)));
    assert!(finds(Mistake::KeepsTheClock, removed_meanwhile));
    assert!(finds(Mistake::CalmsTooEarly, driven_out));
}
