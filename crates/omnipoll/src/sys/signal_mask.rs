//! The signals that a thread does not take: pthread_sigmask(3).

use std::mem::MaybeUninit;

/// The highest number of a signal on the systems there are: Linux's `_NSIG`, on MIPS twice as much.
const MAX_SIGNAL: libc::c_int = 64;

/// Calls `body` with every signal blocked in this thread. A thread that is begun meanwhile inherits the
/// mask, and takes no signal for as long as it lives.
pub(crate) fn with_all_blocked<T>(body: impl FnOnce() -> T) -> T {
    with_all_blocked_before(|_| body())
}

/// The same; `body` gets the mask there was before.
fn with_all_blocked_before<T>(body: impl FnOnce(&libc::sigset_t) -> T) -> T {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are writable, and sigfillset makes the first a valid one.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    // SAFETY: pthread_sigmask has filled it; it fails only for an unknown operation.
    let before = unsafe { before.assume_init() };
    let done = body(&before);
    // SAFETY: the set is valid.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    done
}

/// Calls `body` with every signal blocked in this thread, and says whether one came meanwhile that was not
/// blocked before. Its handler has run then, if it has one.
pub(crate) fn with_all_held_back<T>(body: impl FnOnce() -> T) -> (T, bool) {
    with_all_blocked_before(|before| (body(), has_come(before)))
}

/// Whether a signal is pending that is not in this set.
fn has_come(blocked: &libc::sigset_t) -> bool {
    let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is writable, and cleared before what it has is read. Both sets are valid, and a number
    // that is no signal's is in none.
    unsafe {
        libc::sigemptyset(pending.as_mut_ptr());
        libc::sigpending(pending.as_mut_ptr());
        (1..=MAX_SIGNAL).any(|signal| {
            libc::sigismember(pending.as_ptr(), signal) == 1 && libc::sigismember(blocked, signal) == 0
        })
    }
}
