//! What happens to sockets, pipes and other kinds of files, and how it is reported.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use omnipoll::{Capabilities, EngineKind, Interest, Poller, Ready, Trigger};
use socket2::{Domain, SockRef, Socket, Type};

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::{engines, fds::*, sys};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_trigger(hang_up_before_any_data);
    suite.on_each_trigger(hang_up_after_data);
    suite.on_each_trigger(hang_up_of_a_pipe_s_writers);
    suite.on_each_trigger(a_pipe_without_readers);
    suite.on_each_trigger(a_full_pipe_without_readers);
    suite.on_each_trigger(a_full_pipe_is_reported_when_there_is_room);
    suite.on_each_trigger(half_closed_by_the_peer);
    suite.on_each_trigger(half_closed_by_ourselves);
    suite.on_each_trigger(both_sides_shut_down_at_once);
    suite.on_each_engine(a_hang_up_keeps_its_registration);
    suite.on_each_trigger(reset_by_the_peer);
    suite.on_each_trigger(a_refused_connect);
    suite.on_each_engine(a_connect_in_progress);
    suite.on_each_trigger(a_connection_to_accept);
    suite.on_each_trigger(an_empty_datagram);
    suite.on_each_trigger(urgent_data);
    suite.on_each_trigger(unread_data_does_not_spin);
    suite.on_each_trigger(an_eventfd);
    suite.on_each_engine(a_terminal);
    suite.on_each_engine(a_kernel_file_that_has_readiness);
    suite.on_each_trigger(a_nested_epoll);
    suite.on_each_trigger(several_pollers_of_one_file);
    suite.on_each_engine(exclusive_where_supported);
}

fn read_and_write(trigger: Trigger) -> Interest {
    Interest::READ | Interest::WRITE | trigger
}

/// Every flag of a connection whose peer has gone.
fn gone() -> Ready {
    Ready::READ | Ready::WRITE | Ready::READ_CLOSED | Ready::HANGUP
}

fn hang_up_before_any_data(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (mut ours, theirs) = pair();
    poller.add(&ours, read(trigger), 1).unwrap();
    drop(theirs);
    expect_event(&poller, 1, Ready::READ | Ready::READ_CLOSED | Ready::HANGUP);
    assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0);
    poller.modify(&ours, read_and_write(trigger), 2).unwrap();
    expect_event(&poller, 2, gone());
}

fn hang_up_after_data(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    poller.add(&ours, read(trigger), 1).unwrap();
    write_byte(&theirs);
    drop(theirs);
    // What was sent may still have to be read: it must not hide the end, nor the end it.
    for _ in 0..2 {
        expect_event(&poller, 1, Ready::READ | Ready::READ_CLOSED | Ready::HANGUP);
        poller.modify(&ours, read(trigger), 1).unwrap();
    }
    assert_eq!(drain(&ours), 1);
    expect_event(&poller, 1, Ready::READ | Ready::READ_CLOSED | Ready::HANGUP);
}

fn hang_up_of_a_pipe_s_writers(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (mut reader, writer) = pipe();
    let second_writer = dup(&writer);
    poller.add(&reader, read(trigger), 1).unwrap();
    drop(writer);
    expect_none(&poller);
    drop(second_writer);
    expect_event(&poller, 1, Ready::READ | Ready::HANGUP);
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
}

