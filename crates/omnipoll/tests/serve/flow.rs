//! A peer that does not read gets to send no more, and memory does not grow.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use omnipoll::{Conn, ConnId, Model};

use crate::acts::Acts;
use crate::client::{end, expect_end, keep_small, pattern, push, read, read_to_end, send_meanwhile, small};
use crate::log::What;
use crate::served::{port_of, serve};
use crate::suite::Suite;
use crate::support::fds;
use crate::way::Way;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.in_each_way(nothing_is_read_above_the_high_mark);
    suite.in_each_way(a_drain_is_told_once_a_crossing);
    suite.in_each_way(a_drain_may_be_filled_again);
    suite.in_each_way(what_stays_below_the_high_mark_drains_untold);
    suite.in_each_way(others_who_fill_it_are_told_of_the_drain);
    suite.in_ways_of(&[Model::Reactor, Model::Cores, Model::Thread], a_proxy_passes_the_pace_on);
    suite.in_each_way(a_peer_that_does_not_read_can_send_little);
    suite.in_each_way(a_paused_peer_can_send_little);
    suite.in_each_way(a_paused_connection_still_sends);
    suite.in_each_way(a_pause_within_a_call_holds_the_rest_back);
}

const LOW: usize = 10_000;
const HIGH: usize = 40_000;

/// What was told of a client's connection in order, without its beginning.
fn story(served: &crate::served::Served, port: u16) -> Vec<What> {
    served.log.of(port).iter().map(|entry| entry.what).skip(1).collect()
}

fn nothing_is_read_above_the_high_mark(way: Way) {
    let acts = Acts::echo().on_data(|conn, _, data| {
        keep_small(conn);
        if data == b"fill" {
            conn.write(&[0; 500_000]).unwrap();
        } else {
            conn.write(data).unwrap();
        }
    });
    let served = serve(way.options().water_marks(LOW, HIGH), acts);
    let mut client = small(served.address());
    client.write_all(b"fill").unwrap();
    // The queue is above the mark now, and so it is when this arrives.
    read(&client, 1);
    client.write_all(b"more").unwrap();
    end(&client);
    assert_eq!(read(&client, 499_999 + 4)[499_999..], *b"more");
    expect_end(&client);
    let port = port_of(&client);
    served.expect(&client, What::Close);
    let drained = served.expect(&client, What::Drain);
    assert!(drained.value as usize <= LOW, "{} bytes were left", drained.value);
    use What::{Close, Data, Drain, End};
    assert_eq!(story(&served, port), [Data, Drain, Data, End, Close]);
    served.ends_well();
}

fn a_drain_is_told_once_a_crossing(way: Way) {
    const TIMES: usize = 5;
    let acts = Acts::echo().on_data(|conn, _, _| {
        keep_small(conn);
        // What follows is still the same crossing.
        for length in [500_000, 1, 20_000] {
            conn.write(&vec![0; length]).unwrap();
        }
    });
    let served = serve(way.options().water_marks(LOW, HIGH), acts);
    let mut client = small(served.address());
    for turn in 1..=TIMES {
        client.write_all(b"f").unwrap();
        read(&client, 520_001);
        let port = port_of(&client);
        served.log.wait_for("a drain", |entries| {
            let drains = entries.iter().filter(|entry| entry.port == port && entry.what == What::Drain);
            (drains.count() == turn).then_some(())
        });
    }
    end(&client);
    expect_end(&client);
    served.expect(&client, What::Close);
    let drains = served.log.all().iter().filter(|entry| entry.what == What::Drain).count();
    assert_eq!(drains, TIMES);
    served.ends_well();
}

fn a_drain_may_be_filled_again(way: Way) {
    // A source that writes whenever there is room again, as one sends what is too long to hold.
    let fill = |conn: &mut Conn<'_>| while conn.write(&[8; 10_000]).unwrap() <= HIGH {};
    let drains = std::sync::Mutex::new(std::collections::HashMap::new());
    let acts = Acts::echo()
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
    let served = serve(way.options().water_marks(LOW, HIGH), acts);
    let mut client = small(served.address());
    client.write_all(b"go").unwrap();
    let length = read_to_end(&client).len();
    assert!(length >= 20 * HIGH, "only {length} bytes");
    end(&client);
    assert_eq!(served.expect(&client, What::Close).value, 0);
    served.ends_well();
}

fn what_stays_below_the_high_mark_drains_untold(way: Way) {
    let acts = Acts::echo().on_data(|conn, note, _| {
        keep_small(conn);
        while conn.write(&[0; 1000]).unwrap() == 0 {}
        let room = HIGH - conn.queued();
        conn.write(&vec![0; room]).unwrap();
        note.say(conn.queued());
    });
    let served = serve(way.options().water_marks(LOW, HIGH), acts);
    let mut client = small(served.address());
    client.write_all(b"f").unwrap();
    assert_eq!(served.said(&client, 1), [HIGH as i64]);
    end(&client);
    read_to_end(&client);
    served.expect(&client, What::Close);
    use What::{Close, Data, End, Said};
    assert_eq!(story(&served, port_of(&client)), [Data, Said, End, Close]);
    served.ends_well();
}

