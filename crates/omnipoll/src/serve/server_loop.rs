//! [`ServerLoop`]: a loop of a server, under every model: it runs until the server is stopped, and
//! ends its clients then.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use super::lifecycle::Lifecycle;
use super::options::Model;
use super::shared::Shared;
use super::tokens;
use super::worker_process::WorkerLife;
use crate::event_loop::tokens::{CONNECTIONS, LISTENERS};
use crate::event_loop::{Acceptor, Clients, Core, Hooks, EVENTS};
use crate::net::driver::AnyDriver;
use crate::sys::{lock, process};
use crate::{Event, EventKind, Events, Interest, Poller};

/// Makes SIGTERM and SIGINT stop the loop that waits on `poller`.
pub(super) fn watch_stop_signals(poller: &Poller) -> io::Result<()> {
    poller.signal_add_reserved(libc::SIGTERM, tokens::SIGNAL)?;
    poller.signal_add_reserved(libc::SIGINT, tokens::SIGNAL)
}

/// When a loop ends, unless it is stopped before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Never.
    Stopped,
    /// When it has no clients.
    Empty,
}

/// What a loop keeps from one turn to the next.
pub(super) struct Progress {
    events: Events,
    /// The error for which it stops.
    outcome: io::Result<()>,
    /// In an outer loop: nothing has to be done before the next wait.
    is_armed: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self { events: Events::with_capacity(EVENTS), outcome: Ok(()), is_armed: false }
    }
}

impl Progress {
    fn take_outcome(&mut self) -> io::Result<()> {
        std::mem::replace(&mut self.outcome, Ok(()))
    }
}

/// One loop of a server.
pub(super) struct ServerLoop {
    pub(super) core: Core,
    shared: Arc<Shared>,
    /// The pipes whose ends stop it; the last one comes first.
    stop_pipes: Vec<OwnedFd>,
    /// A signal has come: the next one leaves no time.
    is_signalled: bool,
    /// In the loop of the thread that called `run`.
    lifecycle: Option<Lifecycle>,
    /// In a worker process.
    worker_life: Option<WorkerLife>,
}

impl ServerLoop {
    pub(super) fn new(
        shared: Arc<Shared>,
        poller: Arc<Poller>,
        driver: AnyDriver,
        acceptor: Acceptor,
        worker: usize,
    ) -> Self {
        let is_control = Arc::ptr_eq(&poller, &shared.control);
        let lifecycle = if is_control { Lifecycle::new(&shared) } else { None };
        let mut core = Core::new(poller, driver, acceptor, shared.counters.of(worker), is_control);
        core.admission = shared.admission(worker, false);
        Self { core, shared, stop_pipes: Vec::new(), is_signalled: false, lifecycle, worker_life: None }
    }

    fn poller(&self) -> &Arc<Poller> {
        &self.core.poller
    }

    /// It is that of a worker process, which begins to serve.
    pub(super) fn begin(&mut self, life: WorkerLife) -> io::Result<()> {
        life.begin(&self.core)?;
        self.worker_life = Some(life);
        Ok(())
    }

    /// Stops also when the other ends of these pipes are closed, one after another.
    pub(super) fn watch_stop_pipes(&mut self, stop_pipes: Vec<OwnedFd>) -> io::Result<()> {
        self.stop_pipes = stop_pipes;
        match self.stop_pipes.last() {
            Some(next) => self.poller().add_reserved(next.as_raw_fd(), Interest::READ, tokens::STOP_PIPE),
            None => Ok(()),
        }
    }

    /// Whether this is the loop of the thread that called `run`.
    fn is_control(&self) -> bool {
        Arc::ptr_eq(self.poller(), &self.shared.control)
    }

    /// Whether other loops may still have to be woken for a stop.
    fn has_other_loops(&self) -> bool {
        self.is_control() && self.shared.other_loops.load(Ordering::Acquire) > 0
    }

    /// Serves; after a stop, until there are no clients. An error stops the loop at once, and is
    /// returned when all clients are gone. A child that a callback or a signal handler has forked, and
    /// that returns here, leaves everything to its parent.
    pub(super) fn run(&mut self, clients: &mut (impl Clients + Hooks), until: Until) -> io::Result<()> {
        let mut progress = Progress::default();
        self.apply_stop(clients);
        while self.turn(clients, until, None, &mut progress)? {}
        Ok(())
    }

    /// One wait, for no longer than `limit`, and what it brings. False when the loop has ended.
    #[inline]
    pub(super) fn turn(
        &mut self,
        clients: &mut (impl Clients + Hooks),
        until: Until,
        limit: Option<Duration>,
        progress: &mut Progress,
    ) -> io::Result<bool> {
        let is_prepared = std::mem::take(&mut progress.is_armed);
        let prepared = if is_prepared { Ok(()) } else { clients.before_wait(&mut self.core) };
        let prepared = prepared.and_then(|()| self.report());
        if clients.is_empty() && self.may_end(until) {
            return progress.take_outcome().and(prepared).map(|()| false);
        }
        if let Err(error) = prepared.and_then(|()| self.run_once(clients, &mut progress.events, limit)) {
            if !self.poller().is_owner() {
                return self.end_in_child().map(|()| false);
            }
            // If the stop itself fails, there is no way to end cleanly.
            progress.take_outcome()?;
            progress.outcome = Err(error);
            self.stop_after_error(clients, until)?;
        }
        Ok(true)
    }

