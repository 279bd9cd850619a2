//! [`Lifecycle`]: what the loop in the thread that called `run` reports of the whole server.

use std::io;
use std::sync::Arc;

use super::shared::Shared;
use super::tokens;
use crate::event_loop::Core;

/// The part of the server's life that its service manager is told.
pub(super) struct Lifecycle {
    shared: Arc<Shared>,
    /// Its manager knows that it serves.
    is_announced: bool,
}

impl Lifecycle {
    /// Of a server that somebody wants to know about.
    pub(super) fn new(shared: &Arc<Shared>) -> Option<Self> {
        shared.notifier.is_some().then(|| Self { shared: shared.clone(), is_announced: false })
    }

    /// Before a wait: every worker may have begun to serve.
    pub(super) fn advance(&mut self, core: &Core) -> io::Result<()> {
        if self.is_announced || core.is_stopping || !self.shared.serves() {
            return Ok(());
        }
        self.is_announced = true;
        self.tell("READY=1");
        self.arm_watchdog(core)
    }

    /// The time of [`arm_watchdog`](Self::arm_watchdog) has passed, and the loop turns.
    pub(super) fn on_watchdog(&self, core: &Core) -> io::Result<()> {
        self.tell("WATCHDOG=1");
        self.arm_watchdog(core)
    }

    fn arm_watchdog(&self, core: &Core) -> io::Result<()> {
        match self.shared.notifier.as_ref().and_then(|notifier| notifier.watchdog_interval()) {
            Some(interval) => core.poller.timer_add_reserved(interval, tokens::WATCHDOG).map(drop),
            None => Ok(()),
        }
    }

    /// The server has begun to stop.
    pub(super) fn on_stop(&self) {
        self.tell("STOPPING=1");
    }

    /// A manager that doesn't listen is no reason to serve no longer.
    fn tell(&self, state: &str) {
        let _ = self.shared.notify(state);
    }
}
