//! Connects that fail: each says why, and which addresses were tried.

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use omnipoll::{ConnectOptions, EngineKind};

use crate::outgoing::{Outgoing, SHORT};
use crate::peers::{nobody, unix_listener, Silent};
use crate::suite::Suite;
use crate::support::sys;
use crate::support::sys::own_network;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(a_refused_connect_says_where);
    suite.on_each_engine(an_unreachable_address_says_so);
    suite.on_each_engine(the_time_limit_ends_a_silent_connect);
    suite.on_each_engine(a_socket_that_met_itself_was_refused);
    suite.on_each_engine(a_full_unix_queue_is_waited_for_until_the_time_limit);
    suite.on_each_engine(a_unix_name_that_nobody_has);
    suite.on_each_engine(a_local_port_in_use_is_told);
    suite.on_each_engine(no_port_is_left);
    suite.on_each_engine(no_descriptor_is_left);
    suite.on_each_engine(what_makes_no_sense_is_refused_at_once);
}

fn a_refused_connect_says_where(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let (_socket, address) = nobody();
    let ended = outgoing.fails(&address.to_string());
    assert_eq!(ended.errno, libc::ECONNREFUSED);
    assert_eq!(ended.words, format!("connect {address}: Connection refused"));
    let name = format!("localhost:{}", address.port());
    let ended = outgoing.fails(&name);
    assert_eq!(ended.errno, libc::ECONNREFUSED);
    let tried = format!("{address}: Connection refused");
    assert!(ended.words.starts_with(&format!("connect {name}: ")), "{}", ended.words);
    assert!(ended.words.contains(&tried), "{}", ended.words);
}

/// No stream leads to a broadcast or multicast address.
fn an_unreachable_address_says_so(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    for address in ["255.255.255.255:80", "224.0.0.1:80"] {
        let ended = outgoing.fails(address);
        assert_eq!(ended.errno, libc::ENETUNREACH, "{}", ended.words);
        assert_eq!(ended.words, format!("connect {address}: Network is unreachable"));
    }
}

fn the_time_limit_ends_a_silent_connect(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let silent = Silent::new();
    let begun = Instant::now();
    let options = ConnectOptions::new().timeout(SHORT);
    let id = outgoing.connect_with(&silent.address.to_string(), &options);
    let ended = outgoing.failed(id);
    assert!(begun.elapsed() >= SHORT);
    assert_eq!(ended.errno, libc::ETIMEDOUT);
    let words = format!("connect {}: not connected within 100ms: Connection timed out", silent.address);
    assert_eq!(ended.words, words);
}

fn a_socket_that_met_itself_was_refused(engine: EngineKind) {
    let (socket, address) = nobody();
    drop(socket);
    let mut outgoing = Outgoing::new(engine);
    let options = ConnectOptions::new().local_address(address.to_string());
    let id = outgoing.connect_with(&address.to_string(), &options);
    assert_eq!(outgoing.failed(id).errno, libc::ECONNREFUSED);
    drop(outgoing);
    // By itself, the system chooses such a port once in a while: here always.
    if own_network("50000 50000") {
        let mut outgoing = Outgoing::new(engine);
        for host in ["127.0.0.1", "0.0.0.0"] {
            let ended = outgoing.fails(&format!("{host}:50000"));
            assert_eq!(ended.errno, libc::ECONNREFUSED, "{}", ended.words);
        }
    }
}

fn a_full_unix_queue_is_waited_for_until_the_time_limit(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let name = format!("omnipoll-full-{}", std::process::id());
    let address = format!("unix:@{name}");
    let listener: UnixListener = unix_listener(&format!("\0{name}")).into();
    let first = outgoing.connect(&address);
    outgoing.connected(first);
    let second = outgoing.connect_with(&address, &ConnectOptions::new().timeout(SHORT));
    let ended = outgoing.failed(second);
    assert_eq!(ended.errno, libc::EAGAIN, "{}", ended.words);
    assert!(ended.words.starts_with(&format!("connect {address}: ")), "{}", ended.words);
    let third = outgoing.connect_with(&address, &ConnectOptions::new().timeout(None));
    outgoing.wait(SHORT);
    drop(listener.accept().unwrap());
    outgoing.connected(third);
}

