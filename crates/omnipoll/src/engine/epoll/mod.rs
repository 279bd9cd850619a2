//! The engine on `epoll(7)`.
//!
//! The system call's own flaws, and what is done about them:
//!
//! - The set holds open files, not descriptors. A closed descriptor whose duplicate lives on
//!   keeps reporting, under its old number, and `EPOLL_CTL_DEL` can't name it any more. So the
//!   kernel's 64 bits hold the number and the registration's generation ([`key`]): such a stale
//!   entry is recognised by its generation, and since under LEVEL it would spin, the set is
//!   rebuilt without it ([`stale`]).
//! - A closed descriptor without duplicates leaves the set silently: no INVALID is reported.
//! - It refuses regular files (`EPERM`): where the caller wants them, a placeholder is watched
//!   instead, which is always ready too.
//! - The set is shared with a forked child. [`Epoll::rebuild`] makes a new one, and
//!   nothing else is ever done in a child.
//! - `epoll_wait` counts milliseconds: `epoll_pwait2` (Linux 5.11) counts nanoseconds.
//! - EXCLUSIVE excludes `EPOLL_CTL_MOD` and `EPOLLRDHUP`.

mod features;
mod key;
mod set;
mod stale;

use std::collections::HashMap;
use std::io;
use std::mem::{size_of, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use libc::{epoll_event, EBADF, EEXIST, ENOENT, EPERM, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD};

use super::{Batch, Capabilities, Engine, EngineKind, InternalEvent};
use crate::event::Event;
use crate::interest::Interest;
use crate::registry::{self, Registry, Role, Tag};
use crate::sys::descriptor::{eventfd, is_open};
use crate::sys::file::FileInfo;
use crate::sys::{lock, OuterSet, Waker};
pub(super) use features::features;
use key::{decode_fast, is_of_newer, Entry, WAKER};
use set::{control_error, Set};

pub(super) const CAPABILITIES: Capabilities = Capabilities::REPORTS_HANGUP
    .and(Capabilities::REPORTS_READ_CLOSED)
    .and(Capabilities::NATIVE_EDGE)
    .and(Capabilities::HAS_EXCLUSIVE);

/// What `epoll_wait` takes at most: `EP_MAX_EVENTS` of fs/eventpoll.c.
const MAX_EVENTS: usize = libc::c_int::MAX as usize / size_of::<epoll_event>();

const _: () = assert!(size_of::<epoll_event>() <= size_of::<Event>());
const _: () = assert!(align_of::<epoll_event>() <= align_of::<Event>());

pub(crate) struct Epoll {
    set: Set,
    /// How long the kernel looks at network devices before a wait sleeps.
    busy_poll: Option<Duration>,
    waker: Arc<Waker>,
    /// The registry's clock, to be read without its lock.
    clock: AtomicU32,
    /// A registration has ended that the kernel may still hold.
    may_have_stale: AtomicBool,
    files_always_ready: bool,
    /// For each always ready file the descriptor that is watched instead.
    placeholders: Mutex<HashMap<RawFd, OwnedFd>>,
    /// Events of no live registration, seen once.
    seen_stale: Mutex<Vec<u64>>,
    /// What an outer loop watches.
    outer_set: OnceLock<Arc<OuterSet>>,
}

impl Engine for Epoll {
    fn kind(&self) -> EngineKind {
        EngineKind::Epoll
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.set.as_fd())
    }

    fn embed(&self, _: &mut Registry, outer_set: &Arc<OuterSet>) -> io::Result<()> {
        outer_set.add(self.set.as_fd())?;
        self.outer_set.get_or_init(|| outer_set.clone());
        Ok(())
    }

    fn add(&self, registry: &mut Registry, fd: RawFd, interest: Interest, tag: Tag) -> io::Result<()> {
        let old = registry.get(fd).copied();
        if old.is_some_and(|old| Entry::of(&old) == Entry::Disabled) {
            return Err(registry::already_registered());
        }
        let may_be_stale = old.is_some() || self.may_have_stale.load(Ordering::Relaxed);
        let entry = key::format(fd, interest, tag, may_be_stale);
        let key = key::encode(fd, registry.next_generation(), tag.token, entry);
        match self.set.control(EPOLL_CTL_ADD, fd, interest, key) {
            Ok(()) => self.remove_placeholder(fd),
            Err(EEXIST) if old.is_some() => return Err(registry::already_registered()),
            // A stale entry: the number was closed, removed, and stands for the same file again.
            Err(EEXIST) => {
                self.set.control(EPOLL_CTL_DEL, fd, interest, key).map_err(control_error)?;
                self.set.control(EPOLL_CTL_ADD, fd, interest, key).map_err(control_error)?;
            }
            Err(EPERM) if self.files_always_ready => {
                return self.add_placeholder(registry, fd, interest, tag);
            }
            Err(errno) => return Err(control_error(errno)),
        }
        entry.set(registry.begin(fd, interest, tag));
        self.note_change(registry, old.is_some());
        Ok(())
    }

    fn modify(&self, registry: &mut Registry, fd: RawFd, interest: Interest, token: u64) -> io::Result<()> {
        let Some(old) = registry.get(fd).copied() else { return Err(registry::not_registered()) };
        let old_entry = Entry::of(&old);
        if old_entry == Entry::Placeholder && !is_open(fd) {
            return Err(control_error(EBADF));
        }
        let operation = if old_entry == Entry::Disabled { EPOLL_CTL_ADD } else { EPOLL_CTL_MOD };
        let (tag, may_be_stale) =
            (Tag { token, role: old.role }, self.may_have_stale.load(Ordering::Relaxed));
        let entry = match old_entry {
            Entry::Placeholder => Entry::Placeholder,
            _ => key::format(fd, interest, tag, may_be_stale),
        };
        let key = key::encode(fd, registry.next_generation(), token, entry);
        match self.set.control(operation, self.watched(fd, old_entry), interest, key) {
            Ok(()) => {}
            // The number stands for another file by now: what was registered is gone.
            Err(ENOENT) => {
                registry.end(fd);
                self.note_change(registry, true);
                return Err(registry::not_registered());
            }
            Err(errno) => return Err(control_error(errno)),
        }
        // Under a short key the generation stays: a program that modifies again and again must not
        // keep every event from being delivered.
        let changed = match (old_entry, entry) {
            (Entry::Short, Entry::Short) => registry.update(fd, interest, token),
            _ => registry.update_new_generation(fd, interest, token),
        };
        changed.into_iter().for_each(|registration| entry.set(registration));
        self.note_change(registry, false);
        Ok(())
    }

    fn remove(&self, registry: &mut Registry, fd: RawFd) {
        let Some(registration) = registry.get(fd) else { return };
        let (entry, interest) = (Entry::of(registration), registration.interest);
        // Closed meanwhile is as good as removed, but for its duplicates.
        let removed = entry == Entry::Disabled
            || self.set.control(EPOLL_CTL_DEL, self.watched(fd, entry), interest, 0).is_ok();
        self.remove_placeholder(fd);
        registry.end(fd);
        self.note_change(registry, !removed);
    }

    fn rearm(&self, _: &mut Registry, _: RawFd, _: Interest) {
        // The kernel's edges need none.
    }

    /// The kernel writes its events into the end of the caller's buffer, from where they are
    /// decoded towards its front: no buffer of our own, so no lock for one and one copy.
    #[inline(always)]
    fn wait(
        &self,
        registry: &Mutex<Registry>,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
    ) -> io::Result<Batch> {
        let capacity = events.len().min(MAX_EVENTS);
        let slots = events.as_mut_ptr();
        let offset = capacity * (size_of::<Event>() - size_of::<epoll_event>());
        // SAFETY: `capacity` kernel events end where `capacity` events of ours do, so they lie
        // within `events`. Both sizes are multiples of the kernel event's alignment.
        let raw = unsafe { slots.cast::<u8>().add(offset).cast::<epoll_event>() };
        let clock = self.clock.load(Ordering::Acquire);
        // SAFETY: `raw` has room for `capacity` events.
        let count = unsafe { self.set.wait(raw, capacity as libc::c_int, timeout) }?;
        // SAFETY: only for an index below `count`, after the events before: the kernel has
        // written `count` events from `raw` on, and writing those before has not reached this
        // one: `filled <= index < capacity`, and a slot that ends at `24 * (filled + 1)` ends
        // before kernel event `index + 1` begins.
        let found = |index: usize| unsafe { raw.add(index).read() };
        // SAFETY: only for `filled <= index < capacity`.
        let fill = |filled: usize, event| unsafe { slots.add(filled).write(MaybeUninit::new(event)) };

        let mut batch = Batch::default();
        if self.is_unchanged_since(clock) {
            while batch.filled < count {
                let Some(event) = decode_fast(found(batch.filled)) else { break };
                fill(batch.filled, event);
                batch.filled += 1;
            }
        }
        if batch.filled == count {
            return Ok(batch);
        }
        self.decode_rest(&mut lock(registry), clock, count, batch, found, fill)
    }

    fn rebuild(&self, registry: &mut Registry) -> io::Result<()> {
        // Before a descriptor of ours can take the number of one that the child has closed.
        for fd in registry.descriptors().into_iter().filter(|&fd| !is_open(fd)) {
            registry.mark_closed(fd);
        }
        let new = Set::new(&self.waker, self.busy_poll)?;
        self.move_into(&new, registry, |_, _, _| Ok(()))?;
        self.replace_set(&new)?;
        self.note_rebuilt(registry);
        self.waker.wake()
    }
}

