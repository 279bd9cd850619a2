//! Relays: what one connection receives is sent on by another.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use omnipoll::{ConnId, EngineKind, LoopEventKind, LoopOptions};
use socket2::SockRef;

use crate::client::{expect_end, expect_reset, pattern, read, read_to_end, send_meanwhile, small};
use crate::running::Listening;
use crate::suite::Suite;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(bytes_pass_both_ways);
    suite.on_each_engine(flows_and_words_keep_their_order);
    suite.on_each_engine(an_end_passes_on_and_the_other_direction_stays_open);
    suite.on_each_engine(an_end_before_the_relay_passes_on);
    suite.on_each_engine(a_reset_passes_on);
    suite.on_each_engine(a_peer_that_does_not_read_holds_the_sender);
    suite.on_each_engine(full_both_ways_it_goes_on);
    suite.on_each_engine(nothing_is_lost_when_nothing_may_be_queued);
    suite.on_each_engine(a_connection_can_be_relayed_to_itself);
    suite.on_each_engine(closing_one_closes_the_other);
    suite.on_each_engine(what_can_not_be_relayed);
}

/// Two clients whose connections are relayed to each other.
fn pair(listening: &mut Listening) -> [(TcpStream, ConnId); 2] {
    let clients = [listening.client(), listening.client()];
    let [a, b] = [clients[0].1, clients[1].1];
    listening.event_loop.conn(a).unwrap().relay_to(b).expect("relay_to");
    listening.event_loop.conn(b).unwrap().relay_to(a).expect("relay_to");
    clients
}

fn bytes_pass_both_ways(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let [(a, _), (b, _)] = pair(&mut listening);
    listening.while_running(move || {
        for length in [1, 100, 4096, 65_536, 65_537, 3 << 20] {
            let (up, down) = (pattern(1, length), pattern(2, length));
            let sending = [send_meanwhile(&a, up.clone()), send_meanwhile(&b, down.clone())];
            assert!(read(&b, length) == up, "{length} bytes arrived differently");
            assert!(read(&a, length) == down, "{length} bytes arrived differently");
            sending.into_iter().for_each(|sending| sending.join().unwrap());
        }
    });
}

/// Large flows take another way than what comes before and after them.
fn flows_and_words_keep_their_order(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let [(a, _), (b, to)] = pair(&mut listening);
    crate::client::keep_small(&listening.event_loop.conn(to).unwrap());
    listening.while_running(move || {
        for seed in 0..4 {
            let (flow, words) = (pattern(seed, 2 << 20), pattern(seed + 9, 1_000));
            let sending = send_meanwhile(&a, flow.clone());
            let (start, rest) = flow.split_at(1 << 20);
            assert!(read(&b, start.len()) == start, "the flow's beginning differs");
            assert!(read(&b, rest.len()) == rest, "the flow differs");
            sending.join().unwrap();
            for word in words.chunks(10) {
                (&a).write_all(word).unwrap();
                assert_eq!(read(&b, word.len()), word);
            }
        }
        let last = pattern(7, 2 << 20);
        let (end, expected) = (a.try_clone().unwrap(), last.clone());
        let sending = send_meanwhile(&a, last);
        let reading =
            std::thread::spawn(move || assert!(read_to_end(&b) == expected, "the last flow differs"));
        sending.join().unwrap();
        end.shutdown(Shutdown::Write).unwrap();
        reading.join().unwrap();
    });
}

fn an_end_passes_on_and_the_other_direction_stays_open(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let [(a, _), (b, _)] = pair(&mut listening);
    listening.while_running(move || {
        (&a).write_all(b"last words").unwrap();
        a.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&b), b"last words");
        (&b).write_all(b"an answer").unwrap();
        assert_eq!(read(&a, 9), b"an answer");
        b.shutdown(Shutdown::Write).unwrap();
        expect_end(&a);
    });
    for _ in 0..2 {
        assert!(listening.next(LoopEventKind::Closed).error().is_none(), "both have ended cleanly");
    }
}

fn an_end_before_the_relay_passes_on(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let [(a, from), (b, to)] = [listening.client(), listening.client()];
    a.shutdown(Shutdown::Write).unwrap();
    assert_eq!(listening.next(LoopEventKind::Ended).conn(), from);
    listening.event_loop.conn(from).unwrap().relay_to(to).unwrap();
    listening.while_running(move || expect_end(&b));
}

fn a_reset_passes_on(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let [(a, from), (b, to)] = pair(&mut listening);
    listening.while_running(move || {
        SockRef::from(&a).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(a);
        expect_reset(&b);
    });
    let ends = [listening.next(LoopEventKind::Closed), listening.next(LoopEventKind::Closed)];
    for event in ends {
        assert_eq!(event.error().and_then(|error| error.raw_os_error()), Some(libc::ECONNRESET));
        assert!([from, to].contains(&event.conn()));
    }
}

