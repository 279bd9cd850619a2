//! One loop that serves many clients: [`Model::Reactor`](crate::Model::Reactor), and what every
//! worker of the other models runs for its own.

mod carried;

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use slab::Slab;

use super::doors::RETRY;
use super::front::{Front, House};
use super::handler::Handler;
use super::shared::Shared;
use super::tokens;
use crate::errno::{self, About};
use crate::error::plain;
use crate::net::{
    Clock, Conn, Connection, Counter, Datagram, DatagramSocket, Letter, Mailbox, Order, Output, Site,
    Timeouts, MOST_SEATS,
};
use crate::sys::{socket, Completion, Peer};
use crate::{Event, EventKind, Events, Poller, Ready};

/// What one read brings at most.
const READ: usize = 64 * 1024;

/// A connection, and what the handler keeps for it: nothing when it was refused.
struct Client<S> {
    connection: Connection,
    state: Option<S>,
}

/// The clients of one loop.
pub(super) struct Reactor<'s, H: Handler> {
    handler: &'s H,
    site: Site,
    clients: Slab<Client<H::State>>,
    /// Slots of clients that have left during this batch. They are not used again before its
    /// end: an event of who left may still be in it.
    left: Vec<usize>,
    most: usize,
    datagrams: Vec<DatagramSocket>,
    buffer: Box<[u8]>,
    letters: Vec<Letter>,
    /// Receives and sends for the clients, where the engine is io_uring.
    ring: Option<Completion>,
    /// Clients for whom the ring has something to send, when all has been heard that there is.
    unsent: Vec<usize>,
    /// Clients of whom the ring has brought the beginning of what has arrived, at the last wait.
    cut: Vec<usize>,
    /// The ring watches the poller.
    is_poller_watched: bool,
    /// Datagram sockets are not watched for a moment.
    has_deaf_sockets: bool,
}

