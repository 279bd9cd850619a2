//! EDGE: reported when it arises; not again until it went away and came back, or more came.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use omnipoll::{Capabilities, EngineKind, Interest, Poller, Ready, Trigger};

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::fds::*;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(the_pipe_experiment_blocks_at_the_second_wait);
    suite.on_each_engine(what_is_ready_when_added_is_an_edge);
    suite.on_each_engine(draining_and_rearming_makes_the_next_edge);
    suite.on_each_engine(what_arrives_between_drain_and_rearm_is_reported);
    suite.on_each_engine(what_arrives_before_the_drain_is_not_lost);
    suite.on_each_engine(room_to_write_is_an_edge);
    suite.on_each_engine(each_direction_has_its_own_edge);
    suite.on_each_engine(modify_reports_what_is_ready_now);
    suite.on_each_engine(an_idle_edge_is_reported_beside_a_busy_one);
    suite.on_each_engine(hang_up_is_reported_once);
    suite.on_each_engine(the_peer_s_close_is_reported_though_nothing_was_drained);
    suite.on_each_engine(an_error_is_reported_though_nothing_was_drained);
    suite.on_each_engine(rearming_an_unregistered_direction_is_ignored);
    suite.on_each_engine(oneshot_and_edge_together_are_a_oneshot);
}

fn read_edge() -> Interest {
    read(Trigger::EDGE)
}

/// `epoll(7)`: 2 kB are written and 1 kB is read between two waits. Under EDGE the second
/// wait blocks, although 1 kB is left.
fn the_pipe_experiment_blocks_at_the_second_wait(kind: EngineKind) {
    let poller = poller(kind);
    let (mut reader, mut writer) = pipe();
    poller.add(&reader, read_edge(), 1).unwrap();
    writer.write_all(&[0; 2048]).unwrap();
    expect_event(&poller, 1, Ready::READ);
    reader.read_exact(&mut [0; 1024]).unwrap();
    expect_quiet(&poller);
}

fn what_is_ready_when_added_is_an_edge(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    write_byte(&writer);
    poller.add(&reader, read_edge(), 1).unwrap();
    expect_event(&poller, 1, Ready::READ);
    expect_none(&poller);
}

/// A peer's poll(2) engine gave no second edge to a program that drained by itself.
fn draining_and_rearming_makes_the_next_edge(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read_edge(), 1).unwrap();
    for _ in 0..1000 {
        write_byte(&writer);
        expect_event(&poller, 1, Ready::READ);
        assert_eq!(drain(&reader), 1);
        poller.rearm(&reader, Interest::READ).unwrap();
        assert!(wait(&poller, 1, Duration::ZERO).is_empty());
    }
}

fn what_arrives_between_drain_and_rearm_is_reported(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read_edge(), 1).unwrap();
    write_byte(&writer);
    expect_event(&poller, 1, Ready::READ);
    drain(&reader);
    write_byte(&writer);
    poller.rearm(&reader, Interest::READ).unwrap();
    expect_event(&poller, 1, Ready::READ);
}

/// Whether more of the same is an edge of its own is up to the engine; that a thread that drains
/// gets all of it, and that the edge after that is reported, is not.
fn what_arrives_before_the_drain_is_not_lost(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read_edge(), 1).unwrap();
    write_byte(&writer);
    expect_event(&poller, 1, Ready::READ);
    write_byte(&writer);
    wait(&poller, 1, Duration::ZERO);
    assert_eq!(drain(&reader), 2);
    poller.rearm(&reader, Interest::READ).unwrap();
    expect_none(&poller);
    write_byte(&writer);
    expect_event(&poller, 1, Ready::READ);
}

fn room_to_write_is_an_edge(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&writer, Interest::WRITE | Trigger::EDGE, 1).unwrap();
    expect_event(&poller, 1, Ready::WRITE);
    expect_quiet(&poller);
    for _ in 0..3 {
        fill(&writer);
        poller.rearm(&writer, Interest::WRITE).unwrap();
        expect_none(&poller);
        drain(&reader);
        expect_event(&poller, 1, Ready::WRITE);
        expect_none(&poller);
    }
}

/// A reader that waits for more must get it while the writing side's edge is spent.
fn each_direction_has_its_own_edge(kind: EngineKind) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    poller.add(&ours, Interest::READ | Interest::WRITE | Trigger::EDGE, 1).unwrap();
    expect_event(&poller, 1, Ready::WRITE);
    for _ in 0..3 {
        write_byte(&theirs);
        let events = next(&poller);
        assert!(tokens(&events) == [1] && events[0].is_readable(), "{events:?}");
        drain(&ours);
        poller.rearm(&ours, Interest::READ).unwrap();
        expect_none(&poller);
    }
    fill(&ours);
    poller.rearm(&ours, Interest::WRITE).unwrap();
    expect_none(&poller);
    drain(&theirs);
    let events = next(&poller);
    assert!(tokens(&events) == [1] && events[0].is_writable(), "{events:?}");
}

fn modify_reports_what_is_ready_now(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read_edge(), 1).unwrap();
    write_byte(&writer);
    expect_event(&poller, 1, Ready::READ);
    for token in 2..5 {
        expect_none(&poller);
        poller.modify(&reader, read_edge(), token).unwrap();
        expect_event(&poller, token, Ready::READ);
    }
}

