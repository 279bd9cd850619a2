//! [`Poller::stats`]: how much a poller has done, and what it holds.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Poller;
use crate::event::EventKind;

/// What a poller holds, and what it has done since it was made (in a forked child, since
/// [`Poller::after_fork`]). Taken piece by piece while other threads continue: the numbers may
/// be some moments apart.
///
/// See the example of [`Poller::stats`].
///
/// # Portability
///
/// The same on every system and engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Descriptors registered now.
    pub registrations: u64,
    /// Timers armed now, wall-clock ones among them.
    pub timers: u64,
    /// Signals watched now.
    pub signals: u64,
    /// Children watched now.
    pub children: u64,
    /// Posts that wait to be taken now.
    pub posts: u64,
    /// Waits begun.
    pub waits: u64,
    /// System calls made by the waits: one for each, and one more after every one that brought
    /// nothing. Those of changes (`epoll_ctl(2)`) and of waking others are not counted.
    pub system_calls: u64,
    /// System calls of a wait that returned, though its time was not up, without an
    /// event: another thread's change, an event that another thread took, an interruption.
    pub spurious: u64,
    /// IO events delivered; wraps after 2^42 of them.
    pub io_events: u64,
    /// TIMER events delivered.
    pub timer_events: u64,
    /// SIGNAL events delivered.
    pub signal_events: u64,
    /// CHILD events delivered.
    pub child_events: u64,
    /// WAKE events delivered.
    pub wake_events: u64,
    /// POST events delivered.
    pub post_events: u64,
    /// The longest time a thread took from a wait that returned events to its next wait. Only
    /// measured in [strict mode](crate::Options::strict), `None` otherwise.
    pub longest_dispatch: Option<Duration>,
}

impl Poller {
    /// How much there is, and how much was done. Counts without a system call; takes the locks
    /// of registrations and sources for a moment, and time in proportion to the registrations.
    ///
    /// `EOWNERDEAD` in a forked child before [`Poller::after_fork`].
    ///
    /// # Portability
    ///
    /// The same on every system.
    ///
    /// ```
    /// use omnipoll::{Events, Poller};
    /// use std::time::Duration;
    ///
    /// let poller = Poller::new()?;
    /// poller.wake()?;
    /// poller.wait(&mut Events::with_capacity(8), Some(Duration::ZERO))?;
    /// let stats = poller.stats()?;
    /// assert_eq!((stats.waits, stats.wake_events, stats.io_events), (1, 1, 0));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn stats(&self) -> io::Result<Stats> {
        self.check_owner()?;
        let registrations = self.registry().registrations().count() as u64;
        let longest_dispatch = self.strict.as_ref().map(|strict| strict.longest_dispatch());
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        // Read before the rounds, they never outnumber them: each is counted after a round has begun.
        let (retries, skipped) = (count(&self.counters.retries), count(&self.counters.skipped));
        let state = self.sources.state();
        let (rounds, io_events) = self.sources.rounds();
        let delivered = |kind: EventKind| state.delivered[kind as usize];
        Ok(Stats {
            registrations,
            timers: (state.timers.len() + state.wall_timers.len()) as u64,
            signals: state.signals.len() as u64,
            children: state.children.len() as u64,
            posts: state.posts.len() as u64,
            waits: rounds - retries,
            system_calls: rounds - skipped + count(&self.counters.looks),
            spurious: count(&self.counters.spurious),
            io_events: io_events + delivered(EventKind::Io),
            timer_events: delivered(EventKind::Timer),
            signal_events: delivered(EventKind::Signal),
            child_events: delivered(EventKind::Child),
            wake_events: delivered(EventKind::Wake),
            post_events: delivered(EventKind::Post),
            longest_dispatch,
        })
    }
}
