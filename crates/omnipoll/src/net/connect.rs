//! [`Connects`]: the connects in progress of one loop.
//!
//! ```text
//! start --a name--> look-up --> attempts, one after the other and side by side --> Outcome
//! ```
//! An attempt is a socket that is being connected to one address. Its end is an event of the poller or a
//! completion of the driver, whose token is [`ATTEMPTS`] and the attempt's key. Each connect has one timer,
//! for the next attempt or the time limit, whichever is sooner: its token is [`TIMERS`] and the connect's
//! key. What becomes of a connect is an [`Outcome`], for the loop to take before it waits again.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use slab::Slab;

use super::attempts::{Attempts, Next, ATTEMPT_DELAY};
use super::conn_id::ConnId;
use super::connect_address::ConnectAddress;
use super::connect_request::ConnectRequest;
use super::connecting::{nanoseconds, Connecting, End};
use super::driver::{AnyDriver, Driver};
use super::failed_connect::FailedConnect;
use super::resolver::{Resolved, Resolver};
use super::timeouts::Clock;
use crate::errno::{self, ErrorClass};
use crate::error::{explain, fail};
use crate::poller::RESERVED_TOKENS;
use crate::sys::{connecting, lock, socket, socket_options, Address};
use crate::{Capabilities, Poller, Ready};

/// Attempts, from this token on.
pub(crate) const ATTEMPTS: u64 = RESERVED_TOKENS + (1 << 28);
/// Timers of connects, from this token on.
pub(crate) const TIMERS: u64 = RESERVED_TOKENS + (1 << 29);

/// When an address that could not be tried is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(10);

/// What became of a connect.
#[derive(Debug)]
pub(crate) enum Outcome {
    Opened(OpenedConnect),
    Failed(FailedConnect),
}

/// A connection that is established.
#[derive(Debug)]
pub(crate) struct OpenedConnect {
    pub(crate) id: ConnId,
    pub(crate) token: u64,
    pub(crate) socket: OwnedFd,
    pub(crate) peer: Address,
    /// The poller still has the registration of the attempt.
    pub(crate) is_registered: bool,
}

/// What connecting is done with.
pub(crate) struct ConnectIo<'a> {
    pub(crate) driver: &'a mut AnyDriver,
    pub(crate) poller: &'a Arc<Poller>,
}

/// A socket that is being connected.
#[derive(Debug)]
struct Attempt {
    socket: OwnedFd,
    address: Address,
    /// The key of its connect; `None` when that has ended, and the driver has not ended this one yet.
    connect: Option<usize>,
}

/// Answers of the resolver, from its threads: for the connect of that key, if it still has that id.
type Answers = Arc<Mutex<Vec<(usize, ConnId, Resolved)>>>;

/// The connects of one loop. Its driver must be dropped first: the kernel may refer to their sockets.
pub(crate) struct Connects {
    connects: Slab<Connecting>,
    /// An entry stays until the next wait: what is left of a batch of events may be for it.
    attempts: Slab<Option<Attempt>>,
    ended_attempts: Vec<usize>,
    keys: HashMap<ConnId, usize>,
    outcomes: VecDeque<Outcome>,
    clock: Clock,
    resolver: Resolver,
    answers: Answers,
    /// How many names are being looked up.
    lookups: usize,
}

impl Connects {
    pub(crate) fn new() -> Self {
        Self::with(Resolver::new())
    }

    fn with(resolver: Resolver) -> Self {
        Self {
            connects: Slab::new(),
            attempts: Slab::new(),
            ended_attempts: Vec::new(),
            keys: HashMap::new(),
            outcomes: VecDeque::new(),
            clock: Clock::new(),
            resolver,
            answers: Answers::default(),
            lookups: 0,
        }
    }

    /// Starts to connect. Whatever comes of it, also at once, is an outcome.
    pub(crate) fn start(&mut self, io: &mut ConnectIo<'_>, request: ConnectRequest, id: ConnId, token: u64) {
        let (address, timeout, setup) = match request {
            ConnectRequest::Connect { address, timeout, setup } => (address, timeout, setup),
            ConnectRequest::Adopt { socket, peer } => {
                let opened = OpenedConnect { id, token, socket, peer, is_registered: false };
                return self.outcomes.push_back(Outcome::Opened(opened));
            }
        };
        let new = Connecting::new(id, token, address, setup, timeout, self.clock.now());
        let key = self.connects.insert(new);
        self.keys.insert(id, key);
        if let ConnectAddress::Name(..) = self.connects[key].address {
            self.look_up(io, key);
        } else {
            self.try_next(io, key);
        }
    }

