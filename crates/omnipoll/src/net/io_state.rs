//! What a driver has in progress for a connection.

use std::io;
use std::os::fd::RawFd;

use crate::poller::RESERVED_TOKENS;
use crate::{Interest, Poller};

/// The state of a multishot receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Receive {
    #[default]
    Idle,
    Active,
    /// Cancelled, without its last completion yet.
    Cancelling,
}

/// The registration and the requests of a connection.
#[derive(Debug, Default)]
pub(crate) struct IoState {
    /// The interest it is registered with.
    pub(super) registered: Option<Interest>,
    pub(super) receive: Receive,
    /// A send is in flight.
    pub(super) is_sending: bool,
    /// The connection that is relayed to this one waits until the socket takes more.
    pub(crate) is_awaited: bool,
    /// How many large pieces in a row were received and relayed.
    pub(super) large_reads: u8,
}

impl IoState {
    /// Whether the kernel refers to the connection in no request: it may be removed.
    pub(crate) fn is_idle(&self) -> bool {
        self.receive == Receive::Idle && !self.is_sending
    }

    /// Whether the kernel receives for the connection: in order, unlike another read meanwhile.
    pub(crate) fn is_receiving(&self) -> bool {
        self.receive != Receive::Idle
    }

    /// Registers the interest that is wanted now. Its events carry `slot`.
    pub(super) fn register(
        &mut self,
        fd: RawFd,
        wanted: Option<Interest>,
        slot: usize,
        poller: &Poller,
    ) -> io::Result<()> {
        let token = RESERVED_TOKENS + slot as u64;
        match (self.registered, wanted) {
            (None, Some(interest)) => poller.add_reserved(fd, interest, token)?,
            (Some(_), None) => poller.remove_reserved(fd)?,
            (Some(now), Some(interest)) if now != interest => poller.modify_reserved(fd, interest, token)?,
            _ => {}
        }
        self.registered = wanted;
        Ok(())
    }

    /// The socket is registered for something else, which the next registration replaces.
    pub(crate) fn take_over_registration(&mut self) {
        self.registered = Some(Interest::NONE);
    }

    pub(super) fn unregister(&mut self, fd: RawFd, poller: &Poller) {
        if self.registered.take().is_some() {
            let _ = poller.remove_reserved(fd);
        }
    }

    /// The poller has reported that the descriptor was closed, and holds no registration any more.
    pub(crate) fn registration_ended(&mut self) {
        self.registered = None;
    }

    /// A receive has brought its last completion.
    pub(crate) fn receive_ended(&mut self) {
        self.receive = Receive::Idle;
    }

    /// A send has ended.
    pub(crate) fn send_ended(&mut self) {
        self.is_sending = false;
    }
}
