//! The engine on `epoll(7)`.
//!
//! The system call's own flaws, and what is done about them:
//!
//! - The set holds open files, not descriptors. A closed descriptor whose duplicate lives on
//!   keeps reporting, under its old number, and `EPOLL_CTL_DEL` can't name it any more. So the
//!   kernel's 64 bits hold the number and the registration's generation: such a ghost is known
//!   by its generation, and since a LEVEL ghost would spin, the set is made anew without it.
//! - A closed descriptor without duplicates leaves the set in silence: no INVALID is told.
//! - It refuses regular files (`EPERM`): where the caller wants them, a descriptor that is
//!   always ready stands in.
//! - The set is shared with a forked child. [`Epoll::rebuild`] makes a new one, and
//!   nothing else is ever done in a child.
//! - `epoll_wait` counts milliseconds: `epoll_pwait2` (Linux 5.11) counts nanoseconds.
//! - EXCLUSIVE excludes `EPOLL_CTL_MOD` and `EPOLLRDHUP`.
//!
//! What the kernel hands back with an event is a [`key`].

mod key;

use std::collections::HashMap;
use std::io;
use std::mem::{size_of, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libc::{epoll_event, EBADF, EEXIST, ENOENT, EPERM, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD};

use super::{Batch, Capabilities, Engine, EngineKind};
use crate::error::{errno, fail};
use crate::event::{Event, EventKind};
use crate::interest::Interest;
use crate::registry::{self, Registration, Registry, Tag};
use crate::sys::{descriptor as sys, lock, raw_syscalls as direct, Doorbell};
use key::{is_of_fresh, plain, DOORBELL, SHORT};

pub(super) const CAPABILITIES: Capabilities = Capabilities::TELLS_HANGUP
    .and(Capabilities::TELLS_READ_CLOSED)
    .and(Capabilities::NATIVE_EDGE)
    .and(Capabilities::HAS_EXCLUSIVE);

/// How many stale events are remembered at most; with so many, one must be a ghost's.
const SUSPECTS: usize = 64;

/// [`Registration::place`]: another descriptor is in the set instead.
const STANDS_IN: u32 = 1;
/// [`Registration::place`]: a fired ONESHOT that the set made anew does not hold.
const PARKED: u32 = 2;
pub(crate) struct Epoll {
    set: OwnedFd,
    doorbell: Arc<Doorbell>,
    /// The registry's clock, to be read without its lock.
    clock: AtomicU32,
    /// A registration has ended that the kernel may still hold.
    haunted: AtomicBool,
    /// `epoll_pwait2` is missing or forbidden here.
    coarse: AtomicBool,
    files_always_ready: bool,
    /// For each always ready file a descriptor that is watched in its place.
    stand_ins: Mutex<HashMap<RawFd, OwnedFd>>,
    /// Events of no live registration, seen once. One of a registration removed a moment ago
    /// is never seen again; one seen twice is a ghost's.
    suspects: Mutex<Vec<u64>>,
}

impl Engine for Epoll {
    fn kind(&self) -> EngineKind {
        EngineKind::Epoll
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.set.as_fd())
    }

    fn add(&self, registry: &mut Registry, fd: RawFd, interest: Interest, tag: Tag) -> io::Result<()> {
        let old = registry.get(fd).copied();
        if old.is_some_and(|old| old.place == PARKED) {
            return Err(registry::known());
        }
        let may_haunt = old.is_some() || self.haunted.load(Ordering::Relaxed);
        let place = key::form(fd, interest, tag, may_haunt);
        let key = key::of(fd, registry.next_generation(), tag.token, place);
        match control(&self.set, EPOLL_CTL_ADD, fd, interest, key) {
            Ok(()) => self.dismiss_stand_in(fd),
            Err(EEXIST) if old.is_some() => return Err(registry::known()),
            // A ghost: the number was closed, removed, and stands for the same file again.
            Err(EEXIST) => {
                control(&self.set, EPOLL_CTL_DEL, fd, interest, key).map_err(refusal)?;
                control(&self.set, EPOLL_CTL_ADD, fd, interest, key).map_err(refusal)?;
            }
            Err(EPERM) if self.files_always_ready => {
                return self.add_stand_in(registry, fd, interest, tag);
            }
            Err(errno) => return Err(refusal(errno)),
        }
        registry.begin(fd, interest, tag).place = place;
        self.note_change(registry, old.is_some());
        Ok(())
    }

    fn modify(&self, registry: &mut Registry, fd: RawFd, interest: Interest, token: u64) -> io::Result<()> {
        let Some(old) = registry.get(fd).copied() else { return Err(registry::unknown()) };
        if old.place == STANDS_IN && !sys::is_open(fd) {
            return Err(refusal(EBADF));
        }
        let operation = if old.place == PARKED { EPOLL_CTL_ADD } else { EPOLL_CTL_MOD };
        let (tag, may_haunt) = (Tag { token, kind: old.kind }, self.haunted.load(Ordering::Relaxed));
        let place = match old.place {
            STANDS_IN => STANDS_IN,
            _ => key::form(fd, interest, tag, may_haunt),
        };
        let key = key::of(fd, registry.next_generation(), token, place);
        match control(&self.set, operation, self.watched(fd, &old), interest, key) {
            Ok(()) => {}
            // The number stands for another file by now: what was registered is gone.
            Err(ENOENT) => {
                registry.end(fd);
                self.note_change(registry, true);
                return Err(registry::unknown());
            }
            Err(errno) => return Err(refusal(errno)),
        }
        // Under a short key it is the same life: whoever modifies without end must not keep the
        // others from ever being told.
        let changed = match (old.place, place) {
            (SHORT, SHORT) => registry.alter(fd, interest, token),
            _ => registry.renew(fd, interest, token),
        };
        changed.into_iter().for_each(|registration| registration.place = place);
        self.note_change(registry, false);
        Ok(())
    }

    fn remove(&self, registry: &mut Registry, fd: RawFd) {
        let Some(registration) = registry.get(fd) else { return };
        // Closed meanwhile is as good as removed, but for its duplicates.
        let removed = registration.place == PARKED
            || control(&self.set, EPOLL_CTL_DEL, self.watched(fd, registration), registration.interest, 0)
                .is_ok();
        self.dismiss_stand_in(fd);
        registry.end(fd);
        self.note_change(registry, !removed);
    }

    fn rearm(&self, _: &mut Registry, _: RawFd, _: Interest) {
        // The kernel's edges need none.
    }

    /// The kernel writes its events into the end of the caller's buffer, from where they are
    /// unfolded towards its front: no buffer of our own, so no lock for one and one copy.
    #[inline(always)]
    fn wait(
        &self,
        registry: &Mutex<Registry>,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
    ) -> io::Result<Batch> {
        let capacity = events.len().min(MOST_EVENTS);
        let slots = events.as_mut_ptr();
        let offset = capacity * (size_of::<Event>() - size_of::<epoll_event>());
        // SAFETY: `capacity` kernel events end where `capacity` events of ours do, so they lie
        // within `events`. Both sizes are multiples of the kernel event's alignment.
        let raw = unsafe { slots.cast::<u8>().add(offset).cast::<epoll_event>() };
        let clock = self.clock.load(Ordering::Acquire);
        // SAFETY: `raw` has room for `capacity` events.
        let count = unsafe { self.call(raw, capacity as libc::c_int, timeout) }?;
        // SAFETY: only for an index below `count`, after the events before: the kernel has
        // written `count` events from `raw` on, and writing those before has not reached this
        // one: `filled <= index < capacity`, and a slot that ends at `24 * (filled + 1)` ends
        // before kernel event `index + 1` begins.
        let found = |index: usize| unsafe { raw.add(index).read() };
        // SAFETY: only for `filled <= index < capacity`.
        let fill = |filled: usize, event| unsafe { slots.add(filled).write(MaybeUninit::new(event)) };

        let mut batch = Batch::default();
        if self.is_calm_since(clock) {
            while batch.filled < count {
                let Some(event) = plain(found(batch.filled)) else { break };
                fill(batch.filled, event);
                batch.filled += 1;
            }
        }
        if batch.filled == count {
            return Ok(batch);
        }
        let mut haunted = false;
        let mut registry = lock(registry);
        for index in batch.filled..count {
            let epoll_event { events: bits, u64: key } = found(index);
            match self.event(&mut registry, key, bits, clock) {
                Some(event) if event.kind() == EventKind::Io => {
                    fill(batch.filled, event);
                    batch.filled += 1;
                }
                other => haunted |= self.note(&registry, key, other, &mut batch),
            }
        }
        if haunted {
            let exorcised = self.exorcise(&mut registry);
            if batch.filled == 0 && !batch.rung {
                exorcised?;
            }
        }
        Ok(batch)
    }

    fn rebuild(&self, registry: &mut Registry) -> io::Result<()> {
        // Before a descriptor of ours can take the number of one that the child has closed.
        for fd in registry.descriptors().into_iter().filter(|&fd| !sys::is_open(fd)) {
            registry.mark_closed(fd);
        }
        let new = new_set(&self.doorbell)?;
        self.move_into(&new, registry, |_, _, _| Ok(()))?;
        sys::replace(&new, &self.set)?;
        self.note_calm(registry);
        self.doorbell.ring()
    }
}

