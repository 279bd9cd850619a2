//! The engine on `io_uring(7)`, with its polls (`IORING_OP_POLL_ADD`).
//!
//! The system call's own flaws, and what is done about them:
//!
//! - A poll tells what woke it, not what holds: the bits of a wake-up leave out what was ready
//!   before, and those of a socket or a pipe name urgent data, or an error, that may not be
//!   there. And it tells it when it happened: by the time it is read it may have passed. So a
//!   completion is a hint. One that can be believed is told without a system call; the others
//!   are looked at with one `poll(2)` for all of them (see [`state`]).
//! - There is no level-triggered poll (`IORING_POLL_ADD_LEVEL` leaves out the first look, no more).
//!   A lasting poll reports edges; what was told under LEVEL stays in a queue, and is looked at
//!   by every wait until it holds no more.
//! - A lasting poll can end at any time, when completions overflow or when the thread that asked
//!   for it is no more: it is asked for anew.
//! - A poll for urgent data alone sleeps through it: it is asked to wake for any.
//! - A single poll ends by `POLLRDHUP` even if that was not asked for. A ONESHOT for which it
//!   ended for nothing gets a lasting one.
//! - A poll holds on to its file, and the thread that handed it over is the one that lets go.
//!   [`Poller::remove`](crate::Poller::remove) ends the poll by a system call, and the waits in
//!   progress, which makes their threads let go before it returns. Another one that handed over
//!   the poll and does something else now lets go when it next enters or leaves the kernel, for
//!   which it is interrupted. A descriptor that is closed and not removed is held until something
//!   happens to it, the number is added again, or the poller is dropped. It is told of in silence.
//! - The thread that hands over a request does a part of its work, whatever it does by then: it
//!   is interrupted for it, in a system call too, and those that are never restarted (`signal(7)`)
//!   fail with `EINTR`. So only threads that wait hand over polls: a change that another one
//!   makes rings the doorbell. And what becomes ready is told a moment later, should that thread
//!   have to be scheduled first. As long as one thread only has waited, it is not interrupted in
//!   its own code: that is a setting of the ring, so for a second thread there is a new ring, and
//!   each edge may be told once more.
//! - Every completion wakes everybody who waits: those who find nothing sleep again.
//! - A wait that hands over requests doesn't say whether a signal ended it.
//! - The queues are shared with a forked child, so that they are kept from it: [`Ring`] can only
//!   be dropped there, and [`Uring::rebuild`] makes a new one. The child's copy of the descriptor
//!   keeps the ring alive, so that its polls are ended before it is closed (Linux 5.19).
//! - Some are not allowed to use it, and others have an old one: it is tried out before use.

mod look;
mod place;
mod ring;
mod state;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::waits::Waits;
use super::{Batch, Capabilities, Engine, EngineKind};
use crate::error::{fail, plain};
use crate::event::{Event, EventKind};
use crate::interest::Interest;
use crate::registry::{self, Registry, Tag};
use crate::sys::fork;
use crate::sys::{descriptor as sys, lock, Doorbell};
use place::Place;
use ring::{Door, Entered, Ring, Waiters};
use state::{key, poll_of, Age, State};

pub(super) const CAPABILITIES: Capabilities = Capabilities::TELLS_HANGUP
    .and(Capabilities::TELLS_READ_CLOSED)
    .and(Capabilities::NATIVE_EDGE)
    .and(Capabilities::HAS_EXCLUSIVE);

/// Whether the kernel lets us have it.
pub(super) fn is_available() -> bool {
    ring::refused().is_none()
}

pub(crate) struct Uring {
    doorbell: Arc<Doorbell>,
    files_always_ready: bool,
    waits: Waits,
    /// Locked only while the registry is.
    state: Mutex<State>,
}

impl Engine for Uring {
    fn kind(&self) -> EngineKind {
        EngineKind::IoUring
    }

