//! A peer that does not read gets to send no more, and memory does not grow.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use omnipoll::{Conn, ConnId, Model, ServerHandle};

use crate::client::{end, expect_end, keep_small, pattern, push, read, read_to_end, send_meanwhile, small};
use crate::config::Config;
use crate::log::Callback;
use crate::running_server::{port_of, serve, serve_on, RunningServer};
use crate::suite::Suite;
use crate::support::fds;
use crate::test_handler::TestHandler;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(nothing_is_read_above_the_high_water_mark);
    suite.for_each_config(on_drain_is_called_once_per_crossing);
    suite.for_each_config(on_drain_may_fill_the_queue_again);
    suite.for_each_config(below_the_high_water_mark_on_drain_is_not_called);
    suite.for_each_config(a_queue_filled_by_another_thread_drains_with_on_drain);
    suite.for_models(
        &[Model::Reactor, Model::Cores, Model::Thread],
        a_queue_filled_by_broadcasts_drains_with_on_drain,
    );
    suite.for_models(&[Model::Reactor, Model::Cores, Model::Thread], a_proxy_propagates_back_pressure);
    suite.for_each_config(a_peer_that_does_not_read_can_send_little);
    suite.for_each_config(a_paused_peer_can_send_little);
    suite.for_each_config(a_paused_connection_still_sends);
    suite.for_each_config(a_pause_within_a_callback_holds_the_rest_back);
}

const LOW: usize = 10_000;
const HIGH: usize = 40_000;

/// What was logged of a client's connection, in order, without its beginning.
fn story(server: &crate::running_server::RunningServer, port: u16) -> Vec<Callback> {
    server.log.of(port).iter().map(|entry| entry.callback).skip(1).collect()
}

fn nothing_is_read_above_the_high_water_mark(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, data| {
        keep_small(conn);
        if data == b"fill" {
            conn.write(&[0; 500_000]).unwrap();
        } else {
            conn.write(data).unwrap();
        }
    });
    let server = serve(config.options().water_marks(LOW, HIGH), handler);
    let mut client = small(server.address());
    client.write_all(b"fill").unwrap();
    // The queue is above the mark now, and so it is when this arrives.
    read(&client, 1);
    client.write_all(b"more").unwrap();
    end(&client);
    assert_eq!(read(&client, 499_999 + 4)[499_999..], *b"more");
    expect_end(&client);
    let port = port_of(&client);
    server.expect(&client, Callback::Close);
    let drained = server.expect(&client, Callback::Drain);
    assert!(drained.value as usize <= LOW, "{} bytes were left", drained.value);
    use Callback::{Close, Data, Drain, End};
    assert_eq!(story(&server, port), [Data, Drain, Data, End, Close]);
    server.stop_and_check();
}

fn on_drain_is_called_once_per_crossing(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, _| {
        keep_small(conn);
        // What follows is still the same crossing.
        for length in [500_000, 1, 20_000] {
            conn.write(&vec![0; length]).unwrap();
        }
    });
    let server = serve(config.options().water_marks(LOW, HIGH), handler);
    let client = small(server.address());
    expect_one_drain_for_each_answer(server, client, 520_001);
}

/// The client asks for one answer of that length after another, each of which crosses the high mark.
fn expect_one_drain_for_each_answer(server: RunningServer, mut client: TcpStream, length: usize) {
    const TIMES: usize = 5;
    for turn in 1..=TIMES {
        client.write_all(b"f").unwrap();
        read(&client, length);
        let port = port_of(&client);
        server.log.wait_for("a drain", |entries| {
            let drains =
                entries.iter().filter(|entry| entry.port == port && entry.callback == Callback::Drain);
            (drains.count() == turn).then_some(())
        });
    }
    end(&client);
    expect_end(&client);
    server.expect(&client, Callback::Close);
    let drains = server.log.all().iter().filter(|entry| entry.callback == Callback::Drain).count();
    assert_eq!(drains, TIMES);
    server.stop_and_check();
}