impl Epoll {
    pub(crate) fn new(doorbell: Arc<Doorbell>, files_always_ready: bool) -> io::Result<Self> {
        Ok(Self {
            set: new_set(&doorbell)?,
            doorbell,
            clock: AtomicU32::new(0),
            haunted: AtomicBool::new(false),
            coarse: AtomicBool::new(false),
            files_always_ready,
            stand_ins: Mutex::default(),
            suspects: Mutex::default(),
        })
    }

    /// The system call, with the finest clock there is.
    ///
    /// # Safety
    /// `events` has room for `capacity` events.
    #[inline]
    unsafe fn call(
        &self,
        events: *mut epoll_event,
        capacity: libc::c_int,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let count = match timeout {
            Some(timeout) if !timeout.is_zero() && !self.coarse.load(Ordering::Relaxed) => {
                // SAFETY: as promised for `events`.
                unsafe { self.call_finely(events, capacity, timeout) }
            }
            // SAFETY: as promised for `events`.
            _ => unsafe {
                direct::epoll_wait(self.set.as_raw_fd(), events, capacity, sys::milliseconds(timeout))
            },
        };
        sys::check(count, "epoll_wait failed").map(|count| count as usize)
    }

    /// `epoll_pwait2`, and from then on no more where it is missing (before Linux 5.11), or
    /// forbidden by a seccomp filter that is older.
    ///
    /// # Safety
    /// `events` has room for `capacity` events.
    #[inline(never)]
    unsafe fn call_finely(
        &self,
        events: *mut epoll_event,
        capacity: libc::c_int,
        timeout: Duration,
    ) -> libc::c_int {
        let set = self.set.as_raw_fd();
        let finely = sys::timespec(timeout);
        let no_mask = std::ptr::null::<libc::sigset_t>();
        // SAFETY: as promised for `events`; the kernel only reads the timeout.
        let count =
            unsafe { libc::syscall(libc::SYS_epoll_pwait2, set, events, capacity, &finely, no_mask, 0) };
        if count < 0 && matches!(errno(), libc::ENOSYS | EPERM) {
            self.coarse.store(true, Ordering::Relaxed);
            // SAFETY: as promised for `events`.
            return unsafe { direct::epoll_wait(set, events, capacity, sys::milliseconds(Some(timeout))) };
        }
        count as libc::c_int
    }

