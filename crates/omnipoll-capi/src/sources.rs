//! What a poller waits for besides descriptors: timers, signals, children, posts.

use std::ffi::c_int;
use std::time::{Duration, SystemTime};

use libc::pid_t;

use crate::error::Failure;
use crate::poller::call;
use crate::types::omni_poller;

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Starts a timer: an event of kind OMNI_EVENT_TIMER when `delay_ns` nanoseconds have passed, and
/// again after each `period_ns`, if that is not 0. Its id, which is never 0, is stored in `*id`,
/// unless that is NULL.
///
/// The time is measured on the monotonic clock and never too short. Timers are returned in the
/// order of their deadlines; of two with the same deadline the older comes first. A periodic timer
/// that is late is returned once, with the number of periods that have passed; the next one is on
/// time. One without a period ends when it is returned.
///
/// Returns 0, or:
///   -EINVAL: `delay_ns` or `period_ns` is negative.
///
/// System calls: none; a write to an eventfd where a thread waits that must return sooner now.
/// Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_poller_timer_add(
    poller: *mut omni_poller,
    delay_ns: i64,
    period_ns: i64,
    token: u64,
    id: *mut u64,
) -> c_int {
    call("omni_poller_timer_add", poller, |poller| {
        let new = poller.timer_add(delay(delay_ns)?, period(period_ns)?, token)?;
        // SAFETY: NULL or a place for an id by this function's contract.
        unsafe { store(id, new) };
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Starts a timer for a time of the wall clock, in nanoseconds since 1970-01-01 (UTC). It follows
/// the clock when that is set, in both directions. A time that has passed expires at once. The
/// event and `id` are as for `omni_poller_timer_add`.
///
/// Returns 0, or:
///   -EINVAL: `unix_ns` is negative.
///   -ENOTSUP: the system is not Linux.
///   -EMFILE, -ENFILE, -ENOSPC: the poller's first such timer takes a descriptor of the poller's
///       own, which the system refused or could not watch.
///
/// System calls: timerfd_create for the first one, timerfd_settime when it is the soonest. Since
/// 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_poller_timer_add_at(
    poller: *mut omni_poller,
    unix_ns: i64,
    token: u64,
    id: *mut u64,
) -> c_int {
    call("omni_poller_timer_add_at", poller, |poller| {
        let since = nanoseconds(unix_ns, "unix_ns is negative: a time before 1970")?;
        let new = poller.timer_add_at(SystemTime::UNIX_EPOCH + since, token)?;
        // SAFETY: as in omni_poller_timer_add.
        unsafe { store(id, new) };
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Moves a timer: it expires when `delay_ns` from now have passed, and then has this period, or
/// none. Token and id stay. A timer that has expired starts again, even while its event is in a
/// batch that was not handled yet: so an idle timer is put off by what arrives in the same batch.
///
/// Returns 0, or:
///   -ESTALE: no timer has this id: it was cancelled, or has expired and 65,536 others after it.
///   -EINVAL: as for `omni_poller_timer_add`; or the timer is one of `omni_poller_timer_add_at`:
///       cancel it and add another.
///
/// System calls: as for `omni_poller_timer_add`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_timer_set(
    poller: *mut omni_poller,
    id: u64,
    delay_ns: i64,
    period_ns: i64,
) -> c_int {
    call("omni_poller_timer_set", poller, |poller| {
        poller.timer_set(id, delay(delay_ns)?, period(period_ns)?)?;
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Cancels a timer: no wait that begins later returns it. Its id is not used again before two
/// thousand million timers were in its place.
///
/// Returns 0, or:
///   -ESTALE: no timer of this id is armed: it has expired or was cancelled. The id is stale from
///       now on.
///
/// System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_timer_cancel(poller: *mut omni_poller, id: u64) -> c_int {
    call("omni_poller_timer_cancel", poller, |poller| {
        poller.timer_cancel(id)?;
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Turns a signal into events of kind OMNI_EVENT_SIGNAL, whichever thread of the process gets it. A
/// signal that arrives several times before it is returned is one event, with the count in `ready`.
/// (The kernel itself keeps one of each standard signal while it is blocked or being handled.)
///
/// Several pollers may watch one signal, and each returns it. The signal's disposition is replaced
/// by a handler, with SA_RESTART, until the last of them stops watching or is freed; then it is
/// restored. Don't set it with sigaction meanwhile, and don't block it in every thread.
///
/// Returns 0, or:
///   -EEXIST: this poller watches the signal.
///   -EINVAL: no signal has this number; SIGKILL and SIGSTOP, which can't be caught; SIGSEGV,
///       SIGBUS, SIGFPE and SIGILL, after which the program can't continue.
///
/// System calls: sigaction. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_signal_add(poller: *mut omni_poller, signo: c_int, token: u64) -> c_int {
    call("omni_poller_signal_add", poller, |poller| {
        poller.signal_add(signo, token)?;
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Stops watching a signal. Events of it that were not returned yet are dropped. When no other
/// poller watches it, its former disposition is restored, unless another one was set since.
///
/// Returns 0, or:
///   -ENOENT: this poller doesn't watch the signal.
///
/// System calls: sigaction. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_signal_remove(poller: *mut omni_poller, signo: c_int) -> c_int {
    call("omni_poller_signal_remove", poller, |poller| {
        poller.signal_remove(signo)?;
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Watches for the end of a child of this process: one event of kind OMNI_EVENT_CHILD with its wait
/// status. The library then reaps the child and stops watching. A child that has ended already, and
/// was not reaped, is returned by the next wait.
///
/// Don't wait for the child yourself, and don't ignore SIGCHLD: the status would be lost, and the
/// event's value -1. Other children are not touched.
///
/// Returns 0, or:
///   -ECHILD: this process has no such child, or it was reaped.
///   -EEXIST: this poller watches the child.
///   -EMFILE, -ENFILE, -ENOSPC: each watched child takes a descriptor of the poller's own, which
///       the system refused or could not watch.
///
/// System calls: waitid, pidfd_open (Linux 5.3; sigaction of SIGCHLD before), and those of
/// `omni_poller_add`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_child_add(poller: *mut omni_poller, pid: pid_t, token: u64) -> c_int {
    call("omni_poller_child_add", poller, |poller| {
        poller.child_add(pid, token)?;
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Stops watching a child without reaping it: it is the caller's to wait for again.
///
/// Returns 0, or:
///   -ENOENT: this poller doesn't watch the child; its end may have been returned.
///
/// System calls: close, and those of `omni_poller_remove`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_child_remove(poller: *mut omni_poller, pid: pid_t) -> c_int {
    call("omni_poller_child_remove", poller, |poller| {
        poller.child_remove(pid)?;
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Passes a value to the waiting thread: an event of kind OMNI_EVENT_POST with this token and
/// value, returned once, by one wait. Posts are returned in their order, and none is lost.
///
/// `value` may be a pointer, `(int64_t)(intptr_t)result`: what the posting thread wrote before, the
/// waiting one reads. Posts that no wait has returned are dropped by `omni_poller_free`.
///
/// Returns 0, or:
///   -EAGAIN: 65,536 posts are waiting. Post again when some were returned.
///
/// Not for signal handlers, which may call `omni_poller_wake`. System calls: a write to an eventfd
/// where a thread waits. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_post(poller: *mut omni_poller, token: u64, value: i64) -> c_int {
    call("omni_poller_post", poller, |poller| {
        poller.post(token, value)?;
        Ok(0)
    })
}

fn delay(delay_ns: i64) -> Result<Duration, Failure> {
    nanoseconds(delay_ns, "delay_ns is negative")
}

fn period(period_ns: i64) -> Result<Option<Duration>, Failure> {
    let period = nanoseconds(period_ns, "period_ns is negative")?;
    Ok((!period.is_zero()).then_some(period))
}

fn nanoseconds(count: i64, complaint: &'static str) -> Result<Duration, Failure> {
    let count = u64::try_from(count).map_err(|_| Failure::new(libc::EINVAL, complaint))?;
    Ok(Duration::from_nanos(count))
}

/// Stores an id for the caller, if it was asked for.
///
/// # Safety
///
/// `place` is NULL or may be written to.
unsafe fn store(place: *mut u64, id: u64) {
    if !place.is_null() {
        // SAFETY: the caller's contract.
        unsafe { place.write(id) };
    }
}