    #[inline]
    fn report(&mut self) -> io::Result<()> {
        if let Some(life) = &self.worker_life {
            life.advance(&self.core);
        }
        match &mut self.lifecycle {
            Some(lifecycle) => lifecycle.advance(&self.core),
            None => Ok(()),
        }
    }

    /// In an outer loop, after a turn: does what would be done before the next wait, so that nothing is
    /// left when that loop sleeps.
    pub(super) fn arm(
        &mut self,
        clients: &mut (impl Clients + Hooks),
        until: Until,
        progress: &mut Progress,
    ) -> io::Result<()> {
        let armed = clients.before_wait(&mut self.core).and_then(|()| self.core.arm(clients));
        progress.is_armed = armed.is_ok();
        // The next turn ends the loop, or finds the error again.
        if armed.is_err() || clients.is_empty() && self.may_end(until) {
            self.poller().request_wait()?;
        }
        Ok(())
    }

    /// Whether a loop without clients ends.
    fn may_end(&self, until: Until) -> bool {
        until == Until::Empty || self.core.is_stopping && !self.has_other_loops()
    }

    #[cold]
    fn stop_after_error(&mut self, clients: &mut (impl Clients + Hooks), until: Until) -> io::Result<()> {
        match until {
            Until::Stopped => {
                self.shared.stop(Some(Duration::ZERO))?;
                self.apply_stop(clients);
            }
            // The loop of one client: the server continues.
            Until::Empty => clients.force_close(&mut self.core),
        }
        Ok(())
    }

    /// Ends a child that a callback has forked.
    pub(super) fn check_is_in_parent(&self) -> io::Result<()> {
        if self.poller().is_owner() {
            Ok(())
        } else {
            self.end_in_child()
        }
    }

    /// In a forked child that must not serve.
    #[cold]
    fn end_in_child(&self) -> io::Result<()> {
        if self.shared.options.model != Model::Reactor {
            // It lacks the threads that would be joined, or was not forked by the thread that called
            // `run`.
            process::exit(1);
        }
        self.shared.check_owner()
    }

    /// One wait, and what it brings.
    #[inline]
    fn run_once(
        &mut self,
        clients: &mut (impl Clients + Hooks),
        events: &mut Events,
        limit: Option<Duration>,
    ) -> io::Result<()> {
        self.core.wait(clients, events, limit)?;
        for event in &*events {
            self.dispatch(clients, event)?;
            // In a child that a callback has forked the rest is the parent's.
            self.core.poller.check_owner()?;
        }
        Ok(())
    }

    #[inline]
    fn dispatch(&mut self, clients: &mut (impl Clients + Hooks), event: &Event) -> io::Result<()> {
        match (event.kind(), event.token()) {
            (EventKind::Io, CONNECTIONS..LISTENERS) => return clients.on_event(&mut self.core, event),
            (EventKind::Io, tokens::STOP_PIPE) => return self.stop_pipe_ended(clients),
            (EventKind::Signal, tokens::SIGNAL) => return self.stop_by_signal(clients),
            (EventKind::Wake, _) => self.apply_stop(clients),
            (EventKind::Timer, tokens::BEAT) => return self.beat(clients, event),
            (_, tokens::WATCHDOG..=tokens::RESTART) => return self.advance_life(clients, event),
            _ => {}
        }
        self.core.dispatch(clients, event)
    }

    fn beat(&mut self, clients: &mut (impl Clients + Hooks), event: &Event) -> io::Result<()> {
        match &self.worker_life {
            Some(life) => life.beat(&self.core),
            None => clients.on_event(&mut self.core, event),
        }
    }

    #[cold]
    fn advance_life(&mut self, clients: &mut (impl Clients + Hooks), event: &Event) -> io::Result<()> {
        let Some(lifecycle) = &mut self.lifecycle else { return Ok(()) };
        if lifecycle.on_event(&self.core, event)? {
            self.shared.stop(self.shared.options.drain)?;
            self.apply_stop(clients);
        }
        Ok(())
    }

    /// The parent has stopped, or has died.
    fn stop_pipe_ended(&mut self, clients: &mut (impl Clients + Hooks)) -> io::Result<()> {
        let mut stop_pipes = std::mem::take(&mut self.stop_pipes);
        if let Some(ended) = stop_pipes.pop() {
            self.poller().remove_reserved(ended.as_raw_fd())?;
        }
        self.watch_stop_pipes(stop_pipes)?;
        self.shared.adopt_parent_stop();
        self.apply_stop(clients);
        Ok(())
    }

    fn stop_by_signal(&mut self, clients: &mut (impl Clients + Hooks)) -> io::Result<()> {
        let drain = if self.is_signalled { Some(Duration::ZERO) } else { self.shared.options.drain };
        self.is_signalled = true;
        self.shared.stop(drain)?;
        self.apply_stop(clients);
        Ok(())
    }

    /// Applies the stop that [`Shared::stop`] was last given, if it is new.
    pub(super) fn apply_stop(&mut self, clients: &mut (impl Clients + Hooks)) {
        let Some(drain) = self.shared.wanted_stop().filter(|&drain| self.core.is_new_stop(drain)) else {
            return;
        };
        if let Some(lifecycle) = self.lifecycle.as_mut().filter(|_| !self.core.is_stopping) {
            lifecycle.on_stop(&self.core);
        }
        let (shared, is_control) = (self.shared.clone(), self.is_control());
        self.core.stop(clients, drain, self.shared.options.each_loop.backlog, || {
            if is_control {
                lock(&shared.bound).clear();
                shared.wake_workers();
            }
        });
    }
}