    /// Tells the waits under way that a registration has changed, and whether there may be a
    /// ghost from now on. In this order, so that who finds the clock unmoved knows of ghosts.
    fn note_change(&self, registry: &Registry, may_haunt: bool) {
        if may_haunt {
            self.haunted.store(true, Ordering::Release);
        }
        self.clock.store(registry.clock(), Ordering::Release);
    }

    /// There are no ghosts any more; but a wait under way may have met one.
    fn note_calm(&self, registry: &mut Registry) {
        lock(&self.suspects).clear();
        registry.tick();
        self.clock.store(registry.clock(), Ordering::Release);
        self.haunted.store(false, Ordering::Release);
    }

    #[inline]
    fn is_calm_since(&self, clock: u32) -> bool {
        !self.haunted.load(Ordering::Acquire) && self.clock.load(Ordering::Acquire) == clock
    }

    /// Translates one event of the kernel's. `None` when it is no registration's.
    fn event(&self, registry: &mut Registry, key: u64, bits: u32, clock: u32) -> Option<Event> {
        let (fd, registration) = key::owner(registry, key, clock)?;
        // A ONESHOT can be found twice while the set is made anew.
        if registration.armed == 0 {
            return None;
        }
        if registration.interest.is_oneshot() {
            registration.armed = 0;
        }
        // The kernel's bits are poll's: EPOLLIN is POLLIN, and so on through EPOLLRDHUP.
        let ready = super::ready_of_poll(bits as u16, registration.interest);
        if ready.bits() == 0 {
            return None;
        }
        let event = Event::io(registration.token, fd, ready).of_kind(registration.kind);
        if registration.place == STANDS_IN && !sys::is_open(fd) {
            self.remove(registry, fd);
            return Some(event.invalid());
        }
        Some(event)
    }

