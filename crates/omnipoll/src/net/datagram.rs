//! Datagram sockets: many datagrams in one system call, both ways.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use socket2::{Domain, Socket, Type};

use super::datagram_queue::DatagramQueue;
use super::listen_address::ListenAddress;
use super::listener::only_v6_if_named;
use super::{Counter, WorkerCounters};
use crate::errno::{self, ErrorClass};
use crate::error::{fail, Describe};
use crate::sys::datagrams::{self, Received, BATCH};
use crate::sys::pktinfo;
use crate::sys::socket;
use crate::sys::Address;
use crate::{Interest, Poller};

/// The memory for one incoming datagram: no UDP datagram is longer.
const SLOT: usize = 64 * 1024;
/// A UDP socket: non-blocking, closed by `exec`. Its buffers are made once, the first time that it
/// receives; the memory for incoming datagrams, 2 MiB, is touched only as far as they reach.
pub(crate) struct DatagramSocket {
    socket: Socket,
    local: Address,
    memory: Vec<u8>,
    received: Vec<Received>,
    queue: DatagramQueue,
    dropped: u64,
    /// It is registered with a poller.
    pub(crate) is_watched: bool,
    is_write_watched: bool,
}

impl DatagramSocket {
    /// Binds a socket to a `udp:` address; of a name's addresses to the first that is here.
    pub(crate) fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Udp(host, port) => Ok(host.open_each(*port, Self::bound)?.swap_remove(0)),
            _ => Err(fail(libc::EINVAL, "the address of a datagram socket begins with udp:")),
        }
    }

    fn bound(address: SocketAddr) -> io::Result<Self> {
        let socket = socket::open(Domain::for_address(address), Type::DGRAM)?;
        only_v6_if_named(&socket, address)?;
        socket.bind(&address.into()).describe("bind")?;
        let socket = Self::of(socket)?;
        socket.prepare()?;
        Ok(socket)
    }

    pub(super) fn of(socket: Socket) -> io::Result<Self> {
        Ok(Self {
            local: socket::local_address(socket.as_fd()).describe("getsockname")?,
            socket,
            memory: Vec::new(),
            received: Vec::with_capacity(BATCH),
            queue: DatagramQueue::default(),
            dropped: 0,
            is_watched: false,
            is_write_watched: false,
        })
    }

    /// A duplicate with buffers of its own: each datagram goes to one of the two.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Self::of(socket::duplicate(self.as_fd())?.into())
    }

    /// Has the kernel report to which of the machine's addresses a datagram was sent.
    pub(super) fn prepare(&self) -> io::Result<()> {
        match self.local.as_socket_addr() {
            Some(local) if local.ip().is_unspecified() => pktinfo::enable(self.as_fd(), local.is_ipv6()),
            _ => Ok(()),
        }
    }

    /// Where it is bound, as [`ListenAddress`] reads it, with the port that the system chose.
    pub(crate) fn address(&self) -> String {
        format!("udp:{}", self.local)
    }

    /// Calls `each` for up to 32 datagrams that have arrived.
    pub(crate) fn receive(
        &mut self,
        counters: &WorkerCounters,
        mut each: impl FnMut(&mut Datagram<'_>, &[u8]),
    ) -> io::Result<()> {
        match self.receive_batch() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            result => result?,
        };
        counters.add(Counter::DatagramsIn, self.received.len() as u64);
        for (received, slot) in self.received.iter().zip(self.memory.chunks_exact(SLOT)) {
            let mut datagram = Datagram { received, bound: &self.local, queue: &mut self.queue };
            each(&mut datagram, &slot[..received.length]);
        }
        Ok(())
    }

    /// Sends what is queued, as much as the kernel takes.
    pub(crate) fn flush(&mut self, counters: &WorkerCounters) -> io::Result<()> {
        let (before, dropped) = (self.queue.len(), self.dropped);
        let result = self.send_waiting();
        let dropped = self.dropped - dropped;
        counters.add(Counter::DatagramsDropped, dropped);
        counters.add(Counter::DatagramsOut, (before - self.queue.len()) as u64 - dropped);
        result.map(drop)
    }

    /// Sends what the kernel still takes, and counts the rest as dropped.
    pub(crate) fn flush_and_drop(mut self, counters: &WorkerCounters) {
        // Whatever failed, what is left in the queue was not sent.
        let _ = self.flush(counters);
        counters.add(Counter::DatagramsDropped, self.queue.len() as u64);
    }

    /// Registers it for READ, and for WRITE while datagrams wait to be sent.
    pub(crate) fn watch(&mut self, poller: &Poller, token: u64) -> io::Result<()> {
        let is_write_wanted = !self.queue.is_empty();
        if self.is_watched && is_write_wanted == self.is_write_watched {
            return Ok(());
        }
        let interest = if is_write_wanted { Interest::READ | Interest::WRITE } else { Interest::READ };
        if self.is_watched {
            poller.modify_reserved(self.as_raw_fd(), interest, token)?;
        } else {
            poller.add_reserved(self.as_raw_fd(), interest, token)?;
        }
        (self.is_watched, self.is_write_watched) = (true, is_write_wanted);
        Ok(())
    }

    /// Replaces the last datagrams by up to 32 new ones: recvmmsg(2). `EAGAIN` when none waits. That an
    /// earlier datagram of ours did not arrive is no error.
    fn receive_batch(&mut self) -> io::Result<usize> {
        if self.memory.is_empty() {
            self.memory = vec![0; BATCH * SLOT];
        }
        loop {
            match datagrams::receive_batch(self.socket.as_fd(), &mut self.memory, SLOT, &mut self.received) {
                Err(error) if errno::classify_receive(&error) == ErrorClass::Peer => {}
                result => return result,
            }
        }
    }

    /// Sends what is queued: sendmmsg(2). `false` when the kernel takes no more: to be continued when
    /// the socket is ready for WRITE. A datagram that can't be sent is dropped and counted, and the
    /// next is tried.
    fn send_waiting(&mut self) -> io::Result<bool> {
        let mut failed = false;
        while !self.queue.is_empty() {
            match datagrams::send_batch(self.socket.as_fd(), self.queue.first()) {
                Ok(sent) => {
                    self.queue.pop(sent);
                    failed = false;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if errno::classify_send(&error) == ErrorClass::Permanent => return Err(error),
                // It may be about an earlier datagram, once: only a second error is about this one.
                Err(_) if !failed => failed = true,
                Err(_) => {
                    self.queue.pop(1);
                    self.dropped += 1;
                    failed = false;
                }
            }
        }
        Ok(true)
    }
}

