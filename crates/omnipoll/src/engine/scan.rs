//! What `select` and `poll` share: the program keeps the set and passes all of it at each call.
//!
//! - A wait takes a copy of the set out of the lock, so that other threads can change the set
//!   meanwhile. A change rings the doorbell, and whoever waits starts again with a new copy.
//! - The kernel has no edges: a direction that was reported leaves the set until
//!   [`rearm`](Engine::rearm). A ONESHOT leaves it until `modify`.
//! - The system calls watch numbers, not files. Which file a number stands for is asked of
//!   `fstat(2)` when it is registered and changed, so that a number used again is noticed.
//! - A call in progress holds on to the files it was passed, whatever becomes of their numbers:
//!   a removal ends it, and waits for that.

use std::io;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::waits::Waits;
use super::{Batch, Engine, EngineKind};
use crate::error::fail;
use crate::event::{Event, EventKind, Ready};
use crate::interest::Interest;
use crate::registry::{self, Registration, Registry, Tag};
use crate::sys::{descriptor as sys, lock, Doorbell};

/// How long to leave a bell alone that can't be silenced.
const PAUSE: Duration = Duration::from_millis(1);

/// What differs between the two: how the set is kept, passed and read.
pub(crate) trait Set: Send + Sized + 'static {
    const KIND: EngineKind;

    /// What ends the system call tells apart from READ and WRITE: HANGUP, ERROR, READ_CLOSED.
    const ENDS: u8;

    /// The arguments of one system call.
    type Call: Default + Send;

    /// A set that watches `doorbell` for READ, always.
    fn new(doorbell: RawFd) -> Self;

    /// Makes room for one more descriptor. `ENOMEM`.
    fn reserve(&mut self, fd: RawFd) -> io::Result<()>;

    /// Watches the directions and ends for which the registration is armed, from now on.
    fn watch(&mut self, fd: RawFd, registration: &mut Registration);

    /// Watches the descriptor of this registration no more; it is still in the registry.
    fn forget(&mut self, fd: RawFd, registry: &mut Registry);

    /// Copies the set into the arguments of a call. `ENOMEM`.
    fn load(&self, call: &mut Self::Call) -> io::Result<()>;

    /// Makes the call.
    fn make(call: &mut Self::Call, timeout: Option<Duration>) -> io::Result<()>;

    /// Visits what the call found ready, in the bits of poll(2), beginning at position `from`
    /// and going round.
    fn visit(call: &Self::Call, from: usize, visitor: impl FnMut(Found) -> ControlFlow<()>);
}

/// A descriptor found ready.
pub(crate) struct Found {
    pub(crate) fd: RawFd,
    pub(crate) bits: u16,
    /// Where it stands in the order of the visit.
    pub(crate) position: usize,
}

pub(crate) struct Scan<S: Set> {
    doorbell: Arc<Doorbell>,
    files_always_ready: bool,
    waits: Waits,
    /// Locked only while the registry is.
    state: Mutex<State<S>>,
}

struct State<S: Set> {
    set: S,
    /// Arguments of calls that nobody is making now, kept for their memory.
    idle: Vec<S::Call>,
    /// Where the next visit begins, so that everybody's turn comes.
    from: usize,
    /// The bell could not be silenced.
    rings_on: bool,
}

/// A wait that has left the lock.
struct Trip<C> {
    call: C,
    /// What [`Waits`] knows it by.
    known: u64,
    /// The registry's clock when the copy was made.
    clock: u32,
}

impl<S: Set> Engine for Scan<S> {
    fn kind(&self) -> EngineKind {
        S::KIND
    }

    fn add(&self, registry: &mut Registry, fd: RawFd, interest: Interest, tag: Tag) -> io::Result<()> {
        let file = sys::File::of(fd)?;
        if tag.kind == EventKind::Io && !file.can_be_watched(fd)? && !self.files_always_ready {
            return Err(sys::always_ready());
        }
        let mut state = lock(&self.state);
        state.set.reserve(fd)?;
        match registry.get(fd) {
            Some(old) if old.file == file.identity => return Err(registry::known()),
            Some(_) => state.set.forget(fd, registry),
            None => {}
        }
        let registration = registry.begin(fd, interest, tag);
        registration.file = file.identity;
        registration.armed |= ends::<S>(interest, interest.directions());
        state.set.watch(fd, registration);
        self.announce();
        Ok(())
    }

    fn modify(&self, registry: &mut Registry, fd: RawFd, interest: Interest, token: u64) -> io::Result<()> {
        let Some(old) = registry.get(fd).copied() else { return Err(registry::unknown()) };
        if sys::File::of(fd)?.identity != old.file {
            self.remove(registry, fd);
            return Err(registry::unknown());
        }
        let Some(registration) = registry.renew(fd, interest, token) else { return Err(registry::unknown()) };
        registration.armed |= ends::<S>(interest, interest.directions());
        lock(&self.state).set.watch(fd, registration);
        self.announce();
        Ok(())
    }

    fn remove(&self, registry: &mut Registry, fd: RawFd) {
        lock(&self.state).set.forget(fd, registry);
        registry.end(fd);
        self.announce();
    }

    fn let_go(&self, registry: &Mutex<Registry>) {
        self.waits.until_known(registry, &self.doorbell);
    }

    fn rearm(&self, registry: &mut Registry, fd: RawFd, interest: Interest) {
        let Some(registration) = registry.get_mut(fd) else { return };
        let directions = interest.directions() & registration.interest.directions();
        let armed = registration.armed | directions | ends::<S>(registration.interest, directions);
        if armed != registration.armed {
            registration.armed = armed;
            lock(&self.state).set.watch(fd, registration);
            self.announce();
        }
    }

