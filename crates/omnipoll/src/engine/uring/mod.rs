//! The engine on `io_uring(7)`, with its polls (`IORING_OP_POLL_ADD`).
//!
//! The system call's own flaws, and what is done about them:
//!
//! - A poll reports what woke it, not what holds: the bits of a wake-up leave out what was ready
//!   before, and those of a socket or a pipe name urgent data, or an error, that may not be
//!   there. And it reports it when it happened: by the time it is read it may have passed. So a
//!   completion is a hint. One that is exact is delivered without a system call; the others are
//!   verified with one `poll(2)` for all of them (see [`complete`] and [`deliver`]).
//! - There is no level-triggered poll (`IORING_POLL_ADD_LEVEL` leaves out the first check, no
//!   more). A multishot poll reports edges; what was reported under LEVEL stays in a queue, and is
//!   verified by every wait until it no longer holds.
//! - A multishot poll can end at any time, when completions overflow or when the thread that
//!   submitted it ends: it is submitted again.
//! - A poll for urgent data alone sleeps through it: it is asked to wake for any.
//! - A single poll ends by `POLLRDHUP` even if that was not asked for. A ONESHOT for which it
//!   ended without an event gets a multishot one.
//! - A poll holds its file, and the thread that submitted it is the one that releases it.
//!   [`Poller::remove`](crate::Poller::remove) cancels the poll by a system call, and ends the
//!   waits in progress, which makes their threads release it before `remove` returns. Another
//!   thread that submitted the poll and does something else now releases it when it next enters or
//!   leaves the kernel, for which it is interrupted. A descriptor that is closed and not removed
//!   is held until something happens to it, the number is added again, or the poller is dropped.
//!   It is not reported.
//! - The thread that submits a request does a part of its work, whatever it does by then: it
//!   is interrupted for it, in a system call too, and those that are never restarted (`signal(7)`)
//!   fail with `EINTR`. So only threads that wait submit polls: a change that another one makes
//!   wakes one of them. And what becomes ready is reported a moment later, should that thread
//!   have to be scheduled first. As long as only one thread has waited, it is not interrupted in
//!   its own code: that is a setting of the ring, so for a second thread there is a new ring, and
//!   each edge may be reported once more.
//! - Every completion wakes every thread that waits: those that find nothing sleep again.
//! - A wait that submits requests doesn't say whether a signal ended it.
//! - The queues are shared with a forked child, so that they are kept from it: [`Ring`] can only
//!   be dropped there, and [`Uring::rebuild`] makes a new one. The child's copy of the descriptor
//!   keeps the ring alive, so that its polls are cancelled before it is closed (Linux 5.19).
//! - Some are not allowed to use it, and others have an old one: it is tried out before use.
//!
//! # The states of a registration
//!
//! ```text
//!              submit            completion
//! add --> PENDING -------> WATCHED ---------> QUEUED
//!            ^                ^                  | deliver
//!            |                |                  v
//!            |   poll ended   |   poll lives   LEVEL, ready: an event, and QUEUED again
//!            +----------------+--------------- EDGE, or not ready: an event if ready
//!            +-------------------------------- ONESHOT, not ready: MULTISHOT from now on
//!            +------------ modify <----------- ONESHOT, ready: an event, and disarmed
//!                                              no file any more: CLOSED
//! ```
//!
//! A multishot poll stays WATCHED while it is QUEUED. Always ready files are QUEUED from the
//! beginning and never WATCHED. [`slot_state`] has the bits, [`submit`], [`complete`] and
//! [`deliver`] the arrows.

mod availability;
mod complete;
mod deliver;
mod features;
mod poll_snapshot;
mod ring;
mod slot_state;
mod state;
mod submit;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::in_flight::InFlightWaits;
use super::{Batch, Capabilities, Engine, EngineKind};
use crate::error::{fail, plain};
use crate::event::Event;
use crate::interest::Interest;
use crate::registry::{self, Registry, Role, Tag};
use crate::sys::descriptor::is_open;
use crate::sys::file::{self, FileInfo};
use crate::sys::fork;
use crate::sys::{lock, OuterSet, Waker};
use availability::{is_temporary, unavailable_reason};
use deliver::Age;
pub(super) use features::features;
use ring::{Entered, Ring, RingHandle, Threads};
use slot_state::SlotState;
use state::{key, poll_for, State};

