//! Something to watch, with its other end, and what the program's own acts have made of it.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;

use omnipoll::{Interest, Ready};

use crate::support::fds;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The end of a pipe to read from.
    Reader,
    /// The end of a pipe to write to.
    Writer,
    /// A socket of a connected pair.
    Pair,
}

/// What may happen to a channel. An act that its kind has not does nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    /// The other end writes one byte.
    TheirsWrites,
    /// Ours reads until `EAGAIN` or the end.
    Drain,
    /// Ours writes until `EAGAIN`.
    Fill,
    /// The other end reads until `EAGAIN`.
    TheirsDrains,
    /// The other end is closed.
    HangUp,
}

pub(crate) struct Channel {
    pub(crate) ours: File,
    theirs: Option<File>,
    kind: Kind,
    /// There is something to read.
    inbox: bool,
    /// There is no room to write.
    full: bool,
    /// An error is pending.
    error: bool,
}

impl Channel {
    pub(crate) fn new(kind: Kind) -> Self {
        let (ours, theirs) = match kind {
            Kind::Reader => fds::pipe(),
            Kind::Writer => {
                let (reader, writer) = fds::pipe();
                (writer, reader)
            }
            Kind::Pair => {
                let (ours, theirs) = fds::pair();
                (File::from(OwnedFd::from(ours)), File::from(OwnedFd::from(theirs)))
            }
        };
        Self { ours, theirs: Some(theirs), kind, inbox: false, full: false, error: false }
    }

    pub(crate) fn act(&mut self, action: Action) {
        let (reads, writes) = (self.kind != Kind::Writer, self.kind != Kind::Reader);
        match (action, &self.theirs) {
            (Action::TheirsWrites, Some(theirs)) if reads => {
                fds::write_byte(theirs);
                self.inbox = true;
            }
            (Action::Drain, _) if reads => {
                self.read_all();
                (self.inbox, self.error) = (false, false);
            }
            (Action::Fill, Some(_)) if writes => {
                fds::fill(&self.ours);
                self.full = true;
            }
            (Action::Fill, None) if writes => {
                let error = self.ours.write(b".").expect_err("nobody reads");
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            }
            (Action::TheirsDrains, Some(theirs)) if writes => {
                fds::drain(theirs);
                self.full = false;
            }
            (Action::HangUp, Some(_)) => self.hang_up(),
            _ => {}
        }
    }

    fn hang_up(&mut self) {
        self.theirs = None;
        match self.kind {
            Kind::Reader => {}
            // What was written and not read stays where it is.
            Kind::Writer => self.error = true,
            // What was written and not read is thrown away, and the socket gets ECONNRESET.
            Kind::Pair => (self.error, self.full) = (self.full, false),
        }
    }

    /// Reads until `EAGAIN` or the end; a pending error comes in between.
    fn read_all(&mut self) {
        loop {
            match self.ours.read(&mut [0; 4096]) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
        }
    }

    /// What holds now, which a registration with this interest gets from an engine that
    /// can distinguish everything.
    pub(crate) fn condition(&self, interest: Interest) -> u32 {
        let gone = self.theirs.is_none();
        let hang_up = gone && self.kind != Kind::Writer;
        let readable = self.inbox || hang_up || self.error;
        let writable = self.kind != Kind::Reader && !self.full || self.error;
        let half_closed = gone && self.kind == Kind::Pair;
        let holds = [
            (Ready::READ, readable && interest.contains(Interest::READ)),
            (Ready::WRITE, writable && interest.contains(Interest::WRITE)),
            (Ready::READ_CLOSED, half_closed && interest.contains(Interest::READ)),
            (Ready::HANGUP, hang_up),
            (Ready::ERROR, self.error),
        ];
        holds.into_iter().filter(|&(_, holds)| holds).fold(0, |bits, (flag, _)| bits | flag.bits())
    }
}
