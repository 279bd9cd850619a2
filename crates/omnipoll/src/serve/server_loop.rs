//! [`ServerLoop`]: a loop of a server, under every model: it runs until the server is stopped, and
//! ends its clients then.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::options::Model;
use super::shared::Shared;
use super::tokens;
use crate::errno::{self, ErrorClass};
use crate::event_loop::tokens::LISTENERS;
use crate::event_loop::{Acceptor, Clients, EventLoop, Hooks};
use crate::net::driver::AnyDriver;
use crate::sys::{lock, process};
use crate::{Event, EventKind, Events, Interest, Poller};

/// Events taken from the engine at once.
const EVENTS: usize = 256;
/// How long to pause when the system has too little memory for a wait.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(5);
/// How many waits in a row may fail while a server stops.
const MAX_FAILED_WAITS: usize = 20;

/// Makes SIGTERM and SIGINT stop the loop that waits on `poller`.
pub(super) fn watch_stop_signals(poller: &Poller) -> io::Result<()> {
    poller.signal_add(libc::SIGTERM, tokens::SIGNAL)?;
    poller.signal_add(libc::SIGINT, tokens::SIGNAL)
}

/// Leaves the signals to the program again.
pub(super) fn unwatch_stop_signals(poller: &Poller) -> io::Result<()> {
    poller.signal_remove(libc::SIGTERM)?;
    poller.signal_remove(libc::SIGINT)
}

/// When a loop ends, unless it is stopped before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Never.
    Stopped,
    /// When it has no clients.
    Empty,
}

/// One loop of a server.
pub(super) struct ServerLoop {
    pub(super) event_loop: EventLoop,
    shared: Arc<Shared>,
    /// The pipes whose ends stop it; the last one comes first.
    stop_pipes: Vec<OwnedFd>,
    /// The stop that was applied last, and the timer of its drain.
    stopped: Option<Option<Duration>>,
    drain_timer: Option<u64>,
    /// A signal has come: the next one leaves no time.
    is_signalled: bool,
    /// How many waits have failed since the last that did not.
    failed_waits: usize,
}

impl ServerLoop {
    pub(super) fn new(
        shared: Arc<Shared>,
        poller: Arc<Poller>,
        driver: AnyDriver,
        acceptor: Acceptor,
        worker: usize,
    ) -> Self {
        let event_loop = EventLoop::new(poller, driver, acceptor, shared.counters.of(worker));
        Self {
            event_loop,
            shared,
            stop_pipes: Vec::new(),
            stopped: None,
            drain_timer: None,
            is_signalled: false,
            failed_waits: 0,
        }
    }

    fn poller(&self) -> &Arc<Poller> {
        &self.event_loop.poller
    }

