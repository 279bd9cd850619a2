//! How the ends of connections, of sockets without one, and of programs' pipes are reported: what event
//! loops written for epoll alone rely on.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};

use omnipoll::{EngineKind, Interest, Ready, Trigger};
use socket2::SockRef;

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::fds::*;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_trigger(our_own_shutdown_of_reading_is_the_end);
    suite.on_each_trigger(our_own_shutdown_of_both_is_a_hang_up);
    suite.on_each_trigger(a_shutdown_of_datagrams_is_reported);
    suite.on_each_trigger(a_half_close_and_then_the_rest);
    suite.on_each_trigger(closed_with_unread_data_is_a_reset);
    suite.on_each_trigger(a_refused_datagram_is_an_error);
    suite.on_each_trigger(a_connection_that_has_sent_before_it_is_accepted);
    suite.on_each_trigger(a_program_s_pipes);
    suite.on_each_trigger(peeking_takes_nothing);
    suite.on_each_trigger(removed_and_added_again_it_is_reported_at_once);
}

/// What the end of what is to be read looks like.
fn end() -> Ready {
    Ready::READ | Ready::READ_CLOSED
}

fn our_own_shutdown_of_reading_is_the_end(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, _theirs) = pair();
    let (connected, _peer) = tcp();
    poller.add(&ours, read(trigger), 1).unwrap();
    poller.add(&connected, read(trigger), 2).unwrap();
    expect_none(&poller);
    ours.shutdown(Shutdown::Read).unwrap();
    expect_event(&poller, 1, end());
    poller.remove(&ours).unwrap();
    connected.shutdown(Shutdown::Read).unwrap();
    expect_event(&poller, 2, end());
    // The other half is as good as before.
    write_byte(&ours);
    write_byte(&connected);
}

fn our_own_shutdown_of_both_is_a_hang_up(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    let (connected, _peer) = tcp();
    poller.add(&ours, read(trigger), 1).unwrap();
    poller.add(&theirs, read(trigger), 2).unwrap();
    expect_none(&poller);
    ours.shutdown(Shutdown::Both).unwrap();
    expect_events(&poller, &[(1, end() | Ready::HANGUP), (2, end() | Ready::HANGUP)]);
    poller.remove(&ours).unwrap();
    poller.remove(&theirs).unwrap();
    poller.add(&connected, read(trigger), 3).unwrap();
    expect_none(&poller);
    connected.shutdown(Shutdown::Both).unwrap();
    until(&poller, &connected, read(trigger), 3, end() | Ready::HANGUP);
}

fn a_shutdown_of_datagrams_is_reported(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, _theirs) = UnixDatagram::pair().unwrap();
    poller.add(&ours, read(trigger), 1).unwrap();
    expect_none(&poller);
    ours.shutdown(Shutdown::Read).unwrap();
    expect_event(&poller, 1, end());
    ours.shutdown(Shutdown::Both).unwrap();
    acknowledge(&poller, &ours, read(trigger), 1);
    expect_event(&poller, 1, end() | Ready::HANGUP);
    assert_eq!(ours.recv(&mut [0; 8]).unwrap(), 0);
}

/// The second is reported under EDGE too, though the first was all there was to read.
fn a_half_close_and_then_the_rest(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (mut ours, theirs) = pair();
    poller.add(&ours, read(trigger), 1).unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    expect_event(&poller, 1, end());
    assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0);
    drop(theirs);
    acknowledge(&poller, &ours, read(trigger), 1);
    expect_event(&poller, 1, end() | Ready::HANGUP);
}

fn closed_with_unread_data_is_a_reset(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (mut ours, theirs) = tcp();
    poller.add(&ours, read(trigger), 1).unwrap();
    write_byte(&ours);
    // It has arrived.
    assert_eq!(theirs.set_nonblocking(false).and_then(|()| theirs.peek(&mut [0; 8])).unwrap(), 1);
    drop(theirs);
    until(&poller, &ours, read(trigger), 1, end() | Ready::HANGUP | Ready::ERROR);
    assert_eq!(ours.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

fn a_refused_datagram_is_an_error(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(nobody.local_addr().unwrap()).unwrap();
    drop(nobody);
    poller.add(&socket, read(trigger), 1).unwrap();
    for _ in 0..2 {
        expect_none(&poller);
        socket.send(b"data").unwrap();
        expect_event(&poller, 1, Ready::READ | Ready::ERROR);
        assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        acknowledge(&poller, &socket, read(trigger), 1);
    }
}

fn a_connection_that_has_sent_before_it_is_accepted(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let name = format!("omnipoll-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    poller.add(&listener, read(trigger), 1).unwrap();
    expect_none(&poller);
    let mut client = UnixStream::connect_addr(&address).unwrap();
    client.write_all(b"early").unwrap();
    drop(client);
    expect_event(&poller, 1, Ready::READ);
    let (accepted, _) = listener.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    poller.remove(&listener).unwrap();
    poller.add(&accepted, read(trigger), 2).unwrap();
    expect_event(&poller, 2, end() | Ready::HANGUP);
    assert_eq!(drain(&accepted), 5);
}

fn a_program_s_pipes(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (cat.stdin.take().unwrap(), cat.stdout.take().unwrap());
    poller.add(&output, read(trigger), 1).unwrap();
    poller.add(&input, Interest::WRITE | trigger, 2).unwrap();
    expect_event(&poller, 2, Ready::WRITE);
    poller.remove(&input).unwrap();
    input.write_all(b"data").unwrap();
    expect_event(&poller, 1, Ready::READ);
    // All of it, without a read that returned EAGAIN.
    output.read_exact(&mut [0; 4]).unwrap();
    drop(input);
    acknowledge(&poller, &output, read(trigger), 1);
    expect_event(&poller, 1, Ready::READ | Ready::HANGUP);
    assert_eq!(output.read(&mut [0; 8]).unwrap(), 0);
    assert!(cat.wait().unwrap().success());
}

fn peeking_takes_nothing(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, theirs): (TcpStream, TcpStream) = tcp();
    poller.add(&ours, read(trigger), 1).unwrap();
    write_byte(&theirs);
    for _ in 0..2 {
        until(&poller, &ours, read(trigger), 1, Ready::READ);
        assert_eq!(SockRef::from(&ours).peek(&mut [std::mem::MaybeUninit::uninit()]).unwrap(), 1);
        match trigger {
            Trigger::LEVEL => expect_event(&poller, 1, Ready::READ),
            _ => expect_none(&poller),
        }
        poller.modify(&ours, read(trigger), 1).unwrap();
    }
    assert_eq!(drain(&ours), 1);
    expect_none(&poller);
}

fn removed_and_added_again_it_is_reported_at_once(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    write_byte(&theirs);
    for token in 1..4 {
        poller.add(&ours, read(trigger), token).unwrap();
        expect_event(&poller, token, Ready::READ);
        poller.remove(&ours).unwrap();
        expect_none(&poller);
    }
    poller.add(&ours, Interest::WRITE | trigger, 4).unwrap();
    expect_event(&poller, 4, Ready::WRITE);
}
