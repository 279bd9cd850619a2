//! [`DatagramSocket`]: a datagram socket as every thread has it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Mutex;

use socket2::{Domain, Socket, Type};

use super::datagram_queue::{check, DatagramQueue};
use super::listen_address::ListenAddress;
use super::listener::only_v6_if_named;
use super::socket_settings::SocketSettings;
use super::{Counter, WorkerCounters};
use crate::errno::{self, ErrorClass};
use crate::error::{fail, plain, Describe};
use crate::sys::datagrams::{self, Outgoing};
use crate::sys::{lock, pktinfo, socket, Address};

/// A UDP socket: non-blocking, closed by `exec`. Its loop receives from it; any thread sends from it,
/// because `sendmsg(2)` sends a datagram whole or not at all. What the kernel does not take at once waits
/// here for the loop, which sends it when the socket is ready.
pub(crate) struct DatagramSocket {
    socket: Socket,
    local: Address,
    /// What it is connected to.
    peer: Option<Address>,
    /// What listen or connect was given.
    token: u64,
    /// The loop was asked to connect it.
    is_outgoing: bool,
    /// It can send datagrams of one length to one peer as a train.
    has_segments: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the kernel did not take from other threads.
    waiting: DatagramQueue,
    /// The last error about an earlier datagram, until the handler is called with it.
    error: Option<i32>,
    is_closed: bool,
}

/// What became of the queues of a socket.
pub(super) struct Flushed {
    /// Some datagrams still wait.
    pub(super) is_waiting: bool,
    pub(super) error: Option<io::Error>,
}

impl DatagramSocket {
    /// Binds a socket to a `udp:` address; of a name's addresses to the first that is here.
    pub(crate) fn bind(address: &ListenAddress, settings: &SocketSettings) -> io::Result<Self> {
        match address {
            ListenAddress::Udp(host, port) => {
                let bound = |address| Self::bound(address, settings);
                Ok(host.open_each(*port, bound)?.swap_remove(0))
            }
            _ => Err(fail(libc::EINVAL, "the address of a datagram socket begins with udp:")),
        }
    }

    fn bound(address: SocketAddr, settings: &SocketSettings) -> io::Result<Self> {
        let socket = socket::open(Domain::for_address(address), Type::DGRAM)?;
        only_v6_if_named(&socket, address)?;
        settings.before_bind(&socket, address)?;
        socket.bind(&address.into()).describe("bind")?;
        settings.join_groups(&socket, address)?;
        let socket = Self::of(socket)?;
        socket.prepare()?;
        Ok(socket)
    }

    /// A socket that is connected to a `udp:` address, which has a number for its host.
    ///
    /// Not a name: a look-up takes another thread's time, and until it has ended there is no socket, as it is
    /// the answer that has the family. Its id would stand for none meanwhile, each function of it would need
    /// another answer for that time, and what is sent would have to be kept, with a limit of its own, or be
    /// refused, which its sender has to handle as it has to handle the loss of a datagram. And where a
    /// connection tries the next address when one fails, a datagram that is lost says nothing of its address.
    pub(crate) fn connect_to(address: &str) -> io::Result<Self> {
        let peer = address.strip_prefix("udp:").and_then(|peer| peer.parse().ok());
        let peer: SocketAddr = peer.ok_or_else(|| {
            fail(libc::EINVAL, "a datagram socket is connected to an address like udp:192.0.2.1:53")
        })?;
        let socket = socket::open(Domain::for_address(peer), Type::DGRAM)?;
        socket.connect(&peer.into()).describe("connect")?;
        Ok(Self { is_outgoing: true, ..Self::of(socket)? })
    }

    pub(crate) fn with_token(self, token: u64) -> Self {
        Self { token, ..self }
    }

    pub(super) fn of(socket: Socket) -> io::Result<Self> {
        let local = socket::local_address(socket.as_fd()).describe("getsockname")?;
        let peer = socket.peer_addr().ok();
        let peer = peer.map(|peer| peer.as_socket().map_or(Address::Unnamed, Address::from));
        let has_segments = pktinfo::has_segments(socket.as_fd());
        Ok(Self { socket, local, peer, token: 0, is_outgoing: false, has_segments, state: Mutex::default() })
    }