fn a_unix_name_that_nobody_has(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let ended = outgoing.fails("unix:/nowhere/socket");
    assert_eq!(ended.errno, libc::ENOENT);
    assert_eq!(ended.words, "connect unix:/nowhere/socket: No such file or directory");
    assert_eq!(outgoing.fails("unix:@omnipoll-nobody").errno, libc::ECONNREFUSED);
}

fn a_local_port_in_use_is_told(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // It listens.
    let options = ConnectOptions::new().local_address(&address);
    let id = outgoing.connect_with(&address, &options);
    assert_eq!(outgoing.failed(id).errno, libc::EADDRINUSE);
    // From there, it is connected to there already.
    let (socket, local) = nobody();
    drop(socket);
    let options = ConnectOptions::new().local_address(local.to_string());
    let first = outgoing.connect_with(&address, &options);
    outgoing.connected(first);
    let second = outgoing.connect_with(&address, &options);
    let errno = outgoing.failed(second).errno;
    assert!([libc::EADDRINUSE, libc::EADDRNOTAVAIL].contains(&errno), "{errno}");
    // It is not this machine's.
    let options = ConnectOptions::new().local_address("192.0.2.1");
    let id = outgoing.connect_with(&address, &options);
    assert_eq!(outgoing.failed(id).errno, libc::EADDRNOTAVAIL);
    let options = ConnectOptions::new().local_address("::1");
    let id = outgoing.connect_with(&address, &options);
    assert_eq!(outgoing.failed(id).errno, libc::EAFNOSUPPORT);
}

fn no_port_is_left(engine: EngineKind) {
    if !own_network("50000 50001") {
        return;
    }
    let mut outgoing = Outgoing::new(engine);
    let _listeners = ["127.0.0.1:80", "127.0.0.2:80"].map(|address| TcpListener::bind(address).unwrap());
    for options in [ConnectOptions::new(), ConnectOptions::new().local_address("127.0.0.3")] {
        let ids = [(); 2].map(|()| outgoing.connect_with("127.0.0.1:80", &options));
        ids.into_iter().for_each(|id| outgoing.connected(id));
        let id = outgoing.connect_with("127.0.0.1:80", &options);
        let ended = outgoing.failed(id);
        assert_eq!(ended.errno, libc::EADDRNOTAVAIL, "{}", ended.words);
        // To another address there are as many ports again.
        let id = outgoing.connect_with("127.0.0.2:80", &options);
        outgoing.connected(id);
    }
}

fn no_descriptor_is_left(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    sys::leave_descriptors(1);
    let first = outgoing.connect(&address);
    let second = outgoing.connect(&address);
    assert_eq!(outgoing.failed(second).errno, libc::EMFILE);
    outgoing.connected(first);
    outgoing.event_loop.conn(first).unwrap().abort();
    outgoing.next(first);
    let third = outgoing.connect(&address);
    outgoing.connected(third);
}

fn what_makes_no_sense_is_refused_at_once(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let [datagrams, listener] = [datagrams.as_raw_fd(), listener.as_raw_fd()].map(|fd| format!("fd:{fd}"));
    let none = ConnectOptions::new();
    let local = ConnectOptions::new().local_address("127.0.0.1");
    for (address, options, errno, words) in [
        ("localhost", &none, libc::EINVAL, "no port"),
        ("127.0.0.1:0", &none, libc::EINVAL, "from 1 to 65535"),
        (":80", &none, libc::EINVAL, "no host"),
        ("udp:127.0.0.1:53", &none, libc::EINVAL, "datagram"),
        ("unix:", &none, libc::EINVAL, "takes a path"),
        ("unix:/run/x", &local, libc::EINVAL, "local address"),
        ("127.0.0.1:80", &ConnectOptions::new().local_address("here"), libc::EINVAL, "local address"),
        ("fd:1000000", &none, libc::EBADF, "descriptor 1000000"),
        (&datagrams, &none, libc::EPROTOTYPE, "stream socket"),
        (&listener, &none, libc::ENOTCONN, "getpeername"),
    ] {
        let ended = outgoing.is_refused(address, options);
        assert_eq!(ended.errno, errno, "{address}: {}", ended.words);
        assert!(ended.words.contains(words), "{address}: {}", ended.words);
    }
    // None of them is an event.
    let mut events = [omnipoll::LoopEvent::default()];
    assert_eq!(outgoing.event_loop.wait(&mut events, Some(Duration::ZERO)).unwrap(), 0);
}