    fn add(&self, registry: &mut Registry, fd: RawFd, interest: Interest, tag: Tag) -> io::Result<()> {
        let file = sys::File::of(fd)?;
        let always_ready = tag.kind == EventKind::Io && !file.can_be_watched(fd)?;
        if always_ready && !self.files_always_ready {
            return Err(sys::always_ready());
        }
        let mut state = lock(&self.state);
        if state.ring.door().is(fd) {
            return Err(fail(libc::EINVAL, "the descriptor is the poller's own"));
        }
        if let Some(old) = registry.get(fd).filter(|old| old.file == file.identity) {
            let is_same = match file.is_anonymous() {
                true => is_same(&mut state, registry, fd)?,
                false => !Place(old.place).is(Place::GONE),
            };
            if is_same {
                return Err(registry::known());
            }
        }
        state.withdraw(fd, registry);
        let registration = registry.begin(fd, interest, tag);
        registration.file = file.identity;
        if always_ready {
            registration.place = Place::ALWAYS.0;
            state.enqueue(fd, registration);
        } else {
            state.list(fd, registration);
        }
        self.announce(&mut state);
        Ok(())
    }

    fn modify(&self, registry: &mut Registry, fd: RawFd, interest: Interest, token: u64) -> io::Result<()> {
        let Some(old) = registry.get(fd).copied() else { return Err(registry::unknown()) };
        if sys::File::of(fd)?.identity != old.file {
            self.remove(registry, fd);
            return Err(registry::unknown());
        }
        let mut state = lock(&self.state);
        let place = Place(old.place);
        let poll = poll_of(interest, place.without(Place::LASTING));
        let is_watched = place.is(Place::WATCHED) && poll == poll_of(old.interest, place);
        if !is_watched && !place.is(Place::ALWAYS) {
            state.withdraw(fd, registry);
        }
        let Some(registration) = registry.alter(fd, interest, token) else { return Err(registry::unknown()) };
        // What is ready now is told: by a look, or by the kernel, which looks before it watches.
        if is_watched || place.is(Place::ALWAYS) {
            state.enqueue(fd, registration);
        } else {
            registration.place = 0;
            state.list(fd, registration);
        }
        self.announce(&mut state);
        Ok(())
    }

    fn remove(&self, registry: &mut Registry, fd: RawFd) {
        let mut state = lock(&self.state);
        state.withdraw(fd, registry);
        registry.end(fd);
        // For the file's sake: it may be closed next. An error leaves it to the next wait.
        if state.has_unwanted() {
            let _ = state.cancel(registry);
            if self.waits.change() {
                let _ = self.doorbell.ring();
            }
        }
    }

    fn let_go(&self, registry: &Mutex<Registry>) {
        self.waits.until_known(registry, &self.doorbell);
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
        if state.is_anothers() {
            match state.share(&mut locked) {
                // The ring there is serves several too, if later. The next wait tries again.
                Err(error) if ring::may_pass(&error) => {}
                shared => shared?,
            }
        }
        state.take_all(&mut locked)?;
        if state.has_candidates() {
            // What has been added may be ready too. Those who are must not wait for the others.
            if state.has_changes() && state.submit(&mut locked).is_ok() {
                state.take(&mut locked)?;
            }
            let batch = state.deliver(&mut locked, events, Age::Unknown)?;
            if batch.is_something() {
                return self.leave(state, &mut locked, batch);
            }
        }
        let requests = state.write_requests(&mut locked)?;
        let (door, taken) = (state.ring.door(), state.taken);
        let slept = match timeout {
            Some(Duration::ZERO) => door.enter(requests, 0, None).map(|_| Slept::ItsTime),
            // Completions were taken to make room.
            _ if state.has_candidates() => door.enter(requests, 0, None).map(|_| Slept::Woken),
            _ => {
                state.asleep += 1;
                let known = self.waits.begin();
                drop((state, locked));
                let process = fork::count();
                let slept = sleep(door, requests, timeout);
                if fork::glance() != process {
                    // The handler of a signal has forked. The child has no ring to look at, and
                    // another thread of its parent's may have had the locks.
                    return Err(plain(libc::EINTR));
                }
                (locked, state) = self.come_back(registry, door, known);
                slept
            }
        };
        state.take(&mut locked)?;
        let mut batch = state.deliver(&mut locked, events, Age::Fresh)?;
        if !batch.is_something() {
            batch.dropped = match slept {
                _ if state.taken != taken => true,
                Ok(Slept::ItsTime) => state.has_changes(),
                Ok(Slept::Woken) => true,
                Ok(Slept::WokenOrInterrupted) if state.has_changes() => true,
                Ok(Slept::WokenOrInterrupted) => return Err(plain(libc::EINTR)),
                Err(error) => return Err(error),
            };
        }
        self.leave(state, &mut locked, batch)
    }

    fn leave_to_parent(&self) {
        // Locked, it is by a thread that the child does not have.
        if let Ok(state) = self.state.try_lock() {
            state.ring.leave_to_parent(self.doorbell.as_raw_fd());
        }
    }

