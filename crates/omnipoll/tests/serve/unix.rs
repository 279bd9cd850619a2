//! Sockets of the unix domain, and sockets that were handed on.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

use omnipoll::{Model, Server, ServerHandle};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::acts::{Acts, Told};
use crate::client::{end, exchange, read_to_end};
use crate::log::{Log, What};
use crate::process;
use crate::served::{patient, serve_on, serve_with, Served};
use crate::suite::Suite;
use crate::support::expect::{expect_error, LONG};
use crate::support::sys;
use crate::way::Way;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.in_each_way(a_path_is_served);
    suite.in_each_way(an_abstract_name_is_served);
    suite.in_each_way(a_unix_abort_is_an_end);
    suite.in_each_way(what_arrived_together_is_handed_on_together);
    suite.in_each_way(a_clients_name_is_shown_without_control_characters);
    suite.in_each_way(an_inherited_socket_is_served);
    suite.in_ways_of(&[Model::Reactor, Model::Cores, Model::Thread], a_path_is_handed_on);
    suite.in_each_way(what_systemd_passes_is_served_and_left_open);
    suite.in_each_way(a_duplicate_changes_nothing);
    suite.in_each_way(a_refused_descriptor_is_left_as_it_was);
    suite.in_each_model(one_of_many_servers_gets_a_path);
    suite.in_each_way(no_client_gets_the_number_of_standard_output);
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

fn a_clients_name_is_shown_without_control_characters(way: Way) {
    let acts = Acts::echo().on_data(|conn, _, _| {
        let shown = conn.peer().to_string();
        conn.write(shown.as_bytes()).unwrap();
    });
    let (written, _) = name(way);
    let served = serve_on(&[&written], way.options(), acts, |_| {});
    let abstract_name = |name: &[u8]| SockAddr::unix(OsStr::from_bytes(&[b"\0", name].concat())).unwrap();
    let letters = b"a\nlogged in: root\r\x1b[2J\0\x7f\xff\\";
    let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    client.bind(&abstract_name(&[&std::process::id().to_ne_bytes()[..], letters].concat())).unwrap();
    client.connect(&abstract_name(written.trim_start_matches("unix:@").as_bytes())).unwrap();
    let mut client = patient_unix(client.into());
    client.write_all(b"who am I?").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut shown = String::new();
    client.read_to_string(&mut shown).unwrap();
    assert!(shown.starts_with("unix:@") && !shown.contains(char::is_control), "{shown:?}");
    assert!(shown.ends_with(r"a\nlogged in: root\r\u{1b}[2J\0\u{7f}\xff\\"), "{shown}");
    served.ends_well();
}

fn what_arrived_together_is_handed_on_together(way: Way) {
    const MESSAGES: usize = 200;
    const LENGTH: usize = 1_000;
    let (written, name) = name(way);
    let served = serve_on(&[&written], way.options(), Acts::echo(), |_| {});
    let mut client = patient_unix(UnixStream::connect_addr(&name).unwrap());
    for byte in 0..MESSAGES as u8 {
        let mut answer = [0; LENGTH];
        client.write_all(&[byte; LENGTH]).unwrap();
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [byte; LENGTH]);
    }
    let lengths = served.log.wait_for("all data", |entries| {
        let data = entries.iter().filter(|entry| entry.what == What::Data).map(|entry| entry.value);
        let lengths: Vec<i64> = data.collect();
        (lengths.iter().sum::<i64>() == (MESSAGES * LENGTH) as i64).then_some(lengths)
    });
    assert_eq!(lengths, [LENGTH as i64; MESSAGES]);
    drop(client);
    served.ends_well();
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
    let handed_on = old.handle().dup_listener(0).unwrap();
    old.handle().keep_files();
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
    // Whatever this process has inherited there is nothing of the test's.
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

fn a_duplicate_changes_nothing(way: Way) {
    let path = path(way);
    let (pen, _reader) = Log::pipe();
    let server = Server::with_options(Told { acts: Acts::echo(), pen }, way.options()).unwrap();
    let has_datagrams = !matches!(way.model, Model::Thread | Model::Fork);
    if has_datagrams {
        server.listen("udp:127.0.0.1:0").unwrap();
    }
    server.listen(&format!("unix:{path}")).unwrap();
    let number = usize::from(has_datagrams);
    let socket = UnixListener::from(server.handle().dup_listener(number).unwrap());
    assert_eq!(socket.local_addr().unwrap().as_pathname().unwrap().to_str(), Some(&*path));
    if has_datagrams {
        let udp = UdpSocket::from(server.handle().dup_listener(0).unwrap());
        assert_eq!(format!("udp:{}", udp.local_addr().unwrap()), server.handle().addresses()[0]);
    }
    expect_error(server.handle().dup_listener(number + 1), libc::ENOENT);
    drop(server);
    assert!(!std::path::Path::new(&path).exists(), "its file is still its own");
}

