//! The listening sockets of one loop.
//!
//! `accept(2)` fails with EMFILE or ENFILE and leaves the client in the queue, so that a loop
//! under LEVEL which goes on watching spins, and one that stops must know when to look again.
//! Here the doors are shut: until a client of this loop has gone, or a moment has passed.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::tokens;
use crate::engine::Peer;
use crate::stream::{Count, Counter, Listener};
use crate::{Capabilities, Interest, Poller, Trigger};

/// Clients accepted from one door before the others get their turn.
const BATCH: usize = 64;
/// A worker that shares its doors takes no more than this at once: the others are awake too.
const SHARED_BATCH: usize = 8;
/// How long to wait for descriptors when no client of ours will give one back.
const RETRY: Duration = Duration::from_millis(100);

/// The listening sockets of one loop, open or shut together.
#[derive(Debug, Default)]
pub(super) struct Doors {
    listeners: Vec<Listener>,
    /// Other loops accept from the same sockets.
    shared: bool,
    open: bool,
    /// The timer that will open them again.
    retry: Option<u64>,
}

impl Doors {
    pub(super) fn new(listeners: Vec<Listener>, shared: bool) -> Self {
        Self { listeners, shared, open: false, retry: None }
    }

    /// Watches them, if they are not watched.
    pub(super) fn open(&mut self, poller: &Poller) -> io::Result<()> {
        if self.open {
            return Ok(());
        }
        if let Some(timer) = self.retry.take() {
            // It is stale when it is what has brought us here.
            let _ = poller.timer_cancel(timer);
        }
        let exclusive = self.shared && poller.capabilities().contains(Capabilities::HAS_EXCLUSIVE);
        let interest = match exclusive {
            true => Interest::READ | Trigger::EXCLUSIVE,
            false => Interest::READ,
        };
        for (token, listener) in (tokens::DOORS..).zip(&self.listeners) {
            poller.add(listener, interest, token)?;
        }
        self.open = true;
        Ok(())
    }

    /// Watches them no more; who comes waits in the sockets' queues.
    pub(super) fn shut(&mut self, poller: &Poller) {
        if std::mem::take(&mut self.open) {
            for listener in &self.listeners {
                let _ = poller.remove(listener);
            }
        }
    }

    /// Has the kernel wake the other loops before this one. Of those that watch a socket with
    /// EXCLUSIVE it wakes the one that has done so for the longest: always the same, unless that
    /// one begins anew when it has let somebody in.
    pub(super) fn let_others_go_first(&mut self, poller: &Poller) -> io::Result<()> {
        if self.shared && self.open {
            self.shut(poller);
            self.open(poller)?;
        }
        Ok(())
    }

    /// Closes them for good.
    pub(super) fn give_up(&mut self, poller: &Poller) {
        self.shut(poller);
        if let Some(timer) = self.retry.take() {
            let _ = poller.timer_cancel(timer);
        }
        self.listeners.clear();
    }

    /// How many clients to take from one door before looking at the others.
    pub(super) fn batch(&self) -> usize {
        match self.shared {
            true => SHARED_BATCH,
            false => BATCH,
        }
    }

    /// The next client of a door, if there is one. Shuts the doors when the system is short of
    /// something.
    pub(super) fn accept(
        &mut self,
        door: usize,
        poller: &Poller,
        count: &Count,
    ) -> io::Result<Option<(OwnedFd, Peer)>> {
        let Some(listener) = self.listeners.get(door) else { return Ok(None) };
        let error = loop {
            match listener.accept() {
                Ok(client) => return Ok(Some(client)),
                Err(error) if is_the_clients(&error) => {}
                Err(error) => break error,
            }
        };
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Ok(None),
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                count.add(Counter::AcceptPauses, 1);
                self.shut_for_a_moment(poller)?;
                Ok(None)
            }
            _ => Err(error),
        }
    }

    /// Shuts them until there is hope that it helps.
    pub(super) fn shut_for_a_moment(&mut self, poller: &Poller) -> io::Result<()> {
        self.shut(poller);
        if self.retry.is_none() {
            self.retry = Some(poller.timer_add(RETRY, None, tokens::RETRY)?);
        }
        Ok(())
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether they will be opened when a moment has passed.
    pub(super) fn is_waiting(&self) -> bool {
        self.retry.is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.listeners.len()
    }
}

/// Errors of a client that came and went, which accept(2) tells on Linux.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::EPERM
        )
    )
}
