//! [`Connections`]: the connections that one loop serves by a [`Handler`].

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use super::acceptor::Accepted;
use super::datagrams::DatagramSockets;
use super::handler::Handler;
use super::options::LoopOptions;
use crate::error::plain;
use crate::net::driver::{AnyDriver, Driver, DriverKind};
use crate::net::{
    Admission, Budget, Clock, Command, Conn, ConnId, Connection, ConnectionTable, Connects, Counter,
    DatagramId, DatagramSocket, LoopContext, Mailbox, Origin, PendingCommand, StopLoop, Timeouts,
    WorkerCounters, WriteQueue, LONGEST_PROXY_HEADER,
};
use crate::sys::socket;
use crate::{Poller, Ready};

/// What one read brings at most.
pub(super) const READ: usize = 64 * 1024;

/// Where a loop is: what its connections are connected with.
pub(crate) struct LoopPlace {
    pub(crate) poller: Arc<Poller>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) counters: WorkerCounters,
    pub(crate) worker: usize,
    pub(crate) driver_kind: DriverKind,
    /// `None` for a loop of a server's: the server listens.
    pub(crate) backlog: Option<i32>,
    pub(crate) stop: StopLoop,
    pub(crate) admission: Option<Admission>,
}

/// The limits of queued bytes that the options have.
pub(crate) fn budget_of(options: &LoopOptions) -> Budget {
    Budget::new(options.queue_limit, options.total_queue_limit, options.high_water)
}

/// The connections and datagram sockets of one loop.
pub(crate) struct Connections<H: Handler> {
    pub(super) handler: H,
    pub(super) context: LoopContext,
    pub(super) table: ConnectionTable,
    /// What the handler keeps for each connection, by its slot: nothing when `on_open` has refused it.
    states: Vec<Option<H::State>>,
    /// How many may be accepted at a time.
    pub(super) max_clients: usize,
    options: LoopOptions,
    /// Slots of connections that have ended. They are freed after the batch of events, which may
    /// still hold events of them, and once the driver has nothing in progress for them.
    pub(super) to_remove: Vec<usize>,
    pub(super) datagrams: DatagramSockets,
    pub(super) buffer: Box<[u8]>,
    /// What one read brings at most.
    largest_read: usize,
    pub(super) commands: Vec<PendingCommand>,
    /// Slots of which a part of what has arrived was received at the last wait.
    pub(super) partial: Vec<usize>,
    /// The same at the wait before.
    pub(super) previous_partial: Vec<usize>,
    /// Connections out that are not open yet, and what other threads have asked of them.
    pub(super) connects: Connects,
    pub(super) early: HashMap<ConnId, Vec<Command>>,
    /// The handler was called for a connect since the last wait: the next returns at once.
    pub(super) has_called: bool,
    /// What large flows are spliced through; empty.
    #[cfg(target_os = "linux")]
    pub(super) pipe: Option<crate::sys::splice::SplicePipe>,
    /// Slots whose data was received when the handler had no room for it.
    pub(super) starved: Vec<usize>,
}

impl<H: Handler> Connections<H> {
    pub(crate) fn new(handler: H, place: LoopPlace, options: &LoopOptions, max_clients: usize) -> Self {
        let context = LoopContext {
            max_frame: handler.room(),
            poller: place.poller,
            mailbox: place.mailbox,
            budget: place.budget,
            counters: place.counters,
            clock: Clock::new(),
            low_water: options.low_water,
            linger: options.linger,
            max_receive_rate: options.max_receive_rate,
            admission: place.admission,
            worker: place.worker,
            stopping: false.into(),
            is_over: false.into(),
            stop: place.stop,
            touched: RefCell::default(),
            requests: RefCell::default(),
            listeners: RefCell::default(),
            backlog: place.backlog,
            settings: options.settings.clone(),
            min_direct_write: place.driver_kind.min_direct_write(),
            binding: OnceCell::new(),
        };
        Self {
            handler,
            context,
            table: ConnectionTable::default(),
            states: Vec::new(),
            max_clients,
            options: options.clone(),
            to_remove: Vec::new(),
            datagrams: DatagramSockets::default(),
            buffer: vec![0; READ].into(),
            largest_read: options.max_receive_rate.map_or(READ, |rate| READ.min(rate.get() as usize)),
            commands: Vec::new(),
            partial: Vec::new(),
            previous_partial: Vec::new(),
            connects: Connects::new(),
            early: HashMap::new(),
            has_called: false,
            #[cfg(target_os = "linux")]
            pipe: None,
            starved: Vec::new(),
        }
    }

