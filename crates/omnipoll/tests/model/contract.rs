//! The contract as a plain program: what a wait must report, and what it may.

use std::collections::HashSet;

use omnipoll::{Capabilities, EngineKind, Event, EventKind, Interest, Poller, Ready, Trigger};

use crate::channel::Channel;
use crate::program::SLOTS;
use crate::support::expect::reports_closed;

pub(crate) struct Contract {
    registrations: [Option<Registration>; SLOTS],
    wakes: i64,
    /// The flags that the engine can distinguish.
    tellable: u32,
    reports_closed: bool,
    /// The engine may report an edge without checking whether it still is one.
    believes_edges: bool,
}

#[derive(Clone, Copy)]
struct Registration {
    token: u64,
    interest: Interest,
    /// ONESHOT: it has not fired.
    enabled: bool,
    /// EDGE: the directions that must be reported when they hold.
    must: u32,
    /// EDGE: something has happened since the last event, so there may be an edge too many.
    may: bool,
    /// EDGE: the directions that did not hold at some time since they were last reported.
    went_away: u32,
    /// EDGE: the directions that held at some time since the last event.
    held: u32,
    /// EDGE: there is a failure that the program knows of, and one that must be reported, whatever was
    /// drained.
    failed: bool,
    failure_is_due: bool,
}

const DIRECTIONS: u32 = Ready::READ.bits() | Ready::WRITE.bits();
const FAILURES: u32 = Ready::HANGUP.bits() | Ready::ERROR.bits();

impl Contract {
    pub(crate) fn new(poller: &Poller) -> Self {
        let flag = |what, flags: Ready| if poller.capabilities().contains(what) { flags.bits() } else { 0 };
        let tellable = DIRECTIONS
            | flag(Capabilities::REPORTS_HANGUP, Ready::HANGUP | Ready::ERROR)
            | flag(Capabilities::REPORTS_READ_CLOSED, Ready::READ_CLOSED);
        let believes_edges = poller.engine() == EngineKind::IoUring;
        let reports_closed = reports_closed(poller);
        Self { registrations: [None; SLOTS], wakes: 0, tellable, reports_closed, believes_edges }
    }

    pub(crate) fn add(&mut self, slot: usize, interest: Interest, token: u64) -> Result<(), i32> {
        match self.registrations[slot] {
            Some(_) => Err(libc::EEXIST),
            None => {
                self.registrations[slot] = Some(Registration::new(interest, token));
                Ok(())
            }
        }
    }

    pub(crate) fn modify(&mut self, slot: usize, interest: Interest, token: u64) -> Result<(), i32> {
        let registration = self.registrations[slot].as_mut().ok_or(libc::ENOENT)?;
        *registration = Registration::new(interest, token);
        Ok(())
    }

    pub(crate) fn remove(&mut self, slot: usize) -> Result<(), i32> {
        self.registrations[slot].take().map(drop).ok_or(libc::ENOENT)
    }

    pub(crate) fn rearm(&mut self, slot: usize, interest: Interest) -> Result<(), i32> {
        let registration = self.registrations[slot].as_mut().ok_or(libc::ENOENT)?;
        if registration.is(Trigger::ONESHOT) {
            return Err(libc::EINVAL);
        }
        registration.must |= registration.went_away & interest.bits() & DIRECTIONS;
        // A direction that was not drained is reported again by engines without native edges.
        registration.may = true;
        Ok(())
    }

    pub(crate) fn woken(&mut self) {
        self.wakes += 1;
    }

    /// Something was done to the channel.
    pub(crate) fn happened(&mut self, slot: usize, channel: &Channel) {
        if let Some(registration) = &mut self.registrations[slot] {
            let condition = channel.condition(registration.interest) & self.tellable;
            let fails = condition & FAILURES != 0;
            registration.failure_is_due |= fails && !registration.failed;
            registration.failed = fails;
            let holds = registration.holds(condition);
            registration.may = true;
            registration.went_away |= registration.directions() & !holds;
            registration.held |= holds;
        }
    }

