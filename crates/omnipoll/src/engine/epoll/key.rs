//! What the kernel hands back with an event: 64 bits of ours, in one of three forms.
//!
//! - The long one is the descriptor and its registration's generation. The token is looked up,
//!   which costs the lock, and a cache miss for each event when many are watched.
//! - The short one is the descriptor and the token itself, for tokens of 32 bits under LEVEL.
//!   It can't tell one life of a number from the next, so it is believed only while no
//!   registration has changed since before the system call, and while there can't be a ghost;
//!   otherwise the registration is looked at. An EDGE or a ONESHOT that then turns out to be
//!   stale could not be dropped without a loss, a LEVEL is told again.
//! - The edge's is 20 bits of either number and 22 of the generation, for EDGE and numbers that
//!   small. It is believed when a short one is; otherwise its generation is looked at.

use std::os::fd::RawFd;

use libc::epoll_event;

use crate::event::{Event, EventKind};
use crate::interest::Interest;
use crate::registry::{self, Registration, Registry, Tag};

/// What the kernel hands back for the doorbell; no descriptor is -1.
pub(super) const DOORBELL: u64 = u64::MAX;

/// [`Registration::place`]: in the set under a long key, a short one, an edge's.
const LONG: u32 = 0;
pub(super) const SHORT: u32 = 3;
const EDGE: u32 = 4;

/// Marks a short key; generations do without their highest bit.
const SHORT_KEY: u64 = 1 << 63;
/// Marks an edge's key, with the bit before. Descriptors do without their two highest bits.
const EDGE_KEY: u64 = 1 << 62;
/// Where the descriptor and the token are in a short key, and in an edge's, which has the
/// generation in the bits between.
const NUMBERS: u64 = EDGE_KEY - 1;
const EDGE_NUMBERS: u64 = 0xf_ffff << 32 | 0xf_ffff;
/// The bits the kernel tells only when they were asked for.
const ASKED: u32 = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLPRI | libc::EPOLLRDHUP) as u32;

/// The form of key that a registration may have, as its place.
pub(super) fn form(fd: RawFd, interest: Interest, tag: Tag, may_haunt: bool) -> u32 {
    let (place, numbers) = match interest.is_edge() {
        true => (EDGE, EDGE_NUMBERS),
        false => (SHORT, NUMBERS),
    };
    let may_be_believed = !interest.is_oneshot() && tag.kind == EventKind::Io && !may_haunt;
    // The highest descriptor is left out: a key of nothing but ones is the doorbell's.
    let fits = (fd as u64) < numbers >> 32 && tag.token <= numbers & u64::from(u32::MAX);
    match may_be_believed && fits {
        true => place,
        false => LONG,
    }
}

/// The key of a registration at this place, in its form.
pub(super) fn of(fd: RawFd, generation: u32, token: u64, place: u32) -> u64 {
    let (fd, generation) = (fd as u64, u64::from(generation));
    match place {
        SHORT => SHORT_KEY | fd << 32 | token,
        EDGE => {
            let (high, low) = (generation >> 12 & 0x3ff, generation & 0xfff);
            SHORT_KEY | EDGE_KEY | high << 52 | fd << 32 | low << 20 | token
        }
        _ => generation << 32 & !SHORT_KEY | fd,
    }
}

/// Whether a short key was not believed only because its registration is younger than the call.
pub(super) fn is_of_fresh(registry: &Registry, key: u64) -> bool {
    let (fd, _) = numbers(key);
    registry.get(fd).is_some_and(|it| it.place == SHORT && is_key_of(key, fd, it))
}

/// Whether that is the key of this registration.
fn is_key_of(key: u64, fd: RawFd, registration: &Registration) -> bool {
    of(fd, registration.generation, registration.token, registration.place) == key
}

/// The descriptor and the token in a key; the latter is nothing in a long one.
#[inline]
fn numbers(key: u64) -> (RawFd, u64) {
    if key & SHORT_KEY == 0 {
        return (key as u32 as RawFd, 0);
    }
    let numbers = key & if key & EDGE_KEY == 0 { NUMBERS } else { EDGE_NUMBERS };
    ((numbers >> 32) as RawFd, u64::from(numbers as u32))
}

/// The event of a key that has the token, and needs no look at the registration: hang-up and
/// errors mean what was asked for, anything else was.
#[inline]
pub(super) fn plain(found: epoll_event) -> Option<Event> {
    let epoll_event { events: bits, u64: key } = found;
    let is_plain = key & SHORT_KEY != 0 && key != DOORBELL && bits & !ASKED == 0;
    let ready = super::super::ready_of_poll(bits as u16, Interest::ANY);
    let (fd, token) = numbers(key);
    is_plain.then(|| Event::io(token, fd, ready))
}

/// The registration that a key is of, if it still is; `clock` is of before the call.
pub(super) fn owner(registry: &mut Registry, key: u64, clock: u32) -> Option<(RawFd, &mut Registration)> {
    let (fd, _) = numbers(key);
    let registration = registry.get_mut(fd)?;
    // A short key doesn't tell its generation.
    let is_old = registration.place != SHORT || !registry::began_after(registration.generation, clock);
    (is_key_of(key, fd, registration) && is_old).then_some((fd, registration))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interest::Trigger;
    use proptest::prelude::*;

    fn interests() -> impl Strategy<Value = Interest> {
        prop::sample::select(vec![
            Interest::READ,
            Interest::WRITE,
            Interest::READ | Trigger::EDGE,
            Interest::READ | Trigger::ONESHOT,
            Interest::READ | Interest::WRITE | Trigger::EDGE | Trigger::ONESHOT,
        ])
    }

    /// Small ones, which fit every form, and any others.
    fn numbers() -> impl Strategy<Value = u64> {
        prop_oneof![0..4_u64, 0xf_fffe..0x10_0002_u64, 0xffff_fffe..0x1_0000_0002_u64, any::<u64>()]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 16 } else { 2000 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn a_key_leads_to_its_registration_until_that_is_changed(
            fd in 0..5000_i32, token in numbers(), interest in interests(), renewed in interests(), haunted: bool,
        ) {
            let tag = Tag { token, kind: EventKind::Io };
            let mut registry = Registry::default();
            let place = form(fd, interest, tag, haunted);
            let key = of(fd, registry.next_generation(), token, place);
            registry.reserve(fd).unwrap();
            registry.begin(fd, interest, tag).place = place;
            prop_assert_ne!(key, DOORBELL);

            let clock = registry.clock();
            let found = owner(&mut registry, key, clock).map(|(fd, it)| (fd, it.token));
            prop_assert_eq!(found, Some((fd, token)));
            let event = epoll_event { events: libc::EPOLLIN as u32, u64: key };
            prop_assert_eq!(plain(event).map(|event| (event.value(), event.token())),
                (place != LONG).then_some((i64::from(fd), token)));

            let place = form(fd, renewed, tag, haunted);
            registry.renew(fd, renewed, token).unwrap().place = place;
            prop_assert!(owner(&mut registry, key, clock).is_none());
            registry.end(fd);
            let clock = registry.clock();
            prop_assert!(owner(&mut registry, key, clock).is_none());
        }
    }
}
