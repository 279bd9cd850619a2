//! The listening sockets of one loop.
//!
//! `accept(2)` fails with EMFILE or ENFILE and leaves the client in the queue, so that a loop
//! under LEVEL which goes on watching spins, and one that stops must know when to look again.
//! Here the doors are shut: until a client of this loop has gone, or a moment has passed.
//!
//! Where the loop has a ring, and its doors for itself and without a bound, the ring lets clients in
//! and they wait here to be welcomed.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::tokens;
use crate::errno::{self, ErrorClass};
use crate::net::{Counter, Listener, WorkerCounters};
use crate::sys::{Address, CompletionRing};
use crate::{Capabilities, Interest, Poller, Trigger};

/// Clients accepted from one door before the others get their turn.
const BATCH: usize = 64;
/// A worker that shares its doors takes no more than this at once: the others are awake too.
const SHARED_BATCH: usize = 8;
/// How long to wait for what the system is short of, when no client of ours will give it back.
pub(super) const RETRY: Duration = Duration::from_millis(100);

/// Who looks after a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptMode {
    /// Nobody: it is shut.
    Paused,
    /// The poller tells when somebody has come.
    Polled,
    /// The ring lets in who comes, until it says that it has ended.
    Multishot,
}

#[derive(Debug)]
struct Entry {
    listener: Listener,
    mode: AcceptMode,
}

/// The listening sockets of one loop, open or shut together.
#[derive(Debug, Default)]
pub(super) struct Acceptor {
    entries: Vec<Entry>,
    /// Other loops accept from the same sockets.
    shared: bool,
    /// As many may come as like.
    unbounded: bool,
    /// Whom the ring has let in, or why it has not.
    accepted: VecDeque<io::Result<(OwnedFd, Address)>>,
    /// How many clients in a row were lost before the ring could let them in.
    aborted: usize,
    /// The timer that will open them again.
    retry: Option<u64>,
}

impl Acceptor {
    pub(super) fn new(listeners: Vec<Listener>, shared: bool, unbounded: bool) -> Self {
        let entries = listeners.into_iter().map(|listener| Entry { listener, mode: AcceptMode::Paused });
        Self { entries: entries.collect(), shared, unbounded, ..Self::default() }
    }

    /// Has those looked after that are not: by the ring, where it may. When the system is short of
    /// something it is tried again in a moment.
    pub(super) fn resume(
        &mut self,
        poller: &Poller,
        counters: &WorkerCounters,
        ring: Option<&mut CompletionRing>,
    ) -> io::Result<()> {
        match self.try_resume(poller, ring) {
            Err(error) if errno::classify_registration(&error) == ErrorClass::Temporary => {
                self.retry_later(poller, counters)
            }
            result => result,
        }
    }

