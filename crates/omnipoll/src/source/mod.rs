//! What a wait reports besides descriptors: timers, signals, children, wakes and posts.
//!
//! [`Sources`] holds them all. It limits how long a wait may sleep, and delivers what there is.
//! There is no thread behind it: what comes while no thread waits is found by the next wait, and
//! what comes while one waits wakes it.
//!
//! # The lost-wake protocol
//!
//! A thread that brings something (the notifier) and a thread that goes to sleep (the waiter)
//! must never miss each other. `tests/sleep_model.rs` checks these steps in every interleaving.
//!
//! ```text
//! notifier                                   waiter
//! N1  publish: queue or count it             W1  register: join `waiters`
//! N2  announce: set `pending`;               W2  check: `pending` and `soonest`
//!     for a timer, lower `soonest`               limit the sleep
//! N3  wake: if N2 was news and there are     W3  sleep in the system call,
//!     waiters, write to the waker                which the waker ends
//!                                            W4  unregister: leave `waiters`
//!                                            W5  clear `pending`
//!                                            W6  take what was published
//!                                            W7  renotify: if anything is left and
//!                                                others wait, write to the waker
//! ```
//!
//! - N2 comes before N3 and W1 before W2, and all four are SeqCst: either the waiter's check finds
//!   the announcement, or the notifier finds the waiter.
//! - W5 comes before W6: what is published after W6 has looked is announced again.
//! - A notifier that finds `pending` set need not wake: the one that set it has done so, or is
//!   about to, and what it wakes for is not looked at before W5.
//! - W7 is for the waiter that took the wake-up of another: it may have had no room for all of
//!   it, or be the only one that knows of the soonest timer.
//!
//! # An outer loop
//!
//! The loop that holds an [embedded](crate::Poller::embed) poller is a waiter that never leaves: it
//! sleeps in a system call of its own, which what the engine's set reports ends, and a timerfd.
//!
//! ```text
//! E1  register: `has_outer_loop`, once
//! E2  check: if `pending` is set write to the waker; arm the timerfd at `soonest`
//! E3  at the end of each wait: arm it again, if what it was armed for is over
//! ```
//!
//! - E1 comes before E2 as W1 before W2: a notifier that E2 does not see finds the outer loop in N3.
//!   For a timer N3 arms the timerfd, if it is armed for later.
//! - A wait that takes the waker's event from the engine, by which the set becomes unreadable, does W5
//!   and W6 before it returns; and what W6 leaves is announced again, which writes to the waker. So,
//!   outside of waits, the set is readable while anything is left: no wait has to be empty before the
//!   outer loop may sleep.
//! - The timerfd is set with the sources locked, in N3 and in E3: never is it armed for later than
//!   `soonest` when the lock is free, but in a wait between W6, which takes what was due, and E3.

pub(crate) mod child;
pub(crate) mod outer_loop;
pub(crate) mod post;
pub(crate) mod signal;
pub(crate) mod timer;
mod waiters;
pub(crate) mod wake;
pub(crate) mod wall_clock;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use crate::event::{Event, EventKind};
use crate::sys::{lock, Waker};
use outer_loop::OuterLoop;
use waiters::{WaiterGuard, Waiters};

pub(crate) struct Sources {
    pub(crate) waker: Arc<Waker>,
    pub(crate) wake: wake::Wake,
    /// Something besides timers has come since a waiter looked.
    pending: AtomicBool,
    /// The threads that sleep, or are about to.
    waiters: Waiters,
    /// The outer loop that holds the poller.
    outer_loop: OnceLock<OuterLoop>,
    /// The soonest timer's deadline; [`UNARMED`] without timers.
    soonest: AtomicU64,
    /// When the timers' clock began.
    epoch: Instant,
    state: Mutex<State>,
}

/// [`Sources::soonest`]: no timer is armed.
const UNARMED: u64 = u64::MAX;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) timers: timer::Timers,
    pub(crate) wall_timers: wall_clock::WallTimers,
    pub(crate) signals: signal::Signals,
    pub(crate) children: child::Children,
    pub(crate) posts: post::Posts,
    /// How many events of each kind were delivered, but for the descriptors'.
    pub(crate) delivered: EventCounts,
    /// Which source is asked first next time, so that none starves another.
    turn: usize,
}

