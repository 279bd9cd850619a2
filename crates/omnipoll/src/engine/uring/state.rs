//! What the engine keeps besides the registry: the ring, what is still to be submitted, and the
//! queue of those that may have an event.
//!
//! [`submit`](super::submit) empties the lists, [`complete`](super::complete) fills the queue, and
//! [`deliver`](super::deliver) empties it. The states of one registration are drawn in
//! [`slot_state`](super::slot_state).

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::poll_snapshot::PollSnapshot;
use super::ring::Ring;
use super::slot_state::SlotState;
use crate::interest::Interest;
use crate::registry::{Registration, Registry};
use crate::sys::OuterSet;

/// The waker's key; no descriptor is -1.
pub(super) const WAKER_KEY: u64 = u64::MAX;
/// The waker in the queue.
pub(super) const WAKER_FD: RawFd = -1;
/// [`State::waiter`]: there have been several. No variable has this address.
pub(super) const SEVERAL: usize = 0;

pub(super) struct State {
    pub(super) ring: Ring,
    /// The ring before, as long as a thread may be in it.
    pub(super) old_ring: Option<Ring>,
    /// The only thread that has waited so far.
    pub(super) waiter: Option<usize>,
    pub(super) waker: WakerPoll,
    /// Registrations whose polls are to be submitted.
    pub(super) pending_polls: Vec<RawFd>,
    /// The keys of polls to be cancelled.
    pub(super) pending_cancels: Vec<u64>,
    /// Those that may have an event, by number and generation: each has its turn. An entry
    /// whose registration has another generation by now is passed over.
    pub(super) queue: VecDeque<(RawFd, u32)>,
    /// How many threads sleep in the kernel, or are about to.
    pub(super) sleeping: usize,
    /// The waker was written to for a change that has not been submitted yet.
    pub(super) wake_sent: bool,
    /// How many completions were reaped.
    pub(super) reaped: u64,
    /// What an outer loop watches, the ring among it.
    pub(super) outer_set: Option<Arc<OuterSet>>,
    pub(super) snapshot: PollSnapshot,
    pub(super) gathered: Vec<(RawFd, u32)>,
}

/// The waker is polled like any descriptor, always, by its edges, so that it need not be read.
pub(super) struct WakerPoll {
    pub(super) fd: RawFd,
    pub(super) watched: bool,
    pub(super) queued: bool,
}

/// What the kernel hands back for a registration.
pub(super) fn key(fd: RawFd, generation: u32) -> u64 {
    u64::from(generation) << 32 | fd as u64
}

/// The poll to submit: its bits, and whether it is multishot.
pub(super) fn poll_for(interest: Interest, state: SlotState) -> (u32, bool) {
    let exclusive = if interest.is_exclusive() { libc::EPOLLEXCLUSIVE as u32 } else { 0 };
    // Urgent data wakes no poll that asks for nothing else (IO_ASYNC_POLL_COMMON of
    // io_uring/poll.c), and it always comes with POLLIN.
    let urgent = if interest.contains(Interest::PRIORITY) { libc::POLLIN as u32 } else { 0 };
    (poll_bits(interest) | urgent | exclusive, !interest.is_oneshot() || state.is(SlotState::MULTISHOT))
}

/// What a registration asks for, in the bits of poll(2).
pub(super) fn poll_bits(interest: Interest) -> u32 {
    let bits = [
        (Interest::READ, libc::POLLIN | libc::POLLRDHUP),
        (Interest::WRITE, libc::POLLOUT),
        (Interest::PRIORITY, libc::POLLPRI),
    ];
    let asked = bits.into_iter().filter(|&(direction, _)| interest.contains(direction));
    // The kernel adds them to any poll; named, nothing depends on how it treats one for nothing.
    let failures = if interest.is_empty() { libc::POLLHUP | libc::POLLERR } else { 0 };
    asked.fold(failures as u32, |all, (_, bits)| all | bits as u32)
}

/// Whether what a completion says stays true: an edge does, a LEVEL or a ONESHOT may have passed.
#[inline]
pub(super) fn is_edge(interest: Interest) -> bool {
    interest.is_edge() && !interest.is_oneshot()
}

impl State {
    pub(super) fn new(ring: Ring, waker: RawFd) -> Self {
        Self {
            ring,
            old_ring: None,
            waiter: None,
            waker: WakerPoll { fd: waker, watched: false, queued: false },
            pending_polls: Vec::new(),
            pending_cancels: Vec::new(),
            queue: VecDeque::new(),
            sleeping: 0,
            wake_sent: false,
            reaped: 0,
            outer_set: None,
            snapshot: PollSnapshot::default(),
            gathered: Vec::new(),
        }
    }

    /// Whether any registration may have an event.
    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether there is anything to submit.
    pub(super) fn has_pending(&mut self) -> bool {
        !self.waker.watched
            || !self.pending_polls.is_empty()
            || !self.pending_cancels.is_empty()
            || self.ring.unsubmitted() > 0
    }

    /// Whether there are polls to be cancelled.
    pub(super) fn has_pending_cancels(&self) -> bool {
        !self.pending_cancels.is_empty()
    }
}

impl State {
    /// Has the poll of this registration submitted by the next wait.
    pub(super) fn schedule_poll(&mut self, fd: RawFd, registration: &mut Registration) {
        let state = SlotState::of(registration).unlisted();
        state.pending_at(self.pending_polls.len()).set(registration);
        self.pending_polls.push(fd);
    }

    /// Has this registration verified by the next wait.
    pub(super) fn enqueue(&mut self, fd: RawFd, registration: &mut Registration) {
        let state = SlotState::of(registration);
        if !state.is(SlotState::QUEUED) {
            self.queue.push_back((fd, registration.generation));
        }
        state.with(SlotState::QUEUED).with(SlotState::UNVERIFIED).set(registration);
    }

    /// Takes a registration out of the lists, and has its poll cancelled. It gets a new generation,
    /// so that nothing of the old one reaches it.
    pub(super) fn withdraw(&mut self, fd: RawFd, registry: &mut Registry) {
        let next = registry.next_generation();
        let Some(registration) = registry.get_mut(fd) else { return };
        let state = SlotState::of(registration);
        state.unlisted().without(SlotState::WATCHED).set(registration);
        if state.is(SlotState::WATCHED) {
            self.pending_cancels.push(key(fd, registration.generation));
        }
        registration.generation = next;
        registry.tick();
        if state.is(SlotState::PENDING) {
            self.pending_polls.swap_remove(state.index());
            let moved = self.pending_polls.get(state.index());
            if let Some(moved) = moved.and_then(|&moved| registry.get_mut(moved)) {
                SlotState::of(moved).pending_at(state.index()).set(moved);
            }
        }
    }
}
