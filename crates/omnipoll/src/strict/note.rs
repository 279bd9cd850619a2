//! What strict mode keeps of one registration.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::finding::{Cause, Finding, FindingKind};
use crate::event::{Event, Ready};
use crate::interest::Interest;
use crate::registry::Registration;
use crate::sys::probe::{self, Identity};

/// After how many looks a ONESHOT that was not re-enabled counts as forgotten.
const FORGOTTEN: u32 = 16;
/// After how many events without a write a writer counts as busy.
const BUSY: u32 = 1_000;

pub(super) struct Note {
    fd: RawFd,
    token: u64,
    interest: Interest,
    generation: u32,
    file: Option<Identity>,
    pub(super) since: Instant,
    pub(super) last: Option<(Ready, Instant)>,
    /// The findings said of it.
    said: u16,
    /// The directions handed to the caller under EDGE or ONESHOT since it was last modified.
    handed: u8,
    left: Option<Left>,
    busy: Option<Busy>,
}

/// Something to read that was handed to the caller and is still there.
struct Left {
    since: Instant,
    /// How many looks had room for it since and did not bring it.
    looks: u32,
}

/// A series of events that tell of nothing but room to write.
struct Busy {
    /// What [`probe::written`] said.
    stamp: u64,
    events: u32,
}

impl Note {
    pub(super) fn new(fd: RawFd, registration: &Registration, now: Instant) -> Self {
        Self {
            fd,
            token: registration.token,
            interest: registration.interest,
            generation: registration.generation,
            file: probe::identity(fd),
            since: now,
            last: None,
            said: 0,
            handed: 0,
            left: None,
            busy: None,
        }
    }

    /// The registration was modified.
    pub(super) fn renew(&mut self, registration: &Registration) {
        self.token = registration.token;
        self.interest = registration.interest;
        self.generation = registration.generation;
        (self.handed, self.left, self.busy) = (0, None, None);
    }

    pub(super) fn is_of(&self, registration: Option<&Registration>) -> bool {
        registration.is_some_and(|it| it.generation == self.generation)
    }

    pub(super) fn is_at(&self, cause: Cause) -> bool {
        (self.fd, self.token) == (cause.fd, cause.token)
    }

    /// Whether the number still stands for the file that was registered.
    pub(super) fn is_whole(&self) -> bool {
        probe::identity(self.fd) == self.file
    }

    /// The finding, unless it was said before.
    pub(super) fn say(&mut self, kind: FindingKind) -> Option<Finding> {
        let is_new = self.said & kind.bit() == 0;
        self.said |= kind.bit();
        is_new.then(|| kind.about(Some(Cause { fd: self.fd, token: self.token })))
    }

    /// EDGE and blocking.
    pub(super) fn blocking(&mut self) -> Option<Finding> {
        let blocking = self.interest.is_edge() && probe::is_blocking(self.fd);
        blocking.then(|| self.say(FindingKind::BlockingEdge)).flatten()
    }

    /// The registration outlived its file: said once, whether the number is used again or not.
    pub(super) fn lost(&mut self) -> Option<Finding> {
        let (kind, other) = match probe::identity(self.fd) {
            None => (FindingKind::Closed, FindingKind::Reused),
            Some(_) => (FindingKind::Reused, FindingKind::Closed),
        };
        match self.said & other.bit() {
            0 => self.say(kind),
            _ => None,
        }
    }

    /// The registration outlives its poller.
    pub(super) fn leaked(&mut self) -> Option<Finding> {
        match self.is_whole() {
            true => self.say(FindingKind::Leaked),
            false => self.lost(),
        }
    }

    /// Looks at the descriptor before a wait. What was read until `EAGAIN` and is ready again
    /// the engine reports, so rearm plays no part; and room to write is nothing left undone.
    pub(super) fn inspect(&mut self, limit: Duration, now: Instant) -> Option<Finding> {
        if !self.is_whole() {
            return self.lost();
        }
        if self.busy.as_ref().is_some_and(|busy| probe::written(self.fd) != Some(busy.stamp)) {
            self.busy = None;
        }
        let (kind, looks) = match self.interest.is_oneshot() {
            true => (FindingKind::ForgottenOneshot, FORGOTTEN),
            false => (FindingKind::Undrained, 1),
        };
        let handed = Interest::from_bits(self.handed.into());
        let unsaid = self.said & kind.bit() == 0;
        if !unsaid || !handed.is_some_and(|handed| probe::is_unread(self.fd, readable_bits(handed))) {
            self.left = None;
            return None;
        }
        let left = self.left.get_or_insert(Left { since: now, looks: 0 });
        let overdue = left.looks >= looks && now.duration_since(left.since) >= limit;
        overdue.then(|| self.say(kind)).flatten()
    }

    /// Whether something is left that may become a finding.
    pub(super) fn is_suspect(&self) -> bool {
        self.left.is_some()
    }

    /// A look had room for an event of this one.
    pub(super) fn passed_over(&mut self) {
        if let Some(left) = &mut self.left {
            left.looks += 1;
        }
    }

    /// It was reported.
    pub(super) fn reported(&mut self, event: &Event, now: Instant) -> Option<Finding> {
        let ready = event.ready();
        self.last = Some((ready, now));
        self.left = None;
        if self.interest.is_oneshot() {
            self.handed = self.interest.directions();
        } else if self.interest.is_edge() {
            self.handed |= ready.bits() as u8 & self.interest.directions();
        } else if ready == Ready::WRITE {
            return self.had_room_to_write();
        }
        self.busy = None;
        None
    }

    fn had_room_to_write(&mut self) -> Option<Finding> {
        let stamp = probe::written(self.fd)?;
        let events = match &self.busy {
            Some(busy) if busy.stamp == stamp => busy.events + 1,
            _ => 1,
        };
        self.busy = Some(Busy { stamp, events });
        (events == BUSY).then(|| self.say(FindingKind::BusyWriter)).flatten()
    }
}

/// What can be read of these directions, in the bits of poll(2).
fn readable_bits(directions: Interest) -> libc::c_short {
    let bits = [(Interest::READ, libc::POLLIN), (Interest::PRIORITY, libc::POLLPRI)];
    let bits = bits.into_iter().filter(|&(direction, _)| directions.contains(direction));
    bits.fold(0, |all, (_, bit)| all | bit)
}
