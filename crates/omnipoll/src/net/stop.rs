//! [`StopRequest`]: that a loop is to stop, and how long its connections may take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The last stop that was asked for. Async-signal-safe.
#[derive(Debug, Default)]
pub(crate) struct StopRequest(AtomicU64);

/// A stop as a number: 0 is none, and `u64::MAX` one without limit.
pub(crate) fn encode(drain: Option<Duration>) -> u64 {
    drain.map_or(u64::MAX, |drain| u64::try_from(drain.as_nanos()).unwrap_or(u64::MAX).saturating_add(1))
}

impl StopRequest {
    pub(crate) fn set(&self, drain: Option<Duration>) {
        self.set_number(encode(drain));
    }

    /// The stop, if there is one, and how long it may take.
    pub(crate) fn get(&self) -> Option<Option<Duration>> {
        match self.number() {
            0 => None,
            u64::MAX => Some(None),
            drain => Some(Some(Duration::from_nanos(drain - 1))),
        }
    }

    /// As [`encode`] has it.
    pub(crate) fn number(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn set_number(&self, stop: u64) {
        self.0.store(stop, Ordering::SeqCst);
    }
}