pub(super) const CAPABILITIES: Capabilities = Capabilities::REPORTS_HANGUP
    .and(Capabilities::REPORTS_READ_CLOSED)
    .and(Capabilities::NATIVE_EDGE)
    .and(Capabilities::HAS_EXCLUSIVE);

/// Whether the kernel permits it.
pub(super) fn is_available() -> bool {
    unavailable_reason().is_none()
}

pub(crate) struct Uring {
    waker: Arc<Waker>,
    files_always_ready: bool,
    in_flight: InFlightWaits,
    /// Locked only while the registry is.
    state: Mutex<State>,
}

impl Engine for Uring {
    fn kind(&self) -> EngineKind {
        EngineKind::IoUring
    }

    fn embed(&self, registry: &mut Registry, outer_set: &Arc<OuterSet>) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.is_other_thread() {
            state.share_ring(registry)?;
        }
        outer_set.add(state.ring.as_fd())?;
        // From now on the waker's poll, at least, is always submitted.
        state.submit(registry)?;
        state.outer_set = Some(outer_set.clone());
        self.announce(&mut state);
        Ok(())
    }

    fn add(&self, registry: &mut Registry, fd: RawFd, interest: Interest, tag: Tag) -> io::Result<()> {
        let info = FileInfo::of(fd)?;
        let always_ready = tag.role == Role::User && !info.can_be_watched(fd)?;
        if always_ready && !self.files_always_ready {
            return Err(file::always_ready());
        }
        let mut state = lock(&self.state);
        if state.ring.handle().is(fd) {
            return Err(fail(libc::EINVAL, "the descriptor is the poller's own"));
        }
        if let Some(old) = registry.get(fd).filter(|old| old.file == info.identity) {
            let is_same = if info.is_anonymous() {
                is_same_anonymous(&mut state, registry, fd)?
            } else {
                !SlotState::of(old).is(SlotState::CLOSED)
            };
            if is_same {
                return Err(registry::already_registered());
            }
        }
        state.withdraw(fd, registry);
        let registration = registry.begin(fd, interest, tag);
        registration.file = info.identity;
        if always_ready {
            SlotState::ALWAYS_READY.set(registration);
            state.enqueue(fd, registration);
        } else {
            state.schedule_poll(fd, registration);
        }
        self.announce(&mut state);
        Ok(())
    }

    fn modify(&self, registry: &mut Registry, fd: RawFd, interest: Interest, token: u64) -> io::Result<()> {
        let Some(old) = registry.get(fd).copied() else { return Err(registry::not_registered()) };
        if FileInfo::of(fd)?.identity != old.file {
            self.remove(registry, fd);
            return Err(registry::not_registered());
        }
        let mut state = lock(&self.state);
        let old_state = SlotState::of(&old);
        let poll = poll_for(interest, old_state.without(SlotState::MULTISHOT));
        let is_watched = old_state.is(SlotState::WATCHED) && poll == poll_for(old.interest, old_state);
        let keeps_state = is_watched || old_state.is(SlotState::ALWAYS_READY);
        if !keeps_state {
            state.withdraw(fd, registry);
        }
        let Some(registration) = registry.update(fd, interest, token) else {
            return Err(registry::not_registered());
        };
        // What is ready now is reported: by a snapshot, or by the kernel, whose poll begins with one.
        if keeps_state {
            state.enqueue(fd, registration);
        } else {
            SlotState::IDLE.set(registration);
            state.schedule_poll(fd, registration);
        }
        self.announce(&mut state);
        Ok(())
    }

    fn remove(&self, registry: &mut Registry, fd: RawFd) {
        let mut state = lock(&self.state);
        state.withdraw(fd, registry);
        registry.end(fd);
        // Now, since the file may be closed next. After an error the next wait does it.
        if state.has_pending_cancels() {
            let _ = state.submit_cancels(registry);
            if self.in_flight.change() {
                let _ = self.waker.wake();
            }
            self.announce_outside(&mut state);
        }
    }

    fn release_files(&self, registry: &Mutex<Registry>) {
        self.in_flight.wait_until_current(registry, &self.waker);
    }

    fn rearm(&self, _: &mut Registry, _: RawFd, _: Interest) {
        // The kernel's edges need none.
    }

    fn wait(
        &self,
        registry: &Mutex<Registry>,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
    ) -> io::Result<Batch> {
        let mut locked = lock(registry);
        let mut state = lock(&self.state);
        if state.is_other_thread() {
            match state.share_ring(&mut locked) {
                // The ring there is serves several too, if later. The next wait tries again.
                Err(error) if is_temporary(&error) => {}
                shared => shared?,
            }
        }
        if let Some(batch) = state.deliver_queued(&mut locked, events)? {
            return self.finish(state, &mut locked, batch);
        }
        let requests = state.write_requests(&mut locked)?;
        let (handle, reaped) = (state.ring.handle(), state.reaped);
        let sleep_end = match timeout {
            Some(Duration::ZERO) => handle.enter(requests, 0, None).map(|_| SleepEnd::TimedOut),
            // Completions were reaped to make room.
            _ if state.has_queued() => handle.enter(requests, 0, None).map(|_| SleepEnd::Woken),
            _ => {
                state.sleeping += 1;
                let version = self.in_flight.begin();
                drop((state, locked));
                let process = fork::epoch();
                let sleep_end = sleep(handle, requests, timeout);
                if fork::cached_epoch() != process {
                    // The handler of a signal has forked. The child has no ring, and another
                    // thread of its parent's may have held the locks.
                    return Err(plain(libc::EINTR));
                }
                (locked, state) = self.end_sleep(registry, handle, version);
                sleep_end
            }
        };
        state.reap(&mut locked)?;
        let mut batch = state.deliver(&mut locked, events, Age::Fresh)?;
        if !batch.has_anything() {
            batch.dropped = match sleep_end {
                _ if state.reaped != reaped => true,
                Ok(SleepEnd::TimedOut) => state.has_pending(),
                Ok(SleepEnd::Woken) => true,
                Ok(SleepEnd::WokenOrInterrupted) if state.has_pending() => true,
                Ok(SleepEnd::WokenOrInterrupted) => return Err(plain(libc::EINTR)),
                Err(error) => return Err(error),
            };
        }
        self.finish(state, &mut locked, batch)
    }

    fn leave_to_parent(&self) {
        // Locked, it is by a thread that the child does not have.
        if let Ok(state) = self.state.try_lock() {
            state.ring.leave_to_parent(self.waker.as_raw_fd());
        }
    }

    fn rebuild(&self, registry: &mut Registry) -> io::Result<()> {
        // Before a descriptor of ours can take the number of one that the child has closed.
        for fd in registry.descriptors().into_iter().filter(|&fd| !is_open(fd)) {
            registry.mark_closed(fd);
        }
        let busy_poll = lock(&self.state).ring.busy_poll();
        let mut new = State::new(Ring::new(Threads::One, busy_poll)?, self.waker.as_raw_fd());
        for fd in registry.descriptors() {
            let Some(registration) = registry.get_mut(fd) else { continue };
            let old_state = SlotState::of(registration);
            SlotState::IDLE.set(registration);
            if old_state.is(SlotState::ALWAYS_READY) {
                SlotState::ALWAYS_READY.set(registration);
                if old_state.is(SlotState::QUEUED) {
                    new.enqueue(fd, registration);
                }
            } else if registration.armed != 0 {
                new.schedule_poll(fd, registration);
            }
        }
        let mut state = lock(&self.state);
        new.outer_set = state.outer_set.take();
        *state = new;
        if let Some(outer_set) = state.outer_set.clone() {
            outer_set.add(state.ring.as_fd())?;
            state.submit(registry)?;
        }
        drop(state);
        self.in_flight.reset();
        self.waker.wake()
    }
}

