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

use crate::client::{end, exchange, read_to_end, with_timeouts};
use crate::config::Config;
use crate::log::{Callback, Log};
use crate::process;
use crate::running_server::{serve_on, serve_with, RunningServer};
use crate::suite::Suite;
use crate::support::expect::{expect_error, LONG};
use crate::support::sys;
use crate::test_handler::{LoggingHandler, TestHandler};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(a_path_is_served);
    suite.for_each_config(an_abstract_name_is_served);
    suite.for_each_config(an_abort_on_a_unix_socket_is_an_end);
    suite.for_each_config(what_arrived_together_is_delivered_together);
    suite.for_each_config(a_clients_name_is_shown_without_control_characters);
    suite.for_each_config(an_inherited_socket_is_served);
    suite.for_models(&[Model::Reactor, Model::Cores, Model::Thread], a_path_is_passed_on);
    suite.for_each_config(sockets_passed_by_systemd_are_served_and_left_open);
    suite.for_each_config(a_duplicate_changes_nothing);
    suite.for_each_config(a_refused_descriptor_is_left_as_it_was);
    suite.for_each_model(one_of_many_servers_gets_the_path);
    suite.for_each_config(no_client_gets_the_fd_of_standard_output);
}

fn connect(path: &str) -> UnixStream {
    unix_with_timeouts(UnixStream::connect(path).expect("connect"))
}

fn unix_with_timeouts(client: UnixStream) -> UnixStream {
    client.set_read_timeout(Some(LONG)).expect("a timeout");
    client
}

/// Says something and has it come back, to the end.
#[track_caller]
fn exchange_messages(mut client: UnixStream) {
    client.write_all(b"hello").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"hello");
}

/// An abstract name that nothing else uses.
fn name(config: Config) -> (String, SocketAddr) {
    let name = format!("omnipoll-{}-{}-{}", std::process::id(), config.model.name(), config.engine.name());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    (format!("unix:@{name}"), address)
}

/// A path that nothing else uses.
pub(crate) fn path(config: Config) -> String {
    let folder = std::env::temp_dir();
    format!("{}/omnipoll-{}-{}", folder.display(), std::process::id(), config.model.name())
}

/// Waits for that many entries of this kind, of any client: unix clients have no port.
fn wait_for(server: &RunningServer, callback: Callback, count: usize) -> i64 {
    server.log.wait_for(&format!("{count} times {callback:?}"), |entries| {
        entries.iter().filter(|entry| entry.callback == callback).nth(count - 1).map(|entry| entry.value)
    })
}

fn a_path_is_served(config: Config) {
    let path = path(config);
    let server =
        serve_on(&[&format!("unix:{path}"), "127.0.0.1:0"], config.options(), TestHandler::echo(), |_| {});
    assert_eq!(server.addresses()[0], format!("unix:{path}"));
    for turn in 1..=5 {
        let mut client = connect(&path);
        client.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut answer).unwrap(), 0);
        assert_eq!(wait_for(&server, Callback::Close, turn), 0);
    }
    server.stop_and_check();
    // A closed one can't be connected to.
    assert!(UnixStream::connect(&path).is_err());
    let _ = std::fs::remove_file(&path);
}

fn an_abstract_name_is_served(config: Config) {
    let (written, name) = name(config);
    let server = serve_on(&[&written], config.options(), TestHandler::echo(), |_| {});
    assert_eq!(server.addresses()[0], written);
    for turn in 1..=5 {
        exchange_messages(unix_with_timeouts(UnixStream::connect_addr(&name).unwrap()));
        assert_eq!(wait_for(&server, Callback::Close, turn), 0);
    }
    assert_eq!(server.stop_and_check().stats.total.accepted, 5);
    // The name ends with the last descriptor of the socket: a closed ring releases it later.
    process::until("nobody has the name", || UnixStream::connect_addr(&name).is_err());
}

