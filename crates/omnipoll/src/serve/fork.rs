//! [`Model::Fork`](crate::Model::Fork): a process for each client, which ends with it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::acceptor::Acceptor;
use super::child_processes::ChildProcesses;
use super::event_loop::{Clients, EventLoop, Until};
use super::handler::Handler;
use super::shared::Shared;
use super::worker::{self, WorkerSockets};
use crate::net::Counter;
use crate::sys::Address;
use crate::Event;

struct Forks<'h, H> {
    handler: &'h H,
    most: usize,
    children: ChildProcesses,
}

pub(super) fn run<H: Handler>(handler: &H, shared: &Arc<Shared>, sockets: WorkerSockets) -> io::Result<()> {
    let mut forks = Forks { handler, most: shared.share_of_clients(0), children: ChildProcesses::new()? };
    let acceptor = Acceptor::new(sockets.listeners, sockets.shared, false);
    let mut event_loop = EventLoop::new(shared.clone(), shared.control.clone(), acceptor, 0);
    event_loop.run(&mut forks, Until::Stopped)
}

impl<H: Handler> Clients for Forks<'_, H> {
    fn on_accept(&mut self, event_loop: &mut EventLoop, socket: OwnedFd, peer: Address) -> io::Result<()> {
        event_loop.counters.add(Counter::Accepted, 1);
        let (handler, shared, counters) =
            (self.handler, event_loop.shared.clone(), event_loop.counters.clone());
        // The parent drops the client's socket with the closure, uncalled.
        let forked = self.children.fork(event_loop, 1, move |stop_pipes| {
            let serve =
                || worker::serve_client(handler, &shared, shared.poller()?, (socket, peer), Some(stop_pipes));
            // The parent sees the end of the child and counts the client's.
            worker::run_worker(handler, serve).inspect_err(|_| counters.add(Counter::Refused, 1))
        });
        match forked {
            Ok(_) => Ok(()),
            Err(_) => {
                event_loop.counters.add(Counter::Refused, 1);
                event_loop.counters.add(Counter::Closed, 1);
                event_loop.acceptor.retry_later(&event_loop.poller, &event_loop.counters)
            }
        }
    }

    fn is_full(&self) -> bool {
        self.children.len() >= self.most
    }

    fn is_empty(&self) -> bool {
        self.children.len() == 0
    }

    fn event(&mut self, event_loop: &mut EventLoop, event: &Event) -> io::Result<()> {
        if self.children.ended(event).is_some() {
            // One that was killed has not counted its client's end.
            event_loop.counters.leave_active(self.children.len() as u64);
        }
        Ok(())
    }

    fn interrupted(&mut self) -> io::Result<()> {
        self.handler.on_interrupt()
    }

    fn before_wait(&mut self, event_loop: &mut EventLoop) -> io::Result<()> {
        if !self.children.watch_all(event_loop)?.is_empty() {
            event_loop.counters.leave_active(self.children.len() as u64);
        }
        Ok(())
    }

    fn stop(&mut self, event_loop: &mut EventLoop) {
        self.children.stop(&event_loop.shared);
    }

    fn force_close(&mut self, event_loop: &mut EventLoop) {
        self.children.force_close(event_loop);
    }
}
