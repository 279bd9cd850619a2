//! What other threads do with a connection, by its id.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use omnipoll::ConnId;

use crate::client::{end, exchange, expect_end, expect_reset, keep_small, read, read_to_end, small};
use crate::config::Config;
use crate::log::Callback;
use crate::running_server::serve;
use crate::suite::Suite;
use crate::test_handler::TestHandler;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(other_threads_write_and_post_and_close);
    suite.for_each_config(other_threads_abort);
    suite.for_each_config(other_threads_share_the_limit);
    suite.for_each_config(the_id_of_a_closed_connection_is_stale);
    suite.for_each_config(a_closing_connection_accepts_no_more);
    suite.for_each_config(posts_arrive_in_order_and_completely);
    suite.for_each_config(no_id_is_used_twice);
}

fn other_threads_write_and_post_and_close(config: Config) {
    let handler = TestHandler::echo()
        .on_data(|conn, _, data| {
            let (id, data) = (conn.id(), data.to_vec());
            assert_eq!(ConnId::from_number(id.number()), id);
            std::thread::spawn(move || {
                for byte in data {
                    id.write(&[byte]).unwrap();
                }
                id.post(5).unwrap();
            });
        })
        .on_post(|conn, _, value| {
            assert_eq!(value, 5);
            conn.write(b"!").unwrap();
            let id = conn.id();
            std::thread::spawn(move || {
                assert!(id.is_open());
                id.write(b"?").unwrap();
                id.close().unwrap();
            });
        });
    let server = serve(config.options(), handler);
    let mut client = server.client();
    client.write_all(b"hello").unwrap();
    assert_eq!(read_to_end(&client), b"hello!?");
    end(&client);
    assert_eq!(server.expect(&client, Callback::Close).value, 0);
    server.stop_and_check();
}

fn other_threads_abort(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, _| {
        keep_small(conn);
        conn.write(&[0; 500_000]).unwrap();
        conn.close();
        let id = conn.id();
        // One that closes can still be aborted.
        std::thread::spawn(move || id.abort().unwrap());
    });
    let server = serve(config.options(), handler);
    let mut client = small(server.address());
    client.write_all(b"go").unwrap();
    // As the client does not read there is no other end to it.
    assert_eq!(server.expect(&client, Callback::Close).value, libc::ECONNABORTED.into());
    expect_reset(&client);
    server.stop_and_check();
}

fn other_threads_share_the_limit(config: Config) {
    const LIMIT: usize = 200_000;
    let handler = TestHandler::echo().on_data(|conn, log, _| {
        keep_small(conn);
        let id = conn.id();
        while conn.write(&[0; 1000]).unwrap() == 0 {}
        // A ring does not wake other threads for a little.
        conn.write(&[0; 50_000]).unwrap();
        let room = LIMIT - conn.queued();
        // It waits for the loop, which is here.
        assert_eq!(id.write(&vec![0; room]).unwrap(), LIMIT);
        assert_eq!(id.write(&[0]).unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
        let refused = conn.write(&[0; 1000]).err().and_then(|error| error.raw_os_error());
        log.value(refused.unwrap_or(0));
    });
    let server = serve(config.options().queue_limit(LIMIT), handler);
    let mut client = small(server.address());
    client.write_all(b"go").unwrap();
    assert_eq!(server.values(&client, 1), [libc::ENOBUFS.into()]);
    end(&client);
    assert!(read_to_end(&client).iter().all(|&byte| byte == 0));
    assert_eq!(server.expect(&client, Callback::Close).value, 0);
    server.stop_and_check();
}

/// The number of the error of each call on this id.
fn errors_of(id: ConnId) -> Vec<i32> {
    let results = [id.write(b"x").map(drop), id.post(1), id.close(), id.pause(), id.resume(), id.abort()];
    results.into_iter().map(|result| result.err().map_or(0, |e| e.raw_os_error().unwrap_or(-1))).collect()
}

fn the_id_of_a_closed_connection_is_stale(config: Config) {
    let handler = TestHandler::echo().on_close(|conn, log| {
        let (id, log) = (conn.id(), log.clone());
        // It must outlive the loop under THREAD, and the process under FORK.
        let asking = std::thread::spawn(move || {
            while id.is_open() {
                std::thread::yield_now();
            }
            for error in errors_of(id) {
                log.value(error);
            }
        });
        // A process ends with its client: it is given what is known already.
        drop(asking);
    });
    if config.has_process_per_client() {
        return the_process_of_a_closed_connection_ends(config);
    }
    let server = serve(config.options(), handler);
    let client = server.client();
    exchange(&client, b"hello");
    end(&client);
    expect_end(&client);
    assert_eq!(server.values(&client, 6), [libc::ESTALE as i64; 6]);
    for number in [0, 1, u64::MAX, 1 << 40] {
        assert_eq!(errors_of(ConnId::from_number(number)), [libc::ESTALE; 6], "{number}");
    }
    server.stop_and_check();
}

/// Under FORK no process is left that could ask.
fn the_process_of_a_closed_connection_ends(config: Config) {
    let server = serve(config.options(), TestHandler::echo());
    let client = server.client();
    exchange(&client, b"hello");
    let process = server.expect(&client, Callback::Open).process;
    end(&client);
    expect_end(&client);
    crate::process::until("the process has ended", || !crate::process::is_alive(process));
    server.stop_and_check();
}

fn a_closing_connection_accepts_no_more(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, log, data| {
        keep_small(conn);
        conn.write(&[0; 300_000]).unwrap();
        let id = conn.id();
        match data {
            b"close" => conn.close(),
            b"post" => id.close().unwrap(),
            _ => conn.shutdown(),
        }
        let log = log.clone();
        log.value(id.write(b"lost").err().map_or(0, |error| error.raw_os_error().unwrap_or(-1)));
    });
    let server = serve(config.options(), handler);
    for word in ["close", "post", "shutdown"] {
        let mut client = small(server.address());
        client.write_all(word.as_bytes()).unwrap();
        let said = server.values(&client, 1)[0] as i32;
        let all = read_to_end(&client);
        end(&client);
        assert_eq!(all, vec![0; 300_000], "{word}");
        // What will not be sent is not taken.
        assert!([libc::ESTALE, libc::EPIPE].contains(&said), "{word}: error {said}");
    }
    server.stop_and_check();
}

