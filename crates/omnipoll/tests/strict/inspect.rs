//! Stats and dump.

use std::time::{Duration, SystemTime};

use omnipoll::{EngineKind, Interest, Poller, Ready, Trigger};

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::fds::*;
use crate::Strict;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(stats_count_what_there_is);
    suite.on_each_engine(stats_count_waits_and_events);
    suite.on_each_engine(stats_count_the_same_when_strict);
    suite.on_each_engine(stats_distinguish_a_timeout_from_a_spurious_wake_up);
    suite.on_each_engine(stats_of_many_threads_add_up);
    suite.on_each_engine(stats_restart_in_a_child);
    suite.on_each_engine(dump_shows_what_is_registered);
    suite.on_each_engine(dump_shows_what_is_armed);
    suite.on_each_engine(dump_shows_ages_when_strict);
}

fn look(poller: &Poller, capacity: usize) -> usize {
    wait(poller, capacity, Duration::ZERO).len()
}

fn stats_count_what_there_is(kind: EngineKind) {
    let poller = poller(kind);
    assert_eq!(poller.stats().unwrap(), Default::default());
    let pipes: Vec<_> = (0..300).map(|_| pipe()).collect();
    for (reader, _) in &pipes {
        poller.add(reader, Interest::READ, 1).unwrap();
    }
    poller.remove(&pipes[7].0).unwrap();
    poller.timer_add(LONG, None, 1).unwrap();
    let cancelled = poller.timer_add(LONG, None, 2).unwrap();
    poller.timer_cancel(cancelled).unwrap();
    poller.timer_add_at(SystemTime::now() + LONG, 3).unwrap();
    poller.signal_add(libc::SIGUSR1, 4).unwrap();
    (0..5).for_each(|value| poller.post(5, value).unwrap());
    let stats = poller.stats().unwrap();
    assert_eq!((stats.registrations, stats.timers), (299, 2), "the alarm is the poller's own");
    assert_eq!((stats.signals, stats.children, stats.posts), (1, 0, 5));
    look(&poller, 3);
    assert_eq!(poller.stats().unwrap().posts, 2);
}

fn stats_count_waits_and_events(kind: EngineKind) {
    counts_waits_and_events(&poller(kind));
}

fn stats_count_the_same_when_strict(kind: EngineKind) {
    counts_waits_and_events(&Strict::on(kind));
}

fn counts_waits_and_events(poller: &Poller) {
    let ((one, one_writer), (two, two_writer)) = (pipe(), pipe());
    poller.add(&one, Interest::READ, 1).unwrap();
    poller.add(&two, read(Trigger::EDGE), 2).unwrap();
    write_byte(&one_writer);
    write_byte(&two_writer);
    assert_eq!(look(poller, 8), 2);
    for _ in 0..9 {
        assert_eq!(look(poller, 8), 1);
    }
    let stats = poller.stats().unwrap();
    assert_eq!((stats.waits, stats.system_calls, stats.io_events, stats.spurious), (10, 10, 11, 0));
    drain(&one);
    drain(&two);
    poller.wake().unwrap();
    (0..4).for_each(|value| poller.post(3, value).unwrap());
    poller.timer_add(Duration::ZERO, None, 4).unwrap();
    let mut left = 6;
    while left > 0 {
        left -= wait(poller, 1, LONG).len();
    }
    let stats = poller.stats().unwrap();
    assert_eq!((stats.waits, stats.io_events), (16, 11));
    assert_eq!((stats.wake_events, stats.post_events, stats.timer_events), (1, 4, 1));
    assert_eq!((stats.signal_events, stats.child_events), (0, 0));
    assert!(stats.system_calls >= 10, "{stats:?}");
    assert_eq!((poller.remove(&one).is_ok(), poller.remove(&two).is_ok()), (true, true));
}

fn stats_distinguish_a_timeout_from_a_spurious_wake_up(kind: EngineKind) {
    let poller = poller(kind);
    expect_none(&poller);
    let stats = poller.stats().unwrap();
    assert_eq!((stats.waits, stats.spurious, stats.io_events), (2, 0, 0));
    assert!(stats.system_calls >= 2, "{stats:?}");
    std::thread::scope(|scope| {
        let waiter = waiter(scope, &poller, LONG * 2);
        // A sleeping thread must sleep less long now, and has nothing to report yet.
        poller.timer_add(LONG, None, 1).unwrap();
        while poller.stats().unwrap().spurious == 0 {
            std::thread::yield_now();
        }
        poller.wake().unwrap();
        assert_eq!(wakes(&waiter.events()), 1);
    });
    let stats = poller.stats().unwrap();
    assert_eq!((stats.waits, stats.wake_events), (3, 1));
}

