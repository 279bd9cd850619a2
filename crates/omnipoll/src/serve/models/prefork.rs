//! [`Model::Prefork`](crate::Model::Prefork): a fixed set of processes, each serving many
//! clients with a loop of its own. One that dies is replaced; the listening sockets, and what waits in
//! their queues, outlive it in the parent.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::child_processes::{ChildProcesses, Ended};
use super::super::notifier::monotonic_usec;
use super::super::pulse::Pulse;
use super::super::server_loop::{ServerLoop, Until};
use super::super::shared::{Request, Shared};
use super::super::tokens;
use super::super::worker::{self, Parent, WorkerSockets};
use super::super::worker_process::{beat_interval, WorkerProcess};
use crate::error::plain;
use crate::event_loop::{Accepted, Acceptor, Clients, Core, Handler, Hooks};
use crate::net::driver::{AnyDriver, DriverKind};
use crate::net::Counter;
use crate::sys::{pipe, Waker};
use crate::{Event, EventKind, Interest};

/// A worker that dies sooner than this is replaced after a delay, which doubles each time.
const SOON: Duration = Duration::from_secs(1);
const SHORTEST_DELAY: Duration = Duration::from_millis(10);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// When each of the workers has failed so often in a row, the server gives up.
const MAX_FAILURES: u32 = 5;
/// Ids that a worker may use before they meet those of its successor.
const IDS_PER_WORKER: u32 = 1 << 16;

/// One place among the workers, and the processes that have it.
struct Worker {
    sockets: WorkerSockets,
    current: Option<WorkerProcess>,
    /// The one that takes the place of `current` when it serves.
    next: Option<WorkerProcess>,
    /// Those that serve their last clients.
    retired: Vec<WorkerProcess>,
    /// How often in a row it could not serve.
    failures: u32,
    delay: Duration,
    /// Another process is started when a timer fires.
    is_waiting: bool,
}

struct Workers<'h, H> {
    handler: &'h H,
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    /// Whose processes are to be replaced, one after another.
    to_replace: VecDeque<usize>,
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
    let mut workers = Workers {
        handler,
        shared: shared.clone(),
        workers: sockets.into_iter().map(Worker::new).collect(),
        to_replace: VecDeque::new(),
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
    let core = &mut server_loop.core;
    core.poller.add_reserved(workers.waker.as_raw_fd(), Interest::READ, tokens::PULSE)?;
    workers.look_later(core)?;
    for number in 0..workers.workers.len() {
        workers.start(core, number)?;
    }
    server_loop.run(&mut workers, Until::Stopped)
}

impl Worker {
    fn new(sockets: WorkerSockets) -> Self {
        Self {
            sockets,
            current: None,
            next: None,
            retired: Vec::new(),
            failures: 0,
            delay: Duration::ZERO,
            is_waiting: false,
        }
    }

    fn has_given_up(&self) -> bool {
        self.failures >= MAX_FAILURES
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut WorkerProcess> {
        self.current.iter_mut().chain(&mut self.next).chain(&mut self.retired)
    }
}

fn is(process: &Option<WorkerProcess>, child: u64) -> bool {
    process.as_ref().is_some_and(|process| process.child == child)
}

impl<H: Handler> Workers<'_, H> {
    fn start(&mut self, core: &mut Core, number: usize) -> io::Result<()> {
        match self.fork(core, number) {
            Ok(process) => {
                self.workers[number].current = Some(process);
                Ok(())
            }
            // The system is out of processes.
            Err(_) => self.start_later(core, number),
        }
    }

    fn fork(&mut self, core: &mut Core, number: usize) -> io::Result<WorkerProcess> {
        let (handler, shared) = (self.handler, self.shared.clone());
        let pulse = Pulse::new(&self.waker)?;
        let of_parent = pulse.clone();
        let (retired, retire) = pipe()?;
        let mut retire = Some(retire);
        let workers = &mut self.workers;
        let child = self.children.fork(core, &self.shared, IDS_PER_WORKER, |mut stop_pipes| {
            // Closes what is the others', and the parent's end of its own pipe.
            let sockets = std::mem::take(workers).swap_remove(number).sockets;
            retire = None;
            stop_pipes.push(retired);
            let parent = Parent { stop_pipes, pulse };
            let serve = || worker::serve(handler, &shared, shared.poller()?, number, sockets, Some(parent));
            worker::run_worker(handler, serve)
        })?;
        let retire = retire.ok_or_else(|| plain(libc::EIO))?;
        Ok(WorkerProcess::new(child, of_parent, retire))
    }

    fn start_later(&mut self, core: &mut Core, number: usize) -> io::Result<()> {
        let worker = &mut self.workers[number];
        worker.delay = (worker.delay * 2).clamp(SHORTEST_DELAY, LONGEST_DELAY);
        worker.is_waiting = true;
        core.poller.timer_add(worker.delay, None, number as u64).map(drop)
    }

    /// Its time has come: starts the process of a worker that has none, or that which follows.
    fn start_again(&mut self, core: &mut Core, number: usize) -> io::Result<()> {
        self.workers[number].is_waiting = false;
        if self.workers[number].current.is_none() {
            return self.start(core, number);
        }
        self.to_replace.push_back(number);
        self.replace_next(core)
    }