/// A datagram that has arrived, and the means to answer it.
///
/// # Portability
///
/// Every method is the same on every system and engine. The address that a datagram was sent to is
/// known on Linux; elsewhere it is the one that the socket is bound to.
///
/// ```
/// # use omnipoll::{Conn, Server};
/// # use std::io;
/// use omnipoll::{Datagram, Handler};
/// use std::net::UdpSocket;
///
/// /// Sends every datagram back.
/// struct Echo;
///
/// impl Handler for Echo {
///     type State = ();
///
///     fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
///         println!("{} bytes from {} to {}", data.len(), datagram.peer(), datagram.local());
///         // It fails when too many datagrams wait to be sent: this one is dropped then.
///         let _ = datagram.reply(data);
///     }
/// #   fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> { Ok(()) }
/// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
/// }
///
/// let server = Server::new(Echo)?;
/// let address = server.listen("udp:127.0.0.1:0")?;
/// let handle = server.handle();
/// let running = std::thread::spawn(move || server.run());
///
/// let client = UdpSocket::bind("127.0.0.1:0")?;
/// client.send_to(b"hello", address.trim_start_matches("udp:"))?;
/// let mut answer = [0; 64];
/// assert_eq!(client.recv(&mut answer)?, 5);
///
/// handle.stop(None)?;
/// running.join().unwrap()?;
/// # Ok::<(), io::Error>(())
/// ```
pub struct Datagram<'a> {
    received: &'a Received,
    bound: &'a Address,
    queue: &'a mut DatagramQueue,
}

