//! Processes that serve: made by `fork(2)`, held by a leash, ended by a signal.

use std::io;
use std::os::fd::OwnedFd;

use crate::error::system;

/// Forks; returns the child's number in the parent and 0 in the child.
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

/// Ends a forked child without running what the parent has put down for its own exit.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: neither call returns to code of ours in a state that it would not expect.
    unsafe {
        libc::fflush(std::ptr::null_mut());
        libc::_exit(status)
    }
}

/// A pipe: its reading end tells the end of the process that has the writing one, however that
/// comes about.
pub(crate) fn leash() -> io::Result<(OwnedFd, OwnedFd)> {
    crate::sys::pipe()
}