impl Uring {
    pub(crate) fn new(
        waker: Arc<Waker>,
        files_always_ready: bool,
        busy_poll: Option<Duration>,
    ) -> io::Result<Self> {
        if let Some(reason) = unavailable_reason() {
            return Err(reason.error());
        }
        let state = Mutex::new(State::new(Ring::new(Threads::One, busy_poll)?, waker.as_raw_fd()));
        Ok(Self { waker, files_always_ready, in_flight: InFlightWaits::default(), state })
    }

    /// Has a thread that sleeps submit a change. One is enough, and so is one wake-up.
    fn announce(&self, state: &mut State) {
        self.announce_outside(state);
        if state.sleeping > 0 && !state.wake_sent {
            state.wake_sent = true;
            // It can only fail when the waker's descriptor was closed, which ends the wait with EBADF.
            let _ = self.waker.wake();
        }
    }

    /// Makes the ring readable to an outer loop while the next wait has anything to do: what was reaped
    /// has left the ring, and changes are not in it yet.
    fn announce_outside(&self, state: &mut State) {
        if state.outer_set.is_some() && (state.has_queued() || state.has_pending()) {
            let _ = self.waker.wake();
        }
    }

    fn end_sleep<'a>(
        &'a self,
        registry: &'a Mutex<Registry>,
        handle: RingHandle,
        version: u64,
    ) -> (MutexGuard<'a, Registry>, MutexGuard<'a, State>) {
        let locked = lock(registry);
        self.in_flight.end(version);
        let mut state = lock(&self.state);
        state.end_sleep(handle);
        (locked, state)
    }

    /// Ends a wait. What is left to submit concerns the threads that sleep. An error would take
    /// the batch with it, so it is left to one of them.
    fn finish(
        &self,
        mut state: MutexGuard<'_, State>,
        registry: &mut Registry,
        batch: Batch,
    ) -> io::Result<Batch> {
        let is_watched = state.sleeping > 0 || state.outer_set.is_some();
        if is_watched && state.has_pending() && state.submit(registry).is_err() {
            self.announce(&mut state);
        } else {
            self.announce_outside(&mut state);
        }
        Ok(batch)
    }
}

