//! What every loop of a server does, whichever the model: opens its doors, waits, accepts, and
//! stops when it is told to. What becomes of a client is its [`House`]'s affair.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::doors::Doors;
use super::shared::Shared;
use super::tokens;
use crate::errno::{self, About};
use crate::net::Count;
use crate::sys::process;
use crate::sys::{lock, Completion, Peer};
use crate::{Event, EventKind, Events, Interest, Model, Poller};

/// Events taken from the engine at once.
const EVENTS: usize = 256;
/// How long to leave a system alone that is too short of memory for a wait.
const MOMENT: Duration = Duration::from_millis(5);
/// How many waits in a row may fail while a server stops.
const FAILED_WAITS: usize = 20;

/// What becomes of the clients that come in at the doors.
pub(super) trait House {
    /// A client has come.
    fn welcome(&mut self, front: &mut Front, socket: OwnedFd, peer: Peer) -> io::Result<()>;

    /// Whether no more clients are let in.
    fn is_full(&self) -> bool;

    /// Whether there is nobody left to serve.
    fn is_empty(&self) -> bool;

    /// The ring that lets clients in, where there is one.
    fn ring(&mut self) -> Option<&mut Completion> {
        None
    }

    /// Has the ring let nobody in any more, and waits until all whom it has let in have arrived.
    fn end_accepting(&mut self, _: &mut Front) -> io::Result<()> {
        Ok(())
    }

    /// Waits until there is something to do.
    fn wait(&mut self, front: &mut Front, events: &mut Events) -> io::Result<()> {
        front.poller.wait(events, None).map(drop)
    }

    /// An event that is not the front's own.
    fn event(&mut self, front: &mut Front, event: &Event) -> io::Result<()>;

    /// All the events of a wait have been seen, and another is about to begin.
    fn rest(&mut self, front: &mut Front) -> io::Result<()>;

    /// A signal has interrupted the wait.
    fn interrupted(&mut self) -> io::Result<()>;

    /// The server has begun to stop, or to stop sooner.
    fn stop(&mut self, front: &mut Front);

    /// The drain's time is up.
    fn abandon(&mut self, front: &mut Front);
}

/// Has the loop that waits on `poller` stop, too, on SIGTERM and SIGINT.
pub(super) fn heed_signals(poller: &Poller) -> io::Result<()> {
    poller.signal_add(libc::SIGTERM, tokens::SIGNAL)?;
    poller.signal_add(libc::SIGINT, tokens::SIGNAL)
}

