//! Who is told: those in the queue, in turns.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use super::super::super::{ready_of_poll, Batch};
use super::super::place::Place;
use super::{is_edge, wanted, Age, State, BELL};
use crate::event::{Event, EventKind, Ready};
use crate::registry::{Registration, Registry};

impl State {
    /// Tells those in the queue, each once, as far as there is room. Their completions are as old
    /// as said.
    pub(in super::super) fn deliver(
        &mut self,
        registry: &mut Registry,
        events: &mut [MaybeUninit<Event>],
        age: Age,
    ) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let mut turns = self.queue.len();
        loop {
            let room = events.len() - batch.filled - batch.internal.len() - usize::from(batch.rung);
            self.gather(registry, room, &mut turns, age);
            if self.turn.is_empty() {
                return Ok(batch);
            }
            let mut turn = std::mem::take(&mut self.turn);
            if let Err(error) = self.look.make() {
                // Nobody has been told: those in the queue are still to be.
                turn.drain(..).rev().for_each(|entry| self.queue.push_front(entry));
                self.turn = turn;
                return if batch.is_something() { Ok(batch) } else { Err(error) };
            }
            for (fd, _) in turn.drain(..) {
                match self.settle(registry, fd, &mut batch) {
                    Some(event) if event.kind() == EventKind::Io => {
                        events[batch.filled].write(event);
                        batch.filled += 1;
                    }
                    Some(own) => batch.internal.push(own),
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