    /// Whether a wait with so much room could bring these events.
    pub(crate) fn check(
        &mut self,
        what: &str,
        capacity: usize,
        events: &[Event],
        channels: &[Option<Channel>; SLOTS],
    ) {
        let what = format!("{what}: {events:?}");
        let mut reported = HashSet::new();
        let mut anything_closed = false;
        for event in events {
            match event.kind() {
                EventKind::Wake => {
                    assert!(self.wakes > 0 && event.value() == self.wakes, "{what}: {} wakes", self.wakes);
                    self.wakes = 0;
                }
                _ => {
                    let slot = self.slot_of(event).unwrap_or_else(|| panic!("{what}: nobody's event"));
                    assert!(reported.insert(slot), "{what}: reported twice");
                    anything_closed |= event.ready() == Ready::INVALID;
                    self.report(&what, slot, event.ready().bits(), channels[slot].as_ref());
                }
            }
        }
        // A wait that finds something closed may leave the rest to the next.
        if events.len() < capacity && !anything_closed {
            assert_eq!(self.wakes, 0, "{what}: a wake is missing");
            for slot in (0..SLOTS).filter(|slot| !reported.contains(slot)) {
                assert!(!self.must_report(slot, channels[slot].as_ref()), "{what}: slot {slot} is missing");
            }
        }
    }

    fn slot_of(&self, event: &Event) -> Option<usize> {
        let has_its_token = |registration: &Registration| registration.token == event.token();
        self.registrations.iter().position(|registration| registration.as_ref().is_some_and(has_its_token))
    }

    /// One event is reported: was it allowed to be, and what follows from it?
    fn report(&mut self, what: &str, slot: usize, ready: u32, channel: Option<&Channel>) {
        let Some(registration) = &mut self.registrations[slot] else { return };
        let Some(channel) = channel else {
            assert!(self.reports_closed && ready == Ready::INVALID.bits(), "{what}: closed");
            self.registrations[slot] = None;
            return;
        };
        let condition = channel.condition(registration.interest) & self.tellable;
        if registration.is(Trigger::ONESHOT) {
            assert!(registration.enabled && ready == condition, "{what}: {condition:#x} holds");
            registration.enabled = false;
        } else if registration.is(Trigger::EDGE) {
            let past = if self.believes_edges { registration.held } else { 0 };
            registration.report_edge(what, ready, condition, past);
        } else {
            assert_eq!(ready, condition, "{what}");
        }
    }

    fn must_report(&self, slot: usize, channel: Option<&Channel>) -> bool {
        let Some(registration) = &self.registrations[slot] else { return false };
        let asks = match registration {
            _ if registration.is(Trigger::ONESHOT) => registration.enabled,
            _ if registration.is(Trigger::EDGE) => registration.must != 0 || registration.failure_is_due,
            _ => true,
        };
        match channel {
            None => asks && self.reports_closed,
            Some(channel) => {
                let condition = channel.condition(registration.interest) & self.tellable;
                match registration.is(Trigger::EDGE) && !registration.is(Trigger::ONESHOT) {
                    true => registration.must_report(condition),
                    false => asks && condition != 0,
                }
            }
        }
    }
}

impl Registration {
    fn new(interest: Interest, token: u64) -> Self {
        let must = interest.bits() & DIRECTIONS;
        let (failed, failure_is_due) = (false, false);
        Self {
            token,
            interest,
            enabled: true,
            must,
            may: true,
            went_away: 0,
            held: must,
            failed,
            failure_is_due,
        }
    }

    fn is(&self, trigger: Trigger) -> bool {
        self.interest.trigger().contains(trigger)
    }

    fn directions(&self) -> u32 {
        self.interest.bits() & DIRECTIONS
    }

    /// The directions for which there is something to report: a hang-up or an error that the
    /// engine can distinguish is reported in every direction.
    fn holds(&self, condition: u32) -> u32 {
        match condition & FAILURES {
            0 => condition & DIRECTIONS,
            _ => self.directions(),
        }
    }

    fn must_report(&self, condition: u32) -> bool {
        self.holds(condition) & self.must != 0 || (self.failure_is_due && condition & FAILURES != 0)
    }

    /// An edge is reported: it may be outdated.
    fn report_edge(&mut self, what: &str, ready: u32, condition: u32, past: u32) {
        let holds = self.holds(condition);
        assert!(self.may || self.must_report(condition), "{what}: an edge out of nothing");
        let missing = self.must & condition & !ready;
        assert_eq!(missing, 0, "{what}: {condition:#x} holds and {:#x} must be reported", self.must);
        let failure = if self.failure_is_due { condition & FAILURES } else { 0 };
        assert_eq!(failure & !ready, 0, "{what}: a failure must be reported");
        // poll(2) reports a failure for as long as it is asked anything, so an engine on it asks no
        // more, of any direction: it reports all of them, and one too many is better than one lost.
        assert!(ready != 0 && ready & !(condition | holds | past) == 0, "{what}: {condition:#x} holds");
        let reported = if ready & FAILURES == 0 { ready & (condition | holds) } else { DIRECTIONS };
        self.must &= !reported;
        self.went_away &= !reported;
        (self.may, self.held) = (false, 0);
        if ready & FAILURES != 0 {
            (self.failed, self.failure_is_due) = (true, false);
        }
    }
}
