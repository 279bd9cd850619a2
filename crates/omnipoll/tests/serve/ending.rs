//! How connections end, and what is told of it.

use std::io::{self, Write};
use std::net::TcpStream;

use omnipoll::{Conn, Handler};

use crate::acts::Acts;
use crate::client::{
    end, exchange, expect_end, expect_reset, keep_small, pattern, read, read_to_end, reset, send_meanwhile,
    small,
};
use crate::log::What;
use crate::served::{port_of, serve, serve_with, Served};
use crate::suite::Suite;
use crate::way::Way;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.in_each_way(unless_told_otherwise_we_end_when_the_peer_does);
    suite.in_each_way(what_is_queued_is_sent_after_the_peers_end);
    suite.in_each_way(a_handler_may_go_on_after_the_peers_end);
    suite.in_each_way(we_end_and_the_peer_goes_on);
    suite.in_each_way(both_end_at_once);
    suite.in_each_way(a_reset_of_the_peer_is_told);
    suite.in_each_way(a_reset_is_told_while_bytes_are_queued);
    suite.in_each_way(close_sends_everything_though_nobody_reads_the_peer);
    suite.in_each_way(nothing_is_written_after_close);
    suite.in_each_way(abort_resets);
    suite.in_each_way(abort_throws_away_what_is_queued);
    suite.in_each_way(a_refused_client_gets_its_last_words);
    suite.in_each_way(a_panic_ends_its_connection_alone);
    suite.in_each_way(a_panic_at_the_door_refuses);
    suite.in_each_way(a_close_is_told_once_and_last);
}

/// The number of the error that the end of this client's connection was told with; its process
/// is told nothing afterwards.
#[track_caller]
fn end_told(served: &Served, client: &TcpStream) -> i32 {
    served.expect(client, What::Close).value as i32
}

/// Has no `on_end`.
struct Plain;

impl Handler for Plain {
    type State = ();

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
        Ok(())
    }

    fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) {
        let _ = conn.write(data);
    }
}

fn unless_told_otherwise_we_end_when_the_peer_does(way: Way) {
    let served = serve_with(&["127.0.0.1:0"], way.options(), |_| Plain, |_| {});
    let client = served.client();
    let sending = send_meanwhile(&client, pattern(3, 500_000));
    sending.join().unwrap();
    end(&client);
    assert!(read_to_end(&client) == pattern(3, 500_000), "not all came back");
    served.ends_well();
}

fn what_is_queued_is_sent_after_the_peers_end(way: Way) {
    let acts = Acts::echo().on_data(|conn, _, _| {
        keep_small(conn);
        conn.write(&pattern(4, 1 << 20)).unwrap();
    });
    let served = serve(way.options(), acts);
    let mut client = small(served.address());
    client.write_all(b"go").unwrap();
    end(&client);
    assert!(read_to_end(&client) == pattern(4, 1 << 20), "not all was sent");
    assert_eq!(end_told(&served, &client), 0);
    served.ends_well();
}

fn a_handler_may_go_on_after_the_peers_end(way: Way) {
    let acts = Acts::echo().on_end(|conn, note| {
        assert!(conn.has_ended());
        let id = conn.id();
        note.say(0);
        std::thread::spawn(move || {
            for _ in 0..100 {
                id.write(&[5; 1000]).unwrap();
            }
            id.close().unwrap();
        });
    });
    let served = serve(way.options(), acts);
    let client = served.client();
    exchange(&client, b"hello");
    end(&client);
    assert_eq!(read_to_end(&client), vec![5; 100_000]);
    assert_eq!(end_told(&served, &client), 0);
    assert_eq!(served.said(&client, 1), [0], "the end was told more than once");
    served.ends_well();
}

fn we_end_and_the_peer_goes_on(way: Way) {
    let acts = Acts::echo().on_data(|conn, note, data| {
        if data == b"end" {
            keep_small(conn);
            conn.write(&pattern(6, 200_000)).unwrap();
            conn.shutdown();
            let error = conn.write(b"more").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
        } else {
            note.say(data.len());
        }
    });
    let served = serve(way.options(), acts);
    let mut client = small(served.address());
    client.write_all(b"end").unwrap();
    assert!(read_to_end(&client) == pattern(6, 200_000), "not all was sent before the end");
    client.write_all(&[0; 100_000]).unwrap();
    end(&client);
    assert_eq!(end_told(&served, &client), 0);
    let said: i64 = served.said(&client, 1).iter().sum();
    assert_eq!(said, 100_000, "of what was sent after our end");
    served.expect(&client, What::End);
    served.ends_well();
}

