//! The processes that serve, as their parent sees them: forked, stopped, reaped.
//!
//! The children have the reading end of a pipe. When the parent stops it closes the writing end, and
//! when it dies the system does: either way every child sees the end of the pipe, and stops. A second
//! pipe is for a stop that comes sooner than was announced.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Duration;

use super::shared::Shared;
use super::tokens;
use crate::event_loop::Core;
use crate::net;
use crate::sys::child_process::kill;
use crate::sys::process;
use crate::{Event, EventKind};

/// How long a process that should have ended by itself has before it is killed.
const KILL_DELAY: Duration = Duration::from_secs(1);
/// The exit status of a child that could not serve, and of one that has panicked.
const FAILED: i32 = 1;
const PANICKED: i32 = 2;
/// Stands for the status of a child that the program has reaped.
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
    /// The processes, by the tokens of their events: process numbers are used again.
    alive: BTreeMap<u64, i32>,
    /// Those whose end the poller does not report yet.
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

    /// Forks a child that runs `serve`, given its ends of the stop pipes, and then exits: with status
    /// [`FAILED`] if that fails. The ids of its connections differ from its siblings' unless it has
    /// more than `max_ids` of them.
    pub(super) fn fork(
        &mut self,
        core: &mut Core,
        shared: &Shared,
        max_ids: u32,
        serve: impl FnOnce(Vec<OwnedFd>) -> io::Result<()>,
    ) -> io::Result<u64> {
        net::reserve_generations(max_ids);
        match fork(shared)? {
            0 => {
                self.writers.clear();
                let stop_pipes = std::mem::take(&mut self.readers);
                core.leave_to_parent();
                shared.after_fork();
                let served = catch_unwind(AssertUnwindSafe(|| serve(stop_pipes)));
                process::exit(match served {
                    Ok(Ok(())) => 0,
                    Ok(Err(error)) => {
                        shared.publish_failure(&error);
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

    /// Has the poller report the ends that it doesn't report yet, and returns the children that have
    /// ended already: reaped by the program, or by the system because SIGCHLD is ignored. When the
    /// system is out of something, accepting pauses, and the next call tries again.
    pub(super) fn watch_all(&mut self, core: &mut Core) -> io::Result<Vec<Ended>> {
        let mut ended = Vec::new();
        while let Some(child) = self.unwatched.pop() {
            let Some(&pid) = self.alive.get(&child) else { continue };
            match core.poller.child_add(pid, child).map_err(|error| error.raw_os_error()) {
                Ok(()) => {}
                Err(Some(libc::ECHILD | libc::ESRCH)) => ended.extend(self.remove(child, UNKNOWN)),
                Err(_) => {
                    self.unwatched.push(child);
                    core.retry_accepting_later()?;
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

    /// Kills one of them, whose end will be reported.
    pub(super) fn kill(&self, child: u64) {
        self.alive.get(&child).iter().for_each(|&&pid| kill(pid, libc::SIGKILL));
    }

    fn kill_all(&self) {
        self.alive.values().for_each(|&pid| kill(pid, libc::SIGKILL));
    }

    /// Has them stop, or stop sooner; there is no third time.
    pub(super) fn stop(&mut self, shared: &Shared) {
        shared.publish_stop();
        self.writers.pop();
    }

    /// Their time is up, which they measure too: those that don't end by themselves are killed.
    pub(super) fn force_close(&mut self, core: &Core) {
        if core.poller.timer_add_reserved(KILL_DELAY, tokens::KILL_CHILDREN).is_err() {
            self.kill_all();
        }
    }
}

/// Forks, by way of the function that the options give.
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
