//! [`Lifecycle`]: what the loop in the thread that called `run` does for the whole server: it reports to the
//! service manager and to the server that this one replaces, and has a new process replace this one.

use std::io;
use std::sync::Arc;

use super::notifier::monotonic_usec;
use super::shared::{Request, Shared};
use super::successor::Successor;
use super::tokens;
use crate::error::{explain, fail};
use crate::event_loop::Core;
use crate::net::{passed, Bound};
use crate::sys::lock;
use crate::{Event, EventKind};

pub(super) struct Lifecycle {
    shared: Arc<Shared>,
    /// Others know that it serves.
    is_announced: bool,
    successor: Option<Successor>,
    /// A new process serves in its place.
    is_replaced: bool,
}

impl Lifecycle {
    /// Of a server that [has one](Shared::has_lifecycle).
    pub(super) fn new(shared: &Arc<Shared>) -> Option<Self> {
        shared.has_lifecycle().then(|| Self {
            shared: shared.clone(),
            is_announced: false,
            successor: None,
            is_replaced: false,
        })
    }

    /// Before a wait: every worker may have begun to serve, or a restart may be wanted.
    pub(super) fn advance(&mut self, core: &Core) -> io::Result<()> {
        if core.is_stopping {
            return Ok(());
        }
        if !self.is_announced && self.shared.serves() {
            self.is_announced = true;
            passed::answer();
            self.notify("READY=1");
            self.arm_watchdog(core)?;
        }
        if self.is_announced && self.successor.is_none() && self.shared.take_request(Request::Restart) {
            self.start_successor(core);
        }
        Ok(())
    }

    /// An event of its own. True when the server has been replaced, and must stop.
    pub(super) fn on_event(&mut self, core: &Core, event: &Event) -> io::Result<bool> {
        match (event.kind(), &mut self.successor) {
            (EventKind::Timer, _) if event.token() == tokens::WATCHDOG && !self.is_replaced => {
                self.notify("WATCHDOG=1");
                self.arm_watchdog(core)?;
            }
            (EventKind::Signal, _) => {
                // It fails when one is in progress already.
                let _ = self.shared.ask(Request::Restart);
            }
            (EventKind::Io, Some(successor)) => {
                let serves = successor.serves(core);
                return Ok(serves && self.hand_over());
            }
            (EventKind::Timer, Some(successor)) => successor.end_late(core),
            (EventKind::Child, Some(successor)) => {
                let failure = successor.failure(core, event.value() as i32);
                self.keep_serving(Err(failure));
            }
            _ => {}
        }
        Ok(false)
    }

    fn start_successor(&mut self, core: &Core) {
        let shared = self.shared.clone();
        let Some(restart) = &shared.options.restart else { return };
        self.notify(&format!("RELOADING=1\n{}", monotonic_usec()));
        match Successor::start(&shared, restart, core) {
            Ok(successor) => self.successor = Some(successor),
            Err(error) => self.keep_serving(Err(error)),
        }
    }

    /// The successor serves: leaves everything to it.
    fn hand_over(&mut self) -> bool {
        let Some(successor) = self.successor.take() else { return false };
        self.is_replaced = true;
        lock(&self.shared.bound).iter_mut().for_each(Bound::keep_file);
        self.notify(&format!("MAINPID={}\nREADY=1", successor.pid));
        self.report(Ok(successor.pid));
        true
    }

    /// There is no successor: this server goes on.
    fn keep_serving(&mut self, outcome: io::Result<i32>) {
        self.successor = None;
        self.shared.finish(Request::Restart);
        if let Err(error) = &outcome {
            self.notify(&format!("READY=1\nSTATUS=Restart failed: {}", explain(error).replace('\n', " ")));
        }
        self.report(outcome);
    }

    fn report(&self, outcome: io::Result<i32>) {
        if let Some(done) = self.shared.options.restart.as_ref().and_then(|restart| restart.on_done.as_ref())
        {
            done(outcome);
        }
    }

    /// The server has begun to stop.
    pub(super) fn on_stop(&mut self, core: &Core) {
        if self.is_replaced {
            return;
        }
        self.notify("STOPPING=1");
        if let Some(mut successor) = self.successor.take() {
            successor.kill(core);
            self.report(Err(fail(libc::ECANCELED, "the server was stopped before a new process served")));
        }
    }

    fn arm_watchdog(&self, core: &Core) -> io::Result<()> {
        match self.shared.notifier.as_ref().and_then(|notifier| notifier.watchdog_interval()) {
            Some(interval) => core.poller.timer_add_reserved(interval, tokens::WATCHDOG).map(drop),
            None => Ok(()),
        }
    }

    /// Notifies the service manager. The server goes on where that does not listen.
    fn notify(&self, state: &str) {
        let _ = self.shared.notify(state);
    }
}
