//! Connections out: from what a program has asked for to the connection, or to why there is none.

use std::panic::{catch_unwind, AssertUnwindSafe};

use super::connections::Connections;
use super::handler::Handler;
use crate::net::driver::AnyDriver;
use crate::net::{
    Command, ConnId, ConnectIo, Connection, FailedConnect, LoopRef, OpenedConnect, Origin, Outcome,
    WriteQueue,
};
use crate::Ready;

impl<H: Handler> Connections<H> {
    /// Starts to connect where callbacks have asked for it, and takes what has become of earlier ones.
    /// What the callbacks of this call ask for is started by the next.
    pub(super) fn advance_connects(&mut self, driver: &mut AnyDriver) {
        let requests = std::mem::take(self.context.requests.get_mut());
        let mut io = ConnectIo { driver, poller: &self.context.poller };
        for request in requests {
            self.connects.start(&mut io, request.request, request.id, request.token);
        }
        self.connects.before_wait(&mut io);
        self.has_called = self.take_outcomes(driver);
    }

    /// The resolver may have answered.
    pub(super) fn take_answers(&mut self, driver: &mut AnyDriver) {
        // In a child one of its threads may have had the lock.
        if self.is_in_child() {
            return;
        }
        self.connects.take_answers(&mut ConnectIo { driver, poller: &self.context.poller });
        self.take_outcomes(driver);
    }

    /// Whether there is something to advance.
    #[inline]
    pub(super) fn is_connecting(&self) -> bool {
        !self.connects.is_empty() || !self.context.requests.borrow().is_empty()
    }

    /// The socket of an attempt is ready.
    pub(super) fn connect_ready(&mut self, driver: &mut AnyDriver, token: u64, ready: Ready) {
        let mut io = ConnectIo { driver, poller: &self.context.poller };
        self.connects.on_ready(&mut io, token, ready);
        self.take_outcomes(driver);
    }

    /// The timer of a connect has expired.
    pub(super) fn connect_timer(&mut self, driver: &mut AnyDriver, token: u64) {
        let mut io = ConnectIo { driver, poller: &self.context.poller };
        self.connects.on_timer(&mut io, token);
        self.take_outcomes(driver);
    }

    /// The driver has carried out an attempt.
    pub(super) fn connect_completed(
        &mut self,
        driver: &mut AnyDriver,
        key: usize,
        result: std::io::Result<()>,
    ) {
        let mut io = ConnectIo { driver, poller: &self.context.poller };
        self.connects.on_completion(&mut io, key, result);
        self.take_outcomes(driver);
    }

    /// Ends all that are in progress.
    pub(super) fn cancel_connects(&mut self, driver: &mut AnyDriver) {
        self.advance_connects(driver);
        let mut io = ConnectIo { driver, poller: &self.context.poller };
        self.connects.cancel_all(&mut io);
        self.take_outcomes(driver);
    }

    /// A command for a connection that is not open yet: it waits until it is, unless it ends the connect.
    pub(super) fn run_early(&mut self, driver: &mut AnyDriver, id: ConnId, command: Command) {
        let ends = match command {
            Command::Abort => true,
            // What was written is sent before.
            Command::Close => !self.early.contains_key(&id),
            _ => false,
        };
        let mut io = ConnectIo { driver, poller: &self.context.poller };
        if !(ends && self.connects.cancel(&mut io, id)) {
            self.early.entry(id).or_default().push(command);
        }
    }

    /// Calls the handler with what has become of connects; false when that is nothing.
    fn take_outcomes(&mut self, driver: &mut AnyDriver) -> bool {
        let mut has_called = false;
        while let Some(outcome) = self.connects.next_outcome() {
            has_called = true;
            match outcome {
                Outcome::Opened(opened) => self.connected(driver, opened),
                Outcome::Failed(failed) => self.connect_failed(&failed),
            }
            if self.is_in_child() {
                break;
            }
        }
        has_called
    }

    fn connected(&mut self, driver: &mut AnyDriver, opened: OpenedConnect) {
        let OpenedConnect { id, token, socket, peer, is_registered } = opened;
        let slot = self.table.next_slot();
        let Some(account) = self.context.mailbox.open(id, slot) else { return };
        let origin = Origin { token, is_outgoing: true };
        let mut connection =
            Connection::new(socket, peer, origin, id, WriteQueue::new(account), self.timeouts());
        if is_registered {
            connection.io.take_over_registration();
        }
        let early = self.early.remove(&id).unwrap_or_default();
        let (written, others): (Vec<_>, Vec<_>) =
            early.into_iter().partition(|command| matches!(command, Command::Write { .. }));
        for command in written {
            if let Command::Write { data, above_high_water } = command {
                connection.write_shared(data, above_high_water, &self.context);
            }
        }
        self.insert(connection);
        self.open(slot);
        self.update_if_needed(driver, slot);
        for command in others {
            if self.is_in_child() {
                return;
            }
            self.run_command(driver, slot, id, command);
        }
    }

    fn connect_failed(&mut self, failed: &FailedConnect) {
        self.early.remove(&failed.id());
        self.context.mailbox.remove(failed.id());
        let mut event_loop = LoopRef { table: &mut self.table, context: &self.context };
        // A panic costs one call.
        let _ = catch_unwind(AssertUnwindSafe(|| self.handler.on_connect_error(&mut event_loop, failed)));
    }
}
