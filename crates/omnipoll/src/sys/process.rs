//! Making and ending processes: `fork(2)` and `_exit(2)`.

use std::io;

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
