//! What the kernel hands back with an event: 64 bits of ours, in one of three formats.
//!
//! ```text
//! bit   63  62  61            52  51          32  31            20  19            0
//! long   0 | generation (31 bits)               | descriptor (32 bits)            |
//! short  1 | 0 | descriptor (30 bits)           | token (32 bits)                 |
//! edge   1 | 1 | generation >> 12 | descriptor  | generation & 0xfff | token      |
//!                (10 bits)          (20 bits)     (12 bits)            (20 bits)
//! ```
//!
//! - From a long key the token is looked up, which costs the lock, and a cache miss for each
//!   event when many are watched.
//! - A short key has the token itself, for tokens that are 32 bits sign-extended, so that both the
//!   lowest and a loop's own, the highest, have one, under LEVEL. It has no generation,
//!   so it is decoded fast only while no registration has changed since before the system call,
//!   and no entry can be stale; otherwise the registration is looked at. An EDGE or a ONESHOT
//!   that then turned out to be stale could not be dropped without a loss; a LEVEL is reported
//!   again.
//! - An edge's key has 20 bits of either number and 22 of the generation, for EDGE and numbers
//!   that small. It is decoded fast when a short one is; otherwise its generation is looked at.

use std::os::fd::RawFd;

use libc::epoll_event;

use crate::event::Event;
use crate::interest::Interest;
use crate::registry::{self, Registration, Registry, Role, Tag};

/// The waker's key; no descriptor is -1.
pub(super) const WAKER: u64 = u64::MAX;

/// [`Registration::engine_data`]: how a registration is in the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Entry {
    /// Under a long key.
    Long = 0,
    /// Under a long key, by another descriptor that is watched instead.
    Placeholder = 1,
    /// Not at all: a fired ONESHOT, and the set was rebuilt since.
    Disabled = 2,
    /// Under a short key.
    Short = 3,
    /// Under an edge's key.
    Edge = 4,
}

impl Entry {
    pub(super) fn of(registration: &Registration) -> Self {
        match registration.engine_data {
            1 => Self::Placeholder,
            2 => Self::Disabled,
            3 => Self::Short,
            4 => Self::Edge,
            _ => Self::Long,
        }
    }

    pub(super) fn set(self, registration: &mut Registration) {
        registration.engine_data = self as u32;
    }
}

/// Marks a short key; generations lose their highest bit.
const SHORT_KEY: u64 = 1 << 63;
/// Marks an edge's key, with the bit before. Descriptors lose their two highest bits.
const EDGE_KEY: u64 = 1 << 62;
/// Where the descriptor and the token are in a short key, and in an edge's, which has the
/// generation in the bits between.
const NUMBERS: u64 = EDGE_KEY - 1;
const EDGE_NUMBERS: u64 = 0xf_ffff << 32 | 0xf_ffff;
/// The bits that the kernel reports only when they were asked for.
const REQUESTED: u32 = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLPRI | libc::EPOLLRDHUP) as u32;

/// The entry that a registration may have: its key's format.
pub(super) fn format(fd: RawFd, interest: Interest, tag: Tag, may_be_stale: bool) -> Entry {
    let (entry, numbers) =
        if interest.is_edge() { (Entry::Edge, EDGE_NUMBERS) } else { (Entry::Short, NUMBERS) };
    let is_fast = !interest.is_oneshot() && tag.role == Role::User && !may_be_stale;
    // The highest descriptor is left out: a key of nothing but ones is the waker's.
    let token = match entry {
        Entry::Edge => tag.token & EDGE_NUMBERS & u64::from(u32::MAX),
        _ => extend(tag.token as u32),
    };
    let fits = (fd as u64) < numbers >> 32 && tag.token == token;
    if is_fast && fits {
        entry
    } else {
        Entry::Long
    }
}

/// The key of a registration with this entry.
pub(super) fn encode(fd: RawFd, generation: u32, token: u64, entry: Entry) -> u64 {
    let (fd, generation) = (fd as u64, u64::from(generation));
    match entry {
        Entry::Short => SHORT_KEY | fd << 32 | u64::from(token as u32),
        Entry::Edge => {
            let (high, low) = (generation >> 12 & 0x3ff, generation & 0xfff);
            SHORT_KEY | EDGE_KEY | high << 52 | fd << 32 | low << 20 | token
        }
        Entry::Long | Entry::Placeholder | Entry::Disabled => generation << 32 & !SHORT_KEY | fd,
    }
}

