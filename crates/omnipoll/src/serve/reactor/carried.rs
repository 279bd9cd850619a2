//! A loop whose clients are served by a ring: it waits in the ring, which watches the loop's
//! poller besides, and takes what the ring has done.

use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::super::front::Front;
use super::super::handler::Handler;
use super::{Reactor, READ};
use crate::errno::{self, About};
use crate::net::Conn;
use crate::sys::{Chunk, Done};
use crate::Events;

/// How long to wait for the end of accepting.
const PATIENCE: Duration = Duration::from_millis(500);

impl<H: Handler> Reactor<'_, H> {
    /// One system call hands over what is to be done and waits for what is done. The poller is
    /// asked only when it has something, or one of its timers is due.
    pub(super) fn wait_in_ring(&mut self, front: &mut Front, events: &mut Events) -> io::Result<()> {
        self.send_what_is_unsent();
        let Some(ring) = &mut self.ring else { return Ok(()) };
        if let (false, Some(poller)) = (self.is_poller_watched, front.poller.descriptor()) {
            ring.watch(poller.as_raw_fd())?;
            self.is_poller_watched = true;
        }
        let only_looks = front.doors.have_arrivals() || !self.cut.is_empty();
        let is_due = front.poller.sleep_elsewhere(|limit| {
            let limit = if only_looks { Some(Duration::ZERO) } else { limit };
            let is_done = ring.wait(limit)?;
            Ok(!is_done || limit == Some(Duration::ZERO))
        });
        let cut = std::mem::take(&mut self.cut);
        self.take_what_is_done(front);
        self.hand_on_without_the_rest(cut);
        let is_due = match is_due {
            // What the poller has can be had without the ring.
            Err(error) if errno::of_wait(&error) == About::Moment => {
                return match front.poller.wait(events, Some(Duration::ZERO))? {
                    0 => Err(error),
                    _ => Ok(()),
                };
            }
            is_due => is_due?,
        };
        match is_due || !self.is_poller_watched {
            true => front.poller.wait(events, Some(Duration::ZERO)).map(drop),
            false => {
                events.clear();
                Ok(())
            }
        }
    }

    /// One send for all that a client was given since the last wait.
    fn send_what_is_unsent(&mut self) {
        while let (Some(slot), Some(ring)) = (self.unsent.pop(), &mut self.ring) {
            let Some(client) = self.clients.get_mut(slot) else { continue };
            if client.connection.is_over() {
                continue;
            }
            if let Err(error) = client.connection.send(slot, ring) {
                client.connection.end(error.raw_os_error());
                self.settle(slot);
            }
        }
    }

    /// Has the ring accept nobody any more, and takes what it has done until it doesn't.
    pub(super) fn end_accepting_in_ring(&mut self, front: &mut Front) -> io::Result<()> {
        let Some(ring) = &mut self.ring else { return Ok(()) };
        front.doors.dismiss(ring)?;
        let began = Instant::now();
        while let (true, Some(ring)) = (front.doors.has_ring(), &mut self.ring) {
            match ring.wait(Some(PATIENCE)) {
                Err(error) if errno::of_wait(&error) == About::Call => return Err(error),
                _ => self.take_what_is_done(front),
            }
            if began.elapsed() >= PATIENCE {
                // The system is short of something. Whoever is accepted after this is refused.
                break;
            }
        }
        Ok(())
    }

    fn take_what_is_done(&mut self, front: &mut Front) {
        while let Some(done) = self.ring.as_mut().and_then(|ring| ring.next()) {
            match done {
                Done::Accepted { door, result, goes_on } => front.doors.arrive(door, result, goes_on),
                Done::Received { whose, result, goes_on } => self.received(whose, result, goes_on),
                Done::Sent { whose, result, bytes, sent } => {
                    self.clients[whose].connection.sent_last(bytes, sent);
                    self.sent(whose, result);
                }
                Done::Readable => self.is_poller_watched = false,
            }
        }
    }

    fn received(&mut self, slot: usize, result: io::Result<Chunk>, goes_on: bool) {
        let connection = &mut self.clients[slot].connection;
        if !goes_on {
            connection.received_last();
        }
        if connection.is_over() {
            result.map(|chunk| self.give_back(chunk)).ok();
            return;
        }
        match result {
            Ok(chunk) if chunk.length() == 0 => {
                self.hand_on_what_is_kept(slot);
                self.heard_the_end(slot);
            }
            Ok(chunk) => {
                self.heard(slot, &chunk);
                self.give_back(chunk);
            }
            // Out of buffers, for a moment; or ended because it was told to.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ECANCELED)) => {}
            Err(_) if connection.is_lingering() => connection.end(None),
            Err(error) => {
                self.hand_on_what_is_kept(slot);
                self.clients[slot].connection.end(error.raw_os_error());
            }
        }
        self.settle(slot);
    }

    /// Nothing more belongs to what is kept.
    fn hand_on_what_is_kept(&mut self, slot: usize) {
        self.clients[slot].connection.waits_for_no_rest();
        self.hand_on_kept(slot);
    }

    /// Hands on what was cut before the last wait, if its rest has not come, which it has unless it
    /// was urgent data.
    fn hand_on_without_the_rest(&mut self, cut: Vec<usize>) {
        for slot in cut {
            let client = self.clients.get_mut(slot).filter(|client| !client.connection.is_over());
            if let (Some(client), false) = (client, self.cut.contains(&slot)) {
                client.connection.waits_for_no_rest();
                self.settle(slot);
            }
        }
    }

    fn heard_the_end(&mut self, slot: usize) {
        let connection = &mut self.clients[slot].connection;
        match (connection.is_lingering(), connection.wants_input()) {
            (true, _) => connection.end(None),
            // It is told again when the connection is read again.
            (_, false) => {}
            _ => self.end_of_input(slot),
        }
    }

    fn heard(&mut self, slot: usize, chunk: &Chunk) {
        let Some(ring) = &self.ring else { return };
        let client = &mut self.clients[slot];
        if client.connection.is_lingering() {
            client.connection.timeouts.lingers_on(&self.site.clock);
        }
        if !client.connection.is_open() {
            return;
        }
        self.site.count.received(chunk.length() as u64);
        client.connection.timeouts.heard(&self.site.clock);
        // No more is waited for than one read of other engines would bring.
        let is_cut = chunk.is_cut() && client.connection.kept_length() + chunk.length() < READ;
        if is_cut {
            self.cut.push(slot);
        }
        if is_cut || client.connection.kept_length() > 0 || !client.connection.wants_input() {
            return client.connection.keep(ring.bytes(chunk), is_cut);
        }
        Self::call_with(self.handler, &self.site, client, |handler, conn, state| {
            handler.on_data(conn, state, ring.bytes(chunk));
        });
    }

    fn give_back(&mut self, chunk: Chunk) {
        if let Some(ring) = &mut self.ring {
            ring.give_back(chunk);
        }
    }

    fn sent(&mut self, slot: usize, result: io::Result<usize>) {
        let connection = &mut self.clients[slot].connection;
        if connection.is_over() {
            return;
        }
        let mut conn = Conn { connection, site: &self.site };
        match result {
            Ok(bytes) => conn.sent(bytes as u64),
            Err(error) => drop(conn.fail(error)),
        }
        self.settle(slot);
    }
}