    /// Notes what is no event of the caller's. Says whether the set is haunted.
    #[cold]
    fn note(&self, registry: &Registry, key: u64, own: Option<Event>, batch: &mut Batch) -> bool {
        match own {
            Some(event) => batch.internal.push(event),
            None if key == DOORBELL => batch.rung = true,
            None => {
                batch.dropped = true;
                return !is_of_fresh(registry, key) && self.is_ghost(key);
            }
        }
        false
    }

    /// Registers an always ready file by a descriptor of our own that is always ready.
    fn add_stand_in(
        &self,
        registry: &mut Registry,
        fd: RawFd,
        interest: Interest,
        tag: Tag,
    ) -> io::Result<()> {
        let file = sys::File::of(fd)?.identity;
        if registry.get(fd).is_some_and(|old| old.place == STANDS_IN && old.file == file) {
            return Err(registry::known());
        }
        // A count of 1 makes an eventfd readable, and writable.
        let stand_in = sys::eventfd(1)?;
        let key = key::of(fd, registry.next_generation(), tag.token, STANDS_IN);
        control(&self.set, EPOLL_CTL_ADD, stand_in.as_raw_fd(), interest, key).map_err(refusal)?;
        self.dismiss_stand_in(fd);
        lock(&self.stand_ins).insert(fd, stand_in);
        let registration = registry.begin(fd, interest, tag);
        registration.place = STANDS_IN;
        registration.file = file;
        self.note_change(registry, false);
        Ok(())
    }

    fn dismiss_stand_in(&self, fd: RawFd) {
        if self.files_always_ready {
            lock(&self.stand_ins).remove(&fd);
        }
    }

    /// The descriptor that the kernel knows `fd` by.
    fn watched(&self, fd: RawFd, registration: &Registration) -> RawFd {
        match registration.place {
            STANDS_IN => lock(&self.stand_ins).get(&fd).map_or(fd, |stand_in| stand_in.as_raw_fd()),
            _ => fd,
        }
    }

    /// Whether a stale event is a ghost's.
    #[cold]
    fn is_ghost(&self, key: u64) -> bool {
        let mut suspects = lock(&self.suspects);
        let ghost = suspects.contains(&key) || suspects.len() == SUSPECTS;
        if !ghost {
            suspects.push(key);
        }
        ghost
    }

    /// Makes the set anew, without ghosts, under the same number. Waits under way hold on to
    /// the old set: its doorbell is made to ring for good, so that each of them returns.
    #[cold]
    fn exorcise(&self, registry: &mut Registry) -> io::Result<()> {
        let new = new_set(&self.doorbell)?;
        self.move_into(&new, registry, |watched, interest, key| {
            // ENOENT tells a number that stands for another file by now. An EXCLUSIVE one can't be
            // modified, which EINVAL tells of one that is there; asked with the flag, of any.
            let events = wanted(interest) & !(libc::EPOLLEXCLUSIVE as u32);
            match control_event(&self.set, EPOLL_CTL_MOD, watched, &mut epoll_event { events, u64: key }) {
                Err(libc::EINVAL) if interest.is_exclusive() => Ok(()),
                result => result,
            }
        })?;
        let mut event = epoll_event { events: libc::EPOLLIN as u32, u64: DOORBELL };
        control_event(&self.set, EPOLL_CTL_MOD, self.doorbell.as_raw_fd(), &mut event).map_err(refusal)?;
        self.doorbell.ring()?;
        sys::replace(&new, &self.set)?;
        self.note_calm(registry);
        Ok(())
    }