    /// The socket of an attempt is ready.
    pub(crate) fn on_ready(&mut self, io: &mut ConnectIo<'_>, token: u64, ready: Ready) {
        let key = (token - ATTEMPTS) as usize;
        let Some(attempt) = self.attempt(key) else { return };
        let socket = attempt.socket.as_fd();
        let result = if ready != Ready::WRITE {
            // No error is not yet a connection.
            connecting::take_error(socket).and_then(|()| connecting::connected_to(socket).map(drop))
        } else if reports_failure(io.poller) {
            Ok(())
        } else {
            connecting::take_error(socket)
        };
        self.attempt_ended(io, key, result, true);
    }

    /// The driver has connected a socket, or failed to.
    pub(crate) fn on_completion(&mut self, io: &mut ConnectIo<'_>, key: usize, result: io::Result<()>) {
        self.attempt_ended(io, key - (ATTEMPTS - RESERVED_TOKENS) as usize, result, false);
    }

    /// The timer of a connect has expired, of this one or of another that had its key.
    pub(crate) fn on_timer(&mut self, io: &mut ConnectIo<'_>, token: u64) {
        let key = (token - TIMERS) as usize;
        let Some(connect) = self.connects.get(key) else { return };
        let is_over = |deadline: Option<u64>| deadline.is_some_and(|deadline| deadline <= self.clock.now());
        if is_over(connect.limit) {
            self.fail(io, key, End::TimedOut);
        } else if is_over(connect.next_attempt) {
            self.try_next(io, key);
        } else {
            self.arm(io, key);
        }
    }

    /// Ends a connect, with an outcome that says `ECANCELED`. False when it has ended: there is another
    /// outcome.
    pub(crate) fn cancel(&mut self, io: &mut ConnectIo<'_>, id: ConnId) -> bool {
        let Some(&key) = self.keys.get(&id) else { return false };
        self.fail(io, key, End::Cancelled);
        true
    }

    /// Ends all of them, each with an outcome that says `ECANCELED`.
    pub(crate) fn cancel_all(&mut self, io: &mut ConnectIo<'_>) {
        let keys: Vec<_> = self.connects.iter().map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.fail(io, key, End::Cancelled));
    }

    /// Takes what the resolver has answered. When it answers later it wakes the poller.
    #[inline]
    pub(crate) fn take_answers(&mut self, io: &mut ConnectIo<'_>) {
        if self.lookups > 0 {
            self.take_waiting_answers(io);
        }
    }

    /// After a batch of events.
    #[inline]
    pub(crate) fn before_wait(&mut self, io: &mut ConnectIo<'_>) {
        self.take_answers(io);
        while let Some(key) = self.ended_attempts.pop() {
            self.attempts.remove(key);
        }
    }

    /// What has become of a connect since the last call.
    #[inline]
    pub(crate) fn next_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// Whether none is in progress, no outcome waits, and the driver refers to no socket.
    pub(crate) fn is_empty(&self) -> bool {
        let is_idle = self.attempts.len() == self.ended_attempts.len();
        is_idle && self.connects.is_empty() && self.outcomes.is_empty()
    }

    fn attempt(&self, key: usize) -> Option<&Attempt> {
        self.attempts.get(key)?.as_ref()
    }
}

/// Names.
impl Connects {
    fn look_up(&mut self, io: &mut ConnectIo<'_>, key: usize) {
        let connect = &self.connects[key];
        let ConnectAddress::Name(name, port) = &connect.address else { return };
        let (answers, poller, id) = (self.answers.clone(), Arc::downgrade(io.poller), connect.id);
        let started = self.resolver.look_up(name, *port, move |resolved| {
            lock(&answers).push((key, id, resolved));
            // A loop that has ended needs none.
            let _ = poller.upgrade().map(|poller| poller.wake());
        });
        match started {
            Ok(lookup) => {
                self.lookups += 1;
                self.connects[key].lookup = Some(lookup);
                self.arm(io, key);
            }
            Err(error) => self.fail_with(io, key, &error),
        }
    }

