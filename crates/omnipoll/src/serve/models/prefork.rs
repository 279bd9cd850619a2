//! [`Model::Prefork`](crate::Model::Prefork): a fixed set of processes, each serving many
//! clients with a loop of its own. One that dies is replaced; the listening sockets, and what waits in
//! their queues, outlive it in the parent.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::child_processes::{ChildProcesses, Ended};
use super::super::pulse::Pulse;
use super::super::server_loop::{ServerLoop, Until};
use super::super::shared::Shared;
use super::super::tokens;
use super::super::worker::{self, Parent, WorkerSockets};
use crate::event_loop::{Accepted, Acceptor, Clients, Core, Handler, Hooks};
use crate::net::driver::{AnyDriver, DriverKind};
use crate::net::Counter;
use crate::sys::Waker;
use crate::{Event, EventKind, Interest};

/// A worker that dies sooner than this is replaced after a delay, which doubles each time.
const SOON: Duration = Duration::from_secs(1);
const SHORTEST_DELAY: Duration = Duration::from_millis(10);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// When each of the workers has failed so often in a row, the server gives up.
const MAX_FAILURES: u32 = 5;
/// Ids that a worker may use before they meet those of its successor.
const IDS_PER_WORKER: u32 = 1 << 16;

struct Worker {
    sockets: WorkerSockets,
    child: Option<u64>,
    pulse: Option<Pulse>,
    began: Instant,
    /// How often in a row it could not serve.
    failures: u32,
    delay: Duration,
}

struct Workers<'h, H> {
    handler: &'h H,
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    children: ChildProcesses,
    /// By which the workers wake this process.
    waker: Arc<Waker>,
    /// Why the server ends.
    gave_up: Option<io::Error>,
}

pub(in super::super) fn run<H: Handler>(
    handler: &H,
    shared: &Arc<Shared>,
    sockets: Vec<WorkerSockets>,
) -> io::Result<()> {
    let worker = |sockets| Worker {
        sockets,
        child: None,
        pulse: None,
        began: Instant::now(),
        failures: 0,
        delay: Duration::ZERO,
    };
    let mut workers = Workers {
        handler,
        shared: shared.clone(),
        workers: sockets.into_iter().map(worker).collect(),
        children: ChildProcesses::new()?,
        waker: Arc::new(Waker::new()?),
        gave_up: None,
    };
    let mut server_loop = ServerLoop::new(
        shared.clone(),
        shared.control.clone(),
        AnyDriver::new(DriverKind::Readiness, crate::WaitPolicy::Balanced)?,
        Acceptor::default(),
        0,
    );
    let waker = workers.waker.as_raw_fd();
    server_loop.core.poller.add_reserved(waker, Interest::READ, tokens::PULSE)?;
    for number in 0..workers.workers.len() {
        workers.start(&mut server_loop.core, number)?;
    }
    server_loop.run(&mut workers, Until::Stopped)
}

impl Worker {
    fn has_given_up(&self) -> bool {
        self.failures >= MAX_FAILURES
    }
}

impl<H: Handler> Workers<'_, H> {
    fn start(&mut self, core: &mut Core, number: usize) -> io::Result<()> {
        let (handler, shared) = (self.handler, self.shared.clone());
        let Ok(pulse) = Pulse::new(&self.waker) else { return self.start_later(core, number) };
        let of_parent = pulse.clone();
        let workers = &mut self.workers;
        let forked = self.children.fork(core, &self.shared, IDS_PER_WORKER, |stop_pipes| {
            // Closes the sockets of the others.
            let sockets = std::mem::take(workers).swap_remove(number).sockets;
            let parent = Parent { stop_pipes, pulse };
            let serve = || worker::serve(handler, &shared, shared.poller()?, number, sockets, Some(parent));
            worker::run_worker(handler, serve)
        });
        match forked {
            Ok(child) => {
                let worker = &mut self.workers[number];
                worker.child = Some(child);
                worker.pulse = Some(of_parent);
                worker.began = Instant::now();
                Ok(())
            }
            // The system is out of processes.
            Err(_) => self.start_later(core, number),
        }
    }

    /// Workers have something to say.
    fn take_pulses(&mut self) {
        self.waker.drain();
        let serves = |worker: &&Worker| worker.pulse.as_ref().is_some_and(Pulse::serves);
        let serving = self.workers.iter().filter(serves).count();
        self.shared.serving.store(serving, Ordering::Release);
    }

    fn start_later(&mut self, core: &mut Core, number: usize) -> io::Result<()> {
        let worker = &mut self.workers[number];
        worker.delay = (worker.delay * 2).clamp(SHORTEST_DELAY, LONGEST_DELAY);
        core.poller.timer_add(worker.delay, None, number as u64).map(drop)
    }

    fn replace(&mut self, core: &mut Core, ended: &Ended) -> io::Result<()> {
        let Some(number) = self.workers.iter().position(|worker| worker.child == Some(ended.child)) else {
            return Ok(());
        };
        let worker = &mut self.workers[number];
        worker.child = None;
        worker.pulse = None;
        let counters = self.shared.counters.of(number);
        counters.leave_active(0);
        self.shared.limits.iter().for_each(|limits| limits.forget_worker(number));
        if core.is_stopping || self.shared.check_workers_start(core).is_err() {
            return Ok(());
        }
        counters.add(Counter::Restarts, 1);
        let was_soon = worker.began.elapsed() < SOON;
        let failure = self.shared.last_failure().filter(|_| was_soon && ended.has_failed());
        worker.failures = if failure.is_some() { worker.failures + 1 } else { 0 };
        if let (Some(failure), true) = (failure, self.workers.iter().all(Worker::has_given_up)) {
            // After the other events of this wait, which may be ends of other workers.
            self.gave_up = Some(failure);
            return Ok(());
        }
        if was_soon {
            return self.start_later(core, number);
        }
        self.workers[number].delay = Duration::ZERO;
        self.start(core, number)
    }
}

impl<H: Handler> Clients for Workers<'_, H> {
    /// The parent does not accept.
    fn on_accept(&mut self, _: &mut Core, _: Accepted) -> io::Result<()> {
        Ok(())
    }

    fn is_full(&self) -> bool {
        true
    }

    fn is_empty(&self) -> bool {
        self.children.len() == 0
    }

    fn on_stop(&mut self, _: &mut Core) {
        // New connections are refused: they must not wait in a queue that no worker accepts from.
        self.workers.iter_mut().for_each(|worker| worker.sockets = WorkerSockets::default());
        self.children.stop(&self.shared);
    }

    fn force_close(&mut self, core: &mut Core) {
        self.children.force_close(core);
    }
}

impl<H: Handler> Hooks for Workers<'_, H> {
    fn on_event(&mut self, core: &mut Core, event: &Event) -> io::Result<()> {
        if let Some(ended) = self.children.ended(event) {
            return self.replace(core, &ended);
        }
        match event.kind() {
            EventKind::Io if event.token() == tokens::PULSE => {
                self.take_pulses();
                Ok(())
            }
            EventKind::Timer if event.token() < self.workers.len() as u64 && !core.is_stopping => {
                self.start(core, event.token() as usize)
            }
            _ => Ok(()),
        }
    }

    fn before_wait(&mut self, core: &mut Core) -> io::Result<()> {
        for ended in self.children.watch_all(core)? {
            self.replace(core, &ended)?;
        }
        self.shared.check_workers_start(core)?;
        self.gave_up.take().map_or(Ok(()), Err)
    }

    fn on_interrupt(&mut self) -> io::Result<()> {
        self.handler.on_interrupt()
    }
}