fn a_refused_descriptor_is_left_as_it_was(way: Way) {
    let (pen, _reader) = Log::pipe();
    let server = Server::with_options(Told { acts: Acts::echo(), pen }, way.options()).unwrap();
    let (connected, _other) = UnixStream::pair().unwrap();
    let datagrams = UnixDatagram::unbound().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    for fd in [connected.as_raw_fd(), datagrams.as_raw_fd(), null.as_raw_fd()] {
        let flags = || [libc::F_GETFD, libc::F_GETFL].map(|command| sys::fcntl(fd, command, 0));
        sys::fcntl(fd, libc::F_SETFD, 0);
        let before = flags();
        server.listen(&format!("fd:{fd}")).unwrap_err();
        assert_eq!(flags(), before);
    }
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let listening = server.listen(&format!("fd:{}", udp.as_raw_fd()));
    match way.model {
        Model::Thread | Model::Fork => expect_error(listening, libc::ENOTSUP),
        _ => assert_eq!(listening.unwrap(), format!("udp:{}", udp.local_addr().unwrap())),
    }
}

/// Many processes at once, and a file that a dead server has left: each time one of them listens.
fn one_of_many_servers_gets_a_path(way: Way) {
    const MANY: usize = 8;
    let path = path(way);
    for _ in 0..25 {
        let _ = std::fs::remove_file(&path);
        drop(UnixListener::bind(&path).unwrap());
        let (mut start, may_start) = UnixStream::pair().unwrap();
        let (mut end, may_end) = UnixStream::pair().unwrap();
        let (verdicts, verdict) = UnixStream::pair().unwrap();
        let processes: Vec<_> = (0..MANY)
            .map(|_| match process::fork() {
                Some(process) => process,
                None => {
                    let (pen, _reader) = Log::pipe();
                    let server =
                        Server::with_options(Told { acts: Acts::echo(), pen }, way.options()).unwrap();
                    (&may_start).read_exact(&mut [0]).unwrap();
                    let listens = server.listen(&format!("unix:{path}"));
                    let errno = listens.as_ref().map_or_else(|error| error.raw_os_error().unwrap(), |_| 0);
                    (&verdict).write_all(&[errno as u8]).unwrap();
                    // Whoever listens does until all have tried.
                    (&may_end).read_exact(&mut [0]).unwrap();
                    std::process::exit(0);
                }
            })
            .collect();
        let mut results = [0; MANY];
        start.write_all(&[0; MANY]).unwrap();
        (&verdicts).read_exact(&mut results).unwrap();
        end.write_all(&[0; MANY]).unwrap();
        let listening = results.iter().filter(|&&errno| errno == 0).count();
        let refused = results.iter().filter(|&&errno| i32::from(errno) == libc::EADDRINUSE).count();
        assert_eq!((listening, refused), (1, MANY - 1), "{results:?}");
        processes.into_iter().for_each(|mut process| assert_eq!(process.wait(), 0));
    }
    let _ = std::fs::remove_file(&path);
}

/// A program that is started with 0, 1 and 2 closed prints to nobody, and not to a client.
fn no_client_gets_the_number_of_standard_output(way: Way) {
    let path = path(way);
    let told = |pen| {
        sys::close_here(&[0, 1, 2]);
        Told { acts: Acts::echo(), pen }
    };
    let prepare = |handle: &ServerHandle| drop(handle.dup_listener(0).unwrap());
    let served = serve_with(&[&format!("unix:{path}"), "127.0.0.1:0"], way.options(), told, prepare);
    let unix = connect(&path);
    let client = patient(TcpStream::connect(&served.addresses()[1]).unwrap());
    exchange(&client, b"hello");
    for process in process::children_of(served.process.pid).into_iter().chain([served.process.pid]) {
        // A worker that begins has a ring there for a moment, before it makes one that stays.
        process::until("0, 1 and 2 are nobody's", || {
            (0..3).all(|number| std::fs::read_link(format!("/proc/{process}/fd/{number}")).is_err())
        });
    }
    drop((unix, client));
    served.ends_well();
    let _ = std::fs::remove_file(&path);
}
