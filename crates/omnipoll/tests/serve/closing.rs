//! How connections end, and how that is reported.

use std::io::{self, Write};
use std::net::TcpStream;

use omnipoll::{Conn, Handler};

use crate::client::{
    end, exchange, expect_end, expect_reset, keep_small, pattern, read, read_to_end, reset, send_meanwhile,
    small,
};
use crate::config::Config;
use crate::log::Callback;
use crate::running_server::{port_of, serve, serve_with, RunningServer};
use crate::suite::Suite;
use crate::test_handler::TestHandler;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(by_default_the_server_closes_when_the_peer_does);
    suite.for_each_config(queued_bytes_are_sent_after_the_peers_end);
    suite.for_each_config(a_handler_may_continue_after_the_peers_end);
    suite.for_each_config(the_server_shuts_down_and_the_peer_continues);
    suite.for_each_config(both_sides_end_at_once);
    suite.for_each_config(a_reset_by_the_peer_is_reported);
    suite.for_each_config(a_reset_is_reported_while_bytes_are_queued);
    suite.for_each_config(close_sends_everything_though_the_peer_is_not_read);
    suite.for_each_config(nothing_is_written_after_close);
    suite.for_each_config(abort_resets);
    suite.for_each_config(abort_discards_what_is_queued);
    suite.for_each_config(a_refused_client_gets_what_was_written);
    suite.for_each_config(a_panic_ends_its_connection_alone);
    suite.for_each_config(a_panic_in_on_open_refuses);
    suite.for_each_config(on_close_is_called_once_and_last);
}

/// The errno with which `on_close` was called for this client's connection; its process
/// logs nothing afterwards.
#[track_caller]
fn end_reported(server: &RunningServer, client: &TcpStream) -> i32 {
    server.expect(client, Callback::Close).value as i32
}

/// Has no `on_end`.
struct Plain;

impl Handler for Plain {
    type State = ();

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
        Ok(())
    }

    fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) {
        let _ = conn.write(data);
    }
}

fn by_default_the_server_closes_when_the_peer_does(config: Config) {
    let server = serve_with(&["127.0.0.1:0"], config.options(), |_| Plain, |_| {});
    let client = server.client();
    let sending = send_meanwhile(&client, pattern(3, 500_000));
    sending.join().unwrap();
    end(&client);
    assert!(read_to_end(&client) == pattern(3, 500_000), "not all came back");
    server.stop_and_check();
}

fn queued_bytes_are_sent_after_the_peers_end(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, _| {
        keep_small(conn);
        conn.write(&pattern(4, 1 << 20)).unwrap();
    });
    let server = serve(config.options(), handler);
    let mut client = small(server.address());
    client.write_all(b"go").unwrap();
    end(&client);
    assert!(read_to_end(&client) == pattern(4, 1 << 20), "not all was sent");
    assert_eq!(end_reported(&server, &client), 0);
    server.stop_and_check();
}

fn a_handler_may_continue_after_the_peers_end(config: Config) {
    let handler = TestHandler::echo().on_end(|conn, log| {
        assert!(conn.has_ended());
        let id = conn.id();
        log.value(0);
        std::thread::spawn(move || {
            for _ in 0..100 {
                id.write(&[5; 1000]).unwrap();
            }
            id.close().unwrap();
        });
    });
    let server = serve(config.options(), handler);
    let client = server.client();
    exchange(&client, b"hello");
    end(&client);
    assert_eq!(read_to_end(&client), vec![5; 100_000]);
    assert_eq!(end_reported(&server, &client), 0);
    assert_eq!(server.values(&client, 1), [0], "the end was reported more than once");
    server.stop_and_check();
}

fn the_server_shuts_down_and_the_peer_continues(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, log, data| {
        if data == b"end" {
            keep_small(conn);
            conn.write(&pattern(6, 200_000)).unwrap();
            conn.shutdown();
            let error = conn.write(b"more").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
        } else {
            log.value(data.len());
        }
    });
    let server = serve(config.options(), handler);
    let mut client = small(server.address());
    client.write_all(b"end").unwrap();
    assert!(read_to_end(&client) == pattern(6, 200_000), "not all was sent before the end");
    client.write_all(&[0; 100_000]).unwrap();
    end(&client);
    assert_eq!(end_reported(&server, &client), 0);
    let said: i64 = server.values(&client, 1).iter().sum();
    assert_eq!(said, 100_000, "of what was sent after our end");
    server.expect(&client, Callback::End);
    server.stop_and_check();
}

fn both_sides_end_at_once(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, _| conn.shutdown());
    let server = serve(config.options(), handler);
    for _ in 0..20 {
        let mut client = server.client();
        client.write_all(b"end").unwrap();
        end(&client);
        expect_end(&client);
        assert_eq!(end_reported(&server, &client), 0);
    }
    server.stop_and_check();
}

