//! [`Model::Fork`](crate::Model::Fork): a process for each client, which ends when the client has gone.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::super::child_processes::{ChildProcesses, Ended};
use super::super::server_loop::{ServerLoop, Until};
use super::super::shared::Shared;
use super::super::worker::{self, WorkerSockets};
use crate::event_loop::{Accepted, Acceptor, Clients, Core, Handler, Hooks};
use crate::net::{Admitted, Counter};
use crate::Event;

struct Processes<'h, H> {
    handler: &'h H,
    shared: Arc<Shared>,
    max: usize,
    children: ChildProcesses,
    /// What the client of each child counts as of its address, here or in the child.
    admitted: HashMap<u64, (Option<Box<Admitted>>, usize)>,
    /// The places where children leave what they count.
    free_places: Vec<usize>,
}

pub(in super::super) fn run<H: Handler>(
    handler: &H,
    shared: &Arc<Shared>,
    sockets: WorkerSockets,
) -> io::Result<()> {
    let max = shared.share_of_clients(0);
    let children = ChildProcesses::new()?;
    let free_places = if shared.limits.is_some() { (0..max).collect() } else { Vec::new() };
    let admitted = HashMap::new();
    let mut processes = Processes { handler, shared: shared.clone(), max, children, admitted, free_places };
    let acceptor = Acceptor::new(sockets.listeners, sockets.is_shared, false);
    let mut server_loop =
        ServerLoop::new(shared.clone(), shared.control.clone(), shared.driver()?, acceptor, 0);
    server_loop.run(&mut processes, Until::Stopped)
}

impl<H: Handler> Processes<'_, H> {
    fn client_ended(&mut self, core: &Core, ended: &Ended) {
        // One that was killed has not counted the end of its client.
        core.counters.leave_active(self.children.len() as u64);
        if let (Some((_admitted, place)), Some(limits)) =
            (self.admitted.remove(&ended.child), &self.shared.limits)
        {
            limits.forget_process(place);
            self.free_places.push(place);
        }
    }
}

impl<H: Handler> Clients for Processes<'_, H> {
    fn on_accept(&mut self, core: &mut Core, mut accepted: Accepted) -> io::Result<()> {
        core.counters.add(Counter::Accepted, 1);
        // It counts until its process has ended.
        let admitted = accepted.admitted.take();
        let place = self.free_places.pop();
        let (handler, shared, counters) = (self.handler, self.shared.clone(), core.counters.clone());
        // The parent drops the client's socket with the closure, which it does not call.
        let forked = self.children.fork(core, &self.shared, 1, move |stop_pipes| {
            let serve = || {
                let admission = shared.admission(0, true).zip(place);
                let admission = admission.map(|(admission, place)| admission.at_place(place));
                worker::serve_client(
                    handler,
                    &shared,
                    shared.poller()?,
                    accepted,
                    admission,
                    Some(stop_pipes),
                )
            };
            // The parent sees the end of the child and counts the client's.
            worker::run_worker(handler, serve).inspect_err(|_| counters.add(Counter::Refused, 1))
        });
        match forked {
            Ok(child) => {
                self.admitted.extend(place.map(|place| (child, (admitted, place))));
                Ok(())
            }
            Err(_) => {
                self.free_places.extend(place);
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
        if let Some(ended) = self.children.ended(event) {
            self.client_ended(core, &ended);
        }
        Ok(())
    }

    fn before_wait(&mut self, core: &mut Core) -> io::Result<()> {
        for ended in self.children.watch_all(core)? {
            self.client_ended(core, &ended);
        }
        self.shared.check_workers_start(core)
    }

    fn on_interrupt(&mut self) -> io::Result<()> {
        self.handler.on_interrupt()
    }
}
