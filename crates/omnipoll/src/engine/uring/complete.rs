//! Completions: reaped from the ring, and queued for delivery.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

use io_uring::cqueue;

use super::ring::IGNORED;
use super::slot_state::SlotState;
use super::state::{is_edge, State, WakerPoll, WAKER_FD, WAKER_KEY};
use crate::interest::Interest;
use crate::registry::Registry;

impl State {
    /// Reaps every completion that is there, or would be had this thread done its part of the
    /// kernel's work.
    pub(super) fn reap_all(&mut self, registry: &mut Registry) -> io::Result<()> {
        if self.ring.has_task_work() {
            self.ring.handle().enter(0, 0, None)?;
        }
        self.reap(registry)
    }

    /// Reaps every completion that is there.
    pub(super) fn reap(&mut self, registry: &mut Registry) -> io::Result<()> {
        loop {
            let Self { ring, waker, pending_polls, pending_cancels, queue, reaped, .. } = self;
            let mut sink = Sink { waker, pending_polls, pending_cancels, queue };
            for completion in ring.completions() {
                *reaped += 1;
                sink.complete(registry, &completion);
            }
            if !self.ring.has_overflown() {
                return Ok(());
            }
            match self.ring.handle().enter(0, 0, None) {
                // There are more of them than there is room for, of which the next round makes some.
                Err(error) if error.raw_os_error() != Some(libc::EBUSY) => return Err(error),
                _ => {}
            }
        }
    }
}

/// The parts of [`State`] that a completion changes.
struct Sink<'a> {
    waker: &'a mut WakerPoll,
    pending_polls: &'a mut Vec<RawFd>,
    pending_cancels: &'a mut Vec<u64>,
    queue: &'a mut VecDeque<(RawFd, u32)>,
}

impl Sink<'_> {
    #[inline]
    fn complete(&mut self, registry: &mut Registry, completion: &cqueue::Entry) {
        let (key, result) = (completion.user_data(), completion.result());
        let more = cqueue::more(completion.flags());
        if key >= IGNORED {
            if key == WAKER_KEY {
                self.waker.watched &= more;
                self.queue_waker();
            }
            return;
        }
        let (fd, generation) = (key as RawFd, (key >> 32) as u32);
        let Some(registration) = registry.get_mut(fd) else { return };
        let mut state = SlotState::of(registration);
        if registration.generation != generation || !state.is(SlotState::WATCHED) {
            return;
        }
        if !more {
            state = state.without(SlotState::WATCHED);
        }
        if result < 0 {
            state.set(registration);
            self.fail(registry, fd, -result);
            return;
        }
        if registration.armed == 0 {
            // A ONESHOT that has been reported: its poll is of no use any more.
            if more {
                self.pending_cancels.push(key);
            }
            state.without(SlotState::WATCHED).set(registration);
            return;
        }
        state = state.with_bits(result as u16);
        if !is_exact(result as u16, registration.interest) {
            state = state.with(SlotState::UNVERIFIED);
        }
        if !state.is(SlotState::QUEUED) {
            self.queue.push_back((fd, generation));
        }
        state.with(SlotState::QUEUED).set(registration);
    }

    /// A poll has ended without an answer.
    #[cold]
    fn fail(&mut self, registry: &mut Registry, fd: RawFd, errno: i32) {
        let Some(registration) = registry.get_mut(fd) else { return };
        let state = SlotState::of(registration);
        match errno {
            // It was closed before the poll was submitted.
            libc::EBADF => SlotState::CLOSED.set(registration),
            // The thread that submitted it has ended, or memory was short: submit it again, as soon
            // as it is not queued any more.
            libc::ECANCELED | libc::EAGAIN | libc::ENOMEM
                if state.is(SlotState::QUEUED) || registration.armed == 0 => {}
            libc::ECANCELED | libc::EAGAIN | libc::ENOMEM => {
                state.unlisted().pending_at(self.pending_polls.len()).set(registration);
                self.pending_polls.push(fd);
            }
            _ => {
                registry.mark_closed(fd);
                self.queue_waker();
            }
        }
    }

    /// The wait is woken, or must end as if it were.
    fn queue_waker(&mut self) {
        if !self.waker.queued {
            self.waker.queued = true;
            self.queue.push_back((WAKER_FD, 0));
        }
    }
}

/// Whether a completion names everything that it should, and nothing else.
///
/// Its bits are those of the wake-up, not those of the file: a socket's also name urgent data,
/// a pipe's an error, and none names what held before. Room to write may not be there at all: a send that
/// finds the receiver's queue full (unix_dgram_sendmsg) frees what it has allocated, and that wakes its own
/// socket. A program that sends again at each event would do nothing else.
#[inline]
fn is_exact(bits: u16, interest: Interest) -> bool {
    let only_data = bits & !(libc::POLLIN as u16) == 0;
    let one_direction = interest.directions().is_power_of_two();
    only_data && !interest.contains(Interest::PRIORITY) && (one_direction || is_edge(interest))
}
