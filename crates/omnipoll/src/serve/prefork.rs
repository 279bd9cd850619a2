//! [`Model::Prefork`](crate::Model::Prefork): a fixed set of processes, each serving many
//! clients with a loop of its own. One that dies is replaced; the listening sockets, and who
//! waits in their queues, outlive it in the parent.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::children::{Children, Ended};
use super::doors::Doors;
use super::front::{Front, House, Until};
use super::handler::Handler;
use super::shared::Shared;
use super::worker::{self, Openings};
use crate::net::Counter;
use crate::sys::Peer;
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
    openings: Openings,
    child: Option<u64>,
    began: Instant,
    /// How often it could not serve since it last could.
    failures: u32,
    delay: Duration,
}

struct Workers<'h, H> {
    handler: &'h H,
    workers: Vec<Worker>,
    children: Children,
}

pub(super) fn run<H: Handler>(handler: &H, shared: &Arc<Shared>, openings: Vec<Openings>) -> io::Result<()> {
    let worker = |openings| Worker {
        openings,
        child: None,
        began: Instant::now(),
        failures: 0,
        delay: Duration::ZERO,
    };
    let mut workers =
        Workers { handler, workers: openings.into_iter().map(worker).collect(), children: Children::new()? };
    let mut front = Front::new(shared.clone(), shared.control.clone(), Doors::default(), 0);
    for number in 0..workers.workers.len() {
        workers.start(&mut front, number)?;
    }
    front.run(&mut workers, Until::Stopped)
}

impl Worker {
    fn has_given_up(&self) -> bool {
        self.failures >= MOST_FAILURES
    }
}

impl<H: Handler> Workers<'_, H> {
    fn start(&mut self, front: &mut Front, number: usize) -> io::Result<()> {
        let (handler, shared) = (self.handler, front.shared.clone());
        let workers = &mut self.workers;
        let forked = self.children.fork(front, SHARE, |leash| {
            // The others' sockets are closed here.
            let openings = std::mem::take(workers).swap_remove(number).openings;
            let serve = || worker::serve(handler, &shared, shared.poller()?, number, openings, Some(leash));
            worker::host(handler, serve)
        });
        match forked {
            Ok(child) => {
                let worker = &mut self.workers[number];
                worker.child = Some(child);
                worker.began = Instant::now();
                Ok(())
            }
            // The system is short of processes.
            Err(_) => self.start_later(front, number),
        }
    }

    fn start_later(&mut self, front: &mut Front, number: usize) -> io::Result<()> {
        let worker = &mut self.workers[number];
        worker.delay = (worker.delay * 2).clamp(SHORTEST_DELAY, LONGEST_DELAY);
        front.poller.timer_add(worker.delay, None, number as u64).map(drop)
    }

    fn replace(&mut self, front: &mut Front, ended: &Ended) -> io::Result<()> {
        let Some(number) = self.workers.iter().position(|worker| worker.child == Some(ended.child)) else {
            return Ok(());
        };
        let worker = &mut self.workers[number];
        worker.child = None;
        let count = front.shared.counts.of(number);
        count.leave_active(0);
        if front.is_stopping() {
            return Ok(());
        }
        count.add(Counter::Restarts, 1);
        let was_soon = worker.began.elapsed() < SOON;
        let failure = front.shared.last_failure().filter(|_| was_soon && ended.has_failed());
        worker.failures = if failure.is_some() { worker.failures + 1 } else { 0 };
        if let (Some(failure), true) = (failure, self.workers.iter().all(Worker::has_given_up)) {
            return Err(failure);
        }
        if was_soon {
            return self.start_later(front, number);
        }
        self.workers[number].delay = Duration::ZERO;
        self.start(front, number)
    }
}

impl<H: Handler> House for Workers<'_, H> {
    /// The parent has no doors.
    fn welcome(&mut self, _: &mut Front, _: OwnedFd, _: Peer) -> io::Result<()> {
        Ok(())
    }

    fn is_full(&self) -> bool {
        true
    }

    fn is_empty(&self) -> bool {
        self.children.len() == 0
    }

    fn event(&mut self, front: &mut Front, event: &Event) -> io::Result<()> {
        if let Some(ended) = self.children.ended(event) {
            return self.replace(front, &ended);
        }
        match event.kind() {
            EventKind::Timer if event.token() < self.workers.len() as u64 && !front.is_stopping() => {
                self.start(front, event.token() as usize)
            }
            _ => Ok(()),
        }
    }

    fn interrupted(&mut self) -> io::Result<()> {
        self.handler.on_interrupt()
    }

    fn rest(&mut self, front: &mut Front) -> io::Result<()> {
        for ended in self.children.watch_all(front)? {
            self.replace(front, &ended)?;
        }
        Ok(())
    }

    fn stop(&mut self, front: &mut Front) {
        // Who comes now is refused, and does not wait in a queue that nobody will look into.
        self.workers.iter_mut().for_each(|worker| worker.openings = Openings::default());
        self.children.stop(&front.shared);
    }

    fn abandon(&mut self, front: &mut Front) {
        self.children.abandon(front);
    }
}