impl<'s, H: Handler> Reactor<'s, H> {
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
        let ring = if shared.is_carried { Some(Completion::new()?) } else { None };
        let mailbox = Mailbox::open(worker, poller.clone(), shared.budget.clone())?;
        shared.join(mailbox.clone());
        let site = Site {
            poller: poller.clone(),
            mailbox,
            budget: shared.budget.clone(),
            count: shared.counts.of(worker),
            clock: Clock::new(),
            low_water: options.low_water,
            linger: options.linger,
            worker,
            stopping: false.into(),
            is_carried: shared.is_carried,
        };
        Ok(Self {
            handler,
            site,
            clients: Slab::new(),
            left: Vec::new(),
            most: most.min(MOST_SEATS),
            datagrams: Vec::new(),
            buffer: vec![0; READ].into(),
            letters: Vec::new(),
            ring,
            unsent: Vec::new(),
            cut: Vec::new(),
            is_poller_watched: false,
            has_deaf_sockets: false,
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
            match socket.watch(&self.site.poller, token) {
                Err(error) if errno::of_registration(&error) == About::Moment => is_short = true,
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
        if !std::mem::replace(&mut self.has_deaf_sockets, true) {
            self.site.poller.timer_add(RETRY, None, tokens::HEAR_AGAIN)?;
        }
        Ok(())
    }

    /// Leaves the server: its connections are gone.
    pub(super) fn leave(self, shared: &Shared) {
        shared.part(&self.site.mailbox);
        self.site.mailbox.close();
    }

    /// Begins to serve a client.
    pub(super) fn open(&mut self, socket: OwnedFd, peer: Peer, shared: &Shared) {
        let options = &shared.options;
        let entry = self.clients.vacant_entry();
        let slot = entry.key();
        let timeouts = Timeouts::new(
            options.idle_timeout,
            options.read_timeout,
            options.write_timeout,
            &self.site.clock,
        );
        let (id, account) = self.site.mailbox.settle(slot);
        let connection = Connection::new(socket, peer, id, Output::new(account), timeouts);
        let client = entry.insert(Client { connection, state: None });
        let mut conn = Conn { connection: &mut client.connection, site: &self.site };
        let opened = catch_unwind(AssertUnwindSafe(|| self.handler.on_open(&mut conn)));
        if !self.site.poller.is_owner() {
            return;
        }
        match opened {
            Ok(Ok(state)) => client.state = Some(state),
            Ok(Err(_)) => {
                self.site.count.add(Counter::Refused, 1);
                conn.close();
            }
            Err(_) => {
                self.site.count.add(Counter::Refused, 1);
                conn.abort();
            }
        }
        self.settle(slot);
    }

    /// Whether a callback has forked, and this is the child: everything is its parent's, the
    /// sockets and the counters, which they share, too.
    #[inline]
    fn is_in_child(&self) -> bool {
        !self.site.poller.is_owner()
    }

    /// Calls the handler for a client.
    #[inline]
    fn call(&mut self, slot: usize, call: impl FnOnce(&H, &mut Conn<'_>, &mut H::State, &[u8])) {
        let (client, buffer) = (&mut self.clients[slot], &*self.buffer);
        Self::call_with(self.handler, &self.site, client, |handler, conn, state| {
            call(handler, conn, state, buffer);
        });
    }

    /// A panic is the client's end.
    #[inline]
    fn call_with(
        handler: &H,
        site: &Site,
        client: &mut Client<H::State>,
        call: impl FnOnce(&H, &mut Conn<'_>, &mut H::State),
    ) {
        let Client { connection, state: Some(state) } = client else { return };
        let mut conn = Conn { connection, site };
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
            client.connection.watched = None;
            client.connection.end(Some(libc::EBADF));
        }
        // Hang-up may come alone where only WRITE was asked for; a write then tells it.
        if ready.intersects(Ready::WRITE | Ready::HANGUP | Ready::ERROR)
            && !client.connection.output.is_empty()
        {
            let _ = Conn { connection: &mut client.connection, site: &self.site }.flush();
        }
        if ready.intersects(Ready::READ) && client.connection.wants_input() {
            self.receive(slot);
        }
        self.settle(slot);
    }

    /// Reads once: under LEVEL the next wait tells if there is more, and the others had their
    /// turn meanwhile.
    #[inline]
    fn receive(&mut self, slot: usize) {
        use std::os::fd::AsFd;
        let connection = &mut self.clients[slot].connection;
        match socket::receive(connection.as_fd(), &mut self.buffer) {
            Ok(0) if connection.is_lingering() => connection.end(None),
            Ok(0) => self.end_of_input(slot),
            Ok(_) if connection.is_lingering() => connection.timeouts.lingers_on(&self.site.clock),
            Ok(length) => {
                self.site.count.received(length as u64);
                connection.timeouts.heard(&self.site.clock);
                self.call(slot, |handler, conn, state, data| handler.on_data(conn, state, &data[..length]));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // All was sent before: that the peer does not end in order is nobody's concern.
            Err(_) if connection.is_lingering() => connection.end(None),
            Err(error) => connection.end(error.raw_os_error()),
        }
    }

    /// The peer has ended its direction.
    fn end_of_input(&mut self, slot: usize) {
        self.clients[slot].connection.peer_ended = true;
        self.call(slot, |handler, conn, state, _| handler.on_end(conn, state));
    }

    /// Does what the calls of a handler have asked for, if there is anything to do.
    #[inline]
    fn settle(&mut self, slot: usize) {
        if !self.clients[slot].connection.is_settled(&self.site) {
            self.attend(slot);
        }
    }

    /// Hands on what came early, if it is wanted now.
    fn hand_on_kept(&mut self, slot: usize) -> bool {
        let kept = self.clients[slot].connection.kept();
        if let Some(early) = &kept {
            self.call(slot, |handler, conn, state, _| handler.on_data(conn, state, early));
        }
        kept.is_some()
    }

    /// Calls the handler for what it may do now, and ends the connection, or watches it for what
    /// it now needs.
    fn attend(&mut self, slot: usize) {
        loop {
            if self.is_in_child() {
                return;
            }
            if self.hand_on_kept(slot) {
                continue;
            }
            let connection = &mut self.clients[slot].connection;
            let has_drained = connection.is_full && connection.output.waiting() <= self.site.low_water;
            if has_drained && !connection.is_over() {
                connection.is_full = false;
                connection.timeouts.heard(&self.site.clock);
                // It may write again.
                self.call(slot, |handler, conn, state, _| handler.on_drain(conn, state));
                continue;
            }
            let lingered = connection.is_lingering();
            connection.go_on();
            if connection.is_lingering() && !lingered {
                connection.timeouts.lingers(&self.site.clock);
            }
            break;
        }
        let connection = &mut self.clients[slot].connection;
        if !connection.is_over() {
            if self.ring.is_some() && connection.is_to_be_sent() {
                self.unsent.push(slot);
            }
            let carried = self.ring.as_mut().map_or(Ok(()), |ring| connection.carry(slot, ring));
            match carried.and_then(|()| connection.keep_step(slot as u64, &self.site)) {
                Ok(()) => return,
                Err(error) => connection.end(error.raw_os_error()),
            }
        }
        self.bid_farewell(slot);
    }

    /// Tells the end of a connection, and closes it.
    fn bid_farewell(&mut self, slot: usize) {
        let Client { connection, state } = &mut self.clients[slot];
        connection.unwatch(&self.site);
        if let Some(ring) = &mut self.ring {
            connection.halt(slot, ring);
        }
        self.site.mailbox.leave(connection.id);
        let error = connection.error.map(plain);
        if let Some(state) = state.take() {
            let mut conn = Conn { connection, site: &self.site };
            let _ = catch_unwind(AssertUnwindSafe(|| self.handler.on_close(&mut conn, state, error)));
            if self.is_in_child() {
                return;
            }
        }
        self.site.count.add(Counter::Closed, 1);
        self.left.push(slot);
    }

    /// A connection's timer has expired.
    fn expire(&mut self, slot: usize) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let connection = &mut client.connection;
        if connection.is_over() {
            return;
        }
        connection.timeouts.timer = 0;
        if connection.is_late(&self.site) && connection.wants_input() {
            // What has come while the loop was busy was in time.
            self.receive(slot);
        }
        let connection = &mut self.clients[slot].connection;
        if !connection.is_over() && connection.is_late(&self.site) {
            match connection.is_lingering() {
                // The peer has had its time.
                true => connection.end(None),
                false => {
                    self.site.count.add(Counter::TimedOut, 1);
                    // What lacks its rest must not look whole; else all is sent.
                    if !connection.output.is_empty() {
                        connection.reset();
                    }
                    connection.end(Some(libc::ETIMEDOUT));
                }
            }
        }
        self.settle(slot);
    }

    /// Does what other threads have asked for.
    fn read_letters(&mut self) {
        let mut letters = std::mem::take(&mut self.letters);
        self.site.mailbox.take(&mut letters);
        for (slot, id, order) in letters.drain(..) {
            if self.is_in_child() {
                break;
            }
            let Some(client) = self.clients.get_mut(slot) else { continue };
            if client.connection.id != id || client.connection.is_over() {
                continue;
            }
            let mut conn = Conn { connection: &mut client.connection, site: &self.site };
            match order {
                Order::Write { data, fills } => conn.write_shared(data, fills),
                Order::Close => conn.close(),
                Order::Abort => conn.abort(),
                Order::Pause(true) => conn.pause(),
                Order::Pause(false) => conn.resume(),
                Order::Post(value) => {
                    self.call(slot, |handler, conn, state, _| handler.on_post(conn, state, value));
                }
            }
            self.settle(slot);
        }
        self.letters = letters;
    }

    fn datagrams_ready(&mut self, index: usize, ready: Ready) -> io::Result<()> {
        let Some(socket) = self.datagrams.get_mut(index) else { return Ok(()) };
        if ready.intersects(Ready::READ) {
            let (handler, poller) = (self.handler, &self.site.poller);
            let received = socket.receive(&self.site.count, |datagram: &mut Datagram<'_>, data| {
                if poller.is_owner() {
                    // A panic costs one datagram.
                    let _ = catch_unwind(AssertUnwindSafe(|| handler.on_datagram(datagram, data)));
                }
            });
            poller.check_owner()?;
            match received {
                Err(error) if errno::of_receive(&error) == About::Moment => {
                    self.site.poller.remove(&*socket)?;
                    socket.is_watched = false;
                    return self.watch_later();
                }
                received => received?,
            }
        }
        socket.flush(&self.site.count)?;
        match socket.watch(&self.site.poller, tokens::DATAGRAMS + index as u64) {
            Err(error) if errno::of_registration(&error) == About::Moment => self.watch_later(),
            watched => watched,
        }
    }

    fn everyone(&self) -> Vec<usize> {
        let open = self.clients.iter().filter(|(_, client)| !client.connection.is_over());
        open.map(|(slot, _)| slot).collect()
    }
}

impl<H: Handler> House for Reactor<'_, H> {
    fn welcome(&mut self, front: &mut Front, socket: OwnedFd, peer: Peer) -> io::Result<()> {
        self.site.count.add(Counter::Accepted, 1);
        self.open(socket, peer, &front.shared);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.clients.len() >= self.most
    }

    fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    fn ring(&mut self) -> Option<&mut Completion> {
        self.ring.as_mut()
    }

    fn end_accepting(&mut self, front: &mut Front) -> io::Result<()> {
        self.end_accepting_in_ring(front)
    }

    #[inline]
    fn wait(&mut self, front: &mut Front, events: &mut Events) -> io::Result<()> {
        match self.ring {
            Some(_) => self.wait_in_ring(front, events),
            None => front.poller.wait(events, None).map(drop),
        }
    }

    #[inline]
    fn event(&mut self, _: &mut Front, event: &Event) -> io::Result<()> {
        match event.kind() {
            EventKind::Io if event.token() < tokens::DOORS => {
                self.ready(event.token() as usize, event.ready())
            }
            EventKind::Io => {
                return self.datagrams_ready((event.token() - tokens::DATAGRAMS) as usize, event.ready());
            }
            EventKind::Timer if event.token() == tokens::HEAR_AGAIN => {
                self.has_deaf_sockets = false;
                return self.watch_all_datagrams();
            }
            EventKind::Timer => self.expire(event.token() as usize),
            EventKind::Wake => self.read_letters(),
            _ => {}
        }
        Ok(())
    }

    fn interrupted(&mut self) -> io::Result<()> {
        self.handler.on_interrupt()
    }

    fn rest(&mut self, front: &mut Front) -> io::Result<()> {
        if self.left.is_empty() {
            return Ok(());
        }
        let clients = &mut self.clients;
        self.left.retain(|&slot| {
            let is_at_rest = clients[slot].connection.is_at_rest();
            if is_at_rest {
                clients.remove(slot);
            }
            !is_at_rest
        });
        if front.doors.is_waiting() {
            // There are descriptors again.
            front.doors.open(&front.poller, &front.count, self.ring.as_mut())?;
        }
        Ok(())
    }

    fn stop(&mut self, front: &mut Front) {
        if self.site.stopping.replace(true) {
            return;
        }
        for socket in self.datagrams.drain(..) {
            let _ = front.poller.remove(&socket);
            socket.give_up(&self.site.count);
        }
        for slot in self.everyone() {
            self.call(slot, |handler, conn, state, _| handler.on_stop(conn, state));
            self.settle(slot);
            if self.is_in_child() {
                return;
            }
        }
    }

    fn abandon(&mut self, _: &mut Front) {
        for slot in self.everyone() {
            let connection = &mut self.clients[slot].connection;
            connection.reset();
            connection.end(Some(libc::ECANCELED));
            self.settle(slot);
            if self.is_in_child() {
                return;
            }
        }
    }
}
