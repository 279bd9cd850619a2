//! What the connections of one loop share.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use super::account::Budget;
use super::counters::WorkerCounters;
use super::mailbox::Mailbox;
use super::timeouts::Clock;
use crate::Poller;

/// A loop as its connections need it.
#[derive(Debug)]
pub(crate) struct LoopContext {
    pub(crate) poller: Arc<Poller>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) counters: WorkerCounters,
    pub(crate) clock: Clock,
    pub(crate) low_water: usize,
    pub(crate) linger: Duration,
    pub(crate) worker: usize,
    pub(crate) stopping: Cell<bool>,
    /// Of [`DriverKind::min_direct_write`](super::driver::DriverKind::min_direct_write).
    pub(crate) min_direct_write: usize,
}
