//! What is asked of the kernel, what it has answered ([`notes`]), and who is told ([`turns`]).

mod notes;
mod turns;

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

use super::look::Look;
use super::place::Place;
use super::ring::{Door, Ring, Waiters};
use crate::interest::Interest;
use crate::registry::{Registration, Registry};

/// What the kernel hands back for the doorbell; no descriptor is -1.
const DOORBELL: u64 = u64::MAX;
/// [`State::waiter`]: there have been others. Nothing is there in memory.
const SEVERAL: usize = 0;
/// The doorbell's place in the queue.
const BELL: RawFd = -1;

pub(super) struct State {
    pub(super) ring: Ring,
    /// The ring before, as long as a thread may be in it.
    former: Option<Ring>,
    /// The only thread that has waited so far.
    waiter: Option<usize>,
    bell: Bell,
    /// Registrations for which the kernel is to be asked.
    unwatched: Vec<RawFd>,
    /// The keys of polls that are to end.
    unwanted: Vec<u64>,
    /// Who may have something to tell, by number and generation: each takes its turn. An entry
    /// whose registration is another by now is nobody's.
    queue: VecDeque<(RawFd, u32)>,
    /// The threads that sleep in the kernel, or are about to.
    pub(super) asleep: usize,
    /// The bell has been rung for a change that nobody has handed over yet.
    pub(super) called: bool,
    /// How many completions were taken.
    pub(super) taken: u64,
    look: Look,
    turn: Vec<(RawFd, u32)>,
}

/// The doorbell is watched like any descriptor, for ever, by its edges, so that it need not be
/// read.
struct Bell {
    fd: RawFd,
    watched: bool,
    queued: bool,
}

/// Whether what completions say was so during the wait that tells it, or may be of long ago.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    Fresh,
    Unknown,
}

/// What the kernel hands back for a registration.
pub(super) fn key(fd: RawFd, generation: u32) -> u64 {
    u64::from(generation) << 32 | fd as u64
}

/// The poll to ask the kernel for: its bits, and whether it is to last.
pub(super) fn poll_of(interest: Interest, place: Place) -> (u32, bool) {
    let exclusive = if interest.is_exclusive() { libc::EPOLLEXCLUSIVE as u32 } else { 0 };
    // Urgent data wakes no poll that asks for nothing else (IO_ASYNC_POLL_COMMON of
    // io_uring/poll.c), and it always comes with POLLIN.
    let urgent = if interest.contains(Interest::PRIORITY) { libc::POLLIN as u32 } else { 0 };
    (wanted(interest) | urgent | exclusive, !interest.is_oneshot() || place.is(Place::LASTING))
}

/// What a registration asks for, in the bits of poll(2).
fn wanted(interest: Interest) -> u32 {
    let bits = [
        (Interest::READ, libc::POLLIN | libc::POLLRDHUP),
        (Interest::WRITE, libc::POLLOUT),
        (Interest::PRIORITY, libc::POLLPRI),
    ];
    let bits = bits.into_iter().filter(|&(direction, _)| interest.contains(direction));
    bits.fold(0, |all, (_, bits)| all | bits as u32)
}

impl State {
    pub(super) fn new(ring: Ring, doorbell: RawFd) -> Self {
        Self {
            ring,
            former: None,
            waiter: None,
            bell: Bell { fd: doorbell, watched: false, queued: false },
            unwatched: Vec::new(),
            unwanted: Vec::new(),
            queue: VecDeque::new(),
            asleep: 0,
            called: false,
            taken: 0,
            look: Look::default(),
            turn: Vec::new(),
        }
    }

    /// Whether the ring is made for one thread, and that is another.
    #[inline]
    pub(super) fn is_anothers(&mut self) -> bool {
        thread_local! {
            static MARK: u8 = const { 0 };
        }
        let me = MARK.with(|mark| std::ptr::from_ref(mark) as usize);
        *self.waiter.get_or_insert(me) != me && !self.is_shared()
    }

    fn is_shared(&self) -> bool {
        self.waiter == Some(SEVERAL)
    }

    /// Moves to a ring for several threads. What the former one says from now on is not heard,
    /// but for ending the sleep of who is in it: the new one is asked for everything again.
    #[cold]
    pub(super) fn share(&mut self, registry: &mut Registry) -> io::Result<()> {
        let new = Ring::new(Waiters::Several)?;
        self.take(registry)?;
        self.waiter = Some(SEVERAL);
        let mut former = std::mem::replace(&mut self.ring, new);
        if self.asleep > 0 {
            // Whoever is in it comes back by that.
            former.cancel_all();
            // Nobody may be given its number while a thread is about to use it.
            self.former = Some(former);
        }
        self.bell.watched = false;
        self.unwanted.clear();
        for fd in registry.descriptors() {
            let Some(registration) = registry.get_mut(fd) else { continue };
            let place = Place(registration.place);
            if place.is(Place::WATCHED) {
                registration.place = place.without(Place::WATCHED).0;
                if !place.is(Place::QUEUED) && registration.armed != 0 {
                    self.list(fd, registration);
                }
            }
        }
        Ok(())
    }

    /// A thread has come back from a sleep in this ring.
    pub(super) fn come_back(&mut self, door: Door) {
        self.asleep -= 1;
        if self.former.as_ref().is_some_and(|former| former.door() == door) {
            self.former = None;
        }
    }

