//! Wait policies: what a wait does before it sleeps.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use omnipoll::{EngineKind, EventKind, Events, Interest, Options, Poller, Ready, WaitPolicy};

use crate::suite::Suite;
use crate::support::expect::*;
use crate::support::{fds::*, sys};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(thrifty_reports_together_what_comes_within_its_time);
    suite.on_each_engine(thrifty_lasts_its_time_and_a_look_does_not);
    suite.on_each_engine(thrifty_is_in_time_for_timers_and_its_timeout);
    suite.on_each_engine(thrifty_is_ended_by_a_signal);
    suite.on_each_engine(a_watched_signal_ends_a_thrifty_wait);
    suite.on_each_engine(latency_looks_again_and_again_while_it_spins);
    suite.on_each_engine(latency_sleeps_when_its_time_is_over);
    suite.on_each_engine(latency_loses_no_signal);
    suite.on_each_engine(strict_mode_keeps_the_policy);
}

/// Longer than a case may last.
const HOUR: Duration = Duration::from_secs(3600);

fn with(kind: EngineKind, policy: WaitPolicy) -> Options {
    Options::new().engine(kind).wait_policy(policy)
}

fn thrifty(kind: EngineKind, min_wait: Duration) -> Poller {
    with(kind, WaitPolicy::Thrifty { min_wait }).build().unwrap()
}

/// Before the wait there is one event, and the other comes while it sleeps: any other wait would return the
/// first at once. On a busy machine the second may be too late.
fn thrifty_reports_together_what_comes_within_its_time(kind: EngineKind) {
    let poller = thrifty(kind, Duration::from_millis(100));
    let ((first, to_first), (second, to_second)) = (pipe(), pipe());
    poller.add(&first, Interest::READ, 1).unwrap();
    poller.add(&second, Interest::READ, 2).unwrap();
    let this = sys::thread_id();
    for _ in 0..100 {
        write_byte(&to_first);
        let count = thread::scope(|scope| {
            let writing = scope.spawn(|| {
                sys::wait_until_asleep(this);
                write_byte(&to_second);
            });
            let count = poller.wait(&mut Events::with_capacity(8), None).unwrap();
            while !writing.is_finished() {
                thread::sleep(Duration::from_millis(1));
            }
            count
        });
        if count == 2 {
            return;
        }
        drain(&first);
        drain(&second);
    }
    panic!("they are never reported together");
}

fn thrifty_lasts_its_time_and_a_look_does_not(kind: EngineKind) {
    let min_wait = Duration::from_millis(20);
    let poller = thrifty(kind, min_wait);
    let (reader, writer) = pipe();
    poller.add(&reader, Interest::READ, 1).unwrap();
    write_byte(&writer);
    let begun = Instant::now();
    expect_event(&poller, 1, Ready::READ);
    assert!(begun.elapsed() >= min_wait);
    // What has come besides descriptors is gathered too.
    poller.wake().unwrap();
    let begun = Instant::now();
    assert_eq!(poller.wait(&mut Events::with_capacity(8), None).unwrap(), 2);
    assert!(begun.elapsed() >= min_wait);

    let patient = thrifty(kind, HOUR);
    patient.add(&reader, Interest::READ, 1).unwrap();
    assert_eq!(patient.wait(&mut Events::with_capacity(8), Some(Duration::ZERO)).unwrap(), 1);
}

fn thrifty_is_in_time_for_timers_and_its_timeout(kind: EngineKind) {
    let poller = thrifty(kind, HOUR);
    let (reader, writer) = pipe();
    poller.add(&reader, Interest::READ, 1).unwrap();
    write_byte(&writer);
    poller.timer_add(Duration::from_millis(10), None, 2).unwrap();
    let mut events = Events::with_capacity(8);
    let mut kinds = Vec::new();
    while kinds.last() != Some(&EventKind::Timer) {
        poller.wait(&mut events, None).unwrap();
        kinds.extend(events.iter().map(|event| event.kind()));
        drain(&reader);
    }
    assert_eq!(kinds, [EventKind::Io, EventKind::Timer]);
    assert_eq!(poller.wait(&mut events, Some(Duration::from_millis(10))).unwrap(), 0);
}

fn thrifty_is_ended_by_a_signal(kind: EngineKind) {
    let options = with(kind, WaitPolicy::Thrifty { min_wait: HOUR });
    expect_interrupted(&options.interruptible(true).build().unwrap(), sys::wait_until_asleep);
}

