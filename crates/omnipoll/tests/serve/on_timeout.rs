//! What a handler can do when a connection has been silent for too long.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use omnipoll::Timeout;

use crate::client::{exchange, expect_end, expect_reset, keep_small, read_to_end, small};
use crate::config::Config;
use crate::log::Callback;
use crate::running_server::{port_of, serve, RunningServer};
use crate::suite::Suite;
use crate::test_handler::TestHandler;
use crate::timeouts::{SHORT, TIMED_OUT};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(by_default_an_idle_client_sees_a_clean_end);
    suite.for_each_config(a_handler_extends_a_timeout);
    suite.for_each_config(a_write_extends_an_idle_timeout);
    suite.for_each_config(a_handler_says_goodbye);
    suite.for_each_config(a_goodbye_that_is_not_read_ends_with_a_reset);
    suite.for_each_config(an_incomplete_answer_is_reset);
    suite.for_each_config(extending_by_nothing_ends_it);
    suite.for_each_config(a_panic_in_on_timeout_ends_the_connection_alone);
    suite.for_each_config(an_abort_in_on_timeout_is_one);
    suite.for_each_model(a_refused_client_has_no_say);
}

/// How often the handler was asked about a client.
fn times_asked(server: &RunningServer, port: u16) -> usize {
    server.expect_of(port, Callback::Close);
    server.log.of(port).iter().filter(|entry| entry.callback == Callback::Timeout).count()
}

fn by_default_an_idle_client_sees_a_clean_end(config: Config) {
    for (which, options) in [
        (Timeout::Idle, config.options().idle_timeout(SHORT)),
        (Timeout::Read, config.options().read_timeout(SHORT)),
    ] {
        let server = serve(options, TestHandler::echo());
        let client = server.client();
        exchange(&client, b"hello");
        expect_end(&client);
        assert_eq!(server.expect(&client, Callback::Timeout).value, which as i64);
        assert_eq!(server.expect(&client, Callback::Close).value, TIMED_OUT);
        assert_eq!(times_asked(&server, port_of(&client)), 1);
        server.stop_and_check();
    }
}

fn a_handler_extends_a_timeout(config: Config) {
    const TIMES: u32 = 3;
    for set in [false, true] {
        let asked = AtomicU32::new(0);
        let handler = TestHandler::echo().on_timeout(move |conn, _, which| {
            assert_eq!(which, Timeout::Idle);
            match asked.fetch_add(1, Ordering::Relaxed) {
                TIMES.. => {}
                _ if set => conn.set_idle_timeout(Some(SHORT)),
                _ => conn.restart_timeouts(),
            }
        });
        let mut server = serve(config.options().idle_timeout(SHORT), handler);
        let begun = Instant::now();
        let client = server.client();
        expect_end(&client);
        assert!(begun.elapsed() >= SHORT * (TIMES + 1), "it ended after {:?}", begun.elapsed());
        assert_eq!(server.expect(&client, Callback::Close).value, TIMED_OUT);
        assert_eq!(times_asked(&server, port_of(&client)), TIMES as usize + 1);
        let stats = server.until("no client is left", |stats| stats.total.active == 0);
        assert_eq!(stats.total.timed_out, 1);
        server.stop_and_check();
    }
}

fn a_write_extends_an_idle_timeout(config: Config) {
    // The read timeout it does not extend.
    let asked = AtomicU32::new(0);
    let handler = TestHandler::echo().on_timeout(move |conn, _, _| {
        conn.write(b"?").unwrap();
        if asked.fetch_add(1, Ordering::Relaxed) == 1 {
            conn.set_idle_timeout(None);
            conn.set_read_timeout(Some(SHORT));
        }
    });
    let server = serve(config.options().idle_timeout(SHORT), handler);
    let client = server.client();
    assert_eq!(read_to_end(&client), b"???");
    assert_eq!(server.expect(&client, Callback::Close).value, TIMED_OUT);
    assert_eq!(times_asked(&server, port_of(&client)), 3);
    server.stop_and_check();
}