fn on_drain_may_fill_the_queue_again(config: Config) {
    // A source that writes whenever there is room again, as one sends what is too long to keep in memory.
    let fill = |conn: &mut Conn<'_>| while conn.write(&[8; 10_000]).unwrap() <= HIGH {};
    let drains = std::sync::Mutex::new(std::collections::HashMap::new());
    let handler = TestHandler::echo()
        .on_data(move |conn, _, _| {
            keep_small(conn);
            fill(conn);
        })
        .on_drain(move |conn, _| {
            let mut drains = drains.lock().unwrap();
            let count = drains.entry(conn.id()).or_insert(0);
            *count += 1;
            match *count {
                20 => conn.close(),
                _ => fill(conn),
            }
        });
    let server = serve(config.options().water_marks(LOW, HIGH), handler);
    let mut client = small(server.address());
    client.write_all(b"go").unwrap();
    let length = read_to_end(&client).len();
    assert!(length >= 20 * HIGH, "only {length} bytes");
    end(&client);
    assert_eq!(server.expect(&client, Callback::Close).value, 0);
    server.stop_and_check();
}

fn below_the_high_water_mark_on_drain_is_not_called(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, log, _| {
        keep_small(conn);
        while conn.write(&[0; 1000]).unwrap() == 0 {}
        let room = HIGH - conn.queued();
        conn.write(&vec![0; room]).unwrap();
        log.value(conn.queued());
    });
    let server = serve(config.options().water_marks(LOW, HIGH), handler);
    let mut client = small(server.address());
    client.write_all(b"f").unwrap();
    assert_eq!(server.values(&client, 1), [HIGH as i64]);
    end(&client);
    read_to_end(&client);
    server.expect(&client, Callback::Close);
    use Callback::{Close, Data, End, Value};
    assert_eq!(story(&server, port_of(&client)), [Data, Value, End, Close]);
    server.stop_and_check();
}

fn a_queue_filled_by_another_thread_drains_with_on_drain(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, _| {
        let id = conn.id();
        // Here and in another thread alike; the kernel takes all of it at once.
        assert_eq!(id.write(&[0; HIGH]).unwrap(), HIGH);
        std::thread::spawn(move || id.write(&[0; HIGH + 1]).unwrap()).join().unwrap();
    });
    let server = serve(config.options().water_marks(LOW, HIGH), handler);
    let client = server.client();
    expect_one_drain_for_each_answer(server, client, 2 * HIGH + 1);
}

fn a_queue_filled_by_broadcasts_drains_with_on_drain(config: Config) {
    let at: Arc<OnceLock<ServerHandle>> = Arc::default();
    let server = at.clone();
    let handler = TestHandler::echo().on_open(|conn, _| conn.join("all")).on_data(move |_, _, _| {
        let server = server.get().unwrap();
        // The kernel takes all of it at once, when the loop comes to it.
        assert_eq!(server.broadcast(&[0; HIGH]).unwrap(), 1);
        assert_eq!(server.broadcast_to("all", &[0], None).unwrap(), 1);
    });
    let server = serve_on(&["127.0.0.1:0"], config.options().water_marks(LOW, HIGH), handler, |handle| {
        let _ = at.set(handle.clone());
    });
    let client = server.client();
    expect_one_drain_for_each_answer(server, client, HIGH + 1);
}

fn a_proxy_propagates_back_pressure(config: Config) {
    // The first client to come is written what the second one sends.
    const LENGTH: usize = 8 << 20;
    let ids: Arc<(OnceLock<ConnId>, OnceLock<ConnId>)> = Arc::default();
    let (opened, drained) = (ids.clone(), ids.clone());
    let handler = TestHandler::echo()
        .on_open(move |conn, log| {
            let (sink, source) = &*opened;
            if sink.set(conn.id()).is_err() {
                source.set(conn.id()).unwrap();
            }
            log.value(0);
            Ok(())
        })
        .on_data(move |conn, _, data| {
            if ids.0.get().unwrap().write(data).unwrap() > HIGH {
                conn.pause();
            }
        })
        .on_drain(move |_, _| drained.1.get().unwrap().resume().unwrap())
        .on_end(|conn, _| conn.close());
    let server = serve(config.options().water_marks(LOW, HIGH), handler);
    let sink = server.client();
    // Another worker may open the second client: not before the first one's id is set.
    server.expect(&sink, Callback::Value);
    let source = server.client();
    let sending = send_meanwhile(&source, pattern(3, LENGTH));
    assert!(read(&sink, LENGTH) == pattern(3, LENGTH));
    sending.join().unwrap();
    drop((sink, source));
    server.stop_and_check();
}

/// More than the kernel's buffers of both sides and the server's queue hold together.
const BOUND: usize = 1 << 20;

