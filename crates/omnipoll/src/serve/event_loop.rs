//! What every loop of a server does, whichever the model: opens its doors, waits, accepts, and
//! stops when it is told to. What becomes of a client is its [`Clients`]'s affair.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::acceptor::Acceptor;
use super::shared::Shared;
use super::tokens;
use crate::errno::{self, ErrorClass};
use crate::net::WorkerCounters;
use crate::sys::process;
use crate::sys::{lock, Address, CompletionRing};
use crate::{Event, EventKind, Events, Interest, Model, Poller};

/// Events taken from the engine at once.
const EVENTS: usize = 256;
/// How long to leave a system alone that is too short of memory for a wait.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(5);
/// How many waits in a row may fail while a server stops.
const FAILED_WAITS: usize = 20;

/// What becomes of the clients that come in at the doors.
pub(super) trait Clients {
    /// A client has come.
    fn on_accept(&mut self, event_loop: &mut EventLoop, socket: OwnedFd, peer: Address) -> io::Result<()>;

    /// Whether no more clients are let in.
    fn is_full(&self) -> bool;

    /// Whether there is nobody left to serve.
    fn is_empty(&self) -> bool;

    /// The ring that lets clients in, where there is one.
    fn ring(&mut self) -> Option<&mut CompletionRing> {
        None
    }

    /// Has the ring let nobody in any more, and waits until all whom it has let in have arrived.
    fn end_accepting(&mut self, _: &mut EventLoop) -> io::Result<()> {
        Ok(())
    }

    /// Waits until there is something to do.
    fn wait(&mut self, event_loop: &mut EventLoop, events: &mut Events) -> io::Result<()> {
        event_loop.poller.wait(events, None).map(drop)
    }

    /// An event that is not the front's own.
    fn event(&mut self, event_loop: &mut EventLoop, event: &Event) -> io::Result<()>;

    /// All the events of a wait have been seen, and another is about to begin.
    fn before_wait(&mut self, event_loop: &mut EventLoop) -> io::Result<()>;

    /// A signal has interrupted the wait.
    fn interrupted(&mut self) -> io::Result<()>;

    /// The server has begun to stop, or to stop sooner.
    fn stop(&mut self, event_loop: &mut EventLoop);

    /// The drain's time is up.
    fn force_close(&mut self, event_loop: &mut EventLoop);
}

/// Has the loop that waits on `poller` stop, too, on SIGTERM and SIGINT.
pub(super) fn watch_stop_signals(poller: &Poller) -> io::Result<()> {
    poller.signal_add(libc::SIGTERM, tokens::SIGNAL)?;
    poller.signal_add(libc::SIGINT, tokens::SIGNAL)
}

/// Gives the signals back to the program.
pub(super) fn unwatch_stop_signals(poller: &Poller) -> io::Result<()> {
    poller.signal_remove(libc::SIGTERM)?;
    poller.signal_remove(libc::SIGINT)
}

/// When a loop has done its work, unless it is stopped before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Never.
    Stopped,
    /// When there is nobody left to serve.
    Empty,
}

/// One loop.
pub(super) struct EventLoop {
    pub(super) shared: Arc<Shared>,
    pub(super) poller: Arc<Poller>,
    pub(super) acceptor: Acceptor,
    pub(super) counters: WorkerCounters,
    /// The pipes whose ends tell it to stop, the first to be heeded last.
    stop_pipes: Vec<OwnedFd>,
    /// The stop that has been carried out last, and the timer of its end.
    stopped: Option<Option<Duration>>,
    deadline: Option<u64>,
    signalled: bool,
    /// How many waits have failed since the last that did not.
    failed_waits: usize,
}

impl EventLoop {
    pub(super) fn new(shared: Arc<Shared>, poller: Arc<Poller>, acceptor: Acceptor, worker: usize) -> Self {
        let counters = shared.counters.of(worker);
        Self {
            shared,
            poller,
            acceptor,
            counters,
            stop_pipes: Vec::new(),
            stopped: None,
            deadline: None,
            signalled: false,
            failed_waits: 0,
        }
    }

    /// Stops, too, when the other ends of these pipes are closed, one after another.
    pub(super) fn watch_stop_pipes(&mut self, stop_pipes: Vec<OwnedFd>) -> io::Result<()> {
        self.stop_pipes = stop_pipes;
        match self.stop_pipes.last() {
            Some(next) => self.poller.add(next, Interest::READ, tokens::STOP_PIPE),
            None => Ok(()),
        }
    }