fn both_end_at_once(way: Way) {
    let acts = Acts::echo().on_data(|conn, _, _| conn.shutdown());
    let served = serve(way.options(), acts);
    for _ in 0..20 {
        let mut client = served.client();
        client.write_all(b"end").unwrap();
        end(&client);
        expect_end(&client);
        assert_eq!(end_told(&served, &client), 0);
    }
    served.ends_well();
}

fn a_reset_of_the_peer_is_told(way: Way) {
    let served = serve(way.options(), Acts::echo());
    let client = served.client();
    exchange(&client, b"hello");
    let port = port_of(&client);
    reset(client);
    assert_eq!(served.expect_of(port, What::Close).value, libc::ECONNRESET.into());
    served.ends_well();
}

fn a_reset_is_told_while_bytes_are_queued(way: Way) {
    let acts = Acts::echo().on_data(|conn, _, data| {
        keep_small(conn);
        conn.write(&[0; 500_000]).unwrap();
        if data == b"close" {
            conn.close();
        }
    });
    let served = serve(way.options(), acts);
    for words in ["write", "close"] {
        let mut client = small(served.address());
        client.write_all(words.as_bytes()).unwrap();
        read(&client, 1);
        let port = port_of(&client);
        reset(client);
        // The kernel says the one or the other.
        let told = served.expect_of(port, What::Close).value as i32;
        assert!([libc::ECONNRESET, libc::EPIPE].contains(&told), "{words}: error {told}");
        assert_eq!(told, libc::ECONNRESET, "{words}");
    }
    served.ends_well();
}

fn close_sends_everything_though_nobody_reads_the_peer(way: Way) {
    let acts = Acts::echo()
        .on_data(|conn, _, _| {
            conn.write(&pattern(7, 4 << 20)).unwrap();
            conn.close();
        })
        .on_close(|conn, note| note.say(conn.queued()));
    let served = serve(way.options(), acts);
    let mut client = served.client();
    client.write_all(b"go").unwrap();
    read(&client, 1);
    // It will be thrown away, but must not cost the client its answer.
    client.write_all(&[0; 50_000]).unwrap();
    let all = read_to_end(&client);
    assert!(all == pattern(7, 4 << 20)[1..], "{} of {} bytes arrived", all.len() + 1, 4 << 20);
    drop(client.try_clone());
    let port = port_of(&client);
    drop(client);
    assert_eq!(served.expect_of(port, What::Close).value, 0);
    assert_eq!(served.expect_of(port, What::Said).value, 0, "bytes queued at the close");
    let data = served.log.of(port).iter().filter(|entry| entry.what == What::Data).count();
    assert_eq!(data, 1, "data was handed over after close");
    served.ends_well();
}

fn nothing_is_written_after_close(way: Way) {
    let acts = Acts::echo().on_data(|conn, _, data| {
        if data == b"abort" {
            conn.write(b"never").unwrap();
            conn.abort();
        } else {
            keep_small(conn);
            conn.write(&[0; 50_000]).unwrap();
            conn.close();
        }
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(conn.write(b"more").unwrap_err().raw_os_error(), Some(libc::EPIPE));
        assert_eq!(conn.write(b"").unwrap_err().raw_os_error(), Some(libc::EPIPE));
        assert_eq!(conn.write_vectored(&[]).unwrap_err().raw_os_error(), Some(libc::EPIPE));
        assert_eq!(conn.send_file(&file, 0, 10).unwrap_err().raw_os_error(), Some(libc::EPIPE));
    });
    let served = serve(way.options(), acts);
    let mut client = small(served.address());
    client.write_all(b"close").unwrap();
    assert_eq!(read_to_end(&client), vec![0; 50_000]);
    end(&client);
    assert_eq!(end_told(&served, &client), 0);
    let mut client = served.client();
    client.write_all(b"abort").unwrap();
    expect_reset(&client);
    assert_eq!(end_told(&served, &client), libc::ECONNABORTED);
    served.ends_well();
}

fn abort_resets(way: Way) {
    let served = serve(way.options(), Acts::echo().on_data(|conn, _, _| conn.abort()));
    let mut client = served.client();
    client.write_all(b"go").unwrap();
    expect_reset(&client);
    assert_eq!(end_told(&served, &client), libc::ECONNABORTED);
    served.ends_well();
}

fn abort_throws_away_what_is_queued(way: Way) {
    let acts = Acts::echo().on_data(|conn, note, _| {
        keep_small(conn);
        conn.write(&[0; 500_000]).unwrap();
        conn.abort();
        conn.close();
        note.say(conn.queued());
    });
    let served = serve(way.options(), acts);
    let mut client = small(served.address());
    client.write_all(b"go").unwrap();
    expect_reset(&client);
    assert_eq!(end_told(&served, &client), libc::ECONNABORTED);
    assert_eq!(served.said(&client, 1), [0]);
    served.ends_well();
}

