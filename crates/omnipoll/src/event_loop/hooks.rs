//! What a loop calls on its [`Connections`].

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::acceptor::Accepted;
use super::connections::Connections;
use super::core::{Clients, Core, Hooks};
use super::handler::Handler;
use super::tokens::{self, CONNECTIONS, LISTENERS};
use crate::error::{fail, Error};
use crate::net::driver::{AnyDriver, Driver};
use crate::net::{
    Command, Conn, ConnId, Connection, Counter, LoopRef, ATTEMPTS, CONNECTING, MAX_CONNECTIONS,
    TIMERS as CONNECT_TIMERS,
};
use crate::poller::RESERVED_TOKENS;
use crate::sys::Completion;
use crate::{Event, EventKind};

impl<H: Handler> Clients for Connections<H> {
    fn on_accept(&mut self, core: &mut Core, accepted: Accepted) -> io::Result<()> {
        self.context.counters.add(Counter::Accepted, 1);
        self.accept(&mut core.driver, accepted);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.table.accepted() >= self.max_clients || self.table.len() >= MAX_CONNECTIONS
    }

    fn is_empty(&self) -> bool {
        self.table.is_empty() && self.connects.is_empty() && self.context.requests.borrow().is_empty()
    }

    fn on_stop(&mut self, core: &mut Core) {
        if self.context.stopping.replace(true) {
            return;
        }
        self.datagrams.close(&self.context);
        self.for_each_open(&mut core.driver, |connections, slot| {
            connections.call(slot, |handler, conn, state, _| handler.on_stop(conn, state));
        });
    }

    fn force_close(&mut self, core: &mut Core) {
        // A handler whose connect is cancelled may ask for another.
        self.context.is_over.set(true);
        self.cancel_connects(&mut core.driver);
        self.for_each_open(&mut core.driver, |connections, slot| {
            connections.table[slot].end_by_reset(libc::ECANCELED);
        });
    }
}

impl<H: Handler> Hooks for Connections<H> {
    #[inline]
    fn on_event(&mut self, core: &mut Core, event: &Event) -> io::Result<()> {
        let (driver, token) = (&mut core.driver, event.token());
        match (event.kind(), token) {
            (EventKind::Io, CONNECTIONS..LISTENERS) => {
                self.ready(driver, (token - CONNECTIONS) as usize, event.ready());
            }
            (EventKind::Wake, _) => {
                self.run_commands(driver);
                self.take_answers(driver);
                return self.datagrams.update(&self.handler, &self.context);
            }
            (_, ..RESERVED_TOKENS) => self.call_on_event(event),
            (EventKind::Io, ATTEMPTS..) => self.connect_ready(driver, token, event.ready()),
            (EventKind::Io, _) => {
                return self.datagrams.ready(token, event.ready(), &self.handler, &self.context)
            }
            (EventKind::Timer, tokens::RETRY_DATAGRAMS) => return self.datagrams.retry(&self.context),
            (EventKind::Timer, CONNECT_TIMERS..) => self.connect_timer(driver, token),
            (EventKind::Timer, _) => self.expire(driver, (token - CONNECTIONS) as usize),
            _ => {}
        }
        Ok(())
    }

    fn on_completion(&mut self, core: &mut Core, completion: Completion) {
        self.complete(&mut core.driver, completion);
    }

    fn before_wait(&mut self, core: &mut Core) -> io::Result<()> {
        if !self.partial.is_empty() || !self.previous_partial.is_empty() {
            self.deliver_old_partial(&mut core.driver);
            core.poller.check_owner()?;
        }
        if !self.starved.is_empty() {
            for slot in std::mem::take(&mut self.starved) {
                self.deliver_starved(&mut core.driver, slot);
            }
        }
        self.has_called = false;
        if self.is_connecting() {
            self.advance_connects(&mut core.driver);
            core.poller.check_owner()?;
        }
        if !self.context.touched.get_mut().is_empty() {
            self.update_touched(&mut core.driver);
            core.poller.check_owner()?;
        }
        self.send_unsent(&mut core.driver);
        if !self.context.listeners.get_mut().is_empty() {
            self.take_listeners(core);
        }
        self.free_ended(core)
    }

    fn has_pending(&self) -> bool {
        !self.previous_partial.is_empty()
            || !self.starved.is_empty()
            || !self.context.requests.borrow().is_empty()
            || self.has_called
            || self.handler.is_pending()
    }

    fn on_interrupt(&mut self) -> io::Result<()> {
        self.handler.on_interrupt()
    }
}

impl<H: Handler> Connections<H> {
    /// Does what other threads have asked for.
    fn run_commands(&mut self, driver: &mut AnyDriver) {
        let mut commands = std::mem::take(&mut self.commands);
        self.context.mailbox.take(&mut commands);
        for (slot, id, command) in commands.drain(..) {
            if self.is_in_child() {
                break;
            }
            if slot == CONNECTING {
                self.run_early(driver, id, command);
            } else {
                self.run_command(driver, slot, id, command);
            }
        }
        self.commands = commands;
    }

