//! [`Model::Fork`](crate::Model::Fork): a process for each client, which ends when the client has gone.

use std::io;
use std::sync::Arc;

use super::super::child_processes::ChildProcesses;
use super::super::server_loop::{ServerLoop, Until};
use super::super::shared::Shared;
use super::super::worker::{self, WorkerSockets};
use crate::event_loop::{Accepted, Acceptor, Clients, Core, Handler, Hooks};
use crate::net::Counter;
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
    fn on_accept(&mut self, core: &mut Core, accepted: Accepted) -> io::Result<()> {
        core.counters.add(Counter::Accepted, 1);
        let (handler, shared, counters) = (self.handler, self.shared.clone(), core.counters.clone());
        // The parent drops the client's socket with the closure, which it does not call.
        let forked = self.children.fork(core, &self.shared, 1, move |stop_pipes| {
            let serve =
                || worker::serve_client(handler, &shared, shared.poller()?, accepted, Some(stop_pipes));
            // The parent sees the end of the child and counts the client's.
            worker::run_worker(handler, serve).inspect_err(|_| counters.add(Counter::Refused, 1))
        });
        match forked {
            Ok(_) => Ok(()),
            Err(_) => {
                core.counters.add(Counter::Refused, 1);
                core.counters.add(Counter::Closed, 1);
                core.retry_accepting_later()
            }
        }
    }

    fn is_full(&self) -> bool {
        self.children.len() >= self.max
    }

    fn is_empty(&self) -> bool {
        self.children.len() == 0
    }

    fn on_stop(&mut self, _: &mut Core) {
        self.children.stop(&self.shared);
    }

    fn force_close(&mut self, core: &mut Core) {
        self.children.force_close(core);
    }
}

impl<H: Handler> Hooks for Processes<'_, H> {
    fn on_event(&mut self, core: &mut Core, event: &Event) -> io::Result<()> {
        if self.children.ended(event).is_some() {
            // One that was killed has not counted the end of its client.
            core.counters.leave_active(self.children.len() as u64);
        }
        Ok(())
    }

    fn before_wait(&mut self, core: &mut Core) -> io::Result<()> {
        if !self.children.watch_all(core)?.is_empty() {
            core.counters.leave_active(self.children.len() as u64);
        }
        self.shared.check_workers_start(core)
    }

    fn on_interrupt(&mut self) -> io::Result<()> {
        self.handler.on_interrupt()
    }
}
