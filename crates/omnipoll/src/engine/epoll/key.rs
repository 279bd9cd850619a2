//! What the kernel hands back with an event: 64 bits of ours, in one of two forms.
//!
//! - The long one is the descriptor and its registration's generation. The token is looked up.
//! - The short one is the descriptor and the token itself, for tokens of 32 bits under LEVEL.
//!   It needs no look-up, which costs a cache miss for each event when many are watched, and
//!   no lock. It can't tell one life of a number from the next, so it is believed only while
//!   no registration has changed since before the system call, and while there can't be a
//!   ghost; otherwise the registration is looked at. An EDGE or a ONESHOT that then turns out
//!   to be stale could not be dropped without a loss, a LEVEL is told again.

use std::os::fd::RawFd;

use libc::epoll_event;

use crate::event::Event;
use crate::interest::Interest;
use crate::registry::{self, Registration, Registry};

/// What the kernel hands back for the doorbell; no descriptor is -1.
pub(super) const DOORBELL: u64 = u64::MAX;

/// [`Registration::place`]: in the set under a short key.
pub(super) const SHORT: u32 = 3;

/// Marks a short key; generations do without their highest bit.
const SHORT_KEY: u64 = 1 << 63;
/// The bits the kernel tells only when they were asked for.
const ASKED: u32 = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLPRI | libc::EPOLLRDHUP) as u32;

/// The key of a registration at this place, in its form.
pub(super) fn of(fd: RawFd, generation: u32, token: u64, place: u32) -> u64 {
    match place {
        SHORT => SHORT_KEY | (fd as u64) << 32 | token,
        _ => u64::from(generation) << 32 & !SHORT_KEY | fd as u64,
    }
}

/// Whether a short key was not believed only because its registration is younger than the call.
pub(super) fn is_of_fresh(registry: &Registry, key: u64) -> bool {
    let lives = |it: &Registration| it.place == SHORT && it.token == u64::from(key as u32);
    key & SHORT_KEY != 0 && registry.get(fd_of_short(key)).is_some_and(lives)
}

fn fd_of_short(key: u64) -> RawFd {
    (key >> 32) as RawFd & RawFd::MAX
}

/// The event of a short key that needs no look at the registration: hang-up and errors mean
/// what was asked for, anything else was.
#[inline]
pub(super) fn plain(found: epoll_event) -> Option<Event> {
    let epoll_event { events: bits, u64: key } = found;
    let short = key & SHORT_KEY != 0 && key != DOORBELL && bits & !ASKED == 0;
    let ready = super::super::ready_of_poll(bits as u16, Interest::ANY);
    short.then(|| Event::io(u64::from(key as u32), fd_of_short(key), ready))
}

/// The registration that a key is of, if it still is; `clock` is of before the call.
pub(super) fn owner(registry: &mut Registry, key: u64, clock: u32) -> Option<(RawFd, &mut Registration)> {
    if key & SHORT_KEY == 0 {
        let fd = key as u32 as RawFd;
        let registration = registry.get_mut(fd)?;
        let same = u64::from(registration.generation) << 33 == key >> 32 << 33;
        return same.then_some((fd, registration));
    }
    let fd = fd_of_short(key);
    let registration = registry.get_mut(fd)?;
    let same = registration.place == SHORT && registration.token == u64::from(key as u32);
    (same && !registry::began_after(registration.generation, clock)).then_some((fd, registration))
}
