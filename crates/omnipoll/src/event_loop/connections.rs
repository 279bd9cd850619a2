//! [`Connections`]: the connections that one loop serves by a [`Handler`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use super::datagrams::DatagramSockets;
use super::handler::Handler;
use crate::error::plain;
use crate::net::driver::{AnyDriver, Driver};
use crate::net::{
    Conn, Connection, Counter, DatagramSocket, LoopContext, Mailbox, PendingCommand, Timeouts, WriteQueue,
};
use crate::sys::{socket, Address};
use crate::Ready;

/// What one read brings at most.
pub(super) const READ: usize = 64 * 1024;

/// A connection, and what the handler keeps for it: nothing when `on_open` has refused it.
pub(super) struct Client<S> {
    pub(super) connection: Connection,
    pub(super) state: Option<S>,
}

/// What holds for every new connection of a loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    pub(crate) max_connections: usize,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) read_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
}

/// The connections and datagram sockets of one loop.
pub(crate) struct Connections<'s, H: Handler> {
    pub(super) handler: &'s H,
    pub(super) context: LoopContext,
    pub(super) slots: Slab<Client<H::State>>,
    pub(super) limits: ConnectionLimits,
    /// Slots of connections that have ended. They are freed after the batch of events, which may
    /// still hold events of them, and once the driver has nothing in progress for them.
    pub(super) to_remove: Vec<usize>,
    pub(super) datagrams: DatagramSockets,
    buffer: Box<[u8]>,
    pub(super) commands: Vec<PendingCommand>,
    /// Slots of which a part of what has arrived was received at the last wait.
    pub(super) partial: Vec<usize>,
    /// The same at the wait before.
    pub(super) previous_partial: Vec<usize>,
}

impl<'s, H: Handler> Connections<'s, H> {
    pub(crate) fn new(handler: &'s H, context: LoopContext, limits: ConnectionLimits) -> Self {
        Self {
            handler,
            context,
            slots: Slab::new(),
            limits,
            to_remove: Vec::new(),
            datagrams: DatagramSockets::default(),
            buffer: vec![0; READ].into(),
            commands: Vec::new(),
            partial: Vec::new(),
            previous_partial: Vec::new(),
        }
    }

