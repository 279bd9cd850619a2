//! What a poller waits for besides descriptors: timers, signals, children, posts.

use std::ffi::c_int;
use std::time::{Duration, SystemTime};

use crate::error::Failure;
use crate::poller::{call, omni_poller};

/// Arms a timer: an event of kind OMNI_EVENT_TIMER when `delay_ns` nanoseconds have passed, and
/// again after each `period_ns`; a period of 0 is none. Its id, which is never 0, is stored in
/// `*id`; with NULL nobody can change or cancel it.
///
/// Measured on the monotonic clock, and never early. The soonest is told first, and of two with
/// the same deadline the older. A periodic timer that is late is told once, with how many of
/// its periods have passed; the next one is on time. Without a period it ends when it is told.
///
/// Returns 0, or:
///   -EINVAL: `poller` is NULL; `delay_ns` or `period_ns` is negative.
///   -EOWNERDEAD, -ESTALE, -ENOTRECOVERABLE: as for `omni_poller_add`.
///
/// May be called from any thread. System calls: none, but a write to an eventfd where a thread
/// waits that must get up sooner now.
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

/// Arms a timer for a time of the wall clock, in nanoseconds since 1970 began (UTC); it follows
/// the clock when somebody sets that, forth and back. A time that has passed is told at once. The
/// event is one of `omni_poller_timer_add`; `id` is as there.
///
/// Returns 0, or:
///   -EINVAL: `poller` is NULL; `unix_ns` is negative.
///   -ENOTSUP: the system is not Linux.
///   -EMFILE, -ENFILE, -ENOMEM, -ENOSPC: the poller's first such timer takes a descriptor of the
///       poller's own, which the system refused or could not watch.
///   -EOWNERDEAD, -ESTALE, -ENOTRECOVERABLE: as for `omni_poller_add`.
///
/// May be called from any thread. System calls: timerfd_create for the first one, timerfd_settime
/// when it is the soonest.
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

/// Moves a timer: it expires when `delay_ns` from now have passed, and then has this period, or
/// none. Token and id stay. A timer that has expired is armed again, also while its event is in
/// a batch that was not looked at yet: so an idle timer is put off by what comes in that batch.
///
/// Returns 0, or, with nothing changed:
///   -ESTALE: no timer has this id: it was cancelled, or has expired and 65,536 others after it; or
///       the poller was freed.
///   -EINVAL: as for `omni_poller_timer_add`; or the timer is one of `omni_poller_timer_add_at`: cancel it and
///       add another.
///   -EOWNERDEAD, -ENOTRECOVERABLE: as for `omni_poller_add`.
///
/// May be called from any thread. System calls: as for `omni_poller_timer_add`.
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

/// Disarms a timer: no wait that begins later tells it. Its id is not used again before two
/// thousand million timers were in its place.
///
/// Returns 0, or:
///   -ESTALE: no timer of this id is armed: it has expired or was cancelled; or the poller was
///       freed. The id is stale from now on.
///   -EINVAL: `poller` is NULL.
///   -EOWNERDEAD, -ENOTRECOVERABLE: as for `omni_poller_add`.
///
/// May be called from any thread. Makes no system call.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_timer_cancel(poller: *mut omni_poller, id: u64) -> c_int {
    call("omni_poller_timer_cancel", poller, |poller| {
        poller.timer_cancel(id)?;
        Ok(0)
    })
}

/// Turns a signal into events of kind OMNI_EVENT_SIGNAL, whichever thread of the process gets it.
/// A signal that comes several times before it is told is one event, with how often in `ready`.
/// (The system itself keeps one of each standard signal while it is blocked or being handled.)
///
/// Several pollers may watch one signal; each is told. The signal's disposition is replaced by a
/// handler, with SA_RESTART, until the last of them stops to watch it or is freed; then it is as
/// it was. Don't set it with sigaction meanwhile, and don't block it in every thread.
///
/// Returns 0, or, with nothing changed:
///   -EEXIST: this poller watches the signal.
///   -EINVAL: `poller` is NULL; no signal has this number; SIGKILL and SIGSTOP, which nobody can
///       catch; SIGSEGV, SIGBUS, SIGFPE and SIGILL, after which nobody could go on.
///   -EOWNERDEAD, -ESTALE, -ENOTRECOVERABLE: as for `omni_poller_add`.
///
/// May be called from any thread. System calls: sigaction.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_signal_add(poller: *mut omni_poller, signo: c_int, token: u64) -> c_int {
    call("omni_poller_signal_add", poller, |poller| {
        poller.signal_add(signo, token)?;
        Ok(0)
    })
}