fn a_pipe_without_readers(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (reader, mut writer) = pipe();
    poller.add(&writer, Interest::WRITE | trigger, 1).unwrap();
    expect_event(&poller, 1, Ready::WRITE);
    drop(reader);
    poller.modify(&writer, Interest::WRITE | trigger, 2).unwrap();
    expect_event(&poller, 2, Ready::WRITE | Ready::ERROR);
    assert_eq!(writer.write(b".").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

/// There is no room, and there never will be: the write that would show it does not block.
fn a_full_pipe_without_readers(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (reader, mut writer) = pipe();
    fill(&writer);
    poller.add(&writer, Interest::WRITE | trigger, 1).unwrap();
    expect_none(&poller);
    drop(reader);
    expect_event(&poller, 1, Ready::WRITE | Ready::ERROR);
    assert_eq!(writer.write(b".").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

fn a_full_pipe_is_reported_when_there_is_room(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    fill(&writer);
    poller.add(&writer, Interest::WRITE | trigger, 1).unwrap();
    for _ in 0..3 {
        expect_quiet(&poller);
        drain(&reader);
        expect_event(&poller, 1, Ready::WRITE);
        fill(&writer);
        acknowledge(&poller, &writer, Interest::WRITE | trigger, 1);
    }
}

fn half_closed_by_the_peer(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (mut ours, theirs) = tcp();
    poller.add(&ours, read(trigger), 1).unwrap();
    expect_none(&poller);
    theirs.shutdown(Shutdown::Write).unwrap();
    until(&poller, &ours, read(trigger), 1, Ready::READ | Ready::READ_CLOSED);
    assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0);
    // The other half is as good as before.
    poller.modify(&ours, Interest::WRITE | trigger, 2).unwrap();
    expect_event(&poller, 2, Ready::WRITE);
    write_byte(&ours);
    poller.add(&theirs, read(trigger), 3).unwrap();
    poller.remove(&ours).unwrap();
    until(&poller, &theirs, read(trigger), 3, Ready::READ);
    assert_eq!(drain(&theirs), 1);
}

fn half_closed_by_ourselves(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, theirs) = tcp();
    poller.add(&ours, read(trigger), 1).unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    expect_quiet(&poller);
    write_byte(&theirs);
    until(&poller, &ours, read(trigger), 1, Ready::READ);
    assert_eq!(drain(&ours), 1);
}

fn both_sides_shut_down_at_once(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (mut ours, theirs) = tcp();
    poller.add(&ours, read_and_write(trigger), 1).unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    until(&poller, &ours, read_and_write(trigger), 1, gone());
    assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0);
}

/// In a peer's poll(2) engine the registration was silently gone after a hang-up.
fn a_hang_up_keeps_its_registration(kind: EngineKind) {
    for trigger in crate::suite::TRIGGERS {
        let poller = poller(kind);
        let (ours, theirs) = pair();
        poller.add(&ours, read(trigger), 1).unwrap();
        drop(theirs);
        for token in 2..5 {
            assert_eq!(tokens(&next(&poller)), [token - 1]);
            expect_error(poller.add(&ours, read(trigger), 9), libc::EEXIST);
            poller.modify(&ours, read(trigger), token).unwrap();
        }
        poller.remove(&ours).unwrap();
        expect_quiet(&poller);
    }
}

fn reset_by_the_peer(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (mut ours, theirs) = tcp();
    poller.add(&ours, read(trigger), 1).unwrap();
    // Closing with a linger of no time sends RST.
    SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
    drop(theirs);
    let reset = Ready::READ | Ready::READ_CLOSED | Ready::HANGUP | Ready::ERROR;
    until(&poller, &ours, read(trigger), 1, reset);
    assert_eq!(ours.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    poller.modify(&ours, read_and_write(trigger), 2).unwrap();
    until(&poller, &ours, read_and_write(trigger), 2, gone());
}

/// A non-blocking socket that connects to `address`.
fn connecting(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => panic!("connect: {error}"),
        _ => socket,
    }
}

fn a_refused_connect(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    // Bound, so that no other socket gets the port, but not listening.
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    deaf.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = deaf.local_addr().unwrap().as_socket().unwrap();
    let socket = connecting(address);
    poller.add(&socket, Interest::WRITE | trigger, 1).unwrap();
    until(&poller, &socket, Interest::WRITE | trigger, 1, Ready::WRITE | Ready::HANGUP | Ready::ERROR);
    let error = socket.take_error().unwrap().expect("an error is pending");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

/// A listener whose queue is full leaves a connecting client without an answer, until one of the
/// queue is accepted and the kernel tries again.
fn a_connect_in_progress(kind: EngineKind) {
    let poller = poller(kind);
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let first = connecting(address);
    poller.add(&first, Interest::WRITE, 1).unwrap();
    expect_event(&poller, 1, Ready::WRITE);
    poller.remove(&first).unwrap();

    let second = connecting(address);
    let others = [dup(&second), dup(&second)];
    poller.add(&second, Interest::WRITE, 2).unwrap();
    poller.add(&others[0], Interest::WRITE | Trigger::EDGE, 3).unwrap();
    poller.add(&others[1], Interest::WRITE | Trigger::ONESHOT, 4).unwrap();
    expect_quiet(&poller);
    listener.accept().unwrap();
    expect_events(&poller, &[(2, Ready::WRITE), (3, Ready::WRITE), (4, Ready::WRITE)]);
    expect_event(&poller, 2, Ready::WRITE);
    assert!(second.take_error().unwrap().is_none());
}

fn a_connection_to_accept(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    poller.add(&listener, read(trigger), 1).unwrap();
    for clients in 1..4 {
        expect_none(&poller);
        let clients: Vec<_> = (0..clients).map(|_| TcpStream::connect(address).unwrap()).collect();
        expect_event(&poller, 1, Ready::READ);
        for _ in &clients {
            listener.accept().unwrap();
        }
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        acknowledge(&poller, &listener, read(trigger), 1);
    }
}

fn an_empty_datagram(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.connect(socket.local_addr().unwrap()).unwrap();
    poller.add(&socket, read(trigger), 1).unwrap();
    for _ in 0..3 {
        expect_none(&poller);
        socket.send(&[]).unwrap();
        expect_event(&poller, 1, Ready::READ);
        assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 0);
        assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        acknowledge(&poller, &socket, read(trigger), 1);
    }
}

/// Urgent data is not read with the rest: a registration for READ alone does not get it.
fn urgent_data(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, theirs) = tcp();
    let duplicate = dup(&ours);
    poller.add(&ours, Interest::PRIORITY | trigger, 1).unwrap();
    poller.add(&duplicate, read(trigger), 2).unwrap();
    expect_none(&poller);
    for _ in 0..2 {
        SockRef::from(&theirs).send_out_of_band(b"!").unwrap();
        expect_event(&poller, 1, Ready::PRIORITY);
        let mut byte = [std::mem::MaybeUninit::new(0)];
        assert_eq!(SockRef::from(&ours).recv_out_of_band(&mut byte).unwrap(), 1);
        acknowledge(&poller, &ours, Interest::PRIORITY | trigger, 1);
        expect_none(&poller);
    }
    write_byte(&theirs);
    until(&poller, &duplicate, read(trigger), 2, Ready::READ);
}

