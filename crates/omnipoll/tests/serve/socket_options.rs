//! The options of a server's sockets, as each worker's and each client's have them.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use omnipoll::{Conn, Datagram, Handler, Model};
use socket2::SockRef;

use crate::client::exchange;
use crate::config::Config;
use crate::log::LogWriter;
use crate::process::{drop_privileges, processors, socket_option};
use crate::running_server::{serve, serve_on, serve_with};
use crate::suite::Suite;
use crate::support::expect::LONG;
use crate::test_handler::TestHandler;
use crate::unix;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(options_reach_every_client);
    suite.for_each_model(options_of_the_listening_socket_are_set);
    suite.for_models(&[Model::Reactor, Model::Cores, Model::Prefork], a_group_is_received_from);
    suite.for_models(&[Model::Reactor, Model::Cores, Model::Prefork], workers_stay_on_their_processors);
    suite.for_each_config(privileges_are_dropped_between_listen_and_run);
    suite.for_each_model(the_file_of_a_unix_socket_has_its_mode_and_owner);
}

fn options_reach_every_client(config: Config) {
    let options = config.options().workers(3);
    let options = options.keep_alive(Duration::from_secs(61), Duration::from_secs(7), 4).no_delay(false);
    let handler = TestHandler::echo().on_open(|conn, log| {
        let socket = conn.socket();
        let socket = SockRef::from(&socket);
        log.value(i64::from(socket.keepalive()? && !socket.tcp_nodelay()?));
        log.value(socket.tcp_keepalive_time()?.as_secs());
        log.value(socket.tcp_keepalive_interval()?.as_secs());
        log.value(socket.tcp_keepalive_retries()?);
        log.value(socket.recv_buffer_size()? as i64);
        log.value(socket.send_buffer_size()? as i64);
        Ok(())
    });
    let server = serve(options.receive_buffer(20_000).send_buffer(30_000), handler);
    for client in (0..12).map(|_| server.client()).collect::<Vec<_>>() {
        // Linux doubles what is asked for the buffers, socket(7).
        assert_eq!(server.values(&client, 6), [1, 61, 7, 4, 40_000, 60_000]);
    }
    server.stop_and_check();
}

fn options_of_the_listening_socket_are_set(config: Config) {
    let options = config.options().defer_accept(Duration::from_secs(3)).fast_open(77).free_bind(true);
    // An address that no machine has.
    let server = serve_on(&["127.0.0.1:0", "192.0.2.1:0"], options, TestHandler::echo(), |handle| {
        let listener = handle.dup_listener(0).unwrap();
        let option = |level, name| socket_option(listener.as_raw_fd(), level, name);
        assert!(option(libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT) >= 3);
        assert_eq!(option(libc::IPPROTO_TCP, libc::TCP_FASTOPEN), 77);
        assert_eq!(option(libc::IPPROTO_IP, libc::IP_FREEBIND), 1);
    });
    exchange(&server.client(), b"hello");
    server.stop_and_check();
}

/// Sends datagrams back.
struct Back;

impl Handler for Back {
    type State = ();

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
        Ok(())
    }

    fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}

    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        let _ = datagram.reply(data);
    }
}

fn a_group_is_received_from(config: Config) {
    let group = Ipv4Addr::new(239, 255, 77, 77);
    let options = config.options().multicast(&format!("{group}%lo, ff02::7777%1"));
    let server = serve_with(&["udp:0.0.0.0:0"], options, |_: LogWriter| Back, |_| {});
    let port = server.addresses()[0].rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    SockRef::from(&client).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client.send_to(b"to all", (group, port)).unwrap();
    let mut answer = [0; 16];
    let (length, _) = client.recv_from(&mut answer).unwrap();
    assert_eq!(&answer[..length], b"to all");
    server.stop_and_check();
}

fn the_file_of_a_unix_socket_has_its_mode_and_owner(config: Config) {
    let path = format!("{}-mode", unix::path(config));
    let own = std::fs::metadata("/proc/self").unwrap();
    let options = config.options().unix_mode(0o620).unix_owner(Some(own.uid()), None);
    let server = serve_on(&[&format!("unix:{path}")], options, TestHandler::echo(), |_| {});
    let file = std::fs::metadata(&path).unwrap();
    assert_eq!((file.permissions().mode() & 0o777, file.uid()), (0o620, own.uid()));
    server.stop_and_check();
}

/// As the handler's thread sees it: each worker on one, and on another than the next as far as there are any.
fn workers_stay_on_their_processors(config: Config) {
    let all = processors();
    let handler = TestHandler::echo().on_open(|conn, log| {
        log.value(conn.worker() as i64);
        let own = processors();
        log.value(own.len() as i64);
        log.value(own[0] as i64);
        Ok(())
    });
    let server = serve(config.options().pin_workers(true), handler);
    for client in (0..8).map(|_| server.client()).collect::<Vec<_>>() {
        let [worker, count, processor] = server.values(&client, 3)[..] else { panic!("three values") };
        assert_eq!((count, processor as usize), (1, all[worker as usize % all.len()]));
    }
    server.stop_and_check();
}

/// Workers and the processes of clients have what is left.
fn privileges_are_dropped_between_listen_and_run(config: Config) {
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let handler = TestHandler::echo().on_open(|_, log| {
        // Nothing is left that could be dropped.
        log.value(drop_privileges());
        Ok(())
    });
    let server = serve_on(&["127.0.0.1:0"], config.options(), handler, |_| {
        let user = drop_privileges();
        assert!(!root || user == 65_534);
    });
    for _ in 0..4 {
        let client = server.client();
        assert_ne!(server.values(&client, 1), [0]);
        exchange(&client, b"hello");
    }
    server.stop_and_check();
}