/// Gives the signals back to the program.
pub(super) fn heed_signals_no_more(poller: &Poller) -> io::Result<()> {
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
pub(super) struct Front {
    pub(super) shared: Arc<Shared>,
    pub(super) poller: Arc<Poller>,
    pub(super) doors: Doors,
    pub(super) count: Count,
    /// The pipes whose ends tell it to stop, the first to be heeded last.
    leash: Vec<OwnedFd>,
    /// The stop that has been carried out last, and the timer of its end.
    stopped: Option<Option<Duration>>,
    deadline: Option<u64>,
    signalled: bool,
    /// How many waits have failed since the last that did not.
    failed_waits: usize,
}

impl Front {
    pub(super) fn new(shared: Arc<Shared>, poller: Arc<Poller>, doors: Doors, worker: usize) -> Self {
        let count = shared.counts.of(worker);
        Self {
            shared,
            poller,
            doors,
            count,
            leash: Vec::new(),
            stopped: None,
            deadline: None,
            signalled: false,
            failed_waits: 0,
        }
    }

    /// Stops, too, when the other ends of these pipes are closed, one after another.
    pub(super) fn hold(&mut self, leash: Vec<OwnedFd>) -> io::Result<()> {
        self.leash = leash;
        match self.leash.last() {
            Some(next) => self.poller.add(next, Interest::READ, tokens::LEASH),
            None => Ok(()),
        }
    }

    /// In a forked child: gives up what is the parent's.
    pub(super) fn become_child(&mut self) {
        self.doors = Doors::default();
        self.poller.leave_to_parent();
        self.shared.become_child();
    }

    /// Whether this is the loop of the thread that called `run`.
    fn is_control(&self) -> bool {
        Arc::ptr_eq(&self.poller, &self.shared.control)
    }

    /// Whether other loops may still have to be told of a stop.
    fn is_followed(&self) -> bool {
        self.is_control() && self.shared.followers.load(Ordering::Acquire) > 0
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopped.is_some()
    }

    /// Serves; when it is told to stop, until the house is empty. An error stops it at once,
    /// and is returned when all have gone. A child that a callback or the handler of a signal has
    /// forked, and that returns here, leaves everything to its parent.
    pub(super) fn run(&mut self, house: &mut impl House, until: Until) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut outcome = Ok(());
        self.obey(house);
        loop {
            let rested = house.rest(self);
            if house.is_empty() && (until == Until::Empty || self.is_stopping() && !self.is_followed()) {
                return outcome.and(rested);
            }
            if let Err(error) = rested.and_then(|()| self.turn(house, &mut events)) {
                if !self.poller.is_owner() {
                    return self.leave_to_parent();
                }
                // If the stop itself fails, there is no way to end in order.
                outcome?;
                outcome = Err(error);
                match until {
                    Until::Stopped => {
                        self.shared.stop(Some(Duration::ZERO))?;
                        self.obey(house);
                    }
                    // The loop of one client, which is no reason for the others to go.
                    Until::Empty => house.abandon(self),
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
    fn turn(&mut self, house: &mut impl House, events: &mut Events) -> io::Result<()> {
        if !self.is_stopping() && !self.doors.is_open() && !self.doors.is_waiting() && !house.is_full() {
            self.doors.open(&self.poller, &self.count, house.ring())?;
        }
        match house.wait(self, events) {
            Ok(()) => self.failed_waits = 0,
            Err(error) => return self.bear(house, error),
        }
        if self.doors.have_arrivals() {
            self.welcome_some(house)?;
        }
        for event in &*events {
            self.dispatch(house, event)?;
            // What the others have is the parent's to find.
            self.poller.check_owner()?;
        }
        Ok(())
    }

    /// A wait has failed: if that passes, the next is made a moment later.
    #[cold]
    fn bear(&mut self, house: &mut impl House, error: io::Error) -> io::Result<()> {
        match errno::of_wait(&error) {
            About::Nothing => return if self.is_control() { house.interrupted() } else { Ok(()) },
            // Who stops has somebody who waits for that.
            About::Moment if !self.is_stopping() || self.failed_waits < FAILED_WAITS => {}
            _ => return Err(error),
        }
        self.failed_waits += 1;
        thread::sleep(MOMENT);
        Ok(())
    }

    /// Welcomes those whom the ring has let in; of many, the rest after the others' turn.
    fn welcome_some(&mut self, house: &mut impl House) -> io::Result<()> {
        for _ in 0..self.doors.batch() {
            self.poller.check_owner()?;
            match self.doors.arrival(&self.poller, &self.count)? {
                Some((socket, peer)) => house.welcome(self, socket, peer)?,
                None => break,
            }
        }
        Ok(())
    }

    #[inline]
    fn dispatch(&mut self, house: &mut impl House, event: &Event) -> io::Result<()> {
        if event.kind() == EventKind::Io && event.token() < tokens::DOORS {
            return house.event(self, event);
        }
        match (event.kind(), event.token()) {
            (EventKind::Io, tokens::DOORS..tokens::DATAGRAMS) => {
                return self.admit(house, (event.token() - tokens::DOORS) as usize);
            }
            (EventKind::Io, tokens::LEASH) => {
                let mut leash = std::mem::take(&mut self.leash);
                if let Some(ended) = leash.pop() {
                    self.poller.remove(&ended)?;
                }
                self.hold(leash)?;
                // The parent has said how long, or is dead and can't.
                self.shared.follow_parent();
                self.obey(house);
            }
            (EventKind::Signal, _) => {
                let drain = if self.signalled { Some(Duration::ZERO) } else { self.shared.options.drain };
                self.signalled = true;
                self.shared.stop(drain)?;
                self.obey(house);
            }
            (EventKind::Timer, tokens::RETRY) => self.doors.open(&self.poller, &self.count, house.ring())?,
            (EventKind::Timer, tokens::DRAINED) => house.abandon(self),
            (EventKind::Wake, _) => {
                self.obey(house);
                return house.event(self, event);
            }
            _ => return house.event(self, event),
        }
        Ok(())
    }

    /// Lets clients in.
    fn admit(&mut self, house: &mut impl House, door: usize) -> io::Result<()> {
        for _ in 0..self.doors.batch() {
            if house.is_full() {
                break;
            }
            self.poller.check_owner()?;
            match self.doors.accept(door, &self.poller, &self.count)? {
                Some((socket, peer)) => house.welcome(self, socket, peer)?,
                None => break,
            }
        }
        if house.is_full() {
            // At once: who is woken and lets nobody in keeps the client from the others.
            self.doors.shut(&self.poller);
            return Ok(());
        }
        self.doors.let_others_go_first(&self.poller, &self.count)
    }

    /// Does what [`Shared::stop`] has been told, if that is news.
    fn obey(&mut self, house: &mut impl House) {
        let wanted = self.shared.wanted_stop();
        if wanted.is_none() || wanted == self.stopped {
            return;
        }
        if self.stopped.is_none() {
            self.last_call(house, wanted.flatten());
        }
        self.stopped = wanted;
        if let Some(timer) = self.deadline.take() {
            let _ = self.poller.timer_cancel(timer);
        }
        if self.is_control() {
            lock(&self.shared.bound).clear();
            self.shared.pass_on();
        }
        house.stop(self);
        match wanted.flatten() {
            _ if !self.poller.is_owner() => {}
            Some(Duration::ZERO) => house.abandon(self),
            // Adding a timer fails only in a forked child that uses its parent's poller.
            Some(drain) => self.deadline = self.poller.timer_add(drain, None, tokens::DRAINED).ok(),
            None => {}
        }
    }

    /// Accepts who has come already, if there is any time to serve them: a listening socket that is
    /// closed resets those that wait in its queue. The queue is no longer than the backlog, and
    /// those who go on coming are not waited for.
    fn last_call(&mut self, house: &mut impl House, drain: Option<Duration>) {
        // Should the ring fail, the loop ends by that.
        let _ = house.end_accepting(self);
        while let Ok(Some((socket, peer))) = self.doors.arrival(&self.poller, &self.count) {
            if house.welcome(self, socket, peer).is_err() {
                break;
            }
        }
        let began = Instant::now();
        let has_time = || drain.is_none_or(|drain| began.elapsed() < drain);
        for door in 0..self.doors.len() {
            let mut queue = 0..self.shared.options.backlog;
            while has_time() && !house.is_full() && queue.next().is_some() {
                let Ok(Some((socket, peer))) = self.doors.accept(door, &self.poller, &self.count) else {
                    break;
                };
                if house.welcome(self, socket, peer).is_err() {
                    break;
                }
            }
        }
        self.doors.give_up(&self.poller);
    }
}