    pub(super) fn run_command(&mut self, driver: &mut AnyDriver, slot: usize, id: ConnId, command: Command) {
        let connection = self.table.get(slot).filter(|connection| connection.id == id);
        if connection.is_none_or(Connection::is_ended) {
            return;
        }
        let mut conn = Conn { table: &mut self.table, slot, context: &self.context };
        match command {
            Command::Write { data, above_high_water } => {
                self.table[slot].write_shared(data, above_high_water, &self.context);
            }
            Command::Timeout(which, time) => conn.set_timeout(which, time),
            Command::Shutdown => conn.shutdown(),
            Command::Close => conn.close(),
            Command::Abort => conn.abort(),
            Command::Pause(true) => conn.pause(),
            Command::Pause(false) => conn.resume(),
            Command::Post(value) => {
                self.call(slot, |handler, conn, state, _| handler.on_post(conn, state, value));
            }
        }
        self.update_if_needed(driver, slot);
    }

    /// Does something to each open connection, as long as this process is the loop's.
    fn for_each_open(&mut self, driver: &mut AnyDriver, mut each: impl FnMut(&mut Self, usize)) {
        for slot in self.table.open_slots() {
            if self.is_in_child() {
                return;
            }
            each(self, slot);
            self.update_if_needed(driver, slot);
        }
    }

    /// Has the driver send what connections were given since the last wait, with one send for each.
    fn send_unsent(&mut self, driver: &mut AnyDriver) {
        while let Some(slot) = driver.next_unsent() {
            let Some(connection) = self.table.get_mut(slot) else { continue };
            if connection.is_ended() {
                continue;
            }
            if let Err(error) = driver.send(connection, slot) {
                connection.end(error.raw_os_error());
                self.update_if_needed(driver, slot);
            }
        }
    }

    /// Follows up what callbacks have done to other connections than their own.
    fn update_touched(&mut self, driver: &mut AnyDriver) {
        while let Some(slot) = self.context.touched.get_mut().pop() {
            let Some(connection) = self.table.get_mut(slot) else { continue };
            // Not if its end has been followed up meanwhile.
            if !std::mem::replace(&mut connection.is_touched, false) {
                continue;
            }
            if connection.input.is_deliverable() {
                self.update(driver, slot);
            } else {
                self.update_if_needed(driver, slot);
            }
        }
    }

    /// There is room again for what was received.
    fn deliver_starved(&mut self, driver: &mut AnyDriver, slot: usize) {
        if self.table.get(slot).is_some_and(|connection| !connection.is_ended()) {
            self.update(driver, slot);
        }
    }

    /// Has the loop accept from what was asked to be listened on, unless it has begun to stop meanwhile.
    pub(super) fn take_listeners(&mut self, core: &mut Core) {
        for (listener, token) in self.context.listeners.get_mut().drain(..) {
            if !core.is_stopping {
                core.acceptor.add(listener, token);
            }
        }
    }

    /// An event of the program's own.
    fn call_on_event(&mut self, event: &Event) {
        let mut event_loop = LoopRef { table: &mut self.table, context: &self.context };
        // A panic costs one event.
        let _ = catch_unwind(AssertUnwindSafe(|| self.handler.on_event(&mut event_loop, event)));
    }

    /// Calls `on_worker_start`. A panic is its error.
    pub(crate) fn start_worker(&mut self) -> io::Result<()> {
        let mut event_loop = LoopRef { table: &mut self.table, context: &self.context };
        let started = catch_unwind(AssertUnwindSafe(|| self.handler.on_worker_start(&mut event_loop)));
        match started {
            // An error without a number gets one.
            Ok(started) => Ok(started.map_err(Error::from)?),
            Err(_) => Err(fail(libc::ENOTRECOVERABLE, "on_worker_start has panicked")),
        }
    }

    /// Calls `on_worker_end`.
    pub(crate) fn end_worker(&mut self) {
        let mut event_loop = LoopRef { table: &mut self.table, context: &self.context };
        // There is nothing left that a panic could end.
        let _ = catch_unwind(AssertUnwindSafe(|| self.handler.on_worker_end(&mut event_loop)));
    }

    /// Delivers what was received in part before the last wait, if its rest has not come, which it has
    /// unless it is urgent data.
    fn deliver_old_partial(&mut self, driver: &mut AnyDriver) {
        let partial = std::mem::take(&mut self.partial);
        for slot in std::mem::replace(&mut self.previous_partial, partial) {
            let connection = self.table.get_mut(slot).filter(|connection| !connection.is_ended());
            if let (Some(connection), false) = (connection, self.previous_partial.contains(&slot)) {
                connection.input.end_partial();
                self.update_if_needed(driver, slot);
            }
        }
    }

    /// Frees the slots of connections that have ended, and accepts again if it was their descriptors that
    /// were missing.
    pub(super) fn free_ended(&mut self, core: &mut Core) -> io::Result<()> {
        if self.to_remove.is_empty() {
            return Ok(());
        }
        let table = &mut self.table;
        self.to_remove.retain(|&slot| {
            let is_idle = table[slot].io.is_idle();
            if is_idle {
                table.remove(slot);
            }
            !is_idle
        });
        if core.acceptor.is_retry_pending() {
            core.resume_accepting()?;
        }
        Ok(())
    }
}
