//! The timers of a loop, by the time at which they are due.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use pyo3::prelude::*;

use super::handle::TimerHandle;

/// As in the standard library: cancelled timers are taken out when there are many of them.
const MIN_SCHEDULED: usize = 100;

/// Of equal times the one that was armed first is due first.
struct Timer {
    when: f64,
    order: u64,
    handle: Py<TimerHandle>,
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> Ordering {
        self.when.total_cmp(&other.when).then(self.order.cmp(&other.order))
    }
}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Timer {}

#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<Timer>>,
    cancelled: usize,
    armed: u64,
}

impl Timers {
    pub(crate) fn push(&mut self, when: f64, handle: Py<TimerHandle>) {
        self.armed += 1;
        self.heap.push(Reverse(Timer { when, order: self.armed, handle }));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// One that is in here was cancelled.
    pub(crate) fn count_cancelled(&mut self) {
        self.cancelled += 1;
    }

    /// Those that were cancelled, when there are many of them.
    #[inline]
    pub(crate) fn take_cancelled(&mut self, py: Python<'_>) -> Vec<Py<TimerHandle>> {
        if self.cancelled * 2 <= self.heap.len() || self.heap.len() <= MIN_SCHEDULED {
            return Vec::new();
        }
        self.cancelled = 0;
        let (mut timers, mut cancelled) = (std::mem::take(&mut self.heap).into_vec(), Vec::new());
        let mut place = 0;
        while let Some(Reverse(timer)) = timers.get(place) {
            if timer.is_cancelled(py) {
                cancelled.push(timers.swap_remove(place).0.handle);
            } else {
                place += 1;
            }
        }
        self.heap = timers.into();
        cancelled
    }

    /// When the first one is due.
    pub(crate) fn next(&self) -> Option<f64> {
        self.heap.peek().map(|first| first.0.when)
    }

    /// The first one, if it was cancelled.
    pub(crate) fn pop_cancelled(&mut self, py: Python<'_>) -> Option<Py<TimerHandle>> {
        if !self.heap.peek()?.0.is_cancelled(py) {
            return None;
        }
        self.cancelled = self.cancelled.saturating_sub(1);
        self.heap.pop().map(|timer| timer.0.handle)
    }

    /// The next one that is due before `end`.
    pub(crate) fn pop_due(&mut self, py: Python<'_>, end: f64) -> Option<Py<TimerHandle>> {
        if self.heap.peek()?.0.when >= end {
            return None;
        }
        let handle = self.heap.pop()?.0.handle;
        handle.get().unschedule(py);
        if TimerHandle::is_cancelled(&handle, py) {
            self.cancelled = self.cancelled.saturating_sub(1);
        }
        Some(handle)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Py<TimerHandle>> {
        self.heap.iter().map(|timer| &timer.0.handle)
    }
}

impl Timer {
    fn is_cancelled(&self, py: Python<'_>) -> bool {
        TimerHandle::is_cancelled(&self.handle, py)
    }
}
