//! Connections that are silent for too long: ended, never early.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::client::{exchange, expect_end, expect_reset, keep_small, pattern, read, read_to_end, small};
use crate::config::Config;
use crate::log::Callback;
use crate::running_server::{port_of, serve};
use crate::suite::Suite;
use crate::test_handler::TestHandler;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(an_idle_connection_ends);
    suite.for_each_config(a_client_that_reads_nothing_times_out);
    suite.for_each_config(timeouts_per_connection);
    suite.for_each_config(timeouts_can_be_disabled);
    suite.for_each_config(lingering_ends);
    suite.for_each_config(lingering_continues_while_the_peer_sends);
    suite.for_each_config(a_refused_client_lingers_within_its_limit);
    // These last, and what they are about is the same whatever the engine.
    suite.for_each_model(a_client_that_sends_is_not_idle);
    suite.for_each_model(a_client_that_is_written_to_is_not_idle);
    suite.for_each_model(a_client_that_sends_nothing_times_out_while_it_is_written_to);
    suite.for_each_model(time_does_not_count_while_nothing_is_read);
    suite.for_each_model(time_does_not_count_above_the_high_mark);
    suite.for_each_model(a_client_that_reads_slowly_does_not_time_out);
    suite.for_each_model(a_long_callback_does_not_count_as_idle);
}

pub(crate) const SHORT: Duration = Duration::from_millis(100);
/// Twice the short one or more, in a test of what must not end in that time.
pub(crate) const LONGER: Duration = Duration::from_millis(400);

/// A server's way of saying that it is over.
pub(crate) const TIMED_OUT: i64 = libc::ETIMEDOUT as i64;

fn an_idle_connection_ends(config: Config) {
    let mut server = serve(config.options().idle_timeout(SHORT), TestHandler::echo());
    for words in [&b""[..], b"hello"] {
        let begun = Instant::now();
        let client = server.client();
        let spoken = Instant::now();
        exchange(&client, words);
        expect_end(&client);
        let since = if words.is_empty() { begun } else { spoken };
        assert!(since.elapsed() >= SHORT, "it ended after {:?}", since.elapsed());
        assert_eq!(server.expect(&client, Callback::Close).value, TIMED_OUT);
    }
    let stats = server.until("no client is left", |stats| stats.total.active == 0);
    assert_eq!(stats.total.timed_out, 2);
    server.stop_and_check();
}

fn a_client_that_sends_is_not_idle(config: Config) {
    // Thrice as long as the limit; each pause is a tenth of it.
    let limit = LONGER;
    let server = serve(
        config.options().idle_timeout(limit).read_timeout(limit).write_timeout(limit),
        TestHandler::echo(),
    );
    let client = server.client();
    let begun = Instant::now();
    while begun.elapsed() < 3 * limit {
        exchange(&client, b"hello");
        std::thread::sleep(limit / 10);
    }
    let spoken = Instant::now();
    exchange(&client, b"still here");
    expect_end(&client);
    assert!(spoken.elapsed() >= limit - Duration::from_millis(1), "it ended after {:?}", spoken.elapsed());
    assert_eq!(server.expect(&client, Callback::Close).value, TIMED_OUT);
    server.stop_and_check();
}

/// A thread of the handler's that writes a byte now and then, until it can't.
fn trickle(conn: &omnipoll::Conn<'_>, every: Duration) {
    let id = conn.id();
    std::thread::spawn(move || {
        while id.write(b".").is_ok() {
            std::thread::sleep(every);
        }
    });
}

fn a_client_that_is_written_to_is_not_idle(config: Config) {
    let handler = TestHandler::echo().on_open(|conn, _| {
        trickle(conn, SHORT / 10);
        Ok(())
    });
    let server = serve(config.options().idle_timeout(2 * LONGER), handler);
    let client = server.client();
    let begun = Instant::now();
    while begun.elapsed() < 3 * LONGER {
        read(&client, 1);
    }
    exchange_after_dots(&client);
    drop(client);
    server.stop_and_check();
}

/// It still answers.
fn exchange_after_dots(mut client: &std::net::TcpStream) {
    client.write_all(b"x").unwrap();
    while read(client, 1) != b"x" {}
}

