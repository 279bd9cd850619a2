//! Submission: requests for what has changed, and the ring that they go to.

use std::io;

use super::ring::{Ring, RingHandle, Threads};
use super::slot_state::SlotState;
use super::state::{key, poll_for, State, SEVERAL, WAKER_KEY};
use crate::registry::Registry;

impl State {
    /// Submits every change now.
    pub(super) fn submit(&mut self, registry: &mut Registry) -> io::Result<()> {
        let requests = self.write_requests(registry)?;
        self.ring.handle().enter(requests, 0, None).map(drop)
    }

    /// Submits the cancellations now.
    pub(super) fn submit_cancels(&mut self, registry: &mut Registry) -> io::Result<()> {
        self.write_cancels(registry)?;
        let requests = self.ring.unsubmitted();
        self.ring.handle().enter(requests, 0, None)?;
        // Threads that sleep, or are about to, must find the completions that are meant for them.
        if self.sleeping == 0 {
            self.reap(registry)?;
        }
        Ok(())
    }

    /// Writes requests for what has changed, and submits all but the last of them that fit the
    /// submission queue. Returns how many are left to submit.
    pub(super) fn write_requests(&mut self, registry: &mut Registry) -> io::Result<u32> {
        self.wake_sent = false;
        self.write_cancels(registry)?;
        if !self.pending_polls.is_empty() {
            self.write_polls(registry)?;
        }
        if !self.waker.watched {
            let fd = self.waker.fd;
            self.waker.watched =
                self.write(|ring| ring.poll_add(fd, libc::POLLIN as u32, true, WAKER_KEY))?;
        }
        Ok(self.ring.unsubmitted())
    }

    fn write_cancels(&mut self, registry: &mut Registry) -> io::Result<()> {
        // The youngest first: the kernel has them in a few lists, and finds what came last at once.
        self.pending_cancels.sort_unstable();
        while let Some(key) = self.pending_cancels.pop() {
            match self.write(|ring| ring.cancel(key)) {
                Ok(true) => {}
                refused => {
                    self.pending_cancels.push(key);
                    return refused.map(drop);
                }
            }
            if self.ring.unsubmitted() == 1 && self.sleeping == 0 {
                // Each cancelled poll completes: many would not fit, which costs the kernel more.
                self.reap(registry)?;
            }
        }
        Ok(())
    }

    /// Writes the pending polls in their order: the first registered is reported first.
    fn write_polls(&mut self, registry: &mut Registry) -> io::Result<()> {
        let mut list = std::mem::take(&mut self.pending_polls);
        let mut written = 0;
        let mut outcome = Ok(true);
        for &fd in &list {
            if let Some(registration) = registry.get_mut(fd) {
                let state = SlotState::of(registration).unlisted();
                let (bits, multishot) = poll_for(registration.interest, state);
                let key = key(fd, registration.generation);
                outcome = self.write(|ring| ring.poll_add(fd, bits, multishot, key));
                if !matches!(outcome, Ok(true)) {
                    break;
                }
                state.with(SlotState::WATCHED).set(registration);
            }
            written += 1;
        }
        list.drain(..written);
        for (index, &fd) in list.iter().enumerate() {
            if let Some(registration) = registry.get_mut(fd) {
                SlotState::of(registration).pending_at(index).set(registration);
            }
        }
        self.pending_polls = list;
        outcome.map(drop)
    }

    /// Writes a request, after submitting the others if there is no room. False when the kernel
    /// doesn't take them now.
    fn write(&mut self, request: impl Fn(&mut Ring) -> bool) -> io::Result<bool> {
        if request(&mut self.ring) {
            return Ok(true);
        }
        let requests = self.ring.unsubmitted();
        self.ring.handle().enter(requests, 0, None)?;
        Ok(request(&mut self.ring))
    }
}

// ---- One thread, or several --------------------------------------------------------------------

impl State {
    /// Whether the ring is made for one thread, and this is another.
    #[inline]
    pub(super) fn is_other_thread(&mut self) -> bool {
        thread_local! {
            static MARK: u8 = const { 0 };
        }
        let this = MARK.with(|mark| std::ptr::from_ref(mark) as usize);
        *self.waiter.get_or_insert(this) != this && self.waiter != Some(SEVERAL)
    }

    /// Moves to a ring for several threads. The old one's completions are ignored, but end the
    /// sleep of a thread in it: every poll is submitted again to the new one.
    #[cold]
    pub(super) fn share_ring(&mut self, registry: &mut Registry) -> io::Result<()> {
        let new = Ring::new(Threads::Several, self.ring.busy_poll())?;
        self.reap(registry)?;
        if let Some(outer_set) = &self.outer_set {
            outer_set.add(new.as_fd())?;
            outer_set.remove(self.ring.as_fd());
        }
        self.waiter = Some(SEVERAL);
        let mut old = std::mem::replace(&mut self.ring, new);
        if self.sleeping > 0 {
            // A thread that sleeps in it returns by that.
            old.cancel_all();
            // Its number must not be given to another file while a thread is about to use it.
            self.old_ring = Some(old);
        }
        self.waker.watched = false;
        self.pending_cancels.clear();
        for fd in registry.descriptors() {
            let Some(registration) = registry.get_mut(fd) else { continue };
            let state = SlotState::of(registration);
            if state.is(SlotState::WATCHED) {
                state.without(SlotState::WATCHED).set(registration);
                if !state.is(SlotState::QUEUED) && registration.armed != 0 {
                    self.schedule_poll(fd, registration);
                }
            }
        }
        Ok(())
    }

    /// A thread has returned from a sleep in this ring.
    pub(super) fn end_sleep(&mut self, handle: RingHandle) {
        self.sleeping -= 1;
        if self.old_ring.as_ref().is_some_and(|old| old.handle() == handle) {
            self.old_ring = None;
        }
    }
}
