//! What a ring has under way for a connection, kept in step with what the connection waits for:
//! the counterpart of [`watch`](super::watch) where the kernel completes instead of telling.

use std::io;
use std::os::fd::AsFd;

use super::conn::Connection;
use crate::sys::Completion;

/// How a lasting receive stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Receive {
    #[default]
    None,
    UnderWay,
    /// It was told to end, and has not said that it has.
    Ending,
}

/// What a ring has under way for a connection.
#[derive(Debug, Default)]
pub(crate) struct Carriage {
    receive: Receive,
    sending: bool,
    /// What was received before it was known that it should not be, or before its rest.
    early: Vec<u8>,
    /// More has arrived that belongs to what is `early`, and is handed on with it.
    is_cut: bool,
}

impl Connection {
    /// Whether the ring receives for it, and all that came has been handed on.
    #[inline]
    pub(crate) fn is_received(&self) -> bool {
        self.carriage.receive == Receive::UnderWay && self.carriage.early.is_empty()
    }

    /// Whether the ring has nothing of it under way: it may be taken away.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.carriage.receive == Receive::None && !self.carriage.sending
    }

    /// Brings what the ring does in step. Its completions are told to `whose`.
    pub(crate) fn carry(&mut self, whose: usize, ring: &mut Completion) -> io::Result<()> {
        match (self.carriage.receive, self.wants_input()) {
            (Receive::None, true) => {
                ring.receive(self.as_fd(), whose)?;
                self.carriage.receive = Receive::UnderWay;
            }
            (Receive::UnderWay, false) => {
                ring.receive_no_more(whose)?;
                self.carriage.receive = Receive::Ending;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether there is something for the ring to send.
    #[inline]
    pub(crate) fn is_to_be_sent(&self) -> bool {
        !self.carriage.sending && !self.output.is_empty()
    }

    /// Has the ring send what is next.
    pub(crate) fn send(&mut self, whose: usize, ring: &mut Completion) -> io::Result<()> {
        if self.carriage.sending {
            return Ok(());
        }
        if let Some((bytes, start)) = self.output.lend()? {
            ring.send(self.as_fd(), whose, bytes, start)?;
            self.carriage.sending = true;
        }
        Ok(())
    }

    /// Ends what is under way, for a connection that is over.
    pub(crate) fn halt(&mut self, whose: usize, ring: &mut Completion) {
        // A ring that takes no requests keeps the connection until its requests end.
        if self.carriage.receive == Receive::UnderWay && ring.receive_no_more(whose).is_ok() {
            self.carriage.receive = Receive::Ending;
        }
        if self.carriage.sending {
            let _ = ring.send_no_more(whose);
        }
    }

    /// A receive has ended.
    pub(crate) fn received_last(&mut self) {
        self.carriage.receive = Receive::None;
    }

    /// A send has ended; `bytes` are sent up to this.
    pub(crate) fn sent_last(&mut self, bytes: Vec<u8>, sent: usize) {
        self.carriage.sending = false;
        self.output.take_back(bytes, sent);
    }

    /// Keeps what is not wanted yet; `is_cut` when more of it has arrived and is still to come.
    /// Without memory for it, the connection is over.
    pub(crate) fn keep(&mut self, early: &[u8], is_cut: bool) {
        if self.carriage.early.try_reserve(early.len()).is_err() {
            return self.end(Some(libc::ENOMEM));
        }
        self.carriage.early.extend_from_slice(early);
        self.carriage.is_cut = is_cut;
    }

    /// How many bytes are kept.
    #[inline]
    pub(crate) fn kept_length(&self) -> usize {
        self.carriage.early.len()
    }

    /// What is kept is handed on as it is.
    pub(crate) fn waits_for_no_rest(&mut self) {
        self.carriage.is_cut = false;
    }

    /// What came early, if it is wanted now.
    #[inline]
    pub(crate) fn kept(&mut self) -> Option<Vec<u8>> {
        let wanted = self.kept_length() > 0 && !self.carriage.is_cut && self.is_open() && self.wants_input();
        wanted.then(|| std::mem::take(&mut self.carriage.early))
    }
}
