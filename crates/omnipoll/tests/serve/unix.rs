//! Sockets of the unix domain, and sockets that were handed on.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use omnipoll::{Model, Server};

use crate::acts::{Acts, Told};
use crate::client::{end, exchange, read_to_end};
use crate::log::{Log, What};
use crate::process;
use crate::served::{patient, serve_on, serve_with, Served};
use crate::suite::Suite;
use crate::support::expect::LONG;
use crate::support::sys;
use crate::way::Way;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.in_each_way(a_path_is_served);
    suite.in_each_way(an_abstract_name_is_served);
    suite.in_each_way(a_unix_abort_is_an_end);
    suite.in_each_way(an_inherited_socket_is_served);
    suite.in_ways_of(&[Model::Reactor, Model::Cores, Model::Thread], a_path_is_handed_on);
    suite.in_each_way(what_systemd_passes_is_served_and_left_open);
}

fn connect(path: &str) -> UnixStream {
    patient_unix(UnixStream::connect(path).expect("connect"))
}

fn patient_unix(client: UnixStream) -> UnixStream {
    client.set_read_timeout(Some(LONG)).expect("a timeout");
    client
}

/// Says something and has it come back, to the end.
#[track_caller]
fn converse(mut client: UnixStream) {
    client.write_all(b"hello").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"hello");
}

/// An abstract name that nobody else uses.
fn name(way: Way) -> (String, SocketAddr) {
    let name = format!("omnipoll-{}-{}-{}", std::process::id(), way.model.name(), way.engine.name());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    (format!("unix:@{name}"), address)
}

/// A path that nobody else uses.
fn path(way: Way) -> String {
    let folder = std::env::temp_dir();
    format!("{}/omnipoll-{}-{}", folder.display(), std::process::id(), way.model.name())
}

/// Waits for that many entries of this kind, whoever they are of: unix clients have no port.
fn wait_for(served: &Served, what: What, count: usize) -> i64 {
    served.log.wait_for(&format!("{count} times {what:?}"), |entries| {
        entries.iter().filter(|entry| entry.what == what).nth(count - 1).map(|entry| entry.value)
    })
}

fn a_path_is_served(way: Way) {
    let path = path(way);
    let served = serve_on(&[&format!("unix:{path}"), "127.0.0.1:0"], way.options(), Acts::echo(), |_| {});
    assert_eq!(served.addresses()[0], format!("unix:{path}"));
    for turn in 1..=5 {
        let mut client = connect(&path);
        client.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut answer).unwrap(), 0);
        assert_eq!(wait_for(&served, What::Close, turn), 0);
    }
    served.ends_well();
    // Nobody finds the way to one who has gone.
    assert!(UnixStream::connect(&path).is_err());
    let _ = std::fs::remove_file(&path);
}

fn an_abstract_name_is_served(way: Way) {
    let (written, name) = name(way);
    let served = serve_on(&[&written], way.options(), Acts::echo(), |_| {});
    assert_eq!(served.addresses()[0], written);
    for turn in 1..=5 {
        converse(patient_unix(UnixStream::connect_addr(&name).unwrap()));
        assert_eq!(wait_for(&served, What::Close, turn), 0);
    }
    assert_eq!(served.ends_well().stats.total.accepted, 5);
    // The name ends with the last who has the socket: a ring that is gone lets go of it later.
    process::until("nobody has the name", || UnixStream::connect_addr(&name).is_err());
}

fn a_unix_abort_is_an_end(way: Way) {
    let path = path(way);
    let acts = Acts::echo().on_data(|conn, _, _| conn.abort());
    let served = serve_on(&[&format!("unix:{path}")], way.options(), acts, |_| {});
    let mut client = connect(&path);
    client.write_all(b"go").unwrap();
    // There is no reset between unix sockets, but for bytes that were not read.
    let _ = client.read(&mut [0]);
    assert_eq!(wait_for(&served, What::Close, 1), libc::ECONNABORTED.into());
    served.ends_well();
    let _ = std::fs::remove_file(&path);
}

fn an_inherited_socket_is_served(way: Way) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let number = listener.as_raw_fd();
    let served = serve_on(&[&format!("fd:{number}")], way.options(), Acts::echo(), |_| {});
    assert_eq!(served.addresses()[0], address.to_string());
    assert!(sys::is_open(number));
    drop(listener);
    exchange(&served.client(), b"hello");
    served.ends_well();
}

fn a_path_is_handed_on(way: Way) {
    let path = path(way);
    let (pen, _reader) = Log::pipe();
    let told = || Told { acts: Acts::echo(), pen: pen.clone() };
    let [old, new] = [told(), told()].map(|told| Server::with_options(told, way.options()).unwrap());
    old.listen(&format!("unix:{path}")).unwrap();
    let handed_on = old.handle().listeners().unwrap().remove(0);
    new.listen(&format!("fd:{}", handed_on.as_raw_fd())).unwrap();
    let (stop_old, stop_new) = (old.handle(), new.handle());
    std::thread::scope(|scope| {
        let (old, new) = (scope.spawn(|| old.run()), scope.spawn(|| new.run()));
        converse(connect(&path));
        stop_old.stop(None).unwrap();
        old.join().unwrap().unwrap();
        let late = UnixStream::connect(&path).map(|client| converse(patient_unix(client)));
        stop_new.stop(None).unwrap();
        new.join().unwrap().unwrap();
        late.expect("the path still leads to who has the socket now");
    });
    std::fs::remove_file(&path).unwrap();
}

/// Puts sockets where systemd puts them, and returns them.
fn as_systemd_does(sockets: [OwnedFd; 2]) -> [OwnedFd; 2] {
    // Nothing has been opened in this process yet that could be there.
    let aside = sockets.map(|socket| sys::dup_to(&socket, 100 + socket.as_raw_fd()));
    [(3, &aside[0]), (4, &aside[1])].map(|(number, socket)| sys::dup_to(socket, number))
}

/// Says so to this process.
fn announce(count: usize) {
    std::env::set_var("LISTEN_PID", std::process::id().to_string());
    std::env::set_var("LISTEN_FDS", count.to_string());
}

fn what_systemd_passes_is_served_and_left_open(way: Way) {
    let (written, name) = name(way);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let unix = UnixListener::bind_addr(&name).unwrap();
    let _systemd = as_systemd_does([tcp.into(), unix.into()]);
    let mut waiting: Option<TcpStream> = None;
    // It is started again, and nobody is refused meanwhile.
    for _ in 0..2 {
        let told = |pen| {
            announce(2);
            Told { acts: Acts::echo(), pen }
        };
        let served = serve_with(&["systemd"], way.options(), told, |_| {});
        assert_eq!(served.addresses(), [address.to_string(), written.clone()]);
        if let Some(early) = waiting.take() {
            end(&early);
            assert_eq!(read_to_end(&early), b"early");
        }
        for _ in 0..4 {
            exchange(&served.client(), b"hello");
            converse(patient_unix(UnixStream::connect_addr(&name).unwrap()));
        }
        let outcome = served.ends_well();
        assert!(outcome.stats.total.accepted >= 8);
        let mut client = patient(TcpStream::connect(address).unwrap());
        client.write_all(b"early").unwrap();
        waiting = Some(client);
    }
}