    /// A duplicate with a queue of its own: each datagram goes to one of the two.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Self::of(socket::duplicate(self.as_fd())?.into())
    }

    /// Has the kernel report to which of the machine's addresses a datagram was sent.
    pub(super) fn prepare(&self) -> io::Result<()> {
        match self.local.as_socket_addr() {
            Some(local) if self.is_wildcard() => pktinfo::enable(self.as_fd(), local.is_ipv6()),
            _ => Ok(()),
        }
    }

    /// Whether it is bound to all of the machine's addresses.
    fn is_wildcard(&self) -> bool {
        self.local.as_socket_addr().is_some_and(|local| local.ip().is_unspecified())
    }

    /// Where it is bound, as [`ListenAddress`] reads it, with the port that the system chose.
    pub(crate) fn address(&self) -> String {
        format!("udp:{}", self.local)
    }

    pub(super) fn local(&self) -> &Address {
        &self.local
    }

    pub(super) fn token(&self) -> u64 {
        self.token
    }

    pub(super) fn is_outgoing(&self) -> bool {
        self.is_outgoing
    }

    pub(super) fn peer(&self) -> Option<&Address> {
        self.peer.as_ref()
    }

    /// Where a datagram for `peer` goes: `None` for what it is connected to.
    pub(super) fn destination<'p>(&self, peer: &'p Address) -> Option<&'p Address> {
        Some(peer).filter(|&peer| self.peer.as_ref() != Some(peer))
    }

    /// Sends a datagram to `peer`, or to what it is connected to, from one of the machine's addresses.
    /// Any thread. `true` when the loop must [flush](Self::flush) it.
    pub(super) fn send(
        &self,
        peer: Option<&Address>,
        from: Option<&Address>,
        data: &[u8],
        counters: &WorkerCounters,
    ) -> io::Result<bool> {
        if peer.is_none() && self.peer.is_none() {
            return Err(fail(libc::EDESTADDRREQ, "the datagram socket is not connected: send to an address"));
        }
        let peer = peer.and_then(|peer| self.destination(peer));
        check(peer, data)?;
        let from = from.filter(|_| self.is_wildcard()).and_then(Address::as_socket_addr);
        let from = from.map(|from| from.ip());
        let mut state = lock(&self.state);
        state.check_open()?;
        if !state.waiting.is_empty() {
            // The loop knows of these, and datagrams of one thread stay in their order.
            return state.waiting.queue(peer, from, data).map(|()| false);
        }
        drop(state);
        self.send_now(&Outgoing { peer, from, data, segment: None }, counters)
    }

    fn send_now(&self, datagram: &Outgoing<'_>, counters: &WorkerCounters) -> io::Result<bool> {
        let mut sent = datagrams::send(self.as_fd(), datagram);
        let mut earlier = None;
        if let Err(error) = &sent {
            if error.kind() != io::ErrorKind::WouldBlock {
                // It may be about an earlier datagram, once: only a second error is about this one.
                earlier = error.raw_os_error();
                sent = datagrams::send(self.as_fd(), datagram);
            }
        }
        match sent {
            Ok(()) if earlier.is_none() => {
                counters.add(Counter::DatagramsOut, 1);
                return Ok(false);
            }
            Ok(()) => counters.add(Counter::DatagramsOut, 1),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut state = lock(&self.state);
                state.check_open()?;
                state.waiting.queue(datagram.peer, datagram.from, datagram.data)?;
            }
            Err(error) => return Err(error),
        }
        let mut state = lock(&self.state);
        state.error = earlier.or(state.error);
        Ok(true)
    }

    /// Sends what is in `queue`, and what waits from other threads, as much as the kernel takes.
    pub(super) fn flush(&self, queue: &mut DatagramQueue, counters: &WorkerCounters) -> io::Result<Flushed> {
        let mut state = lock(&self.state);
        let State { waiting, error, .. } = &mut *state;
        for queue in [&mut *queue, waiting] {
            let before = queue.len();
            let mut dropped = 0;
            let sent = self.send_queue(queue, &mut dropped, error);
            counters.add(Counter::DatagramsDropped, dropped);
            counters.add(Counter::DatagramsOut, (before - queue.len()) as u64 - dropped);
            sent?;
        }
        let is_waiting = !queue.is_empty() || !waiting.is_empty();
        Ok(Flushed { is_waiting, error: error.take().map(plain) })
    }

    /// Sends what is queued until the kernel takes no more: sendmmsg(2), and datagrams of one length to one
    /// peer as one train, which the kernel cuts: `UDP_SEGMENT` of udp(7). A datagram that can't be sent is
    /// dropped and counted, and the next is tried.
    fn send_queue(
        &self,
        queue: &mut DatagramQueue,
        dropped: &mut u64,
        last_error: &mut Option<i32>,
    ) -> io::Result<()> {
        let (mut failed, mut in_trains) = (false, self.has_segments);
        while !queue.is_empty() {
            match datagrams::send_batch(self.as_fd(), queue.first(in_trains)) {
                Ok(sent) => {
                    queue.pop(queue.first(in_trains).take(sent).map(|sent| sent.count()).sum());
                    failed = false;
                }
                // The way to the peer, or the socket's options, permit no trains.
                Err(error) if in_trains && is_train_refused(&error) => in_trains = false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if errno::classify_send(&error) == ErrorClass::Permanent => return Err(error),
                Err(error) => {
                    *last_error = error.raw_os_error();
                    // As in `send_now`.
                    if failed {
                        queue.pop(1);
                        *dropped += 1;
                    }
                    failed = !failed;
                }
            }
        }
        Ok(())
    }

    /// Takes no more datagrams, sends those that the kernel still takes, and counts the rest as dropped.
    pub(crate) fn close(&self, counters: &WorkerCounters) {
        lock(&self.state).is_closed = true;
        let _ = self.flush(&mut DatagramQueue::default(), counters);
        let left = std::mem::take(&mut lock(&self.state).waiting).len();
        counters.add(Counter::DatagramsDropped, left as u64);
    }
}

/// What a train may be refused with though its datagrams, one by one, are not.
fn is_train_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE | libc::EOPNOTSUPP))
}

impl State {
    fn check_open(&self) -> io::Result<()> {
        if self.is_closed {
            return Err(stale());
        }
        Ok(())
    }
}

/// The error of a socket that is gone.
pub(super) fn stale() -> io::Error {
    fail(libc::ESTALE, "the datagram socket is closed")
}

impl fmt::Debug for DatagramSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramSocket").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for DatagramSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
