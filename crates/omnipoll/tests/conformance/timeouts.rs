//! Timeouts: in nanoseconds, on the monotonic clock, never early, whatever happens meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use omnipoll::{EngineKind, Events, Interest, Poller, Ready, Trigger};

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::{fds::*, sys};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(never_early);
    suite.on_each_engine(a_deadline_is_never_early);
    suite.on_each_engine(two_in_a_row_are_each_whole);
    suite.on_each_engine(finer_than_a_millisecond);
    suite.on_each_engine(a_kernel_without_epoll_pwait2);
    suite.on_each_engine(zero_looks_and_returns);
    suite.on_each_engine(none_waits_until_something_happens);
    suite.on_each_engine(the_longest_timeout_waits_indefinitely);
    suite.on_each_engine(changes_by_other_threads_neither_restart_nor_end_it);
    suite.on_each_engine(a_storm_of_signals_makes_nothing_early_and_loses_nothing);
    suite.on_each_engine(what_comes_as_time_runs_out_is_not_lost);
}

/// A wait for nothing, which must last its time.
#[track_caller]
fn pass(poller: &Poller, timeout: Duration) {
    let begun = Instant::now();
    let events = wait(poller, 8, timeout);
    let passed = begun.elapsed();
    assert_eq!(events, []);
    assert!(passed >= timeout, "{timeout:?} was up after {passed:?}");
}

/// epoll_wait(2) counts milliseconds: rounding to the nearest would be early.
fn never_early(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, _writer) = pipe();
    for watches in [false, true] {
        if watches {
            poller.add(&reader, Interest::READ, 1).unwrap();
        }
        for nanoseconds in [1, 999, 1_000, 100_000, 500_000, 999_999, 1_000_001, 1_500_000, 20_000_001] {
            (0..5).for_each(|_| pass(&poller, Duration::from_nanos(nanoseconds)));
        }
    }
}

fn a_deadline_is_never_early(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, Interest::READ, 1).unwrap();
    let mut events = Events::with_capacity(8);
    for milliseconds in [1, 10] {
        let deadline = Instant::now() + Duration::from_millis(milliseconds);
        assert_eq!(poller.wait_deadline(&mut events, deadline).unwrap(), 0);
        assert!(Instant::now() >= deadline);
        // It has passed: the wait does not block, and finds what there is.
        assert_eq!(poller.wait_deadline(&mut events, deadline).unwrap(), 0);
        write_byte(&writer);
        assert_eq!(poller.wait_deadline(&mut events, deadline).unwrap(), 1);
        drain(&reader);
    }
}

fn two_in_a_row_are_each_whole(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read(Trigger::ONESHOT), 1).unwrap();
    for _ in 0..5 {
        pass(&poller, Duration::from_millis(10));
        pass(&poller, Duration::from_millis(10));
        write_byte(&writer);
        expect_event(&poller, 1, Ready::READ);
        pass(&poller, Duration::from_millis(10));
        drain(&reader);
        poller.modify(&reader, read(Trigger::ONESHOT), 1).unwrap();
    }
}

/// Once in many tries, a wait for a tenth of a millisecond is over before a whole one has
/// passed: however busy the machine, it can't be if the engine counts milliseconds.
fn finer_than_a_millisecond(kind: EngineKind) {
    if kind == EngineKind::Epoll && !sys::has_epoll_pwait2() {
        // There the engine counts milliseconds, rounded up: `never_early` is what holds.
        return pass(&poller(kind), Duration::from_micros(100));
    }
    let poller = poller(kind);
    let is_fine = |_| {
        let begun = Instant::now();
        pass(&poller, Duration::from_micros(100));
        begun.elapsed() < Duration::from_millis(1)
    };
    assert!((0..5000).any(is_fine));
}

/// Before Linux 5.11, and where a filter of system calls is older than it, epoll counts
/// milliseconds: rounded up, or the last one would be spent spinning.
fn a_kernel_without_epoll_pwait2(kind: EngineKind) {
    for errno in [libc::ENOSYS, libc::EPERM] {
        let early = poller(kind);
        pass(&early, Duration::from_micros(100));
        sys::forbid(libc::SYS_epoll_pwait2, errno);
        for poller in [early, poller(kind)] {
            for nanoseconds in [1, 100_000, 999_999, 1_000_001, 5_500_000] {
                pass(&poller, Duration::from_nanos(nanoseconds));
            }
            expect_sleep(|| (0..100).for_each(|_| pass(&poller, Duration::from_micros(900))));
            let (reader, writer) = pipe();
            poller.add(&reader, Interest::READ, 1).unwrap();
            write_byte(&writer);
            expect_event(&poller, 1, Ready::READ);
            poller.remove(&reader).unwrap();
            ends_only_when_woken(&poller, Duration::MAX);
        }
    }
}

