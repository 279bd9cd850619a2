//! Notices that the process has been forked, at the price of one load a call.
//!
//! `getpid(2)` would be a system call each time. `pthread_atfork(3)` counts instead, in the
//! child; a child made by a bare `clone(2)` system call, past libc, is not noticed.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;

use super::signal;
use crate::error::fail;

static FORKS: AtomicU32 = AtomicU32::new(0);
static OBSERVER: OnceLock<libc::c_int> = OnceLock::new();

extern "C" fn before() {
    signal::before_fork();
}

extern "C" fn in_parent() {
    signal::after_fork(false);
}

extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    signal::after_fork(true);
}

/// Starts counting. Called before the first poller is made; `ENOMEM` is its only error.
pub(crate) fn observe() -> io::Result<()> {
    // SAFETY: the handlers are static functions that neither unwind nor call back.
    let observe = || unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    match *OBSERVER.get_or_init(observe) {
        0 => Ok(()),
        errno => Err(fail(errno, "pthread_atfork failed")),
    }
}

/// How many forks this process is away from the one that loaded the library.
#[inline]
pub(crate) fn count() -> u32 {
    FORKS.load(Ordering::Relaxed)
}
