//! Names: those that have no address, and those that take long.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use omnipoll::{ConnectOptions, EngineKind};

use crate::names::{answer_slow_names, slow_lookups};
use crate::outgoing::{Outgoing, SHORT};
use crate::suite::Suite;
use crate::support::expect::LONG;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(a_name_without_address_says_so);
    suite.on_each_engine(a_slow_name_is_connected_to_in_the_end);
    suite.on_each_engine(the_time_limit_ends_a_slow_look_up);
    suite.on_each_engine(quick_names_do_not_wait_behind_slow_ones_that_were_given_up);
    suite.on_each_engine(names_wait_for_their_turn);
}

fn a_name_without_address_says_so(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let ended = outgoing.fails("no-such-name.invalid:80");
    assert_eq!(ended.errno, libc::EADDRNOTAVAIL);
    let begin = "connect no-such-name.invalid:80: failed to lookup address information: ";
    assert!(ended.words.starts_with(begin), "{}", ended.words);
}

fn a_slow_name_is_connected_to_in_the_end(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let slow = outgoing.connect(&format!("slow.test:{}", address.port()));
    // The loop does other things meanwhile.
    let quick = outgoing.connect(&address.to_string());
    outgoing.connected(quick);
    answer_slow_names();
    outgoing.connected(slow);
}

fn the_time_limit_ends_a_slow_look_up(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let begun = Instant::now();
    let id = outgoing.connect_with("slow.test:80", &ConnectOptions::new().timeout(SHORT));
    let ended = outgoing.failed(id);
    assert!(begun.elapsed() >= SHORT);
    assert_eq!(ended.errno, libc::ETIMEDOUT);
    assert_eq!(ended.words, "connect slow.test:80: the name was not resolved within 100ms");
    answer_slow_names();
}

fn quick_names_do_not_wait_behind_slow_ones_that_were_given_up(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for _ in 0..2 {
        let options = ConnectOptions::new().timeout(SHORT);
        let slow: Vec<_> = (0..20).map(|_| outgoing.connect_with("slow.test:80", &options)).collect();
        let quick = outgoing.connect(&format!("localhost:{port}"));
        for id in slow {
            assert_eq!(outgoing.failed(id).errno, libc::ETIMEDOUT);
        }
        outgoing.connected(quick);
        drop(listener.accept().unwrap());
    }
}

fn names_wait_for_their_turn(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let address = outgoing.event_loop.listen("127.0.0.1:0", 1).unwrap();
    let port = address.rsplit(':').next().unwrap().to_owned();
    let options = ConnectOptions::new().timeout(Duration::from_secs(300));
    let ids: Vec<_> =
        (0..200).map(|_| outgoing.connect_with(&format!("slow.test:{port}"), &options)).collect();
    let begun = Instant::now();
    while slow_lookups() < 10 {
        assert!(begun.elapsed() < LONG, "{} look-ups have begun", slow_lookups());
        outgoing.wait(Duration::from_millis(1));
    }
    assert!(slow_lookups() <= 16, "a thread for each name");
    answer_slow_names();
    ids.into_iter().for_each(|id| outgoing.connected(id));
}
