//! Connections that are silent for too long: ended, never early.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::acts::Acts;
use crate::client::{exchange, expect_end, expect_reset, keep_small, pattern, read, read_to_end, small};
use crate::log::What;
use crate::served::{port_of, serve};
use crate::suite::Suite;
use crate::way::Way;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.in_each_way(an_idle_connection_ends);
    suite.in_each_way(one_that_takes_nothing_ends);
    suite.in_each_way(a_connection_has_limits_of_its_own);
    suite.in_each_way(limits_can_be_taken_away);
    suite.in_each_way(a_linger_ends);
    suite.in_each_way(a_linger_goes_on_with_the_peer);
    suite.in_each_way(a_refused_client_lingers_no_longer_than_it_may);
    // These last, and what they are about is the same whatever the engine.
    suite.in_each_model(whoever_speaks_is_not_idle);
    suite.in_each_model(whoever_is_written_to_is_not_idle);
    suite.in_each_model(one_that_says_nothing_ends_while_it_is_written_to);
    suite.in_each_model(time_does_not_count_while_nothing_is_read);
    suite.in_each_model(time_does_not_count_above_the_high_mark);
    suite.in_each_model(one_that_takes_little_lives);
    suite.in_each_model(a_long_call_is_not_silence);
}

const SHORT: Duration = Duration::from_millis(100);
/// Twice the short one or more, in a test of what must not end in that time.
const LONGER: Duration = Duration::from_millis(400);

/// A server's way of saying that it is over.
const TIMED_OUT: i64 = libc::ETIMEDOUT as i64;

fn an_idle_connection_ends(way: Way) {
    let mut served = serve(way.options().idle_timeout(SHORT), Acts::echo());
    for words in [&b""[..], b"hello"] {
        let begun = Instant::now();
        let client = served.client();
        let spoken = Instant::now();
        exchange(&client, words);
        expect_end(&client);
        let since = if words.is_empty() { begun } else { spoken };
        assert!(since.elapsed() >= SHORT, "it ended after {:?}", since.elapsed());
        assert_eq!(served.expect(&client, What::Close).value, TIMED_OUT);
    }
    let stats = served.until("nobody is left", |stats| stats.total.active == 0);
    assert_eq!(stats.total.timed_out, 2);
    served.ends_well();
}