fn unread_data_does_not_spin(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    poller.add(&ours, read(trigger), 1).unwrap();
    for _ in 0..3 {
        write_byte(&theirs);
    }
    expect_event(&poller, 1, Ready::READ);
    match trigger {
        Trigger::LEVEL => expect_event(&poller, 1, Ready::READ),
        _ => expect_quiet(&poller),
    }
}

fn an_eventfd(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let mut count = File::from(sys::eventfd(0));
    poller.add(&count, read(trigger), 1).unwrap();
    for _ in 0..3 {
        expect_none(&poller);
        count.write_all(&1u64.to_ne_bytes()).unwrap();
        expect_event(&poller, 1, Ready::READ);
        count.read_exact(&mut [0; 8]).unwrap();
        acknowledge(&poller, &count, read(trigger), 1);
    }
}

/// A character device like /dev/null, but one that has readiness.
fn a_terminal(kind: EngineKind) {
    let poller = poller(kind);
    let terminal = File::options().read(true).write(true).open("/dev/ptmx").unwrap();
    poller.add(&terminal, Interest::WRITE, 1).unwrap();
    let events = next(&poller);
    assert!(tokens(&events) == [1] && events[0].is_writable(), "{events:?}");
}

/// A regular file by its mode, but not always ready: PRIORITY says that a mount has changed.
fn a_kernel_file_that_has_readiness(kind: EngineKind) {
    let poller = poller(kind);
    let mounts = File::open("/proc/self/mountinfo").unwrap();
    poller.add(&mounts, Interest::PRIORITY, 1).unwrap();
    expect_quiet(&poller);
    poller.modify(&mounts, Interest::READ, 2).unwrap();
    expect_event(&poller, 2, Ready::READ);
}

fn a_nested_epoll(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    let inner = sys::epoll_of(&reader);
    poller.add(&inner, read(trigger), 1).unwrap();
    for _ in 0..3 {
        expect_none(&poller);
        write_byte(&writer);
        expect_event(&poller, 1, Ready::READ);
        drain(&reader);
        acknowledge(&poller, &inner, read(trigger), 1);
    }
}

fn several_pollers_of_one_file(kind: EngineKind, trigger: Trigger) {
    let (reader, writer) = pipe();
    let pollers: Vec<Poller> = engines().chain([kind; 3]).map(poller).collect();
    for poller in &pollers {
        poller.add(&reader, read(trigger), 1).unwrap();
    }
    for _ in 0..3 {
        pollers.iter().for_each(|poller| expect_none(poller));
        write_byte(&writer);
        pollers.iter().for_each(|poller| expect_event(poller, 1, Ready::READ));
        drain(&reader);
        pollers.iter().for_each(|poller| acknowledge(poller, &reader, read(trigger), 1));
    }
}

/// `epoll_ctl(2)`: EPOLLEXCLUSIVE registrations can't be modified. Where there is no EXCLUSIVE,
/// asking for it changes nothing.
fn exclusive_where_supported(kind: EngineKind) {
    for trigger in [Trigger::EXCLUSIVE, Trigger::EXCLUSIVE | Trigger::EDGE] {
        let pollers = [poller(kind), poller(kind)];
        let (reader, writer) = pipe();
        if !pollers[0].capabilities().contains(Capabilities::HAS_EXCLUSIVE) {
            expect_error(pollers[0].add(&reader, read(trigger), 1), libc::EINVAL);
            expect_error(pollers[0].remove(&reader), libc::ENOENT);
            continue;
        }
        for poller in &pollers {
            poller.add(&reader, read(trigger), 1).unwrap();
            expect_error(poller.modify(&reader, Interest::READ, 2), libc::EINVAL);
            expect_error(poller.modify(&reader, read(trigger), 2), libc::EINVAL);
        }
        write_byte(&writer);
        let found = pollers.iter().map(|poller| wait(poller, 8, Duration::ZERO));
        let found: Vec<u64> = found.flat_map(|events| tokens(&events)).collect();
        assert!(found == [1] || found == [1, 1], "{found:?}");
        drain(&reader);
        pollers[0].remove(&reader).unwrap();
        pollers[1].remove(&reader).unwrap();
        pollers[0].add(&reader, Interest::READ, 3).unwrap();
        expect_error(pollers[0].modify(&reader, read(trigger), 3), libc::EINVAL);
        write_byte(&writer);
        expect_event(&pollers[0], 3, Ready::READ);
    }
}
