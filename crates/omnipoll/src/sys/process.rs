//! Making and ending processes, `fork(2)` and `_exit(2)`, and the clock that they have in common.

use std::io;
use std::mem::zeroed;
use std::time::Duration;

use crate::error::system;

/// Forks; returns the child's process id in the parent and 0 in the child.
pub(crate) fn fork() -> io::Result<i32> {
    // SAFETY: what stdio holds is written now, or both processes would write it. In a process
    // with several threads the child has only this one: locks that others held stay locked in
    // it, which the caller's documentation says.
    match unsafe {
        libc::fflush(std::ptr::null_mut());
        libc::fork()
    } {
        -1 => Err(system("fork failed")),
        pid => Ok(pid),
    }
}

/// Ends a forked child without running the parent's exit handlers.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: neither call takes a pointer of ours, and the second one does not return.
    unsafe {
        libc::fflush(std::ptr::null_mut());
        libc::_exit(status)
    }
}

/// The time of CLOCK_MONOTONIC, clock_gettime(2), which every process reads the same.
pub(crate) fn monotonic_time() -> Duration {
    // SAFETY: timespec is plain old data, for which all zeroes is a value.
    let mut now: libc::timespec = unsafe { zeroed() };
    // SAFETY: it is writable, and the clock is there on every system.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