    /// Stops also when the other ends of these pipes are closed, one after another.
    pub(super) fn watch_stop_pipes(&mut self, stop_pipes: Vec<OwnedFd>) -> io::Result<()> {
        self.stop_pipes = stop_pipes;
        match self.stop_pipes.last() {
            Some(next) => self.poller().add(next, Interest::READ, tokens::STOP_PIPE),
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
        let mut events = Events::with_capacity(EVENTS);
        let mut outcome = Ok(());
        self.apply_stop(clients);
        loop {
            let prepared = clients.before_wait(&mut self.event_loop);
            if clients.is_empty() && self.may_end(until) {
                return outcome.and(prepared);
            }
            if let Err(error) = prepared.and_then(|()| self.run_once(clients, &mut events)) {
                if !self.poller().is_owner() {
                    return self.end_in_child();
                }
                // If the stop itself fails, there is no way to end cleanly.
                outcome?;
                outcome = Err(error);
                self.stop_after_error(clients, until)?;
            }
        }
    }

    /// Whether a loop without clients ends.
    fn may_end(&self, until: Until) -> bool {
        until == Until::Empty || self.event_loop.is_stopping && !self.has_other_loops()
    }

    #[cold]
    fn stop_after_error(&mut self, clients: &mut (impl Clients + Hooks), until: Until) -> io::Result<()> {
        match until {
            Until::Stopped => {
                self.shared.stop(Some(Duration::ZERO))?;
                self.apply_stop(clients);
            }
            // The loop of one client: the server continues.
            Until::Empty => clients.force_close(&mut self.event_loop),
        }
        Ok(())
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
    fn run_once(&mut self, clients: &mut (impl Clients + Hooks), events: &mut Events) -> io::Result<()> {
        let acceptor = &self.event_loop.acceptor;
        if !self.event_loop.is_stopping
            && !acceptor.is_accepting()
            && !acceptor.is_retry_pending()
            && !clients.is_full()
        {
            self.event_loop.resume_accepting()?;
        }
        match self.event_loop.wait(clients, events) {
            Ok(()) => self.failed_waits = 0,
            Err(error) => return self.handle_wait_error(clients, error),
        }
        if self.event_loop.acceptor.has_accepted() {
            self.event_loop.take_accepted(clients)?;
        }
        for event in &*events {
            self.dispatch(clients, event)?;
            // In a child that a callback has forked the rest is the parent's.
            self.event_loop.poller.check_owner()?;
        }
        Ok(())
    }

    /// A wait has failed: if the reason passes, the next is made a moment later.
    #[cold]
    fn handle_wait_error(&mut self, clients: &mut impl Hooks, error: io::Error) -> io::Result<()> {
        match errno::classify_wait(&error) {
            ErrorClass::WouldBlock => return if self.is_control() { clients.on_interrupt() } else { Ok(()) },
            // A stop must end even if the shortage lasts.
            ErrorClass::Temporary if !self.event_loop.is_stopping || self.failed_waits < MAX_FAILED_WAITS => {
            }
            _ => return Err(error),
        }
        self.failed_waits += 1;
        thread::sleep(SHORTAGE_PAUSE);
        Ok(())
    }

    #[inline]
    fn dispatch(&mut self, clients: &mut (impl Clients + Hooks), event: &Event) -> io::Result<()> {
        if event.kind() == EventKind::Io && event.token() < LISTENERS {
            return clients.on_event(&mut self.event_loop, event);
        }
        match (event.kind(), event.token()) {
            (EventKind::Io, tokens::STOP_PIPE) => return self.stop_pipe_ended(clients),
            (EventKind::Signal, _) => return self.stop_by_signal(clients),
            (EventKind::Timer, tokens::DRAIN_TIMEOUT) => {
                clients.force_close(&mut self.event_loop);
                return Ok(());
            }
            (EventKind::Wake, _) => self.apply_stop(clients),
            _ => {}
        }
        self.event_loop.dispatch(clients, event)
    }

    /// The parent has stopped, or has died.
    fn stop_pipe_ended(&mut self, clients: &mut (impl Clients + Hooks)) -> io::Result<()> {
        let mut stop_pipes = std::mem::take(&mut self.stop_pipes);
        if let Some(ended) = stop_pipes.pop() {
            self.poller().remove(&ended)?;
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
    fn apply_stop(&mut self, clients: &mut (impl Clients + Hooks)) {
        let wanted = self.shared.wanted_stop();
        if wanted.is_none() || wanted == self.stopped {
            return;
        }
        let drain = wanted.flatten();
        if self.stopped.is_none() {
            let began = Instant::now();
            let has_time = || drain.is_none_or(|drain| began.elapsed() < drain);
            self.event_loop.drain_backlog(clients, self.shared.options.backlog, has_time);
        }
        self.stopped = wanted;
        self.event_loop.is_stopping = true;
        if let Some(timer) = self.drain_timer.take() {
            let _ = self.poller().timer_cancel(timer);
        }
        if self.is_control() {
            lock(&self.shared.bound).clear();
            self.shared.wake_workers();
        }
        clients.on_stop(&mut self.event_loop);
        match drain {
            _ if !self.poller().is_owner() => {}
            Some(Duration::ZERO) => clients.force_close(&mut self.event_loop),
            // It fails only in a forked child that uses its parent's poller.
            Some(drain) => {
                self.drain_timer = self.poller().timer_add(drain, None, tokens::DRAIN_TIMEOUT).ok();
            }
            None => {}
        }
    }
}
