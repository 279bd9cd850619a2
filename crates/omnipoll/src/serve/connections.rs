//! One loop that serves many clients: [`Model::Reactor`](crate::Model::Reactor), and what every
//! worker of the other models runs for its own.

mod uring_io;

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use slab::Slab;

use super::acceptor::RETRY;
use super::event_loop::{Clients, EventLoop};
use super::handler::Handler;
use super::shared::Shared;
use super::tokens;
use crate::errno::{self, ErrorClass};
use crate::error::plain;
use crate::net::{
    Clock, Command, Conn, Connection, Counter, Datagram, DatagramSocket, LoopContext, Mailbox,
    PendingCommand, Timeouts, WriteQueue, MAX_CONNECTIONS,
};
use crate::sys::{socket, Address, CompletionRing};
use crate::{Event, EventKind, Events, Poller, Ready};

/// What one read brings at most.
const READ: usize = 64 * 1024;

/// A connection, and what the handler keeps for it: nothing when it was refused.
struct Client<S> {
    connection: Connection,
    state: Option<S>,
}

/// The clients of one loop.
pub(super) struct Connections<'s, H: Handler> {
    handler: &'s H,
    context: LoopContext,
    clients: Slab<Client<H::State>>,
    /// Slots of clients that have left during this batch. They are not used again before its
    /// end: an event of who left may still be in it.
    to_remove: Vec<usize>,
    most: usize,
    datagrams: Vec<DatagramSocket>,
    buffer: Box<[u8]>,
    commands: Vec<PendingCommand>,
    /// Receives and sends for the clients, where the engine is io_uring.
    ring: Option<CompletionRing>,
    /// Clients for whom the ring has something to send, when all has been heard that there is.
    unsent: Vec<usize>,
    /// Clients of whom the ring has brought the beginning of what has arrived, at the last wait.
    cut: Vec<usize>,
    /// The ring watches the poller.
    is_poller_watched: bool,
    /// Datagram sockets are not watched for a moment.
    has_unwatched_datagrams: bool,
}

impl<'s, H: Handler> Connections<'s, H> {
    /// A loop for worker number `worker`, which may serve `most` clients at once.
    pub(super) fn new(
        handler: &'s H,
        shared: &Arc<Shared>,
        poller: &Arc<Poller>,
        worker: usize,
        most: usize,
    ) -> io::Result<Self> {
        let options = &shared.options;
        // Before anybody knows of the loop.
        let ring = if shared.uses_ring { Some(CompletionRing::new()?) } else { None };
        let mailbox = Mailbox::open(worker, poller.clone(), shared.budget.clone())?;
        shared.register_loop(mailbox.clone());
        let context = LoopContext {
            poller: poller.clone(),
            mailbox,
            budget: shared.budget.clone(),
            counters: shared.counters.of(worker),
            clock: Clock::new(),
            low_water: options.low_water,
            linger: options.linger,
            worker,
            stopping: false.into(),
            uses_ring: shared.uses_ring,
        };
        Ok(Self {
            handler,
            context,
            clients: Slab::new(),
            to_remove: Vec::new(),
            most: most.min(MAX_CONNECTIONS),
            datagrams: Vec::new(),
            buffer: vec![0; READ].into(),
            commands: Vec::new(),
            ring,
            unsent: Vec::new(),
            cut: Vec::new(),
            is_poller_watched: false,
            has_unwatched_datagrams: false,
        })
    }

    /// Serves datagram sockets too.
    pub(super) fn watch_datagrams(&mut self, sockets: Vec<DatagramSocket>) -> io::Result<()> {
        self.datagrams = sockets;
        self.watch_all_datagrams()
    }

    /// Watches those that are not.
    fn watch_all_datagrams(&mut self) -> io::Result<()> {
        let mut is_short = false;
        for (token, socket) in (tokens::DATAGRAMS..).zip(&mut self.datagrams) {
            match socket.watch(&self.context.poller, token) {
                Err(error) if errno::classify_registration(&error) == ErrorClass::Temporary => {
                    is_short = true
                }
                watched => watched?,
            }
        }
        if is_short {
            return self.watch_later();
        }
        Ok(())
    }

