//! [`Model::Thread`](crate::Model::Thread): a thread for each client, which ends with it.
//!
//! Each thread runs a loop for its one client, so that it can be written to from other threads,
//! time out and be stopped like any other.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::{self, Scope};

use super::doors::Doors;
use super::front::{Front, House, Until};
use super::handler::Handler;
use super::shared::Shared;
use super::worker::{self, Openings};
use crate::stream::{Counter, Peer};
use crate::Event;

struct Threads<'scope, 'env, H> {
    scope: &'scope Scope<'scope, 'env>,
    handler: &'env H,
    most: usize,
    running: Arc<AtomicUsize>,
}

pub(super) fn run<H: Handler>(handler: &H, shared: &Arc<Shared>, openings: Openings) -> io::Result<()> {
    thread::scope(|scope| {
        let mut threads =
            Threads { scope, handler, most: shared.share_of_clients(), running: Arc::default() };
        let doors = Doors::new(openings.listeners, openings.shared);
        let mut front = Front::new(shared.clone(), shared.control.clone(), doors, 0);
        if shared.options.signals {
            front.heed_signals()?;
        }
        front.run(&mut threads, Until::Stopped)
    })
}

impl<'scope, H: Handler> House for Threads<'scope, '_, H> {
    fn welcome(&mut self, front: &mut Front, socket: OwnedFd, peer: Peer) -> io::Result<()> {
        front.count.add(Counter::Accepted, 1);
        self.running.fetch_add(1, Ordering::Relaxed);
        let (shared, handler, running) = (front.shared.clone(), self.handler, self.running.clone());
        let serve = move || {
            if worker::serve_client(handler, &shared, (socket, peer), None).is_err() {
                // No descriptors for a loop.
                refuse(&shared.counts.of(0));
            }
            running.fetch_sub(1, Ordering::Release);
            let _ = shared.control.wake();
        };
        let name = String::from("omnipoll-client");
        if thread::Builder::new().name(name).spawn_scoped(self.scope, serve).is_err() {
            self.running.fetch_sub(1, Ordering::Relaxed);
            refuse(&front.count);
            return front.doors.shut_for_a_moment(&front.poller);
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.running.load(Ordering::Acquire) >= self.most
    }

    fn is_empty(&self) -> bool {
        self.running.load(Ordering::Acquire) == 0
    }

    // The threads' wakes only make the front look at `is_full` and `is_empty` again.
    fn event(&mut self, _: &mut Front, _: &Event) -> io::Result<()> {
        Ok(())
    }

    fn interrupted(&mut self) -> io::Result<()> {
        self.handler.on_interrupt()
    }

    fn rest(&mut self, _: &mut Front) -> io::Result<()> {
        Ok(())
    }

    // Each thread's own loop is told.
    fn stop(&mut self, _: &mut Front) {}

    fn abandon(&mut self, _: &mut Front) {}
}

/// Counts a client that could not be served.
fn refuse(count: &crate::stream::Count) {
    count.add(Counter::Refused, 1);
    count.add(Counter::Closed, 1);
}
