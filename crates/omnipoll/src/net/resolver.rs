//! Looks names up by getaddrinfo(3), which blocks for as long as a name server takes to answer: on a
//! few threads, which begin with the first name and end when there has been none for a while.
//!
//! A look-up that nobody wants any more can't be interrupted and keeps its thread. It does not count
//! for [`MAX_RUNNING`], so that names do not wait behind those that were given up; only [`MAX_THREADS`]
//! limits how many of them there are.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io, thread};

use crate::error::{fail, Describe, Error};
use crate::sys::{fork, lock, signal_mask};

/// How many names are looked up at once.
const MAX_RUNNING: usize = 16;
/// How many threads there are, with those whose look-up was cancelled.
const MAX_THREADS: usize = 128;
/// How many names may wait beside those.
const MAX_WAITING: usize = 64 * 1024;
/// How long a thread stays without a name to look up.
const IDLE: Duration = Duration::from_secs(5);

/// What a look-up ends with: the addresses in the resolver's order, or why there are none.
pub(super) type Resolved = Result<Vec<SocketAddr>, Error>;

/// Looks a name up, and blocks.
type LookUp = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The threads of one event loop. Dropping it waits for none of them: each ends after its look-up.
pub(super) struct Resolver {
    shared: Arc<Shared>,
}

/// A look-up in progress. Dropping it cancels it: its function is not called any more, unless it is
/// being called at that moment.
pub(super) struct Lookup {
    shared: Arc<Shared>,
    number: u64,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    look_up: Box<LookUp>,
    /// The process that has the threads, as [`fork::epoch`] numbers it. In a forked child of it the lock may
    /// be held for ever.
    owner: u32,
}

#[derive(Default)]
struct State {
    /// The number of the last look-up.
    last: u64,
    /// Those that wait, by their numbers.
    waiting: BTreeMap<u64, Job>,
    /// The numbers of those that have a thread and were not cancelled.
    running: Vec<u64>,
    threads: usize,
    /// Threads whose look-up was cancelled.
    abandoned: usize,
    is_closed: bool,
}

struct Job {
    name: String,
    port: u16,
    done: Box<dyn FnOnce(Resolved) + Send>,
}

impl Resolver {
    pub(super) fn new() -> Self {
        // The standard library puts gai_strerror(3) into the text of an error without a number.
        Self::with(|name, port| Ok((name, port).to_socket_addrs()?.collect()))
    }

    /// With another function than getaddrinfo(3).
    pub(super) fn with(
        look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        let (state, work) = (Mutex::default(), Condvar::new());
        Self { shared: Arc::new(Shared { state, work, look_up: Box::new(look_up), owner: fork::epoch() }) }
    }

    /// Looks `name` up, and has `done` called with the result on one of the threads.
    ///
    /// `EAGAIN` when too many names wait, or when there is no thread and none can be made; `EOWNERDEAD` in a
    /// forked child.
    pub(super) fn look_up(
        &self,
        name: &str,
        port: u16,
        done: impl FnOnce(Resolved) + Send + 'static,
    ) -> io::Result<Lookup> {
        let Some(mut state) = self.shared.state() else {
            return Err(fail(libc::EOWNERDEAD, "the loop belongs to the parent process"));
        };
        if state.waiting.len() >= MAX_WAITING {
            return Err(fail(libc::EAGAIN, "too many names wait to be looked up"));
        }
        state.last += 1;
        let number = state.last;
        let job = Job { name: name.to_owned(), port, done: Box::new(done) };
        state.waiting.insert(number, job);
        if let Err(error) = self.shared.begin_waiting(&mut state) {
            state.waiting.remove(&number);
            return Err(error);
        }
        Ok(Lookup { shared: self.shared.clone(), number })
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        if let Some(mut state) = self.shared.state() {
            state.waiting.clear();
            state.is_closed = true;
            self.shared.work.notify_all();
        }
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        let Some(mut state) = self.shared.state() else { return };
        if state.stop_running(self.number) {
            state.abandoned += 1;
            // Its thread may be the one that the others wait for.
            let _ = self.shared.begin_waiting(&mut state);
        } else {
            state.waiting.remove(&self.number);
        }
    }
}

impl State {
    /// Whether it was running, and is not any more.
    fn stop_running(&mut self, number: u64) -> bool {
        let found = self.running.iter().position(|&running| running == number);
        found.map(|index| self.running.swap_remove(index)).is_some()
    }

    /// How many threads have no name.
    fn idle(&self) -> usize {
        self.threads - self.running.len() - self.abandoned
    }
}