    fn rebuild(&self, registry: &mut Registry) -> io::Result<()> {
        // Before a descriptor of ours can take the number of one that the child has closed.
        for fd in registry.descriptors().into_iter().filter(|&fd| !sys::is_open(fd)) {
            registry.mark_closed(fd);
        }
        let mut new = State::new(Ring::new(Waiters::One)?, self.doorbell.as_raw_fd());
        for fd in registry.descriptors() {
            let Some(registration) = registry.get_mut(fd) else { continue };
            let place = Place(registration.place);
            registration.place = 0;
            if place.is(Place::ALWAYS) {
                registration.place = Place::ALWAYS.0;
                if place.is(Place::QUEUED) {
                    new.enqueue(fd, registration);
                }
            } else if registration.armed != 0 {
                new.list(fd, registration);
            }
        }
        *lock(&self.state) = new;
        self.waits.forget();
        self.doorbell.ring()
    }
}

impl Uring {
    pub(crate) fn new(doorbell: Arc<Doorbell>, files_always_ready: bool) -> io::Result<Self> {
        if let Some(refusal) = ring::refused() {
            return Err(refusal.error());
        }
        let state = Mutex::new(State::new(Ring::new(Waiters::One)?, doorbell.as_raw_fd()));
        Ok(Self { doorbell, files_always_ready, waits: Waits::default(), state })
    }

    /// Has somebody who sleeps hand over a change. One is enough, and so is one ring.
    fn announce(&self, state: &mut State) {
        if state.asleep > 0 && !state.called {
            state.called = true;
            // It can only fail when somebody closed the bell, which ends the wait with EBADF.
            let _ = self.doorbell.ring();
        }
    }

    fn come_back<'a>(
        &'a self,
        registry: &'a Mutex<Registry>,
        door: Door,
        known: u64,
    ) -> (MutexGuard<'a, Registry>, MutexGuard<'a, State>) {
        let locked = lock(registry);
        self.waits.end(known);
        let mut state = lock(&self.state);
        state.come_back(door);
        (locked, state)
    }

    /// Ends a wait: what is left to hand over counts for those who sleep. An error would take
    /// the batch with it, so it is left to one of them.
    fn leave(
        &self,
        mut state: MutexGuard<'_, State>,
        registry: &mut Registry,
        batch: Batch,
    ) -> io::Result<Batch> {
        if state.asleep > 0 && state.has_changes() && state.submit(registry).is_err() {
            self.announce(&mut state);
        }
        Ok(batch)
    }
}

/// Whether a registered number still stands for the anonymous file it was registered for: all
/// of a kind are one to fstat(2). The kernel's poll knows its file, as long as there is one.
#[cold]
fn is_same(state: &mut State, registry: &mut Registry, fd: RawFd) -> io::Result<bool> {
    let Some(old) = registry.get(fd).copied() else { return Ok(false) };
    if Place(old.place).is(Place::GONE) {
        return Ok(false);
    }
    if Place(old.place).is(Place::WATCHED) && state.ring.ends_if_of(key(fd, old.generation), fd) {
        return Ok(true);
    }
    // There is no such poll. If it has ended by itself, there is a completion that says so.
    state.take(registry)?;
    Ok(registry.get(fd).is_some_and(|it| !Place(it.place).is(Place::WATCHED)))
}

/// How a sleep ended.
enum Slept {
    /// It lasted its time.
    ItsTime,
    /// There was a completion.
    Woken,
    /// One or the other: if nobody has taken a completion, it was a signal.
    WokenOrInterrupted,
}

fn sleep(door: Door, requests: u32, timeout: Option<Duration>) -> io::Result<Slept> {
    // The kernel says how the wait ended only if it took no requests.
    let begun = timeout.filter(|_| requests > 0).map(|_| Instant::now());
    let time_is_up = || begun.zip(timeout).is_some_and(|(begun, timeout)| begun.elapsed() >= timeout);
    Ok(match door.enter(requests, 1, timeout)? {
        Entered::TimeIsUp => Slept::ItsTime,
        // The kernel doesn't wait when it has taken fewer: another thread had handed them over.
        Entered::Back { taken } if taken < requests || requests == 0 => Slept::Woken,
        Entered::Back { .. } if time_is_up() => Slept::ItsTime,
        Entered::Back { .. } => Slept::WokenOrInterrupted,
    })
}