    fn try_resume(&mut self, poller: &Poller, ring: Option<&mut CompletionRing>) -> io::Result<()> {
        if let Some(timer) = self.retry.take() {
            // It is stale when it is what has brought us here.
            let _ = poller.timer_cancel(timer);
        }
        let mut ring = ring.filter(|_| self.unbounded && !self.shared);
        let exclusive = self.shared && poller.capabilities().contains(Capabilities::HAS_EXCLUSIVE);
        let interest = match exclusive {
            true => Interest::READ | Trigger::EXCLUSIVE,
            false => Interest::READ,
        };
        for (number, listener) in self.entries.iter_mut().enumerate() {
            match (listener.mode, &mut ring) {
                (AcceptMode::Paused, Some(ring)) => {
                    ring.accept(listener.listener.as_fd(), number)?;
                    listener.mode = AcceptMode::Multishot;
                }
                (AcceptMode::Paused, None) => {
                    poller.add(&listener.listener, interest, tokens::LISTENERS + number as u64)?;
                    listener.mode = AcceptMode::Polled;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Watches them no more; who comes waits in the sockets' queues. What the ring keeps stays open:
    /// it knows no bound, and ends by itself when it is short of something.
    pub(super) fn pause(&mut self, poller: &Poller) {
        for listener in self.entries.iter_mut().filter(|listener| listener.mode == AcceptMode::Polled) {
            let _ = poller.remove(&listener.listener);
            listener.mode = AcceptMode::Paused;
        }
    }

    /// Has the ring let nobody in any more. Whom it lets in before it knows still
    /// [arrives](Self::arrive).
    pub(super) fn cancel_accepts(&mut self, ring: &mut CompletionRing) -> io::Result<()> {
        for (number, listener) in self.entries.iter_mut().enumerate() {
            if listener.mode == AcceptMode::Multishot {
                ring.cancel_accept(number)?;
            }
        }
        Ok(())
    }

    /// Has the kernel wake the other loops before this one. Of those that watch a socket with
    /// EXCLUSIVE it wakes the one that has done so for the longest: always the same, unless that
    /// one begins anew when it has let somebody in.
    pub(super) fn rotate_exclusive(&mut self, poller: &Poller, counters: &WorkerCounters) -> io::Result<()> {
        if self.shared && self.is_accepting() {
            self.pause(poller);
            self.resume(poller, counters, None)?;
        }
        Ok(())
    }

    /// Closes them for good.
    pub(super) fn close(&mut self, poller: &Poller) {
        self.pause(poller);
        if let Some(timer) = self.retry.take() {
            let _ = poller.timer_cancel(timer);
        }
        self.entries.clear();
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
        listener: usize,
        poller: &Poller,
        counters: &WorkerCounters,
    ) -> io::Result<Option<(OwnedFd, Address)>> {
        let Some(Entry { listener, .. }) = self.entries.get(listener) else { return Ok(None) };
        // What concerns so many clients is no client's.
        for _ in 0..BATCH {
            match listener.accept() {
                Ok(client) => return Ok(Some(client)),
                Err(error) if errno::classify_accept(&error) == ErrorClass::Peer => {}
                Err(error) => return self.handle_error(error, poller, counters).map(|()| None),
            }
        }
        self.retry_later(poller, counters).map(|()| None)
    }

    /// The ring has let somebody in at a door, or says why not.
    pub(super) fn push_accepted(
        &mut self,
        listener: usize,
        accepted: io::Result<(OwnedFd, Address)>,
        more: bool,
    ) {
        // Without a door they were closed for good, before the ring knew.
        let Some(listener) = self.entries.get_mut(listener) else { return };
        if !more {
            listener.mode = AcceptMode::Paused;
        }
        self.accepted.push_back(accepted);
    }

    /// The next of those whom the ring has let in.
    pub(super) fn pop_accepted(
        &mut self,
        poller: &Poller,
        counters: &WorkerCounters,
    ) -> io::Result<Option<(OwnedFd, Address)>> {
        while let Some(accepted) = self.accepted.pop_front() {
            match accepted {
                Ok(client) => {
                    self.aborted = 0;
                    return Ok(Some(client));
                }
                Err(error) if errno::classify_accept(&error) == ErrorClass::Peer && self.aborted < BATCH => {
                    self.aborted += 1
                }
                Err(error) if errno::classify_accept(&error) == ErrorClass::Peer => {
                    self.retry_later(poller, counters)?
                }
                Err(error) => self.handle_error(error, poller, counters)?,
            }
        }
        Ok(None)
    }

    /// Takes an error for what it is: a want of something passes.
    fn handle_error(
        &mut self,
        error: io::Error,
        poller: &Poller,
        counters: &WorkerCounters,
    ) -> io::Result<()> {
        match errno::classify_accept(&error) {
            ErrorClass::WouldBlock | ErrorClass::Peer => Ok(()),
            ErrorClass::Temporary => self.retry_later(poller, counters),
            ErrorClass::Permanent => Err(error),
        }
    }

    /// Shuts them until there is hope that it helps, and counts that.
    pub(super) fn retry_later(&mut self, poller: &Poller, counters: &WorkerCounters) -> io::Result<()> {
        self.pause(poller);
        if self.retry.is_none() {
            counters.add(Counter::AcceptPauses, 1);
            self.retry = Some(poller.timer_add(RETRY, None, tokens::RETRY)?);
        }
        Ok(())
    }

    pub(super) fn is_accepting(&self) -> bool {
        self.entries.iter().all(|listener| listener.mode != AcceptMode::Paused)
    }

    /// Whether the ring may still let somebody in.
    pub(super) fn has_multishot(&self) -> bool {
        self.entries.iter().any(|listener| listener.mode == AcceptMode::Multishot)
    }

    /// Whether somebody waits to be welcomed.
    pub(super) fn has_accepted(&self) -> bool {
        !self.accepted.is_empty()
    }

    /// Whether they will be opened when a moment has passed.
    pub(super) fn is_retry_pending(&self) -> bool {
        self.retry.is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::plain;
    use crate::net::Counters;

    #[test]
    fn a_ring_that_lets_nobody_in_is_asked_later() {
        let (poller, counters) = (Poller::new().unwrap(), Counters::new(1).unwrap());
        let listeners = Listener::open(&"127.0.0.1:0".parse().unwrap(), 1, false).unwrap();
        let mut acceptor = Acceptor::new(listeners, false, true);
        for _ in 0..=BATCH {
            assert!(!acceptor.is_retry_pending());
            acceptor.push_accepted(0, Err(plain(libc::EPERM)), false);
            assert!(acceptor.pop_accepted(&poller, &counters.of(0)).unwrap().is_none());
        }
        assert!(acceptor.is_retry_pending());
    }
}