    #[cold]
    fn take_waiting_answers(&mut self, io: &mut ConnectIo<'_>) {
        let answers = std::mem::take(&mut *lock(&self.answers));
        for (key, id, resolved) in answers {
            match self.connects.get_mut(key) {
                Some(connect) if connect.id == id && connect.lookup.is_some() => {
                    connect.lookup = None;
                    self.lookups -= 1;
                }
                _ => continue,
            }
            match resolved {
                Ok(addresses) => {
                    self.connects[key].attempts = Attempts::new(addresses);
                    self.try_next(io, key);
                }
                Err(error) => self.fail_with(io, key, &error.into()),
            }
        }
    }
}

/// Attempts.
impl Connects {
    fn try_next(&mut self, io: &mut ConnectIo<'_>, key: usize) {
        let connect = &mut self.connects[key];
        connect.put_back = None;
        let next = connect.attempts.next();
        self.follow(io, key, next);
    }

    /// Does what is to be done next, until there is something to wait for.
    fn follow(&mut self, io: &mut ConnectIo<'_>, key: usize, mut next: Next) {
        loop {
            let address = match next {
                Next::Try(address) => address,
                Next::Wait(has_more) => {
                    let delay = nanoseconds(ATTEMPT_DELAY);
                    self.connects[key].next_attempt =
                        has_more.then(|| self.clock.now().saturating_add(delay));
                    return self.arm(io, key);
                }
                Next::GiveUp => return self.fail(io, key, End::GivenUp),
            };
            next = match self.attempt_to(io, key, &address) {
                Ok(Some(socket)) => match established(&socket, &address) {
                    Ok(peer) => return self.open(io, key, socket, peer, false),
                    Err(error) => self.connects[key].attempts.failed(address, errno::number(&error)),
                },
                Ok(None) => self.connects[key].attempts.wait(),
                Err(error) if errno::classify_connect(&error) == ErrorClass::Temporary => {
                    return self.retry_later(io, key, address, &error);
                }
                Err(error) => self.connects[key].attempts.failed(address, errno::number(&error)),
            }
        }
    }

    /// Connects another socket: `None` while that is in progress.
    fn attempt_to(
        &mut self,
        io: &mut ConnectIo<'_>,
        connect: usize,
        address: &Address,
    ) -> io::Result<Option<OwnedFd>> {
        let socket = self.connects[connect].setup.open(address)?;
        let entry = self.attempts.vacant_entry();
        let key = entry.key();
        if io.driver.connect(socket.as_fd(), address, ATTEMPTS + key as u64, io.poller)? {
            return Ok(Some(socket));
        }
        entry.insert(Some(Attempt { socket, address: address.clone(), connect: Some(connect) }));
        self.connects[connect].running.push(key);
        Ok(None)
    }

    /// The system was short of something, or the listener's queue is full.
    fn retry_later(&mut self, io: &mut ConnectIo<'_>, key: usize, address: Address, error: &io::Error) {
        let connect = &mut self.connects[key];
        connect.attempts.put_back(address);
        connect.put_back = Some(errno::number(error));
        connect.next_attempt = Some(self.clock.now().saturating_add(nanoseconds(RETRY_DELAY)));
        self.arm(io, key);
    }

    /// The driver has done with an attempt.
    fn attempt_ended(
        &mut self,
        io: &mut ConnectIo<'_>,
        key: usize,
        result: io::Result<()>,
        is_registered: bool,
    ) {
        let Some(Attempt { socket, address, connect }) = self.remove_attempt(key) else { return };
        let result = result.and_then(|()| established(&socket, &address));
        if is_registered && (result.is_err() || connect.is_none()) {
            io.driver.end_connect(socket.as_fd(), ATTEMPTS + key as u64, io.poller);
        }
        let Some(connect) = connect else { return };
        self.connects[connect].running.retain(|&running| running != key);
        match result {
            Ok(peer) => self.open(io, connect, socket, peer, is_registered),
            Err(error) if errno::classify_connect(&error) != ErrorClass::Peer => {
                self.retry_later(io, connect, address, &error);
            }
            Err(error) => {
                let next = self.connects[connect].attempts.failed(address, errno::number(&error));
                self.follow(io, connect, next);
            }
        }
    }

    fn remove_attempt(&mut self, key: usize) -> Option<Attempt> {
        let attempt = self.attempts.get_mut(key)?.take()?;
        self.ended_attempts.push(key);
        Some(attempt)
    }

