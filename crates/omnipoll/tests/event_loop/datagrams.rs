//! Datagrams of a program's own loop, in both faces.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use omnipoll::{
    Conn, Datagram, DatagramId, EngineKind, Event, EventLoop, Handler, LoopEvent, LoopEventKind, LoopOptions,
    LoopRef, PulledLoop,
};

use crate::running::{Listening, LONG};
use crate::suite::Suite;
use crate::support::expect::expect_error;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(datagrams_come_with_their_addresses);
    suite.on_each_engine(more_than_fits_comes_later_in_order);
    suite.on_each_engine(a_connected_socket_is_asked_and_told_of_refusals);
    suite.on_each_engine(what_cannot_be_connected_is_an_error);
    suite.on_each_engine(callbacks_connect_datagram_sockets);
    suite.on_each_engine(sockets_are_stale_after_a_stop);
}

/// A client of a port on this machine, which receives from that address alone.
fn client(address: &str) -> UdpSocket {
    let own = if address.starts_with('[') { "[::1]:0" } else { "127.0.0.1:0" };
    let client = UdpSocket::bind(own).expect("bind");
    client.connect(address).expect("connect");
    client.set_read_timeout(Some(LONG)).expect("a timeout");
    client
}

fn read(client: &UdpSocket) -> Vec<u8> {
    let mut data = vec![0; 65536];
    let length = client.recv(&mut data).expect("a datagram");
    data.truncate(length);
    data
}

fn datagrams_come_with_their_addresses(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let address = listening.event_loop.listen("udp:*:0", 5).unwrap();
    let port = address.rsplit_once(':').unwrap().1;
    let [socket] = listening.event_loop.datagram_sockets()[..] else { panic!("one socket") };
    for host in ["127.0.0.1", "127.0.0.2", "[::1]"] {
        let asked = format!("{host}:{port}");
        let client = client(&asked);
        client.send(b"hello").unwrap();
        let event = listening.next(LoopEventKind::Datagram);
        assert_eq!((event.token(), event.datagram_socket()), (5, socket));
        assert!(!socket.is_outgoing().unwrap());
        assert_eq!(&*listening.event_loop.data(&event), b"hello");
        assert!(event.error().is_none());
        let (peer, local) = listening.event_loop.addresses(&event).expect("where it came from");
        assert_eq!(peer.to_string(), client.local_addr().unwrap().to_string());
        assert_eq!(local.to_string(), asked);
        event.datagram_socket().send_from(&local, &peer, b"answer").unwrap();
        assert_eq!(read(&client), b"answer");
    }
    assert_eq!(listening.event_loop.addresses(&LoopEvent::default()), None);
}

fn more_than_fits_comes_later_in_order(engine: EngineKind) {
    const COUNT: u8 = 60;
    let mut event_loop = PulledLoop::with_options(LoopOptions::new().engine(engine)).unwrap();
    let address = event_loop.listen("udp:127.0.0.1:0", 5).unwrap();
    let client = client(address.trim_start_matches("udp:"));
    // As many as the socket's buffer has room for, and more than the loop's.
    for number in 0..COUNT {
        client.send(&[number; 1000]).unwrap();
    }
    let mut next = 0;
    while next < COUNT {
        let mut events = [LoopEvent::default(); 7];
        let count = event_loop.wait(&mut events, Some(LONG)).unwrap();
        assert!(count > 0, "{next} of {COUNT} have come");
        for event in &events[..count] {
            assert_eq!(event.kind(), LoopEventKind::Datagram);
            assert_eq!(&*event_loop.data(event), [next; 1000]);
            assert!(event_loop.addresses(event).is_some());
            next += 1;
        }
    }
}

fn a_connected_socket_is_asked_and_told_of_refusals(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
    upstream.set_read_timeout(Some(LONG)).unwrap();
    let address = upstream.local_addr().unwrap();
    let socket = listening.event_loop.connect_datagrams(&format!("udp:{address}"), 9).unwrap();
    assert_eq!(socket.peer().unwrap(), Some(address.into()));
    assert_eq!((socket.token().unwrap(), socket.is_outgoing().unwrap()), (9, true));
    socket.send(b"question").unwrap();
    let mut question = [0; 8];
    let (_, from) = upstream.recv_from(&mut question).unwrap();
    assert_eq!(socket.local().unwrap(), from.into());
    upstream.send_to(b"answer", from).unwrap();
    let answer = listening.next(LoopEventKind::Datagram);
    assert_eq!((answer.token(), answer.datagram_socket()), (9, socket));
    assert_eq!(&*listening.event_loop.data(&answer), b"answer");

    drop(upstream);
    socket.send(b"question").unwrap();
    let refused = listening.next(LoopEventKind::DatagramError);
    assert_eq!((refused.token(), refused.datagram_socket()), (9, socket));
    assert_eq!(refused.error().unwrap().kind(), io::ErrorKind::ConnectionRefused);
    assert!(!listening.event_loop.data(&refused).is_empty(), "in words");
    // It can still be used, until it is closed.
    socket.send(b"question").unwrap();
    socket.close().unwrap();
    expect_error(socket.send(b"question"), libc::ESTALE);
    // Its id does not come back.
    let next = listening.event_loop.connect_datagrams(&format!("udp:{address}"), 9).unwrap();
    assert_ne!(next, socket);
    assert_eq!(listening.event_loop.datagram_sockets(), [next]);
}