    /// Serves a datagram socket too.
    pub(crate) fn open_datagrams(&mut self, socket: DatagramSocket) -> io::Result<DatagramId> {
        let id = self.context.mailbox.open_datagrams(socket)?;
        self.datagrams.update(&self.handler, &self.context)?;
        Ok(id)
    }

    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.context.mailbox
    }

    /// Begins to serve a connection that was accepted.
    pub(crate) fn accept(&mut self, driver: &mut AnyDriver, accepted: Accepted) {
        let Accepted { socket, peer, token, admitted } = accepted;
        let (id, account) = self.context.mailbox.add(self.table.next_slot());
        let origin = Origin { token, is_outgoing: false };
        let queue = WriteQueue::new(account);
        let mut connection = Connection::new(socket, peer, origin, id, queue, self.timeouts());
        connection.admitted = admitted;
        if self.context.max_receive_rate.is_some() {
            // What is spliced is not counted before it is sent on.
            connection.never_splice();
        }
        let slot = self.insert(connection);
        match self.options.proxy_header {
            Some(within) => self.await_header(driver, slot, within),
            None => {
                self.open(slot);
                self.update_if_needed(driver, slot);
            }
        }
    }

    /// Puts a connection into the table, without a call of the handler.
    pub(super) fn insert(&mut self, connection: Connection) -> usize {
        let slot = self.table.insert(connection);
        if slot == self.states.len() {
            self.states.push(None);
        }
        slot
    }

    pub(super) fn timeouts(&self) -> Timeouts {
        let options = &self.options;
        Timeouts::new(options.idle_timeout, options.read_timeout, options.write_timeout, &self.context.clock)
    }

    /// Calls `on_open` for a new connection.
    pub(super) fn open(&mut self, slot: usize) {
        let mut conn = Conn { table: &mut self.table, slot, context: &self.context };
        let opened = catch_unwind(AssertUnwindSafe(|| self.handler.on_open(&mut conn)));
        if !self.context.poller.is_owner() {
            return;
        }
        match opened {
            Ok(Ok(state)) => self.states[slot] = Some(state),
            Ok(Err(_)) => {
                self.context.counters.add(Counter::Refused, 1);
                conn.close();
            }
            Err(_) => {
                self.context.counters.add(Counter::Refused, 1);
                conn.abort();
            }
        }
    }

    /// Whether a callback has forked, and this is the child: everything belongs to its parent, the
    /// sockets and counters that they share too.
    #[inline]
    pub(super) fn is_in_child(&self) -> bool {
        !self.context.poller.is_owner()
    }

    /// Calls the handler for a connection. A panic ends the connection.
    #[inline]
    pub(super) fn call(&mut self, slot: usize, call: impl FnOnce(&H, &mut Conn<'_>, &mut H::State, &[u8])) {
        let Some(state) = &mut self.states[slot] else { return };
        let mut conn = Conn { table: &mut self.table, slot, context: &self.context };
        let (handler, buffer) = (&self.handler, &*self.buffer);
        if catch_unwind(AssertUnwindSafe(|| call(handler, &mut conn, state, buffer))).is_err() {
            self.table[slot].end_by_reset(libc::ENOTRECOVERABLE);
        }
    }

    /// A connection's socket is ready.
    #[inline]
    pub(super) fn ready(&mut self, driver: &mut AnyDriver, slot: usize, ready: Ready) {
        let Some(connection) = self.table.get(slot) else { return };
        if connection.is_ended() {
            return;
        }
        let reads = match ready {
            Ready::READ => connection.wants_input(),
            _ => self.ready_for_more(slot, ready),
        };
        if reads {
            self.receive(slot);
        }
        if !self.is_up_to_date(driver, slot) {
            self.update(driver, slot);
        }
    }

    /// Does what other flags than READ ask for. Says whether it is to be read too.
    fn ready_for_more(&mut self, slot: usize, ready: Ready) -> bool {
        let connection = &mut self.table[slot];
        if ready.intersects(Ready::INVALID) {
            connection.io.registration_ended();
            connection.end(Some(libc::EBADF));
        }
        // Hang-up may come alone where only WRITE was asked for; a write then returns the error.
        if ready.intersects(Ready::WRITE | Ready::HANGUP | Ready::ERROR) && !connection.queue.is_empty() {
            let _ = connection.flush(&self.context);
        }
        if connection.io.is_awaited && ready.intersects(Ready::WRITE) {
            self.resume_relay(slot);
        }
        ready.intersects(Ready::READ) && self.table[slot].wants_input()
    }

    /// Reads once: under LEVEL the next wait reports whether there is more, and the other connections
    /// are served meanwhile.
    #[inline]
    pub(super) fn receive(&mut self, slot: usize) {
        let connection = &mut self.table[slot];
        if connection.is_spliced() && self.splice(slot) {
            return;
        }
        let room = self.room_for(slot);
        if room == 0 {
            // Under LEVEL the next wait reports it again.
            return;
        }
        let connection = &mut self.table[slot];
        match socket::receive(connection.as_fd(), &mut self.buffer[..room]) {
            Ok(0) if connection.is_lingering() => connection.end(None),
            Ok(0) => self.on_end(slot),
            Ok(_) if connection.is_lingering() => connection.timeouts.extend_linger(&self.context.clock),
            Ok(length) => {
                connection.note_received(length, &self.context);
                if connection.awaits_header {
                    return self.header_read(slot, length);
                }
                if connection.relay_to.is_some() {
                    return self.relay_received(slot, length);
                }
                if connection.input.is_framed() {
                    return self.frames_received(slot, length);
                }
                self.call(slot, |handler, conn, state, data| handler.on_data(conn, state, &data[..length]));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // All was sent before: that the peer does not end cleanly is no error.
            Err(_) if connection.is_lingering() => connection.end(None),
            Err(error) => connection.end(error.raw_os_error()),
        }
    }

    /// How many bytes may be read now.
    #[inline]
    fn room_for(&self, slot: usize) -> usize {
        let connection = &self.table[slot];
        let input = &connection.input;
        match input.length() {
            kept if connection.awaits_header => LONGEST_PROXY_HEADER - kept,
            kept if kept == 0 || input.is_framed() => self.handler.room().min(self.largest_read),
            // It is delivered first.
            _ => 0,
        }
    }

    /// The peer has ended its direction.
    pub(super) fn on_end(&mut self, slot: usize) {
        if self.table[slot].awaits_header {
            return self.refuse_header(slot);
        }
        if self.table[slot].input.is_framed() && !self.deliver_last(slot) {
            return;
        }
        self.table[slot].peer_ended = true;
        if self.table[slot].relay_to.is_some() {
            return self.relay_end(slot);
        }
        self.call(slot, |handler, conn, state, _| handler.on_end(conn, state));
    }

    /// After callbacks: updates the connection, unless all is as it should be.
    pub(super) fn update_if_needed(&mut self, driver: &mut AnyDriver, slot: usize) {
        if !self.is_up_to_date(driver, slot) {
            self.update(driver, slot);
        }
    }

    /// Whether the driver and the timer follow the connection's state, and no call is due.
    #[inline(always)]
    fn is_up_to_date(&self, driver: &AnyDriver, slot: usize) -> bool {
        let connection = &self.table[slot];
        driver.is_only_receiving(connection)
            && connection.is_only_reading()
            && connection.is_read_timer_armed()
    }

    /// Delivers what was kept, if it is wanted now.
    pub(super) fn deliver_unread(&mut self, slot: usize) -> bool {
        let connection = &mut self.table[slot];
        let is_wanted = connection.input.is_deliverable() && connection.is_open() && connection.wants_input();
        if is_wanted && connection.input.is_framed() {
            return self.deliver_kept(slot);
        }
        if is_wanted && connection.input.length() > self.handler.room() {
            self.starved.push(slot);
            return false;
        }
        if is_wanted {
            let unread = connection.input.take();
            if connection.relay_to.is_some() {
                self.relay(slot, &unread);
                return true;
            }
            self.call(slot, |handler, conn, state, _| handler.on_data(conn, state, &unread));
        }
        is_wanted
    }

    /// Makes the calls that are due, and then has the driver and the timer follow the connection's
    /// state, or closes it.
    pub(super) fn update(&mut self, driver: &mut AnyDriver, slot: usize) {
        loop {
            if self.is_in_child() {
                return;
            }
            if self.deliver_unread(slot) || self.deliver_drain(slot) {
                continue;
            }
            let connection = &mut self.table[slot];
            let was_lingering = connection.is_lingering();
            connection.advance();
            if connection.is_lingering() && !was_lingering {
                connection.timeouts.start_linger(&self.context.clock);
            }
            break;
        }
        let connection = &mut self.table[slot];
        if !connection.is_ended() {
            let synced = driver.sync(connection, slot, &self.context);
            match synced.and_then(|()| connection.sync_timer(slot, &self.context)) {
                Ok(()) => return,
                Err(error) => connection.end(error.raw_os_error()),
            }
        }
        self.finish_close(driver, slot);
    }

    /// Calls `on_drain` if the queue has fallen to the low mark.
    fn deliver_drain(&mut self, slot: usize) -> bool {
        let connection = &mut self.table[slot];
        let has_drained = connection.above_high_water && connection.queue.waiting() <= self.context.low_water;
        if !has_drained || connection.is_ended() {
            return false;
        }
        connection.above_high_water = false;
        connection.timeouts.note_read(&self.context.clock);
        self.resume_relay(slot);
        // It may write again.
        self.call(slot, |handler, conn, state, _| handler.on_drain(conn, state));
        true
    }

    /// Calls `on_close`, and closes the connection.
    fn finish_close(&mut self, driver: &mut AnyDriver, slot: usize) {
        let connection = &mut self.table[slot];
        connection.is_touched = false;
        connection.admitted = None;
        connection.disarm(&self.context);
        driver.cancel(connection, slot, &self.context);
        self.context.mailbox.remove(connection.id);
        self.unlink_relays(slot);
        let connection = &self.table[slot];
        let error = connection.error().map(plain);
        if let Some(state) = self.states[slot].take() {
            let mut conn = Conn { table: &mut self.table, slot, context: &self.context };
            let _ = catch_unwind(AssertUnwindSafe(|| self.handler.on_close(&mut conn, state, error)));
            if self.is_in_child() {
                return;
            }
        }
        if !self.table[slot].is_outgoing {
            self.context.counters.add(Counter::Closed, 1);
        }
        self.to_remove.push(slot);
    }
}
