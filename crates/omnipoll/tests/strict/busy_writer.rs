//! WRITE under LEVEL while there is nothing to write.

use std::os::fd::AsFd;

use omnipoll::{EngineKind, FindingKind, Interest, Ready};

use crate::suite::Suite;
use crate::support::expect::*;
use crate::support::fds::*;
use crate::Strict;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(with_nothing_to_write);
    suite.on_each_engine(writing_over_tcp_to_a_peer_that_reads_at_once);
    suite.on_each_engine(writing_to_a_peer_that_reads_late);
    suite.on_each_engine(asked_for_only_when_needed);
    suite.on_each_engine(with_something_to_read_as_well);
}

/// More events than it takes to be found.
const MANY: usize = 1_100;

fn with_nothing_to_write(kind: EngineKind) {
    let ((_reader, writer), (ours, _theirs), (client, _server)) = (pipe(), pair(), tcp());
    never_writes(kind, &writer);
    never_writes(kind, &ours);
    never_writes(kind, &client);
}

fn never_writes(kind: EngineKind, to: &impl AsFd) {
    let strict = Strict::on(kind);
    strict.add(to, Interest::WRITE, 7).unwrap();
    for round in 0..MANY {
        expect_event(&strict, 7, Ready::WRITE);
        if round == 900 {
            strict.found.expect_nothing();
        }
    }
    strict.found.expect(FindingKind::BusyWriter, &to.as_fd(), 7);
    for _ in 0..MANY {
        expect_event(&strict, 7, Ready::WRITE);
    }
    strict.remove(to).unwrap();
    strict.end().expect_nothing();
}

fn writing_over_tcp_to_a_peer_that_reads_at_once(kind: EngineKind) {
    let strict = Strict::on(kind);
    let (ours, theirs) = tcp();
    strict.add(&ours, Interest::WRITE, 7).unwrap();
    for _ in 0..MANY {
        expect_event(&strict, 7, Ready::WRITE);
        write_byte(&ours);
        drain(&theirs);
    }
    strict.remove(&ours).unwrap();
    strict.end().expect_nothing();
}

fn writing_to_a_peer_that_reads_late(kind: EngineKind) {
    let ((reader, writer), (ours, theirs)) = (pipe(), pair());
    writes_now_and_then(kind, &writer, &reader);
    writes_now_and_then(kind, &ours, &theirs);
}

fn writes_now_and_then<W, R>(kind: EngineKind, to: &W, from: &R)
where
    W: AsFd,
    for<'a> &'a W: std::io::Write,
    for<'a> &'a R: std::io::Read,
{
    let strict = Strict::on(kind);
    strict.add(to, Interest::WRITE, 7).unwrap();
    for round in 0..MANY {
        expect_event(&strict, 7, Ready::WRITE);
        match round % 100 {
            50 => write_byte(to),
            99 => _ = drain(from),
            _ => {}
        }
    }
    strict.remove(to).unwrap();
    strict.end().expect_nothing();
}

fn asked_for_only_when_needed(kind: EngineKind) {
    let strict = Strict::on(kind);
    let (ours, _theirs) = pair();
    strict.add(&ours, Interest::READ, 7).unwrap();
    for _ in 0..MANY {
        strict.modify(&ours, Interest::READ | Interest::WRITE, 7).unwrap();
        expect_event(&strict, 7, Ready::WRITE);
        strict.modify(&ours, Interest::READ, 7).unwrap();
    }
    strict.remove(&ours).unwrap();
    strict.end().expect_nothing();
}

/// Not the writer keeps the loop busy, but the peer that does not read.
fn with_something_to_read_as_well(kind: EngineKind) {
    let strict = Strict::on(kind);
    let (ours, theirs) = pair();
    write_byte(&theirs);
    strict.add(&ours, Interest::READ | Interest::WRITE, 7).unwrap();
    for _ in 0..MANY {
        expect_event(&strict, 7, Ready::READ | Ready::WRITE);
    }
    strict.remove(&ours).unwrap();
    strict.end().expect_nothing();
}
