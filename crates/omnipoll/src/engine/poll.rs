//! The engine on `poll(2)`.
//!
//! The system call's own flaws, and what is done about them:
//!
//! - The whole array goes in and out at each call: its cost grows with what is watched.
//! - It reports HANGUP and ERROR whether asked for or not, so an entry that must be silent
//!   has its descriptor negated, which makes the kernel skip it. An EDGE entry stays, with nothing
//!   asked for, until it has reported one of them.
//! - A closed descriptor is `POLLNVAL` at each call, indefinitely: the first one ends the
//!   registration (see [`scan`](super::scan)).
//! - It counts milliseconds: `ppoll` counts nanoseconds, where there is one.
//! - It refuses an array longer than RLIMIT_NOFILE, which may have been lowered since: then it
//!   is called for one part of the array after another.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::RawFd;
use std::time::Duration;

use libc::pollfd;

use super::scan::{ReadyFd, Set};
use super::{Capabilities, EngineKind};
use crate::error::no_memory;
use crate::event::Ready;
use crate::registry::{Registration, Registry};
use crate::sys;

pub(super) const CAPABILITIES: Capabilities = if cfg!(target_os = "linux") {
    Capabilities::REPORTS_HANGUP.and(Capabilities::REPORTS_READ_CLOSED)
} else {
    Capabilities::REPORTS_HANGUP
};

/// A dense array. [`Registration::engine_data`] is the [`Index`], so that adding, changing and
/// removing need no search.
pub(crate) struct Array {
    entries: Vec<pollfd>,
}

/// Where the entry of a registration is in the array.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Index(u32);

impl Index {
    /// The waker's; of a registration: it has no entry.
    const NONE: Self = Self(0);

    fn of(registration: &Registration) -> Self {
        Self(registration.engine_data)
    }

    fn set(self, registration: &mut Registration) {
        registration.engine_data = self.0;
    }

    fn get(self) -> usize {
        self.0 as usize
    }
}

#[derive(Default)]
pub(crate) struct Call {
    entries: Vec<pollfd>,
    /// How many of them the kernel found ready.
    ready: usize,
}

impl Set for Array {
    const KIND: EngineKind = EngineKind::Poll;
    const END_FLAGS: u8 = if cfg!(target_os = "linux") {
        (Ready::HANGUP.bits() | Ready::ERROR.bits() | Ready::READ_CLOSED.bits()) as u8
    } else {
        (Ready::HANGUP.bits() | Ready::ERROR.bits()) as u8
    };
    type Call = Call;

    fn new(waker: RawFd) -> Self {
        Self { entries: vec![pollfd { fd: waker, events: libc::POLLIN, revents: 0 }] }
    }

    fn reserve(&mut self, _: RawFd) -> io::Result<()> {
        self.entries.try_reserve(1).map_err(no_memory)
    }

    fn update(&mut self, fd: RawFd, registration: &mut Registration) {
        if Index::of(registration) == Index::NONE {
            Index(self.entries.len() as u32).set(registration);
            self.entries.push(pollfd { fd, events: 0, revents: 0 });
        }
        let entry = &mut self.entries[Index::of(registration).get()];
        entry.fd = if registration.armed == 0 { !fd } else { fd };
        entry.events = wanted(registration.armed);
    }

    fn remove(&mut self, fd: RawFd, registry: &mut Registry) {
        let Some(registration) = registry.get_mut(fd) else { return };
        let index = Index::of(registration);
        Index::NONE.set(registration);
        self.entries.swap_remove(index.get());
        if let Some(moved) = self.entries.get(index.get()) {
            let fd = if moved.fd < 0 { !moved.fd } else { moved.fd };
            if let Some(registration) = registry.get_mut(fd) {
                index.set(registration);
            }
        }
    }

    fn snapshot(&self, call: &mut Call) -> io::Result<()> {
        call.entries.clear();
        call.entries.try_reserve(self.entries.len()).map_err(no_memory)?;
        call.entries.extend_from_slice(&self.entries);
        Ok(())
    }

    fn call(call: &mut Call, timeout: Option<Duration>) -> io::Result<()> {
        call.ready = sys::poll::poll(&mut call.entries, timeout)?;
        Ok(())
    }

    fn visit(call: &Call, from: usize, mut visitor: impl FnMut(ReadyFd) -> ControlFlow<()>) {
        let (before, after) = call.entries.split_at(from.min(call.entries.len()));
        let positions = (call.entries.len() - after.len()..).zip(after).chain((0..).zip(before));
        let ready = positions.filter(|(_, entry)| entry.revents != 0);
        for (position, entry) in ready.take(call.ready) {
            let found = ReadyFd { fd: entry.fd, bits: entry.revents as u16, position };
            if visitor(found).is_break() {
                return;
            }
        }
    }
}

fn wanted(armed: u8) -> libc::c_short {
    let asks_for = |what: Ready| u32::from(armed) & what.bits() != 0;
    let mut bits = 0;
    if asks_for(Ready::READ) {
        bits |= libc::POLLIN;
    }
    #[cfg(target_os = "linux")]
    if asks_for(Ready::READ) || asks_for(Ready::READ_CLOSED) {
        bits |= libc::POLLRDHUP;
    }
    if asks_for(Ready::WRITE) {
        bits |= libc::POLLOUT;
    }
    if asks_for(Ready::PRIORITY) {
        bits |= libc::POLLPRI;
    }
    bits
}
