//! Detects that the process has been forked, at the cost of one load a call.
//!
//! An epoch, a number that each process has to itself, is on a page that the kernel gives to a forked child full of zeros
//! (`MADV_WIPEONFORK`, Linux 4.14), whatever made the child: `fork(2)`, `_Fork(3)`, a bare
//! `clone(2)`, in a signal handler or at the end of a thread. Elsewhere `pthread_atfork(3)` clears
//! the number, which misses `_Fork(3)` and `clone(2)`.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::error::fail;

/// At least the pages of every system of that architecture: those of .bss are anonymous memory.
const PAGE: usize = if cfg!(any(target_arch = "x86_64", target_arch = "x86")) { 4_096 } else { 65_536 };

#[cfg_attr(any(target_arch = "x86_64", target_arch = "x86"), repr(C, align(4096)))]
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "x86")), repr(C, align(65536)))]
struct Page {
    /// What [`epoch`] says; 0 in a child that hasn't been asked yet.
    epoch: AtomicU32,
    _rest: [u8; PAGE - size_of::<AtomicU32>()],
}

static WIPED: Page = Page { epoch: AtomicU32::new(0), _rest: [0; PAGE - size_of::<AtomicU32>()] };
/// The highest number given out in this process and its ancestors. A child inherits it.
static LAST: AtomicU32 = AtomicU32::new(0);
static OBSERVED: AtomicBool = AtomicBool::new(false);

/// Touches one atomic, so that it may run at any moment of any thread.
extern "C" fn in_child() {
    WIPED.epoch.store(0, Ordering::Relaxed);
}

/// Starts detection. Called before the first poller is made; `ENOMEM` is its only error.
pub(crate) fn observe() -> io::Result<()> {
    // No lock: a child that is forked meanwhile could never take it. Two threads may do it twice.
    if OBSERVED.load(Ordering::Acquire) {
        return Ok(());
    }
    if !wipe_on_fork() {
        // SAFETY: the handler is a static function that neither unwinds nor calls back.
        match unsafe { libc::pthread_atfork(None, None, Some(in_child)) } {
            0 => {}
            errno => return Err(fail(errno, "pthread_atfork failed")),
        }
    }
    OBSERVED.store(true, Ordering::Release);
    Ok(())
}

/// Asks the kernel to clear the page in forked children; `false` where it can't.
///
/// qemu-user accepts whatever it is asked, and does nothing (7.2 in Debian 12). What no kernel knows is
/// therefore asked first, and has to be refused.
#[cfg(target_os = "linux")]
fn wipe_on_fork() -> bool {
    const UNKNOWN: libc::c_int = -1;
    let is_accepted = |advice| {
        // SAFETY: the page is ours alone, and stays as it is in this process.
        unsafe { libc::madvise((&raw const WIPED).cast_mut().cast(), PAGE, advice) == 0 }
    };
    !is_accepted(UNKNOWN) && is_accepted(libc::MADV_WIPEONFORK)
}

#[cfg(not(target_os = "linux"))]
fn wipe_on_fork() -> bool {
    false
}

/// A number that this process has and none of its ancestors had; never 0. Async-signal-safe.
#[inline]
pub(crate) fn epoch() -> u32 {
    match cached_epoch() {
        0 => new_epoch(),
        epoch => epoch,
    }
}

/// The same, or 0 in a child in which [`epoch`] was not called yet.
#[inline]
pub(crate) fn cached_epoch() -> u32 {
    WIPED.epoch.load(Ordering::Relaxed)
}

#[cold]
fn new_epoch() -> u32 {
    // In this order: a child that is forked in between has a number that is higher still.
    let next = LAST.fetch_add(1, Ordering::SeqCst) + 1;
    match WIPED.epoch.compare_exchange(0, next, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => next,
        Err(faster) => faster,
    }
}
