//! [`DatagramIo`]: a datagram socket as its loop has it. Many datagrams take one system call, both ways.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use super::datagram::Datagram;
use super::datagram_id::DatagramId;
use super::datagram_queue::DatagramQueue;
use super::datagram_socket::DatagramSocket;
use super::{Counter, WorkerCounters};
use crate::sys::datagrams::{self, Received, BATCH};
use crate::{Interest, Poller};

/// The memory for one incoming datagram: no UDP datagram is longer.
pub(crate) const SLOT: usize = 64 * 1024;

/// What a loop receives datagrams into: 2 MiB, made the first time that one comes, and touched only as
/// far as they reach.
#[derive(Default)]
pub(crate) struct ReceiveBuffer {
    memory: Vec<u8>,
    received: Vec<Received>,
}

/// A datagram socket of a loop.
pub(crate) struct DatagramIo {
    pub(crate) id: DatagramId,
    pub(crate) socket: Arc<DatagramSocket>,
    /// What its callbacks send.
    queue: DatagramQueue,
    /// It is registered with a poller.
    pub(crate) is_watched: bool,
    is_write_watched: bool,
    is_write_wanted: bool,
}

impl DatagramIo {
    pub(crate) fn new(id: DatagramId, socket: Arc<DatagramSocket>) -> Self {
        let queue = DatagramQueue::default();
        Self { id, socket, queue, is_watched: false, is_write_watched: false, is_write_wanted: false }
    }

    /// Calls `each` for up to so many datagrams that have arrived, and returns how many there were.
    pub(crate) fn receive(
        &mut self,
        max: usize,
        buffer: &mut ReceiveBuffer,
        counters: &WorkerCounters,
        mut each: impl FnMut(&mut Datagram<'_>, &[u8]),
    ) -> io::Result<usize> {
        let ReceiveBuffer { memory, received } = buffer;
        if memory.is_empty() {
            *memory = vec![0; BATCH * SLOT];
        }
        let memory = &mut memory[..max.min(BATCH) * SLOT];
        match datagrams::receive_batch(self.socket.as_fd(), memory, SLOT, received) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            result => result?,
        };
        counters.add(Counter::DatagramsIn, received.len() as u64);
        for (received, slot) in received.iter().zip(memory.chunks_exact(SLOT)) {
            let mut datagram =
                Datagram { received, id: self.id, socket: &self.socket, queue: &mut self.queue };
            each(&mut datagram, &slot[..received.length]);
        }
        Ok(received.len())
    }

    /// Sends what is queued, as much as the kernel takes, and returns the errors that this, and other
    /// threads, have found meanwhile: the last one.
    pub(crate) fn flush(&mut self, counters: &WorkerCounters) -> io::Result<Option<io::Error>> {
        let flushed = self.socket.flush(&mut self.queue, counters)?;
        self.is_write_wanted = flushed.is_waiting;
        Ok(flushed.error)
    }

    /// Sends what the kernel still takes, and counts the rest as dropped. From now on nothing is sent.
    pub(crate) fn close(mut self, counters: &WorkerCounters) {
        let _ = self.flush(counters);
        // Whatever failed, what is left in the queue was not sent.
        counters.add(Counter::DatagramsDropped, self.queue.len() as u64);
        self.socket.close(counters);
    }

    /// Registers it for READ, and for WRITE while datagrams wait to be sent.
    pub(crate) fn watch(&mut self, poller: &Poller, token: u64) -> io::Result<()> {
        if self.is_watched && self.is_write_wanted == self.is_write_watched {
            return Ok(());
        }
        let interest = if self.is_write_wanted { Interest::READ | Interest::WRITE } else { Interest::READ };
        if self.is_watched {
            poller.modify_reserved(self.socket.as_raw_fd(), interest, token)?;
        } else {
            poller.add_reserved(self.socket.as_raw_fd(), interest, token)?;
        }
        (self.is_watched, self.is_write_watched) = (true, self.is_write_wanted);
        Ok(())
    }