fn a_reset_by_the_peer_is_reported(config: Config) {
    let server = serve(config.options(), TestHandler::echo());
    let client = server.client();
    exchange(&client, b"hello");
    let port = port_of(&client);
    reset(client);
    assert_eq!(server.expect_of(port, Callback::Close).value, libc::ECONNRESET.into());
    server.stop_and_check();
}

fn a_reset_is_reported_while_bytes_are_queued(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, data| {
        keep_small(conn);
        conn.write(&[0; 500_000]).unwrap();
        if data == b"close" {
            conn.close();
        }
    });
    let server = serve(config.options(), handler);
    for words in ["write", "close"] {
        let mut client = small(server.address());
        client.write_all(words.as_bytes()).unwrap();
        read(&client, 1);
        let port = port_of(&client);
        reset(client);
        // The kernel says the one or the other.
        let reported = server.expect_of(port, Callback::Close).value as i32;
        assert!([libc::ECONNRESET, libc::EPIPE].contains(&reported), "{words}: error {reported}");
        assert_eq!(reported, libc::ECONNRESET, "{words}");
    }
    server.stop_and_check();
}

fn close_sends_everything_though_the_peer_is_not_read(config: Config) {
    let handler = TestHandler::echo()
        .on_data(|conn, _, _| {
            conn.write(&pattern(7, 4 << 20)).unwrap();
            conn.close();
        })
        .on_close(|conn, log| log.value(conn.queued()));
    let server = serve(config.options(), handler);
    let mut client = server.client();
    client.write_all(b"go").unwrap();
    read(&client, 1);
    // It will be thrown away, but must not cost the client its answer.
    client.write_all(&[0; 50_000]).unwrap();
    let all = read_to_end(&client);
    assert!(all == pattern(7, 4 << 20)[1..], "{} of {} bytes arrived", all.len() + 1, 4 << 20);
    drop(client.try_clone());
    let port = port_of(&client);
    drop(client);
    assert_eq!(server.expect_of(port, Callback::Close).value, 0);
    assert_eq!(server.expect_of(port, Callback::Value).value, 0, "bytes queued at the close");
    let data = server.log.of(port).iter().filter(|entry| entry.callback == Callback::Data).count();
    assert_eq!(data, 1, "data was handed over after close");
    server.stop_and_check();
}

fn nothing_is_written_after_close(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, data| {
        if data == b"abort" {
            conn.write(b"never").unwrap();
            conn.abort();
        } else {
            keep_small(conn);
            conn.write(&[0; 50_000]).unwrap();
            conn.close();
        }
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(conn.write(b"more").unwrap_err().raw_os_error(), Some(libc::EPIPE));
        assert_eq!(conn.write(b"").unwrap_err().raw_os_error(), Some(libc::EPIPE));
        assert_eq!(conn.write_vectored(&[]).unwrap_err().raw_os_error(), Some(libc::EPIPE));
        assert_eq!(conn.send_file(&file, 0, 10).unwrap_err().raw_os_error(), Some(libc::EPIPE));
    });
    let server = serve(config.options(), handler);
    let mut client = small(server.address());
    client.write_all(b"close").unwrap();
    assert_eq!(read_to_end(&client), vec![0; 50_000]);
    end(&client);
    assert_eq!(end_reported(&server, &client), 0);
    let mut client = server.client();
    client.write_all(b"abort").unwrap();
    expect_reset(&client);
    assert_eq!(end_reported(&server, &client), libc::ECONNABORTED);
    server.stop_and_check();
}

fn abort_resets(config: Config) {
    let server = serve(config.options(), TestHandler::echo().on_data(|conn, _, _| conn.abort()));
    let mut client = server.client();
    client.write_all(b"go").unwrap();
    expect_reset(&client);
    assert_eq!(end_reported(&server, &client), libc::ECONNABORTED);
    server.stop_and_check();
}

fn abort_discards_what_is_queued(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, log, _| {
        keep_small(conn);
        conn.write(&[0; 500_000]).unwrap();
        conn.abort();
        conn.close();
        log.value(conn.queued());
    });
    let server = serve(config.options(), handler);
    let mut client = small(server.address());
    client.write_all(b"go").unwrap();
    expect_reset(&client);
    assert_eq!(end_reported(&server, &client), libc::ECONNABORTED);
    assert_eq!(server.values(&client, 1), [0]);
    server.stop_and_check();
}