impl Datagram<'_> {
    /// The sender's address.
    ///
    /// See the example of [`Datagram`].
    pub fn peer(&self) -> &Address {
        &self.received.peer
    }

    /// The address of this machine that it was sent to, also where the socket is bound to all of
    /// them; for a broadcast or a multicast the one that a reply has.
    ///
    /// See the example of [`Datagram`].
    pub fn local(&self) -> Address {
        match (self.received.local, self.bound.as_socket_addr()) {
            (Some(ip), Some(bound)) => SocketAddr::from((ip, bound.port())).into(),
            _ => self.bound.clone(),
        }
    }

    /// Sends a datagram to its sender, from the address that it was sent to. Errors as
    /// [`send_to`](Self::send_to).
    ///
    /// See the example of [`Datagram`].
    pub fn reply(&mut self, data: &[u8]) -> io::Result<()> {
        self.queue.queue(&self.received.peer, self.received.local, data)
    }

    /// Sends a datagram from the same socket: copied now, sent with others by `sendmmsg(2)`
    /// after the handler has seen the batch. One that the system refuses then is counted as
    /// dropped.
    ///
    /// The system chooses the source address if the socket is bound to all of the machine's.
    /// `EMSGSIZE` past 65,507 bytes; `ENOBUFS` when 1,024 datagrams or 4 MiB wait; `ENOMEM`;
    /// `EAFNOSUPPORT` for the peer of a unix socket.
    ///
    /// ```
    /// # use omnipoll::Conn;
    /// use omnipoll::{Address, Datagram, Handler};
    ///
    /// /// Sends every datagram on to another server.
    /// struct Forward {
    ///     to: Address,
    /// }
    ///
    /// impl Handler for Forward {
    ///     type State = ();
    ///
    ///     fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
    ///         let _ = datagram.send_to(&self.to, data);
    ///     }
    /// #   fn on_open(&self, _: &mut Conn<'_>) -> std::io::Result<()> { Ok(()) }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
    /// }
    /// ```
    #[doc(alias = "sendto")]
    #[doc(alias = "sendmmsg")]
    pub fn send_to(&mut self, peer: &Address, data: &[u8]) -> io::Result<()> {
        self.queue.queue(peer, None, data)
    }
}

impl fmt::Debug for Datagram<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagram").field("peer", self.peer()).finish_non_exhaustive()
    }
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

#[cfg(test)]
mod tests {
    use super::super::datagram_queue::{MAX_LENGTH, MAX_WAITING, MAX_WAITING_BYTES};
    use super::*;
    use crate::net::Counters;
    use crate::Events;
    use std::net::UdpSocket;
    use std::time::Duration;

    fn bound(address: &str) -> DatagramSocket {
        DatagramSocket::bind(&address.parse().unwrap()).unwrap()
    }

    fn counters() -> WorkerCounters {
        Counters::new(1).unwrap().of(0)
    }

    fn client(to: &DatagramSocket) -> UdpSocket {
        let local = to.local.as_socket_addr().unwrap();
        let client = UdpSocket::bind((local.ip(), 0)).unwrap();
        client.connect(local).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        client
    }

    fn peer_of(socket: &UdpSocket) -> Address {
        socket.local_addr().unwrap().into()
    }

    fn read(client: &UdpSocket) -> Vec<u8> {
        let mut buffer = vec![0; SLOT];
        let length = client.recv(&mut buffer).unwrap();
        buffer.truncate(length);
        buffer
    }

    fn wait(socket: &DatagramSocket) {
        let poller = Poller::new().unwrap();
        poller.add(socket, Interest::READ, 1).unwrap();
        let mut events = Events::with_capacity(1);
        assert_eq!(poller.wait(&mut events, Some(Duration::from_secs(30))).unwrap(), 1);
    }

