//! [`Model::Thread`](crate::Model::Thread): a thread for each client, which ends when it has gone.
//!
//! Each thread runs a loop for its one client, so that it can be written to from other threads,
//! time out and be stopped like any other.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, Scope, ScopedJoinHandle};

use super::super::server_loop::{ServerLoop, Until};
use super::super::shared::Shared;
use super::super::worker::{self, WorkerSockets};
use crate::event_loop::{Accepted, Acceptor, Clients, Core, Handler, Hooks};
use crate::net::{Counter, MAX_LOOPS};
use crate::sys::lock;
use crate::Event;

struct Threads<'scope, 'env, H> {
    scope: &'scope Scope<'scope, 'env>,
    handler: &'env H,
    shared: Arc<Shared>,
    max: usize,
    running: Arc<AtomicUsize>,
    /// Every thread that has not been joined. A scope's end, and `running`, wait for what a thread
    /// does, not for the destructors of its thread-specific data.
    threads: Vec<ScopedJoinHandle<'scope, ()>>,
    /// A client that can't be served at present: the system is out of descriptors or threads.
    waiting: Option<Accepted>,
}

pub(in super::super) fn run<H: Handler + Sync>(
    handler: &H,
    shared: &Arc<Shared>,
    sockets: WorkerSockets,
) -> io::Result<()> {
    thread::scope(|scope| {
        let max = shared.share_of_clients(0).min(MAX_LOOPS / 2);
        let mut threads = Threads {
            scope,
            handler,
            shared: shared.clone(),
            max,
            running: Arc::default(),
            threads: Vec::new(),
            waiting: None,
        };
        let acceptor = Acceptor::new(sockets.listeners, sockets.is_shared, false);
        let mut server_loop =
            ServerLoop::new(shared.clone(), shared.control.clone(), shared.driver()?, acceptor, 0);
        let served = server_loop.run(&mut threads, Until::Stopped);
        threads.threads.into_iter().for_each(join);
        served
    })
}

impl<'scope, H: Handler + Sync> Threads<'scope, '_, H> {
    /// Starts the thread of a client, or keeps the client until that is possible.
    fn start(&mut self, core: &mut Core, client: Accepted) -> io::Result<()> {
        let (shared, handler, running) = (self.shared.clone(), self.handler, self.running.clone());
        // The thread takes it from here, if there is one.
        let handed_over = Arc::new(Mutex::new(Some(client)));
        let client = handed_over.clone();
        self.running.fetch_add(1, Ordering::Relaxed);
        let started = self.shared.poller().and_then(|poller| {
            thread::Builder::new().name("omnipoll-client".into()).spawn_scoped(self.scope, move || {
                let client = lock(&client).take();
                let served = client.map(|client| {
                    worker::run_worker(handler, || {
                        let admission = shared.admission(0, true);
                        worker::serve_client(handler, &shared, poller, client, admission, None)
                    })
                });
                if served.is_some_and(|served| served.is_err()) {
                    refuse(&shared.counters.of(0));
                }
                running.fetch_sub(1, Ordering::Release);
                let _ = shared.control.wake();
            })
        });
        if let Ok(thread) = started {
            self.threads.push(thread);
            return Ok(());
        }
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.waiting = lock(&handed_over).take();
        core.retry_accepting_later()
    }
}

impl<'scope, H: Handler + Sync> Clients for Threads<'scope, '_, H> {
    fn on_accept(&mut self, core: &mut Core, accepted: Accepted) -> io::Result<()> {
        core.counters.add(Counter::Accepted, 1);
        self.start(core, accepted)
    }

    fn is_full(&self) -> bool {
        self.waiting.is_some() || self.running.load(Ordering::Acquire) >= self.max
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_none() && self.running.load(Ordering::Acquire) == 0
    }

    // Each thread's own loop is woken.
    fn on_stop(&mut self, _: &mut Core) {}

    fn force_close(&mut self, core: &mut Core) {
        if self.waiting.take().is_some() {
            refuse(&core.counters);
        }
    }
}

impl<'scope, H: Handler + Sync> Hooks for Threads<'scope, '_, H> {
    // The wake of a thread that ends also has the loop look at `is_full` and `is_empty` again.
    fn on_event(&mut self, _: &mut Core, _: &Event) -> io::Result<()> {
        for index in (0..self.threads.len()).rev() {
            if self.threads[index].is_finished() {
                join(self.threads.swap_remove(index));
            }
        }
        Ok(())
    }

    fn before_wait(&mut self, core: &mut Core) -> io::Result<()> {
        self.shared.check_workers_start(core)?;
        match self.waiting.take() {
            Some(client) => self.start(core, client),
            None => Ok(()),
        }
    }

    fn on_interrupt(&mut self) -> io::Result<()> {
        self.handler.on_interrupt()
    }
}

/// A panic of its handler's `run_worker` continues in the program.
fn join(thread: ScopedJoinHandle<'_, ()>) {
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Counts a client that could not be served.
fn refuse(counters: &crate::net::WorkerCounters) {
    counters.add(Counter::Refused, 1);
    counters.add(Counter::Closed, 1);
}
