//! Clients that come through a proxy: the header that they begin with.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use crate::client::{exchange, expect_reset, read};
use crate::config::Config;
use crate::log::Callback;
use crate::running_server::{serve, RunningServer};
use crate::suite::Suite;
use crate::support::expect::LONG;
use crate::test_handler::TestHandler;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(a_client_has_the_addresses_of_its_header);
    suite.for_each_config(a_client_without_a_header_is_refused);
    suite.for_each_model(a_header_has_to_come_in_time);
}

const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 7000 80\r\n";

/// Says who is served where, and then what it is sent.
fn serve_proxied(config: Config, within: Duration) -> RunningServer {
    let handler = TestHandler::echo().on_open(|conn, _| {
        let words = format!("{} at {}\n", conn.peer(), conn.local()?);
        conn.write(words.as_bytes()).map(drop)
    });
    serve(config.options().proxy_header(within), handler)
}

fn a_client_has_the_addresses_of_its_header(config: Config) {
    let mut server = serve_proxied(config, LONG);
    let binary = |command, family, addresses: &[u8]| {
        let length = addresses.len() as u8;
        [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family, 0, length], addresses].concat()
    };
    let ends = [192, 0, 2, 1, 192, 0, 2, 2, 27, 88, 0, 80];
    let said = "192.0.2.1:7000 at 192.0.2.2:80";
    for (header, said) in [
        (LINE.to_vec(), Some(said)),
        (binary(0x21, 0x11, &ends), Some(said)),
        (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(), Some("[2001:db8::1]:1 at [::1]:2")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (binary(0x20, 0, b""), None),
    ] {
        for cut in [0, 1, header.len() - 1, header.len()] {
            let mut client = server.client();
            let own = format!("{} at {}", client.local_addr().unwrap(), client.peer_addr().unwrap());
            let expected = format!("{}\nhello", said.unwrap_or(&own));
            let read_before = server.stats().total.bytes_in;
            client.write_all(&header[..cut]).unwrap();
            server.until("it is read", |stats| stats.total.bytes_in == read_before + cut as u64);
            client.write_all(&[&header[cut..], b"hello"].concat()).unwrap();
            assert_eq!(String::from_utf8(read(&client, expected.len())).unwrap(), expected);
        }
    }
    assert_eq!(server.stop_and_check().stats.total.refused_header, 0);
}

fn a_client_without_a_header_is_refused(config: Config) {
    let server = serve_proxied(config, LONG);
    let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 94]].concat();
    let refused = [&b"GET / HTTP/1.1\r\n"[..], b"PROXY TCP4 1.2.3.4 1.2.3.4 1 070\r\n", &long];
    for bytes in refused {
        let mut client = server.client();
        client.write_all(bytes).unwrap();
        expect_reset(&client);
    }
    // One that ends before its header has.
    let mut client = server.client();
    client.write_all(&LINE[..LINE.len() - 1]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    expect_reset(&client);
    // The others are served meanwhile.
    let mut client = server.client();
    client.write_all(LINE).unwrap();
    read(&client, "192.0.2.1:7000 at 192.0.2.2:80\n".len());
    drop(client);
    let outcome = server.stop_and_check();
    let opened = outcome.log.all().iter().filter(|entry| entry.callback == Callback::Open).count();
    assert_eq!(opened, 1);
    assert_eq!((outcome.stats.total.refused, outcome.stats.total.refused_header), (4, 4));
}

/// A client that sends a byte now and then has no more time than one that sends none.
fn a_header_has_to_come_in_time(config: Config) {
    let mut server = serve_proxied(config, Duration::from_millis(500));
    // Again, should this machine be too busy for it to be in time.
    let prompt = loop {
        let mut client = server.client();
        if client.write_all(LINE).and_then(|()| client.read_exact(&mut [0; 31])).is_ok() {
            break client;
        }
    };
    let (silent, mut slow) = (server.client(), server.client());
    for byte in LINE.iter().chain(LINE) {
        // The header would be complete after ten seconds.
        if slow.write_all(&[*byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    expect_reset(&silent);
    server.until("both are refused", |stats| stats.total.refused_header >= 2);
    // The time of the first one's header is over.
    exchange(&prompt, b"hello");
    drop(prompt);
    let outcome = server.stop_and_check();
    let opened = outcome.log.all().iter().filter(|entry| entry.callback == Callback::Open).count();
    assert_eq!(opened, 1);
}
