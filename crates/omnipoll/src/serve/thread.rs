//! [`Model::Thread`](crate::Model::Thread): a thread for each client, which ends with it.
//!
//! Each thread runs a loop for its one client, so that it can be written to from other threads,
//! time out and be stopped like any other.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, Scope, ScopedJoinHandle};

use super::doors::Doors;
use super::front::{Front, House, Until};
use super::handler::Handler;
use super::shared::Shared;
use super::worker::{self, Openings};
use crate::net::{Counter, MOST_LOOPS};
use crate::sys::{lock, Peer};
use crate::Event;

struct Threads<'scope, 'env, H> {
    scope: &'scope Scope<'scope, 'env>,
    handler: &'env H,
    most: usize,
    running: Arc<AtomicUsize>,
    /// Every thread that has not been joined. A scope's end, and `running`, wait for what a thread
    /// does, not for the destructors of its thread-specific data.
    threads: Vec<ScopedJoinHandle<'scope, ()>>,
    /// A client for whom there are no descriptors, or no thread, at present.
    waiting: Option<(OwnedFd, Peer)>,
}

pub(super) fn run<H: Handler>(handler: &H, shared: &Arc<Shared>, openings: Openings) -> io::Result<()> {
    thread::scope(|scope| {
        let most = shared.share_of_clients(0).min(MOST_LOOPS / 2);
        let mut threads =
            Threads { scope, handler, most, running: Arc::default(), threads: Vec::new(), waiting: None };
        let doors = Doors::new(openings.listeners, openings.shared, false);
        let mut front = Front::new(shared.clone(), shared.control.clone(), doors, 0);
        let served = front.run(&mut threads, Until::Stopped);
        threads.threads.into_iter().for_each(join);
        served
    })
}

impl<'scope, H: Handler> Threads<'scope, '_, H> {
    /// Starts the thread of a client, or has it wait until that can be done.
    fn start(&mut self, front: &mut Front, client: (OwnedFd, Peer)) -> io::Result<()> {
        let (shared, handler, running) = (front.shared.clone(), self.handler, self.running.clone());
        // The thread takes it from here, if there is one.
        let handed_over = Arc::new(Mutex::new(Some(client)));
        let client = handed_over.clone();
        self.running.fetch_add(1, Ordering::Relaxed);
        let started = front.shared.poller().and_then(|poller| {
            thread::Builder::new().name("omnipoll-client".into()).spawn_scoped(self.scope, move || {
                let client = lock(&client).take();
                let served = client.map(|client| {
                    worker::host(handler, || worker::serve_client(handler, &shared, poller, client, None))
                });
                if served.is_some_and(|served| served.is_err()) {
                    refuse(&shared.counts.of(0));
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
        front.doors.pause(&front.poller, &front.count)
    }
}

impl<'scope, H: Handler> House for Threads<'scope, '_, H> {
    fn welcome(&mut self, front: &mut Front, socket: OwnedFd, peer: Peer) -> io::Result<()> {
        front.count.add(Counter::Accepted, 1);
        self.start(front, (socket, peer))
    }

    fn is_full(&self) -> bool {
        self.waiting.is_some() || self.running.load(Ordering::Acquire) >= self.most
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_none() && self.running.load(Ordering::Acquire) == 0
    }

    // The threads' wakes make the front look at `is_full` and `is_empty` again, too.
    fn event(&mut self, _: &mut Front, _: &Event) -> io::Result<()> {
        for index in (0..self.threads.len()).rev() {
            if self.threads[index].is_finished() {
                join(self.threads.swap_remove(index));
            }
        }
        Ok(())
    }

    fn interrupted(&mut self) -> io::Result<()> {
        self.handler.on_interrupt()
    }

    fn rest(&mut self, front: &mut Front) -> io::Result<()> {
        match self.waiting.take() {
            Some(client) => self.start(front, client),
            None => Ok(()),
        }
    }

    // Each thread's own loop is told.
    fn stop(&mut self, _: &mut Front) {}

    fn abandon(&mut self, front: &mut Front) {
        if self.waiting.take().is_some() {
            refuse(&front.count);
        }
    }
}

/// What its handler's `on_worker` may have panicked with is the program's own.
fn join(thread: ScopedJoinHandle<'_, ()>) {
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Counts a client that could not be served.
fn refuse(count: &crate::net::Count) {
    count.add(Counter::Refused, 1);
    count.add(Counter::Closed, 1);
}