    /// Registers in another set what `is_ours` lets pass; what it doesn't was closed unseen.
    /// The kernel can't add a ONESHOT disabled: one that has fired stays out until modified.
    fn move_into(
        &self,
        new: &OwnedFd,
        registry: &mut Registry,
        is_ours: impl Fn(RawFd, Interest, u64) -> Result<(), i32>,
    ) -> io::Result<()> {
        for fd in registry.descriptors() {
            let Some(registration) = registry.get_mut(fd) else { continue };
            if registration.armed == 0 && registration.place != STANDS_IN {
                registration.place = PARKED;
                continue;
            }
            let (watched, interest) = (self.watched(fd, registration), registration.interest);
            let key = key::of(fd, registration.generation, registration.token, registration.place);
            match is_ours(watched, interest, key)
                .and_then(|()| control(new, EPOLL_CTL_ADD, watched, interest, key))
            {
                Err(EBADF | ENOENT | EPERM) => registry.mark_closed(fd),
                result => result.map_err(refusal)?,
            }
        }
        Ok(())
    }
}

/// What `epoll_wait` takes at most: `EP_MAX_EVENTS` of fs/eventpoll.c.
const MOST_EVENTS: usize = libc::c_int::MAX as usize / size_of::<epoll_event>();

const _: () = assert!(size_of::<epoll_event>() <= size_of::<Event>());
const _: () = assert!(align_of::<epoll_event>() <= align_of::<Event>());

fn new_set(doorbell: &Doorbell) -> io::Result<OwnedFd> {
    let set = sys::epoll_create()?;
    // Edge-triggered, so that it need not be read.
    let mut event = epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: DOORBELL };
    control_event(&set, EPOLL_CTL_ADD, doorbell.as_raw_fd(), &mut event).map_err(refusal)?;
    Ok(set)
}

fn control(
    set: &OwnedFd,
    operation: libc::c_int,
    fd: RawFd,
    interest: Interest,
    key: u64,
) -> Result<(), i32> {
    let mut event = epoll_event { events: wanted(interest), u64: key };
    control_event(set, operation, fd, &mut event)
}

fn control_event(
    set: &OwnedFd,
    operation: libc::c_int,
    fd: RawFd,
    event: &mut epoll_event,
) -> Result<(), i32> {
    // SAFETY: the event lives through the call, and a number that is no file is an error.
    match unsafe { direct::epoll_ctl(set.as_raw_fd(), operation, fd, event) } {
        0 => Ok(()),
        _ => Err(errno()),
    }
}

/// What an errno of `epoll_ctl(2)` means to the caller.
fn refusal(errno: i32) -> io::Error {
    match errno {
        EBADF => sys::not_open(),
        EPERM => sys::always_ready(),
        EEXIST => registry::known(),
        ENOENT => registry::unknown(),
        libc::EINVAL => {
            fail(errno, "epoll can't watch this descriptor so: is it its own, or EXCLUSIVE on an epoll?")
        }
        libc::ELOOP => fail(errno, "epolls would watch each other in a circle, or more than five deep"),
        libc::ENOSPC => fail(errno, "the limit /proc/sys/fs/epoll/max_user_watches is reached"),
        _ => fail(errno, "epoll_ctl failed"),
    }
}

fn wanted(interest: Interest) -> u32 {
    let mut bits = 0;
    if interest.contains(Interest::READ) {
        bits |= libc::EPOLLIN;
        if !interest.is_exclusive() {
            bits |= libc::EPOLLRDHUP;
        }
    }
    if interest.contains(Interest::WRITE) {
        bits |= libc::EPOLLOUT;
    }
    if interest.contains(Interest::PRIORITY) {
        bits |= libc::EPOLLPRI;
    }
    if interest.is_edge() {
        bits |= libc::EPOLLET;
    }
    if interest.is_oneshot() {
        bits |= libc::EPOLLONESHOT;
    }
    if interest.is_exclusive() {
        bits |= libc::EPOLLEXCLUSIVE;
    }
    bits as u32
}
