//! A loop whose clients are served by a ring: it waits in the ring, which watches the loop's
//! poller besides, and takes what the ring has done.

use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::super::event_loop::EventLoop;
use super::super::handler::Handler;
use super::{Connections, READ};
use crate::errno::{self, ErrorClass};
use crate::net::Conn;
use crate::sys::{Chunk, Completion};
use crate::Events;

/// How long to wait for the end of accepting.
const ACCEPT_CANCEL_TIMEOUT: Duration = Duration::from_millis(500);

impl<H: Handler> Connections<'_, H> {
    /// One system call hands over what is to be done and waits for what is done. The poller is
    /// asked only when it has something, or one of its timers is due.
    pub(super) fn wait_for_completions(
        &mut self,
        event_loop: &mut EventLoop,
        events: &mut Events,
    ) -> io::Result<()> {
        self.submit_sends();
        let Some(ring) = &mut self.ring else { return Ok(()) };
        if let (false, Some(poller)) = (self.is_poller_watched, event_loop.poller.descriptor()) {
            ring.watch(poller.as_raw_fd())?;
            self.is_poller_watched = true;
        }
        let only_looks = event_loop.acceptor.has_accepted() || !self.cut.is_empty();
        let is_due = event_loop.poller.sleep_elsewhere(|limit| {
            let limit = if only_looks { Some(Duration::ZERO) } else { limit };
            let is_done = ring.wait(limit)?;
            Ok(!is_done || limit == Some(Duration::ZERO))
        });
        let cut = std::mem::take(&mut self.cut);
        self.handle_completions(event_loop);
        self.deliver_partial(cut);
        let is_due = match is_due {
            // What the poller has can be had without the ring.
            Err(error) if errno::classify_wait(&error) == ErrorClass::Temporary => {
                return match event_loop.poller.wait(events, Some(Duration::ZERO))? {
                    0 => Err(error),
                    _ => Ok(()),
                };
            }
            is_due => is_due?,
        };
        match is_due || !self.is_poller_watched {
            true => event_loop.poller.wait(events, Some(Duration::ZERO)).map(drop),
            false => {
                events.clear();
                Ok(())
            }
        }
    }

    /// One send for all that a client was given since the last wait.
    fn submit_sends(&mut self) {
        while let (Some(slot), Some(ring)) = (self.unsent.pop(), &mut self.ring) {
            let Some(client) = self.clients.get_mut(slot) else { continue };
            if client.connection.is_over() {
                continue;
            }
            if let Err(error) = client.connection.send(slot, ring) {
                client.connection.end(error.raw_os_error());
                self.update_if_needed(slot);
            }
        }
    }

    /// Has the ring accept nobody any more, and takes what it has done until it doesn't.
    pub(super) fn cancel_accepts_in_ring(&mut self, event_loop: &mut EventLoop) -> io::Result<()> {
        let Some(ring) = &mut self.ring else { return Ok(()) };
        event_loop.acceptor.cancel_accepts(ring)?;
        let began = Instant::now();
        while let (true, Some(ring)) = (event_loop.acceptor.has_multishot(), &mut self.ring) {
            match ring.wait(Some(ACCEPT_CANCEL_TIMEOUT)) {
                Err(error) if errno::classify_wait(&error) == ErrorClass::Permanent => return Err(error),
                _ => self.handle_completions(event_loop),
            }
            if began.elapsed() >= ACCEPT_CANCEL_TIMEOUT {
                // The system is short of something. Whoever is accepted after this is refused.
                break;
            }
        }
        Ok(())
    }

    fn handle_completions(&mut self, event_loop: &mut EventLoop) {
        while let Some(done) = self.ring.as_mut().and_then(|ring| ring.next()) {
            match done {
                Completion::Accepted { key, result, more } => {
                    event_loop.acceptor.push_accepted(key, result, more)
                }
                Completion::Received { key, result, more } => self.received(key, result, more),
                Completion::Sent { key, result, bytes, sent } => {
                    self.clients[key].connection.send_ended(bytes, sent);
                    self.sent(key, result);
                }
                Completion::Readable => self.is_poller_watched = false,
            }
        }
    }

    fn received(&mut self, slot: usize, result: io::Result<Chunk>, more: bool) {
        let connection = &mut self.clients[slot].connection;
        if !more {
            connection.receive_ended();
        }
        if connection.is_over() {
            result.map(|chunk| self.recycle(chunk)).ok();
            return;
        }
        match result {
            Ok(chunk) if chunk.length() == 0 => {
                self.deliver_complete(slot);
                self.on_ring_end(slot);
            }
            Ok(chunk) => {
                self.heard(slot, &chunk);
                self.recycle(chunk);
            }
            // Out of buffers, for a moment; or ended because it was told to.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ECANCELED)) => {}
            Err(_) if connection.is_lingering() => connection.end(None),
            Err(error) => {
                self.deliver_complete(slot);
                self.clients[slot].connection.end(error.raw_os_error());
            }
        }
        self.update_if_needed(slot);
    }

    /// Nothing more belongs to what is kept.
    fn deliver_complete(&mut self, slot: usize) {
        self.clients[slot].connection.end_partial();
        self.deliver_unread(slot);
    }

    /// Hands on what was cut before the last wait, if its rest has not come, which it has unless it
    /// was urgent data.
    fn deliver_partial(&mut self, cut: Vec<usize>) {
        for slot in cut {
            let client = self.clients.get_mut(slot).filter(|client| !client.connection.is_over());
            if let (Some(client), false) = (client, self.cut.contains(&slot)) {
                client.connection.end_partial();
                self.update_if_needed(slot);
            }
        }
    }

    fn on_ring_end(&mut self, slot: usize) {
        let connection = &mut self.clients[slot].connection;
        match (connection.is_lingering(), connection.wants_input()) {
            (true, _) => connection.end(None),
            // It is told again when the connection is read again.
            (_, false) => {}
            _ => self.on_end(slot),
        }
    }

    fn heard(&mut self, slot: usize, chunk: &Chunk) {
        let Some(ring) = &self.ring else { return };
        let client = &mut self.clients[slot];
        if client.connection.is_lingering() {
            client.connection.timeouts.extend_linger(&self.context.clock);
        }
        if !client.connection.is_open() {
            return;
        }
        self.context.counters.received(chunk.length() as u64);
        client.connection.timeouts.note_read(&self.context.clock);
        // No more is waited for than one read of other engines would bring.
        let is_partial = chunk.is_partial() && client.connection.unread_length() + chunk.length() < READ;
        if is_partial {
            self.cut.push(slot);
        }
        if is_partial || client.connection.unread_length() > 0 || !client.connection.wants_input() {
            return client.connection.keep_unread(ring.bytes(chunk), is_partial);
        }
        Self::call_with(self.handler, &self.context, client, |handler, conn, state| {
            handler.on_data(conn, state, ring.bytes(chunk));
        });
    }

    fn recycle(&mut self, chunk: Chunk) {
        if let Some(ring) = &mut self.ring {
            ring.recycle(chunk);
        }
    }

    fn sent(&mut self, slot: usize, result: io::Result<usize>) {
        let connection = &mut self.clients[slot].connection;
        if connection.is_over() {
            return;
        }
        let mut conn = Conn { connection, context: &self.context };
        match result {
            Ok(bytes) => conn.sent(bytes as u64),
            Err(error) => drop(conn.fail(error)),
        }
        self.update_if_needed(slot);
    }
}
