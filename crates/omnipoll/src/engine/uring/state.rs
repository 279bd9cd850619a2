//! What is asked of the kernel, what it has answered, and who is told.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use io_uring::cqueue;

use super::super::{ready_of_poll, Batch};
use super::look::Look;
use super::place::Place;
use super::ring::{Door, Ring, Waiters, NOBODY};
use crate::event::{Event, EventKind, Ready};
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
    /// but for ending the sleep of who is in it: the new one is asked for everything anew.
    #[cold]
    pub(super) fn share(&mut self, registry: &mut Registry) -> io::Result<()> {
        let new = Ring::new(Waiters::Several)?;
        self.take(registry)?;
        self.waiter = Some(SEVERAL);
        let former = std::mem::replace(&mut self.ring, new);
        // Nobody may be given its number while a thread is about to use it.
        self.former = (self.asleep > 0).then_some(former);
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

    /// Writes requests for what has changed, and hands over all but the last of them that fit
    /// the queue. Returns how many are left to hand over.
    pub(super) fn write_requests(&mut self, registry: &mut Registry) -> io::Result<u32> {
        self.called = false;
        while let Some(&key) = self.unwanted.last() {
            if !self.write(|ring| ring.unwatch(key))? {
                return Ok(self.ring.requests());
            }
            self.unwanted.pop();
        }
        if !self.unwatched.is_empty() {
            self.write_polls(registry)?;
        }
        if !self.bell.watched {
            let fd = self.bell.fd;
            self.bell.watched = self.write(|ring| ring.watch(fd, libc::POLLIN as u32, true, DOORBELL))?;
        }
        Ok(self.ring.requests())
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

    /// Takes every completion that is there, or would be had this thread done its part.
    pub(super) fn take_all(&mut self, registry: &mut Registry) -> io::Result<()> {
        if self.ring.has_work() {
            self.ring.door().enter(0, 0, None)?;
        }
        self.take(registry)
    }

    /// Takes every completion that is there.
    pub(super) fn take(&mut self, registry: &mut Registry) -> io::Result<()> {
        loop {
            let Self { ring, bell, unwatched, unwanted, queue, taken, .. } = self;
            let mut notes = Notes { bell, unwatched, unwanted, queue };
            for completion in ring.completions() {
                *taken += 1;
                notes.note(registry, &completion);
            }
            if !self.ring.has_overflown() {
                return Ok(());
            }
            self.ring.door().enter(0, 0, None)?;
        }
    }

    /// Tells those in the queue, each once, as far as there is room. Their completions are as old
    /// as said.
    pub(super) fn deliver(
        &mut self,
        registry: &mut Registry,
        events: &mut [MaybeUninit<Event>],
        age: Age,
    ) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let mut turns = self.queue.len();
        loop {
            let room = events.len() - batch.filled - batch.own.len() - usize::from(batch.rung);
            self.gather(registry, room, &mut turns, age);
            if self.turn.is_empty() {
                return Ok(batch);
            }
            self.look.make()?;
            let mut turn = std::mem::take(&mut self.turn);
            for (fd, _) in turn.drain(..) {
                match self.settle(registry, fd, &mut batch) {
                    Some(event) if event.kind() == EventKind::Io => {
                        events[batch.filled].write(event);
                        batch.filled += 1;
                    }
                    Some(own) => batch.own.push(own),
                    None => {}
                }
            }
            self.turn = turn;
        }
    }

    /// Takes as many out of the queue as there is room for events, and notes whom to look at.
    fn gather(&mut self, registry: &mut Registry, room: usize, turns: &mut usize, age: Age) {
        self.look.clear();
        while *turns > 0 && self.turn.len() < room {
            let Some((fd, generation)) = self.queue.pop_front() else { break };
            *turns -= 1;
            if fd == BELL {
                self.turn.push((fd, generation));
                continue;
            }
            let Some(registration) = registry.get_mut(fd) else { continue };
            let place = Place(registration.place);
            if registration.generation != generation || !place.is(Place::QUEUED) {
                continue;
            }
            if place.is(Place::UNSURE) || (age == Age::Unknown && !is_edge(registration.interest)) {
                registration.place = place.with(Place::UNSURE).0;
                self.look.at(fd, wanted(registration.interest));
            }
            self.turn.push((fd, generation));
        }
    }

    /// What one whose turn it is has to tell, and where it goes from here.
    fn settle(&mut self, registry: &mut Registry, fd: RawFd, batch: &mut Batch) -> Option<Event> {
        if fd == BELL {
            self.bell.queued = false;
            batch.rung = true;
            return None;
        }
        let registration = registry.get_mut(fd)?;
        let (interest, place) = (registration.interest, Place(registration.place));
        let bits = match place.is(Place::UNSURE) {
            true => self.look.next(),
            false => place.bits(),
        };
        registration.place = place.nowhere().0;
        if bits & libc::POLLNVAL as u16 != 0 {
            return self.lose(registry, fd);
        }
        let ready = ready_of_poll(bits, interest);
        let event = Event::io(registration.token, fd, ready).of_kind(registration.kind);
        let told = ready.bits() != 0;
        if interest.is_oneshot() {
            if told {
                // Should the kernel still watch it, a modify finds it so.
                registration.armed = 0;
            } else {
                if !place.is(Place::WATCHED) {
                    registration.place = Place(registration.place).with(Place::LASTING).0;
                }
                self.go_on(fd, registration);
            }
        } else if told && !interest.is_edge() {
            // It is told by every wait as long as it holds: until a look says otherwise.
            self.enqueue(fd, registration);
        } else {
            self.go_on(fd, registration);
        }
        told.then_some(event)
    }

    /// Has what is to be watched watched: the kernel may have ended its poll.
    fn go_on(&mut self, fd: RawFd, registration: &mut Registration) {
        let place = Place(registration.place);
        if !place.is(Place::WATCHED) && !place.is(Place::ALWAYS) {
            self.list(fd, registration);
        }
    }

    /// A registration whose number is no file's any more. The kernel held on to the file: it is
    /// let go of, in silence, except for one that nothing but looking at it tells of.
    #[cold]
    fn lose(&mut self, registry: &mut Registry, fd: RawFd) -> Option<Event> {
        self.withdraw(fd, registry);
        let registration = registry.get_mut(fd)?;
        if Place(registration.place).is(Place::ALWAYS) {
            let event = Event::io(registration.token, fd, Ready::INVALID);
            registry.end(fd);
            return Some(event);
        }
        registration.place = Place::GONE.0;
        None
    }
}

