//! What a driver has received and sent by itself.

use std::io;

use super::connections::{Connections, READ};
use super::handler::Handler;
use crate::net::driver::{AnyDriver, Driver};
use crate::sys::{Chunk, Completion};

impl<H: Handler> Connections<H> {
    pub(super) fn complete(&mut self, driver: &mut AnyDriver, completion: Completion) {
        match completion {
            Completion::Received { key, result, more } => self.received(driver, key, result, more),
            Completion::Sent { key, result, bytes, sent } => {
                let connection = &mut self.table[key];
                connection.io.send_ended();
                connection.queue.finish_send(bytes, sent);
                self.sent(driver, key, result);
            }
            Completion::Connected { key, result } => self.connect_completed(driver, key, result),
            Completion::Accepted { .. } => {}
        }
    }

    fn received(&mut self, driver: &mut AnyDriver, slot: usize, result: io::Result<Chunk>, more: bool) {
        let connection = &mut self.table[slot];
        if !more {
            connection.io.receive_ended();
        }
        if connection.is_ended() {
            result.map(|chunk| driver.recycle(chunk)).ok();
            return;
        }
        match result {
            Ok(chunk) if chunk.length() == 0 => {
                self.deliver_complete(slot);
                self.end_received(slot);
            }
            Ok(chunk) => {
                self.chunk_received(driver, slot, &chunk);
                driver.recycle(chunk);
            }
            // Out of buffers, for a moment; or cancelled.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ECANCELED)) => {}
            Err(_) if connection.is_lingering() => connection.end(None),
            Err(error) => {
                self.deliver_complete(slot);
                self.table[slot].end(error.raw_os_error());
            }
        }
        self.update_if_needed(driver, slot);
    }

    /// Nothing more belongs to what is kept: delivers it.
    fn deliver_complete(&mut self, slot: usize) {
        self.table[slot].input.end_partial();
        self.deliver_unread(slot);
    }

    fn end_received(&mut self, slot: usize) {
        let connection = &mut self.table[slot];
        let input = &connection.input;
        // The handler has no room yet for what came before.
        let is_held_up = !input.is_framed() && input.length() > 0;
        if connection.is_lingering() {
            connection.end(None);
        } else if connection.wants_input() && !is_held_up {
            self.on_end(slot);
        }
        // Else the next receive reports it again.
    }

    fn chunk_received(&mut self, driver: &AnyDriver, slot: usize, chunk: &Chunk) {
        let connection = &mut self.table[slot];
        if connection.is_lingering() {
            connection.timeouts.extend_linger(&self.context.clock);
        }
        if !connection.is_open() {
            return;
        }
        connection.note_received(chunk.length(), &self.context);
        if connection.awaits_header {
            return self.header_received(slot, driver.bytes(chunk));
        }
        if connection.input.is_framed() {
            return self.deliver_frames_of(slot, driver.bytes(chunk));
        }
        let unread = connection.input.length();
        // No more is waited for than one read of other engines would bring.
        let is_partial = chunk.is_partial() && unread + chunk.length() < READ;
        if is_partial {
            self.partial.push(slot);
        }
        if connection.relay_to.is_some() && unread == 0 && connection.wants_input() {
            connection.note_relayed(chunk.length());
            return self.relay(slot, driver.bytes(chunk));
        }
        let is_kept = is_partial || unread > 0 || chunk.length() > self.handler.room();
        if is_kept || !connection.wants_input() {
            if connection.input.keep(driver.bytes(chunk), is_partial).is_err() {
                connection.end(Some(libc::ENOMEM));
            }
            return;
        }
        self.call(slot, |handler, conn, state, _| handler.on_data(conn, state, driver.bytes(chunk)));
    }

    fn sent(&mut self, driver: &mut AnyDriver, slot: usize, result: io::Result<usize>) {
        let connection = &mut self.table[slot];
        if connection.is_ended() {
            return;
        }
        match result {
            Ok(bytes) => connection.sent(bytes as u64, &self.context),
            Err(error) => drop(connection.send_failed(error)),
        }
        self.update_if_needed(driver, slot);
    }
}
