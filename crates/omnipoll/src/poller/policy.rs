//! Waits that are special: of strict pollers, of those with a [`WaitPolicy`], and of other processes.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::deadline::Deadline;
use super::wait::zero_capacity;
use super::Poller;
use crate::before_sleep;
use crate::error::plain;
use crate::event::Event;
use crate::sys::{poll, signal_mask};
use crate::WaitPolicy;

impl Poller {
    /// A wait that [is special](Self::is_special).
    #[cold]
    pub(super) fn wait_specially(
        &self,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        self.check_owner()?;
        if events.is_empty() {
            return Err(zero_capacity());
        }
        if timeout == Some(Duration::ZERO) {
            return self.wait_plainly(events, timeout);
        }
        match self.wait_policy {
            WaitPolicy::Balanced => self.wait_plainly(events, timeout),
            WaitPolicy::Latency { spin } => self.spin_and_wait(events, timeout, spin),
            WaitPolicy::Thrifty { min_wait } => {
                let deadline = Deadline::after(timeout);
                self.pause(min_wait, &deadline)?;
                self.wait_plainly(events, deadline.left())
            }
        }
    }

    /// A wait without a policy.
    fn wait_plainly(
        &self,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        match &self.strict {
            Some(strict) => self.wait_strictly(strict, events, timeout),
            None => self.wait_fast(events, timeout),
        }
    }

    /// Looks for as long as `spin`, and waits.
    fn spin_and_wait(
        &self,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
        spin: Duration,
    ) -> io::Result<usize> {
        let deadline = Deadline::after(timeout);
        let filled = self.look(events)?;
        if filled > 0 {
            return Ok(filled);
        }
        // A signal that came between two looks would not end the sleep that follows.
        let (filled, is_interrupted) = match self.interruptible {
            true => signal_mask::with_all_held_back(|| self.spin(events, timeout, spin)),
            false => (self.spin(events, timeout, spin), false),
        };
        match filled? {
            // The handler may have forked: this may be the child. What a source has got of it is an event.
            0 if is_interrupted && !self.sources.is_pending() => {
                self.check_owner().and(Err(plain(libc::EINTR)))
            }
            0 => {
                if self.interruptible {
                    before_sleep::call()?;
                }
                self.wait_plainly(events, deadline.left())
            }
            filled => Ok(filled),
        }
    }

    fn spin(
        &self,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
        spin: Duration,
    ) -> io::Result<usize> {
        let end = Deadline::after(Some(timeout.map_or(spin, |timeout| timeout.min(spin))));
        while end.left() != Some(Duration::ZERO) {
            let filled = self.look(events)?;
            if filled > 0 {
                return Ok(filled);
            }
            std::hint::spin_loop();
        }
        Ok(0)
    }

    /// A look within a wait.
    fn look(&self, events: &mut [MaybeUninit<Event>]) -> io::Result<usize> {
        let filled = self.wait_plainly(events, Some(Duration::ZERO))?;
        if filled == 0 {
            // Another follows, or a sleep.
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
        }
        Ok(filled)
    }

    /// What a timer or the time that is `left` leaves of a pause.
    pub(crate) fn until_timer(&self, pause: Duration, left: Option<Duration>) -> Duration {
        let pause = left.map_or(pause, |left| pause.min(left));
        self.sources.until_timer().map_or(pause, |timer| pause.min(timer))
    }

    /// Counts a look of the loop that [sleeps elsewhere](Self::sleep_elsewhere).
    pub(crate) fn count_look(&self) {
        self.counters.looks.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets the time pass before which a thrifty wait does not return.
    fn pause(&self, min_wait: Duration, deadline: &Deadline) -> io::Result<()> {
        let end = Deadline::after(Some(min_wait));
        loop {
            let limit = self.until_timer(end.left().unwrap_or(Duration::MAX), deadline.left());
            if limit.is_zero() {
                return Ok(());
            }
            match poll::poll(&mut [], Some(limit)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    // The handler may have forked: this may be the child.
                    self.check_owner()?;
                    if self.interruptible {
                        return if self.sources.is_pending() { Ok(()) } else { Err(error) };
                    }
                }
                _ => return Ok(()),
            }
        }
    }
}
