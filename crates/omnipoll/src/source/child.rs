//! Children: each watched by a pidfd, or by SIGCHLD where there are none.
//!
//! A process is only ever reaped by its own process id and only if it is our child, so that no
//! other is taken. `pidfd_open(2)` is Linux 5.3; `waitid(P_PIDFD)` 5.4.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::error::{fail, no_memory};
use crate::event::{Event, EventKind};
use crate::sys::child_process::{pidfd_open, reap, wait};

/// The children of one poller.
#[derive(Default)]
pub(crate) struct Children {
    list: Vec<Child>,
}

struct Child {
    pid: i32,
    token: u64,
    /// `None`: asked about when SIGCHLD has come.
    pidfd: Option<OwnedFd>,
}

/// The status of a child that was reaped elsewhere.
const UNKNOWN: i32 = -1;

/// A child that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) token: u64,
    /// As wait(2) has it; -1 when it is unknown: the child was reaped elsewhere, or SIGCHLD is
    /// ignored.
    pub(crate) status: i32,
}

impl Ended {
    pub(crate) fn event(self) -> Event {
        Event::new(EventKind::Child, self.token, self.status.into())
    }
}

impl Children {
    /// Begins to watch a child. Returns the descriptor that becomes readable when it ends, or
    /// `None` where SIGCHLD must be watched instead.
    pub(crate) fn add(&mut self, pid: i32, token: u64) -> io::Result<Option<RawFd>> {
        if self.list.iter().any(|child| child.pid == pid) {
            return Err(fail(libc::EEXIST, "the child is watched already"));
        }
        let found = match pid {
            // They are process groups.
            ..=0 => Err(fail(libc::ECHILD, "")),
            pid => wait(libc::P_PID, pid, libc::WNOWAIT),
        };
        // For another reason waitid(2) fails only where a filter forbids it: the pidfd reports the end.
        let is_child = |found: io::Result<_>| match found {
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
                Err(fail(libc::ECHILD, "there is no such child of this process, or it was reaped"))
            }
            _ => Ok(()),
        };
        is_child(found)?;
        self.list.try_reserve(1).map_err(no_memory)?;
        let pidfd = match pidfd_open(pid) {
            // It is ending, or was reaped since.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                is_child(wait(libc::P_PID, pid, libc::WNOWAIT))?;
                None
            }
            opened => opened?,
        };
        let fd = pidfd.as_ref().map(AsRawFd::as_raw_fd);
        self.list.push(Child { pid, token, pidfd });
        Ok(fd)
    }

    /// Forgets a child without reaping it; its descriptor, if any, goes to the caller.
    pub(crate) fn remove(&mut self, pid: i32) -> io::Result<Option<OwnedFd>> {
        match self.list.iter().position(|child| child.pid == pid) {
            Some(index) => Ok(self.list.swap_remove(index).pidfd),
            None => Err(fail(libc::ENOENT, "the child is not watched")),
        }
    }

    /// Reaps the child of this descriptor, if it has ended.
    pub(crate) fn reap_by(&mut self, fd: RawFd) -> Option<(Ended, OwnedFd)> {
        let index =
            self.list.iter().position(|child| child.pidfd.as_ref().is_some_and(|it| it.as_raw_fd() == fd))?;
        let ended = self.list[index].reap()?;
        Some((ended, self.list.swap_remove(index).pidfd?))
    }

    /// Reaps one of the children that have no descriptor.
    pub(crate) fn reap_any(&mut self) -> Option<Ended> {
        let mut waiting = self.list.iter().enumerate().filter(|(_, child)| child.pidfd.is_none());
        let (index, ended) = waiting.find_map(|(index, child)| Some((index, child.reap()?)))?;
        self.list.swap_remove(index);
        Some(ended)
    }

    /// How many are watched.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether one of those without a descriptor has ended and was not reported. Asked when a batch
    /// is full.
    pub(crate) fn may_have_ended(&self) -> bool {
        let mut waiting = self.list.iter().filter(|child| child.pidfd.is_none());
        waiting.any(|child| !matches!(wait(libc::P_PID, child.pid, libc::WNOWAIT), Ok(None)))
    }

    /// In a forked child: its parent's children are not its own. Returns their descriptors.
    pub(crate) fn after_fork(&mut self) -> Vec<OwnedFd> {
        self.list.drain(..).filter_map(|child| child.pidfd).collect()
    }
}

impl Child {
    fn reap(&self) -> Option<Ended> {
        #[cfg(target_os = "linux")]
        let by_pidfd = self.pidfd.as_ref().map(|pidfd| (libc::P_PIDFD, pidfd.as_raw_fd()));
        #[cfg(not(target_os = "linux"))]
        let by_pidfd = None;
        // Linux 5.3 has pidfds and no P_PIDFD. The process id is the child's until it is reaped.
        let by_pid = (libc::P_PID, self.pid);
        let status = match reap(by_pidfd.unwrap_or(by_pid)) {
            Err(libc::ECHILD) => Some(UNKNOWN),
            Err(_) => reap(by_pid).unwrap_or(Some(UNKNOWN)),
            Ok(status) => status,
        };
        Some(Ended { token: self.token, status: status? })
    }
}