/// Watches a signal no more. What of it was not told is dropped. When no other poller watches
/// it, its former disposition is restored, unless somebody has set another one since.
///
/// Returns 0, or:
///   -ENOENT: this poller does not watch the signal.
///   -EINVAL: `poller` is NULL.
///   -EOWNERDEAD, -ESTALE, -ENOTRECOVERABLE: as for `omni_poller_add`.
///
/// May be called from any thread. System calls: sigaction.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_signal_remove(poller: *mut omni_poller, signo: c_int) -> c_int {
    call("omni_poller_signal_remove", poller, |poller| {
        poller.signal_remove(signo)?;
        Ok(0)
    })
}

/// Watches for the end of a child of this process: one event of kind OMNI_EVENT_CHILD with its
/// wait status. The library reaps the child then, and the watch is over. A child that has ended
/// already, and was not reaped, is told by the next wait.
///
/// Don't wait for the child yourself, and don't ignore SIGCHLD: the status would be lost, and
/// the event's value -1. Other children are not touched.
///
/// Returns 0, or, with nothing changed:
///   -ECHILD: this process has no such child, or it was reaped.
///   -EEXIST: this poller watches the child.
///   -EINVAL: `poller` is NULL.
///   -EMFILE, -ENFILE, -ENOMEM, -ENOSPC: each watched child takes a descriptor of the poller's
///       own, which the system refused or could not watch.
///   -EOWNERDEAD, -ESTALE, -ENOTRECOVERABLE: as for `omni_poller_add`.
///
/// May be called from any thread. System calls: waitid, pidfd_open (Linux 5.3; sigaction of
/// SIGCHLD before that), and those of `omni_poller_add`.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_child_add(poller: *mut omni_poller, pid: c_int, token: u64) -> c_int {
    call("omni_poller_child_add", poller, |poller| {
        poller.child_add(pid, token)?;
        Ok(0)
    })
}

/// Forgets a child without reaping it: it is the caller's to wait for again.
///
/// Returns 0, or:
///   -ENOENT: this poller does not watch the child: its end was told, maybe.
///   -EINVAL: `poller` is NULL.
///   -EOWNERDEAD, -ESTALE, -ENOTRECOVERABLE: as for `omni_poller_add`.
///
/// May be called from any thread. System calls: close, and those of `omni_poller_remove`.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_child_remove(poller: *mut omni_poller, pid: c_int) -> c_int {
    call("omni_poller_child_remove", poller, |poller| {
        poller.child_remove(pid)?;
        Ok(0)
    })
}

/// Hands a value to whoever waits: an event of kind OMNI_EVENT_POST with this token and value,
/// told once, to one thread. Posts are told in the order they were made, and none is lost.
///
/// `value` may be a pointer (`(int64_t)(intptr_t)result`): what the posting thread wrote before,
/// the waiting one reads after. Posts that nobody took are dropped by `omni_poller_free`.
///
/// Returns 0, or, with nothing posted:
///   -EAGAIN: 65,536 posts wait to be taken. Post again when some of them were.
///   -EINVAL: `poller` is NULL.
///   -EOWNERDEAD, -ESTALE, -ENOTRECOVERABLE: as for `omni_poller_add`.
///
/// May be called from any thread, but not from a signal handler: `omni_poller_wake` may. System calls: a
/// write to an eventfd where a thread waits.
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

/// Tells the caller an id, if it was asked for.
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
