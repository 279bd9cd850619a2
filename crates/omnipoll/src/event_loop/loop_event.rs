//! [`LoopEvent`]: what a pulled loop returns.

use std::io;
use std::os::fd::RawFd;

use crate::error::plain;
use crate::net::{ConnId, DatagramId};
use crate::{Event, EventKind, Ready};

/// What a [`LoopEvent`] is about. The first six are those of the poller, [`EventKind`](crate::EventKind).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum LoopEventKind {
    /// A descriptor of the program's own is ready; the value is the descriptor.
    Io = 1,
    /// A timer expired; the value is how many of its periods have passed.
    Timer = 2,
    /// A signal arrived; the value is its number.
    Signal = 3,
    /// A child ended and was reaped; the value is its status.
    Child = 4,
    /// [`Poller::post`](crate::Poller::post) was called; token and value are as posted.
    Post = 6,
    /// A connection was accepted; the token is its listener's.
    Accepted = 16,
    /// A connection that was asked for is open; the token is what connect was given.
    Connected = 17,
    /// Bytes have arrived: those that [`PulledLoop::data`](crate::PulledLoop::data) returns.
    Data = 18,
    /// The peer has ended its direction. Close the connection when all is written.
    Ended = 19,
    /// The queued bytes were above the high mark and have fallen to the low one.
    Drained = 20,
    /// The connection has ended, or never opened; no event of it follows. [`LoopEvent::error`] says why,
    /// in words too: [`PulledLoop::data`](crate::PulledLoop::data) returns them.
    Closed = 21,
    /// The loop has begun to stop: close the connection when it is idle.
    Stopping = 22,
    /// [`ConnId::post`](crate::ConnId::post) was called; [`LoopEvent::posted`] is what was posted.
    ConnPost = 23,
    /// A datagram has arrived: the bytes of [`PulledLoop::data`](crate::PulledLoop::data), from where
    /// [`PulledLoop::addresses`](crate::PulledLoop::addresses) says.
    Datagram = 24,
    /// A datagram that was sent is lost, as [`Handler::on_datagram_error`](crate::Handler::on_datagram_error)
    /// has it. [`LoopEvent::error`] says why.
    DatagramError = 25,
    /// The time of [`Conn::set_timer`](crate::Conn::set_timer) has passed.
    ConnTimer = 26,
}

/// What a [`PulledLoop`](crate::PulledLoop) returns. Its layout is `omni_loop_event` of the C API: 32
/// bytes without padding, every bit pattern a valid value.
///
/// # Portability
///
/// The same on every system and engine.
///
/// See the example of [`PulledLoop`](crate::PulledLoop).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LoopEvent {
    token: u64,
    value: u64,
    offset: u32,
    length: u32,
    ready: u32,
    kind: u32,
}

const _: () = assert!(size_of::<LoopEvent>() == 32);

impl LoopEvent {
    /// What the registration, the listener or the connection was given.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// What it is about.
    pub fn kind(&self) -> LoopEventKind {
        match self.kind {
            1 => LoopEventKind::Io,
            2 => LoopEventKind::Timer,
            3 => LoopEventKind::Signal,
            4 => LoopEventKind::Child,
            16 => LoopEventKind::Accepted,
            17 => LoopEventKind::Connected,
            18 => LoopEventKind::Data,
            19 => LoopEventKind::Ended,
            20 => LoopEventKind::Drained,
            21 => LoopEventKind::Closed,
            22 => LoopEventKind::Stopping,
            23 => LoopEventKind::ConnPost,
            24 => LoopEventKind::Datagram,
            25 => LoopEventKind::DatagramError,
            26 => LoopEventKind::ConnTimer,
            _ => LoopEventKind::Post,
        }
    }

    /// The datagram socket of [`LoopEventKind::Datagram`] and [`LoopEventKind::DatagramError`].
    pub fn datagram_socket(&self) -> DatagramId {
        DatagramId::from_number(self.value)
    }

    /// The connection of [`LoopEventKind::Accepted`] and what follows up to
    /// [`LoopEventKind::ConnPost`], and of [`LoopEventKind::ConnTimer`].
    pub fn conn(&self) -> ConnId {
        ConnId::from_number(self.value)
    }

    /// The value of an event of the program's own, as [`Event::value`](crate::Event::value) has it.
    pub fn value(&self) -> i64 {
        self.value as i64
    }

    /// The descriptor that is ready.
    pub fn fd(&self) -> RawFd {
        self.value as RawFd
    }

    /// What the descriptor is ready for.
    pub fn ready(&self) -> Ready {
        if self.kind == LoopEventKind::Io as u32 {
            Ready::from_bits(self.ready)
        } else {
            Ready::from_bits(0)
        }
    }

    /// How often the signal came, of which there is one event; 1 for any other event.
    pub fn count(&self) -> u32 {
        if self.kind == LoopEventKind::Signal as u32 {
            self.ready
        } else {
            1
        }
    }

    /// Why a connection has ended, or a datagram is lost; `None` when it ended cleanly.
    pub fn error(&self) -> Option<io::Error> {
        let has_error = matches!(self.kind(), LoopEventKind::Closed | LoopEventKind::DatagramError);
        (has_error && self.ready != 0).then(|| plain(self.ready as i32))
    }

    /// What was posted to a connection.
    pub fn posted(&self) -> i64 {
        (u64::from(self.offset) << 32 | u64::from(self.length)) as i64
    }

    /// Where in the loop's buffer the bytes of the event lie.
    pub(super) fn range(&self) -> std::ops::Range<usize> {
        match self.kind() {
            LoopEventKind::Data
            | LoopEventKind::Closed
            | LoopEventKind::Datagram
            | LoopEventKind::DatagramError => {
                self.offset as usize..self.offset as usize + self.length as usize
            }
            _ => 0..0,
        }
    }

    pub(super) fn of_poller(event: &Event) -> Self {
        let ready = match event.kind() {
            EventKind::Signal => event.count(),
            _ => event.ready().bits(),
        };
        Self {
            token: event.token(),
            value: event.value() as u64,
            ready,
            kind: event.kind() as u32,
            ..Self::default()
        }
    }

    pub(super) fn of_connection(kind: LoopEventKind, token: u64, id: ConnId) -> Self {
        Self { token, value: id.number(), kind: kind as u32, ..Self::default() }
    }

    pub(super) fn of_datagram(token: u64, socket: DatagramId, address_index: usize) -> Self {
        let (kind, ready) = (LoopEventKind::Datagram as u32, address_index as u32);
        Self { token, value: socket.number(), kind, ready, ..Self::default() }
    }

    pub(super) fn of_datagram_error(token: u64, socket: DatagramId) -> Self {
        let kind = LoopEventKind::DatagramError as u32;
        Self { token, value: socket.number(), kind, ..Self::default() }
    }

    /// Which of the wait's addresses a datagram has.
    pub(super) fn address_index(&self) -> Option<usize> {
        (self.kind() == LoopEventKind::Datagram).then_some(self.ready as usize)
    }

    pub(super) fn with_bytes(self, offset: usize, length: usize) -> Self {
        Self { offset: offset as u32, length: length as u32, ..self }
    }

    pub(super) fn with_error(self, errno: i32) -> Self {
        Self { ready: errno as u32, ..self }
    }

    pub(super) fn with_posted(self, value: i64) -> Self {
        Self { offset: (value as u64 >> 32) as u32, length: value as u32, ..self }
    }
}
