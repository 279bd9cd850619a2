//! [`EventLoop`], and what it calls.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::acceptor::Acceptor;
use super::tokens;
use crate::errno::{self, ErrorClass};
use crate::net::driver::{AnyDriver, Driver};
use crate::net::WorkerCounters;
use crate::sys::{Address, Completion};
use crate::{Event, EventKind, Events, Poller};

/// How long to wait for cancelled accepts to end.
const CANCEL_TIMEOUT: Duration = Duration::from_millis(500);

/// What becomes of the connections that a loop accepts.
pub(crate) trait Clients {
    /// A connection was accepted.
    fn on_accept(&mut self, event_loop: &mut EventLoop, socket: OwnedFd, peer: Address) -> io::Result<()>;

    /// Whether no more may be accepted.
    fn is_full(&self) -> bool;

    /// Whether none is left.
    fn is_empty(&self) -> bool;

    /// The loop has begun to stop, or to stop sooner.
    fn on_stop(&mut self, event_loop: &mut EventLoop);

    /// The time to stop is up: ends all that is left.
    fn force_close(&mut self, event_loop: &mut EventLoop);
}

/// What a loop calls while it runs.
pub(crate) trait Hooks {
    /// An event that is not the loop's own.
    fn on_event(&mut self, event_loop: &mut EventLoop, event: &Event) -> io::Result<()>;

    /// A receive or a send of the driver has completed.
    fn on_completion(&mut self, _: &mut EventLoop, _: Completion) {}

    /// All events of the last wait have been handled.
    fn before_wait(&mut self, event_loop: &mut EventLoop) -> io::Result<()>;

    /// Whether the next wait must not sleep.
    fn has_pending(&self) -> bool {
        false
    }

    /// A signal has interrupted a wait.
    fn on_interrupt(&mut self) -> io::Result<()>;
}

/// One loop.
pub(crate) struct EventLoop {
    pub(crate) poller: Arc<Poller>,
    pub(crate) driver: AnyDriver,
    pub(crate) acceptor: Acceptor,
    pub(crate) counters: WorkerCounters,
    /// It accepts no more, and ends when its clients have.
    pub(crate) is_stopping: bool,
}

impl EventLoop {
    pub(crate) fn new(
        poller: Arc<Poller>,
        driver: AnyDriver,
        acceptor: Acceptor,
        counters: WorkerCounters,
    ) -> Self {
        Self { poller, driver, acceptor, counters, is_stopping: false }
    }

    /// Waits, takes what the driver has completed, and accepts what it has accepted. The events are
    /// for [`dispatch`](Self::dispatch).
    #[inline]
    pub(crate) fn wait(
        &mut self,
        clients: &mut (impl Clients + Hooks),
        events: &mut Events,
    ) -> io::Result<()> {
        let is_pending = self.acceptor.has_accepted() || clients.has_pending();
        let limit = is_pending.then_some(Duration::ZERO);
        let waited = self.driver.wait(&self.poller, events, limit);
        self.handle_completions(clients);
        self.driver.events(waited, &self.poller, events)
    }

    #[inline]
    fn handle_completions(&mut self, clients: &mut impl Hooks) {
        while let Some(completion) = self.driver.next() {
            match completion {
                Completion::Accepted { key, result, more } => {
                    self.acceptor.push_accepted(key as u64, result, more);
                }
                completion => clients.on_completion(self, completion),
            }
        }
    }

    /// Handles an event of the loop itself; others go to the hooks.
    #[inline]
    pub(crate) fn dispatch(&mut self, clients: &mut (impl Clients + Hooks), event: &Event) -> io::Result<()> {
        match (event.kind(), event.token()) {
            (EventKind::Io, tokens::LISTENERS..tokens::DATAGRAMS) => {
                self.accept_ready(clients, event.token())
            }
            (EventKind::Timer, tokens::RETRY_ACCEPT) => self.resume_accepting(),
            _ => clients.on_event(self, event),
        }
    }

    /// Accepts again where accepting is paused.
    pub(crate) fn resume_accepting(&mut self) -> io::Result<()> {
        self.acceptor.resume(&self.poller, &self.counters, &mut self.driver)
    }

    /// Pauses accepting for a moment.
    pub(crate) fn retry_accepting_later(&mut self) -> io::Result<()> {
        self.acceptor.retry_later(&self.poller, &self.counters)
    }

    /// Takes connections that the driver has accepted; of many, the rest after the next wait.
    pub(crate) fn take_accepted(&mut self, clients: &mut impl Clients) -> io::Result<()> {
        for _ in 0..self.acceptor.batch() {
            self.poller.check_owner()?;
            match self.acceptor.pop_accepted(&self.poller, &self.counters)? {
                Some((socket, peer)) => clients.on_accept(self, socket, peer)?,
                None => break,
            }
        }
        Ok(())
    }

    /// Connections wait at a listener.
    fn accept_ready(&mut self, clients: &mut impl Clients, token: u64) -> io::Result<()> {
        let index = (token - tokens::LISTENERS) as usize;
        for _ in 0..self.acceptor.batch() {
            if clients.is_full() {
                break;
            }
            self.poller.check_owner()?;
            match self.acceptor.accept(index, &self.poller, &self.counters)? {
                Some((socket, peer)) => clients.on_accept(self, socket, peer)?,
                None => break,
            }
        }
        if clients.is_full() {
            // At once: a loop that is woken and does not accept keeps the connection from the others.
            self.acceptor.pause(&self.poller);
            return Ok(());
        }
        self.acceptor.rotate_exclusive(&self.poller, &self.counters, &mut self.driver)
    }

    /// Accepts what waits already, for as long as `has_time`, and closes the listeners: one that is
    /// closed resets what waits in its queue. The queue is no longer than `backlog`, and connections
    /// that keep arriving are not waited for.
    pub(crate) fn drain_backlog(
        &mut self,
        clients: &mut (impl Clients + Hooks),
        backlog: i32,
        has_time: impl Fn() -> bool,
    ) {
        // Should the driver fail, the loop ends by that.
        let _ = self.cancel_accepts(clients);
        while let Ok(Some((socket, peer))) = self.acceptor.pop_accepted(&self.poller, &self.counters) {
            if clients.on_accept(self, socket, peer).is_err() {
                break;
            }
        }
        for index in 0..self.acceptor.len() {
            let mut queue = 0..backlog;
            while has_time() && !clients.is_full() && queue.next().is_some() {
                let accepted = self.acceptor.accept(index, &self.poller, &self.counters);
                let Ok(Some((socket, peer))) = accepted else { break };
                if clients.on_accept(self, socket, peer).is_err() {
                    break;
                }
            }
        }
        self.acceptor.close(&self.poller);
    }

    /// Has the driver accept no more, and takes what it completes until it doesn't.
    fn cancel_accepts(&mut self, clients: &mut impl Hooks) -> io::Result<()> {
        self.acceptor.cancel_accepts(&mut self.driver)?;
        let began = Instant::now();
        while self.acceptor.has_multishot() {
            match self.driver.wait_for_completions(CANCEL_TIMEOUT) {
                Err(error) if errno::classify_wait(&error) == ErrorClass::Permanent => return Err(error),
                _ => self.handle_completions(clients),
            }
            if began.elapsed() >= CANCEL_TIMEOUT {
                // The system is out of something. What is accepted after this is refused.
                break;
            }
        }
        Ok(())
    }

    /// In a forked child: gives up what is the parent's.
    pub(crate) fn leave_to_parent(&mut self) {
        self.acceptor = Acceptor::default();
        self.poller.leave_to_parent();
    }
}
