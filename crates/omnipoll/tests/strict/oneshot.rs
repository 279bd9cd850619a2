//! A ONESHOT that was not re-enabled.

use std::time::Duration;

use omnipoll::{EngineKind, FindingKind, Interest, Ready, Trigger};

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::fds::*;
use crate::Strict;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(forgotten);
    suite.on_each_engine(forgotten_under_edge_too);
    suite.on_each_engine(forgotten_it_is_reported_though_nothing_ends_the_wait);
    suite.on_each_engine(re_enabled_each_time);
    suite.on_each_engine(with_nothing_to_read);
    suite.on_each_engine(with_room_to_write);
    suite.on_each_engine(still_being_served);
}

fn look(strict: &Strict, times: usize) {
    for _ in 0..times {
        assert!(wait(strict, 8, Duration::ZERO).is_empty());
    }
}

fn forgotten(kind: EngineKind) {
    forgotten_under(kind, Trigger::ONESHOT);
}

fn forgotten_under_edge_too(kind: EngineKind) {
    forgotten_under(kind, Trigger::ONESHOT | Trigger::EDGE);
}

fn forgotten_under(kind: EngineKind, trigger: Trigger) {
    let strict = Strict::on(kind);
    let (reader, writer) = pipe();
    strict.add(&reader, read(trigger), 7).unwrap();
    write_byte(&writer);
    expect_event(&strict, 7, Ready::READ);
    look(&strict, 16);
    strict.found.expect_nothing();
    look(&strict, 20);
    strict.found.expect(FindingKind::ForgottenOneshot, &reader, 7);
    strict.remove(&reader).unwrap();
}

fn forgotten_it_is_reported_though_nothing_ends_the_wait(kind: EngineKind) {
    let strict = Strict::on(kind);
    let (reader, writer) = pipe();
    strict.add(&reader, read(Trigger::ONESHOT), 7).unwrap();
    write_byte(&writer);
    expect_event(&strict, 7, Ready::READ);
    let (sender, reported) = std::sync::mpsc::channel();
    strict.on_finding(Box::new(move |finding| sender.send(finding.kind).unwrap())).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| expect_wake(&strict, 1));
        let kinds = std::iter::from_fn(|| reported.recv_timeout(LONG).ok());
        assert!(kinds.into_iter().any(|kind| kind == FindingKind::ForgottenOneshot));
        strict.wake().unwrap();
        waiter.join().unwrap();
    });
    strict.remove(&reader).unwrap();
}

fn re_enabled_each_time(kind: EngineKind) {
    let strict = Strict::on(kind);
    let (reader, writer) = pipe();
    strict.add(&reader, read(Trigger::ONESHOT), 7).unwrap();
    write_byte(&writer);
    // Without a drain: it is ready all the time.
    for _ in 0..40 {
        expect_event(&strict, 7, Ready::READ);
        strict.modify(&reader, read(Trigger::ONESHOT), 7).unwrap();
    }
    strict.remove(&reader).unwrap();
    strict.end().expect_nothing();
}

fn with_nothing_to_read(kind: EngineKind) {
    let strict = Strict::on(kind);
    let (reader, writer) = pipe();
    strict.add(&reader, read(Trigger::ONESHOT), 7).unwrap();
    write_byte(&writer);
    expect_event(&strict, 7, Ready::READ);
    drain(&reader);
    look(&strict, 40);
    strict.remove(&reader).unwrap();
    strict.end().expect_nothing();
}

fn with_room_to_write(kind: EngineKind) {
    let strict = Strict::on(kind);
    let (ours, _theirs) = pair();
    strict.add(&ours, Interest::WRITE | Trigger::ONESHOT, 7).unwrap();
    expect_event(&strict, 7, Ready::WRITE);
    look(&strict, 40);
    strict.remove(&ours).unwrap();
    strict.end().expect_nothing();
}

/// Another thread serves it, for less than the limit, while this one keeps waiting.
fn still_being_served(kind: EngineKind) {
    let strict = Strict::with_limit(kind, LONG);
    let (reader, writer) = pipe();
    strict.add(&reader, read(Trigger::ONESHOT), 7).unwrap();
    write_byte(&writer);
    expect_event(&strict, 7, Ready::READ);
    look(&strict, 40);
    drain(&reader);
    strict.modify(&reader, read(Trigger::ONESHOT), 7).unwrap();
    strict.remove(&reader).unwrap();
    strict.end().expect_nothing();
}
