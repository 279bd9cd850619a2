//! The processes that serve, as their parent sees them: forked, held by a leash, reaped.
//!
//! The leash is a pipe of which the children have the reading end. When the parent stops it
//! closes its end, and when it dies the system does: either way every child sees the end of
//! the pipe, and stops. There is a second one for a stop that shall be sooner than was said.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Duration;

use super::front::Front;
use super::shared::Shared;
use super::tokens;
use crate::source::process;
use crate::stream;
use crate::{Event, EventKind};

/// What a process that should have ended by itself is given before it is killed.
const GRACE: Duration = Duration::from_secs(1);

pub(super) struct Children {
    alive: BTreeSet<i32>,
    /// Those among them of whose end the poller does not tell yet.
    unwatched: Vec<i32>,
    readers: Vec<OwnedFd>,
    writers: Vec<OwnedFd>,
}

impl Children {
    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = process::leash()?;
        let (sooner_reader, sooner_writer) = process::leash()?;
        Ok(Self {
            alive: BTreeSet::new(),
            unwatched: Vec::new(),
            readers: vec![sooner_reader, reader],
            writers: vec![sooner_writer, writer],
        })
    }

    pub(super) fn len(&self) -> usize {
        self.alive.len()
    }

    /// Forks a child that runs `serve`, given its ends of the leash, and ends with it. The ids of
    /// its connections differ from its siblings' unless it has more than `share` of them.
    pub(super) fn fork(
        &mut self,
        front: &mut Front,
        share: u32,
        serve: impl FnOnce(Vec<OwnedFd>) -> io::Result<()>,
    ) -> io::Result<i32> {
        stream::set_births_apart(share);
        match fork(&front.shared)? {
            0 => {
                self.writers.clear();
                let leash = std::mem::take(&mut self.readers);
                front.become_child();
                let served = catch_unwind(AssertUnwindSafe(|| serve(leash)));
                process::exit(if matches!(served, Ok(Ok(()))) { 0 } else { 1 });
            }
            pid => {
                self.alive.insert(pid);
                Ok(pid)
            }
        }
    }

    /// Has the poller tell when a child has ended.
    pub(super) fn watch(&mut self, front: &mut Front, pid: i32) -> io::Result<()> {
        self.unwatched.push(pid);
        self.watch_all(front)
    }

    /// Has the poller tell of those, too, for whom it had no descriptor.
    pub(super) fn watch_all(&mut self, front: &mut Front) -> io::Result<()> {
        while let Some(&pid) = self.unwatched.last() {
            if front.poller.child_add(pid, pid as u64).is_err() {
                return front.doors.shut_for_a_moment(&front.poller);
            }
            self.unwatched.pop();
        }
        Ok(())
    }

    /// The child that an event tells the end of.
    pub(super) fn ended(&mut self, event: &Event) -> Option<i32> {
        match (event.kind(), event.token()) {
            (EventKind::Child, pid) => self.alive.take(&(pid as i32)),
            (EventKind::Timer, tokens::GRACE) => {
                self.alive.iter().for_each(|&pid| process::kill(pid, libc::SIGKILL));
                None
            }
            _ => None,
        }
    }

    /// Tells them to stop, or to stop sooner. From the third time on they aren't told.
    pub(super) fn stop(&mut self, shared: &Shared) {
        shared.announce();
        self.writers.pop();
    }

    /// Their time is up, and they know it: those that don't end now are killed.
    pub(super) fn abandon(&mut self, front: &Front) {
        if front.poller.timer_add(GRACE, None, tokens::GRACE).is_err() {
            self.alive.iter().for_each(|&pid| process::kill(pid, libc::SIGKILL));
        }
    }
}

/// Forks, with what surrounds it.
fn fork(shared: &Shared) -> io::Result<i32> {
    let mut forked = Ok(-1);
    let mut fork = || {
        let _still = stream::hold_still();
        forked = process::fork();
        *forked.as_ref().unwrap_or(&-1)
    };
    match &shared.options.around_fork {
        Some(around) => around(&mut fork),
        None => fork(),
    };
    forked
}