    /// In a forked child: gives up what is the parent's.
    pub(super) fn leave_to_parent_process(&mut self) {
        self.acceptor = Acceptor::default();
        self.poller.leave_to_parent();
        self.shared.leave_to_parent_process();
    }

    /// Whether this is the loop of the thread that called `run`.
    fn is_control(&self) -> bool {
        Arc::ptr_eq(&self.poller, &self.shared.control)
    }

    /// Whether other loops may still have to be told of a stop.
    fn has_other_loops(&self) -> bool {
        self.is_control() && self.shared.other_loops.load(Ordering::Acquire) > 0
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopped.is_some()
    }

    /// Serves; when it is told to stop, until the house is empty. An error stops it at once,
    /// and is returned when all have gone. A child that a callback or the handler of a signal has
    /// forked, and that returns here, leaves everything to its parent.
    pub(super) fn run(&mut self, clients: &mut impl Clients, until: Until) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut outcome = Ok(());
        self.apply_stop(clients);
        loop {
            let prepared = clients.before_wait(self);
            if clients.is_empty() && (until == Until::Empty || self.is_stopping() && !self.has_other_loops())
            {
                return outcome.and(prepared);
            }
            if let Err(error) = prepared.and_then(|()| self.run_once(clients, &mut events)) {
                if !self.poller.is_owner() {
                    return self.leave_to_parent();
                }
                // If the stop itself fails, there is no way to end in order.
                outcome?;
                outcome = Err(error);
                match until {
                    Until::Stopped => {
                        self.shared.stop(Some(Duration::ZERO))?;
                        self.apply_stop(clients);
                    }
                    // The loop of one client, which is no reason for the others to go.
                    Until::Empty => clients.force_close(self),
                }
            }
        }
    }

    /// In a forked child that has no business here.
    #[cold]
    fn leave_to_parent(&self) -> io::Result<()> {
        if self.shared.options.model != Model::Reactor {
            // It lacks the threads that are to be joined, or was not forked by who called `run`.
            process::exit(1);
        }
        self.shared.check_owner()
    }

    /// One wait, and what it brings.
    #[inline]
    fn run_once(&mut self, clients: &mut impl Clients, events: &mut Events) -> io::Result<()> {
        if !self.is_stopping()
            && !self.acceptor.is_accepting()
            && !self.acceptor.is_retry_pending()
            && !clients.is_full()
        {
            self.acceptor.resume(&self.poller, &self.counters, clients.ring())?;
        }
        match clients.wait(self, events) {
            Ok(()) => self.failed_waits = 0,
            Err(error) => return self.handle_wait_error(clients, error),
        }
        if self.acceptor.has_accepted() {
            self.take_accepted(clients)?;
        }
        for event in &*events {
            self.dispatch(clients, event)?;
            // What the others have is the parent's to find.
            self.poller.check_owner()?;
        }
        Ok(())
    }

    /// A wait has failed: if that passes, the next is made a moment later.
    #[cold]
    fn handle_wait_error(&mut self, clients: &mut impl Clients, error: io::Error) -> io::Result<()> {
        match errno::classify_wait(&error) {
            ErrorClass::WouldBlock => return if self.is_control() { clients.interrupted() } else { Ok(()) },
            // Who stops has somebody who waits for that.
            ErrorClass::Temporary if !self.is_stopping() || self.failed_waits < FAILED_WAITS => {}
            _ => return Err(error),
        }
        self.failed_waits += 1;
        thread::sleep(SHORTAGE_PAUSE);
        Ok(())
    }

    /// Welcomes those whom the ring has let in; of many, the rest after the others' turn.
    fn take_accepted(&mut self, clients: &mut impl Clients) -> io::Result<()> {
        for _ in 0..self.acceptor.batch() {
            self.poller.check_owner()?;
            match self.acceptor.pop_accepted(&self.poller, &self.counters)? {
                Some((socket, peer)) => clients.on_accept(self, socket, peer)?,
                None => break,
            }
        }
        Ok(())
    }

    #[inline]
    fn dispatch(&mut self, clients: &mut impl Clients, event: &Event) -> io::Result<()> {
        if event.kind() == EventKind::Io && event.token() < tokens::LISTENERS {
            return clients.event(self, event);
        }
        match (event.kind(), event.token()) {
            (EventKind::Io, tokens::LISTENERS..tokens::DATAGRAMS) => {
                return self.accept_ready(clients, (event.token() - tokens::LISTENERS) as usize);
            }
            (EventKind::Io, tokens::STOP_PIPE) => {
                let mut stop_pipes = std::mem::take(&mut self.stop_pipes);
                if let Some(ended) = stop_pipes.pop() {
                    self.poller.remove(&ended)?;
                }
                self.watch_stop_pipes(stop_pipes)?;
                // The parent has said how long, or is dead and can't.
                self.shared.adopt_parent_stop();
                self.apply_stop(clients);
            }
            (EventKind::Signal, _) => {
                let drain = if self.signalled { Some(Duration::ZERO) } else { self.shared.options.drain };
                self.signalled = true;
                self.shared.stop(drain)?;
                self.apply_stop(clients);
            }
            (EventKind::Timer, tokens::RETRY) => {
                self.acceptor.resume(&self.poller, &self.counters, clients.ring())?
            }
            (EventKind::Timer, tokens::DRAIN_TIMEOUT) => clients.force_close(self),
            (EventKind::Wake, _) => {
                self.apply_stop(clients);
                return clients.event(self, event);
            }
            _ => return clients.event(self, event),
        }
        Ok(())
    }

    /// Lets clients in.
    fn accept_ready(&mut self, clients: &mut impl Clients, listener: usize) -> io::Result<()> {
        for _ in 0..self.acceptor.batch() {
            if clients.is_full() {
                break;
            }
            self.poller.check_owner()?;
            match self.acceptor.accept(listener, &self.poller, &self.counters)? {
                Some((socket, peer)) => clients.on_accept(self, socket, peer)?,
                None => break,
            }
        }
        if clients.is_full() {
            // At once: who is woken and lets nobody in keeps the client from the others.
            self.acceptor.pause(&self.poller);
            return Ok(());
        }
        self.acceptor.rotate_exclusive(&self.poller, &self.counters)
    }

    /// Does what [`Shared::stop`] has been told, if that is news.
    fn apply_stop(&mut self, clients: &mut impl Clients) {
        let wanted = self.shared.wanted_stop();
        if wanted.is_none() || wanted == self.stopped {
            return;
        }
        if self.stopped.is_none() {
            self.drain_backlog(clients, wanted.flatten());
        }
        self.stopped = wanted;
        if let Some(timer) = self.deadline.take() {
            let _ = self.poller.timer_cancel(timer);
        }
        if self.is_control() {
            lock(&self.shared.bound).clear();
            self.shared.wake_workers();
        }
        clients.stop(self);
        match wanted.flatten() {
            _ if !self.poller.is_owner() => {}
            Some(Duration::ZERO) => clients.force_close(self),
            // Adding a timer fails only in a forked child that uses its parent's poller.
            Some(drain) => self.deadline = self.poller.timer_add(drain, None, tokens::DRAIN_TIMEOUT).ok(),
            None => {}
        }
    }

    /// Accepts who has come already, if there is any time to serve them: a listening socket that is
    /// closed resets those that wait in its queue. The queue is no longer than the backlog, and
    /// those who go on coming are not waited for.
    fn drain_backlog(&mut self, clients: &mut impl Clients, drain: Option<Duration>) {
        // Should the ring fail, the loop ends by that.
        let _ = clients.end_accepting(self);
        while let Ok(Some((socket, peer))) = self.acceptor.pop_accepted(&self.poller, &self.counters) {
            if clients.on_accept(self, socket, peer).is_err() {
                break;
            }
        }
        let began = Instant::now();
        let has_time = || drain.is_none_or(|drain| began.elapsed() < drain);
        for listener in 0..self.acceptor.len() {
            let mut queue = 0..self.shared.options.backlog;
            while has_time() && !clients.is_full() && queue.next().is_some() {
                let Ok(Some((socket, peer))) = self.acceptor.accept(listener, &self.poller, &self.counters)
                else {
                    break;
                };
                if clients.on_accept(self, socket, peer).is_err() {
                    break;
                }
            }
        }
        self.acceptor.close(&self.poller);
    }
}
