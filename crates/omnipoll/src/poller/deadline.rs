//! When a wait ends.

use std::time::{Duration, Instant};

/// When a wait ends. No clock is read unless there is an end that lies in the future.
pub(super) struct Deadline(Option<Instant>, Option<Duration>);

impl Deadline {
    #[inline]
    pub(super) fn after(timeout: Option<Duration>) -> Self {
        let end = match timeout {
            None | Some(Duration::ZERO) => None,
            // An end past what the clock can show is no end.
            Some(timeout) => Instant::now().checked_add(timeout),
        };
        Self(end, timeout)
    }

    /// The time there was from the beginning.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.1
    }

    /// The time that is left: zero when it is up, `None` when it never will be.
    pub(super) fn left(&self) -> Option<Duration> {
        match (self.0, self.1) {
            (Some(end), _) => Some(end.saturating_duration_since(Instant::now())),
            (None, Some(Duration::ZERO)) => Some(Duration::ZERO),
            (None, _) => None,
        }
    }
}
