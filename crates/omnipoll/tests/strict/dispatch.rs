//! A thread that stays away from its wait.

use std::time::{Duration, Instant};

use omnipoll::{EngineKind, FindingKind, Interest, Ready};

use crate::suite::Suite;
use crate::support::expect::*;
use crate::support::fds::*;
use crate::support::sys::dup_to;
use crate::Strict;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(a_long_dispatch);
    suite.on_each_engine(a_long_dispatch_of_a_removed_descriptor);
    suite.on_each_engine(a_long_dispatch_of_a_batch);
    suite.on_each_engine(a_short_dispatch);
    suite.on_each_engine(a_long_time_after_a_wait_without_events);
    suite.on_each_engine(each_thread_for_itself);
}

const LIMIT: Duration = Duration::from_millis(2);

fn stay_away() -> Duration {
    let begun = Instant::now();
    while begun.elapsed() <= LIMIT {
        std::hint::spin_loop();
    }
    begun.elapsed()
}

fn look(strict: &Strict) -> usize {
    wait(strict, 8, Duration::ZERO).len()
}

fn a_long_dispatch(kind: EngineKind) {
    let strict = Strict::with_limit(kind, LIMIT);
    let (reader, writer) = pipe();
    strict.add(&reader, Interest::READ, 7).unwrap();
    write_byte(&writer);
    expect_event(&strict, 7, Ready::READ);
    let away = stay_away();
    expect_event(&strict, 7, Ready::READ);
    strict.found.expect(FindingKind::BlockedLoop, &reader, 7);
    assert!(strict.stats().unwrap().longest_dispatch >= Some(away));
    stay_away();
    look(&strict);
    strict.found.expect_nothing();
    strict.remove(&reader).unwrap();
}

/// It is not attributed to the file that has the fd now.
fn a_long_dispatch_of_a_removed_descriptor(kind: EngineKind) {
    let strict = Strict::with_limit(kind, LIMIT);
    let ((gone, writer), (next, _next_writer)) = (pipe(), pipe());
    strict.add(&gone, Interest::READ, 7).unwrap();
    write_byte(&writer);
    expect_event(&strict, 7, Ready::READ);
    strict.remove(&gone).unwrap();
    let number = close(gone);
    let next = dup_to(&next, number);
    strict.add(&next, Interest::READ, 8).unwrap();
    stay_away();
    look(&strict);
    strict.found.expect(FindingKind::BlockedLoop, &number, 7);
    strict.remove(&next).unwrap();
    strict.end().expect_nothing();
}

fn a_long_dispatch_of_a_batch(kind: EngineKind) {
    let strict = Strict::with_limit(kind, LIMIT);
    strict.post(1, 1).unwrap();
    strict.post(2, 2).unwrap();
    assert_eq!(look(&strict), 2);
    stay_away();
    look(&strict);
    let findings = strict.found.take();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!((findings[0].kind, findings[0].fd, findings[0].token), (FindingKind::BlockedLoop, -1, 0));
    strict.end().expect_nothing();
}

fn a_short_dispatch(kind: EngineKind) {
    let strict = Strict::with_limit(kind, LONG);
    let (reader, writer) = pipe();
    strict.add(&reader, Interest::READ, 7).unwrap();
    write_byte(&writer);
    for _ in 0..20 {
        expect_event(&strict, 7, Ready::READ);
    }
    strict.remove(&reader).unwrap();
    assert!(strict.stats().unwrap().longest_dispatch > Some(Duration::ZERO));
    strict.end().expect_nothing();
}

fn a_long_time_after_a_wait_without_events(kind: EngineKind) {
    let strict = Strict::with_limit(kind, Duration::ZERO);
    for _ in 0..3 {
        assert_eq!(look(&strict), 0);
        stay_away();
    }
    assert_eq!(strict.stats().unwrap().longest_dispatch, Some(Duration::ZERO));
    strict.end().expect_nothing();
}

/// A thread is not away because another one is, nor from a poller it did not wait on.
fn each_thread_for_itself(kind: EngineKind) {
    let strict = Strict::with_limit(kind, Duration::ZERO);
    let other = Strict::with_limit(kind, Duration::ZERO);
    strict.post(1, 1).unwrap();
    std::thread::scope(|scope| _ = scope.spawn(|| assert_eq!(look(&strict), 1)));
    stay_away();
    assert_eq!(look(&strict), 0);
    strict.post(1, 1).unwrap();
    assert_eq!(look(&strict), 1);
    stay_away();
    assert_eq!(look(&other), 0);
    other.end().expect_nothing();
    strict.end().expect_nothing();
}