    fn wait(
        &self,
        registry: &Mutex<Registry>,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
    ) -> io::Result<Batch> {
        let mut trip = self.depart(&lock(registry))?;
        let made = S::make(&mut trip.call, timeout);
        let (batch, someone_is_behind, rings_on) = self.arrive(&mut lock(registry), trip, made, events);
        if someone_is_behind {
            // The bell goes on ringing until everybody has come back: let them.
            std::thread::yield_now();
        } else if rings_on {
            // It ends every wait at once until the system lets it be read: don't spin.
            std::thread::sleep(PAUSE);
        }
        batch
    }

    fn rebuild(&self, registry: &mut Registry) -> io::Result<()> {
        // The threads that waited are the parent's; the set is this process's own already.
        self.waits.forget();
        // select(2) passes over numbers beyond the child's table of descriptors, which is smaller.
        for fd in registry.descriptors().into_iter().filter(|&fd| !sys::is_open(fd)) {
            lock(&self.state).set.forget(fd, registry);
            registry.mark_closed(fd);
        }
        self.doorbell.ring()
    }
}

impl<S: Set> Scan<S> {
    pub(super) fn new(doorbell: Arc<Doorbell>, files_always_ready: bool) -> Self {
        let set = S::new(doorbell.as_raw_fd());
        let state = Mutex::new(State { set, idle: Vec::new(), from: 0, rings_on: false });
        Self { doorbell, files_always_ready, waits: Waits::default(), state }
    }

    /// Tells those who wait that the set has changed, unless all of them know. Called with the
    /// registry locked.
    fn announce(&self) {
        if self.waits.change() {
            // It can only fail when somebody closed the bell, which ends the wait with EBADF.
            let _ = self.doorbell.ring();
        }
    }

    fn depart(&self, registry: &Registry) -> io::Result<Trip<S::Call>> {
        let mut state = lock(&self.state);
        let mut call = state.idle.pop().unwrap_or_default();
        state.set.load(&mut call)?;
        Ok(Trip { call, known: self.waits.begin(), clock: registry.clock() })
    }

    fn arrive(
        &self,
        registry: &mut Registry,
        trip: Trip<S::Call>,
        made: io::Result<()>,
        events: &mut [MaybeUninit<Event>],
    ) -> (io::Result<Batch>, bool, bool) {
        let state = &mut *lock(&self.state);
        self.waits.end(trip.known);
        let batch = made.and_then(|()| self.collect(state, registry, &trip, events));
        state.idle.push(trip.call);
        (batch, self.waits.any_behind(), std::mem::take(&mut state.rings_on))
    }

    /// Hands out what the call found, as far as there is room.
    fn collect(
        &self,
        state: &mut State<S>,
        registry: &mut Registry,
        trip: &Trip<S::Call>,
        events: &mut [MaybeUninit<Event>],
    ) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let mut bell_is_closed = false;
        S::visit(&trip.call, state.from, |found| {
            if found.fd == self.doorbell.as_raw_fd() {
                batch.rung = true;
                bell_is_closed = found.bits & libc::POLLNVAL as u16 != 0;
            } else {
                match deliver(&mut state.set, registry, &found, trip.clock) {
                    Some(event) if event.kind() == EventKind::Io => {
                        events[batch.filled].write(event);
                        batch.filled += 1;
                    }
                    Some(own) => batch.internal.push(own),
                    None => {
                        batch.dropped = true;
                        return ControlFlow::Continue(());
                    }
                }
            }
            state.from = found.position + 1;
            match batch.filled + batch.internal.len() + usize::from(batch.rung) < events.len() {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        if bell_is_closed {
            return Err(fail(libc::EBADF, "the poller's own descriptor was closed"));
        }
        // Whoever is behind must find the bell ringing.
        if batch.rung && !self.waits.any_behind() {
            state.rings_on = !self.doorbell.silence();
        }
        Ok(batch)
    }
}

/// The event of what was found, if it is still somebody's. What was reported leaves the set
/// as the trigger says.
fn deliver<S: Set>(set: &mut S, registry: &mut Registry, found: &Found, clock: u32) -> Option<Event> {
    let fd = found.fd;
    let registration = registry.get_mut(fd)?;
    if registry::began_after(registration.generation, clock) {
        return None;
    }
    let (token, kind) = (registration.token, registration.kind);
    if found.bits & libc::POLLNVAL as u16 != 0 {
        set.forget(fd, registry);
        registry.end(fd);
        return Some(Event::io(token, fd, Ready::INVALID).of_kind(kind));
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
        set.watch(fd, registration);
    }
    Some(Event::io(token, fd, ready).of_kind(kind))
}

const FAILURES: u32 = Ready::HANGUP.bits() | Ready::ERROR.bits();

/// The ends that an EDGE armed for these directions is to report: they are new readiness,
/// whether or not what the directions reported was drained.
fn ends<S: Set>(interest: Interest, directions: u8) -> u8 {
    let reads = u32::from(directions) & Ready::READ.bits() != 0;
    match directions {
        0 => 0,
        _ if !interest.is_edge() || interest.is_oneshot() => 0,
        _ if reads => S::ENDS,
        _ => S::ENDS & FAILURES as u8,
    }
}

/// Leaves away the directions that another thread has had reported since the copy was made.
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
        // poll(2) reports these for as long as anything is watched: all of it leaves the set with
        // this event, so all of it is reported.
        let both = (Ready::READ | Ready::WRITE).bits();
        return Some((Ready::from_bits(ready.bits() | armed & both), 0));
    }
    let new = ready.bits() & armed;
    let implied = if new & Ready::READ_CLOSED.bits() != 0 { Ready::READ.bits() } else { 0 };
    let told = new & !why.bits() | implied;
    (told != 0).then(|| (Ready::from_bits(told) | why, (armed & !(told | why.bits())) as u8))
}
