//! The timer of a connection.

use std::io::Write;
use std::time::{Duration, Instant};

use omnipoll::{ServerOptions, WaitPolicy};

use crate::client::{exchange, expect_end, keep_small, read, read_to_end, small};
use crate::config::Config;
use crate::log::Callback;
use crate::running_server::{port_of, serve, Outcome};
use crate::suite::Suite;
use crate::test_handler::TestHandler;
use crate::timeouts::{LONGER, SHORT, TIMED_OUT};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(a_timer_is_called_once_and_not_early);
    suite.for_each_config(a_heartbeat_sets_its_timer_again);
    suite.for_each_config(setting_a_timer_replaces_it);
    suite.for_each_config(a_timer_is_moved_on);
    suite.for_each_config(a_timer_is_cancelled);
    suite.for_each_config(a_timer_ends_with_its_connection);
    suite.for_each_config(a_timer_and_timeouts_are_apart);
    suite.for_each_config(a_timer_of_a_closing_connection_is_called);
    suite.for_each_config(a_thrifty_server_s_waits_last_their_time);
    suite.for_each_model(a_panic_in_on_timer_ends_the_connection_alone);
    suite.for_each_model(many_connections_have_heartbeats);
}

/// The pause of a heartbeat.
const PERIOD: Duration = Duration::from_millis(5);

/// How often the timer was called for a client, once its server has ended.
fn calls(outcome: &Outcome, port: u16) -> usize {
    outcome.log.of(port).iter().filter(|entry| entry.callback == Callback::Timer).count()
}

fn a_timer_is_called_once_and_not_early(config: Config) {
    let handler = TestHandler::echo()
        .on_data(|conn, _, data| match data {
            b"set" => conn.set_timer(Some(SHORT)).unwrap(),
            b"now" => conn.set_timer(Some(Duration::ZERO)).unwrap(),
            _ => drop(conn.write(data)),
        })
        .on_timer(|conn, _| drop(conn.write(b"!")));
    let server = serve(config.options(), handler);
    let mut client = server.client();
    let set = Instant::now();
    client.write_all(b"set").unwrap();
    assert_eq!(read(&client, 1), b"!");
    assert!(set.elapsed() >= SHORT, "it was called after {:?}", set.elapsed());
    client.write_all(b"now").unwrap();
    assert_eq!(read(&client, 1), b"!");
    std::thread::sleep(2 * SHORT);
    exchange(&client, b"still here");
    let port = port_of(&client);
    drop(client);
    assert_eq!(calls(&server.stop_and_check(), port), 2);
}

fn a_heartbeat_sets_its_timer_again(config: Config) {
    let handler = TestHandler::echo().on_open(|conn, _| conn.set_timer(Some(PERIOD))).on_timer(|conn, _| {
        conn.write(b".").unwrap();
        conn.set_timer(Some(PERIOD)).unwrap();
    });
    let server = serve(config.options(), handler);
    let begun = Instant::now();
    let (one, other) = (server.client(), server.client());
    for client in [&one, &other] {
        assert_eq!(read(client, 20), [b'.'; 20]);
    }
    assert!(begun.elapsed() >= 20 * PERIOD, "twenty came after {:?}", begun.elapsed());
    drop((one, other));
    server.stop_and_check();
}

fn setting_a_timer_replaces_it(config: Config) {
    let handler = TestHandler::echo()
        .on_data(|conn, _, data| {
            conn.set_timer(Some(if data == b"sooner" { SHORT } else { 600 * LONGER })).unwrap();
            conn.write(data).unwrap();
        })
        .on_timer(|conn, _| drop(conn.write(b"!")));
    let server = serve(config.options(), handler);
    let client = server.client();
    exchange(&client, b"sooner");
    exchange(&client, b"later");
    std::thread::sleep(2 * SHORT);
    exchange(&client, b"later");
    let set = Instant::now();
    exchange(&client, b"sooner");
    assert_eq!(read(&client, 1), b"!");
    assert!(set.elapsed() >= SHORT, "it was called after {:?}", set.elapsed());
    let port = port_of(&client);
    drop(client);
    assert_eq!(calls(&server.stop_and_check(), port), 1);
}

fn a_timer_is_moved_on(config: Config) {
    for limit in [None, Some(LONGER)] {
        let handler = TestHandler::echo()
            .on_data(|conn, _, _| {
                conn.set_timer(Some(PERIOD)).unwrap();
                conn.set_timer(Some(SHORT)).unwrap();
            })
            .on_timer(|conn, _| drop(conn.write(b"!")));
        let options = config.options();
        let server = serve(limit.into_iter().fold(options, ServerOptions::idle_timeout), handler);
        let mut client = server.client();
        let set = Instant::now();
        client.write_all(b"set").unwrap();
        assert_eq!(read(&client, 1), b"!");
        assert!(set.elapsed() >= SHORT, "it was called after {:?}", set.elapsed());
        drop(client);
        server.stop_and_check();
    }
}

