//! Wait policies: what a wait does before it sleeps.

use std::time::Duration;

use omnipoll::WaitPolicy;

use crate::error::Failure;

/// Wait policy: a wait sleeps until there is something to report, and returns it at once.
pub const OMNI_WAIT_BALANCED: u32 = 0;
/// Wait policy: a wait looks again and again for as long as `wait_ns`, and sleeps only then: what comes
/// within this time does not have to wake the thread. It costs a system call for each look, and
/// the processor time of up to `wait_ns` for each wait, on a core that others could use. Signals are held
/// back meanwhile under OMNI_INTERRUPTIBLE, and in loops and servers. From Linux 6.9 on, with epoll and
/// io_uring, the kernel looks for as long at the queue of the network device (NAPI), if it has one, before
/// the thread sleeps.
pub const OMNI_WAIT_LATENCY: u32 = 1;
/// Wait policy: a wait does not return before `wait_ns` have passed since it began, and reports all that has
/// come by then; what comes later ends it at once. So a thread wakes at most once in this time. What
/// comes is reported up to `wait_ns` later than otherwise: wakes, posts, stops, and timers that another
/// thread has armed meanwhile too. The wait's own timeout and the timers that were armed when it began are on
/// time, and under OMNI_INTERRUPTIBLE a signal ends it. A connection is read once for each wait, 64 KiB at
/// most. It costs one system call more for each wait; in loops and servers on io_uring none from Linux 6.12 on.
pub const OMNI_WAIT_THRIFTY: u32 = 2;

/// The policy of that number.
pub(crate) fn wait_policy(number: u32, nanoseconds: i64) -> Result<WaitPolicy, Failure> {
    let time = u64::try_from(nanoseconds).ok().filter(|&time| time > 0).map(Duration::from_nanos);
    match (number, time) {
        (OMNI_WAIT_BALANCED, _) if nanoseconds == 0 => Ok(WaitPolicy::Balanced),
        (OMNI_WAIT_LATENCY, Some(spin)) => Ok(WaitPolicy::Latency { spin }),
        (OMNI_WAIT_THRIFTY, Some(min_wait)) => Ok(WaitPolicy::Thrifty { min_wait }),
        (OMNI_WAIT_BALANCED, _) => Err(Failure::new(libc::EINVAL, "wait_ns is set without a wait policy")),
        (OMNI_WAIT_LATENCY | OMNI_WAIT_THRIFTY, None) => {
            Err(Failure::new(libc::EINVAL, "the wait policy needs a wait_ns above 0"))
        }
        _ => Err(Failure::new(libc::EINVAL, "there is no wait policy of that number")),
    }
}
