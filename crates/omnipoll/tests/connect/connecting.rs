//! Connections that are made: to every kind of address, and what they are like.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

use omnipoll::{ConnId, ConnectOptions, EngineKind, LoopEvent, LoopEventKind};
use socket2::SockRef;

use crate::client::{end, pattern, read, read_to_end, with_timeouts};
use crate::outgoing::Outgoing;
use crate::peers::unix_listener;
use crate::suite::Suite;
use crate::support::expect::LONG;
use crate::support::sys;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(an_address_is_connected_to);
    suite.on_each_engine(a_name_is_connected_to_by_the_family_that_answers);
    suite.on_each_engine(unix_sockets_are_connected_to);
    suite.on_each_engine(a_connected_descriptor_is_taken_over);
    suite.on_each_engine(options_are_those_of_the_connection);
    suite.on_each_engine(what_is_written_before_it_is_connected_is_sent);
    suite.on_each_engine(answers_are_read_while_much_waits_to_be_sent);
    suite.on_each_engine(thousands_are_connected_at_once);
}

/// Sends in both directions and ends well.
#[track_caller]
fn exchange(outgoing: &mut Outgoing, id: ConnId, peer: TcpStream) {
    let peer = with_timeouts(peer);
    let mut conn = outgoing.event_loop.conn(id).unwrap();
    assert!(conn.is_outgoing());
    assert_eq!((conn.id(), conn.token()), (id, 7));
    conn.write(b"question").unwrap();
    let reading = std::thread::spawn(move || {
        assert_eq!(read(&peer, 8), b"question");
        (&peer).write_all(b"answer").unwrap();
        end(&peer);
        assert!(read_to_end(&peer).is_empty());
    });
    let data = outgoing.next(id);
    assert_eq!(data.kind(), LoopEventKind::Data);
    assert_eq!(&*outgoing.event_loop.data(&data), b"answer");
    assert_eq!(outgoing.next(id).kind(), LoopEventKind::Ended);
    outgoing.event_loop.conn(id).unwrap().close();
    let closed = outgoing.next(id);
    assert_eq!(closed.kind(), LoopEventKind::Closed);
    assert!(closed.error().is_none());
    reading.join().unwrap();
}

