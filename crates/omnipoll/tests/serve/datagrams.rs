//! Datagrams: each whole, to its sender, on every engine.

use std::io;
use std::net::UdpSocket;

use omnipoll::{Conn, Datagram, Handler, Model, Server};

use crate::served::serve_with;
use crate::suite::Suite;
use crate::support::expect::{expect_error, LONG};
use crate::way::Way;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.in_ways_of(&[Model::Reactor, Model::Cores, Model::Prefork], datagrams_come_back_whole);
    suite.in_ways_of(&[Model::Thread, Model::Fork], datagrams_have_nobody_to_serve_them);
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

fn datagrams_come_back_whole(way: Way) {
    let mut served = serve_with(&["udp:127.0.0.1:0"], way.options(), |_| Echo, |_| {});
    let address = served.addresses()[0].strip_prefix("udp:").expect("how it is written").to_owned();
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
    served.until("all are counted", |stats| stats.total.datagrams_in == 8 * 6);
    served.until("the answers, too", |stats| stats.total.datagrams_out == 8 * 5);
    served.ends_well();
}

fn datagrams_have_nobody_to_serve_them(way: Way) {
    let server = Server::with_options(Echo, way.options()).unwrap();
    expect_error(server.listen("udp:127.0.0.1:0"), libc::ENOTSUP);
}
