//! What a ring has under way for a connection, kept in step with what the connection waits for:
//! the counterpart of [`watch`](super::watch) where the kernel completes instead of telling.

use std::io;
use std::os::fd::AsFd;

use super::conn::Connection;
use crate::sys::CompletionRing;

/// How a lasting receive stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Receive {
    #[default]
    None,
    Active,
    /// It was told to end, and has not said that it has.
    Cancelling,
}

/// What a ring has under way for a connection.
#[derive(Debug, Default)]
pub(crate) struct RingIo {
    receive: Receive,
    sending: bool,
    /// What was received before it was known that it should not be, or before its rest.
    unread: Vec<u8>,
    /// More has arrived that belongs to what is `early`, and is handed on with it.
    is_partial: bool,
}

impl Connection {
    /// Whether the ring receives for it, and all that came has been handed on.
    #[inline]
    pub(crate) fn is_receiving(&self) -> bool {
        self.ring_io.receive == Receive::Active && self.ring_io.unread.is_empty()
    }

    /// Whether the ring has nothing of it under way: it may be taken away.
    pub(crate) fn is_idle_in_ring(&self) -> bool {
        self.ring_io.receive == Receive::None && !self.ring_io.sending
    }

    /// Brings what the ring does in step. Its completions are told to `key`.
    pub(crate) fn sync_ring(&mut self, key: usize, ring: &mut CompletionRing) -> io::Result<()> {
        match (self.ring_io.receive, self.wants_input()) {
            (Receive::None, true) => {
                ring.receive(self.as_fd(), key)?;
                self.ring_io.receive = Receive::Active;
            }
            (Receive::Active, false) => {
                ring.cancel_receive(key)?;
                self.ring_io.receive = Receive::Cancelling;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether there is something for the ring to send.
    #[inline]
    pub(crate) fn has_unsent(&self) -> bool {
        !self.ring_io.sending && !self.queue.is_empty()
    }

    /// Has the ring send what is next.
    pub(crate) fn send(&mut self, key: usize, ring: &mut CompletionRing) -> io::Result<()> {
        if self.ring_io.sending {
            return Ok(());
        }
        if let Some((bytes, start)) = self.queue.begin_send()? {
            ring.send(self.as_fd(), key, bytes, start)?;
            self.ring_io.sending = true;
        }
        Ok(())
    }

    /// Ends what is under way, for a connection that is over.
    pub(crate) fn cancel_requests(&mut self, key: usize, ring: &mut CompletionRing) {
        // A ring that takes no requests keeps the connection until its requests end.
        if self.ring_io.receive == Receive::Active && ring.cancel_receive(key).is_ok() {
            self.ring_io.receive = Receive::Cancelling;
        }
        if self.ring_io.sending {
            let _ = ring.cancel_send(key);
        }
    }

    /// A receive has ended.
    pub(crate) fn receive_ended(&mut self) {
        self.ring_io.receive = Receive::None;
    }

    /// A send has ended; `bytes` are sent up to this.
    pub(crate) fn send_ended(&mut self, bytes: Vec<u8>, sent: usize) {
        self.ring_io.sending = false;
        self.queue.finish_send(bytes, sent);
    }

    /// Keeps what is not wanted yet; `is_partial` when more of it has arrived and is still to come.
    /// Without memory for it, the connection is over.
    pub(crate) fn keep_unread(&mut self, early: &[u8], is_partial: bool) {
        if self.ring_io.unread.try_reserve(early.len()).is_err() {
            return self.end(Some(libc::ENOMEM));
        }
        self.ring_io.unread.extend_from_slice(early);
        self.ring_io.is_partial = is_partial;
    }

    /// How many bytes are kept.
    #[inline]
    pub(crate) fn unread_length(&self) -> usize {
        self.ring_io.unread.len()
    }

    /// What is kept is handed on as it is.
    pub(crate) fn end_partial(&mut self) {
        self.ring_io.is_partial = false;
    }

    /// What came early, if it is wanted now.
    #[inline]
    pub(crate) fn take_unread(&mut self) -> Option<Vec<u8>> {
        let wanted =
            self.unread_length() > 0 && !self.ring_io.is_partial && self.is_open() && self.wants_input();
        wanted.then(|| std::mem::take(&mut self.ring_io.unread))
    }
}