    /// The system is short of something: what can't be received, or watched, is left for a moment.
    fn watch_later(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.has_unwatched_datagrams, true) {
            self.context.poller.timer_add(RETRY, None, tokens::WATCH_DATAGRAMS)?;
        }
        Ok(())
    }

    /// Leaves the server: its connections are gone.
    pub(super) fn leave(self, shared: &Shared) {
        shared.unregister_loop(&self.context.mailbox);
        self.context.mailbox.close();
    }

    /// Begins to serve a client.
    pub(super) fn open(&mut self, socket: OwnedFd, peer: Address, shared: &Shared) {
        let options = &shared.options;
        let entry = self.clients.vacant_entry();
        let slot = entry.key();
        let timeouts = Timeouts::new(
            options.idle_timeout,
            options.read_timeout,
            options.write_timeout,
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
        self.update_if_needed(slot);
    }

    /// Whether a callback has forked, and this is the child: everything is its parent's, the
    /// sockets and the counters, which they share, too.
    #[inline]
    fn is_in_child(&self) -> bool {
        !self.context.poller.is_owner()
    }

    /// Calls the handler for a client.
    #[inline]
    fn call(&mut self, slot: usize, call: impl FnOnce(&H, &mut Conn<'_>, &mut H::State, &[u8])) {
        let (client, buffer) = (&mut self.clients[slot], &*self.buffer);
        Self::call_with(self.handler, &self.context, client, |handler, conn, state| {
            call(handler, conn, state, buffer);
        });
    }

    /// A panic is the client's end.
    #[inline]
    fn call_with(
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

    /// A client's socket is ready.
    #[inline]
    fn ready(&mut self, slot: usize, ready: Ready) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.connection.is_over() {
            return;
        }
        if ready.intersects(Ready::INVALID) {
            client.connection.registered = None;
            client.connection.end(Some(libc::EBADF));
        }
        // Hang-up may come alone where only WRITE was asked for; a write then tells it.
        if ready.intersects(Ready::WRITE | Ready::HANGUP | Ready::ERROR)
            && !client.connection.queue.is_empty()
        {
            let _ = Conn { connection: &mut client.connection, context: &self.context }.flush();
        }
        if ready.intersects(Ready::READ) && client.connection.wants_input() {
            self.receive(slot);
        }
        self.update_if_needed(slot);
    }

    /// Reads once: under LEVEL the next wait tells if there is more, and the others had their
    /// turn meanwhile.
    #[inline]
    fn receive(&mut self, slot: usize) {
        use std::os::fd::AsFd;
        let connection = &mut self.clients[slot].connection;
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
            // All was sent before: that the peer does not end in order is nobody's concern.
            Err(_) if connection.is_lingering() => connection.end(None),
            Err(error) => connection.end(error.raw_os_error()),
        }
    }

    /// The peer has ended its direction.
    fn on_end(&mut self, slot: usize) {
        self.clients[slot].connection.peer_ended = true;
        self.call(slot, |handler, conn, state, _| handler.on_end(conn, state));
    }

    /// Does what the calls of a handler have asked for, if there is anything to do.
    #[inline]
    fn update_if_needed(&mut self, slot: usize) {
        if !self.clients[slot].connection.is_up_to_date(&self.context) {
            self.update(slot);
        }
    }

    /// Hands on what came early, if it is wanted now.
    fn deliver_unread(&mut self, slot: usize) -> bool {
        let kept = self.clients[slot].connection.take_unread();
        if let Some(early) = &kept {
            self.call(slot, |handler, conn, state, _| handler.on_data(conn, state, early));
        }
        kept.is_some()
    }

    /// Calls the handler for what it may do now, and ends the connection, or watches it for what
    /// it now needs.
    fn update(&mut self, slot: usize) {
        loop {
            if self.is_in_child() {
                return;
            }
            if self.deliver_unread(slot) {
                continue;
            }
            let connection = &mut self.clients[slot].connection;
            let has_drained =
                connection.above_high_water && connection.queue.waiting() <= self.context.low_water;
            if has_drained && !connection.is_over() {
                connection.above_high_water = false;
                connection.timeouts.note_read(&self.context.clock);
                // It may write again.
                self.call(slot, |handler, conn, state, _| handler.on_drain(conn, state));
                continue;
            }
            let lingered = connection.is_lingering();
            connection.advance();
            if connection.is_lingering() && !lingered {
                connection.timeouts.start_linger(&self.context.clock);
            }
            break;
        }
        let connection = &mut self.clients[slot].connection;
        if !connection.is_over() {
            if self.ring.is_some() && connection.has_unsent() {
                self.unsent.push(slot);
            }
            let carried = self.ring.as_mut().map_or(Ok(()), |ring| connection.sync_ring(slot, ring));
            match carried.and_then(|()| connection.sync_registration(slot as u64, &self.context)) {
                Ok(()) => return,
                Err(error) => connection.end(error.raw_os_error()),
            }
        }
        self.finish_close(slot);
    }

    /// Tells the end of a connection, and closes it.
    fn finish_close(&mut self, slot: usize) {
        let Client { connection, state } = &mut self.clients[slot];
        connection.unregister(&self.context);
        if let Some(ring) = &mut self.ring {
            connection.cancel_requests(slot, ring);
        }
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
    fn expire(&mut self, slot: usize) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let connection = &mut client.connection;
        if connection.is_over() {
            return;
        }
        connection.timeouts.timer = 0;
        if connection.is_late(&self.context) && connection.wants_input() {
            // What has come while the loop was busy was in time.
            self.receive(slot);
        }
        let connection = &mut self.clients[slot].connection;
        if !connection.is_over() && connection.is_late(&self.context) {
            match connection.is_lingering() {
                // The peer has had its time.
                true => connection.end(None),
                false => {
                    self.context.counters.add(Counter::TimedOut, 1);
                    // What lacks its rest must not look whole; else all is sent.
                    if !connection.queue.is_empty() {
                        connection.reset();
                    }
                    connection.end(Some(libc::ETIMEDOUT));
                }
            }
        }
        self.update_if_needed(slot);
    }

    /// Does what other threads have asked for.
    fn run_commands(&mut self) {
        let mut commands = std::mem::take(&mut self.commands);
        self.context.mailbox.take(&mut commands);
        for (slot, id, order) in commands.drain(..) {
            if self.is_in_child() {
                break;
            }
            let Some(client) = self.clients.get_mut(slot) else { continue };
            if client.connection.id != id || client.connection.is_over() {
                continue;
            }
            let mut conn = Conn { connection: &mut client.connection, context: &self.context };
            match order {
                Command::Write { data, above_high_water } => conn.write_shared(data, above_high_water),
                Command::Close => conn.close(),
                Command::Abort => conn.abort(),
                Command::Pause(true) => conn.pause(),
                Command::Pause(false) => conn.resume(),
                Command::Post(value) => {
                    self.call(slot, |handler, conn, state, _| handler.on_post(conn, state, value));
                }
            }
            self.update_if_needed(slot);
        }
        self.commands = commands;
    }

    fn datagrams_ready(&mut self, index: usize, ready: Ready) -> io::Result<()> {
        let Some(socket) = self.datagrams.get_mut(index) else { return Ok(()) };
        if ready.intersects(Ready::READ) {
            let (handler, poller) = (self.handler, &self.context.poller);
            let received = socket.receive(&self.context.counters, |datagram: &mut Datagram<'_>, data| {
                if poller.is_owner() {
                    // A panic costs one datagram.
                    let _ = catch_unwind(AssertUnwindSafe(|| handler.on_datagram(datagram, data)));
                }
            });
            poller.check_owner()?;
            match received {
                Err(error) if errno::classify_receive(&error) == ErrorClass::Temporary => {
                    self.context.poller.remove(&*socket)?;
                    socket.is_watched = false;
                    return self.watch_later();
                }
                received => received?,
            }
        }
        socket.flush(&self.context.counters)?;
        match socket.watch(&self.context.poller, tokens::DATAGRAMS + index as u64) {
            Err(error) if errno::classify_registration(&error) == ErrorClass::Temporary => self.watch_later(),
            watched => watched,
        }
    }

    fn open_slots(&self) -> Vec<usize> {
        let open = self.clients.iter().filter(|(_, client)| !client.connection.is_over());
        open.map(|(slot, _)| slot).collect()
    }
}

