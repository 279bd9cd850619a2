//! Datagrams: each whole, to its sender, on every engine.

use std::io;
use std::net::UdpSocket;

use omnipoll::{Conn, Datagram, Handler, Model, Server};

use crate::config::Config;
use crate::running_server::serve_with;
use crate::suite::Suite;
use crate::support::expect::{expect_error, LONG};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_models(&[Model::Reactor, Model::Cores, Model::Prefork], datagrams_come_back_whole);
    suite.for_models(
        &[Model::Reactor, Model::Cores, Model::Prefork],
        replies_come_from_the_address_that_was_asked,
    );
    suite.for_models(&[Model::Thread, Model::Fork], datagrams_are_refused_per_client_models);
}

/// Sends back what it is sent, and panics at some of it.
struct Echo;

impl Handler for Echo {
    type State = ();

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
        Ok(())
    }

    fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}

    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        assert_ne!(data, b"panic!", "as it should");
        datagram.reply(data).expect("there is room for an answer");
    }
}

fn datagrams_come_back_whole(config: Config) {
    let mut server = serve_with(&["udp:127.0.0.1:0"], config.options(), |_| Echo, |_| {});
    let address = server.addresses()[0].strip_prefix("udp:").expect("how it is written").to_owned();
    let clients: Vec<UdpSocket> = (0..8).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let mut buffer = vec![0; 65536];
    for (seed, client) in clients.iter().enumerate() {
        client.connect(&address).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        client.send(b"panic!").unwrap();
        for length in [0, 1, 1400, 9000, 60_000] {
            let data = crate::client::pattern(seed, length);
            client.send(&data).unwrap();
            let count = client.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..count], data, "another's, or a part");
        }
    }
    // One panic and five others each; the socket's queue holds them all.
    server.until("all are counted", |stats| stats.total.datagrams_in == 8 * 6);
    server.until("the answers, too", |stats| stats.total.datagrams_out == 8 * 5);
    server.stop_and_check();
}

fn datagrams_are_refused_per_client_models(config: Config) {
    let server = Server::with_options(Echo, config.options()).unwrap();
    expect_error(server.listen("udp:127.0.0.1:0"), libc::ENOTSUP);
}

/// Answers with the address that was asked.
struct Where;

impl Handler for Where {
    type State = ();

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
        Ok(())
    }

    fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}

    fn on_datagram(&self, datagram: &mut Datagram<'_>, _: &[u8]) {
        let local = datagram.local().to_string();
        datagram.reply(local.as_bytes()).expect("there is room for an answer");
    }
}

fn replies_come_from_the_address_that_was_asked(config: Config) {
    for (bound, asked) in [
        ("udp:0.0.0.0:0", &["127.0.0.1", "127.0.0.2"][..]),
        ("udp:[::]:0", &["127.0.0.1", "127.0.0.2", "[::1]"]),
        ("udp:*:0", &["127.0.0.2", "[::1]"]),
        ("udp:127.0.0.2:0", &["127.0.0.2"]),
        ("udp:[::1]:0", &["[::1]"]),
    ] {
        let server = serve_with(&[bound], config.options(), |_| Where, |_| {});
        let port = server.addresses()[0].rsplit_once(':').expect("a port").1.to_owned();
        for ip in asked {
            let client =
                UdpSocket::bind(if ip.starts_with('[') { "[::1]:0" } else { "127.0.0.1:0" }).unwrap();
            let server = format!("{ip}:{port}");
            // It receives nothing from anywhere else.
            client.connect(&server).unwrap();
            client.set_read_timeout(Some(LONG)).unwrap();
            client.send(b"where?").unwrap();
            let mut answer = [0; 100];
            let length = client.recv(&mut answer).unwrap();
            assert_eq!(String::from_utf8_lossy(&answer[..length]), server, "bound to {bound}");
        }
        server.stop_and_check();
    }
}