impl Shared {
    /// `None` in a forked child.
    fn state(&self) -> Option<MutexGuard<'_, State>> {
        (self.owner == fork::epoch()).then(|| lock(&self.state))
    }

    /// Has a thread look up what waits, if one more may.
    fn begin_waiting(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        self.work.notify_one();
        let idle = state.idle();
        let may_start = state.running.len() + idle < MAX_RUNNING && state.threads < MAX_THREADS;
        if state.waiting.len() > idle && may_start {
            match self.start_thread() {
                Ok(()) => state.threads += 1,
                // Those that there are look it up later.
                Err(_) if state.threads > state.abandoned => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn start_thread(self: &Arc<Self>) -> io::Result<()> {
        let shared = self.clone();
        let run = move || shared.run();
        // A signal is for the program's own threads.
        signal_mask::with_all_blocked(|| thread::Builder::new().name("omnipoll-resolver".into()).spawn(run))
            .map(drop)
            .describe("pthread_create")
    }

    /// One of the threads.
    fn run(&self) {
        let mut state = lock(&self.state);
        while !state.is_closed {
            if let Some((number, job)) = self.next(&mut state) {
                drop(state);
                let resolved = self.resolve(&job);
                state = lock(&self.state);
                if state.stop_running(number) {
                    drop(state);
                    (job.done)(resolved);
                    state = lock(&self.state);
                } else {
                    state.abandoned -= 1;
                }
                continue;
            }
            let (locked, waited) =
                self.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = locked;
            if waited.timed_out() && state.waiting.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }

    fn next(&self, state: &mut State) -> Option<(u64, Job)> {
        let next = state.waiting.pop_first()?;
        state.running.push(next.0);
        Some(next)
    }

    fn resolve(&self, job: &Job) -> Resolved {
        match (self.look_up)(&job.name, job.port) {
            Ok(addresses) if !addresses.is_empty() => Ok(addresses),
            Ok(_) => Err(fail(libc::EADDRNOTAVAIL, "the name has no address").into()),
            Err(error) => Err(fail(libc::EADDRNOTAVAIL, error.to_string()).into()),
        }
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lookup").field(&self.number).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::tests::in_child;
    use std::sync::mpsc::channel;

    /// No answer takes so long.
    const LONG: Duration = Duration::from_secs(60);

    fn found(resolver: &Resolver, name: &str) -> Resolved {
        let (sender, receiver) = channel();
        let _lookup = resolver.look_up(name, 80, move |found| sender.send(found).unwrap()).unwrap();
        receiver.recv_timeout(LONG).unwrap()
    }

    /// Names that begin with "slow" are answered when the returned value is dropped; all are `127.0.0.1`.
    fn with_slow_names() -> (Resolver, impl Drop) {
        struct Open(Arc<(Mutex<bool>, Condvar)>);
        impl Drop for Open {
            fn drop(&mut self) {
                *lock(&self.0 .0) = true;
                self.0 .1.notify_all();
            }
        }
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let open = Open(gate.clone());
        let resolver = Resolver::with(move |name, port| {
            if name.starts_with("slow") {
                drop(gate.1.wait_while(lock(&gate.0), |is_open| !*is_open).unwrap());
            }
            Ok(vec![([127, 0, 0, 1], port).into()])
        });
        (resolver, open)
    }

    #[test]
    fn names_and_literals_have_addresses() {
        let resolver = Resolver::new();
        for name in ["localhost", "127.0.0.1", "::1"] {
            let addresses = found(&resolver, name).unwrap();
            assert!(addresses.iter().all(|it| it.ip().is_loopback() && it.port() == 80), "{addresses:?}");
        }
    }

    #[test]
    fn a_name_without_address_is_an_error_that_says_so() {
        let error = io::Error::from(found(&Resolver::new(), "no-such-name.invalid").unwrap_err());
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
        let said = crate::explain(&error);
        assert!(said.starts_with("failed to lookup address information: "), "{said}");
    }

    #[test]
    fn many_names_at_once_are_all_answered() {
        let resolver = Resolver::new();
        let (sender, receiver) = channel();
        let lookups: Vec<_> = (0..500)
            .map(|_| {
                let sender = sender.clone();
                resolver.look_up("localhost", 80, move |found| sender.send(found.is_ok()).unwrap()).unwrap()
            })
            .collect();
        assert!((0..500).all(|_| receiver.recv_timeout(LONG).unwrap()));
        assert!(lock(&resolver.shared.state).threads <= MAX_RUNNING);
        drop(lookups);
    }

    #[test]
    fn a_cancelled_look_up_is_not_answered() {
        let (resolver, open) = with_slow_names();
        let (sender, receiver) = channel();
        for number in 0..100 {
            let sender = sender.clone();
            let name = format!("slow-{number}");
            drop(resolver.look_up(&name, 80, move |_| sender.send(()).unwrap()).unwrap());
        }
        drop((sender, open));
        found(&resolver, "quick").unwrap();
        // All that is left of the others is dropped: the channel is closed, and nothing was sent.
        assert!(receiver.recv_timeout(LONG).is_err());
    }

    #[test]
    fn quick_names_do_not_wait_behind_slow_ones_that_were_cancelled() {
        let (resolver, _open) = with_slow_names();
        for _ in 0..3 {
            let slow: Vec<_> =
                (0..MAX_RUNNING).map(|_| resolver.look_up("slow", 80, drop).unwrap()).collect();
            while lock(&resolver.shared.state).running.len() < MAX_RUNNING {
                thread::yield_now();
            }
            let (sender, receiver) = channel();
            let _quick = resolver.look_up("quick", 80, move |found| sender.send(found).unwrap()).unwrap();
            drop(slow);
            assert!(receiver.recv_timeout(LONG).unwrap().is_ok());
        }
    }

    /// Another thread of its parent may have had the lock: here this one.
    #[test]
    fn a_forked_child_takes_no_lock() {
        fork::observe().unwrap();
        let (resolver, _open) = with_slow_names();
        let slow = resolver.look_up("slow", 80, drop).unwrap();
        let shared = resolver.shared.clone();
        let mut both = Some((slow, resolver));
        let state = lock(&shared.state);
        let status = in_child(|| {
            let (slow, resolver) = both.take().unwrap();
            let refused = resolver.look_up("quick", 80, drop).unwrap_err();
            drop((slow, resolver));
            i32::from(refused.raw_os_error() != Some(libc::EOWNERDEAD))
        });
        drop(state);
        assert_eq!(status, 0);
    }

    #[test]
    fn a_few_slow_names_leave_threads_for_quick_ones() {
        let (resolver, _open) = with_slow_names();
        let _slow: Vec<_> = (1..MAX_RUNNING).map(|_| resolver.look_up("slow", 80, drop).unwrap()).collect();
        for _ in 0..10 {
            assert!(found(&resolver, "quick").is_ok());
        }
    }
}
