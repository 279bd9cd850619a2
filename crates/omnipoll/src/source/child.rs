//! Children: each watched by a pidfd, or by SIGCHLD where there are none.
//!
//! A process is only ever reaped by its own number and only if it is our child, so nobody
//! else's is taken. `pidfd_open(2)` is Linux 5.3; `waitid(P_PIDFD)` 5.4.

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::FromRawFd;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

#[cfg(target_os = "linux")]
use crate::error::errno;
use crate::error::{fail, no_memory, system};
use crate::event::{Event, EventKind};
#[cfg(target_os = "linux")]
use crate::sys::above_stdio;

/// The children of one poller.
#[derive(Default)]
pub(crate) struct Children {
    list: Vec<Child>,
}

struct Child {
    pid: i32,
    token: u64,
    /// `None`: looked for when SIGCHLD has come.
    pidfd: Option<OwnedFd>,
}

/// The status of a child that somebody else has reaped.
const UNKNOWN: i32 = -1;

/// A child that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) token: u64,
    /// As wait(2) has it; -1 when somebody else has reaped it, or SIGCHLD is ignored, so that
    /// nobody can know.
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
        let known = match pid {
            // They stand for groups.
            ..=0 => Err(fail(libc::ECHILD, "")),
            pid => look(libc::P_PID, pid, libc::WNOWAIT),
        };
        let is_known = |known: io::Result<_>| match known {
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
                Err(fail(libc::ECHILD, "there is no such child of this process, or it was reaped"))
            }
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        };
        is_known(known)?;
        self.list.try_reserve(1).map_err(no_memory)?;
        let pidfd = match pidfd_open(pid) {
            // It is ending, or was reaped since: the next look tells.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                is_known(look(libc::P_PID, pid, libc::WNOWAIT))?;
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

    /// Reaps the child that this descriptor is of, if it has ended.
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

    /// Whether SIGCHLD has made known, and not told, that one of those without a descriptor
    /// has ended. Asked when a batch is full.
    pub(crate) fn may_have_ended(&self) -> bool {
        let mut waiting = self.list.iter().filter(|child| child.pidfd.is_none());
        waiting.any(|child| !matches!(look(libc::P_PID, child.pid, libc::WNOWAIT), Ok(None)))
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
        // Linux 5.3 has pidfds and no P_PIDFD. The number is the child's until it is reaped.
        let by_number = (libc::P_PID, self.pid);
        let status = match reap(by_pidfd.unwrap_or(by_number)) {
            Err(libc::ECHILD) => Some(UNKNOWN),
            Err(_) => reap(by_number).unwrap_or(Some(UNKNOWN)),
            Ok(status) => status,
        };
        Some(Ended { token: self.token, status: status? })
    }
}

/// Reaps our child if it has ended: its status, or why that can't be known. Looks first: to reap
/// would take the stop of a child that is traced from its tracer, ptrace(2).
fn reap((kind, id): (libc::idtype_t, i32)) -> Result<Option<i32>, i32> {
    let ended = look(kind, id, libc::WNOWAIT).and_then(|ended| match ended {
        Some(_) => look(kind, id, 0),
        None => Ok(None),
    });
    ended.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
}

/// The status of our child if it has ended; reaps it unless `flags` has WNOWAIT.
fn look(kind: libc::idtype_t, id: i32, flags: libc::c_int) -> io::Result<Option<i32>> {
    // SAFETY: siginfo_t is plain old data, for which all zeroes is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | flags;
    // SAFETY: `info` lives through the call.
    if unsafe { libc::waitid(kind, id as libc::id_t, &mut info, flags) } < 0 {
        return Err(system("waitid failed"));
    }
    // SAFETY: waitid has filled in a SIGCHLD's fields, or left the zeroes: no child has ended.
    let status = unsafe { info.si_status() };
    Ok(match info.si_code {
        libc::CLD_EXITED => Some((status & 0xff) << 8),
        libc::CLD_KILLED => Some(status),
        libc::CLD_DUMPED => Some(status | 0x80),
        _ => None,
    })
}

/// `None` where there are no pidfds, or a seccomp filter forbids them.
#[cfg(target_os = "linux")]
fn pidfd_open(pid: i32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: takes no pointer. The descriptor is close-on-exec by itself.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match errno() {
        // SAFETY: the kernel has just given us this number.
        _ if fd >= 0 => above_stdio(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }).map(Some),
        libc::ENOSYS | libc::EPERM => Ok(None),
        _ => Err(system("pidfd_open failed")),
    }
}

#[cfg(not(target_os = "linux"))]
fn pidfd_open(_pid: i32) -> io::Result<Option<OwnedFd>> {
    Ok(None)
}

/// Sends a signal to a child of ours, and to nobody else: its number may be another's once it has
/// been reaped, by whomever, so it is held by a pidfd and then asked whether it is our child.
#[cfg(target_os = "linux")]
pub(crate) fn kill(pid: i32, signo: i32) {
    match pidfd_open(pid) {
        Ok(Some(held)) if look(libc::P_PIDFD, held.as_raw_fd(), libc::WNOWAIT).is_ok() => {
            let (info, flags) = (std::ptr::null::<libc::siginfo_t>(), 0);
            // SAFETY: without information of ours the kernel reads no memory.
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, held.as_raw_fd(), signo, info, flags) };
        }
        Ok(Some(_)) => {}
        // Without pidfds, or descriptors for them: the number is a child's until it is reaped.
        Ok(None) | Err(_) => kill_by_number(pid, signo),
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn kill(pid: i32, signo: i32) {
    kill_by_number(pid, signo);
}

fn kill_by_number(pid: i32, signo: i32) {
    if look(libc::P_PID, pid, libc::WNOWAIT).is_ok() {
        // SAFETY: takes no pointer.
        unsafe { libc::kill(pid, signo) };
    }
}