/// The parts of [`State`] that a completion changes.
struct Notes<'a> {
    bell: &'a mut Bell,
    unwatched: &'a mut Vec<RawFd>,
    unwanted: &'a mut Vec<u64>,
    queue: &'a mut VecDeque<(RawFd, u32)>,
}

impl Notes<'_> {
    #[inline]
    fn note(&mut self, registry: &mut Registry, completion: &cqueue::Entry) {
        let (key, result) = (completion.user_data(), completion.result());
        let goes_on = cqueue::more(completion.flags());
        if key >= NOBODY {
            if key == DOORBELL {
                self.bell.watched &= goes_on;
                self.ring();
            }
            return;
        }
        let (fd, generation) = (key as RawFd, (key >> 32) as u32);
        let Some(registration) = registry.get_mut(fd) else { return };
        let mut place = Place(registration.place);
        if registration.generation != generation || !place.is(Place::WATCHED) {
            return;
        }
        if !goes_on {
            place = place.without(Place::WATCHED);
        }
        if result < 0 {
            registration.place = place.0;
            self.note_failure(registry, fd, -result);
            return;
        }
        if registration.armed == 0 {
            // A ONESHOT that has been told: nobody wants to hear more of it.
            if goes_on {
                self.unwanted.push(key);
            }
            registration.place = place.without(Place::WATCHED).0;
            return;
        }
        place = place.with_bits(result as u16);
        if !is_whole(result as u16, registration.interest) {
            place = place.with(Place::UNSURE);
        }
        if !place.is(Place::QUEUED) {
            self.queue.push_back((fd, generation));
        }
        registration.place = place.with(Place::QUEUED).0;
    }

    /// A poll has ended without an answer.
    #[cold]
    fn note_failure(&mut self, registry: &mut Registry, fd: RawFd, errno: i32) {
        let Some(registration) = registry.get_mut(fd) else { return };
        let place = Place(registration.place);
        match errno {
            // It was closed before the kernel was asked.
            libc::EBADF => registration.place = Place::GONE.0,
            // The thread that had asked for it is no more, or memory was short: ask again, as
            // soon as it is not to be looked at any more.
            libc::ECANCELED | libc::EAGAIN | libc::ENOMEM
                if place.is(Place::QUEUED) || registration.armed == 0 => {}
            libc::ECANCELED | libc::EAGAIN | libc::ENOMEM => {
                registration.place = place.nowhere().listed_at(self.unwatched.len()).0;
                self.unwatched.push(fd);
            }
            _ => {
                registry.lose(fd);
                self.ring();
            }
        }
    }

    /// The bell has rung, or is to be taken for one that has.
    fn ring(&mut self) {
        if !self.bell.queued {
            self.bell.queued = true;
            self.queue.push_back((BELL, 0));
        }
    }
}

/// Whether a completion names everything that it should, and nothing else.
///
/// Its bits are those of the wake-up, not those of the file: a socket's also name urgent data,
/// a pipe's an error, and none names what held before.
#[inline]
fn is_whole(bits: u16, interest: Interest) -> bool {
    const PLAIN: u16 = (libc::POLLIN | libc::POLLOUT) as u16;
    let one_direction = interest.directions().is_power_of_two();
    bits & !PLAIN == 0 && !interest.contains(Interest::PRIORITY) && (one_direction || is_edge(interest))
}

/// Whether what a completion says may have passed: an edge may, a LEVEL or a ONESHOT may not.
#[inline]
fn is_edge(interest: Interest) -> bool {
    interest.is_edge() && !interest.is_oneshot()
}
