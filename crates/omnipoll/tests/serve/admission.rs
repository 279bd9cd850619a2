//! Which clients are admitted by their addresses, and how fast they may send.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use omnipoll::{Model, Server, ServerOptions};
use socket2::{Domain, Socket, Type};

use crate::client::{end, pattern, read_to_end, send_meanwhile, with_timeouts};
use crate::config::Config;
use crate::log::Callback;
use crate::process::kill;
use crate::running_server::{port_of, serve, RunningServer};
use crate::suite::Suite;
use crate::support::expect::LONG;
use crate::test_handler::TestHandler;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(an_address_has_so_many_connections_and_no_more);
    suite.for_models(&[Model::Fork, Model::Prefork], a_killed_process_has_no_connections);
    suite.for_each_model(an_address_makes_so_many_connections_a_second);
    suite.for_each_model(networks_are_allowed_and_denied);
    suite.for_each_config(the_address_of_a_header_counts);
    suite.for_each_config(a_client_is_read_at_its_rate);
    suite.once(limits_that_make_no_sense);
}

/// A client from an address of the loopback network: 127.0.0.`host`.
fn client_from(host: u8, server: &RunningServer) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)).into()).expect("bind");
    // One that is refused may be reset before it knows that it is connected.
    if let Err(error) = socket.connect(&server.address().into()) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    with_timeouts(socket.into())
}

/// Whether it is served, and not reset.
fn is_served(mut client: &TcpStream) -> bool {
    client.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).is_ok()
}

fn until_served(connect: impl Fn() -> TcpStream) -> TcpStream {
    let began = Instant::now();
    loop {
        let client = connect();
        if is_served(&client) {
            return client;
        }
        assert!(began.elapsed() < LONG, "it is never let in again");
    }
}

fn an_address_has_so_many_connections_and_no_more(config: Config) {
    let server = serve(config.options().max_address_clients(3), TestHandler::echo());
    let mut served = std::thread::scope(|scope| {
        let one = || Some(client_from(1, &server)).filter(is_served);
        let threads: Vec<_> = (0..12).map(|_| scope.spawn(one)).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(served.len(), 3);
    assert!(is_served(&client_from(2, &server)), "another address");
    drop(served.pop());
    served.push(until_served(|| client_from(1, &server)));
    assert!(!is_served(&client_from(1, &server)));
    drop(served);
    let stats = server.stop_and_check().stats.total;
    assert!(stats.refused_address >= 10 && stats.refused == stats.refused_address);
    assert_eq!(stats.active, 0);
}

fn a_killed_process_has_no_connections(config: Config) {
    for with_header in [false, true] {
        let options = config.options().max_address_clients(1);
        let header = with_header.then_some(LONG);
        let server = serve(options.proxy_header(header), TestHandler::echo());
        let connect = || {
            let mut client = client_from(1, &server);
            if with_header {
                // It has been reset already, or will be.
                let _ = client.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
            }
            client
        };
        let client = until_served(connect);
        assert!(!is_served(&connect()));
        let port = if with_header { 1 } else { port_of(&client) };
        kill(server.expect_of(port, Callback::Open).process, libc::SIGKILL);
        until_served(connect);
        server.stop_and_check();
    }
}

fn an_address_makes_so_many_connections_a_second(config: Config) {
    let server = serve(config.options().max_address_rate(5), TestHandler::echo());
    let began = Instant::now();
    let served = (0..30).filter(|_| is_served(&client_from(1, &server))).count();
    let most = 6.0 + began.elapsed().as_secs_f64() * 5.0;
    assert!(served >= 5 && served as f64 <= most, "{served} of at most {most}");
    assert!(is_served(&client_from(2, &server)), "another address");
    assert_eq!(server.stop_and_check().stats.total.refused_rate, 30 - served as u64);
}

fn networks_are_allowed_and_denied(config: Config) {
    let options = config.options().allow("127.0.0.0/30, ::1").deny("127.0.0.2");
    let server = serve(options, TestHandler::echo());
    let served = [1, 2, 3, 4].map(|host| is_served(&client_from(host, &server)));
    assert_eq!(served, [true, false, true, false]);
    let outcome = server.stop_and_check();
    assert_eq!(outcome.stats.total.refused_filter, 2);
    assert_eq!(outcome.log.all().iter().filter(|entry| entry.callback == Callback::Open).count(), 2);
}

fn the_address_of_a_header_counts(config: Config) {
    let options = config.options().proxy_header(LONG).max_address_clients(1).deny("192.0.2.9");
    let server = serve(options, TestHandler::echo());
    let connect = |from: &str| {
        let mut client = client_from(1, &server);
        client.write_all(format!("PROXY TCP6 {from} ::1 1 2\r\n").as_bytes()).unwrap();
        client
    };
    let first = connect("2001:db8::1");
    assert!(is_served(&first));
    assert!(!is_served(&connect("2001:db8::2")), "of the same network");
    assert!(is_served(&connect("2001:db8:0:1::2")));
    assert!(!is_served(&connect("::ffff:192.0.2.9")));
    drop(first);
    until_served(|| connect("2001:db8::3"));
    let stats = server.stop_and_check().stats.total;
    assert!(stats.refused_address >= 1 && stats.refused_filter == 1);
}

/// What is beyond a second's worth comes when there is time for it, and all of it comes.
fn a_client_is_read_at_its_rate(config: Config) {
    const RATE: usize = 200_000;
    let handler = TestHandler::echo().on_end(|conn, log| {
        log.value(0);
        conn.close();
    });
    let server = serve(config.options().max_receive_rate(RATE as u64), handler);
    let client = server.client();
    let data = pattern(port_of(&client).into(), RATE * 8 / 5);
    let began = Instant::now();
    let sending = send_meanwhile(&client, data.clone());
    let mut back = vec![0; data.len()];
    (&client).read_exact(&mut back).unwrap();
    // Of the last piece, no more than a read brings has come before its time.
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
    assert!(back == data);
    sending.join().unwrap();
    end(&client);
    assert_eq!(read_to_end(&client), b"");
    server.stop_and_check();
}

fn limits_that_make_no_sense() {
    let refused = |options: ServerOptions| {
        struct Nothing;
        impl omnipoll::Handler for Nothing {
            type State = ();
            fn on_open(&self, _: &mut omnipoll::Conn<'_>) -> std::io::Result<()> {
                Ok(())
            }
            fn on_data(&self, _: &mut omnipoll::Conn<'_>, _: &mut (), _: &[u8]) {}
        }
        Server::with_options(Nothing, options).is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
    };
    assert!(refused(ServerOptions::new().allow("10.0.0.1/8")));
    assert!(refused(ServerOptions::new().deny("nobody")));
    assert!(refused(ServerOptions::new().max_address_clients(0)));
    assert!(refused(ServerOptions::new().max_address_rate(0)));
}
