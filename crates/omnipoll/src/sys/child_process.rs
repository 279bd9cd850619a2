//! Child processes: `waitid(2)`, `pidfd_open(2)`, and signals for them.

use std::io;
use std::os::fd::OwnedFd;
#[cfg(target_os = "linux")]
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

#[cfg(target_os = "linux")]
use crate::error::errno;
use crate::error::system;
#[cfg(target_os = "linux")]
use crate::sys::above_stdio;

/// Reaps our child if it has ended: its status, or the errno. Asks first: reaping would take the
/// stop of a child that is traced from its tracer, ptrace(2).
pub(crate) fn reap((kind, id): (libc::idtype_t, i32)) -> Result<Option<i32>, i32> {
    let ended = wait(kind, id, libc::WNOWAIT).and_then(|ended| match ended {
        Some(_) => wait(kind, id, 0),
        None => Ok(None),
    });
    ended.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
}

/// The status of our child if it has ended; reaps it unless `flags` has WNOWAIT.
pub(crate) fn wait(kind: libc::idtype_t, id: i32, flags: libc::c_int) -> io::Result<Option<i32>> {
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
pub(crate) fn pidfd_open(pid: i32) -> io::Result<Option<OwnedFd>> {
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
pub(crate) fn pidfd_open(_pid: i32) -> io::Result<Option<OwnedFd>> {
    Ok(None)
}

/// Sends a signal to a child of ours, and to no other process: the process id may be another's once
/// it has been reaped, wherever, so it is held by a pidfd and then asked whether it is our child.
#[cfg(target_os = "linux")]
pub(crate) fn kill(pid: i32, signo: i32) {
    match pidfd_open(pid) {
        Ok(Some(held)) if wait(libc::P_PIDFD, held.as_raw_fd(), libc::WNOWAIT).is_ok() => {
            let (info, flags) = (std::ptr::null::<libc::siginfo_t>(), 0);
            // SAFETY: without information of ours the kernel reads no memory.
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, held.as_raw_fd(), signo, info, flags) };
        }
        Ok(Some(_)) => {}
        // Without pidfds, or descriptors for them: the process id is a child's until it is reaped.
        Ok(None) | Err(_) => kill_by_pid(pid, signo),
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn kill(pid: i32, signo: i32) {
    kill_by_pid(pid, signo);
}

/// Whether there is a process of that number, one that waits to be reaped included.
#[cfg(feature = "serve")]
pub(crate) fn is_alive(pid: i32) -> bool {
    // SAFETY: takes no pointer, and sends nothing.
    let found = unsafe { libc::kill(pid, 0) } == 0;
    found || crate::error::errno() != libc::ESRCH
}

fn kill_by_pid(pid: i32, signo: i32) {
    if wait(libc::P_PID, pid, libc::WNOWAIT).is_ok() {
        // SAFETY: takes no pointer.
        unsafe { libc::kill(pid, signo) };
    }
}