fn what_cannot_be_connected_is_an_error(engine: EngineKind) {
    let mut event_loop = PulledLoop::with_options(LoopOptions::new().engine(engine)).unwrap();
    for address in
        ["127.0.0.1:53", "udp:", "udp:localhost:53", "udp:127.0.0.1", "udp:127.0.0.1:x", "udp:unix:/x"]
    {
        expect_error(event_loop.connect_datagrams(address, 1), libc::EINVAL);
    }
    // Without SO_BROADCAST.
    expect_error(event_loop.connect_datagrams("udp:255.255.255.255:9", 1), libc::EACCES);
    assert_eq!(event_loop.datagram_sockets(), []);
}

/// Connects when a timer expires, and stops the loop when an answer has come.
struct Asking {
    upstream: UdpSocket,
    asked: Cell<Option<DatagramId>>,
    answers: RefCell<Vec<Vec<u8>>>,
}

impl Handler for Asking {
    type State = ();

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
        Ok(())
    }

    fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}

    fn on_event(&self, event_loop: &mut LoopRef<'_>, event: &Event) {
        if event.token() == 2 {
            return event_loop.stop(None).unwrap();
        }
        let address = format!("udp:{}", self.upstream.local_addr().unwrap());
        let socket = event_loop.connect_datagrams(&address, 4).unwrap();
        socket.send(b"question").unwrap();
        self.asked.set(Some(socket));
        let (_, from) = self.upstream.recv_from(&mut [0; 8]).unwrap();
        self.upstream.send_to(b"answer", from).unwrap();
    }

    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        assert_eq!((datagram.token(), Some(datagram.socket())), (4, self.asked.get()));
        self.answers.borrow_mut().push(data.to_vec());
    }
}

fn callbacks_connect_datagram_sockets(engine: EngineKind) {
    let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
    upstream.set_read_timeout(Some(LONG)).unwrap();
    let (asked, answers) = (Cell::default(), RefCell::default());
    let mut event_loop =
        EventLoop::with_options(Asking { upstream, asked, answers }, LoopOptions::new().engine(engine))
            .unwrap();
    event_loop.poller().timer_add(Duration::ZERO, None, 1).unwrap();
    while event_loop.handler().answers.borrow().is_empty() {
        assert!(event_loop.run_once(Some(LONG)).unwrap());
    }
    assert_eq!(*event_loop.handler().answers.borrow(), [b"answer"]);
    event_loop.poller().timer_add(Duration::ZERO, None, 2).unwrap();
    event_loop.run().unwrap();
    expect_error(event_loop.handler().asked.get().unwrap().send(b"late"), libc::ESTALE);
}

fn sockets_are_stale_after_a_stop(engine: EngineKind) {
    let mut event_loop = PulledLoop::with_options(LoopOptions::new().engine(engine)).unwrap();
    let address = event_loop.listen("udp:127.0.0.1:0", 5).unwrap();
    let client = client(address.trim_start_matches("udp:"));
    let socket = event_loop.datagram_sockets()[0];
    let peer = client.local_addr().unwrap().into();
    socket.send_to(&peer, b"before").unwrap();
    event_loop.handle().stop(None).unwrap();
    assert_eq!(event_loop.wait(&mut [LoopEvent::default()], Some(LONG)).unwrap(), 0);
    expect_error(socket.send_to(&peer, b"after"), libc::ESTALE);
    expect_error(event_loop.connect_datagrams(&address, 1), libc::ESTALE);
    assert_eq!(event_loop.datagram_sockets(), []);
    assert_eq!(read(&client), b"before");

    let mut dropped = PulledLoop::with_options(LoopOptions::new().engine(engine)).unwrap();
    dropped.listen("udp:127.0.0.1:0", 5).unwrap();
    let socket = dropped.datagram_sockets()[0];
    drop(dropped);
    expect_error(socket.send_to(&peer, b"after"), libc::ESTALE);
}