impl Epoll {
    pub(crate) fn new(
        waker: Arc<Waker>,
        files_always_ready: bool,
        busy_poll: Option<Duration>,
    ) -> io::Result<Self> {
        Ok(Self {
            set: Set::new(&waker, busy_poll)?,
            busy_poll,
            waker,
            clock: AtomicU32::new(0),
            may_have_stale: AtomicBool::new(false),
            files_always_ready,
            placeholders: Mutex::default(),
            seen_stale: Mutex::default(),
            outer_set: OnceLock::new(),
        })
    }

    /// Decodes what [`decode_fast`] has left of the `count` events that were found, with a lookup in
    /// the registry for each.
    fn decode_rest(
        &self,
        registry: &mut Registry,
        clock: u32,
        count: usize,
        mut batch: Batch,
        found: impl Fn(usize) -> epoll_event,
        fill: impl Fn(usize, Event),
    ) -> io::Result<Batch> {
        let mut has_stale = false;
        for index in batch.filled..count {
            let epoll_event { events: bits, u64: key } = found(index);
            match self.decode(registry, key, bits, clock) {
                Some((Role::User, event)) => {
                    fill(batch.filled, event);
                    batch.filled += 1;
                }
                Some((Role::Internal(source), event)) => {
                    batch.internal.push(InternalEvent { fd: event.value() as RawFd, source });
                }
                None => has_stale |= self.is_stale(registry, key, &mut batch),
            }
        }
        if has_stale {
            let rebuilt = self.rebuild_set(registry);
            if batch.filled == 0 && !batch.woken {
                rebuilt?;
            }
        }
        Ok(batch)
    }