/// What a source has got of the signal is an event.
fn a_watched_signal_ends_a_thrifty_wait(kind: EngineKind) {
    let options = with(kind, WaitPolicy::Thrifty { min_wait: HOUR });
    let poller = options.interruptible(true).build().unwrap();
    poller.signal_add(libc::SIGUSR1, 1).unwrap();
    let this = sys::thread_id();
    thread::scope(|scope| {
        scope.spawn(|| {
            sys::wait_until_asleep(this);
            sys::signal_thread(this, libc::SIGUSR1);
        });
        assert_eq!(wait(&poller, 8, HOUR)[0].kind(), EventKind::Signal);
    });
}

/// Has a wait interrupted by a signal that is sent once `is_time` has returned.
fn expect_interrupted(poller: &Poller, is_time: impl Fn(libc::pid_t) + Sync) {
    extern "C" fn do_nothing(_: libc::c_int) {}
    sys::on_signal(libc::SIGUSR1, do_nothing);
    let this = sys::thread_id();
    thread::scope(|scope| {
        scope.spawn(|| {
            is_time(this);
            sys::signal_thread(this, libc::SIGUSR1);
        });
        expect_error(poller.wait(&mut Events::with_capacity(8), None), libc::EINTR);
    });
}

fn system_calls(poller: &Poller) -> u64 {
    poller.stats().unwrap().system_calls
}

/// Returns when the waits of other threads have made so many system calls more.
fn until_it_has_looked(poller: &Poller, times: u64) {
    let enough = system_calls(poller) + times;
    while system_calls(poller) < enough {
        sys::yield_briefly();
    }
}

fn latency_looks_again_and_again_while_it_spins(kind: EngineKind) {
    let poller = Arc::new(with(kind, WaitPolicy::Latency { spin: HOUR }).build().unwrap());
    let (reader, writer) = pipe();
    poller.add(&reader, Interest::READ, 1).unwrap();
    let looking = poller.clone();
    let other = thread::spawn(move || {
        until_it_has_looked(&looking, 100);
        write_byte(&writer);
        writer
    });
    expect_event(&poller, 1, Ready::READ);
    let stats = poller.stats().unwrap();
    assert_eq!((stats.waits, stats.spurious), (1, 0));
    drain(&reader);

    // A wake and a timer are found too, and so is the end of the time.
    poller.timer_add(Duration::from_millis(1), None, 2).unwrap();
    assert_eq!(wait(&poller, 8, HOUR)[0].kind(), EventKind::Timer);
    poller.wake().unwrap();
    assert_eq!(wait(&poller, 8, HOUR)[0].kind(), EventKind::Wake);
    assert_eq!(poller.wait(&mut Events::with_capacity(8), Some(Duration::from_millis(1))).unwrap(), 0);
    drop(other.join());
}

fn latency_sleeps_when_its_time_is_over(kind: EngineKind) {
    let poller = with(kind, WaitPolicy::Latency { spin: Duration::from_millis(2) }).build().unwrap();
    let (reader, writer) = pipe();
    poller.add(&reader, Interest::READ, 1).unwrap();
    let this = sys::thread_id();
    thread::scope(|scope| {
        scope.spawn(|| {
            sys::wait_until_asleep(this);
            write_byte(&writer);
        });
        expect_event(&poller, 1, Ready::READ);
    });
}

/// A signal whose handler has run between two looks would not end the sleep after them.
fn latency_loses_no_signal(kind: EngineKind) {
    let policy = WaitPolicy::Latency { spin: Duration::from_millis(300) };
    let poller = with(kind, policy).interruptible(true).build().unwrap();
    expect_interrupted(&poller, |thread| {
        // On a busy machine it may not have the time to look so often.
        while system_calls(&poller) < 4 && !sys::is_asleep(thread) {
            sys::yield_briefly();
        }
    });
}

fn strict_mode_keeps_the_policy(kind: EngineKind) {
    let min_wait = Duration::from_millis(20);
    let poller = with(kind, WaitPolicy::Thrifty { min_wait }).strict(true).build().unwrap();
    poller.post(1, 0).unwrap();
    let begun = Instant::now();
    assert_eq!(poller.wait(&mut Events::with_capacity(8), None).unwrap(), 1);
    assert!(begun.elapsed() >= min_wait);
}
