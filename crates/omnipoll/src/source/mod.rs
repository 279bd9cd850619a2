//! What a wait tells besides descriptors: timers, signals, children, wakes and posts.
//!
//! [`Sources`] holds them all and answers two questions of a wait: until when may it sleep,
//! and what is there to tell. There is no thread behind it: what comes while nobody waits is
//! found by the next wait, and what comes while somebody does rings the doorbell.

pub(crate) mod child;
pub(crate) mod clock;
pub(crate) mod post;
pub(crate) mod signal;
mod sleepers;
pub(crate) mod timer;
pub(crate) mod wake;

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::event::{Event, EventKind};
use crate::sys::{lock, Doorbell};
use sleepers::{Sleeper, Sleepers};

pub(crate) struct Sources {
    pub(crate) doorbell: Arc<Doorbell>,
    pub(crate) wake: wake::Wake,
    /// Something besides timers has come since somebody looked.
    pending: AtomicBool,
    /// The threads that sleep, or are about to. Whoever brings something sets `pending`, or
    /// `soonest`, and then looks here; who goes to sleep does it the other way round.
    sleepers: Sleepers,
    /// The soonest timer's deadline; `u64::MAX` without timers.
    soonest: AtomicU64,
    epoch: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) timers: timer::Timers,
    pub(crate) wall: clock::Wall,
    pub(crate) signals: signal::Signals,
    pub(crate) children: child::Children,
    pub(crate) posts: post::Posts,
    /// How many events of each kind were told, but for the descriptors'.
    pub(crate) told: Told,
    /// Which source speaks first next time, so that none keeps another from speaking.
    turn: usize,
}

/// How many events were told, by [`EventKind`].
pub(crate) type Told = [u64; EventKind::Alarm as usize + 1];

impl State {
    /// Counts an event that is told.
    pub(crate) fn count(&mut self, event: &Event) {
        self.told[event.kind() as usize] += 1;
    }

    /// Whether anything that no clock and no descriptor tells of is left.
    fn have_more(&self) -> bool {
        !self.posts.are_empty() || self.signals.have_arrived() || self.children.may_have_ended()
    }
}

/// Takes one event of a source's, due at this time.
type Speaker = fn(&mut State, &Sources, u64) -> Option<Event>;

/// The sources in the order of their turns, and how often each may speak in a batch: wakes
/// that come meanwhile are counted into the next batch's event.
const SPEAKERS: [(Speaker, usize); 6] = [
    (|_, sources, _| sources.wake.answer(), 1),
    (|state, _, _| state.signals.next().map(signal::Arrived::event), usize::MAX),
    (|state, _, _| state.children.reap_any().map(child::Ended::event), usize::MAX),
    (|state, _, now| state.timers.expire(now).map(timer::Expired::event), usize::MAX),
    (|state, _, _| state.wall.expire().map(timer::Expired::event), usize::MAX),
    (|state, _, _| state.posts.pop(), usize::MAX),
];

/// What the sources leave of a sleep.
pub(crate) struct Outlook {
    /// How long it may be.
    pub(crate) limit: Option<Duration>,
    /// There is something to tell already.
    pub(crate) due: bool,
}

impl Sources {
    pub(crate) fn new(doorbell: Arc<Doorbell>) -> Self {
        Self {
            doorbell,
            wake: wake::Wake::default(),
            pending: AtomicBool::new(false),
            sleepers: Sleepers::default(),
            soonest: AtomicU64::new(u64::MAX),
            epoch: Instant::now(),
            state: Mutex::default(),
        }
    }

    /// What a signal handler rings.
    pub(crate) fn bell(&self) -> std::os::fd::RawFd {
        self.doorbell.bell()
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

    /// Announces a thread that goes to sleep; from here on it is rung for.
    #[inline]
    pub(crate) fn sleeper(&self) -> Sleeper<'_> {
        self.sleepers.begin()
    }

