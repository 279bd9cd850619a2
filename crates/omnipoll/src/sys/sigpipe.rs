//! Suppresses SIGPIPE for a system call that has no flag against it.
//!
//! `sendfile(2)` to a socket whose peer is gone raises the signal, which by default ends the program.
//! It is sent to the thread that made the call, so that it can be blocked there meanwhile and taken
//! before it is unblocked: `pthread_sigmask(3)` and `sigtimedwait(2)`.

use std::io;
use std::mem::zeroed;

/// Makes a call that may raise SIGPIPE when it fails with `EPIPE`, without the signal.
pub(crate) fn without<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // SAFETY: a signal set is plain old data, which sigemptyset makes a valid one of.
    let mut pipe: libc::sigset_t = unsafe { zeroed() };
    // SAFETY: as above.
    let mut before: libc::sigset_t = unsafe { zeroed() };
    // SAFETY: as above.
    let mut pending: libc::sigset_t = unsafe { zeroed() };
    // SAFETY: the sets are writable, and SIGPIPE is a signal.
    unsafe {
        libc::sigemptyset(&mut pipe);
        libc::sigaddset(&mut pipe, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &pipe, &mut before);
        libc::sigpending(&mut pending);
    }
    // SAFETY: sigpending has filled it.
    let was_pending = unsafe { libc::sigismember(&pending, libc::SIGPIPE) } == 1;
    let done = call();
    let is_raised = matches!(&done, Err(error) if error.raw_os_error() == Some(libc::EPIPE));
    if is_raised && !was_pending {
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set is valid, and what is taken is the signal just raised for this thread.
        unsafe { libc::sigtimedwait(&pipe, std::ptr::null_mut(), &now) };
    }
    // SAFETY: `before` is what the mask was.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    done
}
