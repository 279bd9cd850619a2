//! The listening sockets of one loop.
//!
//! `accept(2)` fails with EMFILE or ENFILE and leaves the connection in the queue, so that a loop
//! under LEVEL that keeps watching spins, and one that stops must know when to look again. Here
//! accepting pauses: until a connection of this loop has ended, or for a moment.
//!
//! A driver may accept by itself where the loop shares its listeners with no other and has no limit
//! of connections; what it has accepted waits here.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use super::tokens;
use crate::errno::{self, ErrorClass};
use crate::net::driver::{AcceptMode, AnyDriver, Driver};
use crate::net::{Admitted, Counter, Listener, WorkerCounters};
use crate::poller::RESERVED_TOKENS;
use crate::sys::Address;
use crate::{Capabilities, Interest, Poller, Trigger};

/// Connections accepted from one listener before other events are handled.
const BATCH: usize = 64;
/// The same for a worker that shares its listeners: the other workers are awake too.
const SHARED_BATCH: usize = 8;
/// How long to wait for what the system is out of, when no connection of ours will give it back.
pub(super) const RETRY: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Entry {
    listener: Listener,
    mode: AcceptMode,
    /// What the connections to it begin with.
    token: u64,
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: OwnedFd,
    pub(crate) peer: Address,
    /// Its listener's.
    pub(crate) token: u64,
    /// What it counts as of its address.
    pub(crate) admitted: Option<Box<Admitted>>,
}

/// The listening sockets of one loop, which accept or pause together.
#[derive(Debug, Default)]
pub(crate) struct Acceptor {
    entries: Vec<Entry>,
    /// Other loops accept from the same sockets.
    is_shared: bool,
    /// There is no limit to the number of connections.
    is_unlimited: bool,
    /// What the driver has accepted, or why it could not.
    accepted: VecDeque<io::Result<Accepted>>,
    /// How many connections in a row were aborted before the driver could accept them.
    aborted: usize,
    /// The timer that resumes accepting.
    retry: Option<u64>,
}

impl Acceptor {
    pub(crate) fn new(listeners: Vec<Listener>, is_shared: bool, is_unlimited: bool) -> Self {
        let mut acceptor = Self { is_shared, is_unlimited, ..Self::default() };
        listeners.into_iter().for_each(|listener| acceptor.add(listener, 0));
        acceptor
    }

    /// One more listening socket, which is paused at first. Its connections begin with `token`.
    pub(super) fn add(&mut self, listener: Listener, token: u64) {
        self.entries.push(Entry { listener, mode: AcceptMode::Paused, token });
    }

    /// Accepts from all that are paused. When the system is out of something it is tried again in a
    /// moment.
    pub(super) fn resume(
        &mut self,
        poller: &Poller,
        counters: &WorkerCounters,
        driver: &mut AnyDriver,
    ) -> io::Result<()> {
        match self.try_resume(poller, driver) {
            Err(error) if errno::classify_registration(&error) == ErrorClass::Temporary => {
                self.retry_later(poller, counters)
            }
            result => result,
        }
    }

    fn try_resume(&mut self, poller: &Poller, driver: &mut AnyDriver) -> io::Result<()> {
        if let Some(timer) = self.retry.take() {
            // It is stale when this is called because it has expired.
            let _ = poller.timer_cancel(timer);
        }
        let is_unlimited = self.is_unlimited && !self.is_shared;
        let exclusive = self.is_shared && poller.capabilities().contains(Capabilities::HAS_EXCLUSIVE);
        let interest = if exclusive { Interest::READ | Trigger::EXCLUSIVE } else { Interest::READ };
        for (token, entry) in (tokens::LISTENERS..).zip(&mut self.entries) {
            if entry.mode == AcceptMode::Paused {
                entry.mode = driver.accept(&entry.listener, interest, token, is_unlimited, poller)?;
            }
        }
        Ok(())
    }

    /// Stops watching; connections wait in the sockets' queues. A multishot accept stays active: it has
    /// no limit, and ends by itself when the system is out of something.
    pub(super) fn pause(&mut self, poller: &Poller) {
        for entry in self.entries.iter_mut().filter(|entry| entry.mode == AcceptMode::Polled) {
            let _ = poller.remove_reserved(entry.listener.as_fd().as_raw_fd());
            entry.mode = AcceptMode::Paused;
        }
    }

    /// Cancels multishot accepts. What they accept before they end still
    /// [is pushed](Self::push_accepted).
    pub(super) fn cancel_accepts(&mut self, driver: &mut AnyDriver) -> io::Result<()> {
        for (token, entry) in (tokens::LISTENERS..).zip(&self.entries) {
            if entry.mode == AcceptMode::Multishot {
                driver.cancel_accept(token)?;
            }
        }
        Ok(())
    }