    pub(crate) fn unwatch(&mut self, poller: &Poller) {
        if std::mem::take(&mut self.is_watched) {
            // It fails only when the program has closed the descriptor.
            let _ = poller.remove_reserved(self.socket.as_raw_fd());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::datagram_queue::{MAX_LENGTH, MAX_WAITING, MAX_WAITING_BYTES};
    use super::*;
    use crate::net::Counters;
    #[cfg(target_os = "linux")]
    use crate::sys::socket_options::set_option;
    use crate::sys::Address;
    use crate::Events;
    use std::net::{SocketAddr, UdpSocket};
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use socket2::SockRef;

    fn of(socket: DatagramSocket) -> DatagramIo {
        DatagramIo::new(DatagramId::from_number(1), Arc::new(socket))
    }

    fn bound(address: &str) -> DatagramIo {
        of(DatagramSocket::bind(&address.parse().unwrap(), &Default::default()).unwrap())
    }

    fn receive(
        socket: &mut DatagramIo,
        counters: &WorkerCounters,
        each: impl FnMut(&mut Datagram<'_>, &[u8]),
    ) -> io::Result<()> {
        socket.receive(BATCH, &mut ReceiveBuffer::default(), counters, each).map(drop)
    }

    fn counters() -> WorkerCounters {
        Counters::new(1).unwrap().of(0)
    }

    fn client(to: &DatagramIo) -> UdpSocket {
        let local = to.socket.local().as_socket_addr().unwrap();
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

    fn wait(socket: &DatagramIo) {
        let poller = Poller::new().unwrap();
        poller.add(&*socket.socket, Interest::READ, 1).unwrap();
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
            assert!(socket.socket.address().starts_with(&format!("udp:{ip}:")));
            let client = client(&socket);
            client.send(b"hello").unwrap();
            wait(&socket);
            let mut seen = Vec::new();
            receive(&mut socket, &counters, |datagram, data| {
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
        receive(&mut socket, &counters(), |_, _| panic!("nothing was sent")).unwrap();
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
            receive(&mut socket, &counters, keep).unwrap();
            assert!(seen.len() - before <= BATCH);
        }
        assert_eq!(seen, numbers);
        socket.flush(&counters).unwrap();
        let answers: Vec<u8> = numbers.iter().flat_map(|_| read(&client)).collect();
        assert_eq!(answers, numbers);
    }

    #[test]
    fn datagrams_of_one_length_arrive_one_by_one() {
        for may_have_trains in [true, false] {
            let (mut socket, counters) = (bound("udp:127.0.0.1:0"), counters());
            let client = client(&socket);
            #[cfg(target_os = "linux")]
            if !may_have_trains {
                // The kernel refuses a train without checksums.
                set_option(socket.socket.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, &1i32).unwrap();
            }
            let sent: Vec<Vec<u8>> = (0..90).map(|number| vec![number; 100]).collect();
            for data in &sent {
                socket.queue.queue(Some(&peer_of(&client)), None, data).unwrap();
            }
            assert!(socket.flush(&counters).unwrap().is_none());
            assert_eq!(sent, sent.iter().map(|_| read(&client)).collect::<Vec<_>>());
            assert_eq!(counters.get(Counter::DatagramsOut), 90);
        }
    }

    #[test]
    fn the_longest_datagram_is_whole() {
        let (mut socket, counters) = (bound("udp:127.0.0.1:0"), counters());
        let client = client(&socket);
        let data: Vec<u8> = (0..MAX_LENGTH).map(|byte| (byte % 251) as u8).collect();
        client.send(&data).unwrap();
        wait(&socket);
        receive(&mut socket, &counters, |datagram, received| {
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
        let peer = socket.socket.local().clone();
        assert_eq!(errno(socket.queue.queue(Some(&peer), None, &vec![0; MAX_LENGTH + 1])), libc::EMSGSIZE);
        assert_eq!(errno(socket.queue.queue(Some(&Address::Unnamed), None, b"")), libc::EAFNOSUPPORT);
        for _ in 0..MAX_WAITING {
            socket.queue.queue(Some(&peer), None, b"x").unwrap();
        }
        assert_eq!(errno(socket.queue.queue(Some(&peer), None, b"x")), libc::ENOBUFS);
        socket.queue.pop(MAX_WAITING);
        let data = vec![0; MAX_LENGTH];
        for _ in 0..MAX_WAITING_BYTES / MAX_LENGTH {
            socket.queue.queue(Some(&peer), None, &data).unwrap();
        }
        assert_eq!(errno(socket.queue.queue(Some(&peer), None, &data)), libc::ENOBUFS);
        socket.queue.queue(Some(&peer), None, b"x").unwrap();
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
            socket.queue.queue(Some(peer), None, data).unwrap();
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
        let refuse = |socket: &DatagramIo| {
            let socket_ref = SockRef::from(&*socket.socket);
            socket_ref.connect(&dead.into()).unwrap();
            socket_ref.send(b"lost").unwrap();
            wait(socket);
        };
        refuse(&socket);
        socket.queue.queue(Some(&peer_of(&client)), None, b"kept").unwrap();
        let error = socket.flush(&counters).unwrap().unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        assert!(socket.flush(&counters).unwrap().is_none(), "it is reported once");
        assert_eq!(read(&client), b"kept");
        assert_eq!(counters.get(Counter::DatagramsDropped), 0);

        refuse(&socket);
        let received = receive(&mut socket, &counters, |_, _| panic!("nothing was sent"));
        assert_eq!(errno(received), libc::ECONNREFUSED);
        receive(&mut socket, &counters, |_, _| panic!("nothing was sent")).unwrap();
    }

    #[test]
    fn what_is_left_at_the_end_is_sent_or_counted() {
        let (mut socket, counters) = (bound("udp:127.0.0.1:0"), counters());
        let client = client(&socket);
        socket.queue.queue(Some(&peer_of(&client)), None, b"the last").unwrap();
        socket.close(&counters);
        assert_eq!(read(&client), b"the last");
        assert_eq!((counters.get(Counter::DatagramsDropped), counters.get(Counter::DatagramsOut)), (0, 1));

        let mut socket = bound("udp:127.0.0.1:0");
        (0..3).for_each(|_| socket.queue.queue(Some(&peer_of(&client)), None, b"too late").unwrap());
        // EPIPE for all of them.
        let socket_ref = SockRef::from(&*socket.socket);
        socket_ref.connect(&client.local_addr().unwrap().into()).unwrap();
        socket_ref.shutdown(std::net::Shutdown::Write).unwrap();
        socket.close(&counters);
        assert_eq!((counters.get(Counter::DatagramsDropped), counters.get(Counter::DatagramsOut)), (3, 1));
    }

    #[test]
    fn only_datagram_addresses_are_bound() {
        let address = "127.0.0.1:0".parse().unwrap();
        assert_eq!(errno(DatagramSocket::bind(&address, &Default::default()).map(drop)), libc::EINVAL);
    }

    /// A connected socket whose peer has room for a few datagrams only: a UDP socket's buffer on the
    /// loopback device is never full.
    fn narrow() -> (DatagramIo, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (of(DatagramSocket::of(std::os::fd::OwnedFd::from(ours).into()).unwrap()), theirs)
    }

    #[test]
    fn what_the_kernel_does_not_take_from_a_thread_waits_for_the_loop() {
        let ((mut socket, peer), counters) = (narrow(), counters());
        let mut sent = 0..;
        let mut send = |socket: &DatagramIo| {
            let number: u32 = sent.next().unwrap();
            socket.socket.send(None, None, &number.to_ne_bytes(), &counters).unwrap()
        };
        // The loop is woken for the first that waits, which it then knows of.
        while !send(&socket) {}
        assert!((0..5).all(|_| !send(&socket)));
        let before = counters.get(Counter::DatagramsOut);
        socket.flush(&counters).unwrap();
        assert!(socket.is_write_wanted);
        assert_eq!(counters.get(Counter::DatagramsOut), before);

        let count = sent.start;
        for number in 0..count {
            let mut received = [0; 4];
            peer.recv(&mut received).unwrap();
            assert_eq!(u32::from_ne_bytes(received), number);
            socket.flush(&counters).unwrap();
        }
        assert!(!socket.is_write_wanted);
        assert_eq!(counters.get(Counter::DatagramsOut), u64::from(count));
    }

    #[test]
    fn what_waits_is_bounded_and_counted_at_the_end() {
        let ((socket, _peer), counters) = (narrow(), counters());
        let send = || socket.socket.send(None, None, b"x", &counters);
        while !send().unwrap() {}
        (1..MAX_WAITING).for_each(|_| assert!(!send().unwrap()));
        assert_eq!(errno(send().map(drop)), libc::ENOBUFS);
        let shared = socket.socket.clone();
        socket.close(&counters);
        assert_eq!(counters.get(Counter::DatagramsDropped), MAX_WAITING as u64);
        assert_eq!(errno(shared.send(None, None, b"x", &counters).map(drop)), libc::ESTALE);
    }

    #[test]
    fn write_is_watched_while_datagrams_wait() {
        let ((mut socket, peer), counters) = (narrow(), counters());
        let (poller, mut events) = (Poller::new().unwrap(), Events::with_capacity(1));
        while !socket.socket.send(None, None, b"x", &counters).unwrap() {}
        socket.flush(&counters).unwrap();
        socket.watch(&poller, 1).unwrap();
        assert_eq!(poller.wait(&mut events, Some(Duration::ZERO)).unwrap(), 0);
        peer.set_nonblocking(true).unwrap();
        while peer.recv(&mut [0]).is_ok() {}
        assert_eq!(poller.wait(&mut events, Some(Duration::from_secs(30))).unwrap(), 1);
        socket.flush(&counters).unwrap();
        socket.watch(&poller, 1).unwrap();
        assert_eq!(poller.wait(&mut events, Some(Duration::ZERO)).unwrap(), 0);
    }
}