fn posts_arrive_in_order_and_completely(config: Config) {
    const THREADS: i64 = 4;
    const EACH: i64 = 500;
    let handler = TestHandler::echo()
        .on_data(|conn, _, _| {
            for thread in 0..THREADS {
                let id = conn.id();
                std::thread::spawn(move || (0..EACH).for_each(|n| id.post(thread << 32 | n).unwrap()));
            }
        })
        .on_post(|conn, _, value| {
            conn.write(&value.to_le_bytes()).unwrap();
        });
    let server = serve(config.options(), handler);
    let mut client = server.client();
    client.write_all(b"go").unwrap();
    let all = read(&client, (THREADS * EACH * 8) as usize);
    let mut next = [0; THREADS as usize];
    for word in all.chunks_exact(8) {
        let value = i64::from_le_bytes(word.try_into().unwrap());
        let thread = (value >> 32) as usize;
        assert_eq!(value & 0xffff_ffff, next[thread], "of thread {thread}");
        next[thread] += 1;
    }
    assert_eq!(next, [EACH; THREADS as usize]);
    drop(client);
    server.stop_and_check();
}

fn no_id_is_used_twice(config: Config) {
    // Slots are used again and again; a stale id must never reach the connection that has the slot now.
    const CLIENTS: usize = 6;
    let rounds = if config.model.forks() { 10 } else { 40 };
    let seen: Arc<Mutex<HashMap<u64, ()>>> = Arc::default();
    let stale = seen.clone();
    let handler = TestHandler::echo()
        .on_open(move |conn, _| {
            let id = conn.id().number();
            assert!(seen.lock().unwrap().insert(id, ()).is_none(), "{id} is used twice");
            let mine = id;
            let stale = stale.clone();
            std::thread::spawn(move || {
                let others: Vec<u64> = stale.lock().unwrap().keys().copied().collect();
                for other in others.into_iter().filter(|&other| other != mine) {
                    // The live ones get it, too, and know which one it is for.
                    let _ = ConnId::from_number(other).post(other as i64);
                }
            });
            Ok(())
        })
        .on_post(|conn, _, value| assert_eq!(conn.id().number() as i64, value, "a stranger's post"));
    let server = serve(config.options(), handler);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..rounds {
                    exchange(&server.client(), b"hello");
                }
            });
        }
    });
    let outcome = server.stop_and_check();
    let entries = outcome.log.wait_for("the end of all", |entries| {
        let closes = entries.iter().filter(|entry| entry.callback == Callback::Close).count();
        (closes == CLIENTS * rounds).then(|| entries.to_vec())
    });
    let opened = entries.iter().filter(|entry| entry.callback == Callback::Open);
    let ids: std::collections::HashSet<u64> = opened.map(|entry| entry.id).collect();
    assert_eq!(ids.len(), CLIENTS * rounds, "ids differ among processes, too");
    let failed = entries
        .iter()
        .find(|entry| entry.callback == Callback::Close && entry.value == i64::from(libc::ENOTRECOVERABLE));
    assert_eq!(failed, None, "a handler has panicked");
}