    /// Serves datagram sockets too.
    pub(crate) fn watch_datagrams(&mut self, sockets: Vec<DatagramSocket>) -> io::Result<()> {
        self.datagrams.watch(sockets, &self.context)
    }

    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.context.mailbox
    }

    /// Begins to serve a connection.
    pub(crate) fn open(&mut self, driver: &mut AnyDriver, socket: OwnedFd, peer: Address) {
        let entry = self.slots.vacant_entry();
        let slot = entry.key();
        let limits = &self.limits;
        let timeouts = Timeouts::new(
            limits.idle_timeout,
            limits.read_timeout,
            limits.write_timeout,
            &self.context.clock,
        );
        let (id, account) = self.context.mailbox.add(slot);
        let connection = Connection::new(socket, peer, id, WriteQueue::new(account), timeouts);
        let client = entry.insert(Client { connection, state: None });
        let mut conn = Conn { connection: &mut client.connection, context: &self.context };
        let opened = catch_unwind(AssertUnwindSafe(|| self.handler.on_open(&mut conn)));
        if !self.context.poller.is_owner() {
            return;
        }
        match opened {
            Ok(Ok(state)) => client.state = Some(state),
            Ok(Err(_)) => {
                self.context.counters.add(Counter::Refused, 1);
                conn.close();
            }
            Err(_) => {
                self.context.counters.add(Counter::Refused, 1);
                conn.abort();
            }
        }
        self.update_if_needed(driver, slot);
    }

    /// Whether a callback has forked, and this is the child: everything belongs to its parent, the
    /// sockets and counters that they share too.
    #[inline]
    pub(super) fn is_in_child(&self) -> bool {
        !self.context.poller.is_owner()
    }

    /// Calls the handler for a connection.
    #[inline]
    pub(super) fn call(&mut self, slot: usize, call: impl FnOnce(&H, &mut Conn<'_>, &mut H::State, &[u8])) {
        let (client, buffer) = (&mut self.slots[slot], &*self.buffer);
        Self::call_with(self.handler, &self.context, client, |handler, conn, state| {
            call(handler, conn, state, buffer);
        });
    }

    /// A panic ends the connection.
    #[inline]
    pub(super) fn call_with(
        handler: &H,
        context: &LoopContext,
        client: &mut Client<H::State>,
        call: impl FnOnce(&H, &mut Conn<'_>, &mut H::State),
    ) {
        let Client { connection, state: Some(state) } = client else { return };
        let mut conn = Conn { connection, context };
        if catch_unwind(AssertUnwindSafe(|| call(handler, &mut conn, state))).is_err() {
            conn.connection.reset();
            conn.connection.end(Some(libc::ENOTRECOVERABLE));
        }
    }

    /// A connection's socket is ready.
    #[inline]
    pub(super) fn ready(&mut self, driver: &mut AnyDriver, slot: usize, ready: Ready) {
        let Some(client) = self.slots.get_mut(slot) else { return };
        if client.connection.is_ended() {
            return;
        }
        if ready.intersects(Ready::INVALID) {
            client.connection.io.registration_ended();
            client.connection.end(Some(libc::EBADF));
        }
        // Hang-up may come alone where only WRITE was asked for; a write then returns the error.
        if ready.intersects(Ready::WRITE | Ready::HANGUP | Ready::ERROR)
            && !client.connection.queue.is_empty()
        {
            let _ = Conn { connection: &mut client.connection, context: &self.context }.flush();
        }
        if ready.intersects(Ready::READ) && client.connection.wants_input() {
            self.receive(slot);
        }
        self.update_if_needed(driver, slot);
    }

    /// Reads once: under LEVEL the next wait reports whether there is more, and the other connections
    /// are served meanwhile.
    #[inline]
    fn receive(&mut self, slot: usize) {
        let connection = &mut self.slots[slot].connection;
        match socket::receive(connection.as_fd(), &mut self.buffer) {
            Ok(0) if connection.is_lingering() => connection.end(None),
            Ok(0) => self.on_end(slot),
            Ok(_) if connection.is_lingering() => connection.timeouts.extend_linger(&self.context.clock),
            Ok(length) => {
                self.context.counters.received(length as u64);
                connection.timeouts.note_read(&self.context.clock);
                self.call(slot, |handler, conn, state, data| handler.on_data(conn, state, &data[..length]));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // All was sent before: that the peer does not end cleanly is no error.
            Err(_) if connection.is_lingering() => connection.end(None),
            Err(error) => connection.end(error.raw_os_error()),
        }
    }

    /// The peer has ended its direction.
    pub(super) fn on_end(&mut self, slot: usize) {
        self.slots[slot].connection.peer_ended = true;
        self.call(slot, |handler, conn, state, _| handler.on_end(conn, state));
    }

    /// After callbacks: updates the connection, unless all is as it should be.
    #[inline]
    pub(super) fn update_if_needed(&mut self, driver: &mut AnyDriver, slot: usize) {
        let connection = &self.slots[slot].connection;
        let is_up_to_date = driver.is_only_receiving(connection)
            && connection.is_only_reading()
            && connection.is_read_timer_armed();
        if !is_up_to_date {
            self.update(driver, slot);
        }
    }

    /// Delivers what was kept, if it is wanted now.
    pub(super) fn deliver_unread(&mut self, slot: usize) -> bool {
        let connection = &mut self.slots[slot].connection;
        let is_wanted = connection.io.has_unread() && connection.is_open() && connection.wants_input();
        if is_wanted {
            let unread = connection.io.take_unread();
            self.call(slot, |handler, conn, state, _| handler.on_data(conn, state, &unread));
        }
        is_wanted
    }

    /// Makes the calls that are due, and then has the driver and the timer follow the connection's
    /// state, or closes it.
    fn update(&mut self, driver: &mut AnyDriver, slot: usize) {
        loop {
            if self.is_in_child() {
                return;
            }
            if self.deliver_unread(slot) || self.deliver_drain(slot) {
                continue;
            }
            let connection = &mut self.slots[slot].connection;
            let was_lingering = connection.is_lingering();
            connection.advance();
            if connection.is_lingering() && !was_lingering {
                connection.timeouts.start_linger(&self.context.clock);
            }
            break;
        }
        let connection = &mut self.slots[slot].connection;
        if !connection.is_ended() {
            let token = slot as u64;
            let synced = driver.sync(connection, token, &self.context);
            match synced.and_then(|()| connection.sync_timer(token, &self.context)) {
                Ok(()) => return,
                Err(error) => connection.end(error.raw_os_error()),
            }
        }
        self.finish_close(driver, slot);
    }

    /// Calls `on_drain` if the queue has fallen to the low mark.
    fn deliver_drain(&mut self, slot: usize) -> bool {
        let connection = &mut self.slots[slot].connection;
        let has_drained = connection.above_high_water && connection.queue.waiting() <= self.context.low_water;
        if !has_drained || connection.is_ended() {
            return false;
        }
        connection.above_high_water = false;
        connection.timeouts.note_read(&self.context.clock);
        // It may write again.
        self.call(slot, |handler, conn, state, _| handler.on_drain(conn, state));
        true
    }

    /// Calls `on_close`, and closes the connection.
    fn finish_close(&mut self, driver: &mut AnyDriver, slot: usize) {
        let Client { connection, state } = &mut self.slots[slot];
        connection.disarm(&self.context);
        driver.cancel(connection, slot as u64, &self.context);
        self.context.mailbox.remove(connection.id);
        let error = connection.error.map(plain);
        if let Some(state) = state.take() {
            let mut conn = Conn { connection, context: &self.context };
            let _ = catch_unwind(AssertUnwindSafe(|| self.handler.on_close(&mut conn, state, error)));
            if self.is_in_child() {
                return;
            }
        }
        self.context.counters.add(Counter::Closed, 1);
        self.to_remove.push(slot);
    }

    /// A connection's timer has expired.
    pub(super) fn expire(&mut self, driver: &mut AnyDriver, slot: usize) {
        let Some(client) = self.slots.get_mut(slot) else { return };
        let connection = &mut client.connection;
        if connection.is_ended() {
            return;
        }
        connection.timeouts.timer = 0;
        if connection.is_late(&self.context) && connection.wants_input() {
            // What has come while the loop was busy was in time.
            self.receive(slot);
        }
        let connection = &mut self.slots[slot].connection;
        if !connection.is_ended() && connection.is_late(&self.context) {
            if connection.is_lingering() {
                connection.end(None);
            } else {
                self.context.counters.add(Counter::TimedOut, 1);
                // An incomplete answer must not look complete.
                if !connection.queue.is_empty() {
                    connection.reset();
                }
                connection.end(Some(libc::ETIMEDOUT));
            }
        }
        self.update_if_needed(driver, slot);
    }
}