/// Whether a short key has no owner only because its registration is newer than the call.
pub(super) fn is_of_newer(registry: &Registry, key: u64) -> bool {
    let (fd, _) = numbers(key);
    registry.get(fd).is_some_and(|it| Entry::of(it) == Entry::Short && is_key_of(key, fd, it))
}

/// Whether that is the key of this registration.
fn is_key_of(key: u64, fd: RawFd, registration: &Registration) -> bool {
    encode(fd, registration.generation, registration.token, Entry::of(registration)) == key
}

/// The descriptor and the token in a key; the latter is nothing in a long one.
#[inline]
fn numbers(key: u64) -> (RawFd, u64) {
    if key & SHORT_KEY == 0 {
        return (key as u32 as RawFd, 0);
    }
    let numbers = key & if key & EDGE_KEY == 0 { NUMBERS } else { EDGE_NUMBERS };
    ((numbers >> 32) as RawFd, extend(numbers as u32))
}

/// The token of these 32 bits, sign-extended. An edge's key has only 20 of them.
#[inline]
const fn extend(token: u32) -> u64 {
    token as i32 as u64
}

/// The event of a key that has the token, and needs no lookup of the registration: hang-up and
/// errors mean what was asked for, anything else was.
#[inline]
pub(super) fn decode_fast(found: epoll_event) -> Option<Event> {
    let epoll_event { events: bits, u64: key } = found;
    let is_fast = key & SHORT_KEY != 0 && key != WAKER && bits & !REQUESTED == 0;
    let ready = super::super::ready_of_poll(bits as u16, Interest::ANY);
    let (fd, token) = numbers(key);
    is_fast.then(|| Event::io(token, fd, ready))
}

/// The registration that a key is of, if it still is; `clock` was read before the call.
pub(super) fn owner(registry: &mut Registry, key: u64, clock: u32) -> Option<(RawFd, &mut Registration)> {
    let (fd, _) = numbers(key);
    let registration = registry.get_mut(fd)?;
    // A short key has no generation.
    let is_older =
        Entry::of(registration) != Entry::Short || !registry::began_after(registration.generation, clock);
    (is_key_of(key, fd, registration) && is_older).then_some((fd, registration))
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

    /// Small ones, which fit every format, and any others.
    fn numbers() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..4_u64,
            0xf_fffe..0x10_0002_u64,
            0x7fff_fffe..0x8000_0002_u64,
            0xffff_fffe..0x1_0000_0002_u64,
            0xffff_ffff_7fff_fffe..0xffff_ffff_8000_0002_u64,
            any::<u64>()
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 16 } else { 2000 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn a_key_leads_to_its_registration_until_that_is_changed(
            fd in 0..5000_i32, token in numbers(), interest in interests(), updated in interests(), may_be_stale: bool,
        ) {
            let tag = Tag { token, role: Role::User };
            let mut registry = Registry::default();
            let entry = format(fd, interest, tag, may_be_stale);
            let key = encode(fd, registry.next_generation(), token, entry);
            registry.reserve(fd).unwrap();
            entry.set(registry.begin(fd, interest, tag));
            prop_assert_ne!(key, WAKER);

            let clock = registry.clock();
            let found = owner(&mut registry, key, clock).map(|(fd, it)| (fd, it.token));
            prop_assert_eq!(found, Some((fd, token)));
            let event = epoll_event { events: libc::EPOLLIN as u32, u64: key };
            prop_assert_eq!(decode_fast(event).map(|event| (event.value(), event.token())),
                (entry != Entry::Long).then_some((i64::from(fd), token)));

            let entry = format(fd, updated, tag, may_be_stale);
            entry.set(registry.update_new_generation(fd, updated, token).unwrap());
            prop_assert!(owner(&mut registry, key, clock).is_none());
            registry.end(fd);
            let clock = registry.clock();
            prop_assert!(owner(&mut registry, key, clock).is_none());
        }
    }
}
