//! [`Model::Fork`](crate::Model::Fork): a process for each client, which ends when the client has gone.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::super::child_processes::ChildProcesses;
use super::super::server_loop::{ServerLoop, Until};
use super::super::shared::Shared;
use super::super::worker::{self, WorkerSockets};
use crate::event_loop::{Acceptor, Clients, EventLoop, Handler, Hooks};
use crate::net::Counter;
use crate::sys::Address;
use crate::Event;

struct Processes<'h, H> {
    handler: &'h H,
    shared: Arc<Shared>,
    max: usize,
    children: ChildProcesses,
}

pub(in super::super) fn run<H: Handler>(
    handler: &H,
    shared: &Arc<Shared>,
    sockets: WorkerSockets,
) -> io::Result<()> {
    let max = shared.share_of_clients(0);
    let children = ChildProcesses::new()?;
    let mut processes = Processes { handler, shared: shared.clone(), max, children };
    let acceptor = Acceptor::new(sockets.listeners, sockets.is_shared, false);
    let mut server_loop =
        ServerLoop::new(shared.clone(), shared.control.clone(), shared.driver()?, acceptor, 0);
    server_loop.run(&mut processes, Until::Stopped)
}

impl<H: Handler> Clients for Processes<'_, H> {
    fn on_accept(&mut self, event_loop: &mut EventLoop, socket: OwnedFd, peer: Address) -> io::Result<()> {
        event_loop.counters.add(Counter::Accepted, 1);
        let (handler, shared, counters) = (self.handler, self.shared.clone(), event_loop.counters.clone());
        // The parent drops the client's socket with the closure, which it does not call.
        let forked = self.children.fork(event_loop, &self.shared, 1, move |stop_pipes| {
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
                event_loop.retry_accepting_later()
            }
        }
    }

    fn is_full(&self) -> bool {
        self.children.len() >= self.max
    }

    fn is_empty(&self) -> bool {
        self.children.len() == 0
    }

    fn on_stop(&mut self, _: &mut EventLoop) {
        self.children.stop(&self.shared);
    }

    fn force_close(&mut self, event_loop: &mut EventLoop) {
        self.children.force_close(event_loop);
    }
}

impl<H: Handler> Hooks for Processes<'_, H> {
    fn on_event(&mut self, event_loop: &mut EventLoop, event: &Event) -> io::Result<()> {
        if self.children.ended(event).is_some() {
            // One that was killed has not counted the end of its client.
            event_loop.counters.leave_active(self.children.len() as u64);
        }
        Ok(())
    }

    fn before_wait(&mut self, event_loop: &mut EventLoop) -> io::Result<()> {
        if !self.children.watch_all(event_loop)?.is_empty() {
            event_loop.counters.leave_active(self.children.len() as u64);
        }
        Ok(())
    }

    fn on_interrupt(&mut self) -> io::Result<()> {
        self.handler.on_interrupt()
    }
}