fn a_clients_name_is_shown_without_control_characters(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, _| {
        let shown = conn.peer().to_string();
        conn.write(shown.as_bytes()).unwrap();
    });
    let (written, _) = name(config);
    let server = serve_on(&[&written], config.options(), handler, |_| {});
    let abstract_name = |name: &[u8]| SockAddr::unix(OsStr::from_bytes(&[b"\0", name].concat())).unwrap();
    let letters = b"a\nlogged in: root\r\x1b[2J\0\x7f\xff\\";
    let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    client.bind(&abstract_name(&[&std::process::id().to_ne_bytes()[..], letters].concat())).unwrap();
    client.connect(&abstract_name(written.trim_start_matches("unix:@").as_bytes())).unwrap();
    let mut client = unix_with_timeouts(client.into());
    client.write_all(b"who am I?").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut shown = String::new();
    client.read_to_string(&mut shown).unwrap();
    assert!(shown.starts_with("unix:@") && !shown.contains(char::is_control), "{shown:?}");
    assert!(shown.ends_with(r"a\nlogged in: root\r\u{1b}[2J\0\u{7f}\xff\\"), "{shown}");
    server.stop_and_check();
}

fn what_arrived_together_is_delivered_together(config: Config) {
    const MESSAGES: usize = 200;
    const LENGTH: usize = 1_000;
    let (written, name) = name(config);
    let server = serve_on(&[&written], config.options(), TestHandler::echo(), |_| {});
    let mut client = unix_with_timeouts(UnixStream::connect_addr(&name).unwrap());
    for byte in 0..MESSAGES as u8 {
        let mut answer = [0; LENGTH];
        client.write_all(&[byte; LENGTH]).unwrap();
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [byte; LENGTH]);
    }
    let lengths = server.log.wait_for("all data", |entries| {
        let data = entries.iter().filter(|entry| entry.callback == Callback::Data).map(|entry| entry.value);
        let lengths: Vec<i64> = data.collect();
        (lengths.iter().sum::<i64>() == (MESSAGES * LENGTH) as i64).then_some(lengths)
    });
    assert_eq!(lengths, [LENGTH as i64; MESSAGES]);
    drop(client);
    server.stop_and_check();
}

fn an_abort_on_a_unix_socket_is_an_end(config: Config) {
    let path = path(config);
    let handler = TestHandler::echo().on_data(|conn, _, _| conn.abort());
    let server = serve_on(&[&format!("unix:{path}")], config.options(), handler, |_| {});
    let mut client = connect(&path);
    client.write_all(b"go").unwrap();
    // There is no reset between unix sockets, but for bytes that were not read.
    let _ = client.read(&mut [0]);
    assert_eq!(wait_for(&server, Callback::Close, 1), libc::ECONNABORTED.into());
    server.stop_and_check();
    let _ = std::fs::remove_file(&path);
}

fn an_inherited_socket_is_served(config: Config) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let number = listener.as_raw_fd();
    let server = serve_on(&[&format!("fd:{number}")], config.options(), TestHandler::echo(), |_| {});
    assert_eq!(server.addresses()[0], address.to_string());
    assert!(sys::is_open(number));
    drop(listener);
    exchange(&server.client(), b"hello");
    server.stop_and_check();
}

fn a_path_is_passed_on(config: Config) {
    let path = path(config);
    let (log_writer, _reader) = Log::pipe();
    let reported = || LoggingHandler { handler: TestHandler::echo(), log_writer: log_writer.clone() };
    let [old, new] =
        [reported(), reported()].map(|reported| Server::with_options(reported, config.options()).unwrap());
    old.listen(&format!("unix:{path}")).unwrap();
    let handed_on = old.handle().dup_listener(0).unwrap();
    old.handle().keep_files();
    new.listen(&format!("fd:{}", handed_on.as_raw_fd())).unwrap();
    let (stop_old, stop_new) = (old.handle(), new.handle());
    std::thread::scope(|scope| {
        let (old, new) = (scope.spawn(|| old.run()), scope.spawn(|| new.run()));
        exchange_messages(connect(&path));
        stop_old.stop(None).unwrap();
        old.join().unwrap().unwrap();
        let late = UnixStream::connect(&path).map(|client| exchange_messages(unix_with_timeouts(client)));
        stop_new.stop(None).unwrap();
        new.join().unwrap().unwrap();
        late.expect("the path still leads to the process that has the socket now");
    });
    std::fs::remove_file(&path).unwrap();
}

