//! The signals that a thread does not take: pthread_sigmask(3).

use std::mem::MaybeUninit;

/// Calls `body` with every signal blocked in this thread. A thread that is begun meanwhile inherits the
/// mask, and takes no signal for as long as it lives.
pub(crate) fn with_all_blocked<T>(body: impl FnOnce() -> T) -> T {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are writable, and sigfillset makes the first a valid one.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let done = body();
    // SAFETY: pthread_sigmask has filled it; it fails only for an unknown operation.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    done
}
