//! [`WaitPolicy`]: what a wait does before it sleeps.

use std::time::Duration;

/// What a wait does with the time before its thread sleeps, or before it returns: the one choice between a
/// quick answer and little processor time that the system calls leave open.
///
/// An option of [pollers](crate::Options::wait_policy), [loops](crate::LoopOptions::wait_policy) and
/// [servers](crate::ServerOptions::wait_policy). A wait without time, which looks and returns, is the same
/// under each of them, and so is one by an outer loop.
///
/// # Portability
///
/// The same on every system and engine, but for the network devices that [`Latency`](Self::Latency) polls.
/// The clock is read for each wait with a policy.
///
/// ```
/// use omnipoll::{EventKind, Events, Options, WaitPolicy};
/// use std::time::{Duration, Instant};
///
/// let min_wait = Duration::from_millis(2);
/// let poller = Options::new().wait_policy(WaitPolicy::Thrifty { min_wait }).build()?;
/// poller.post(1, 0)?;
/// poller.post(2, 0)?;
/// let began = Instant::now();
/// assert_eq!(poller.wait(&mut Events::with_capacity(8), None)?, 2);
/// assert!(began.elapsed() >= min_wait);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitPolicy {
    /// A wait sleeps until there is something to report, and returns it at once.
    #[default]
    Balanced,
    /// A wait looks again and again for as long as `spin`, and sleeps only then: an event that comes within
    /// this time does not have to wake the thread.
    ///
    /// It costs the processor time of up to `spin` for each wait, a system call for each look, and a core
    /// that others could use: only for threads that have a core of their own. If the poller can be
    /// interrupted, or is a loop's, its thread holds signals back while it spins, for which a wait that finds
    /// nothing at its first look makes three system calls more; another thread that takes a signal may get it
    /// meanwhile.
    ///
    /// Before it sleeps the kernel, too, looks for as long at the queue of the network device that
    /// something watched last received from: on epoll and io_uring from Linux 6.9 on, where the device
    /// has such a queue (NAPI; the loopback device has none).
    #[doc(alias = "SO_BUSY_POLL")]
    #[doc(alias = "EPIOCSPARAMS")]
    #[doc(alias = "IORING_REGISTER_NAPI")]
    Latency {
        /// How long. Zero is [`Balanced`](Self::Balanced).
        spin: Duration,
    },
    /// A wait does not return before `min_wait` has passed since it began, and reports all that has come by
    /// then; what comes later ends it at once. So a thread wakes at most once in this time.
    ///
    /// What comes is reported up to `min_wait` later than otherwise, wakes, posts, stops, and timers that
    /// another thread has armed meanwhile too. The wait's own timeout and the timers that were armed when
    /// it began are on time, and a signal ends the wait of a poller that can be interrupted. A connection
    /// is read once for each wait: 64 KiB at most in this time.
    ///
    /// A system call more for each wait; in the ring of a loop on io_uring none from Linux 6.12 on.
    #[doc(alias = "min_wait_usec")]
    #[doc(alias = "io_uring_enter")]
    Thrifty {
        /// How long. Zero is [`Balanced`](Self::Balanced).
        min_wait: Duration,
    },
}

impl WaitPolicy {
    /// Whether a wait does nothing but sleep.
    pub(crate) fn is_balanced(self) -> bool {
        match self {
            Self::Balanced => true,
            Self::Latency { spin: time } | Self::Thrifty { min_wait: time } => time.is_zero(),
        }
    }

    /// How long the kernel is to look at a network device's queue before it lets a thread sleep.
    pub(crate) fn busy_poll(self) -> Option<Duration> {
        match self {
            Self::Latency { spin } if !spin.is_zero() => Some(spin),
            _ => None,
        }
    }
}
