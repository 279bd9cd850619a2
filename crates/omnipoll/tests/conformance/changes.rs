//! What becomes of a descriptor while it is registered: it is connected, shut down, given another peer or
//! written to by another program. Event loops written for epoll alone rely on each of these.

use std::fs::{remove_file, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::mem::MaybeUninit;
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use omnipoll::{EngineKind, Interest, Ready, Trigger};
use socket2::{Domain, SockRef, Socket, Type};

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::fds::*;
use crate::support::sys;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_trigger(a_socket_that_is_not_connected_yet);
    suite.on_each_trigger(a_listener_that_was_shut_down);
    suite.on_each_trigger(a_connection_reset_before_it_was_accepted);
    suite.on_each_trigger(our_end_after_the_peer_s_is_a_hang_up);
    suite.on_each_trigger(several_datagrams_are_one_event);
    suite.on_each_trigger(a_datagram_socket_that_gets_another_peer);
    suite.on_each_trigger(datagrams_can_be_sent_when_the_receiver_has_read);
    suite.on_each_trigger(packets_in_sequence);
    suite.on_each_trigger(a_fifo_s_next_writer);
    suite.on_each_trigger(modified_to_the_other_direction_and_back);
}

fn a_socket_that_is_not_connected_yet(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let writing = Interest::WRITE | trigger;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    poller.add(&socket, writing, 1).unwrap();
    expect_event(&poller, 1, Ready::WRITE | Ready::HANGUP);
    let connected = socket.connect(&listener.local_addr().unwrap().into());
    assert!(connected.is_ok() || connected.unwrap_err().raw_os_error() == Some(libc::EINPROGRESS));
    acknowledge(&poller, &socket, writing, 1);
    until(&poller, &socket, writing, 1, Ready::WRITE);
    listener.accept().unwrap();
    poller.modify(&socket, writing, 2).unwrap();
    expect_event(&poller, 2, Ready::WRITE);
    assert!(socket.take_error().unwrap().is_none());
}

fn a_listener_that_was_shut_down(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    poller.add(&listener, read(trigger), 1).unwrap();
    expect_none(&poller);
    SockRef::from(&listener).shutdown(Shutdown::Both).unwrap();
    expect_event(&poller, 1, Ready::READ | Ready::HANGUP);
    assert_eq!(listener.accept().unwrap_err().raw_os_error(), Some(libc::EINVAL));
}

