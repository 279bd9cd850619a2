//! [`Core`], one loop without what becomes of its connections, and what it calls.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::acceptor::{Accepted, Acceptor};
use super::tokens;
use crate::errno::{self, ErrorClass};
use crate::net::driver::{AnyDriver, Driver};
use crate::net::{Admission, Counter, WorkerCounters};
use crate::sys::{socket_options, Completion};
use crate::{Event, EventKind, Events, Poller};

/// Events taken from the engine at once.
pub(crate) const EVENTS: usize = 256;
/// How long to wait for cancelled accepts to end.
const CANCEL_TIMEOUT: Duration = Duration::from_millis(500);
/// How long to pause when the system has too little memory for a wait.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(5);
/// How many waits in a row may fail while a loop stops.
const MAX_FAILED_WAITS: usize = 20;

/// What becomes of the connections that a loop accepts.
pub(crate) trait Clients {
    /// A connection was accepted.
    fn on_accept(&mut self, core: &mut Core, accepted: Accepted) -> io::Result<()>;

    /// Whether no more may be accepted.
    fn is_full(&self) -> bool;

    /// Whether none is left.
    fn is_empty(&self) -> bool;

    /// The loop has begun to stop, or to stop sooner.
    fn on_stop(&mut self, core: &mut Core);

    /// The time to stop is up: ends all that is left.
    fn force_close(&mut self, core: &mut Core);
}

/// What a loop calls while it runs.
pub(crate) trait Hooks {
    /// An event that is not the loop's own.
    fn on_event(&mut self, core: &mut Core, event: &Event) -> io::Result<()>;

    /// A receive or a send of the driver has completed.
    fn on_completion(&mut self, _: &mut Core, _: Completion) {}

    /// All events of the last wait have been handled.
    fn before_wait(&mut self, core: &mut Core) -> io::Result<()>;

    /// Whether the next wait must not sleep.
    fn has_pending(&self) -> bool {
        false
    }

    /// A signal has interrupted a wait.
    fn on_interrupt(&mut self) -> io::Result<()>;
}

/// One loop.
pub(crate) struct Core {
    pub(crate) poller: Arc<Poller>,
    pub(crate) driver: AnyDriver,
    pub(crate) acceptor: Acceptor,
    pub(crate) counters: WorkerCounters,
    /// How many clients it has begun to serve.
    pub(crate) admitted: u64,
    /// What clients are admitted by before anything is known of them but their addresses.
    pub(crate) admission: Option<Admission>,
    /// It accepts no more, and ends when its clients have.
    pub(crate) is_stopping: bool,
    /// It is the loop of the thread that handles its program's signals.
    is_interruptible: bool,
    /// The stop that was applied last, and the timer of its end.
    stopped: Option<Option<Duration>>,
    drain_timer: Option<u64>,
    /// How many waits have failed since the last that did not.
    failed_waits: usize,
}

impl Core {
    pub(crate) fn new(
        poller: Arc<Poller>,
        driver: AnyDriver,
        acceptor: Acceptor,
        counters: WorkerCounters,
        is_interruptible: bool,
    ) -> Self {
        Self {
            poller,
            driver,
            acceptor,
            counters,
            admitted: 0,
            admission: None,
            is_stopping: false,
            is_interruptible,
            stopped: None,
            drain_timer: None,
            failed_waits: 0,
        }
    }

    /// Waits, for no longer than `limit`, takes what the driver has completed, and accepts what it has
    /// accepted. The events are for [`dispatch`](Self::dispatch); there are none when the wait has failed
    /// for a reason that passes.
    #[inline]
    pub(crate) fn wait(
        &mut self,
        clients: &mut (impl Clients + Hooks),
        events: &mut Events,
        limit: Option<Duration>,
    ) -> io::Result<()> {
        self.accept_again(clients)?;
        match self.wait_once(clients, events, limit) {
            Ok(()) => self.failed_waits = 0,
            Err(error) => {
                events.clear();
                return self.handle_wait_error(clients, error);
            }
        }
        if self.acceptor.has_accepted() {
            self.take_accepted(clients)?;
        }
        Ok(())
    }

    #[inline]
    fn wait_once(
        &mut self,
        clients: &mut (impl Clients + Hooks),
        events: &mut Events,
        limit: Option<Duration>,
    ) -> io::Result<()> {
        let limit = if self.has_pending(clients) { Some(Duration::ZERO) } else { limit };
        let waited = self.driver.wait(&self.poller, events, limit);
        self.handle_completions(clients);
        self.driver.events(waited, &self.poller, events)
    }

    /// Whether the next wait must not sleep.
    fn has_pending(&self, clients: &impl Hooks) -> bool {
        self.acceptor.has_accepted() || clients.has_pending()
    }

    /// Accepts where accepting was paused and there is room again.
    #[inline]
    fn accept_again(&mut self, clients: &impl Clients) -> io::Result<()> {
        if !self.is_stopping
            && !self.acceptor.is_accepting()
            && !self.acceptor.is_retry_pending()
            && !clients.is_full()
        {
            self.resume_accepting()?;
        }
        Ok(())
    }