    /// Ends an attempt that is running, and returns its address.
    fn end_attempt(&mut self, io: &mut ConnectIo<'_>, key: usize) -> Option<Address> {
        let attempt = self.attempts.get_mut(key)?.as_mut()?;
        let token = ATTEMPTS + key as u64;
        if io.driver.end_connect(attempt.socket.as_fd(), token, io.poller) {
            attempt.connect = None;
            return Some(attempt.address.clone());
        }
        self.remove_attempt(key).map(|attempt| attempt.address)
    }
}

/// Timers and ends.
impl Connects {
    /// Arms the timer for what is to be done next.
    fn arm(&mut self, io: &mut ConnectIo<'_>, key: usize) {
        let connect = &mut self.connects[key];
        let Some(deadline) = connect.deadline() else { return };
        if connect.timer != 0 && connect.armed == deadline && deadline > self.clock.now() {
            return;
        }
        disarm(io, connect);
        let delay = Duration::from_nanos(deadline.saturating_sub(self.clock.now()));
        match io.poller.timer_add_reserved(delay, TIMERS + key as u64) {
            Ok(timer) => (connect.timer, connect.armed) = (timer, deadline),
            Err(error) => self.fail_with(io, key, &error),
        }
    }

    fn open(
        &mut self,
        io: &mut ConnectIo<'_>,
        key: usize,
        socket: OwnedFd,
        peer: Address,
        is_registered: bool,
    ) {
        let (connect, _) = self.remove(io, key);
        let opened = OpenedConnect { id: connect.id, token: connect.token, socket, peer, is_registered };
        self.outcomes.push_back(Outcome::Opened(opened));
    }

    fn fail(&mut self, io: &mut ConnectIo<'_>, key: usize, end: End) {
        let (connect, running) = self.remove(io, key);
        self.outcomes.push_back(Outcome::Failed(connect.fail(end, running)));
    }

    /// It fails for a reason that is no address's.
    #[cold]
    fn fail_with(&mut self, io: &mut ConnectIo<'_>, key: usize, error: &io::Error) {
        let words = explain(error);
        let (connect, _) = self.remove(io, key);
        self.outcomes.push_back(Outcome::Failed(connect.fail_with(errno::number(error), &words)));
    }

    /// Ends all that is in progress for a connect; the addresses that were being tried.
    fn remove(&mut self, io: &mut ConnectIo<'_>, key: usize) -> (Connecting, Vec<Address>) {
        let mut connect = self.connects.remove(key);
        self.keys.remove(&connect.id);
        self.lookups -= usize::from(connect.lookup.is_some());
        disarm(io, &mut connect);
        let running = std::mem::take(&mut connect.running);
        let addresses = running.into_iter().filter_map(|attempt| self.end_attempt(io, attempt)).collect();
        (connect, addresses)
    }
}

fn disarm(io: &ConnectIo<'_>, connect: &mut Connecting) {
    let timer = std::mem::take(&mut connect.timer);
    if timer != 0 {
        // It is stale when it has just expired.
        let _ = io.poller.timer_cancel(timer);
    }
}

/// Whether a connect that has failed is reported as more than WRITE: an error, or a hang-up. Linux does so, tcp(7),
/// where the engine's system call can say it: all but select(2).
fn reports_failure(poller: &Poller) -> bool {
    cfg!(target_os = "linux") && poller.capabilities().contains(Capabilities::REPORTS_HANGUP)
}

/// The peer of a socket that the system has connected to `address`.
///
/// A connect to a port of this machine on which nobody listens succeeds when the system has chosen that very
/// port for the connecting socket, which is then connected to itself.
fn established(socket: &OwnedFd, address: &Address) -> io::Result<Address> {
    let Some(peer) = address.as_socket_addr() else { return Ok(address.clone()) };
    // 0.0.0.0 and :: are this machine.
    let peer =
        if peer.ip().is_unspecified() { connecting::connected_to(socket.as_fd())? } else { peer.into() };
    let local = socket::local_address(socket.as_fd())?.as_socket_addr();
    if local.map(|local| (local.ip(), local.port())) == peer.as_socket_addr().map(|it| (it.ip(), it.port())) {
        // An end in order would keep the port from who is to listen there.
        let _ = socket_options::reset_on_close(socket.as_fd());
        return Err(fail(libc::ECONNREFUSED, "the socket was connected to itself"));
    }
    Ok(peer)
}

impl std::fmt::Debug for Connects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connects").field("connects", &self.connects).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
