//! Relays: what one connection receives is sent on by another of the same loop, without the handler.
//!
//! The one that receives is held, and reads nothing, while more than the high mark waits to be sent on,
//! or nothing more may be queued. What comes in large pieces is moved by `splice(2)` where there is one.

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsFd;

use super::connections::Connections;
use super::handler::Handler;
use crate::net::RelayWrite;
#[cfg(target_os = "linux")]
use crate::sys::splice::SplicePipe;

impl<H: Handler> Connections<H> {
    /// Sends on what `from` has received: the bytes are in the loop's buffer.
    #[cold]
    pub(super) fn relay_received(&mut self, from: usize, length: usize) {
        self.table[from].note_relayed(length);
        let buffer = std::mem::take(&mut self.buffer);
        self.relay(from, &buffer[..length]);
        self.buffer = buffer;
    }

    /// Sends on what `from` has received, and keeps there what can't be queued.
    pub(super) fn relay(&mut self, from: usize, data: &[u8]) {
        let Some(to) = self.table[from].relay_to.slot() else { return };
        let written = self.table[to].write_relayed(data, &self.context);
        let connection = &mut self.table[from];
        match written {
            RelayWrite::Sent => return,
            RelayWrite::Queued { is_held } => connection.is_held |= is_held,
            RelayWrite::Part { taken } => {
                connection.is_held = true;
                if connection.input.keep(&data[taken..], false).is_err() {
                    connection.end(Some(libc::ENOMEM));
                }
            }
            // Its end ends `from` too.
            RelayWrite::Ended => {}
        }
        self.touch(to);
    }

    /// The connection that is relayed to can take more.
    pub(super) fn resume_relay(&mut self, to: usize) {
        self.table[to].io.is_awaited = false;
        let Some(from) = self.table[to].relay_from.slot() else { return };
        if std::mem::replace(&mut self.table[from].is_held, false) {
            self.table[from].timeouts.note_read(&self.context.clock);
            self.touch(from);
        }
    }

    /// The peer of `from` has ended its direction: so does the connection that it is relayed to.
    pub(super) fn relay_end(&mut self, from: usize) {
        let Some(to) = self.table[from].relay_to.slot() else { return };
        self.table[to].shut_down(&self.context);
        self.touch(to);
    }

    /// A connection has ended: so does what it is relayed to or from. A reset is passed on; what is queued
    /// is sent after a clean end.
    pub(super) fn unlink_relays(&mut self, slot: usize) {
        let connection = &mut self.table[slot];
        let has_failed = connection.error().is_some();
        let linked = [connection.relay_to.take(), connection.relay_from.take()];
        for other in linked.into_iter().flatten().filter(|&other| other != slot) {
            let other_connection = &mut self.table[other];
            if other_connection.relay_to.slot() == Some(slot) {
                other_connection.relay_to.take();
            }
            if other_connection.relay_from.slot() == Some(slot) {
                other_connection.relay_from.take();
            }
            other_connection.is_held = false;
            other_connection.end_after_peer(has_failed, &self.context);
            self.touch(other);
        }
    }

    /// Has a connection followed up before the next wait.
    fn touch(&mut self, slot: usize) {
        self.table[slot].touch(slot, &self.context);
    }
}

#[cfg(target_os = "linux")]
impl<H: Handler> Connections<H> {
    /// Moves what has arrived without copying it. False when it is to be received: something waits to be sent
    /// before it, or the socket can't be spliced from.
    pub(super) fn splice(&mut self, from: usize) -> bool {
        let Some(to) = self.table[from].relay_to.slot() else { return false };
        if to == from || !self.table[to].can_take_splice() {
            return false;
        }
        let pipe = match self.pipe.take().map_or_else(SplicePipe::new, Ok) {
            Ok(pipe) => pipe,
            // No descriptors are left: it is received as before.
            Err(_) => return false,
        };
        match pipe.fill(self.table[from].as_fd()) {
            Ok(0) => {
                self.pipe = Some(pipe);
                self.on_end(from);
            }
            Ok(count) => self.splice_on(from, to, pipe, count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.pipe = Some(pipe),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.table[from].never_splice();
                return false;
            }
            Err(error) => self.table[from].end(error.raw_os_error()),
        }
        true
    }

    /// Sends on what is in the pipe, and queues what the socket does not take. A pipe that isn't empty
    /// afterwards is dropped: its bytes were for a connection that has ended.
    fn splice_on(&mut self, from: usize, to: usize, pipe: SplicePipe, count: usize) {
        self.context.counters.received(count as u64);
        let connection = &mut self.table[from];
        connection.timeouts.note_read(&self.context.clock);
        connection.note_relayed(count);
        let mut left = count;
        while left > 0 {
            match pipe.send(self.table[to].as_fd(), left) {
                Ok(sent) => {
                    left -= sent;
                    self.table[to].sent(sent as u64, &self.context);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.table[to].send_failed(error);
                    return self.touch(to);
                }
            }
        }
        while left > 0 {
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = pipe.read(&mut buffer).unwrap_or(0);
            self.relay(from, &buffer[..read]);
            self.buffer = buffer;
            if read == 0 {
                return self.table[from].end(Some(libc::EIO));
            }
            left -= read.min(left);
        }
        self.pipe = Some(pipe);
        self.touch(to);
    }
}

#[cfg(not(target_os = "linux"))]
impl<H: Handler> Connections<H> {
    pub(super) fn splice(&mut self, _: usize) -> bool {
        false
    }
}