/// An edge that was not drained must neither hide another's nor come back with it.
fn an_idle_edge_is_reported_beside_a_busy_one(kind: EngineKind) {
    let poller = poller(kind);
    let ((idle, idle_writer), (busy, busy_writer)) = (pipe(), pipe());
    poller.add(&idle, read_edge(), 1).unwrap();
    poller.add(&busy, read_edge(), 2).unwrap();
    write_byte(&idle_writer);
    expect_event(&poller, 1, Ready::READ);
    for _ in 0..10 {
        write_byte(&busy_writer);
        expect_event(&poller, 2, Ready::READ);
        drain(&busy);
        poller.rearm(&busy, Interest::READ).unwrap();
    }
    drain(&idle);
    poller.rearm(&idle, Interest::READ).unwrap();
    write_byte(&idle_writer);
    expect_event(&poller, 1, Ready::READ);
}

/// `poll(2)` reports a hang-up whether asked to or not, for as long as anything is watched: of
/// directions that it says nothing of, too. That must not make a wait spin.
fn hang_up_is_reported_once(kind: EngineKind) {
    let gone = Ready::READ | Ready::READ_CLOSED | Ready::HANGUP;
    for others in [Interest::READ, Interest::PRIORITY] {
        let poller = poller(kind);
        let (ours, theirs) = pair();
        poller.add(&ours, read_edge() | others, 1).unwrap();
        drop(theirs);
        expect_event(&poller, 1, gone);
        expect_quiet(&poller);
        poller.modify(&ours, read_edge() | others, 2).unwrap();
        expect_event(&poller, 2, gone);
    }
}

/// One event comes, with these flags, if the engine can distinguish them, and then no more.
#[track_caller]
fn expect_end(poller: &Poller, ends: Ready, can: Capabilities) {
    if poller.capabilities().contains(can) {
        let events = next(poller);
        assert!(tokens(&events) == [1] && events[0].ready().contains(ends), "{events:?}");
    }
    expect_quiet(poller);
}

/// Every direction has been reported, and nothing is read: the peer's half-close and its end are new.
fn the_peer_s_close_is_reported_though_nothing_was_drained(kind: EngineKind) {
    for others in [Interest::READ, Interest::WRITE] {
        let poller = poller(kind);
        let (ours, theirs) = pair();
        write_byte(&theirs);
        poller.add(&ours, read_edge() | others, 1).unwrap();
        let room = if others == Interest::WRITE { Ready::WRITE } else { Ready::READ };
        expect_event(&poller, 1, Ready::READ | room);
        expect_quiet(&poller);
        theirs.shutdown(Shutdown::Write).unwrap();
        expect_end(&poller, Ready::READ | Ready::READ_CLOSED, Capabilities::REPORTS_READ_CLOSED);
        drop(theirs);
        expect_end(&poller, Ready::READ | Ready::HANGUP, Capabilities::REPORTS_HANGUP);
    }
}

/// Of a writer alone, too, and of a connection that is reset.
fn an_error_is_reported_though_nothing_was_drained(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&writer, Interest::WRITE | Trigger::EDGE, 1).unwrap();
    expect_event(&poller, 1, Ready::WRITE);
    expect_quiet(&poller);
    drop(reader);
    expect_end(&poller, Ready::WRITE | Ready::ERROR, Capabilities::REPORTS_HANGUP);
    poller.remove(&writer).unwrap();

    let (ours, theirs) = tcp();
    write_byte(&ours);
    write_byte(&theirs);
    poller.add(&ours, read_edge() | Interest::WRITE, 1).unwrap();
    until(&poller, &ours, read_edge() | Interest::WRITE, 1, Ready::READ | Ready::WRITE);
    expect_quiet(&poller);
    // What it has not read makes its close a reset.
    drop(theirs);
    expect_end(&poller, Ready::READ | Ready::ERROR, Capabilities::REPORTS_HANGUP);
}

fn rearming_an_unregistered_direction_is_ignored(kind: EngineKind) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    poller.add(&ours, read_edge(), 1).unwrap();
    poller.rearm(&ours, Interest::READ | Interest::WRITE | Interest::PRIORITY).unwrap();
    expect_none(&poller);
    poller.modify(&ours, Interest::READ, 1).unwrap();
    write_byte(&theirs);
    poller.rearm(&ours, Interest::WRITE).unwrap();
    expect_event(&poller, 1, Ready::READ);
    expect_event(&poller, 1, Ready::READ);
}

fn oneshot_and_edge_together_are_a_oneshot(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    let both = read(Trigger::EDGE | Trigger::ONESHOT);
    poller.add(&reader, both, 1).unwrap();
    write_byte(&writer);
    expect_event(&poller, 1, Ready::READ);
    drain(&reader);
    write_byte(&writer);
    expect_quiet(&poller);
    expect_error(poller.rearm(&reader, Interest::READ), libc::EINVAL);
    poller.modify(&reader, both, 2).unwrap();
    expect_event(&poller, 2, Ready::READ);
}