/// How many events were delivered, by [`EventKind`].
pub(crate) type EventCounts = [u64; EventKind::Post as usize + 1];

impl State {
    /// Counts an event that is delivered.
    pub(crate) fn count(&mut self, event: &Event) {
        self.delivered[event.kind() as usize] += 1;
    }

    fn soonest(&self) -> u64 {
        self.timers.next().unwrap_or(UNARMED)
    }

    /// Whether anything is left that neither a clock nor a descriptor reports.
    fn has_more(&self) -> bool {
        !self.posts.is_empty() || self.signals.have_arrived() || self.children.may_have_ended()
    }
}

/// Takes one event of a source, due at this time.
type Take = fn(&mut State, &Sources, u64) -> Option<Event>;

/// The sources in the order of their turns, and how many events each may deliver in a batch:
/// wakes that come meanwhile are counted into the next batch's event.
const SOURCES: [(Take, usize); 6] = [
    (|_, sources, _| sources.wake.take(), 1),
    (|state, _, _| state.signals.next().map(signal::Arrived::event), usize::MAX),
    (|state, _, _| state.children.reap_any().map(child::Ended::event), usize::MAX),
    (|state, _, now| state.timers.expire(now).map(timer::Expired::event), usize::MAX),
    (|state, _, _| state.wall_timers.expire().map(timer::Expired::event), usize::MAX),
    (|state, _, _| state.posts.pop(), usize::MAX),
];

/// How long the sources let a wait sleep.
pub(crate) struct SleepLimit {
    /// The longest that the system call may take; `None` for indefinitely.
    pub(crate) timeout: Option<Duration>,
    /// There is something to deliver already.
    pub(crate) due: bool,
}

impl Sources {
    pub(crate) fn new(waker: Arc<Waker>) -> Self {
        Self {
            waker,
            wake: wake::Wake::default(),
            pending: AtomicBool::new(false),
            waiters: Waiters::default(),
            outer_loop: OnceLock::new(),
            soonest: AtomicU64::new(UNARMED),
            epoch: Instant::now(),
            state: Mutex::default(),
        }
    }

    /// The descriptor that a signal handler writes to.
    pub(crate) fn wake_fd(&self) -> RawFd {
        self.waker.write_fd()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn try_state(&self) -> Option<MutexGuard<'_, State>> {
        self.state.try_lock().ok()
    }

    /// The timers' clock: nanoseconds since the poller was made.
    pub(crate) fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// How many rounds have begun, and how many events of descriptors they brought.
    pub(crate) fn rounds(&self) -> (u64, u64) {
        self.waiters.counts()
    }

    /// Whether nothing has come and no timer is armed.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_pending() && self.soonest.load(SeqCst) == UNARMED
    }

    /// Whether something besides timers has come.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(SeqCst)
    }

    /// Whether there is something to deliver.
    pub(crate) fn is_due(&self) -> bool {
        let soonest = self.soonest.load(SeqCst);
        self.is_pending() || (soonest != UNARMED && soonest <= self.now())
    }
}

// ---- The notifier's steps -------------------------------------------------------------------

impl Sources {
    /// N2 and N3 for what has been published, except timers. Async-signal-safe.
    pub(crate) fn notify(&self) -> io::Result<()> {
        if !self.pending.swap(true, SeqCst) && self.waiters.any() {
            self.waker.wake()
        } else {
            Ok(())
        }
    }

    /// N2 and N3 for timers: announces their soonest deadline, and wakes those that would sleep
    /// longer.
    pub(crate) fn timers_changed(&self, state: &State) {
        let soonest = state.soonest();
        let before = self.soonest.swap(soonest, SeqCst);
        if soonest < before && self.waiters.outdate() {
            self.wake_or_fail_the_wait();
        }
        self.outer_loop.get().inspect(|outer_loop| outer_loop.follow(soonest, self.now()));
    }

