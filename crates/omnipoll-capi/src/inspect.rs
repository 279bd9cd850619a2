//! What is inside a poller: counts, and a list of its registrations.

use std::ffi::{c_char, c_int};
use std::fmt::Write;
use std::mem::offset_of;

use omnipoll::Stats;

use crate::buffer::write_str;
use crate::error::Failure;
use crate::poller::call;
use crate::sized::{self, Sized32};
use crate::types::omni_poller;

/// What a poller holds, and what it has done since it was made, or since `omni_poller_after_fork`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
#[repr(C)]
pub struct omni_poller_statistics {
    /// Set it to sizeof(omni_poller_statistics) before the call. After it: how much of the struct is
    /// filled in, which is less when the library is older than the header.
    pub size: u32,
    /// Signals watched now.
    pub signals: u32,
    /// Descriptors registered now.
    pub registrations: u64,
    /// Timers armed now.
    pub timers: u64,
    /// Children watched now.
    pub children: u64,
    /// Posts that wait to be returned now.
    pub posts: u64,
    /// Waits begun.
    pub waits: u64,
    /// System calls made by the waits: one for each, and one more after every one that returned
    /// nothing.
    pub system_calls: u64,
    /// System calls of a wait that returned before its time was up, but without an event.
    pub spurious: u64,
    /// Events of kind OMNI_EVENT_IO returned; wraps after 2^42 of them.
    pub io_events: u64,
    /// Events of kind OMNI_EVENT_TIMER returned.
    pub timer_events: u64,
    /// Events of kind OMNI_EVENT_SIGNAL returned.
    pub signal_events: u64,
    /// Events of kind OMNI_EVENT_CHILD returned.
    pub child_events: u64,
    /// Events of kind OMNI_EVENT_WAKE returned.
    pub wake_events: u64,
    /// Events of kind OMNI_EVENT_POST returned.
    pub post_events: u64,
    /// The longest time a thread took from a wait that returned events to its next wait, in
    /// nanoseconds. Measured under OMNI_STRICT only; -1 without it.
    pub longest_dispatch_ns: i64,
}

// SAFETY: as declared above; each zero is a number's.
unsafe impl Sized32 for omni_poller_statistics {
    const MIN_SIZE: usize = offset_of!(Self, longest_dispatch_ns) + size_of::<i64>();
    const UNSET: &'static str = "out->size is not set";
}

/// cbindgen:postfix=OMNI_NONNULL(1,2)
/// Stores in `*out` what a poller holds and has done. Other threads are not stopped meanwhile: the
/// numbers may be of slightly different moments.
///
/// Returns 0, or:
///   -EINVAL: `out->size` is no version's.
///
/// System calls: none. Takes time in proportion to the registrations. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_poller_stats(
    poller: *mut omni_poller,
    out: *mut omni_poller_statistics,
) -> c_int {
    call("omni_poller_stats", poller, |poller| {
        if out.is_null() {
            return Err(Failure::new(libc::EINVAL, "out is NULL"));
        }
        // SAFETY: not NULL, and so a struct of the size it says by this function's contract.
        unsafe { sized::write(&stats(&poller.stats()?), out) }?;
        Ok(0)
    })
}

fn stats(stats: &Stats) -> omni_poller_statistics {
    let nanoseconds = |time: std::time::Duration| time.as_nanos().try_into().unwrap_or(i64::MAX);
    omni_poller_statistics {
        size: 0,
        signals: stats.signals as u32,
        registrations: stats.registrations,
        timers: stats.timers,
        children: stats.children,
        posts: stats.posts,
        waits: stats.waits,
        system_calls: stats.system_calls,
        spurious: stats.spurious,
        io_events: stats.io_events,
        timer_events: stats.timer_events,
        signal_events: stats.signal_events,
        child_events: stats.child_events,
        wake_events: stats.wake_events,
        post_events: stats.post_events,
        longest_dispatch_ns: stats.longest_dispatch.map_or(-1, nanoseconds),
    }
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Writes what a poller watches as text for people, a line for each registration, the lowest
/// descriptor first: the descriptor, what it is, token, interest, what is armed; and under
/// OMNI_STRICT its age and last event. The text may change with each version.
///
/// Works like snprintf(3): writes at most `capacity` bytes to `buffer`, including a final zero.
/// `buffer` may be NULL when `capacity` is 0.
///
/// Returns the length of the whole text without the zero, whether there was room for it or not, or
/// an error. System calls: readlink for each registration. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_poller_dump(
    poller: *mut omni_poller,
    buffer: *mut c_char,
    capacity: usize,
) -> c_int {
    call("omni_poller_dump", poller, |poller| {
        let mut text = String::new();
        for registered in poller.dump()? {
            let _ = writeln!(text, "{registered}");
        }
        // SAFETY: as this function's contract says.
        unsafe { write_str(&text, buffer, capacity) }
    })
}