fn a_refused_client_gets_its_last_words(way: Way) {
    let acts = Acts::echo().on_open(|conn, _| {
        conn.write(b"no").unwrap();
        Err(io::Error::other("we are closed"))
    });
    let mut served = serve(way.options(), acts);
    let mut ports = Vec::new();
    for _ in 0..3 {
        let mut client = served.client();
        client.write_all(b"let me in").unwrap();
        assert_eq!(read_to_end(&client), b"no");
        ports.push(port_of(&client));
    }
    let stats = served.until("nobody is left", |stats| stats.total.active == 0);
    assert_eq!((stats.total.accepted, stats.total.refused), (3, 3));
    let outcome = served.ends_well();
    for port in ports {
        let told: Vec<_> = outcome.log.of(port).iter().map(|entry| entry.what).collect();
        assert_eq!(told, [What::Open]);
    }
}

fn a_panic_ends_its_connection_alone(way: Way) {
    let panic_at = |what: What| {
        move |conn: &mut Conn<'_>, note: &crate::log::Note| {
            let _ = (conn, note);
            panic!("in {what:?}, as it should");
        }
    };
    let acts = Acts::echo()
        .on_open(|conn, _| {
            keep_small(conn);
            Ok(())
        })
        .on_data(|conn, _, data| match data {
            b"data" => panic!("in Data, as it should"),
            b"open" => {}
            b"drain" => drop(conn.write(&[0; 200_000]).unwrap()),
            b"post" => conn.id().post(1).unwrap(),
            b"close" => conn.close(),
            _ => drop(conn.write(data)),
        })
        .on_end(panic_at(What::End))
        .on_drain(panic_at(What::Drain))
        .on_post(|_, _, _| panic!("in Post, as it should"))
        .on_close(panic_at(What::Close));
    let served = serve(way.options(), acts);
    let witness = served.client();
    exchange(&witness, b"first");
    for word in ["data", "drain", "post"] {
        let mut client = served.client();
        client.write_all(word.as_bytes()).unwrap();
        expect_reset(&client);
        assert_eq!(end_told(&served, &client), libc::ENOTRECOVERABLE, "{word}");
    }
    let client = served.client();
    exchange(&client, b"bytes");
    end(&client);
    expect_reset(&client);
    assert_eq!(end_told(&served, &client), libc::ENOTRECOVERABLE, "end");
    let mut client = served.client();
    client.write_all(b"close").unwrap();
    expect_end(&client);
    end(&client);
    assert_eq!(end_told(&served, &client), 0, "close");
    exchange(&witness, b"last");
    reset(witness);
    served.ends_well();
}

fn a_panic_at_the_door_refuses(way: Way) {
    let acts = Acts::echo().on_open(|conn, _| {
        conn.write(b"half of it").unwrap();
        panic!("in Open, as it should")
    });
    let mut served = serve(way.options(), acts);
    let clients: Vec<_> = (0..3).map(|_| served.client()).collect();
    clients.iter().for_each(expect_reset);
    let stats = served.until("nobody is left", |stats| stats.total.active == 0 && stats.total.accepted == 3);
    assert_eq!((stats.total.refused, stats.total.restarts), (3, 0));
    let outcome = served.ends_well();
    assert!(outcome.log.all().iter().all(|entry| entry.what == What::Open), "something else was called");
}

fn a_close_is_told_once_and_last(way: Way) {
    // All ways to end at once: whichever comes first is told, and no other.
    let acts = Acts::echo().on_data(|conn, _, data| {
        let id = conn.id();
        match data[0] % 4 {
            0 => conn.close(),
            1 => conn.abort(),
            2 => drop(std::thread::spawn(move || (id.close(), id.abort(), id.post(1)))),
            _ => {}
        }
        let _ = (id.post(7), conn.write(&[0; 1000]));
    });
    let served = serve(way.options(), acts);
    let mut ports = Vec::new();
    for turn in 0..24 {
        let mut client = served.client();
        ports.push(port_of(&client));
        let _ = client.write_all(&[turn]);
        match turn / 4 % 3 {
            0 => reset(client),
            1 => end(&client),
            _ => drop(client),
        }
    }
    let outcome = served.ends_well();
    outcome.log.wait_for("an end for each that was opened", |entries| {
        let count = |what| entries.iter().filter(|entry| entry.what == what).count();
        (count(What::Open) == 24 && count(What::Close) == 24).then_some(())
    });
    for port in ports {
        let entries = outcome.log.of(port);
        let last = entries.last().expect("something was told");
        assert_eq!(last.what, What::Close, "{entries:#?}");
        let closes = entries.iter().filter(|entry| entry.what == What::Close).count();
        assert_eq!(closes, 1, "{entries:#?}");
    }
}
