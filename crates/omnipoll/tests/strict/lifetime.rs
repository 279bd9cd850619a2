//! Registrations that outlive their descriptor, or their poller.

use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime};

use omnipoll::{EngineKind, Event, FindingKind, Interest, Ready, Trigger};

use crate::suite::Suite;
use crate::support::expect::*;
use crate::support::fds::*;
use crate::support::sys::dup_to;
use crate::Strict;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_trigger(closed_while_registered);
    suite.on_each_engine(closed_during_a_wait);
    suite.on_each_engine(closed_and_then_removed);
    suite.on_each_engine(a_reused_fd);
    suite.on_each_engine(a_reused_fd_after_it_was_reported);
    suite.on_each_engine(a_fd_added_again);
    suite.on_each_engine(removed_before_it_is_closed);
    suite.on_each_engine(left_in_the_poller);
    suite.on_each_engine(left_in_the_poller_and_closed);
    suite.on_each_engine(descriptors_the_poller_opened_itself);
}

fn look(strict: &Strict) -> Vec<Event> {
    wait(strict, 8, Duration::ZERO)
}

fn closed_while_registered(kind: EngineKind, trigger: Trigger) {
    let strict = Strict::on(kind);
    let (reader, _writer) = pipe();
    strict.add(&reader, Interest::READ | trigger, 7).unwrap();
    let number = close(reader);
    let invalid = look(&strict).iter().any(|event| event.ready() == Ready::INVALID);
    assert_eq!(invalid, reports_closed(&strict));
    strict.found.expect(FindingKind::Closed, &number, 7);
    for _ in 0..3 {
        assert!(look(&strict).is_empty());
    }
    strict.end().expect_nothing();
}

fn closed_during_a_wait(kind: EngineKind) {
    let strict = Strict::on(kind);
    let (reader, writer) = pipe();
    strict.add(&reader, Interest::READ, 7).unwrap();
    let number = std::thread::scope(|scope| {
        let waiter = waiter(scope, &strict, LONG);
        let number = close(reader);
        strict.wake().unwrap();
        waiter.events();
        number
    });
    look(&strict);
    strict.found.expect(FindingKind::Closed, &number, 7);
    drop(writer);
    look(&strict);
    strict.end().expect_nothing();
}

fn closed_and_then_removed(kind: EngineKind) {
    let strict = Strict::on(kind);
    let (reader, _writer) = pipe();
    strict.add(&reader, Interest::READ, 7).unwrap();
    let number = close(reader);
    strict.remove_raw(number).unwrap();
    strict.found.expect(FindingKind::Closed, &number, 7);
    strict.end().expect_nothing();
}

fn a_reused_fd(kind: EngineKind) {
    let strict = Strict::on(kind);
    let ((old, _old_writer), (new, _new_writer)) = (pipe(), pipe());
    strict.add(&old, Interest::READ, 7).unwrap();
    let number = close(old);
    let _again = dup_to(&new, number);
    look(&strict);
    strict.found.expect(FindingKind::Reused, &number, 7);
    for _ in 0..3 {
        look(&strict);
    }
    let _ = strict.remove_raw(number);
    strict.end().expect_nothing();
}

/// To be closed and to be used again is one mistake.
fn a_reused_fd_after_it_was_reported(kind: EngineKind) {
    let strict = Strict::on(kind);
    let ((old, _old_writer), (new, _new_writer)) = (pipe(), pipe());
    strict.add(&old, Interest::READ, 7).unwrap();
    let number = close(old);
    look(&strict);
    strict.found.expect(FindingKind::Closed, &number, 7);
    let again = dup_to(&new, number);
    look(&strict);
    let _ = strict.remove_raw(number);
    strict.add(&again, Interest::READ, 8).unwrap();
    look(&strict);
    strict.remove(&again).unwrap();
    strict.end().expect_nothing();
}

fn a_fd_added_again(kind: EngineKind) {
    let strict = Strict::on(kind);
    let ((old, _old_writer), (new, _new_writer)) = (pipe(), pipe());
    strict.add(&old, Interest::READ, 7).unwrap();
    let number = close(old);
    let again = dup_to(&new, number);
    strict.add(&again, Interest::READ, 8).unwrap();
    strict.found.expect(FindingKind::Reused, &number, 7);
    look(&strict);
    strict.remove(&again).unwrap();
    strict.end().expect_nothing();
}

fn removed_before_it_is_closed(kind: EngineKind) {
    let strict = Strict::on(kind);
    let mut numbers = Vec::new();
    for token in 0..20 {
        let (reader, writer) = pipe();
        strict.add(&reader, Interest::READ, token).unwrap();
        write_byte(&writer);
        expect_event(&strict, token, Ready::READ);
        strict.remove(&reader).unwrap();
        numbers.push(reader.as_raw_fd());
    }
    numbers.dedup();
    assert_eq!(numbers.len(), 1, "the number was to be used again");
    strict.end().expect_nothing();
}

fn left_in_the_poller(kind: EngineKind) {
    let strict = Strict::on(kind);
    let ((reader, _writer), (removed, _other)) = (pipe(), pipe());
    strict.add(&reader, Interest::READ, 7).unwrap();
    strict.add(&removed, Interest::READ, 8).unwrap();
    strict.remove(&removed).unwrap();
    strict.found.expect_nothing();
    strict.end().expect(FindingKind::Leaked, &reader, 7);
}

/// The descriptor is the earlier mistake; once it is said, the end of the poller adds nothing.
fn left_in_the_poller_and_closed(kind: EngineKind) {
    let strict = Strict::on(kind);
    let ((unseen, _writer), (seen, _other)) = (pipe(), pipe());
    strict.add(&seen, Interest::READ, 8).unwrap();
    let number = close(seen);
    look(&strict);
    strict.found.expect(FindingKind::Closed, &number, 8);
    strict.add(&unseen, Interest::READ, 7).unwrap();
    let number = close(unseen);
    strict.end().expect(FindingKind::Closed, &number, 7);
}

fn descriptors_the_poller_opened_itself(kind: EngineKind) {
    let strict = Strict::on(kind);
    let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
    strict.child_add(child.id() as i32, 1).unwrap();
    strict.timer_add(LONG, None, 2).unwrap();
    strict.timer_add_at(SystemTime::now() + LONG, 3).unwrap();
    strict.signal_add(libc::SIGUSR1, 4).unwrap();
    strict.post(5, 6).unwrap();
    assert_eq!(look(&strict).len(), 1);
    assert!(look(&strict).is_empty());
    strict.end().expect_nothing();
    drop(child.stdin.take());
    child.wait().unwrap();
}