    /// Has the kernel wake the other loops before this one. Of those that watch a socket with
    /// EXCLUSIVE it wakes the one that has done so for the longest: always the same, unless that one
    /// registers again after it has accepted.
    pub(super) fn rotate_exclusive(
        &mut self,
        poller: &Poller,
        counters: &WorkerCounters,
        driver: &mut AnyDriver,
    ) -> io::Result<()> {
        if self.is_shared && self.is_accepting() {
            self.pause(poller);
            self.resume(poller, counters, driver)?;
        }
        Ok(())
    }

    /// Closes the sockets.
    pub(super) fn close(&mut self, poller: &Poller) {
        self.pause(poller);
        if let Some(timer) = self.retry.take() {
            let _ = poller.timer_cancel(timer);
        }
        self.entries.clear();
    }

    /// How many connections to accept from one listener at once.
    pub(super) fn batch(&self) -> usize {
        if self.is_shared {
            SHARED_BATCH
        } else {
            BATCH
        }
    }

    /// The next connection of a listener, if one waits. Pauses when the system is out of something.
    pub(super) fn accept(
        &mut self,
        index: usize,
        poller: &Poller,
        counters: &WorkerCounters,
    ) -> io::Result<Option<Accepted>> {
        let Some(Entry { listener, token, .. }) = self.entries.get(index) else { return Ok(None) };
        // So many errors in a row are not about one connection each.
        for _ in 0..BATCH {
            match listener.accept() {
                Ok((socket, peer)) => {
                    return Ok(Some(Accepted { socket, peer, token: *token, admitted: None }))
                }
                Err(error) if errno::classify_accept(&error) == ErrorClass::Peer => {}
                Err(error) => return self.handle_error(error, poller, counters).map(|()| None),
            }
        }
        self.retry_later(poller, counters).map(|()| None)
    }

    /// The driver has accepted a connection, or says why not; without `more` its accept has ended.
    pub(super) fn push_accepted(&mut self, key: usize, result: io::Result<(OwnedFd, Address)>, more: bool) {
        let index = key - (tokens::LISTENERS - RESERVED_TOKENS) as usize;
        // A connection that was accepted before the driver knew that the sockets are closed.
        let Some(entry) = self.entries.get_mut(index) else { return };
        if !more {
            entry.mode = AcceptMode::Paused;
        }
        let token = entry.token;
        self.accepted.push_back(result.map(|(socket, peer)| Accepted {
            socket,
            peer,
            token,
            admitted: None,
        }));
    }

    /// The next connection that the driver has accepted.
    pub(super) fn pop_accepted(
        &mut self,
        poller: &Poller,
        counters: &WorkerCounters,
    ) -> io::Result<Option<Accepted>> {
        while let Some(accepted) = self.accepted.pop_front() {
            match accepted {
                Ok(connection) => {
                    self.aborted = 0;
                    return Ok(Some(connection));
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

    /// Pauses, counts that, and resumes after a moment.
    pub(super) fn retry_later(&mut self, poller: &Poller, counters: &WorkerCounters) -> io::Result<()> {
        self.pause(poller);
        if self.retry.is_none() {
            counters.add(Counter::AcceptPauses, 1);
            self.retry = Some(poller.timer_add_reserved(RETRY, tokens::RETRY_ACCEPT)?);
        }
        Ok(())
    }

    pub(crate) fn is_accepting(&self) -> bool {
        self.entries.iter().all(|entry| entry.mode != AcceptMode::Paused)
    }

    /// Whether the driver may still accept by itself.
    pub(super) fn has_multishot(&self) -> bool {
        self.entries.iter().any(|entry| entry.mode == AcceptMode::Multishot)
    }

    /// Whether accepted connections wait to be taken.
    pub(crate) fn has_accepted(&self) -> bool {
        !self.accepted.is_empty()
    }

    /// Whether accepting resumes after a moment.
    pub(crate) fn is_retry_pending(&self) -> bool {
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
    fn a_multishot_accept_that_only_fails_is_retried_later() {
        let (poller, counters) = (Poller::new().unwrap(), Counters::new(1).unwrap());
        let listeners =
            Listener::open(&"127.0.0.1:0".parse().unwrap(), 1, false, &Default::default()).unwrap();
        let mut acceptor = Acceptor::new(listeners, false, true);
        for _ in 0..=BATCH {
            assert!(!acceptor.is_retry_pending());
            acceptor.push_accepted(1 << 24, Err(plain(libc::EPERM)), false);
            assert!(acceptor.pop_accepted(&poller, &counters.of(0)).unwrap().is_none());
        }
        assert!(acceptor.is_retry_pending());
    }
}