fn an_address_is_connected_to(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    for ip in ["127.0.0.1", "[::1]"] {
        let listener = TcpListener::bind(format!("{ip}:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let id = outgoing.connect(&address.to_string());
        outgoing.connected(id);
        let (peer, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), address.ip());
        exchange(&mut outgoing, id, peer);
    }
}

fn a_name_is_connected_to_by_the_family_that_answers(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    for ip in ["127.0.0.1", "[::1]"] {
        let listener = TcpListener::bind(format!("{ip}:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let id = outgoing.connect(&format!("both.test:{}", address.port()));
        outgoing.connected(id);
        assert_eq!(outgoing.event_loop.conn(id).unwrap().peer().as_socket_addr(), Some(address));
        let (peer, _) = listener.accept().unwrap();
        exchange(&mut outgoing, id, peer);
    }
}

fn unix_sockets_are_connected_to(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let unique = format!("omnipoll-connecting-{}", std::process::id());
    let path = std::env::temp_dir().join(&unique);
    let path = path.to_str().unwrap();
    for (name, address) in
        [(path.to_owned(), format!("unix:{path}")), (format!("\0{unique}"), format!("unix:@{unique}"))]
    {
        let listener: UnixListener = unix_listener(&name).into();
        let id = outgoing.connect(&address);
        outgoing.connected(id);
        let mut conn = outgoing.event_loop.conn(id).unwrap();
        assert_eq!(conn.peer().to_string(), address);
        conn.write(b"question").unwrap();
        outgoing.wait(std::time::Duration::ZERO);
        let (mut peer, _) = listener.accept().unwrap();
        peer.read_exact(&mut [0; 8]).unwrap();
        drop(peer);
        assert_eq!(outgoing.next(id).kind(), LoopEventKind::Ended);
    }
    std::fs::remove_file(path).unwrap();
}

fn a_connected_descriptor_is_taken_over(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let id = outgoing.connect(&format!("fd:{}", ours.as_raw_fd()));
    outgoing.connected(id);
    // The number is still its owner's.
    drop(ours);
    (&theirs).write_all(b"hello").unwrap();
    let data = outgoing.next(id);
    assert_eq!(&*outgoing.event_loop.data(&data), b"hello");
    drop(theirs);
    assert_eq!(outgoing.next(id).kind(), LoopEventKind::Ended);
}

fn options_are_those_of_the_connection(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let id = outgoing.connect(&address);
    outgoing.connected(id);
    let conn = outgoing.event_loop.conn(id).unwrap();
    let socket = SockRef::from(&conn.socket()).try_clone().unwrap();
    assert!(socket.tcp_nodelay().unwrap() && !socket.keepalive().unwrap());
    let options = ConnectOptions::new()
        .no_delay(false)
        .keep_alive(std::time::Duration::from_secs(9))
        .local_address("127.0.0.2");
    let id = outgoing.connect_with(&address, &options);
    outgoing.connected(id);
    let conn = outgoing.event_loop.conn(id).unwrap();
    let socket = SockRef::from(&conn.socket()).try_clone().unwrap();
    assert!(!socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap().as_secs(), 9);
    drop(listener.accept().unwrap());
    assert_eq!(listener.accept().unwrap().1.ip().to_string(), "127.0.0.2");
}

fn what_is_written_before_it_is_connected_is_sent(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let id = outgoing.connect(&listener.local_addr().unwrap().to_string());
    let much = pattern(1, 100_000);
    id.write(&much).unwrap();
    id.write(b"end").unwrap();
    id.close().unwrap();
    let reading = std::thread::spawn(move || read_to_end(&with_timeouts(listener.accept().unwrap().0)));
    outgoing.connected(id);
    while outgoing.next(id).kind() != LoopEventKind::Closed {}
    assert_eq!(reading.join().unwrap(), [&much[..], b"end"].concat());
}

/// The peer reads on only when its answer is taken, as a server does that protects itself.
fn answers_are_read_while_much_waits_to_be_sent(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let id = outgoing.connect(&listener.local_addr().unwrap().to_string());
    outgoing.connected(id);
    let peer = with_timeouts(listener.accept().unwrap().0);
    let data = pattern(6, 12 << 20);
    let length = data.len();
    let echoing = std::thread::spawn(move || crate::client::echo(&peer, length));
    outgoing.event_loop.conn(id).unwrap().write(&data).unwrap();
    let mut got = Vec::new();
    while got.len() < length {
        // Each event's bytes lie there until the next wait.
        let mut events = [LoopEvent::default(); 64];
        let count = outgoing.event_loop.wait(&mut events, Some(LONG)).expect("wait");
        assert!(count > 0, "{} of {length} bytes came back", got.len());
        let received = events[..count].iter().filter(|event| event.kind() == LoopEventKind::Data);
        received.for_each(|event| got.extend_from_slice(&outgoing.event_loop.data(event)));
    }
    assert!(got == data, "the echo differs");
    echoing.join().unwrap();
}

fn thousands_are_connected_at_once(engine: EngineKind) {
    let count = (sys::allow_descriptors(5000) - 100) as usize / 2;
    let mut outgoing = Outgoing::new(engine);
    let address = outgoing.event_loop.listen("127.0.0.1:0", 1).unwrap();
    let ids: HashSet<ConnId> = (0..count).map(|_| outgoing.connect(&address)).collect();
    assert_eq!(ids.len(), count);
    let mut accepted = Vec::new();
    let mut connected = HashSet::new();
    while accepted.len() < count || connected.len() < count {
        let mut events = [omnipoll::LoopEvent::default(); 64];
        let found = outgoing.event_loop.wait(&mut events, Some(crate::support::expect::LONG)).unwrap();
        assert!(found > 0, "{} are accepted, {} connected", accepted.len(), connected.len());
        for event in &events[..found] {
            match event.kind() {
                LoopEventKind::Accepted => accepted.push(event.conn()),
                LoopEventKind::Connected => assert!(connected.insert(event.conn())),
                kind => panic!("{kind:?}: {:?}", event.error()),
            }
        }
    }
    assert_eq!(connected, ids);
}
