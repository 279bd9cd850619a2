//! The processes that serve, as their parent sees them: forked, held by a leash, reaped.
//!
//! The leash is a pipe of which the children have the reading end. When the parent stops it
//! closes its end, and when it dies the system does: either way every child sees the end of
//! the pipe, and stops. There is a second one for a stop that shall be sooner than was said.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Duration;

use super::event_loop::EventLoop;
use super::shared::Shared;
use super::tokens;
use crate::net;
use crate::sys::child_process::kill;
use crate::sys::process;
use crate::{Event, EventKind};

/// What a process that should have ended by itself is given before it is killed.
const KILL_CHILDREN: Duration = Duration::from_secs(1);
/// What a child exits with that could not serve, and one that has panicked.
const FAILED: i32 = 1;
const PANICKED: i32 = 2;
/// The status of a child that somebody else has reaped.
const UNKNOWN: i32 = -1;

/// A child that has ended.
pub(super) struct Ended {
    /// What [`ChildProcesses::fork`] has returned.
    pub(super) child: u64,
    status: i32,
}

impl Ended {
    /// Whether it ended because it could not serve.
    pub(super) fn has_failed(&self) -> bool {
        self.status == FAILED << 8
    }
}

pub(super) struct ChildProcesses {
    /// The processes, by the tokens of their events: numbers of processes are used again.
    alive: BTreeMap<u64, i32>,
    /// Those among them whose end the poller does not report yet.
    unwatched: Vec<u64>,
    /// How many there have been.
    forked: u64,
    readers: Vec<OwnedFd>,
    writers: Vec<OwnedFd>,
}

impl ChildProcesses {
    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = crate::sys::pipe()?;
        let (sooner_reader, sooner_writer) = crate::sys::pipe()?;
        Ok(Self {
            alive: BTreeMap::new(),
            unwatched: Vec::new(),
            forked: 0,
            readers: vec![sooner_reader, reader],
            writers: vec![sooner_writer, writer],
        })
    }

    pub(super) fn len(&self) -> usize {
        self.alive.len()
    }

    /// Forks a child that runs `serve`, given its ends of the leash, and ends with it: with status
    /// [`FAILED`] if that fails. The ids of its connections differ from its siblings' unless it has
    /// more than `share` of them.
    pub(super) fn fork(
        &mut self,
        event_loop: &mut EventLoop,
        share: u32,
        serve: impl FnOnce(Vec<OwnedFd>) -> io::Result<()>,
    ) -> io::Result<u64> {
        net::reserve_generations(share);
        match fork(&event_loop.shared)? {
            0 => {
                self.writers.clear();
                let stop_pipes = std::mem::take(&mut self.readers);
                event_loop.leave_to_parent_process();
                let served = catch_unwind(AssertUnwindSafe(|| serve(stop_pipes)));
                process::exit(match served {
                    Ok(Ok(())) => 0,
                    Ok(Err(error)) => {
                        event_loop.shared.publish_failure(&error);
                        FAILED
                    }
                    Err(_) => PANICKED,
                });
            }
            pid => {
                self.forked += 1;
                self.alive.insert(self.forked, pid);
                self.unwatched.push(self.forked);
                Ok(self.forked)
            }
        }
    }

    /// Has the poller report the end of those of whom it doesn't yet, and returns who has ended
    /// already: reaped by the program, or by the system because SIGCHLD is ignored. Where the system
    /// is short of something, accepting pauses, and the next call tries again.
    pub(super) fn watch_all(&mut self, event_loop: &mut EventLoop) -> io::Result<Vec<Ended>> {
        let mut ended = Vec::new();
        while let Some(child) = self.unwatched.pop() {
            let Some(&pid) = self.alive.get(&child) else { continue };
            match event_loop.poller.child_add(pid, child).map_err(|error| error.raw_os_error()) {
                Ok(()) => {}
                Err(Some(libc::ECHILD | libc::ESRCH)) => ended.extend(self.remove(child, UNKNOWN)),
                Err(_) => {
                    self.unwatched.push(child);
                    event_loop.acceptor.retry_later(&event_loop.poller, &event_loop.counters)?;
                    break;
                }
            }
        }
        Ok(ended)
    }

    /// The child whose end an event reports.
    pub(super) fn ended(&mut self, event: &Event) -> Option<Ended> {
        match (event.kind(), event.token()) {
            (EventKind::Child, child) => self.remove(child, event.value() as i32),
            (EventKind::Timer, tokens::KILL_CHILDREN) => {
                self.kill_all();
                None
            }
            _ => None,
        }
    }

    fn remove(&mut self, child: u64, status: i32) -> Option<Ended> {
        self.alive.remove(&child).map(|_| Ended { child, status })
    }

    fn kill_all(&self) {
        self.alive.values().for_each(|&pid| kill(pid, libc::SIGKILL));
    }

    /// Tells them to stop, or to stop sooner. From the third time on they aren't told.
    pub(super) fn stop(&mut self, shared: &Shared) {
        shared.publish_stop();
        self.writers.pop();
    }

    /// Their time is up, and they know it: those that don't end now are killed.
    pub(super) fn force_close(&mut self, event_loop: &EventLoop) {
        if event_loop.poller.timer_add(KILL_CHILDREN, None, tokens::KILL_CHILDREN).is_err() {
            self.kill_all();
        }
    }
}

/// Forks, with what surrounds it.
fn fork(shared: &Shared) -> io::Result<i32> {
    let mut forked = Ok(-1);
    let mut fork = || {
        forked = process::fork();
        *forked.as_ref().unwrap_or(&-1)
    };
    match &shared.options.around_fork {
        Some(around) => around(&mut fork),
        None => fork(),
    };
    forked
}