fn stats_of_many_threads_add_up(kind: EngineKind) {
    const WAITS: u64 = 500;
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, Interest::READ, 1).unwrap();
    write_byte(&writer);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..WAITS).for_each(|_| expect_event(&poller, 1, Ready::READ)));
        }
    });
    let stats = poller.stats().unwrap();
    assert_eq!((stats.waits, stats.io_events), (4 * WAITS, 4 * WAITS));
}

fn stats_restart_in_a_child(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, Interest::READ, 1).unwrap();
    write_byte(&writer);
    expect_event(&poller, 1, Ready::READ);
    poller.post(1, 1).unwrap();
    look(&poller, 8);
    let child = crate::support::sys::in_child(|| {
        poller.after_fork().unwrap();
        let stats = poller.stats().unwrap();
        assert_eq!((stats.registrations, stats.waits, stats.io_events, stats.post_events), (1, 0, 0, 0));
        expect_event(&poller, 1, Ready::READ);
        let stats = poller.stats().unwrap();
        assert_eq!((stats.waits, stats.io_events), (1, 1));
    });
    child.succeeds();
}

fn dump_shows_what_is_registered(kind: EngineKind) {
    let poller = poller(kind);
    assert!(poller.dump().unwrap().is_empty());
    let ((reader, _writer), (ours, _theirs), (closed, _other)) = (pipe(), pair(), pipe());
    poller.add(&ours, Interest::READ | Interest::WRITE | Trigger::EDGE, u64::MAX).unwrap();
    poller.add(&reader, Interest::READ, 7).unwrap();
    poller.add(&closed, Interest::READ, 8).unwrap();
    poller.timer_add_at(SystemTime::now() + LONG, 3).unwrap();
    let number = close(closed);
    let all = poller.dump().unwrap();
    assert!(all.is_sorted_by_key(|one| one.fd) && all.len() == 3, "the alarm is the poller's own: {all:?}");
    let of = |token| all.iter().find(|one| one.token == token).unwrap();
    assert!(of(7).what.starts_with("pipe:["), "{:?}", of(7));
    assert!(of(u64::MAX).what.starts_with("socket:["), "{:?}", of(u64::MAX));
    assert_eq!((of(8).what.as_str(), of(8).fd), ("closed", number));
    assert_eq!(of(u64::MAX).interest, Interest::READ | Interest::WRITE | Trigger::EDGE);
    assert_eq!((of(7).age, of(7).last_event), (None, None), "not kept unless strict");
    let line = of(7).to_string();
    assert_eq!(line, format!("{} {} token 7 READ armed READ", of(7).fd, of(7).what));
    poller.remove(&ours).unwrap();
    assert_eq!(poller.dump().unwrap().len(), 2);
}

fn dump_shows_what_is_armed(kind: EngineKind) {
    let poller = poller(kind);
    let ((once, once_writer), (edge, edge_writer)) = (pipe(), pipe());
    poller.add(&once, read(Trigger::ONESHOT), 1).unwrap();
    poller.add(&edge, read(Trigger::EDGE), 2).unwrap();
    let armed = || poller.dump().unwrap().iter().map(|one| one.armed).collect::<Vec<_>>();
    assert_eq!(armed(), [Some(Interest::READ), Some(Interest::READ)]);
    write_byte(&once_writer);
    write_byte(&edge_writer);
    expect_events(&poller, &[(1, Ready::READ), (2, Ready::READ)]);
    let native = poller.capabilities().contains(omnipoll::Capabilities::NATIVE_EDGE);
    assert_eq!(armed(), [None, native.then_some(Interest::READ)]);
    assert!(poller.dump().unwrap()[0].to_string().ends_with("token 1 READ|ONESHOT disarmed"));
    poller.rearm(&edge, Interest::READ).unwrap();
    poller.modify(&once, read(Trigger::ONESHOT), 1).unwrap();
    assert_eq!(armed(), [Some(Interest::READ), Some(Interest::READ)]);
}

fn dump_shows_ages_when_strict(kind: EngineKind) {
    let strict = Strict::on(kind);
    let ((old, writer), (young, _other)) = (pipe(), pipe());
    strict.add(&old, Interest::READ, 1).unwrap();
    let one = &strict.dump().unwrap()[0];
    assert!(one.age.is_some() && one.last_event.is_none(), "{one:?}");
    write_byte(&writer);
    expect_event(&strict, 1, Ready::READ);
    strict.add(&young, Interest::READ, 2).unwrap();
    let all = strict.dump().unwrap();
    assert!(all[0].age > all[1].age, "{all:?}");
    let (ready, ago) = all[0].last_event.unwrap();
    assert!(ready == Ready::READ && Some(ago) < all[0].age, "{all:?}");
    assert!(all[0].to_string().contains(" last READ "), "{}", all[0]);
    strict.remove(&old).unwrap();
    strict.remove(&young).unwrap();
    strict.end().expect_nothing();
}
