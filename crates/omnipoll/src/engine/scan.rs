//! What `select` and `poll` share: the program keeps the set and passes all of it at each call.
//!
//! - A wait makes a copy of the set and releases the lock, so that other threads can change the
//!   set meanwhile. A change wakes the threads that wait, which start again with a new copy.
//! - The kernel has no edges: a direction that was reported leaves the set until
//!   [`rearm`](Engine::rearm). A ONESHOT leaves it until `modify`.
//! - The system calls watch numbers, not files. Which file a number stands for is asked of
//!   `fstat(2)` when it is registered and changed, so that a number used again is noticed.
//! - A call in progress holds the files it was passed, whatever becomes of their numbers: a
//!   removal ends it, and waits for that.

use std::io;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::in_flight::InFlightWaits;
use super::{Batch, Engine, EngineKind};
use crate::error::fail;
use crate::event::{Event, Ready};
use crate::interest::Interest;
use crate::registry::{self, Registration, Registry, Role, Tag};
use crate::sys::descriptor::is_open;
use crate::sys::file::{self, FileInfo};
use crate::sys::{lock, Waker};

/// How long to pause when the waker can't be drained.
const PAUSE: Duration = Duration::from_millis(1);

/// What differs between the two: how the set is kept, passed and read.
pub(crate) trait Set: Send + Sized + 'static {
    const KIND: EngineKind;

    /// Which of HANGUP, ERROR and READ_CLOSED the system call distinguishes from READ and WRITE.
    const END_FLAGS: u8;

    /// The arguments of one system call.
    type Call: Default + Send;

    /// A set that watches `waker` for READ, always.
    fn new(waker: RawFd) -> Self;

    /// Makes room for one more descriptor. `ENOMEM`.
    fn reserve(&mut self, fd: RawFd) -> io::Result<()>;

    /// Watches what the registration is armed for, from now on.
    fn update(&mut self, fd: RawFd, registration: &mut Registration);

    /// Stops watching the descriptor of this registration, which is still in the registry.
    fn remove(&mut self, fd: RawFd, registry: &mut Registry);

    /// Copies the set into the arguments of a call. `ENOMEM`.
    fn snapshot(&self, call: &mut Self::Call) -> io::Result<()>;

    /// Makes the call.
    fn call(call: &mut Self::Call, timeout: Option<Duration>) -> io::Result<()>;

    /// Visits what the call found ready, in the bits of poll(2), from position `from` to the end
    /// and then from the beginning.
    fn visit(call: &Self::Call, from: usize, visitor: impl FnMut(ReadyFd) -> ControlFlow<()>);
}

/// A descriptor found ready.
pub(crate) struct ReadyFd {
    pub(crate) fd: RawFd,
    pub(crate) bits: u16,
    /// Where it stands in the order of the visit.
    pub(crate) position: usize,
}

pub(crate) struct Scan<S: Set> {
    waker: Arc<Waker>,
    files_always_ready: bool,
    in_flight: InFlightWaits,
    /// Locked only while the registry is.
    state: Mutex<State<S>>,
}

struct State<S: Set> {
    set: S,
    /// Arguments of calls that have ended, kept for their memory.
    idle: Vec<S::Call>,
    /// Where the next visit begins, so that every descriptor has its turn.
    from: usize,
    /// The waker could not be drained.
    waker_stuck: bool,
}

/// A wait whose system call is made without the lock.
struct InFlightWait<C> {
    call: C,
    /// What [`InFlightWaits::begin`] returned.
    version: u64,
    /// The registry's clock when the copy was made.
    clock: u32,
}

impl<S: Set> Engine for Scan<S> {
    fn kind(&self) -> EngineKind {
        S::KIND
    }

    fn add(&self, registry: &mut Registry, fd: RawFd, interest: Interest, tag: Tag) -> io::Result<()> {
        let info = FileInfo::of(fd)?;
        if tag.role == Role::User && !info.can_be_watched(fd)? && !self.files_always_ready {
            return Err(file::always_ready());
        }
        let mut state = lock(&self.state);
        state.set.reserve(fd)?;
        match registry.get(fd) {
            Some(old) if old.file == info.identity => return Err(registry::already_registered()),
            Some(_) => state.set.remove(fd, registry),
            None => {}
        }
        let registration = registry.begin(fd, interest, tag);
        registration.file = info.identity;
        registration.armed |= end_flags::<S>(interest, interest.directions());
        state.set.update(fd, registration);
        self.announce();
        Ok(())
    }