    fn errno(result: io::Result<()>) -> i32 {
        result.unwrap_err().raw_os_error().unwrap()
    }

    #[test]
    fn a_reply_goes_to_the_sender() {
        for ip in ["127.0.0.1", "[::1]"] {
            let (mut socket, counters) = (bound(&format!("udp:{ip}:0")), counters());
            assert!(socket.address().starts_with(&format!("udp:{ip}:")));
            let client = client(&socket);
            client.send(b"hello").unwrap();
            wait(&socket);
            let mut seen = Vec::new();
            socket
                .receive(&counters, |datagram, data| {
                    assert_eq!(*datagram.peer(), peer_of(&client));
                    seen.push(data.to_vec());
                    datagram.reply(data).unwrap();
                    datagram.reply(b"").unwrap();
                })
                .unwrap();
            assert_eq!(seen, [b"hello"]);
            socket.flush(&counters).unwrap();
            assert_eq!((read(&client), read(&client)), (b"hello".to_vec(), Vec::new()));
            assert_eq!((counters.get(Counter::DatagramsIn), counters.get(Counter::DatagramsOut)), (1, 2));
        }
    }

    #[test]
    fn nothing_received_is_no_error() {
        let mut socket = bound("udp:127.0.0.1:0");
        socket.receive(&counters(), |_, _| panic!("nothing was sent")).unwrap();
    }

