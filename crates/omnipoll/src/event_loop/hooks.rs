//! What a loop calls on its [`Connections`].

use std::io;
use std::os::fd::OwnedFd;

use super::connections::Connections;
use super::core::{Clients, EventLoop, Hooks};
use super::handler::Handler;
use super::tokens;
use crate::net::driver::{AnyDriver, Driver};
use crate::net::{Command, Conn, Counter, MAX_CONNECTIONS};
use crate::sys::{Address, Completion};
use crate::{Event, EventKind};

impl<H: Handler> Clients for Connections<'_, H> {
    fn on_accept(&mut self, event_loop: &mut EventLoop, socket: OwnedFd, peer: Address) -> io::Result<()> {
        self.context.counters.add(Counter::Accepted, 1);
        self.open(&mut event_loop.driver, socket, peer);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.slots.len() >= self.limits.max_connections.min(MAX_CONNECTIONS)
    }

    fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn on_stop(&mut self, event_loop: &mut EventLoop) {
        if self.context.stopping.replace(true) {
            return;
        }
        self.datagrams.close(&self.context);
        self.for_each_open(&mut event_loop.driver, |connections, slot| {
            connections.call(slot, |handler, conn, state, _| handler.on_stop(conn, state));
        });
    }

    fn force_close(&mut self, event_loop: &mut EventLoop) {
        self.for_each_open(&mut event_loop.driver, |connections, slot| {
            let connection = &mut connections.slots[slot].connection;
            connection.reset();
            connection.end(Some(libc::ECANCELED));
        });
    }
}

impl<H: Handler> Hooks for Connections<'_, H> {
    #[inline]
    fn on_event(&mut self, event_loop: &mut EventLoop, event: &Event) -> io::Result<()> {
        let (driver, token) = (&mut event_loop.driver, event.token());
        match event.kind() {
            EventKind::Io if token < tokens::LISTENERS => self.ready(driver, token as usize, event.ready()),
            EventKind::Io => return self.datagrams.ready(token, event.ready(), self.handler, &self.context),
            EventKind::Timer if token == tokens::RETRY_DATAGRAMS => {
                return self.datagrams.retry(&self.context)
            }
            EventKind::Timer => self.expire(driver, token as usize),
            EventKind::Wake => self.run_commands(driver),
            _ => {}
        }
        Ok(())
    }

    fn on_completion(&mut self, event_loop: &mut EventLoop, completion: Completion) {
        self.complete(&mut event_loop.driver, completion);
    }

    fn before_wait(&mut self, event_loop: &mut EventLoop) -> io::Result<()> {
        if !self.partial.is_empty() || !self.previous_partial.is_empty() {
            self.deliver_old_partial(&mut event_loop.driver);
            event_loop.poller.check_owner()?;
        }
        self.send_unsent(&mut event_loop.driver);
        if self.to_remove.is_empty() {
            return Ok(());
        }
        self.remove_ended();
        if event_loop.acceptor.is_retry_pending() {
            // There are descriptors again.
            event_loop.resume_accepting()?;
        }
        Ok(())
    }

    fn has_pending(&self) -> bool {
        !self.previous_partial.is_empty()
    }

    fn on_interrupt(&mut self) -> io::Result<()> {
        self.handler.on_interrupt()
    }
}

impl<H: Handler> Connections<'_, H> {
    /// Does what other threads have asked for.
    fn run_commands(&mut self, driver: &mut AnyDriver) {
        let mut commands = std::mem::take(&mut self.commands);
        self.context.mailbox.take(&mut commands);
        for (slot, id, command) in commands.drain(..) {
            if self.is_in_child() {
                break;
            }
            let Some(client) = self.slots.get_mut(slot) else { continue };
            if client.connection.id != id || client.connection.is_ended() {
                continue;
            }
            let mut conn = Conn { connection: &mut client.connection, context: &self.context };
            match command {
                Command::Write { data, above_high_water } => conn.write_shared(data, above_high_water),
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
        self.commands = commands;
    }

    /// Does something to each open connection, as long as this process is the loop's.
    fn for_each_open(&mut self, driver: &mut AnyDriver, mut each: impl FnMut(&mut Self, usize)) {
        let open = self.slots.iter().filter(|(_, client)| !client.connection.is_ended());
        for slot in open.map(|(slot, _)| slot).collect::<Vec<_>>() {
            if self.is_in_child() {
                return;
            }
            each(self, slot);
            self.update_if_needed(driver, slot);
        }
    }

    /// Has the driver send what connections were given since the last wait, with one send for each.
    fn send_unsent(&mut self, driver: &mut AnyDriver) {
        while let Some(token) = driver.next_unsent() {
            let slot = token as usize;
            let Some(client) = self.slots.get_mut(slot) else { continue };
            if client.connection.is_ended() {
                continue;
            }
            if let Err(error) = driver.send(&mut client.connection, token) {
                client.connection.end(error.raw_os_error());
                self.update_if_needed(driver, slot);
            }
        }
    }

    /// Delivers what was received in part before the last wait, if its rest has not come, which it has
    /// unless it is urgent data.
    fn deliver_old_partial(&mut self, driver: &mut AnyDriver) {
        let partial = std::mem::take(&mut self.partial);
        for slot in std::mem::replace(&mut self.previous_partial, partial) {
            let client = self.slots.get_mut(slot).filter(|client| !client.connection.is_ended());
            if let (Some(client), false) = (client, self.previous_partial.contains(&slot)) {
                client.connection.io.end_partial();
                self.update_if_needed(driver, slot);
            }
        }
    }

    /// Frees the slots of connections that have ended.
    fn remove_ended(&mut self) {
        let slots = &mut self.slots;
        self.to_remove.retain(|&slot| {
            let is_idle = slots[slot].connection.io.is_idle();
            if is_idle {
                slots.remove(slot);
            }
            !is_idle
        });
    }
}