fn zero_looks_and_returns(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, Interest::READ, 1).unwrap();
    for _ in 0..100 {
        assert_eq!(wait(&poller, 8, Duration::ZERO), []);
    }
    write_byte(&writer);
    assert_eq!(tokens(&wait(&poller, 8, Duration::ZERO)), [1]);
    poller.wake().unwrap();
    let events = wait(&poller, 8, Duration::ZERO);
    assert_eq!((tokens(&events), wakes(&events)), (vec![1], 1));
}

/// A wait without end that others end, by what it watches and by a wake.
#[track_caller]
fn ends_only_when_woken(poller: &Poller, timeout: impl Into<Option<Duration>> + Copy) {
    let (reader, writer) = pipe();
    poller.add(&reader, read(Trigger::ONESHOT), 1).unwrap();
    for expected in [vec![1], vec![]] {
        std::thread::scope(|scope| {
            let waiter = waiter(scope, poller, timeout);
            match expected.is_empty() {
                true => poller.wake().unwrap(),
                false => write_byte(&writer),
            }
            assert_eq!(tokens(&waiter.events()), expected);
        });
    }
    poller.remove(&reader).unwrap();
}

fn none_waits_until_something_happens(kind: EngineKind) {
    ends_only_when_woken(&poller(kind), None);
}

fn the_longest_timeout_waits_indefinitely(kind: EngineKind) {
    let poller = poller(kind);
    let absurd = [
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        Duration::from_secs(i64::MAX as u64),
        Duration::from_nanos(u64::MAX),
        Duration::from_nanos(i64::MAX as u64),
        Duration::from_millis(u32::MAX.into()),
        Duration::from_secs(u32::MAX.into()),
    ];
    for timeout in absurd {
        ends_only_when_woken(&poller, timeout);
    }
}

/// In a peer's poll(2) engine every registration by another thread restarted the timeout:
/// here one registers without a pause for as long as the wait lasts.
fn changes_by_other_threads_neither_restart_nor_end_it(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    let (idle, _idle_writer) = pipe();
    poller.add(&idle, Interest::READ, 1).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| pass(&poller, Duration::from_millis(200)));
        while !waiter.is_finished() {
            poller.add(&reader, Interest::READ, 2).unwrap();
            poller.modify(&reader, read(Trigger::EDGE), 3).unwrap();
            poller.rearm(&reader, Interest::READ).unwrap();
            poller.remove(&reader).unwrap();
        }
        waiter.join().unwrap();
    });
    write_byte(&writer);
    expect_none(&poller);
}

static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_signal: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// A signal every 100 us for a second, each of which ends the system call in progress.
fn a_storm_of_signals_makes_nothing_early_and_loses_nothing(kind: EngineKind) {
    let poller = poller(kind);
    let (once, once_writer) = pipe();
    let (edge, edge_writer) = pipe();
    poller.add(&once, read(Trigger::ONESHOT), 1).unwrap();
    poller.add(&edge, read(Trigger::EDGE), 2).unwrap();
    sys::on_signal(libc::SIGUSR1, count);
    sys::send_every(Duration::from_micros(100), libc::SIGUSR1);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        pass(&poller, Duration::from_millis(3));
        write_byte(&once_writer);
        expect_event(&poller, 1, Ready::READ);
        assert_eq!(drain(&once), 1);
        poller.modify(&once, read(Trigger::ONESHOT), 1).unwrap();
        write_byte(&edge_writer);
        poller.wake().unwrap();
        let events = next(&poller);
        assert_eq!((tokens(&events), wakes(&events)), (vec![2], 1), "{events:?}");
        assert_eq!(drain(&edge), 1);
        poller.rearm(&edge, Interest::READ).unwrap();
    }
    assert!(SIGNALS.load(Ordering::Relaxed) > 10, "there was no storm");
}

/// Readiness and the end of the wait fall together: the event is reported by this wait or the next.
fn what_comes_as_time_runs_out_is_not_lost(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read(Trigger::ONESHOT), 1).unwrap();
    for round in 0..300 {
        let timeout = Duration::from_micros(50 + round % 100);
        std::thread::scope(|scope| {
            let begun = Instant::now();
            scope.spawn(|| {
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_micros(50) {}
                write_byte(&writer);
            });
            let events = wait(&poller, 8, timeout);
            match tokens(&events)[..] {
                [] => assert!(begun.elapsed() >= timeout),
                _ => assert_eq!(tokens(&events), [1]),
            }
            if events.is_empty() {
                expect_event(&poller, 1, Ready::READ);
            }
        });
        expect_none(&poller);
        drain(&reader);
        poller.modify(&reader, read(Trigger::ONESHOT), 1).unwrap();
    }
}
