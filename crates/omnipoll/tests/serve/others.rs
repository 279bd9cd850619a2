//! What other threads do with a connection, by its id; and with all of them.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use omnipoll::{ConnId, Model};

use crate::acts::Acts;
use crate::client::{end, exchange, expect_end, expect_reset, keep_small, read, read_to_end, small};
use crate::log::What;
use crate::served::serve;
use crate::suite::Suite;
use crate::way::Way;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.in_each_way(others_write_and_post_and_close);
    suite.in_each_way(others_abort);
    suite.in_each_way(others_share_the_limit);
    suite.in_each_way(one_who_is_gone_is_stale);
    suite.in_each_way(one_who_closes_takes_no_more);
    suite.in_each_way(posts_come_in_order_and_all);
    suite.in_each_way(no_id_is_used_twice);
    suite.in_ways_of(&[Model::Reactor, Model::Cores, Model::Thread], a_broadcast_reaches_everybody);
    suite.in_ways_of(&[Model::Fork, Model::Prefork], a_broadcast_is_refused);
    suite.in_ways_of(&[Model::Reactor, Model::Cores, Model::Thread], who_has_no_room_is_passed_over);
}

fn others_write_and_post_and_close(way: Way) {
    let acts = Acts::echo()
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
    let served = serve(way.options(), acts);
    let mut client = served.client();
    client.write_all(b"hello").unwrap();
    assert_eq!(read_to_end(&client), b"hello!?");
    end(&client);
    assert_eq!(served.expect(&client, What::Close).value, 0);
    served.ends_well();
}

fn others_abort(way: Way) {
    let acts = Acts::echo().on_data(|conn, _, _| {
        keep_small(conn);
        conn.write(&[0; 500_000]).unwrap();
        conn.close();
        let id = conn.id();
        // One that closes can still be aborted.
        std::thread::spawn(move || id.abort().unwrap());
    });
    let served = serve(way.options(), acts);
    let mut client = small(served.address());
    client.write_all(b"go").unwrap();
    // As nobody reads there is no other end to it.
    assert_eq!(served.expect(&client, What::Close).value, libc::ECONNABORTED.into());
    expect_reset(&client);
    served.ends_well();
}

fn others_share_the_limit(way: Way) {
    const LIMIT: usize = 200_000;
    let acts = Acts::echo().on_data(|conn, note, _| {
        keep_small(conn);
        let id = conn.id();
        while conn.write(&[0; 1000]).unwrap() == 0 {}
        // A ring does not tell others of a little.
        conn.write(&[0; 50_000]).unwrap();
        let room = LIMIT - conn.queued();
        // It waits for the loop, which is here.
        assert_eq!(id.write(&vec![0; room]).unwrap(), LIMIT);
        assert_eq!(id.write(&[0]).unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
        let refused = conn.write(&[0; 1000]).err().and_then(|error| error.raw_os_error());
        note.say(refused.unwrap_or(0));
    });
    let served = serve(way.options().queue_limit(LIMIT), acts);
    let mut client = small(served.address());
    client.write_all(b"go").unwrap();
    assert_eq!(served.said(&client, 1), [libc::ENOBUFS.into()]);
    end(&client);
    assert!(read_to_end(&client).iter().all(|&byte| byte == 0));
    assert_eq!(served.expect(&client, What::Close).value, 0);
    served.ends_well();
}

/// The number of the error of each call on this id.
fn errors_of(id: ConnId) -> Vec<i32> {
    let results = [id.write(b"x").map(drop), id.post(1), id.close(), id.pause(), id.resume(), id.abort()];
    results.into_iter().map(|result| result.err().map_or(0, |e| e.raw_os_error().unwrap_or(-1))).collect()
}

fn one_who_is_gone_is_stale(way: Way) {
    let acts = Acts::echo().on_close(|conn, note| {
        let (id, note) = (conn.id(), note.clone());
        // It must outlive the loop under THREAD, and the process under FORK.
        let asking = std::thread::spawn(move || {
            while id.is_open() {
                std::thread::yield_now();
            }
            for error in errors_of(id) {
                note.say(error);
            }
        });
        // A process ends with its client: it is given what is known already.
        drop(asking);
    });
    if way.has_a_process_each() {
        return the_process_of_one_who_is_gone_ends(way);
    }
    let served = serve(way.options(), acts);
    let client = served.client();
    exchange(&client, b"hello");
    end(&client);
    expect_end(&client);
    assert_eq!(served.said(&client, 6), [libc::ESTALE as i64; 6]);
    for number in [0, 1, u64::MAX, 1 << 40] {
        assert_eq!(errors_of(ConnId::from_number(number)), [libc::ESTALE; 6], "{number}");
    }
    served.ends_well();
}

/// Under FORK nobody is left who could ask.
fn the_process_of_one_who_is_gone_ends(way: Way) {
    let served = serve(way.options(), Acts::echo());
    let client = served.client();
    exchange(&client, b"hello");
    let process = served.expect(&client, What::Open).process;
    end(&client);
    expect_end(&client);
    crate::process::until("the process has ended", || !crate::process::is_alive(process));
    served.ends_well();
}

fn one_who_closes_takes_no_more(way: Way) {
    let acts = Acts::echo().on_data(|conn, note, data| {
        keep_small(conn);
        conn.write(&[0; 300_000]).unwrap();
        let id = conn.id();
        match data {
            b"close" => conn.close(),
            b"post" => id.close().unwrap(),
            _ => conn.shutdown(),
        }
        let note = note.clone();
        note.say(id.write(b"lost").err().map_or(0, |error| error.raw_os_error().unwrap_or(-1)));
    });
    let served = serve(way.options(), acts);
    for word in ["close", "post", "shutdown"] {
        let mut client = small(served.address());
        client.write_all(word.as_bytes()).unwrap();
        let said = served.said(&client, 1)[0] as i32;
        let all = read_to_end(&client);
        end(&client);
        assert_eq!(all, vec![0; 300_000], "{word}");
        // What will not be sent is not taken.
        assert!([libc::ESTALE, libc::EPIPE].contains(&said), "{word}: error {said}");
    }
    served.ends_well();
}

fn posts_come_in_order_and_all(way: Way) {
    const THREADS: i64 = 4;
    const EACH: i64 = 500;
    let acts = Acts::echo()
        .on_data(|conn, _, _| {
            for thread in 0..THREADS {
                let id = conn.id();
                std::thread::spawn(move || (0..EACH).for_each(|n| id.post(thread << 32 | n).unwrap()));
            }
        })
        .on_post(|conn, _, value| {
            conn.write(&value.to_le_bytes()).unwrap();
        });
    let served = serve(way.options(), acts);
    let mut client = served.client();
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
    served.ends_well();
}

fn no_id_is_used_twice(way: Way) {
    // Slots are used again and again; a stale id must never reach who lives there now.
    const CLIENTS: usize = 6;
    let rounds = if way.model.forks() { 10 } else { 40 };
    let seen: Arc<Mutex<HashMap<u64, ()>>> = Arc::default();
    let stale = seen.clone();
    let acts = Acts::echo()
        .on_open(move |conn, _| {
            let id = conn.id().number();
            assert!(seen.lock().unwrap().insert(id, ()).is_none(), "{id} is used twice");
            let mine = id;
            let stale = stale.clone();
            std::thread::spawn(move || {
                let others: Vec<u64> = stale.lock().unwrap().keys().copied().collect();
                for other in others.into_iter().filter(|&other| other != mine) {
                    // The live ones get it, too, and know whom it is for.
                    let _ = ConnId::from_number(other).post(other as i64);
                }
            });
            Ok(())
        })
        .on_post(|conn, _, value| assert_eq!(conn.id().number() as i64, value, "a stranger's post"));
    let served = serve(way.options(), acts);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..rounds {
                    exchange(&served.client(), b"hello");
                }
            });
        }
    });
    let outcome = served.ends_well();
    let entries = outcome.log.wait_for("the end of all", |entries| {
        let closes = entries.iter().filter(|entry| entry.what == What::Close).count();
        (closes == CLIENTS * rounds).then(|| entries.to_vec())
    });
    let opened = entries.iter().filter(|entry| entry.what == What::Open);
    let ids: std::collections::HashSet<u64> = opened.map(|entry| entry.id).collect();
    assert_eq!(ids.len(), CLIENTS * rounds, "ids differ among processes, too");
    let failed = entries
        .iter()
        .find(|entry| entry.what == What::Close && entry.value == i64::from(libc::ENOTRECOVERABLE));
    assert_eq!(failed, None, "a handler has panicked");
}

