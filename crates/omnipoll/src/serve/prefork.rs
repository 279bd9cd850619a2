//! [`Model::Prefork`](crate::Model::Prefork): a fixed set of processes, each serving many
//! clients with a loop of its own. One that dies is replaced; the listening sockets, and who
//! waits in their queues, outlive it in the parent.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::acceptor::Acceptor;
use super::child_processes::{ChildProcesses, Ended};
use super::event_loop::{Clients, EventLoop, Until};
use super::handler::Handler;
use super::shared::Shared;
use super::worker::{self, WorkerSockets};
use crate::net::Counter;
use crate::sys::Address;
use crate::{Event, EventKind};

/// A worker that dies sooner than this is replaced after a delay, twice as long each time.
const SOON: Duration = Duration::from_secs(1);
const SHORTEST_DELAY: Duration = Duration::from_millis(10);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// When each of the workers has failed so often, one time after another, none ever will serve.
const MOST_FAILURES: u32 = 5;
/// Ids that a worker may use up before they meet those of its successor.
const SHARE: u32 = 1 << 16;

struct Worker {
    sockets: WorkerSockets,
    child: Option<u64>,
    began: Instant,
    /// How often it could not serve since it last could.
    failures: u32,
    delay: Duration,
}

struct Workers<'h, H> {
    handler: &'h H,
    workers: Vec<Worker>,
    children: ChildProcesses,
}

pub(super) fn run<H: Handler>(
    handler: &H,
    shared: &Arc<Shared>,
    sockets: Vec<WorkerSockets>,
) -> io::Result<()> {
    let worker =
        |sockets| Worker { sockets, child: None, began: Instant::now(), failures: 0, delay: Duration::ZERO };
    let mut workers = Workers {
        handler,
        workers: sockets.into_iter().map(worker).collect(),
        children: ChildProcesses::new()?,
    };
    let mut event_loop = EventLoop::new(shared.clone(), shared.control.clone(), Acceptor::default(), 0);
    for number in 0..workers.workers.len() {
        workers.start(&mut event_loop, number)?;
    }
    event_loop.run(&mut workers, Until::Stopped)
}

impl Worker {
    fn has_given_up(&self) -> bool {
        self.failures >= MOST_FAILURES
    }
}

impl<H: Handler> Workers<'_, H> {
    fn start(&mut self, event_loop: &mut EventLoop, number: usize) -> io::Result<()> {
        let (handler, shared) = (self.handler, event_loop.shared.clone());
        let workers = &mut self.workers;
        let forked = self.children.fork(event_loop, SHARE, |stop_pipes| {
            // The others' sockets are closed here.
            let sockets = std::mem::take(workers).swap_remove(number).sockets;
            let serve =
                || worker::serve(handler, &shared, shared.poller()?, number, sockets, Some(stop_pipes));
            worker::run_worker(handler, serve)
        });
        match forked {
            Ok(child) => {
                let worker = &mut self.workers[number];
                worker.child = Some(child);
                worker.began = Instant::now();
                Ok(())
            }
            // The system is short of processes.
            Err(_) => self.start_later(event_loop, number),
        }
    }

    fn start_later(&mut self, event_loop: &mut EventLoop, number: usize) -> io::Result<()> {
        let worker = &mut self.workers[number];
        worker.delay = (worker.delay * 2).clamp(SHORTEST_DELAY, LONGEST_DELAY);
        event_loop.poller.timer_add(worker.delay, None, number as u64).map(drop)
    }

    fn replace(&mut self, event_loop: &mut EventLoop, ended: &Ended) -> io::Result<()> {
        let Some(number) = self.workers.iter().position(|worker| worker.child == Some(ended.child)) else {
            return Ok(());
        };
        let worker = &mut self.workers[number];
        worker.child = None;
        let counters = event_loop.shared.counters.of(number);
        counters.leave_active(0);
        if event_loop.is_stopping() {
            return Ok(());
        }
        counters.add(Counter::Restarts, 1);
        let was_soon = worker.began.elapsed() < SOON;
        let failure = event_loop.shared.last_failure().filter(|_| was_soon && ended.has_failed());
        worker.failures = if failure.is_some() { worker.failures + 1 } else { 0 };
        if let (Some(failure), true) = (failure, self.workers.iter().all(Worker::has_given_up)) {
            return Err(failure);
        }
        if was_soon {
            return self.start_later(event_loop, number);
        }
        self.workers[number].delay = Duration::ZERO;
        self.start(event_loop, number)
    }
}

impl<H: Handler> Clients for Workers<'_, H> {
    /// The parent has no doors.
    fn on_accept(&mut self, _: &mut EventLoop, _: OwnedFd, _: Address) -> io::Result<()> {
        Ok(())
    }

    fn is_full(&self) -> bool {
        true
    }

    fn is_empty(&self) -> bool {
        self.children.len() == 0
    }

    fn event(&mut self, event_loop: &mut EventLoop, event: &Event) -> io::Result<()> {
        if let Some(ended) = self.children.ended(event) {
            return self.replace(event_loop, &ended);
        }
        match event.kind() {
            EventKind::Timer if event.token() < self.workers.len() as u64 && !event_loop.is_stopping() => {
                self.start(event_loop, event.token() as usize)
            }
            _ => Ok(()),
        }
    }

    fn interrupted(&mut self) -> io::Result<()> {
        self.handler.on_interrupt()
    }

    fn before_wait(&mut self, event_loop: &mut EventLoop) -> io::Result<()> {
        for ended in self.children.watch_all(event_loop)? {
            self.replace(event_loop, &ended)?;
        }
        Ok(())
    }

    fn stop(&mut self, event_loop: &mut EventLoop) {
        // Who comes now is refused, and does not wait in a queue that nobody will look into.
        self.workers.iter_mut().for_each(|worker| worker.sockets = WorkerSockets::default());
        self.children.stop(&event_loop.shared);
    }

    fn force_close(&mut self, event_loop: &mut EventLoop) {
        self.children.force_close(event_loop);
    }
}
