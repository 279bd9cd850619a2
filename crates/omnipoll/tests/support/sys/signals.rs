//! Signals: their handlers, and how they are sent.

use std::mem::zeroed;
use std::time::Duration;

use super::check;

/// Has SIGALRM end this process when it lasts longer. A forked child needs its own.
pub(crate) fn end_after_seconds(seconds: u32) {
    // SAFETY: takes no pointer.
    unsafe { libc::alarm(seconds) };
}

/// Has `handler` called for that signal. System calls are not restarted after it.
pub(crate) fn on_signal(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: all zeroes is an empty mask and no flags.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = handler as usize;
    // SAFETY: the action lives through the call and the handler indefinitely.
    check(unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) }, "sigaction");
}

/// What is called for that signal: a handler, or what stands for ignoring it or the default.
pub(crate) fn handler_of(signal: libc::c_int) -> libc::sighandler_t {
    // SAFETY: sigaction is plain old data, for which all zeroes is a value.
    let mut action: libc::sigaction = unsafe { zeroed() };
    // SAFETY: the action is writable during the call.
    check(unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) }, "sigaction");
    action.sa_sigaction
}

/// Sends a signal to one thread of this process.
pub(crate) fn signal_thread(thread: libc::pid_t, signal: libc::c_int) {
    signal_thread_in(std::process::id() as libc::pid_t, thread, signal);
}

/// Sends a signal to one thread of another process.
pub(crate) fn signal_thread_in(process: libc::pid_t, thread: libc::pid_t, signal: libc::c_int) {
    // SAFETY: takes no pointer.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
    check(result as libc::c_int, "tgkill");
}

/// Sends the signal to this process every `period` from now on: indefinitely, for one that handles it.
pub(crate) fn send_every(period: Duration, signal: libc::c_int) {
    // SAFETY: all zeroes is a sigevent that sends no signal yet.
    let mut event: libc::sigevent = unsafe { zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = signal;
    // SAFETY: all zeroes is a null timer.
    let mut timer: libc::timer_t = unsafe { zeroed() };
    // SAFETY: both live through the call.
    check(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) }, "timer_create");
    let every = libc::timespec { tv_sec: 0, tv_nsec: period.subsec_nanos().into() };
    let times = libc::itimerspec { it_interval: every, it_value: every };
    // SAFETY: the timer was just made, and the times live through the call.
    check(unsafe { libc::timer_settime(timer, 0, &times, std::ptr::null_mut()) }, "timer_settime");
}