fn a_broadcast_reaches_everybody(way: Way) {
    let mut served = serve(way.options(), Acts::echo());
    assert_eq!(served.broadcast("nobody"), 0);
    let clients: Vec<_> = (0..20).map(|_| served.client()).collect();
    clients.iter().for_each(|client| exchange(client, b"here"));
    assert_eq!(served.broadcast("hello"), 20);
    for client in &clients {
        assert_eq!(read(client, 5), b"hello");
    }
    drop(clients);
    served.until("all have gone", |stats| stats.total.active == 0);
    assert_eq!(served.broadcast("nobody"), 0);
    served.ends_well();
}

fn a_broadcast_is_refused(way: Way) {
    let mut served = serve(way.options(), Acts::echo());
    let mut client = served.client();
    exchange(&client, b"here");
    assert_eq!(served.broadcast("hello"), -i64::from(libc::ENOTSUP));
    client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    assert!(client.read(&mut [0]).is_err(), "something has come");
    drop(client);
    served.ends_well();
}

fn who_has_no_room_is_passed_over(way: Way) {
    let acts = Acts::echo().on_data(|conn, note, data| {
        if data == b"fill" {
            keep_small(conn);
            while conn.write(&[0; 1000]).unwrap() == 0 {}
            let room = 100_000 - conn.queued();
            conn.write(&vec![0; room]).unwrap();
            note.say(conn.queued());
        } else {
            conn.write(data).unwrap();
        }
    });
    let mut served = serve(way.options().queue_limit(100_000), acts);
    let (mut full, other) = (small(served.address()), served.client());
    served.expect(&other, What::Open);
    full.write_all(b"fill").unwrap();
    assert_eq!(served.said(&full, 1), [100_000]);
    // Its kernel may still take what was on its way, up to a buffer of it.
    let text = "x".repeat(60_000);
    let mut given = 0;
    for _ in 0..2 {
        given += served.broadcast(&text);
        assert_eq!(read(&other, 60_000), text.as_bytes());
        // What the client has read is counted until its loop has noted that it was sent.
        exchange(&other, b"noted");
    }
    assert!((2..=3).contains(&given), "given to {given} in all");
    let stats = served.stats();
    assert_eq!(stats.total.writes_refused as i64, 4 - given);
    drop((full, other));
    served.ends_well();
}