/// Puts sockets where systemd puts them, and returns them.
fn pass_as_systemd(sockets: [OwnedFd; 2]) -> [OwnedFd; 2] {
    // Whatever this process has inherited there is nothing of the test's.
    let aside = sockets.map(|socket| sys::dup_to(&socket, 100 + socket.as_raw_fd()));
    [(3, &aside[0]), (4, &aside[1])].map(|(number, socket)| sys::dup_to(socket, number))
}

/// Says so to this process.
fn announce(count: usize) {
    std::env::set_var("LISTEN_PID", std::process::id().to_string());
    std::env::set_var("LISTEN_FDS", count.to_string());
}

fn sockets_passed_by_systemd_are_served_and_left_open(config: Config) {
    let (written, name) = name(config);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let unix = UnixListener::bind_addr(&name).unwrap();
    let _systemd = pass_as_systemd([tcp.into(), unix.into()]);
    let mut waiting: Option<TcpStream> = None;
    // It is started again, and no client is refused meanwhile.
    for _ in 0..2 {
        let reported = |log_writer| {
            announce(2);
            LoggingHandler { handler: TestHandler::echo(), log_writer }
        };
        let server = serve_with(&["systemd"], config.options(), reported, |_| {});
        assert_eq!(server.addresses(), [address.to_string(), written.clone()]);
        if let Some(early) = waiting.take() {
            end(&early);
            assert_eq!(read_to_end(&early), b"early");
        }
        for _ in 0..4 {
            exchange(&server.client(), b"hello");
            exchange_messages(unix_with_timeouts(UnixStream::connect_addr(&name).unwrap()));
        }
        let outcome = server.stop_and_check();
        assert!(outcome.stats.total.accepted >= 8);
        let mut client = with_timeouts(TcpStream::connect(address).unwrap());
        client.write_all(b"early").unwrap();
        waiting = Some(client);
    }
}

fn a_duplicate_changes_nothing(config: Config) {
    let path = path(config);
    let (log_writer, _reader) = Log::pipe();
    let server =
        Server::with_options(LoggingHandler { handler: TestHandler::echo(), log_writer }, config.options())
            .unwrap();
    let has_datagrams = !matches!(config.model, Model::Thread | Model::Fork);
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

fn a_refused_descriptor_is_left_as_it_was(config: Config) {
    let (log_writer, _reader) = Log::pipe();
    let server =
        Server::with_options(LoggingHandler { handler: TestHandler::echo(), log_writer }, config.options())
            .unwrap();
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
    match config.model {
        Model::Thread | Model::Fork => expect_error(listening, libc::ENOTSUP),
        _ => assert_eq!(listening.unwrap(), format!("udp:{}", udp.local_addr().unwrap())),
    }
}

/// Many processes at once, and a file that a dead server has left: each time one of them listens.
fn one_of_many_servers_gets_the_path(config: Config) {
    const MANY: usize = 8;
    let path = path(config);
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
                    let (log_writer, _reader) = Log::pipe();
                    let server = Server::with_options(
                        LoggingHandler { handler: TestHandler::echo(), log_writer },
                        config.options(),
                    )
                    .unwrap();
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

/// A program that is started with 0, 1 and 2 closed prints nowhere, and not to a client.
fn no_client_gets_the_fd_of_standard_output(config: Config) {
    let path = path(config);
    let reported = |log_writer| {
        sys::close_here(&[0, 1, 2]);
        LoggingHandler { handler: TestHandler::echo(), log_writer }
    };
    let prepare = |handle: &ServerHandle| drop(handle.dup_listener(0).unwrap());
    let server = serve_with(&[&format!("unix:{path}"), "127.0.0.1:0"], config.options(), reported, prepare);
    let unix = connect(&path);
    let client = with_timeouts(TcpStream::connect(&server.addresses()[1]).unwrap());
    exchange(&client, b"hello");
    for process in process::children_of(server.process.pid).into_iter().chain([server.process.pid]) {
        // A worker that begins has a ring there for a moment, before it makes one that stays.
        process::until("0, 1 and 2 are nobody's", || {
            (0..3).all(|number| std::fs::read_link(format!("/proc/{process}/fd/{number}")).is_err())
        });
    }
    drop((unix, client));
    server.stop_and_check();
    let _ = std::fs::remove_file(&path);
}
