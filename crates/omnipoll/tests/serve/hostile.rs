//! Hostile clients: what they can make a server hold is bounded, to the byte, and the others
//! are served throughout.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use omnipoll::ConnId;

use crate::client::{exchange, keep_small, push, read, reset, small};
use crate::config::Config;
use crate::log::Callback;
use crate::running_server::{port_of, serve, RunningServer};
use crate::suite::Suite;
use crate::support::expect::LONG;
use crate::test_handler::TestHandler;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(clients_that_do_not_read_hold_no_more_than_the_limit);
    suite.for_each_config(files_for_clients_that_do_not_read_hold_few_descriptors);
    suite.for_each_config(posts_are_bounded);
    suite.for_each_config(little_is_received_from_a_paused_client);
    suite.for_each_config(clients_that_send_a_byte_at_a_time_delay_no_other);
    suite.for_each_config(a_flood_of_resets_leaks_nothing);
}

const PIECE: usize = 1000;

fn clients_that_do_not_read_hold_no_more_than_the_limit(config: Config) {
    const LIMIT: usize = 256 << 10;
    const CLIENTS: usize = 24;
    let handler = TestHandler::echo().on_data(|conn, log, data| match data {
        b"fill" => {
            keep_small(conn);
            let refused = loop {
                match conn.write(&[7; PIECE]) {
                    Ok(queued) if queued < 3 * LIMIT => {}
                    outcome => break outcome.err().and_then(|error| error.raw_os_error()),
                }
            };
            assert_eq!(refused, Some(libc::ENOBUFS));
            log.value(0);
        }
        b"held" => log.value(conn.queued()),
        _ => _ = conn.write(data).unwrap(),
    });
    // Above the high-water mark they would not be read.
    let options =
        config.options().water_marks(1 << 20, 1 << 30).total_queue_limit(LIMIT).queue_limit(4 * LIMIT);
    let server = serve(options, handler);
    let good = server.client();
    exchange(&good, b"before");
    let silent: Vec<TcpStream> = (0..CLIENTS).map(|_| small(server.address())).collect();
    let say = |word: &[u8], times| {
        for mut client in &silent {
            client.write_all(word).unwrap();
            server.values(client, times);
            exchange(&good, b"meanwhile");
        }
    };
    say(b"fill", 1);
    // Some buffers of the kernel may have grown meanwhile.
    say(b"fill", 2);
    say(b"held", 3);
    // Limits are those of a process.
    let mut held = HashMap::new();
    for client in &silent {
        let entries = server.log.of(port_of(client));
        let last = entries.iter().rfind(|entry| entry.callback == Callback::Value).unwrap();
        *held.entry(last.process).or_insert(0) += last.value as usize;
    }
    println!("{config:?}: {CLIENTS} silent clients hold {:?} bytes of {LIMIT}", held.values());
    assert!(held.values().all(|&held| held <= LIMIT), "{held:?}");
    exchange(&good, &[1; PIECE]);
    exchange(&server.client(), &[2; PIECE]);
    drop((good, silent));
    server.stop_and_check();
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

fn files_for_clients_that_do_not_read_hold_few_descriptors(config: Config) {
    const MOST: i64 = 16;
    let handler = TestHandler::echo().on_data(|conn, log, data| {
        if data[0] != b'f' {
            conn.write(data).unwrap();
            return;
        }
        keep_small(conn);
        let file = File::open("/proc/self/exe").expect("the program");
        let before = descriptors();
        let mut taken = 0;
        let error = loop {
            match conn.send_file(&file, 0, 1 << 20) {
                Ok(()) => taken += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
        assert!(descriptors() <= before + MOST as usize, "{} of {before}", descriptors());
        log.value(taken);
    });
    let server = serve(config.options(), handler);
    let good = server.client();
    let silent: Vec<TcpStream> = (0..4).map(|_| small(server.address())).collect();
    // From here on no other descriptors are opened.
    silent.iter().for_each(|client| exchange(client, b"served"));
    for mut client in &silent {
        client.write_all(b"f").unwrap();
        assert!((MOST..=MOST + 4).contains(&server.values(client, 1)[0]));
        client.write_all(b"f").unwrap();
        exchange(&good, b"meanwhile");
    }
    for client in &silent {
        let entries = server.log.of(port_of(client));
        assert_eq!(entries.iter().filter(|entry| entry.callback == Callback::Data).count(), 2);
    }
    drop((good, silent));
    server.stop_and_check();
}

fn posts_are_bounded(config: Config) {
    const MOST: i64 = 16 * 1024;
    let handler = TestHandler::echo().on_data(|conn, log, data| {
        if data != b"flood" {
            conn.write(data).unwrap();
            return;
        }
        // The loop is busy: it is here.
        let id = conn.id();
        let mut taken = 0;
        let error = loop {
            match id.post(taken) {
                Ok(()) => taken += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
        assert_eq!(id.write(b"x").unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
        for _ in 0..10_000 {
            id.pause().unwrap();
            id.resume().unwrap();
        }
        log.value(taken);
    });
    let handler = handler.on_post(|conn, _, value| {
        if value == MOST - 1 {
            // There is room again, and the last call was to resume.
            conn.id().post(MOST).unwrap();
        }
    });
    let server = serve(config.options(), handler);
    let mut client = server.client();
    client.write_all(b"flood").unwrap();
    assert_eq!(server.values(&client, 1), [MOST]);
    server.log.wait_for("the last post", |entries| {
        entries.iter().any(|entry| entry.callback == Callback::Post && entry.value == MOST).then_some(())
    });
    exchange(&client, b"hello");
    let posts = server.log.of(port_of(&client)).into_iter().filter(|entry| entry.callback == Callback::Post);
    assert!(posts.map(|entry| entry.value).eq(0..=MOST));
    drop(client);
    server.stop_and_check();
}

fn little_is_received_from_a_paused_client(config: Config) {
    const MOST: u64 = 128 << 10;
    const CLIENTS: u64 = 3;
    let handler = TestHandler::echo().on_data(|conn, _, data| match data[0] {
        0 => {
            conn.pause();
            // While it is paused, nothing else shows that its client has gone.
            conn.set_idle_timeout(Some(Duration::from_secs(2)));
        }
        _ => _ = conn.write(data).unwrap(),
    });
    let mut server = serve(config.options(), handler);
    let good = server.client();
    exchange(&good, b"before");
    let paused: Vec<TcpStream> = (0..CLIENTS).map(|_| server.client()).collect();
    for client in &paused {
        push(client, 4 << 20);
        exchange(&good, b"meanwhile");
    }
    let of_good = b"before".len() as u64 + CLIENTS * b"meanwhile".len() as u64;
    let taken = server.stats().total.bytes_in - of_good;
    println!("{config:?}: {CLIENTS} paused clients had {taken} bytes taken from them");
    assert!(taken <= CLIENTS * MOST, "{taken} bytes were taken from {CLIENTS} paused clients");
    drop((good, paused));
    server.stop_and_check();
}

fn clients_that_send_a_byte_at_a_time_delay_no_other(config: Config) {
    const CLIENTS: usize = 10;
    const MESSAGE: &[u8] = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n";
    // As a handler that waits for a whole message has it: what came is kept, and answered at its end.
    let message = Mutex::new(HashMap::<ConnId, Vec<u8>>::new());
    let handler = TestHandler::echo().on_data(move |conn, _, data| {
        let mut messages = message.lock().unwrap();
        let message = messages.entry(conn.id()).or_default();
        message.extend_from_slice(data);
        if message.ends_with(b"\n\r\n") {
            conn.write(&std::mem::take(message)).unwrap();
        }
    });
    let mut server = serve(config.options(), handler);
    let good = server.client();
    let slow: Vec<TcpStream> = (0..CLIENTS).map(|_| server.client()).collect();
    for byte in MESSAGE.chunks(1) {
        for mut client in &slow {
            client.write_all(byte).unwrap();
        }
        exchange(&good, MESSAGE);
    }
    for client in &slow {
        assert_eq!(read(client, MESSAGE.len()), MESSAGE);
    }
    let bytes = (MESSAGE.len() * (MESSAGE.len() + CLIENTS)) as u64;
    server.until("every byte is counted once", |stats| {
        (stats.total.bytes_in, stats.total.bytes_out) == (bytes, bytes)
    });
    drop((good, slow));
    server.stop_and_check();
}

fn a_flood_of_resets_leaks_nothing(config: Config) {
    const EACH: usize = 60;
    let handler = TestHandler::echo().on_data(|conn, log, data| match data {
        b"descriptors" => log.value(descriptors()),
        // Some are reset with bytes queued for them, which can't be sent.
        _ => drop(conn.write(&data.repeat(1000))),
    });
    let mut server = serve(config.options(), handler);
    let good = server.client();
    let held = |server: &RunningServer, times: usize| {
        (&good).write_all(b"descriptors").unwrap();
        server.values(&good, times)[times - 1]
    };
    let flood = |server: &mut RunningServer, times: u64| {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for turn in 0..EACH {
                        let mut client = small(server.address());
                        if turn % 3 > 0 {
                            client.write_all(&vec![b'x'; turn % 3 * 100]).unwrap();
                        }
                        reset(client);
                    }
                });
            }
            for _ in 0..EACH {
                (&good).write_all(b"?").unwrap();
                assert_eq!(read(&good, 1000), b"?".repeat(1000));
            }
        });
        let all = times * 2 * EACH as u64 + 1;
        server
            .until("all have come and gone", |stats| (stats.total.accepted, stats.total.active) == (all, 1));
    };
    // Every worker has all of its own that it ever needs once it has served a client.
    flood(&mut server, 1);
    let before = held(&server, 1);
    flood(&mut server, 2);
    // What a client's thread had is closed a little after the client was counted.
    let end = Instant::now() + LONG;
    for times in 2.. {
        let now = held(&server, times);
        if now <= before {
            break;
        }
        assert!(Instant::now() < end, "{now} descriptors are left, instead of {before}");
    }
    drop(good);
    server.stop_and_check();
}