fn whoever_speaks_is_not_idle(way: Way) {
    // Thrice as long as the limit; each pause is a tenth of it.
    let limit = LONGER;
    let served =
        serve(way.options().idle_timeout(limit).read_timeout(limit).write_timeout(limit), Acts::echo());
    let client = served.client();
    let begun = Instant::now();
    while begun.elapsed() < 3 * limit {
        exchange(&client, b"hello");
        std::thread::sleep(limit / 10);
    }
    let spoken = Instant::now();
    exchange(&client, b"still here");
    expect_end(&client);
    assert!(spoken.elapsed() >= limit - Duration::from_millis(1), "it ended after {:?}", spoken.elapsed());
    assert_eq!(served.expect(&client, What::Close).value, TIMED_OUT);
    served.ends_well();
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

fn whoever_is_written_to_is_not_idle(way: Way) {
    let acts = Acts::echo().on_open(|conn, _| {
        trickle(conn, SHORT / 10);
        Ok(())
    });
    let served = serve(way.options().idle_timeout(2 * LONGER), acts);
    let client = served.client();
    let begun = Instant::now();
    while begun.elapsed() < 3 * LONGER {
        read(&client, 1);
    }
    exchange_after_dots(&client);
    drop(client);
    served.ends_well();
}

/// It still answers.
fn exchange_after_dots(mut client: &std::net::TcpStream) {
    client.write_all(b"x").unwrap();
    while read(client, 1) != b"x" {}
}

fn one_that_says_nothing_ends_while_it_is_written_to(way: Way) {
    let acts = Acts::echo().on_open(|conn, _| {
        trickle(conn, SHORT / 10);
        Ok(())
    });
    let served = serve(way.options().read_timeout(SHORT).idle_timeout(60 * SHORT), acts);
    let begun = Instant::now();
    let client = served.client();
    read_to_end(&client);
    assert!(begun.elapsed() >= SHORT, "it ended after {:?}", begun.elapsed());
    assert_eq!(served.expect(&client, What::Close).value, TIMED_OUT);
    served.ends_well();
}

fn time_does_not_count_while_nothing_is_read(way: Way) {
    let acts = Acts::echo().on_data(|conn, note, data| {
        conn.write(data).unwrap();
        if data == b"pause" {
            conn.pause();
            let (id, note) = (conn.id(), note.clone());
            std::thread::spawn(move || {
                std::thread::sleep(2 * LONGER);
                note.say(1);
                id.resume().unwrap();
            });
        }
    });
    let served = serve(way.options().read_timeout(LONGER), acts);
    let client = served.client();
    exchange(&client, b"pause");
    served.said(&client, 1);
    let spoken = Instant::now();
    exchange(&client, b"go on");
    expect_end(&client);
    assert!(spoken.elapsed() >= LONGER - Duration::from_millis(1));
    assert_eq!(served.expect(&client, What::Close).value, TIMED_OUT);
    served.ends_well();
}

fn time_does_not_count_above_the_high_mark(way: Way) {
    let acts = Acts::echo().on_data(|conn, _, data| {
        keep_small(conn);
        if data == b"fill" {
            conn.write(&pattern(0, 500_000)).unwrap();
        } else {
            conn.write(data).unwrap();
        }
    });
    let served = serve(way.options().read_timeout(LONGER), acts);
    let mut client = small(served.address());
    client.write_all(b"fill").unwrap();
    read(&client, 1);
    std::thread::sleep(2 * LONGER);
    // Now that it is read from again it has its time.
    assert!(read(&client, 499_999) == pattern(0, 500_000)[1..]);
    served.expect(&client, What::Drain);
    exchange(&client, b"still here");
    expect_end(&client);
    assert_eq!(served.expect(&client, What::Close).value, TIMED_OUT);
    served.ends_well();
}

fn one_that_takes_nothing_ends(way: Way) {
    for closing in [false, true] {
        let acts = Acts::echo().on_data(move |conn, _, _| {
            keep_small(conn);
            conn.write(&[0; 500_000]).unwrap();
            if closing {
                conn.close();
            }
        });
        let served = serve(way.options().write_timeout(SHORT), acts);
        // One with nothing to be taken does not end by it.
        let witness = served.client();
        let mut client = small(served.address());
        let begun = Instant::now();
        client.write_all(b"go").unwrap();
        assert_eq!(served.expect(&client, What::Close).value, TIMED_OUT);
        assert!(begun.elapsed() >= SHORT, "it ended after {:?}", begun.elapsed());
        expect_reset(&client);
        std::thread::sleep(2 * SHORT);
        assert_eq!(served.log.of(port_of(&witness)).len(), 1, "the witness has ended, too");
        drop(witness);
        served.ends_well();
    }
}

fn one_that_takes_little_lives(way: Way) {
    const LENGTH: usize = 300_000;
    let acts = Acts::echo().on_data(|conn, _, _| {
        keep_small(conn);
        conn.write(&pattern(0, LENGTH)).unwrap();
        conn.close();
    });
    let limit = 2 * LONGER;
    let served = serve(way.options().write_timeout(limit), acts);
    let mut client = small(served.address());
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
    assert_eq!(served.expect_of(port, What::Close).value, 0);
    served.ends_well();
}

fn a_connection_has_limits_of_its_own(way: Way) {
    let acts = Acts::echo().on_data(|conn, _, data| match data {
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
    let served = serve(way.options().idle_timeout(Duration::from_secs(3600)), acts);
    let mut later = served.client();
    later.write_all(b"later").unwrap();
    for word in ["sooner", "read", "write", "now"] {
        let mut client = small(served.address());
        let begun = Instant::now();
        client.write_all(word.as_bytes()).unwrap();
        assert_eq!(served.expect(&client, What::Close).value, TIMED_OUT, "{word}");
        assert!(word == "now" || begun.elapsed() >= SHORT, "{word}: after {:?}", begun.elapsed());
        match word {
            "write" => expect_reset(&client),
            _ => expect_end(&client),
        }
    }
    exchange(&later, b"still here");
    drop(later);
    served.ends_well();
}

fn limits_can_be_taken_away(way: Way) {
    let acts = Acts::echo().on_open(|conn, _| {
        conn.set_idle_timeout(None);
        conn.set_read_timeout(None);
        conn.set_write_timeout(None);
        Ok(())
    });
    let served = serve(way.options().idle_timeout(SHORT).read_timeout(SHORT).write_timeout(SHORT), acts);
    let client = served.client();
    std::thread::sleep(2 * SHORT);
    exchange(&client, b"still here");
    drop(client);
    served.ends_well();
}

fn a_long_call_is_not_silence(way: Way) {
    // A call that lasts longer than the limit keeps its loop from hearing anybody; when it
    // has returned, everybody has the whole of their time again.
    let acts = Acts::echo().on_data(|conn, _, data| {
        if data == b"work" {
            std::thread::sleep(2 * LONGER);
        }
        conn.write(data).unwrap();
    });
    let served = serve(way.options().workers(1).idle_timeout(LONGER), acts);
    let (mut worker, mut other) = (served.client(), served.client());
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
    served.ends_well();
}

fn a_linger_ends(way: Way) {
    let served = serve(way.options().linger(SHORT), Acts::echo().on_data(|conn, _, _| conn.close()));
    let begun = Instant::now();
    let mut client = served.client();
    client.write_all(b"go").unwrap();
    // It never ends its direction, and goes on sending.
    expect_end(&client);
    while served.log.of(port_of(&client)).iter().all(|entry| entry.what != What::Close) {
        let _ = client.write(b"still talking");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(begun.elapsed() >= SHORT, "it ended after {:?}", begun.elapsed());
    assert_eq!(served.expect(&client, What::Close).value, 0);
    served.ends_well();
}

fn a_linger_goes_on_with_the_peer(way: Way) {
    let served = serve(way.options().linger(LONGER), Acts::echo().on_data(|conn, _, _| conn.close()));
    let mut client = served.client();
    // An upload that is refused, and is slow: its sender gets to its end, and reads the answer.
    let begun = Instant::now();
    while begun.elapsed() < 2 * LONGER {
        client.write_all(b"more").unwrap();
        std::thread::sleep(LONGER / 20);
    }
    expect_end(&client);
    drop(client);
    served.ends_well();
}

fn a_refused_client_lingers_no_longer_than_it_may(way: Way) {
    let acts = Acts::echo().on_open(|_, _| Err(std::io::Error::other("no")));
    let mut served = serve(way.options().linger(SHORT), acts);
    let client = served.client();
    expect_end(&client);
    served.until("it is gone though it has not ended", |stats| stats.total.active == 0);
    drop(client);
    served.ends_well();
}