    /// Decodes one event of the kernel's. `None` when it is no registration's.
    fn decode(&self, registry: &mut Registry, key: u64, bits: u32, clock: u32) -> Option<(Role, Event)> {
        let (fd, registration) = key::owner(registry, key, clock)?;
        // A ONESHOT can be found twice while the set is rebuilt.
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
        let event = Event::io(registration.token, fd, ready);
        let role = registration.role;
        if Entry::of(registration) == Entry::Placeholder && !is_open(fd) {
            self.remove(registry, fd);
            return Some((role, event.invalid()));
        }
        Some((role, event))
    }

    /// Notes what is no registration's. Returns whether it is of a stale entry.
    #[cold]
    fn is_stale(&self, registry: &Registry, key: u64, batch: &mut Batch) -> bool {
        if key == WAKER {
            batch.woken = true;
            return false;
        }
        batch.dropped = true;
        !is_of_newer(registry, key) && self.is_stale_entry(key)
    }
}

/// Placeholders.
impl Epoll {
    /// Registers an always ready file by a descriptor of our own that is always ready.
    fn add_placeholder(
        &self,
        registry: &mut Registry,
        fd: RawFd,
        interest: Interest,
        tag: Tag,
    ) -> io::Result<()> {
        let file = FileInfo::of(fd)?.identity;
        if registry.get(fd).is_some_and(|old| Entry::of(old) == Entry::Placeholder && old.file == file) {
            return Err(registry::already_registered());
        }
        // A count of 1 makes an eventfd readable, and writable.
        let placeholder = eventfd(1)?;
        let key = key::encode(fd, registry.next_generation(), tag.token, Entry::Placeholder);
        self.set.control(EPOLL_CTL_ADD, placeholder.as_raw_fd(), interest, key).map_err(control_error)?;
        self.remove_placeholder(fd);
        lock(&self.placeholders).insert(fd, placeholder);
        let registration = registry.begin(fd, interest, tag);
        Entry::Placeholder.set(registration);
        registration.file = file;
        self.note_change(registry, false);
        Ok(())
    }

    fn remove_placeholder(&self, fd: RawFd) {
        if self.files_always_ready {
            lock(&self.placeholders).remove(&fd);
        }
    }

    /// The descriptor that the kernel knows `fd` by.
    fn watched(&self, fd: RawFd, entry: Entry) -> RawFd {
        match entry {
            Entry::Placeholder => {
                lock(&self.placeholders).get(&fd).map_or(fd, |placeholder| placeholder.as_raw_fd())
            }
            _ => fd,
        }
    }
}