fn a_connection_reset_before_it_was_accepted(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    poller.add(&listener, read(trigger), 1).unwrap();
    expect_none(&poller);
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.connect(&listener.local_addr().unwrap().into()).unwrap();
    client.set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    expect_event(&poller, 1, Ready::READ);
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    poller.remove(&listener).unwrap();
    poller.add(&accepted, read(trigger), 2).unwrap();
    let reset = Ready::READ | Ready::READ_CLOSED | Ready::HANGUP | Ready::ERROR;
    until(&poller, &accepted, read(trigger), 2, reset);
    assert_eq!(accepted.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// Each of the two ends its direction, and neither closes.
fn our_end_after_the_peer_s_is_a_hang_up(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let end = Ready::READ | Ready::READ_CLOSED;
    let (ours, theirs) = tcp();
    poller.add(&ours, read(trigger), 1).unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    until(&poller, &ours, read(trigger), 1, end);
    ours.shutdown(Shutdown::Write).unwrap();
    acknowledge(&poller, &ours, read(trigger), 1);
    until(&poller, &ours, read(trigger), 1, end | Ready::HANGUP);
    assert_eq!((&ours).read(&mut [0; 8]).unwrap(), 0);
    poller.add(&theirs, read(trigger), 2).unwrap();
    poller.remove(&ours).unwrap();
    until(&poller, &theirs, read(trigger), 2, end | Ready::HANGUP);
}

fn several_datagrams_are_one_event(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let [ours, theirs] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    ours.set_nonblocking(true).unwrap();
    theirs.connect(ours.local_addr().unwrap()).unwrap();
    poller.add(&ours, read(trigger), 1).unwrap();
    for count in 1..4u8 {
        expect_none(&poller);
        for number in 0..count {
            assert_eq!(theirs.send(&[number]).unwrap(), 1);
        }
        expect_event(&poller, 1, Ready::READ);
        for number in 0..count {
            let mut buffer = [0; 8];
            assert_eq!(ours.recv(&mut buffer).unwrap(), 1);
            assert_eq!(buffer[0], number);
        }
        assert_eq!(ours.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        acknowledge(&poller, &ours, read(trigger), 1);
    }
}

/// What others than its peer send does not make it ready.
fn a_datagram_socket_that_gets_another_peer(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let [ours, one, other] = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    ours.set_nonblocking(true).unwrap();
    let address = ours.local_addr().unwrap();
    ours.connect(one.local_addr().unwrap()).unwrap();
    poller.add(&ours, read(trigger), 1).unwrap();
    for (peer, stranger) in [(&one, &other), (&other, &one), (&one, &other)] {
        ours.connect(peer.local_addr().unwrap()).unwrap();
        stranger.send_to(b"not this", address).unwrap();
        expect_none(&poller);
        peer.send_to(b"this", address).unwrap();
        expect_event(&poller, 1, Ready::READ);
        assert_eq!(ours.recv(&mut [0; 64]).unwrap(), 4);
        assert_eq!(ours.recv(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
        acknowledge(&poller, &ours, read(trigger), 1);
    }
}

/// The queue that is full is the receiver's, which is another socket than the one that waits. A send that
/// finds it full is no event: else a program would try again and again.
fn datagrams_can_be_sent_when_the_receiver_has_read(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let writing = Interest::WRITE | trigger;
    let name = format!("omnipoll-datagrams-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let receiver = UnixDatagram::bind_addr(&address).unwrap();
    receiver.set_nonblocking(true).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    sender.connect_addr(&address).unwrap();
    poller.add(&sender, writing, 1).unwrap();
    expect_event(&poller, 1, Ready::WRITE);
    for _ in 0..2 {
        let full = loop {
            if let Err(error) = sender.send(b"datagram") {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        acknowledge(&poller, &sender, writing, 1);
        expect_none(&poller);
        while receiver.recv(&mut [0; 64]).is_ok() {}
        expect_event(&poller, 1, Ready::WRITE);
    }
}

fn packets_in_sequence(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    ours.set_nonblocking(true).unwrap();
    let receive = || ours.recv(&mut [MaybeUninit::uninit(); 64]);
    poller.add(&ours, read(trigger), 1).unwrap();
    expect_none(&poller);
    for packet in ["first", "the second"] {
        theirs.send(packet.as_bytes()).unwrap();
    }
    expect_event(&poller, 1, Ready::READ);
    assert_eq!((receive().unwrap(), receive().unwrap()), (5, 10));
    assert_eq!(receive().unwrap_err().kind(), ErrorKind::WouldBlock);
    acknowledge(&poller, &ours, read(trigger), 1);
    expect_none(&poller);
    drop(theirs);
    expect_event(&poller, 1, Ready::READ | Ready::READ_CLOSED | Ready::HANGUP);
    assert_eq!(receive().unwrap(), 0);
}

/// Programs that write to a FIFO come and go: the end of one is no end for its reader.
fn a_fifo_s_next_writer(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let path = std::env::temp_dir().join(format!("omnipoll-fifo-{}", std::process::id()));
    sys::make_fifo(&path);
    let reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
    let writer = || File::options().write(true).open(&path).unwrap();
    poller.add(&reader, read(trigger), 1).unwrap();
    // A FIFO that nobody has written to yet has not ended.
    expect_none(&poller);
    for _ in 0..2 {
        let writing = writer();
        acknowledge(&poller, &reader, read(trigger), 1);
        expect_none(&poller);
        write_byte(&writing);
        expect_event(&poller, 1, Ready::READ);
        assert_eq!(drain(&reader), 1);
        acknowledge(&poller, &reader, read(trigger), 1);
        expect_none(&poller);
        drop(writing);
        expect_event(&poller, 1, Ready::READ | Ready::HANGUP);
        assert_eq!((&reader).read(&mut [0; 8]).unwrap(), 0);
    }
    remove_file(path).unwrap();
}

/// What is ready already is reported for the interest that is new.
fn modified_to_the_other_direction_and_back(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    write_byte(&theirs);
    poller.add(&ours, read(trigger), 0).unwrap();
    expect_event(&poller, 0, Ready::READ);
    let both = Interest::READ | Interest::WRITE;
    let turns = [
        (Interest::WRITE, Ready::WRITE),
        (Interest::READ, Ready::READ),
        (both, Ready::READ | Ready::WRITE),
        (Interest::READ, Ready::READ),
    ];
    for (token, (interest, ready)) in (1..).zip(turns) {
        poller.modify(&ours, interest | trigger, token).unwrap();
        expect_event(&poller, token, ready);
    }
    assert_eq!(drain(&ours), 1);
    poller.modify(&ours, read(trigger), 9).unwrap();
    expect_none(&poller);
    write_byte(&theirs);
    expect_event(&poller, 9, Ready::READ);
}