fn others_who_fill_it_are_told_of_the_drain(way: Way) {
    const TIMES: usize = 5;
    let acts = Acts::echo().on_data(|conn, _, _| {
        let id = conn.id();
        // Here and in another thread alike; the kernel takes all of it at once.
        assert_eq!(id.write(&[0; HIGH]).unwrap(), HIGH);
        std::thread::spawn(move || id.write(&[0; HIGH + 1]).unwrap()).join().unwrap();
    });
    let served = serve(way.options().water_marks(LOW, HIGH), acts);
    let mut client = served.client();
    for turn in 1..=TIMES {
        client.write_all(b"f").unwrap();
        read(&client, 2 * HIGH + 1);
        let port = port_of(&client);
        served.log.wait_for("a drain", |entries| {
            let drains = entries.iter().filter(|entry| entry.port == port && entry.what == What::Drain);
            (drains.count() == turn).then_some(())
        });
    }
    end(&client);
    expect_end(&client);
    served.expect(&client, What::Close);
    let drains = served.log.all().iter().filter(|entry| entry.what == What::Drain).count();
    assert_eq!(drains, TIMES);
    served.ends_well();
}

fn a_proxy_passes_the_pace_on(way: Way) {
    // The first client to come is written what the second one sends.
    const LENGTH: usize = 8 << 20;
    let ids: Arc<(OnceLock<ConnId>, OnceLock<ConnId>)> = Arc::default();
    let (opened, drained) = (ids.clone(), ids.clone());
    let acts = Acts::echo()
        .on_open(move |conn, note| {
            let (sink, source) = &*opened;
            if sink.set(conn.id()).is_err() {
                source.set(conn.id()).unwrap();
            }
            note.say(0);
            Ok(())
        })
        .on_data(move |conn, _, data| {
            if ids.0.get().unwrap().write(data).unwrap() > HIGH {
                conn.pause();
            }
        })
        .on_drain(move |_, _| drained.1.get().unwrap().resume().unwrap())
        .on_end(|conn, _| conn.close());
    let served = serve(way.options().water_marks(LOW, HIGH), acts);
    let sink = served.client();
    // Another worker may open the second client: not before the first one's id is set.
    served.expect(&sink, What::Said);
    let source = served.client();
    let sending = send_meanwhile(&source, pattern(3, LENGTH));
    assert!(read(&sink, LENGTH) == pattern(3, LENGTH));
    sending.join().unwrap();
    drop((sink, source));
    served.ends_well();
}

/// More than the kernel's buffers of both sides and the server's queue hold together.
const BOUND: usize = 1 << 20;

fn a_peer_that_does_not_read_can_send_little(way: Way) {
    let acts = Acts::echo()
        .on_open(|conn, _| {
            keep_small(conn);
            Ok(())
        })
        .on_data(|conn, note, data| {
            conn.write(data).unwrap();
            // One read may be above the mark, and no second.
            assert!(conn.queued() <= HIGH + 64 * 1024, "{} bytes are queued", conn.queued());
            note.say(conn.queued());
        });
    let served = serve(way.options().water_marks(LOW, HIGH), acts);
    let client = small(served.address());
    let pushed = push(&client, 4 * BOUND);
    assert!(pushed < BOUND, "{pushed} bytes were taken from one who reads nothing");
    // It all comes back, and everything goes on.
    assert_eq!(read(&client, pushed), vec![0; pushed]);
    let sending = send_meanwhile(&client, pattern(9, 100_000));
    assert!(read(&client, 100_000) == pattern(9, 100_000));
    sending.join().unwrap();
    end(&client);
    expect_end(&client);
    assert_eq!(served.expect(&client, What::Close).value, 0);
    served.ends_well();
}

/// A pipe through which a test lets a thread of the handler go on.
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

fn a_paused_peer_can_send_little(way: Way) {
    let (gate, mut key) = gate();
    let acts = Acts::echo()
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
        .on_data(|conn, note, data| {
            assert!(!conn.is_paused());
            note.say(data.len());
        });
    let served = serve(way.options(), acts);
    let client = small(served.address());
    let pushed = push(&client, 4 * BOUND);
    assert!(pushed < BOUND, "{pushed} bytes were taken while paused");
    assert_eq!(story(&served, port_of(&client)), [], "something was read while paused");
    key.write_all(b"!").unwrap();
    end(&client);
    expect_end(&client);
    assert_eq!(served.expect(&client, What::Close).value, 0);
    assert_eq!(served.said(&client, 1).iter().sum::<i64>(), pushed as i64);
    served.ends_well();
}

fn a_paused_connection_still_sends(way: Way) {
    let acts = Acts::echo().on_data(|conn, _, _| {
        keep_small(conn);
        conn.pause();
        conn.write(&pattern(2, 500_000)).unwrap();
        conn.id().post(1).unwrap();
    });
    // Posts come, too; and one resumes it.
    let acts = acts.on_post(|conn, _, _| {
        assert!(conn.is_paused());
        if conn.queued() == 0 {
            conn.resume();
        } else {
            conn.id().post(1).unwrap();
        }
    });
    let served = serve(way.options(), acts);
    let mut client = small(served.address());
    client.write_all(b"go").unwrap();
    end(&client);
    assert!(read_to_end(&client) == pattern(2, 500_000));
    assert_eq!(served.expect(&client, What::Close).value, 0);
    served.ends_well();
}

fn a_pause_within_a_call_holds_the_rest_back(way: Way) {
    let (gate, mut key) = gate();
    let acts = Acts::echo().on_data(move |conn, note, data| {
        note.say(data[0]);
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
    let served = serve(way.options(), acts);
    let mut client = served.client();
    client.write_all(&[1]).unwrap();
    read(&client, 1);
    // What others are served meanwhile goes through the same loop, later than this.
    client.write_all(&[2]).unwrap();
    for _ in 0..20 {
        crate::client::exchange(&served.client(), b"others");
    }
    assert_eq!(served.said(&client, 1), [1]);
    key.write_all(b"!").unwrap();
    read(&client, 1);
    assert_eq!(served.said(&client, 2), [1, 2]);
    drop(client);
    served.ends_well();
}