fn a_refused_client_gets_what_was_written(config: Config) {
    let handler = TestHandler::echo().on_open(|conn, _| {
        conn.write(b"no").unwrap();
        Err(io::Error::other("we are closed"))
    });
    let mut server = serve(config.options(), handler);
    let mut ports = Vec::new();
    for _ in 0..3 {
        let mut client = server.client();
        client.write_all(b"let me in").unwrap();
        assert_eq!(read_to_end(&client), b"no");
        ports.push(port_of(&client));
    }
    let stats = server.until("no client is left", |stats| stats.total.active == 0);
    assert_eq!((stats.total.accepted, stats.total.refused), (3, 3));
    let outcome = server.stop_and_check();
    for port in ports {
        let reported: Vec<_> = outcome.log.of(port).iter().map(|entry| entry.callback).collect();
        assert_eq!(reported, [Callback::Open]);
    }
}

fn a_panic_ends_its_connection_alone(config: Config) {
    let panic_at = |callback: Callback| {
        move |conn: &mut Conn<'_>, log: &crate::log::ConnLog| {
            let _ = (conn, log);
            panic!("in {callback:?}, as it should");
        }
    };
    let handler = TestHandler::echo()
        .on_open(|conn, _| {
            keep_small(conn);
            Ok(())
        })
        .on_data(|conn, _, data| match data {
            b"data" => panic!("in Data, as it should"),
            b"open" => {}
            b"drain" => drop(conn.write(&[0; 200_000]).unwrap()),
            b"post" => conn.id().post(1).unwrap(),
            b"close" => conn.close(),
            _ => drop(conn.write(data)),
        })
        .on_end(panic_at(Callback::End))
        .on_drain(panic_at(Callback::Drain))
        .on_post(|_, _, _| panic!("in Post, as it should"))
        .on_close(panic_at(Callback::Close));
    let server = serve(config.options(), handler);
    let witness = server.client();
    exchange(&witness, b"first");
    for word in ["data", "drain", "post"] {
        let mut client = server.client();
        client.write_all(word.as_bytes()).unwrap();
        expect_reset(&client);
        assert_eq!(end_reported(&server, &client), libc::ENOTRECOVERABLE, "{word}");
    }
    let client = server.client();
    exchange(&client, b"bytes");
    end(&client);
    expect_reset(&client);
    assert_eq!(end_reported(&server, &client), libc::ENOTRECOVERABLE, "end");
    let mut client = server.client();
    client.write_all(b"close").unwrap();
    expect_end(&client);
    end(&client);
    assert_eq!(end_reported(&server, &client), 0, "close");
    exchange(&witness, b"last");
    reset(witness);
    server.stop_and_check();
}

fn a_panic_in_on_open_refuses(config: Config) {
    let handler = TestHandler::echo().on_open(|conn, _| {
        conn.write(b"half of it").unwrap();
        panic!("in Open, as it should")
    });
    let mut server = serve(config.options(), handler);
    let clients: Vec<_> = (0..3).map(|_| server.client()).collect();
    clients.iter().for_each(expect_reset);
    let stats =
        server.until("no client is left", |stats| stats.total.active == 0 && stats.total.accepted == 3);
    assert_eq!((stats.total.refused, stats.total.restarts), (3, 0));
    let outcome = server.stop_and_check();
    assert!(
        outcome.log.all().iter().all(|entry| entry.callback == Callback::Open),
        "something else was called"
    );
}

fn on_close_is_called_once_and_last(config: Config) {
    // All ways to end at once: whichever comes first is reported, and no other.
    let handler = TestHandler::echo().on_data(|conn, _, data| {
        let id = conn.id();
        match data[0] % 4 {
            0 => conn.close(),
            1 => conn.abort(),
            2 => drop(std::thread::spawn(move || (id.close(), id.abort(), id.post(1)))),
            _ => {}
        }
        let _ = (id.post(7), conn.write(&[0; 1000]));
    });
    let server = serve(config.options(), handler);
    let mut ports = Vec::new();
    for turn in 0..24 {
        let mut client = server.client();
        ports.push(port_of(&client));
        let _ = client.write_all(&[turn]);
        match turn / 4 % 3 {
            0 => reset(client),
            1 => end(&client),
            _ => drop(client),
        }
    }
    let outcome = server.stop_and_check();
    outcome.log.wait_for("an end for each that was opened", |entries| {
        let count = |what: Callback| entries.iter().filter(|entry| entry.callback == what).count();
        (count(Callback::Open) == 24 && count(Callback::Close) == 24).then_some(())
    });
    for port in ports {
        let entries = outcome.log.of(port);
        let last = entries.last().expect("something was logged");
        assert_eq!(last.callback, Callback::Close, "{entries:#?}");
        let closes = entries.iter().filter(|entry| entry.callback == Callback::Close).count();
        assert_eq!(closes, 1, "{entries:#?}");
    }
}
