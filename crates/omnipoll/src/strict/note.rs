//! What strict mode keeps of one registration.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::finding::{Cause, Finding, FindingKind};
use crate::event::{Event, Ready};
use crate::interest::Interest;
use crate::registry::Registration;
use crate::sys::probe::{self, Identity};

/// After how many waits a ONESHOT that was not re-enabled counts as forgotten.
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
    /// The findings reported of it.
    reported: u16,
    /// The directions delivered under EDGE or ONESHOT since it was last modified.
    delivered: u8,
    unread: Option<Unread>,
    busy: Option<Busy>,
}

/// Something to read that was delivered and is still there.
struct Unread {
    since: Instant,
    /// How many waits had room for it since and did not deliver it.
    waits: u32,
}

/// A series of events of nothing but WRITE.
struct Busy {
    /// What [`probe::written`] returned.
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
            reported: 0,
            delivered: 0,
            unread: None,
            busy: None,
        }
    }

    /// The registration was modified.
    pub(super) fn update(&mut self, registration: &Registration) {
        self.token = registration.token;
        self.interest = registration.interest;
        self.generation = registration.generation;
        (self.delivered, self.unread, self.busy) = (0, None, None);
    }

    pub(super) fn is_of(&self, registration: Option<&Registration>) -> bool {
        registration.is_some_and(|it| it.generation == self.generation)
    }

    pub(super) fn is_at(&self, cause: Cause) -> bool {
        (self.fd, self.token) == (cause.fd, cause.token)
    }

    /// Whether the number still stands for the file that was registered.
    pub(super) fn is_same_file(&self) -> bool {
        probe::identity(self.fd) == self.file
    }

    /// The finding, unless it was reported before.
    pub(super) fn report(&mut self, kind: FindingKind) -> Option<Finding> {
        let is_new = self.reported & kind.bit() == 0;
        self.reported |= kind.bit();
        is_new.then(|| kind.about(Some(Cause { fd: self.fd, token: self.token })))
    }

    /// EDGE and blocking.
    pub(super) fn blocking(&mut self) -> Option<Finding> {
        let blocking = self.interest.is_edge() && probe::is_blocking(self.fd);
        blocking.then(|| self.report(FindingKind::BlockingEdge)).flatten()
    }

    /// The registration outlived its file: reported once, whether the number is used again or not.
    pub(super) fn closed(&mut self) -> Option<Finding> {
        let (kind, other) = match probe::identity(self.fd) {
            None => (FindingKind::Closed, FindingKind::Reused),
            Some(_) => (FindingKind::Reused, FindingKind::Closed),
        };
        match self.reported & other.bit() {
            0 => self.report(kind),
            _ => None,
        }
    }

    /// The registration outlives its poller.
    pub(super) fn leaked(&mut self) -> Option<Finding> {
        if self.is_same_file() {
            self.report(FindingKind::Leaked)
        } else {
            self.closed()
        }
    }

    /// Checks the descriptor before a wait. What was read until `EAGAIN` and is ready again
    /// the engine reports, so rearm plays no part; and room to write is nothing left undone.
    pub(super) fn check(&mut self, limit: Duration, now: Instant) -> Option<Finding> {
        if !self.is_same_file() {
            return self.closed();
        }
        if self.busy.as_ref().is_some_and(|busy| probe::written(self.fd) != Some(busy.stamp)) {
            self.busy = None;
        }
        let (kind, waits) = if self.interest.is_oneshot() {
            (FindingKind::ForgottenOneshot, FORGOTTEN)
        } else {
            (FindingKind::Undrained, 1)
        };
        let delivered = Interest::from_bits(self.delivered.into());
        let is_new = self.reported & kind.bit() == 0;
        if !is_new
            || !delivered.is_some_and(|directions| probe::is_unread(self.fd, readable_bits(directions)))
        {
            self.unread = None;
            return None;
        }
        let unread = self.unread.get_or_insert(Unread { since: now, waits: 0 });
        let overdue = unread.waits >= waits && now.duration_since(unread.since) >= limit;
        overdue.then(|| self.report(kind)).flatten()
    }

    /// Whether something is left unread that may become a finding.
    pub(super) fn has_unread(&self) -> bool {
        self.unread.is_some()
    }

    /// A wait had room for an event of this one, and returned none.
    pub(super) fn not_delivered(&mut self) {
        if let Some(unread) = &mut self.unread {
            unread.waits += 1;
        }
    }

    /// An event of it was delivered.
    pub(super) fn delivered(&mut self, event: &Event, now: Instant) -> Option<Finding> {
        let ready = event.ready();
        self.last = Some((ready, now));
        self.unread = None;
        if self.interest.is_oneshot() {
            self.delivered = self.interest.directions();
        } else if self.interest.is_edge() {
            self.delivered |= ready.bits() as u8 & self.interest.directions();
        } else if ready == Ready::WRITE {
            return self.writable_only();
        }
        self.busy = None;
        None
    }

    fn writable_only(&mut self) -> Option<Finding> {
        let stamp = probe::written(self.fd)?;
        let events = match &self.busy {
            Some(busy) if busy.stamp == stamp => busy.events + 1,
            _ => 1,
        };
        self.busy = Some(Busy { stamp, events });
        (events == BUSY).then(|| self.report(FindingKind::BusyWriter)).flatten()
    }
}

/// What can be read of these directions, in the bits of poll(2).
fn readable_bits(directions: Interest) -> libc::c_short {
    let bits = [(Interest::READ, libc::POLLIN), (Interest::PRIORITY, libc::POLLPRI)];
    let bits = bits.into_iter().filter(|&(direction, _)| directions.contains(direction));
    bits.fold(0, |all, (_, bit)| all | bit)
}