    /// Has the kernel asked for this registration by the next wait.
    pub(super) fn list(&mut self, fd: RawFd, registration: &mut Registration) {
        let place = Place(registration.place).nowhere();
        registration.place = place.listed_at(self.unwatched.len()).0;
        self.unwatched.push(fd);
    }

    /// Has this registration looked at by the next wait.
    pub(super) fn enqueue(&mut self, fd: RawFd, registration: &mut Registration) {
        let place = Place(registration.place);
        if !place.is(Place::QUEUED) {
            self.queue.push_back((fd, registration.generation));
        }
        registration.place = place.with(Place::QUEUED).with(Place::UNSURE).0;
    }

    /// Takes a registration out of the list or the queue, and the kernel's poll of it from under
    /// it. It begins a new life, so that nothing of the old one reaches it.
    pub(super) fn withdraw(&mut self, fd: RawFd, registry: &mut Registry) {
        let next = registry.next_generation();
        let Some(registration) = registry.get_mut(fd) else { return };
        let place = Place(registration.place);
        registration.place = place.nowhere().without(Place::WATCHED).0;
        if place.is(Place::WATCHED) {
            self.unwanted.push(key(fd, registration.generation));
        }
        registration.generation = next;
        registry.tick();
        if place.is(Place::LISTED) {
            self.unwatched.swap_remove(place.index());
            let moved = self.unwatched.get(place.index());
            if let Some(moved) = moved.and_then(|&moved| registry.get_mut(moved)) {
                moved.place = Place(moved.place).listed_at(place.index()).0;
            }
        }
    }

    /// Whether anybody may have something to tell.
    pub(super) fn has_candidates(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether there is something to hand over to the kernel.
    pub(super) fn has_changes(&mut self) -> bool {
        !self.bell.watched
            || !self.unwatched.is_empty()
            || !self.unwanted.is_empty()
            || self.ring.requests() > 0
    }

    /// Whether there are polls that the kernel is still to end.
    pub(super) fn has_unwanted(&self) -> bool {
        !self.unwanted.is_empty()
    }

    /// Has the kernel end the polls that are to end, now.
    pub(super) fn cancel(&mut self, registry: &mut Registry) -> io::Result<()> {
        self.write_cancels(registry)?;
        let requests = self.ring.requests();
        self.ring.door().enter(requests, 0, None)?;
        // Those who sleep, or are about to, must find completions of which nobody else has heard.
        if self.asleep == 0 {
            self.take(registry)?;
        }
        Ok(())
    }

    /// Writes requests for what has changed, and hands over all but the last of them that fit
    /// the queue. Returns how many are left to hand over.
    pub(super) fn write_requests(&mut self, registry: &mut Registry) -> io::Result<u32> {
        self.called = false;
        self.write_cancels(registry)?;
        if !self.unwatched.is_empty() {
            self.write_polls(registry)?;
        }
        if !self.bell.watched {
            let fd = self.bell.fd;
            self.bell.watched = self.write(|ring| ring.watch(fd, libc::POLLIN as u32, true, DOORBELL))?;
        }
        Ok(self.ring.requests())
    }

    fn write_cancels(&mut self, registry: &mut Registry) -> io::Result<()> {
        // The youngest first: the kernel has them in a few lists, and finds what came last at once.
        self.unwanted.sort_unstable();
        while let Some(key) = self.unwanted.pop() {
            match self.write(|ring| ring.unwatch(key)) {
                Ok(true) => {}
                refused => {
                    self.unwanted.push(key);
                    return refused.map(drop);
                }
            }
            if self.ring.requests() == 1 && self.asleep == 0 {
                // Each poll that has ended says so: many would not fit, which costs the kernel more.
                self.take(registry)?;
            }
        }
        Ok(())
    }

    /// Asks for those in the list, the first one first: who has come first is told first.
    fn write_polls(&mut self, registry: &mut Registry) -> io::Result<()> {
        let mut list = std::mem::take(&mut self.unwatched);
        let mut written = 0;
        let mut outcome = Ok(true);
        for &fd in &list {
            if let Some(registration) = registry.get_mut(fd) {
                let place = Place(registration.place).nowhere();
                let (bits, lasting) = poll_of(registration.interest, place);
                let key = key(fd, registration.generation);
                outcome = self.write(|ring| ring.watch(fd, bits, lasting, key));
                if !matches!(outcome, Ok(true)) {
                    break;
                }
                registration.place = place.with(Place::WATCHED).0;
            }
            written += 1;
        }
        list.drain(..written);
        for (index, &fd) in list.iter().enumerate() {
            if let Some(registration) = registry.get_mut(fd) {
                registration.place = Place(registration.place).listed_at(index).0;
            }
        }
        self.unwatched = list;
        outcome.map(drop)
    }

    /// Writes a request, after handing over the others if there is no room. False when the kernel
    /// doesn't take them now.
    fn write(&mut self, request: impl Fn(&mut Ring) -> bool) -> io::Result<bool> {
        if request(&mut self.ring) {
            return Ok(true);
        }
        let requests = self.ring.requests();
        self.ring.door().enter(requests, 0, None)?;
        Ok(request(&mut self.ring))
    }

    /// Hands over every change now.
    pub(super) fn submit(&mut self, registry: &mut Registry) -> io::Result<()> {
        let requests = self.write_requests(registry)?;
        self.ring.door().enter(requests, 0, None).map(drop)
    }
}

/// Whether what a completion says may have passed: an edge may, a LEVEL or a ONESHOT may not.
#[inline]
fn is_edge(interest: Interest) -> bool {
    interest.is_edge() && !interest.is_oneshot()
}
