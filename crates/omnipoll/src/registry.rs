//! What is registered: descriptor -> registration, with generations.
//!
//! Descriptors are small and dense, so the table is indexed by them. It grows a page at a
//! time: one descriptor at 1,000,000 costs a page and its directory, not a million entries.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

use crate::error::{fail, no_memory};
use crate::event::{Event, Ready};
use crate::interest::Interest;

const PAGE: usize = 256;

/// Every descriptor's registration, and the clock that its generations come from.
#[derive(Default)]
pub(crate) struct Registry {
    pages: Vec<Option<Box<[Slot; PAGE]>>>,
    /// Counts registrations begun, updated and ended. It wraps after 4 billion of them.
    clock: u32,
    /// Registrations found closed outside a wait: INVALID events still to be delivered.
    pub(crate) closed_events: VecDeque<Event>,
}

/// One registration: 24 bytes, since a server has one for each client.
#[derive(Clone, Copy)]
pub(crate) struct Registration {
    pub(crate) token: u64,
    /// The registry's clock when it began or was last modified.
    pub(crate) generation: u32,
    /// The engine's own: where and how it keeps this descriptor. Each engine reads and writes it
    /// through a type of its own.
    pub(crate) engine_data: u32,
    /// The engine's own: which file the number stood for.
    pub(crate) file: u32,
    pub(crate) interest: Interest,
    /// What the engine still watches: fewer directions than asked for after an EDGE or a
    /// ONESHOT was reported. An engine without edges of its own keeps here, in the bits of
    /// [`Ready`], the ends (hang-up, error, the peer's) that an EDGE has not reported yet.
    pub(crate) armed: u8,
    pub(crate) role: Role,
}

/// What the readiness of a registered descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// An IO event of the caller's.
    User,
    /// Something of the poller's own.
    Internal(InternalSource),
}

/// A source that the poller watches by a descriptor of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InternalSource {
    /// A pidfd: the child has ended.
    Child,
    /// The timerfd of the wall-clock timers.
    WallClock,
}

type Slot = Option<Registration>;
const _: () = assert!(size_of::<Slot>() == 24);

/// What the events of a registration carry.
#[derive(Clone, Copy)]
pub(crate) struct Tag {
    pub(crate) token: u64,
    pub(crate) role: Role,
}

impl Registration {
    /// The directions the engine still watches.
    pub(crate) fn directions(&self) -> u8 {
        self.armed & self.interest.directions()
    }
}

impl Registry {
    pub(crate) fn clock(&self) -> u32 {
        self.clock
    }

    pub(crate) fn get(&self, fd: RawFd) -> Option<&Registration> {
        let fd = fd as usize;
        self.pages.get(fd / PAGE)?.as_ref()?[fd % PAGE].as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, fd: RawFd) -> Option<&mut Registration> {
        let fd = fd as usize;
        self.pages.get_mut(fd / PAGE)?.as_mut()?[fd % PAGE].as_mut()
    }

    /// Moves the clock without a change.
    pub(crate) fn tick(&mut self) {
        self.clock = self.next_generation();
    }

    /// The generation that the next registration, or one that is updated next, will have.
    pub(crate) fn next_generation(&self) -> u32 {
        self.clock.wrapping_add(1)
    }

    /// Makes room for a registration. `ENOMEM`.
    pub(crate) fn reserve(&mut self, fd: RawFd) -> io::Result<()> {
        let index = fd as usize / PAGE;
        let missing = (index + 1).saturating_sub(self.pages.len());
        self.pages.try_reserve(missing).map_err(no_memory)?;
        self.pages.resize_with(self.pages.len() + missing, || None);
        if self.pages[index].is_none() {
            let mut page: Vec<Slot> = Vec::new();
            page.try_reserve_exact(PAGE).map_err(no_memory)?;
            page.resize(PAGE, None);
            self.pages[index] = page.into_boxed_slice().try_into().ok();
        }
        Ok(())
    }

    /// Begins a registration for which [room was made](Self::reserve), ending the one the number had
    /// before, if any.
    pub(crate) fn begin(&mut self, fd: RawFd, interest: Interest, tag: Tag) -> &mut Registration {
        self.tick();
        let slots = self.pages[fd as usize / PAGE].as_mut().expect("room was made");
        slots[fd as usize % PAGE].insert(Registration {
            token: tag.token,
            generation: self.clock,
            engine_data: 0,
            file: 0,
            interest,
            armed: interest.armed(),
            role: tag.role,
        })
    }

    /// Changes a registration and gives it a new generation: what was found ready before belongs
    /// to the old one.
    pub(crate) fn update_new_generation(
        &mut self,
        fd: RawFd,
        interest: Interest,
        token: u64,
    ) -> Option<&mut Registration> {
        let generation = self.next_generation();
        let registration = self.update(fd, interest, token)?;
        registration.generation = generation;
        Some(registration)
    }

    /// Changes a registration and keeps its generation.
    pub(crate) fn update(&mut self, fd: RawFd, interest: Interest, token: u64) -> Option<&mut Registration> {
        self.tick();
        let registration = self.get_mut(fd)?;
        (registration.interest, registration.token) = (interest, token);
        registration.armed = interest.armed();
        Some(registration)
    }

    /// Ends a registration.
    pub(crate) fn end(&mut self, fd: RawFd) {
        self.tick();
        let fd = fd as usize;
        self.pages[fd / PAGE].as_mut().expect("a registered number has a page")[fd % PAGE] = None;
    }

    /// What the caller has registered.
    pub(crate) fn user_registration(&self, fd: RawFd) -> io::Result<&Registration> {
        self.get(fd).filter(|it| it.role == Role::User).ok_or_else(not_registered)
    }

    /// Ends the registration of a descriptor found closed; the next wait reports it.
    pub(crate) fn mark_closed(&mut self, fd: RawFd) {
        if let Some(registration) = self.get(fd) {
            let event = Event::io(registration.token, fd, Ready::INVALID);
            self.closed_events.push_back(event);
            self.end(fd);
        }
    }

    /// What the caller has registered, lowest descriptor first.
    pub(crate) fn registrations(&self) -> impl Iterator<Item = (RawFd, &Registration)> {
        let pages = self.pages.iter().enumerate().filter_map(|(index, page)| Some((index, page.as_ref()?)));
        let slots = pages.flat_map(|(index, page)| {
            page.iter().enumerate().filter_map(move |(slot, it)| Some((index * PAGE + slot, it.as_ref()?)))
        });
        slots.map(|(fd, it)| (fd as RawFd, it)).filter(|(_, it)| it.role == Role::User)
    }

    /// The registered descriptors, lowest first.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let pages = self.pages.iter().enumerate();
        let pages = pages.filter_map(|(index, page)| Some((index, page.as_ref()?)));
        pages
            .flat_map(|(index, page)| {
                (0..PAGE).filter(|&slot| page[slot].is_some()).map(move |slot| index * PAGE + slot)
            })
            .map(|fd| fd as RawFd)
            .collect()
    }
}

/// Whether `generation` began after the registry's clock showed `clock`.
pub(crate) fn began_after(generation: u32, clock: u32) -> bool {
    (generation.wrapping_sub(clock) as i32) > 0
}

pub(crate) fn not_registered() -> io::Error {
    fail(libc::ENOENT, "the descriptor is not registered")
}

pub(crate) fn already_registered() -> io::Error {
    fail(libc::EEXIST, "the descriptor is registered already: use modify")
}