impl<H: Handler> Clients for Connections<'_, H> {
    fn on_accept(&mut self, event_loop: &mut EventLoop, socket: OwnedFd, peer: Address) -> io::Result<()> {
        self.context.counters.add(Counter::Accepted, 1);
        self.open(socket, peer, &event_loop.shared);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.clients.len() >= self.most
    }

    fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    fn ring(&mut self) -> Option<&mut CompletionRing> {
        self.ring.as_mut()
    }

    fn end_accepting(&mut self, event_loop: &mut EventLoop) -> io::Result<()> {
        self.cancel_accepts_in_ring(event_loop)
    }

    #[inline]
    fn wait(&mut self, event_loop: &mut EventLoop, events: &mut Events) -> io::Result<()> {
        match self.ring {
            Some(_) => self.wait_for_completions(event_loop, events),
            None => event_loop.poller.wait(events, None).map(drop),
        }
    }

    #[inline]
    fn event(&mut self, _: &mut EventLoop, event: &Event) -> io::Result<()> {
        match event.kind() {
            EventKind::Io if event.token() < tokens::LISTENERS => {
                self.ready(event.token() as usize, event.ready())
            }
            EventKind::Io => {
                return self.datagrams_ready((event.token() - tokens::DATAGRAMS) as usize, event.ready());
            }
            EventKind::Timer if event.token() == tokens::WATCH_DATAGRAMS => {
                self.has_unwatched_datagrams = false;
                return self.watch_all_datagrams();
            }
            EventKind::Timer => self.expire(event.token() as usize),
            EventKind::Wake => self.run_commands(),
            _ => {}
        }
        Ok(())
    }

    fn interrupted(&mut self) -> io::Result<()> {
        self.handler.on_interrupt()
    }

    fn before_wait(&mut self, event_loop: &mut EventLoop) -> io::Result<()> {
        if self.to_remove.is_empty() {
            return Ok(());
        }
        let clients = &mut self.clients;
        self.to_remove.retain(|&slot| {
            let is_idle_in_ring = clients[slot].connection.is_idle_in_ring();
            if is_idle_in_ring {
                clients.remove(slot);
            }
            !is_idle_in_ring
        });
        if event_loop.acceptor.is_retry_pending() {
            // There are descriptors again.
            event_loop.acceptor.resume(&event_loop.poller, &event_loop.counters, self.ring.as_mut())?;
        }
        Ok(())
    }

    fn stop(&mut self, event_loop: &mut EventLoop) {
        if self.context.stopping.replace(true) {
            return;
        }
        for socket in self.datagrams.drain(..) {
            let _ = event_loop.poller.remove(&socket);
            socket.flush_and_drop(&self.context.counters);
        }
        for slot in self.open_slots() {
            self.call(slot, |handler, conn, state, _| handler.on_stop(conn, state));
            self.update_if_needed(slot);
            if self.is_in_child() {
                return;
            }
        }
    }

    fn force_close(&mut self, _: &mut EventLoop) {
        for slot in self.open_slots() {
            let connection = &mut self.clients[slot].connection;
            connection.reset();
            connection.end(Some(libc::ECANCELED));
            self.update_if_needed(slot);
            if self.is_in_child() {
                return;
            }
        }
    }
}