    /// A descriptor for an outer loop, readable while a wait would return at once. It is so at first.
    pub(crate) fn embed(&self) -> io::Result<BorrowedFd<'_>> {
        let is_new = !self.poller.is_embedded();
        let descriptor = self.poller.embed()?;
        if is_new {
            self.poller.request_wait()?;
        }
        self.driver.embed(&self.poller)?;
        Ok(descriptor)
    }

    /// In an outer loop, in place of a wait that would follow: does what that does before it sleeps.
    #[cold]
    pub(crate) fn arm(&mut self, clients: &(impl Clients + Hooks)) -> io::Result<()> {
        self.accept_again(clients)?;
        if self.driver.arm()? || self.has_pending(clients) {
            self.poller.request_wait()?;
        }
        Ok(())
    }

    /// A wait has failed: if the reason passes, the next is made a moment later.
    #[cold]
    fn handle_wait_error(&mut self, clients: &mut impl Hooks, error: io::Error) -> io::Result<()> {
        match errno::classify_wait(&error) {
            ErrorClass::WouldBlock => {
                return if self.is_interruptible { clients.on_interrupt() } else { Ok(()) }
            }
            // A stop must end even if the shortage lasts.
            ErrorClass::Temporary if !self.is_stopping || self.failed_waits < MAX_FAILED_WAITS => {}
            _ => return Err(error),
        }
        self.failed_waits += 1;
        thread::sleep(SHORTAGE_PAUSE);
        Ok(())
    }

    /// Inlined, for most drivers complete nothing.
    #[inline(always)]
    fn handle_completions(&mut self, clients: &mut impl Hooks) {
        while let Some(completion) = self.driver.next() {
            match completion {
                Completion::Accepted { key, result, more } => {
                    self.acceptor.push_accepted(key, result, more);
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
            (EventKind::Timer, tokens::DRAIN_TIMEOUT) => {
                clients.force_close(self);
                Ok(())
            }
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

    /// A connection was accepted: it is reset if its address is not admitted.
    fn accepted(&mut self, clients: &mut impl Clients, mut accepted: Accepted) -> io::Result<()> {
        if let Some(admission) = &self.admission {
            let Ok(admitted) = admission.admit(&accepted.peer) else {
                self.counters.add(Counter::Accepted, 1);
                self.counters.add(Counter::Closed, 1);
                // Else this side would have to remember it for a while.
                let _ = socket_options::reset_on_close(accepted.socket.as_fd());
                return Ok(());
            };
            accepted.admitted = admitted.map(Box::new);
        }
        self.admitted += 1;
        clients.on_accept(self, accepted)
    }

    /// Takes connections that the driver has accepted; of many, the rest after the next wait.
    fn take_accepted(&mut self, clients: &mut impl Clients) -> io::Result<()> {
        for _ in 0..self.acceptor.batch() {
            self.poller.check_owner()?;
            match self.acceptor.pop_accepted(&self.poller, &self.counters)? {
                Some(accepted) => self.accepted(clients, accepted)?,
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
                Some(accepted) => self.accepted(clients, accepted)?,
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

    /// Whether this stop is one that was not applied yet.
    pub(crate) fn is_new_stop(&self, drain: Option<Duration>) -> bool {
        self.stopped != Some(drain)
    }

    /// Accepts no more, and ends the clients: those that are left after `drain` (`None`: no limit) at
    /// once. Called again it sets a new limit.
    pub(crate) fn stop(
        &mut self,
        clients: &mut (impl Clients + Hooks),
        drain: Option<Duration>,
        backlog: i32,
        after_listening: impl FnOnce(),
    ) {
        if self.stopped.is_none() {
            let began = Instant::now();
            let has_time = || drain.is_none_or(|drain| began.elapsed() < drain);
            self.drain_backlog(clients, backlog, has_time);
        }
        self.stopped = Some(drain);
        self.is_stopping = true;
        if let Some(timer) = self.drain_timer.take() {
            let _ = self.poller.timer_cancel(timer);
        }
        after_listening();
        clients.on_stop(self);
        match drain {
            _ if !self.poller.is_owner() => {}
            Some(Duration::ZERO) => clients.force_close(self),
            // It fails only in a forked child that uses its parent's poller.
            Some(drain) => {
                self.drain_timer = self.poller.timer_add_reserved(drain, tokens::DRAIN_TIMEOUT).ok();
            }
            None => {}
        }
    }

    /// Accepts what waits already, for as long as `has_time`, and closes the listeners: one that is
    /// closed resets what waits in its queue. The queue is no longer than `backlog`, and connections
    /// that keep arriving are not waited for.
    fn drain_backlog(
        &mut self,
        clients: &mut (impl Clients + Hooks),
        backlog: i32,
        has_time: impl Fn() -> bool,
    ) {
        // Should the driver fail, the loop ends by that.
        let _ = self.cancel_accepts(clients);
        while let Ok(Some(accepted)) = self.acceptor.pop_accepted(&self.poller, &self.counters) {
            if self.accepted(clients, accepted).is_err() {
                break;
            }
        }
        for index in 0..self.acceptor.len() {
            let mut queue = 0..backlog;
            while has_time() && !clients.is_full() && queue.next().is_some() {
                let accepted = self.acceptor.accept(index, &self.poller, &self.counters);
                let Ok(Some(accepted)) = accepted else { break };
                if self.accepted(clients, accepted).is_err() {
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