fn a_timer_is_cancelled(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, data| {
        let delay = (data == b"set").then_some(SHORT);
        conn.set_timer(delay).unwrap();
        conn.write(data).unwrap();
    });
    let server = serve(config.options(), handler);
    let client = server.client();
    for _ in 0..3 {
        exchange(&client, b"set");
        exchange(&client, b"cancel");
    }
    std::thread::sleep(2 * SHORT);
    exchange(&client, b"again");
    let port = port_of(&client);
    drop(client);
    let log = server.stop_and_check().log.of(port);
    let cancelled = log.iter().rposition(|entry| entry.value == 6).expect("the last cancel");
    assert!(log[cancelled..].iter().all(|entry| entry.callback != Callback::Timer), "{log:#?}");
}

fn a_timer_ends_with_its_connection(config: Config) {
    let handler = TestHandler::echo()
        .on_open(|conn, _| conn.set_timer(Some(SHORT)))
        .on_close(|conn, _| conn.set_timer(Some(Duration::ZERO)).unwrap());
    let server = serve(config.options().workers(1), handler);
    let client = server.client();
    let port = port_of(&client);
    exchange(&client, b"hello");
    drop(client);
    server.expect_of(port, Callback::Close);
    // In its slot, where one process serves both.
    let next = server.client();
    exchange(&next, b"hello");
    server.expect(&next, Callback::Timer);
    drop(next);
    let log = server.stop_and_check().log.of(port);
    assert_eq!(log.last().map(|entry| entry.callback), Some(Callback::Close), "{log:#?}");
}

fn a_timer_and_timeouts_are_apart(config: Config) {
    // Neither a call of the timer nor setting it counts as something read or written.
    let handler = TestHandler::echo()
        .on_open(|conn, _| conn.set_timer(Some(PERIOD)))
        .on_timer(|conn, _| conn.set_timer(Some(PERIOD)).unwrap());
    let server = serve(config.options().idle_timeout(SHORT), handler);
    let begun = Instant::now();
    let client = server.client();
    expect_end(&client);
    assert!(begun.elapsed() >= SHORT, "it ended after {:?}", begun.elapsed());
    assert_eq!(server.expect(&client, Callback::Close).value, TIMED_OUT);
    assert!(calls(&server.stop_and_check(), port_of(&client)) > 0);
}

fn a_timer_of_a_closing_connection_is_called(config: Config) {
    let handler = TestHandler::echo()
        .on_data(|conn, _, _| {
            keep_small(conn);
            conn.write(&[0; 500_000]).unwrap();
            conn.close();
            conn.set_timer(Some(SHORT)).unwrap();
        })
        .on_timer(|conn, _| conn.abort());
    let server = serve(config.options(), handler);
    let mut client = small(server.address());
    client.write_all(b"go").unwrap();
    assert_eq!(server.expect(&client, Callback::Close).value, i64::from(libc::ECONNABORTED));
    server.stop_and_check();
}

fn a_panic_in_on_timer_ends_the_connection_alone(config: Config) {
    let handler = TestHandler::echo()
        .on_data(|conn, _, data| {
            conn.write(data).unwrap();
            if data == b"set" {
                conn.set_timer(Some(PERIOD)).unwrap();
            }
        })
        .on_timer(|_, _| panic!("as the test wants it"));
    let server = serve(config.options(), handler);
    let (client, witness) = (server.client(), server.client());
    exchange(&client, b"set");
    assert_eq!(server.expect(&client, Callback::Close).value, i64::from(libc::ENOTRECOVERABLE));
    exchange(&witness, b"still here");
    drop(witness);
    server.stop_and_check();
}

fn many_connections_have_heartbeats(config: Config) {
    const CLIENTS: usize = 50;
    let handler = TestHandler::echo().on_open(|conn, _| conn.set_timer(Some(PERIOD))).on_timer(|conn, _| {
        conn.write(b".").unwrap();
        if conn.is_stopping() {
            conn.close();
        } else {
            conn.set_timer(Some(PERIOD)).unwrap();
        }
    });
    let server = serve(config.options().drain(None), handler);
    let clients: Vec<_> = (0..CLIENTS).map(|_| server.client()).collect();
    for client in &clients {
        assert_eq!(read(client, 10), [b'.'; 10]);
    }
    server.stop(None);
    for client in &clients {
        assert!(read_to_end(client).iter().all(|&byte| byte == b'.'));
    }
    drop(clients);
    assert_eq!(server.wait_for_end().errno, 0);
}

/// The answer to one message comes before the next, and each is read at the end of another wait.
fn a_thrifty_server_s_waits_last_their_time(config: Config) {
    let min_wait = Duration::from_millis(5);
    let options = config.options().wait_policy(WaitPolicy::Thrifty { min_wait });
    let server = serve(options, TestHandler::echo());
    let client = server.client();
    let begun = Instant::now();
    (0..5).for_each(|_| exchange(&client, b"message"));
    assert!(begun.elapsed() >= 4 * min_wait, "five came after {:?}", begun.elapsed());
    drop(client);
    server.stop_and_check();
}