fn a_client_that_sends_nothing_times_out_while_it_is_written_to(config: Config) {
    let handler = TestHandler::echo().on_open(|conn, _| {
        trickle(conn, SHORT / 10);
        Ok(())
    });
    let server = serve(config.options().read_timeout(SHORT).idle_timeout(60 * SHORT), handler);
    let begun = Instant::now();
    let client = server.client();
    read_to_end(&client);
    assert!(begun.elapsed() >= SHORT, "it ended after {:?}", begun.elapsed());
    assert_eq!(server.expect(&client, Callback::Close).value, TIMED_OUT);
    server.stop_and_check();
}

fn time_does_not_count_while_nothing_is_read(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, log, data| {
        conn.write(data).unwrap();
        if data == b"pause" {
            conn.pause();
            let (id, log) = (conn.id(), log.clone());
            std::thread::spawn(move || {
                std::thread::sleep(2 * LONGER);
                log.value(1);
                id.resume().unwrap();
            });
        }
    });
    let server = serve(config.options().read_timeout(LONGER), handler);
    let client = server.client();
    exchange(&client, b"pause");
    server.values(&client, 1);
    let spoken = Instant::now();
    exchange(&client, b"continue");
    expect_end(&client);
    assert!(spoken.elapsed() >= LONGER - Duration::from_millis(1));
    assert_eq!(server.expect(&client, Callback::Close).value, TIMED_OUT);
    server.stop_and_check();
}

fn time_does_not_count_above_the_high_mark(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, data| {
        keep_small(conn);
        if data == b"fill" {
            conn.write(&pattern(0, 500_000)).unwrap();
        } else {
            conn.write(data).unwrap();
        }
    });
    let server = serve(config.options().read_timeout(LONGER), handler);
    let mut client = small(server.address());
    client.write_all(b"fill").unwrap();
    read(&client, 1);
    std::thread::sleep(2 * LONGER);
    // Now that it is read from again it has its time.
    assert!(read(&client, 499_999) == pattern(0, 500_000)[1..]);
    server.expect(&client, Callback::Drain);
    exchange(&client, b"still here");
    expect_end(&client);
    assert_eq!(server.expect(&client, Callback::Close).value, TIMED_OUT);
    server.stop_and_check();
}

fn a_client_that_reads_nothing_times_out(config: Config) {
    for closing in [false, true] {
        let handler = TestHandler::echo().on_data(move |conn, _, _| {
            keep_small(conn);
            conn.write(&[0; 500_000]).unwrap();
            if closing {
                conn.close();
            }
        });
        let server = serve(config.options().write_timeout(SHORT), handler);
        // One with nothing to be taken does not end by it.
        let witness = server.client();
        let mut client = small(server.address());
        let begun = Instant::now();
        client.write_all(b"go").unwrap();
        assert_eq!(server.expect(&client, Callback::Close).value, TIMED_OUT);
        assert!(begun.elapsed() >= SHORT, "it ended after {:?}", begun.elapsed());
        expect_reset(&client);
        std::thread::sleep(2 * SHORT);
        assert_eq!(server.log.of(port_of(&witness)).len(), 1, "the witness has ended, too");
        drop(witness);
        server.stop_and_check();
    }
}

fn a_client_that_reads_slowly_does_not_time_out(config: Config) {
    const LENGTH: usize = 300_000;
    let handler = TestHandler::echo().on_data(|conn, _, _| {
        keep_small(conn);
        conn.write(&pattern(0, LENGTH)).unwrap();
        conn.close();
    });
    let limit = 2 * LONGER;
    let server = serve(config.options().write_timeout(limit), handler);
    let mut client = small(server.address());
    let begun = Instant::now();
    client.write_all(b"go").unwrap();
    let mut all = Vec::new();
    while all.len() < LENGTH {
        all.extend(read(&client, (LENGTH / 20).min(LENGTH - all.len())));
        // It lasts longer than the limit in all.
        if begun.elapsed() < 2 * limit {
            std::thread::sleep(limit / 8);
        }
    }
    assert!(all == pattern(0, LENGTH));
    expect_end(&client);
    let port = port_of(&client);
    drop(client);
    assert_eq!(server.expect_of(port, Callback::Close).value, 0);
    server.stop_and_check();
}