fn a_peer_that_does_not_read_holds_the_sender(engine: EngineKind) {
    const MUCH: usize = 64 << 20;
    let mut listening = Listening::new(engine);
    let (mut sender, from) = listening.client();
    let reader = small(listening.address);
    let to = listening.next(LoopEventKind::Accepted).conn();
    crate::client::keep_small(&listening.event_loop.conn(to).unwrap());
    listening.event_loop.conn(from).unwrap().relay_to(to).unwrap();
    sender.set_nonblocking(true).unwrap();
    let block = pattern(0, 65_536);
    let mut sent = 0;
    // It is held when the kernel takes nothing from it for so many waits.
    let mut refused = 0;
    while refused < 50 {
        // The kernel may take a part: the next write goes on from there.
        match sender.write(&block[sent % block.len()..]) {
            Ok(count) => (sent, refused) = (sent + count, 0),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => refused += 1,
            Err(error) => panic!("{error}"),
        }
        let mut events = [omnipoll::LoopEvent::default(); 8];
        listening.event_loop.wait(&mut events, Some(std::time::Duration::from_millis(2))).unwrap();
        let queued = listening.event_loop.conn(to).unwrap().queued();
        assert!(queued <= (64 << 10) + (128 << 10), "{queued} bytes are queued");
        assert!(sent < MUCH, "nothing holds the sender");
    }
    sender.shutdown(Shutdown::Write).unwrap();
    let got = listening.while_running(move || {
        let (mut reader, mut got) = (reader, Vec::new());
        reader.read_to_end(&mut got).expect("a clean end");
        got
    });
    assert_eq!(got.len(), sent, "some bytes were lost");
    assert!(got.chunks(block.len()).all(|part| block.starts_with(part)), "in other order");
}

/// One side reads on only when its answer is taken: what waits to be sent to it must not keep its answer from
/// being read.
fn full_both_ways_it_goes_on(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let (a, from) = listening.client();
    let b = small(listening.address);
    let to = listening.next(LoopEventKind::Accepted).conn();
    for (one, other) in [(from, to), (to, from)] {
        crate::client::keep_small(&listening.event_loop.conn(one).unwrap());
        listening.event_loop.conn(one).unwrap().relay_to(other).unwrap();
    }
    listening.while_running(move || {
        let data = pattern(5, 512 << 10);
        let length = data.len();
        let sending = send_meanwhile(&a, data.clone());
        let echoing = std::thread::spawn(move || crate::client::echo(&b, length));
        assert!(read(&a, length) == data, "the echo differs");
        sending.join().unwrap();
        echoing.join().unwrap();
    });
}

fn nothing_is_lost_when_nothing_may_be_queued(engine: EngineKind) {
    let options = LoopOptions::new().engine(engine).total_queue_limit(1).queue_limit(1).water_marks(0, 0);
    let mut listening = Listening::with_options(options);
    let [(a, _), (b, to)] = pair(&mut listening);
    crate::client::keep_small(&listening.event_loop.conn(to).unwrap());
    listening.while_running(move || {
        for length in [1, 5_000, 300_000, 2 << 20] {
            let data = pattern(3, length);
            let sending = send_meanwhile(&a, data.clone());
            assert!(read(&b, length) == data, "{length} bytes arrived differently");
            sending.join().unwrap();
        }
    });
}

fn a_connection_can_be_relayed_to_itself(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let (client, id) = listening.client();
    listening.event_loop.conn(id).unwrap().relay_to(id).unwrap();
    listening.while_running(move || {
        let data = pattern(4, 3 << 20);
        let sending = send_meanwhile(&client, data.clone());
        assert!(read(&client, data.len()) == data, "the echo differs");
        sending.join().unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        expect_end(&client);
    });
    assert!(listening.next(LoopEventKind::Closed).error().is_none());
}

fn closing_one_closes_the_other(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let [(a, from), (b, _)] = pair(&mut listening);
    listening.event_loop.conn(from).unwrap().close();
    listening.while_running(move || {
        expect_end(&a);
        drop(a);
        expect_end(&b);
        drop(b);
    });
    for _ in 0..2 {
        assert!(listening.next(LoopEventKind::Closed).error().is_none());
    }
}

fn what_can_not_be_relayed(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let [(_a, a), (_b, b), (_c, c)] = [(); 3].map(|()| listening.client());
    let mut relay = |from, to| {
        let relayed = listening.event_loop.conn(from).unwrap().relay_to(to);
        relayed.err().and_then(|error| error.raw_os_error())
    };
    assert_eq!(relay(a, b), None);
    assert_eq!(relay(a, b), None, "the same again");
    assert_eq!(relay(c, b), Some(libc::EBUSY));
    assert_eq!(relay(a, c), None, "another instead");
    assert_eq!(relay(c, b), None, "it is free again");
    assert_eq!(relay(b, ConnId::from_number(7)), Some(libc::ESTALE));
    listening.event_loop.conn(c).unwrap().abort();
    let stale = listening.event_loop.conn(a).unwrap().relay_to(c);
    assert_eq!(stale.unwrap_err().raw_os_error(), Some(libc::ESTALE));
}
