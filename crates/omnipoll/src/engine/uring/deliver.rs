//! Delivery: the registrations in the queue are verified where need be, and reported in turn.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use super::super::{ready_of_poll, Batch};
use super::slot_state::SlotState;
use super::state::{is_edge, poll_bits, State, WAKER_FD};
use crate::event::{Event, Ready};
use crate::registry::{Registration, Registry, Role};

/// Whether what completions say held during the wait that reports it, or maybe long ago.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    Fresh,
    Unknown,
}

impl State {
    /// What there is without a sleep, if anything.
    pub(super) fn deliver_queued(
        &mut self,
        registry: &mut Registry,
        events: &mut [MaybeUninit<Event>],
    ) -> io::Result<Option<Batch>> {
        self.reap_all(registry)?;
        if !self.has_queued() {
            return Ok(None);
        }
        // What has been added may be ready too. What is ready must not wait for the others.
        if self.has_pending() && self.submit(registry).is_ok() {
            self.reap(registry)?;
        }
        let batch = self.deliver(registry, events, Age::Unknown)?;
        Ok(batch.has_anything().then_some(batch))
    }

    /// Reports those in the queue, each once, as far as there is room. Their completions are as
    /// old as said.
    pub(super) fn deliver(
        &mut self,
        registry: &mut Registry,
        events: &mut [MaybeUninit<Event>],
        age: Age,
    ) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let mut remaining = self.queue.len();
        loop {
            self.gather(registry, events.len() - batch.used(), &mut remaining, age);
            if self.gathered.is_empty() {
                return Ok(batch);
            }
            let mut gathered = std::mem::take(&mut self.gathered);
            if let Err(error) = self.snapshot.take() {
                // None of them was reported: they stay in the queue.
                gathered.drain(..).rev().for_each(|entry| self.queue.push_front(entry));
                self.gathered = gathered;
                return if batch.has_anything() { Ok(batch) } else { Err(error) };
            }
            for (fd, _) in gathered.drain(..) {
                if let Some((role, event)) = self.report(registry, fd, &mut batch) {
                    batch.push(events, fd, role, event);
                }
            }
            self.gathered = gathered;
        }
    }

    /// Takes as many out of the queue as there is room for events, and adds those that must be
    /// verified to the snapshot.
    fn gather(&mut self, registry: &mut Registry, room: usize, remaining: &mut usize, age: Age) {
        self.snapshot.clear();
        while *remaining > 0 && self.gathered.len() < room {
            let Some((fd, generation)) = self.queue.pop_front() else { break };
            *remaining -= 1;
            if fd == WAKER_FD {
                self.gathered.push((fd, generation));
                continue;
            }
            let Some(registration) = registry.get_mut(fd) else { continue };
            let state = SlotState::of(registration);
            if registration.generation != generation || !state.is(SlotState::QUEUED) {
                continue;
            }
            if state.is(SlotState::UNVERIFIED) || (age == Age::Unknown && !is_edge(registration.interest)) {
                state.with(SlotState::UNVERIFIED).set(registration);
                self.snapshot.add(fd, poll_bits(registration.interest));
            }
            self.gathered.push((fd, generation));
        }
    }

    /// The event of one that was gathered, if any; and the state that it has from here on.
    fn report(&mut self, registry: &mut Registry, fd: RawFd, batch: &mut Batch) -> Option<(Role, Event)> {
        if fd == WAKER_FD {
            self.waker.queued = false;
            batch.woken = true;
            return None;
        }
        let registration = registry.get_mut(fd)?;
        let (interest, state) = (registration.interest, SlotState::of(registration));
        let bits = if state.is(SlotState::UNVERIFIED) { self.snapshot.next() } else { state.bits() };
        let state = state.unlisted();
        state.set(registration);
        if bits & libc::POLLNVAL as u16 != 0 {
            return self.close(registry, fd);
        }
        let ready = ready_of_poll(bits, interest);
        let event = (registration.role, Event::io(registration.token, fd, ready));
        let is_ready = ready.bits() != 0;
        if interest.is_oneshot() && is_ready {
            // Should the kernel still watch it, a modify finds it so.
            registration.armed = 0;
        } else if interest.is_oneshot() {
            if !state.is(SlotState::WATCHED) {
                state.with(SlotState::MULTISHOT).set(registration);
            }
            self.keep_watching(fd, registration);
        } else if is_ready && !interest.is_edge() {
            // Reported by every wait as long as it holds: until a snapshot says otherwise.
            self.enqueue(fd, registration);
        } else {
            self.keep_watching(fd, registration);
        }
        is_ready.then_some(event)
    }

    /// Schedules another poll, if the kernel has ended the one before.
    fn keep_watching(&mut self, fd: RawFd, registration: &mut Registration) {
        let state = SlotState::of(registration);
        if !state.is(SlotState::WATCHED) && !state.is(SlotState::ALWAYS_READY) {
            self.schedule_poll(fd, registration);
        }
    }

    /// A registration whose number stands for no file any more. The kernel held the file: its
    /// poll ends silently, but for one that only a snapshot can report.
    #[cold]
    fn close(&mut self, registry: &mut Registry, fd: RawFd) -> Option<(Role, Event)> {
        self.withdraw(fd, registry);
        let registration = registry.get_mut(fd)?;
        if SlotState::of(registration).is(SlotState::ALWAYS_READY) {
            let event = (registration.role, Event::io(registration.token, fd, Ready::INVALID));
            registry.end(fd);
            return Some(event);
        }
        SlotState::CLOSED.set(registration);
        None
    }
}