    /// Called by a thread that leaves a wait. The bell it has heard nobody else hears, and it
    /// may have had no room for what has come, or be the only one to know of the soonest timer.
    pub(crate) fn hand_on(&self) {
        let timer = self.soonest.load(SeqCst) != u64::MAX && self.sleepers.are_outdated();
        if timer || (self.are_pending() && self.sleepers.are_there()) {
            // It can only fail when somebody closed the bell, which ends the wait with EBADF.
            let _ = self.doorbell.ring();
        }
    }

    /// What the sources leave of a sleep of `left`.
    #[inline]
    pub(crate) fn outlook(&self, left: Option<Duration>) -> Outlook {
        if self.are_pending() {
            return Outlook { limit: Some(Duration::ZERO), due: true };
        }
        match self.soonest.load(SeqCst) {
            u64::MAX => Outlook { limit: left, due: false },
            soonest => {
                let gap = Duration::from_nanos(soonest.saturating_sub(self.now()));
                Outlook { limit: Some(left.map_or(gap, |left| left.min(gap))), due: gap.is_zero() }
            }
        }
    }

    /// How many rounds have begun, and how many events of descriptors they brought.
    pub(crate) fn rounds(&self) -> (u64, u64) {
        self.sleepers.counts()
    }

    /// Whether nothing has come and no timer is armed.
    #[inline]
    pub(crate) fn are_quiet(&self) -> bool {
        !self.are_pending() && self.soonest.load(SeqCst) == u64::MAX
    }

    /// Whether something besides timers has come.
    #[inline]
    pub(crate) fn are_pending(&self) -> bool {
        self.pending.load(SeqCst)
    }

    /// Whether there is something to tell.
    pub(crate) fn are_due(&self) -> bool {
        let soonest = self.soonest.load(SeqCst);
        self.are_pending() || (soonest != u64::MAX && soonest <= self.now())
    }

    /// Says that something has come; whoever sleeps gets up. Async-signal-safe.
    ///
    /// Who finds `pending` set rings no more: who set it has rung, or is about to, and what he
    /// rings for is not looked at before `pending` is cleared.
    pub(crate) fn notice(&self) -> std::io::Result<()> {
        match !self.pending.swap(true, SeqCst) && self.sleepers.are_there() {
            true => self.doorbell.ring(),
            false => Ok(()),
        }
    }

    /// Takes note of what the timers' soonest deadline is now. Who sleeps longer gets up.
    pub(crate) fn note_timers(&self, state: &State) {
        let soonest = state.timers.next().unwrap_or(u64::MAX);
        let before = self.soonest.swap(soonest, SeqCst);
        if soonest < before && self.sleepers.outdate() {
            // It can only fail when somebody closed the bell, which ends the wait with EBADF.
            let _ = self.doorbell.ring();
        }
    }

    /// Writes what there is to tell behind the first `filled` events, as far as there is room,
    /// and returns how many are filled then. What is left over is told by the next wait.
    pub(crate) fn tell(&self, events: &mut [MaybeUninit<Event>], mut filled: usize) -> usize {
        self.pending.store(false, SeqCst);
        let mut state = self.state();
        let now = self.now();
        for _ in 0..SPEAKERS.len() {
            let (speak, most) = SPEAKERS[state.turn % SPEAKERS.len()];
            let room = &mut events[filled..];
            for slot in room.iter_mut().take(most) {
                let Some(event) = speak(&mut state, self, now) else { break };
                state.count(&event);
                slot.write(event);
                filled += 1;
            }
            state.turn = state.turn.wrapping_add(1);
            if filled == events.len() {
                break;
            }
        }
        // An alarm that couldn't be set is set at the next look.
        if state.wall.wind().is_err() || self.wake.is_asked() || state.have_more() {
            // It can only fail when somebody closed the bell, which ends the wait with EBADF.
            let _ = self.notice();
        }
        self.note_timers(&state);
        filled
    }

    /// In a forked child: what came to the parent is the parent's. Timers go on.
    pub(crate) fn after_fork(&self, state: &mut State) {
        self.sleepers.forget();
        state.told = Told::default();
        self.wake.forget();
        state.posts.clear();
        state.signals.after_fork();
    }
}
