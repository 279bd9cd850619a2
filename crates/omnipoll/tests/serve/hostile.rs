//! Clients that mean harm: what they can make a server hold is bounded, to the byte, and the others
//! are served throughout.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use omnipoll::ConnId;

use crate::acts::Acts;
use crate::client::{exchange, keep_small, push, read, reset, small};
use crate::log::What;
use crate::served::{port_of, serve, Served};
use crate::suite::Suite;
use crate::support::expect::LONG;
use crate::way::Way;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.in_each_way(the_silent_hold_no_more_than_the_limit);
    suite.in_each_way(files_for_the_silent_hold_few_descriptors);
    suite.in_each_way(posts_have_a_bound);
    suite.in_each_way(who_is_paused_is_taken_little_from);
    suite.in_each_way(those_who_send_a_byte_at_a_time_hold_nobody_up);
    suite.in_each_way(a_flood_of_resets_leaves_nothing_behind);
}

const PIECE: usize = 1000;

fn the_silent_hold_no_more_than_the_limit(way: Way) {
    const LIMIT: usize = 256 << 10;
    const CLIENTS: usize = 24;
    let acts = Acts::echo().on_data(|conn, note, data| match data {
        b"fill" => {
            keep_small(conn);
            let refused = loop {
                match conn.write(&[7; PIECE]) {
                    Ok(queued) if queued < 3 * LIMIT => {}
                    outcome => break outcome.err().and_then(|error| error.raw_os_error()),
                }
            };
            assert_eq!(refused, Some(libc::ENOBUFS));
            note.say(0);
        }
        b"held" => note.say(conn.queued()),
        _ => _ = conn.write(data).unwrap(),
    });
    // Above the high mark they would not be heard.
    let options = way.options().water_marks(1 << 20, 1 << 30).total_queue_limit(LIMIT).queue_limit(4 * LIMIT);
    let served = serve(options, acts);
    let good = served.client();
    exchange(&good, b"before");
    let silent: Vec<TcpStream> = (0..CLIENTS).map(|_| small(served.address())).collect();
    let say = |word: &[u8], times| {
        for mut client in &silent {
            client.write_all(word).unwrap();
            served.said(client, times);
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
        let entries = served.log.of(port_of(client));
        let last = entries.iter().rfind(|entry| entry.what == What::Said).unwrap();
        *held.entry(last.process).or_insert(0) += last.value as usize;
    }
    println!("{way:?}: {CLIENTS} silent clients hold {:?} bytes of {LIMIT}", held.values());
    assert!(held.values().all(|&held| held <= LIMIT), "{held:?}");
    exchange(&good, &[1; PIECE]);
    exchange(&served.client(), &[2; PIECE]);
    drop((good, silent));
    served.ends_well();
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

fn files_for_the_silent_hold_few_descriptors(way: Way) {
    const MOST: i64 = 16;
    let acts = Acts::echo().on_data(|conn, note, data| {
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
        note.say(taken);
    });
    let served = serve(way.options(), acts);
    let good = served.client();
    let silent: Vec<TcpStream> = (0..4).map(|_| small(served.address())).collect();
    // From here on nobody else's descriptors are opened.
    silent.iter().for_each(|client| exchange(client, b"served"));
    for mut client in &silent {
        client.write_all(b"f").unwrap();
        assert!((MOST..=MOST + 4).contains(&served.said(client, 1)[0]));
        client.write_all(b"f").unwrap();
        exchange(&good, b"meanwhile");
    }
    for client in &silent {
        let entries = served.log.of(port_of(client));
        assert_eq!(entries.iter().filter(|entry| entry.what == What::Data).count(), 2);
    }
    drop((good, silent));
    served.ends_well();
}

fn posts_have_a_bound(way: Way) {
    const MOST: i64 = 16 * 1024;
    let acts = Acts::echo().on_data(|conn, note, data| {
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
        note.say(taken);
    });
    let acts = acts.on_post(|conn, _, value| {
        if value == MOST - 1 {
            // There is room again, and the last call was to resume.
            conn.id().post(MOST).unwrap();
        }
    });
    let served = serve(way.options(), acts);
    let mut client = served.client();
    client.write_all(b"flood").unwrap();
    assert_eq!(served.said(&client, 1), [MOST]);
    served.log.wait_for("the last post", |entries| {
        entries.iter().any(|entry| entry.what == What::Post && entry.value == MOST).then_some(())
    });
    exchange(&client, b"hello");
    let posts = served.log.of(port_of(&client)).into_iter().filter(|entry| entry.what == What::Post);
    assert!(posts.map(|entry| entry.value).eq(0..=MOST));
    drop(client);
    served.ends_well();
}

fn who_is_paused_is_taken_little_from(way: Way) {
    const MOST: u64 = 128 << 10;
    const CLIENTS: u64 = 3;
    let acts = Acts::echo().on_data(|conn, _, data| match data[0] {
        0 => {
            conn.pause();
            // While it is paused, nothing else tells that its client has gone.
            conn.set_idle_timeout(Some(Duration::from_secs(2)));
        }
        _ => _ = conn.write(data).unwrap(),
    });
    let mut served = serve(way.options(), acts);
    let good = served.client();
    exchange(&good, b"before");
    let paused: Vec<TcpStream> = (0..CLIENTS).map(|_| served.client()).collect();
    for client in &paused {
        push(client, 4 << 20);
        exchange(&good, b"meanwhile");
    }
    let of_good = b"before".len() as u64 + CLIENTS * b"meanwhile".len() as u64;
    let taken = served.stats().total.bytes_in - of_good;
    println!("{way:?}: {CLIENTS} paused clients had {taken} bytes taken from them");
    assert!(taken <= CLIENTS * MOST, "{taken} bytes were taken from {CLIENTS} paused clients");
    drop((good, paused));
    served.ends_well();
}

fn those_who_send_a_byte_at_a_time_hold_nobody_up(way: Way) {
    const CLIENTS: usize = 10;
    const MESSAGE: &[u8] = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n";
    // As a handler has it who waits for a whole message: what came is kept, and answered at its end.
    let message = Mutex::new(HashMap::<ConnId, Vec<u8>>::new());
    let acts = Acts::echo().on_data(move |conn, _, data| {
        let mut messages = message.lock().unwrap();
        let message = messages.entry(conn.id()).or_default();
        message.extend_from_slice(data);
        if message.ends_with(b"\n\r\n") {
            conn.write(&std::mem::take(message)).unwrap();
        }
    });
    let mut served = serve(way.options(), acts);
    let good = served.client();
    let slow: Vec<TcpStream> = (0..CLIENTS).map(|_| served.client()).collect();
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
    served.until("every byte is counted once", |stats| {
        (stats.total.bytes_in, stats.total.bytes_out) == (bytes, bytes)
    });
    drop((good, slow));
    served.ends_well();
}

fn a_flood_of_resets_leaves_nothing_behind(way: Way) {
    const EACH: usize = 60;
    let acts = Acts::echo().on_data(|conn, note, data| match data {
        b"descriptors" => note.say(descriptors()),
        // Some are reset with bytes queued for them, which can't be sent.
        _ => drop(conn.write(&data.repeat(1000))),
    });
    let mut served = serve(way.options(), acts);
    let good = served.client();
    let held = |served: &Served, times: usize| {
        (&good).write_all(b"descriptors").unwrap();
        served.said(&good, times)[times - 1]
    };
    let flood = |served: &mut Served, times: u64| {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for turn in 0..EACH {
                        let mut client = small(served.address());
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
        served
            .until("all have come and gone", |stats| (stats.total.accepted, stats.total.active) == (all, 1));
    };
    // Every worker has all of its own that it ever needs once it has served somebody.
    flood(&mut served, 1);
    let before = held(&served, 1);
    flood(&mut served, 2);
    // What a client's thread had is closed a little after the client was counted.
    let end = Instant::now() + LONG;
    for times in 2.. {
        let now = held(&served, times);
        if now <= before {
            break;
        }
        assert!(Instant::now() < end, "{now} descriptors are left, instead of {before}");
    }
    drop(good);
    served.ends_well();
}