fn a_handler_says_goodbye(config: Config) {
    let handler = TestHandler::echo().on_timeout(|conn, _, _| {
        conn.write(b"goodbye").unwrap();
        conn.close();
    });
    let mut server = serve(config.options().idle_timeout(SHORT), handler);
    let client = server.client();
    exchange(&client, b"hello");
    let port = port_of(&client);
    assert_eq!(read_to_end(&client), b"goodbye");
    drop(client);
    assert_eq!(server.expect_of(port, Callback::Close).value, 0);
    assert_eq!(times_asked(&server, port), 1);
    let stats = server.until("no client is left", |stats| stats.total.active == 0);
    assert_eq!(stats.total.timed_out, 0);
    server.stop_and_check();
}

/// Answers with more than a client's and its own kernel take.
fn fill(conn: &mut omnipoll::Conn<'_>) {
    keep_small(conn);
    conn.write(&[0; 500_000]).unwrap();
}

fn a_goodbye_that_is_not_read_ends_with_a_reset(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, _| fill(conn)).on_timeout(|conn, _, which| {
        assert_eq!(which, Timeout::Write);
        conn.close();
    });
    let server = serve(config.options().write_timeout(SHORT), handler);
    let mut client = small(server.address());
    client.write_all(b"go").unwrap();
    let begun = Instant::now();
    assert_eq!(server.expect(&client, Callback::Close).value, TIMED_OUT);
    // It has its time once more.
    assert!(begun.elapsed() >= 2 * SHORT, "it ended after {:?}", begun.elapsed());
    assert_eq!(times_asked(&server, port_of(&client)), 2);
    expect_reset(&client);
    server.stop_and_check();
}

fn an_incomplete_answer_is_reset(config: Config) {
    for which in [Timeout::Idle, Timeout::Write] {
        let handler = TestHandler::echo().on_data(|conn, _, _| fill(conn));
        let options = match which {
            Timeout::Idle => config.options().idle_timeout(SHORT),
            _ => config.options().write_timeout(SHORT),
        };
        let server = serve(options, handler);
        let mut client = small(server.address());
        client.write_all(b"go").unwrap();
        assert_eq!(server.expect(&client, Callback::Close).value, TIMED_OUT);
        assert_eq!(server.expect(&client, Callback::Timeout).value, which as i64);
        expect_reset(&client);
        server.stop_and_check();
    }
}

fn extending_by_nothing_ends_it(config: Config) {
    let handler = TestHandler::echo().on_timeout(|conn, _, _| conn.set_idle_timeout(Some(Duration::ZERO)));
    let server = serve(config.options().idle_timeout(SHORT), handler);
    let client = server.client();
    expect_end(&client);
    assert_eq!(server.expect(&client, Callback::Close).value, TIMED_OUT);
    server.stop_and_check();
}

fn a_panic_in_on_timeout_ends_the_connection_alone(config: Config) {
    let handler = TestHandler::echo()
        .on_data(|conn, _, data| {
            conn.write(data).unwrap();
            if data == b"sooner" {
                conn.set_idle_timeout(Some(SHORT));
            }
        })
        .on_timeout(|_, _, _| panic!("as the test wants it"));
    let server = serve(config.options().idle_timeout(600 * SHORT), handler);
    let (client, witness) = (server.client(), server.client());
    exchange(&client, b"sooner");
    assert_eq!(server.expect(&client, Callback::Close).value, i64::from(libc::ENOTRECOVERABLE));
    expect_reset(&client);
    exchange(&witness, b"still here");
    drop(witness);
    server.stop_and_check();
}

fn an_abort_in_on_timeout_is_one(config: Config) {
    let handler = TestHandler::echo().on_timeout(|conn, _, _| conn.abort());
    let server = serve(config.options().idle_timeout(SHORT), handler);
    let client = server.client();
    expect_reset(&client);
    assert_eq!(server.expect(&client, Callback::Close).value, i64::from(libc::ECONNABORTED));
    server.stop_and_check();
}

fn a_refused_client_has_no_say(config: Config) {
    let handler = TestHandler::echo()
        .on_open(|conn, _| {
            fill(conn);
            conn.set_timer(Some(SHORT / 2)).unwrap();
            Err(std::io::Error::other("no"))
        })
        .on_timeout(|conn, _, _| conn.restart_timeouts());
    let mut server = serve(config.options().write_timeout(SHORT), handler);
    let client = small(server.address());
    server.until("it is gone", |stats| stats.total.accepted == 1 && stats.total.active == 0);
    expect_reset(&client);
    assert_eq!(server.log.of(port_of(&client)).len(), 1, "more calls than on_open");
    server.stop_and_check();
}