    fn modify(&self, registry: &mut Registry, fd: RawFd, interest: Interest, token: u64) -> io::Result<()> {
        let Some(old) = registry.get(fd).copied() else { return Err(registry::not_registered()) };
        if FileInfo::of(fd)?.identity != old.file {
            self.remove(registry, fd);
            return Err(registry::not_registered());
        }
        let Some(registration) = registry.update_new_generation(fd, interest, token) else {
            return Err(registry::not_registered());
        };
        registration.armed |= end_flags::<S>(interest, interest.directions());
        lock(&self.state).set.update(fd, registration);
        self.announce();
        Ok(())
    }

    fn remove(&self, registry: &mut Registry, fd: RawFd) {
        lock(&self.state).set.remove(fd, registry);
        registry.end(fd);
        self.announce();
    }

    fn release_files(&self, registry: &Mutex<Registry>) {
        self.in_flight.wait_until_current(registry, &self.waker);
    }

    fn rearm(&self, registry: &mut Registry, fd: RawFd, interest: Interest) {
        let Some(registration) = registry.get_mut(fd) else { return };
        let wanted = registration.interest;
        let directions = interest.directions() & wanted.directions();
        let rearmed = if wanted.is_empty() { wanted.armed() } else { directions };
        let armed = registration.armed | rearmed | end_flags::<S>(wanted, directions);
        if armed != registration.armed {
            registration.armed = armed;
            lock(&self.state).set.update(fd, registration);
            self.announce();
        }
    }

    fn wait(
        &self,
        registry: &Mutex<Registry>,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
    ) -> io::Result<Batch> {
        let mut wait = self.begin(&lock(registry))?;
        let result = S::call(&mut wait.call, timeout);
        let finished = self.finish(&mut lock(registry), wait, result, events);
        if finished.any_outdated {
            // The waker stays readable until the outdated waits have ended: let them run.
            std::thread::yield_now();
        } else if finished.waker_stuck {
            // It ends every wait at once until it can be read: don't spin.
            std::thread::sleep(PAUSE);
        }
        finished.batch
    }

    fn rebuild(&self, registry: &mut Registry) -> io::Result<()> {
        // The threads that waited are the parent's; the set belongs to this process already.
        self.in_flight.reset();
        // select(2) skips numbers beyond the child's table of descriptors, which is smaller.
        for fd in registry.descriptors().into_iter().filter(|&fd| !is_open(fd)) {
            lock(&self.state).set.remove(fd, registry);
            registry.mark_closed(fd);
        }
        self.waker.wake()
    }
}

impl<S: Set> Scan<S> {
    pub(super) fn new(waker: Arc<Waker>, files_always_ready: bool) -> Self {
        let set = S::new(waker.as_raw_fd());
        let state = Mutex::new(State { set, idle: Vec::new(), from: 0, waker_stuck: false });
        Self { waker, files_always_ready, in_flight: InFlightWaits::default(), state }
    }

    /// Wakes the threads that wait, since the set has changed. Called with the registry locked.
    fn announce(&self) {
        if self.in_flight.change() {
            // It can only fail when the waker's descriptor was closed, which ends the wait with EBADF.
            let _ = self.waker.wake();
        }
    }

    fn begin(&self, registry: &Registry) -> io::Result<InFlightWait<S::Call>> {
        let mut state = lock(&self.state);
        let mut call = state.idle.pop().unwrap_or_default();
        state.set.snapshot(&mut call)?;
        Ok(InFlightWait { call, version: self.in_flight.begin(), clock: registry.clock() })
    }

    fn finish(
        &self,
        registry: &mut Registry,
        wait: InFlightWait<S::Call>,
        result: io::Result<()>,
        events: &mut [MaybeUninit<Event>],
    ) -> Finished {
        let state = &mut *lock(&self.state);
        self.in_flight.end(wait.version);
        let batch = result.and_then(|()| self.collect(state, registry, &wait, events));
        state.idle.push(wait.call);
        let any_outdated = self.in_flight.any_outdated();
        Finished { batch, any_outdated, waker_stuck: std::mem::take(&mut state.waker_stuck) }
    }