    #[test]
    fn more_than_a_batch_comes_and_goes_in_order() {
        let (mut socket, counters) = (bound("udp:127.0.0.1:0"), counters());
        let client = client(&socket);
        let numbers: Vec<u8> = (0..BATCH as u8 * 2 + 7).collect();
        for number in &numbers {
            client.send(&[*number]).unwrap();
        }
        let mut seen = Vec::new();
        while seen.len() < numbers.len() {
            wait(&socket);
            let before = seen.len();
            let keep = |datagram: &mut Datagram<'_>, data: &[u8]| {
                seen.extend_from_slice(data);
                datagram.reply(data).unwrap();
            };
            socket.receive(&counters, keep).unwrap();
            assert!(seen.len() - before <= BATCH);
        }
        assert_eq!(seen, numbers);
        socket.flush(&counters).unwrap();
        let answers: Vec<u8> = numbers.iter().flat_map(|_| read(&client)).collect();
        assert_eq!(answers, numbers);
    }

    #[test]
    fn the_longest_datagram_is_whole() {
        let (mut socket, counters) = (bound("udp:127.0.0.1:0"), counters());
        let client = client(&socket);
        let data: Vec<u8> = (0..MAX_LENGTH).map(|byte| (byte % 251) as u8).collect();
        client.send(&data).unwrap();
        wait(&socket);
        socket
            .receive(&counters, |datagram, received| {
                assert!(received == data);
                datagram.reply(received).unwrap();
            })
            .unwrap();
        socket.flush(&counters).unwrap();
        assert!(read(&client) == data);
    }

    #[test]
    fn what_cannot_be_sent_is_refused_at_once() {
        let socket = &mut bound("udp:127.0.0.1:0");
        let peer = socket.local.clone();
        assert_eq!(errno(socket.queue.queue(&peer, None, &vec![0; MAX_LENGTH + 1])), libc::EMSGSIZE);
        assert_eq!(errno(socket.queue.queue(&Address::Unnamed, None, b"")), libc::EAFNOSUPPORT);
        for _ in 0..MAX_WAITING {
            socket.queue.queue(&peer, None, b"x").unwrap();
        }
        assert_eq!(errno(socket.queue.queue(&peer, None, b"x")), libc::ENOBUFS);
        socket.queue.pop(MAX_WAITING);
        let data = vec![0; MAX_LENGTH];
        for _ in 0..MAX_WAITING_BYTES / MAX_LENGTH {
            socket.queue.queue(&peer, None, &data).unwrap();
        }
        assert_eq!(errno(socket.queue.queue(&peer, None, &data)), libc::ENOBUFS);
        socket.queue.queue(&peer, None, b"x").unwrap();
    }

    #[test]
    fn a_destination_that_cannot_be_reached_costs_its_own_datagram_only() {
        let (mut socket, counters) = (bound("udp:127.0.0.1:0"), counters());
        let client = client(&socket);
        // EACCES without SO_BROADCAST.
        let nowhere = Address::from(SocketAddr::from(([255, 255, 255, 255], 9)));
        for (peer, data) in
            [(&peer_of(&client), b"1"), (&nowhere, b"2"), (&nowhere, b"3"), (&peer_of(&client), b"4")]
        {
            socket.queue.queue(peer, None, data).unwrap();
        }
        socket.flush(&counters).unwrap();
        assert_eq!((read(&client), read(&client)), (b"1".to_vec(), b"4".to_vec()));
        assert_eq!((counters.get(Counter::DatagramsDropped), counters.get(Counter::DatagramsOut)), (2, 2));
    }

    #[test]
    fn the_error_of_an_earlier_datagram_harms_no_other() {
        let (mut socket, counters) = (bound("udp:127.0.0.1:0"), counters());
        let client = client(&socket);
        let dead = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // Only a connected socket gets the errors that ICMP reports.
        let refuse = |socket: &DatagramSocket| {
            socket.socket.connect(&dead.into()).unwrap();
            socket.socket.send(b"lost").unwrap();
            wait(socket);
        };
        refuse(&socket);
        socket.queue.queue(&peer_of(&client), None, b"kept").unwrap();
        socket.flush(&counters).unwrap();
        assert_eq!(read(&client), b"kept");
        assert_eq!(counters.get(Counter::DatagramsDropped), 0);

        refuse(&socket);
        socket.receive(&counters, |_, _| panic!("nothing was sent")).unwrap();
    }

    #[test]
    fn what_is_left_at_the_end_is_sent_or_counted() {
        let (mut socket, counters) = (bound("udp:127.0.0.1:0"), counters());
        let client = client(&socket);
        socket.queue.queue(&peer_of(&client), None, b"the last").unwrap();
        socket.flush_and_drop(&counters);
        assert_eq!(read(&client), b"the last");
        assert_eq!((counters.get(Counter::DatagramsDropped), counters.get(Counter::DatagramsOut)), (0, 1));

        let mut socket = bound("udp:127.0.0.1:0");
        (0..3).for_each(|_| socket.queue.queue(&peer_of(&client), None, b"too late").unwrap());
        // EPIPE for all of them.
        socket.socket.connect(&client.local_addr().unwrap().into()).unwrap();
        socket.socket.shutdown(std::net::Shutdown::Write).unwrap();
        socket.flush_and_drop(&counters);
        assert_eq!((counters.get(Counter::DatagramsDropped), counters.get(Counter::DatagramsOut)), (3, 1));
    }

    #[test]
    fn write_is_watched_while_datagrams_wait() {
        let mut socket = bound("udp:127.0.0.1:0");
        let poller = Poller::new().unwrap();
        socket.watch(&poller, 1).unwrap();
        let mut events = Events::with_capacity(1);
        let peer = socket.local.clone();
        socket.queue.queue(&peer, None, b"x").unwrap();
        socket.watch(&poller, 1).unwrap();
        assert_eq!(poller.wait(&mut events, Some(Duration::from_secs(30))).unwrap(), 1);
        socket.queue.pop(1);
        socket.watch(&poller, 1).unwrap();
        assert_eq!(poller.wait(&mut events, Some(Duration::ZERO)).unwrap(), 0);
    }

    #[test]
    fn only_datagram_addresses_are_bound() {
        let address = "127.0.0.1:0".parse().unwrap();
        assert_eq!(errno(DatagramSocket::bind(&address).map(drop)), libc::EINVAL);
    }
}