/// Whether a registered number still stands for the anonymous file it was registered for: to
/// fstat(2) they are all one. The kernel's poll knows its file, as long as there is one.
#[cold]
fn is_same_anonymous(state: &mut State, registry: &mut Registry, fd: RawFd) -> io::Result<bool> {
    let Some(old) = registry.get(fd).copied() else { return Ok(false) };
    let old_state = SlotState::of(&old);
    if old_state.is(SlotState::CLOSED) {
        return Ok(false);
    }
    if old_state.is(SlotState::WATCHED) && state.ring.cancel_if_of(key(fd, old.generation), fd) {
        return Ok(true);
    }
    // There is no such poll. If it has ended by itself, there is a completion that says so.
    state.reap(registry)?;
    Ok(registry.get(fd).is_some_and(|it| !SlotState::of(it).is(SlotState::WATCHED)))
}

/// How a sleep ended.
enum SleepEnd {
    TimedOut,
    /// There was a completion.
    Woken,
    /// There was a completion or, if no thread has reaped one, a signal.
    WokenOrInterrupted,
}

fn sleep(handle: RingHandle, requests: u32, timeout: Option<Duration>) -> io::Result<SleepEnd> {
    // The kernel says how the wait ended only if it took no requests.
    let begun = timeout.filter(|_| requests > 0).map(|_| Instant::now());
    let time_is_up = || begun.zip(timeout).is_some_and(|(begun, timeout)| begun.elapsed() >= timeout);
    Ok(match handle.enter(requests, 1, timeout)? {
        Entered::TimedOut => SleepEnd::TimedOut,
        // The kernel doesn't wait when it has taken fewer: another thread had submitted them.
        Entered::Returned { submitted } if submitted < requests || requests == 0 => SleepEnd::Woken,
        Entered::Returned { .. } if time_is_up() => SleepEnd::TimedOut,
        Entered::Returned { .. } => SleepEnd::WokenOrInterrupted,
    })
}