    /// Makes events of what the call found, as far as there is room.
    fn collect(
        &self,
        state: &mut State<S>,
        registry: &mut Registry,
        wait: &InFlightWait<S::Call>,
        events: &mut [MaybeUninit<Event>],
    ) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let mut waker_is_closed = false;
        S::visit(&wait.call, state.from, |found| {
            if found.fd == self.waker.as_raw_fd() {
                batch.woken = true;
                waker_is_closed = found.bits & libc::POLLNVAL as u16 != 0;
            } else {
                let Some((role, event)) = event_of(&mut state.set, registry, &found, wait.clock) else {
                    batch.dropped = true;
                    return ControlFlow::Continue(());
                };
                batch.push(events, found.fd, role, event);
            }
            state.from = found.position + 1;
            if batch.used() < events.len() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        if waker_is_closed {
            return Err(fail(libc::EBADF, "the poller's own descriptor was closed"));
        }
        // An outdated wait must find the waker readable.
        if batch.woken && !self.in_flight.any_outdated() {
            state.waker_stuck = !self.waker.drain();
        }
        Ok(batch)
    }
}

/// How a wait ended.
struct Finished {
    batch: io::Result<Batch>,
    /// Other waits in progress have an older copy of the set.
    any_outdated: bool,
    waker_stuck: bool,
}

/// The event of what was found, if it is still registered. What was reported leaves the set as
/// the trigger says.
fn event_of<S: Set>(
    set: &mut S,
    registry: &mut Registry,
    found: &ReadyFd,
    clock: u32,
) -> Option<(Role, Event)> {
    let fd = found.fd;
    let registration = registry.get_mut(fd)?;
    if registry::began_after(registration.generation, clock) {
        return None;
    }
    let (token, role) = (registration.token, registration.role);
    if found.bits & libc::POLLNVAL as u16 != 0 {
        set.remove(fd, registry);
        registry.end(fd);
        return Some((role, Event::io(token, fd, Ready::INVALID)));
    }
    let ready = super::ready_of_poll(found.bits, registration.interest);
    let (ready, left) = match registration.interest {
        interest if interest.is_edge() && !interest.is_oneshot() => edge(registration, ready)?,
        interest => {
            let ready = still_armed(registration, ready)?;
            (ready, if interest.is_oneshot() { 0 } else { registration.armed })
        }
    };
    if left != registration.armed {
        registration.armed = left;
        set.update(fd, registration);
    }
    Some((role, Event::io(token, fd, ready)))
}

const FAILURES: u32 = Ready::FAILURES.bits();

/// The END_FLAGS that an EDGE armed for these directions reports: they are new readiness, whether
/// or not what the directions reported was drained.
fn end_flags<S: Set>(interest: Interest, directions: u8) -> u8 {
    let reads = u32::from(directions) & Ready::READ.bits() != 0;
    match directions {
        0 => 0,
        _ if !interest.is_edge() || interest.is_oneshot() => 0,
        _ if reads => S::END_FLAGS,
        _ => S::END_FLAGS & FAILURES as u8,
    }
}

/// Leaves out the directions that were reported to another thread since the copy was made.
fn still_armed(registration: &Registration, ready: Ready) -> Option<Ready> {
    let failed = ready.bits() & FAILURES != 0;
    let directions = ready.bits() & u32::from(registration.directions());
    let anything = registration.armed != 0 && (directions != 0 || failed);
    anything.then(|| Ready::from_bits(directions) | ready.without_directions())
}

/// What an EDGE reports, and what it is armed for after that: what it has not reported.
fn edge(registration: &Registration, ready: Ready) -> Option<(Ready, u8)> {
    let armed = u32::from(registration.armed);
    let why = ready.without_directions();
    if armed != 0 && ready.bits() & FAILURES != 0 {
        // poll(2) reports these as long as anything is watched: all of it leaves the set with this
        // event, so all of it is reported.
        let both = (Ready::READ | Ready::WRITE).bits();
        return Some((Ready::from_bits(ready.bits() | armed & both), 0));
    }
    let new = ready.bits() & armed;
    let implied = if new & Ready::READ_CLOSED.bits() != 0 { Ready::READ.bits() } else { 0 };
    let reported = new & !why.bits() | implied;
    (reported != 0).then(|| (Ready::from_bits(reported) | why, (armed & !(reported | why.bits())) as u8))
}
