//! Connects that are given up: by the program, by a stop, by the end of their loop, by a fork.

use std::io::Read;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use omnipoll::{EngineKind, LoopEvent};

use crate::names::{answer_slow_names, slow_lookups};
use crate::outgoing::{Outgoing, SHORT};
use crate::peers::Silent;
use crate::suite::Suite;
use crate::support::expect::LONG;
use crate::support::sys;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(a_connect_that_is_closed_says_so);
    suite.on_each_engine(a_stop_ends_those_in_progress);
    suite.on_each_engine(a_stop_with_time_to_drain_lets_them_finish_or_ends_them);
    suite.on_each_engine(a_dropped_loop_leaves_nothing);
    suite.on_each_engine(a_forked_child_leaves_them_to_its_parent);
}

/// One that is silent, and one whose name is slow.
fn two(outgoing: &mut Outgoing, silent: &Silent) -> [omnipoll::ConnId; 2] {
    let ids = [outgoing.connect(&silent.address.to_string()), outgoing.connect("slow.test:80")];
    let begun = Instant::now();
    while slow_lookups() == 0 {
        assert!(begun.elapsed() < LONG, "no look-up begins");
        outgoing.wait(Duration::from_millis(1));
    }
    ids
}

fn a_connect_that_is_closed_says_so(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let silent = Silent::new();
    let ids = two(&mut outgoing, &silent);
    for id in ids {
        id.close().unwrap();
        let ended = outgoing.failed(id);
        assert_eq!(ended.errno, libc::ECANCELED, "{}", ended.words);
        assert!(ended.words.contains(": cancelled"), "{}", ended.words);
    }
    // Their answers are nobody's.
    answer_slow_names();
    outgoing.wait(SHORT);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let id = outgoing.connect(&format!("slow.test:{}", listener.local_addr().unwrap().port()));
    outgoing.connected(id);
}

fn a_stop_ends_those_in_progress(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let silent = Silent::new();
    let ids = two(&mut outgoing, &silent);
    outgoing.event_loop.handle().stop(Some(Duration::ZERO)).unwrap();
    for id in ids {
        assert_eq!(outgoing.failed(id).errno, libc::ECANCELED);
    }
    let mut events = [LoopEvent::default()];
    assert_eq!(outgoing.event_loop.wait(&mut events, Some(LONG)).unwrap(), 0);
    let error = outgoing.event_loop.connect("127.0.0.1:1", &omnipoll::ConnectOptions::new(), 7).unwrap_err();
    assert!(matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ESTALE)), "{error}");
}

fn a_stop_with_time_to_drain_lets_them_finish_or_ends_them(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let silent = Silent::new();
    let ids = two(&mut outgoing, &silent);
    outgoing.event_loop.handle().stop(Some(SHORT)).unwrap();
    for id in ids {
        assert_eq!(outgoing.failed(id).errno, libc::ECANCELED);
    }
    let mut events = [LoopEvent::default()];
    assert_eq!(outgoing.event_loop.wait(&mut events, Some(LONG)).unwrap(), 0);
}

fn a_dropped_loop_leaves_nothing(engine: EngineKind) {
    let silent = Silent::new();
    let before = sys::open_descriptors();
    let mut outgoing = Outgoing::new(engine);
    let ids = two(&mut outgoing, &silent);
    drop(outgoing);
    for id in ids {
        assert_eq!(id.close().unwrap_err().raw_os_error(), Some(libc::ESTALE));
    }
    assert_eq!(sys::open_descriptors(), before);
    // Its thread has outlived it.
    answer_slow_names();
}

fn a_forked_child_leaves_them_to_its_parent(engine: EngineKind) {
    let mut outgoing = Outgoing::new(engine);
    let silent = Silent::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ids = two(&mut outgoing, &silent);
    let late = outgoing.connect(&format!("slow.test:{}", listener.local_addr().unwrap().port()));
    match sys::fork() {
        sys::Side::Child => {
            let mut events = [LoopEvent::default()];
            let error = outgoing.event_loop.wait(&mut events, Some(LONG)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EOWNERDEAD));
            for address in ["127.0.0.1:1", "localhost:1"] {
                let none = omnipoll::ConnectOptions::new();
                let error = outgoing.event_loop.connect(address, &none, 7).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EOWNERDEAD));
            }
            drop(outgoing);
            // One of its own.
            let mut outgoing = Outgoing::new(engine);
            let id = outgoing.connect(&format!("localhost:{}", listener.local_addr().unwrap().port()));
            outgoing.connected(id);
        }
        sys::Side::Parent(child) => {
            let (mut childs, _) = listener.accept().unwrap();
            let _ = childs.read(&mut [0]);
            child.succeeds();
            answer_slow_names();
            outgoing.connected(late);
            ids[0].close().unwrap();
            assert_eq!(outgoing.failed(ids[0]).errno, libc::ECANCELED);
        }
    }
}