    /// Workers have something to say.
    fn take_pulses(&mut self, core: &mut Core) -> io::Result<()> {
        self.waker.drain();
        let serves = |process: &Option<WorkerProcess>| process.as_ref().is_some_and(|it| it.pulse.serves());
        let serving = self.workers.iter().filter(|worker| serves(&worker.current)).count();
        self.shared.serving.store(serving, Ordering::Release);
        if core.is_stopping {
            return Ok(());
        }
        for (number, worker) in self.workers.iter_mut().enumerate() {
            if serves(&worker.next) {
                let old = std::mem::replace(&mut worker.current, worker.next.take());
                worker.delay = Duration::ZERO;
                worker.retired.extend(old.map(|mut old| {
                    old.retire();
                    old
                }));
            } else if worker.current.as_ref().is_some_and(|process| process.pulse.asks_replacement())
                && worker.next.is_none()
                && !worker.is_waiting
                && !self.to_replace.contains(&number)
            {
                self.to_replace.push_back(number);
            }
        }
        self.replace_next(core)
    }

    /// Starts the process that follows one of a worker's that is to be replaced, unless one is starting.
    fn replace_next(&mut self, core: &mut Core) -> io::Result<()> {
        while self.workers.iter().all(|worker| worker.next.is_none()) {
            let Some(number) = self.to_replace.pop_front() else {
                let is_waiting = self.workers.iter().any(|worker| worker.is_waiting);
                if !is_waiting && self.shared.is_in_progress(Request::RestartWorkers) {
                    self.shared.finish(Request::RestartWorkers);
                    let _ = self.shared.notify("READY=1");
                }
                break;
            };
            if self.workers[number].current.is_none() {
                continue;
            }
            match self.fork(core, number) {
                Ok(process) => self.workers[number].next = Some(process),
                Err(_) => self.start_later(core, number)?,
            }
        }
        Ok(())
    }

    /// All of them are to be replaced.
    fn replace_all(&mut self, core: &mut Core) -> io::Result<()> {
        let _ = self.shared.notify(&format!("RELOADING=1\n{}", monotonic_usec()));
        self.to_replace = (0..self.workers.len()).collect();
        self.replace_next(core)
    }

    /// Kills those whose loop does not turn.
    fn look(&mut self, core: &Core) -> io::Result<()> {
        let Some(limit) = self.shared.options.hang_timeout else { return Ok(()) };
        for process in self.workers.iter_mut().flat_map(Worker::processes) {
            if process.hangs(limit) {
                self.children.kill(process.child);
            }
        }
        self.look_later(core)
    }

    fn look_later(&self, core: &Core) -> io::Result<()> {
        match self.shared.options.hang_timeout {
            Some(limit) => core.poller.timer_add_reserved(beat_interval(limit), tokens::BEAT).map(drop),
            None => Ok(()),
        }
    }

    fn on_end(&mut self, core: &mut Core, ended: &Ended) -> io::Result<()> {
        let has = |worker: &mut Worker| worker.processes().any(|process| process.child == ended.child);
        let Some(number) = self.workers.iter_mut().position(has) else { return Ok(()) };
        let worker = &mut self.workers[number];
        let mut began = None;
        if is(&worker.current, ended.child) {
            began = worker.current.take().map(|process| process.began);
            // One that was to follow does so at once.
            worker.current = worker.next.take();
        }
        let has_not_followed = is(&worker.next, ended.child);
        if has_not_followed {
            worker.next = None;
        }
        worker.retired.retain(|process| process.child != ended.child);
        if worker.processes().next().is_none() {
            // While another process counts in its place, what it has left is not known.
            self.shared.counters.of(number).leave_active(0);
            self.shared.limits.iter().for_each(|limits| limits.forget_worker(number));
        }
        if core.is_stopping || self.shared.check_workers_start(core).is_err() {
            return Ok(());
        }
        match began {
            Some(began) => self.replace_dead(core, number, began, ended)?,
            None if has_not_followed => self.start_later(core, number)?,
            None => {}
        }
        self.replace_next(core)
    }

    /// A worker's process has died.
    fn replace_dead(
        &mut self,
        core: &mut Core,
        number: usize,
        began: Instant,
        ended: &Ended,
    ) -> io::Result<()> {
        self.shared.counters.of(number).add(Counter::Restarts, 1);
        let worker = &mut self.workers[number];
        let was_soon = began.elapsed() < SOON;
        let failure = self.shared.last_failure().filter(|_| was_soon && ended.has_failed());
        worker.failures = if failure.is_some() { worker.failures + 1 } else { 0 };
        if worker.current.is_some() {
            return Ok(());
        }
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
        self.workers.iter_mut().flat_map(Worker::processes).for_each(WorkerProcess::retire);
    }

    fn force_close(&mut self, core: &mut Core) {
        self.children.force_close(core);
    }
}

impl<H: Handler> Hooks for Workers<'_, H> {
    fn on_event(&mut self, core: &mut Core, event: &Event) -> io::Result<()> {
        if let Some(ended) = self.children.ended(event) {
            return self.on_end(core, &ended);
        }
        match event.kind() {
            EventKind::Io if event.token() == tokens::PULSE => self.take_pulses(core),
            EventKind::Timer if event.token() == tokens::BEAT => self.look(core),
            EventKind::Timer if event.token() < self.workers.len() as u64 && !core.is_stopping => {
                self.start_again(core, event.token() as usize)
            }
            _ => Ok(()),
        }
    }

    fn before_wait(&mut self, core: &mut Core) -> io::Result<()> {
        for ended in self.children.watch_all(core)? {
            self.on_end(core, &ended)?;
        }
        self.shared.check_workers_start(core)?;
        if !core.is_stopping && self.shared.take_request(Request::RestartWorkers) {
            self.replace_all(core)?;
        }
        self.gave_up.take().map_or(Ok(()), Err)
    }

    fn on_interrupt(&mut self) -> io::Result<()> {
        self.handler.on_interrupt()
    }
}