fn a_peer_that_does_not_read_can_send_little(config: Config) {
    let handler = TestHandler::echo()
        .on_open(|conn, _| {
            keep_small(conn);
            Ok(())
        })
        .on_data(|conn, log, data| {
            conn.write(data).unwrap();
            // One read may be above the mark, and no second.
            assert!(conn.queued() <= HIGH + 64 * 1024, "{} bytes are queued", conn.queued());
            log.value(conn.queued());
        });
    let server = serve(config.options().water_marks(LOW, HIGH), handler);
    let client = small(server.address());
    let pushed = push(&client, 4 * BOUND);
    assert!(pushed < BOUND, "{pushed} bytes were taken from a client that reads nothing");
    // It all comes back, and everything continues.
    assert_eq!(read(&client, pushed), vec![0; pushed]);
    let sending = send_meanwhile(&client, pattern(9, 100_000));
    assert!(read(&client, 100_000) == pattern(9, 100_000));
    sending.join().unwrap();
    end(&client);
    expect_end(&client);
    assert_eq!(server.expect(&client, Callback::Close).value, 0);
    server.stop_and_check();
}

/// A pipe through which a test lets a thread of the handler continue.
fn gate() -> (Arc<OwnedFd>, std::fs::File) {
    let (reader, writer) = fds::pipe();
    crate::support::sys::set_blocking(&reader);
    (Arc::new(reader.into()), writer)
}

/// Waits in front of a gate.
fn pass(gate: &OwnedFd) {
    let mut gate = std::fs::File::from(gate.try_clone().expect("dup"));
    gate.read_exact(&mut [0]).expect("the gate is opened");
}

fn a_paused_peer_can_send_little(config: Config) {
    let (gate, mut key) = gate();
    let handler = TestHandler::echo()
        .on_open(move |conn, _| {
            keep_small(conn);
            conn.pause();
            assert!(conn.is_paused());
            let (id, gate) = (conn.id(), gate.clone());
            std::thread::spawn(move || {
                pass(&gate);
                id.resume().unwrap();
            });
            Ok(())
        })
        .on_data(|conn, log, data| {
            assert!(!conn.is_paused());
            log.value(data.len());
        });
    let server = serve(config.options(), handler);
    let client = small(server.address());
    let pushed = push(&client, 4 * BOUND);
    assert!(pushed < BOUND, "{pushed} bytes were taken while paused");
    assert_eq!(story(&server, port_of(&client)), [], "something was read while paused");
    key.write_all(b"!").unwrap();
    end(&client);
    expect_end(&client);
    assert_eq!(server.expect(&client, Callback::Close).value, 0);
    assert_eq!(server.values(&client, 1).iter().sum::<i64>(), pushed as i64);
    server.stop_and_check();
}

fn a_paused_connection_still_sends(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, _| {
        keep_small(conn);
        conn.pause();
        conn.write(&pattern(2, 500_000)).unwrap();
        conn.id().post(1).unwrap();
    });
    // Posts come, too; and one resumes it.
    let handler = handler.on_post(|conn, _, _| {
        assert!(conn.is_paused());
        if conn.queued() == 0 {
            conn.resume();
        } else {
            conn.id().post(1).unwrap();
        }
    });
    let server = serve(config.options(), handler);
    let mut client = small(server.address());
    client.write_all(b"go").unwrap();
    end(&client);
    assert!(read_to_end(&client) == pattern(2, 500_000));
    assert_eq!(server.expect(&client, Callback::Close).value, 0);
    server.stop_and_check();
}

fn a_pause_within_a_callback_holds_the_rest_back(config: Config) {
    let (gate, mut key) = gate();
    let handler = TestHandler::echo().on_data(move |conn, log, data| {
        log.value(data[0]);
        if data[0] == 1 {
            conn.pause();
            let (id, gate) = (conn.id(), gate.clone());
            std::thread::spawn(move || {
                pass(&gate);
                id.resume().unwrap();
            });
        }
        let _ = conn.write(data);
    });
    let server = serve(config.options(), handler);
    let mut client = server.client();
    client.write_all(&[1]).unwrap();
    read(&client, 1);
    // What others are served meanwhile goes through the same loop, later than this.
    client.write_all(&[2]).unwrap();
    for _ in 0..20 {
        crate::client::exchange(&server.client(), b"others");
    }
    assert_eq!(server.values(&client, 1), [1]);
    key.write_all(b"!").unwrap();
    read(&client, 1);
    assert_eq!(server.values(&client, 2), [1, 2]);
    drop(client);
    server.stop_and_check();
}