fn timeouts_per_connection(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, data| match data {
        b"sooner" => conn.set_idle_timeout(Some(SHORT)),
        b"read" => conn.set_read_timeout(Some(SHORT)),
        b"later" => conn.set_idle_timeout(Some(3600 * LONGER)),
        b"now" => conn.set_idle_timeout(Some(Duration::ZERO)),
        b"write" => {
            keep_small(conn);
            conn.set_write_timeout(Some(SHORT));
            conn.write(&[0; 500_000]).unwrap();
        }
        _ => drop(conn.write(data)),
    });
    let server = serve(config.options().idle_timeout(Duration::from_secs(3600)), handler);
    let mut later = server.client();
    later.write_all(b"later").unwrap();
    for word in ["sooner", "read", "write", "now"] {
        let mut client = small(server.address());
        let begun = Instant::now();
        client.write_all(word.as_bytes()).unwrap();
        assert_eq!(server.expect(&client, Callback::Close).value, TIMED_OUT, "{word}");
        assert!(word == "now" || begun.elapsed() >= SHORT, "{word}: after {:?}", begun.elapsed());
        match word {
            "write" => expect_reset(&client),
            _ => expect_end(&client),
        }
    }
    exchange(&later, b"still here");
    drop(later);
    server.stop_and_check();
}

fn timeouts_can_be_disabled(config: Config) {
    let handler = TestHandler::echo().on_open(|conn, _| {
        conn.set_idle_timeout(None);
        conn.set_read_timeout(None);
        conn.set_write_timeout(None);
        Ok(())
    });
    let server =
        serve(config.options().idle_timeout(SHORT).read_timeout(SHORT).write_timeout(SHORT), handler);
    let client = server.client();
    std::thread::sleep(2 * SHORT);
    exchange(&client, b"still here");
    drop(client);
    server.stop_and_check();
}

fn a_long_callback_does_not_count_as_idle(config: Config) {
    // A call that lasts longer than the limit keeps its loop from hearing anybody; when it
    // has returned, every client has its whole time again.
    let handler = TestHandler::echo().on_data(|conn, _, data| {
        if data == b"work" {
            std::thread::sleep(2 * LONGER);
        }
        conn.write(data).unwrap();
    });
    let server = serve(config.options().workers(1).idle_timeout(LONGER), handler);
    let (mut worker, mut other) = (server.client(), server.client());
    for _ in 0..2 {
        worker.write_all(b"work").unwrap();
        // What it says reaches the loop late, and was said in time.
        for _ in 0..20 {
            other.write_all(b"!").unwrap();
            std::thread::sleep(LONGER / 10);
        }
        assert_eq!(read(&worker, 4), b"work");
        assert_eq!(read(&other, 20), [b'!'; 20]);
        exchange(&worker, b"still here");
        exchange(&other, b"still here");
    }
    drop((worker, other));
    server.stop_and_check();
}

fn lingering_ends(config: Config) {
    let server =
        serve(config.options().linger(SHORT), TestHandler::echo().on_data(|conn, _, _| conn.close()));
    let begun = Instant::now();
    let mut client = server.client();
    client.write_all(b"go").unwrap();
    // It never ends its direction, and keeps sending.
    expect_end(&client);
    while server.log.of(port_of(&client)).iter().all(|entry| entry.callback != Callback::Close) {
        let _ = client.write(b"still talking");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(begun.elapsed() >= SHORT, "it ended after {:?}", begun.elapsed());
    assert_eq!(server.expect(&client, Callback::Close).value, 0);
    server.stop_and_check();
}

fn lingering_continues_while_the_peer_sends(config: Config) {
    let server =
        serve(config.options().linger(LONGER), TestHandler::echo().on_data(|conn, _, _| conn.close()));
    let mut client = server.client();
    // An upload that is refused, and is slow: its sender gets to its end, and reads the answer.
    let begun = Instant::now();
    while begun.elapsed() < 2 * LONGER {
        client.write_all(b"more").unwrap();
        std::thread::sleep(LONGER / 20);
    }
    expect_end(&client);
    drop(client);
    server.stop_and_check();
}

fn a_refused_client_lingers_within_its_limit(config: Config) {
    let handler = TestHandler::echo().on_open(|_, _| Err(std::io::Error::other("no")));
    let mut server = serve(config.options().linger(SHORT), handler);
    let client = server.client();
    expect_end(&client);
    server.until("it is gone though it has not ended", |stats| stats.total.active == 0);
    drop(client);
    server.stop_and_check();
}