    fn wake_or_fail_the_wait(&self) {
        // It can only fail when the waker's descriptor was closed, which ends the wait with EBADF.
        let _ = self.waker.wake();
    }
}

// ---- The outer loop's steps -----------------------------------------------------------------

impl Sources {
    pub(crate) fn outer_loop(&self) -> Option<&OuterLoop> {
        self.outer_loop.get()
    }

    /// E1 and E2. Called with the sources locked.
    pub(crate) fn embed(&self, outer_loop: OuterLoop, state: &State) -> io::Result<&OuterLoop> {
        let outer_loop = self.outer_loop.get_or_init(|| outer_loop);
        self.waiters.add_outer_loop();
        outer_loop.follow(state.soonest(), self.now());
        if self.is_pending() {
            self.waker.wake()?;
        }
        Ok(outer_loop)
    }

    /// In a forked child, before the engine is rebuilt.
    pub(crate) fn rebuild_outer_loop(&self, state: &State) -> io::Result<()> {
        match self.outer_loop.get() {
            Some(outer_loop) => outer_loop.after_fork(state.soonest(), self.now()),
            None => Ok(()),
        }
    }
}

// ---- The waiter's steps ---------------------------------------------------------------------

impl Sources {
    /// W1; dropping the guard is W4.
    #[inline]
    pub(crate) fn begin_wait(&self) -> WaiterGuard<'_> {
        self.waiters.begin()
    }

    /// W2: what the sources leave of a sleep of `left`.
    #[inline]
    pub(crate) fn sleep_limit(&self, left: Option<Duration>) -> SleepLimit {
        if self.is_pending() {
            return SleepLimit { timeout: Some(Duration::ZERO), due: true };
        }
        match self.until_timer() {
            None => SleepLimit { timeout: left, due: false },
            Some(gap) => {
                SleepLimit { timeout: Some(left.map_or(gap, |left| left.min(gap))), due: gap.is_zero() }
            }
        }
    }

    /// The time until the soonest timer is due.
    #[inline]
    pub(crate) fn until_timer(&self) -> Option<Duration> {
        match self.soonest.load(SeqCst) {
            UNARMED => None,
            soonest => Some(Duration::from_nanos(soonest.saturating_sub(self.now()))),
        }
    }

    /// W5 and W6: writes the events that there are behind the first `filled` ones, as far as there
    /// is room, and returns how many are filled then. The next wait delivers the rest.
    pub(crate) fn deliver(&self, events: &mut [MaybeUninit<Event>], mut filled: usize) -> usize {
        self.pending.store(false, SeqCst);
        let mut state = self.state();
        let now = self.now();
        for _ in 0..SOURCES.len() {
            let (take, most) = SOURCES[state.turn % SOURCES.len()];
            let room = &mut events[filled..];
            for slot in room.iter_mut().take(most) {
                let Some(event) = take(&mut state, self, now) else { break };
                state.count(&event);
                slot.write(event);
                filled += 1;
            }
            state.turn = state.turn.wrapping_add(1);
            if filled == events.len() {
                break;
            }
        }
        // A wall-clock timer that couldn't be armed is armed by the next round.
        if state.wall_timers.rearm().is_err() || self.wake.is_requested() || state.has_more() {
            // It can only fail when the waker's descriptor was closed, which ends the wait with EBADF.
            let _ = self.notify();
        }
        self.timers_changed(&state);
        filled
    }

    /// W7 and E3.
    pub(crate) fn renotify(&self) {
        let timer = self.soonest.load(SeqCst) != UNARMED && self.waiters.any_outdated();
        if timer || (self.is_pending() && self.waiters.any()) {
            self.wake_or_fail_the_wait();
        }
        if let Some(outer_loop) = self.outer_loop.get() {
            outer_loop.follow(self.state().soonest(), self.now());
        }
    }

    /// In a forked child: what came to the parent is the parent's. Timers stay armed.
    pub(crate) fn after_fork(&self, state: &mut State) {
        self.waiters.reset();
        state.delivered = EventCounts::default();
        self.wake.reset();
        state.posts.clear();
        state.signals.after_fork();
    }
}
