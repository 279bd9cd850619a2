//! What the kernel has answered: completions are taken, and noted.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

use io_uring::cqueue;

use super::super::place::Place;
use super::super::ring::NOBODY;
use super::{is_edge, Bell, State, BELL, DOORBELL};
use crate::interest::Interest;
use crate::registry::Registry;

impl State {
    /// Takes every completion that is there, or would be had this thread done its part.
    pub(in super::super) fn take_all(&mut self, registry: &mut Registry) -> io::Result<()> {
        if self.ring.has_work() {
            self.ring.door().enter(0, 0, None)?;
        }
        self.take(registry)
    }

    /// Takes every completion that is there.
    pub(in super::super) fn take(&mut self, registry: &mut Registry) -> io::Result<()> {
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
            match self.ring.door().enter(0, 0, None) {
                // There are more of them than there is room for, of which the next round makes some.
                Err(error) if error.raw_os_error() != Some(libc::EBUSY) => return Err(error),
                _ => {}
            }
        }
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
                registry.mark_closed(fd);
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
