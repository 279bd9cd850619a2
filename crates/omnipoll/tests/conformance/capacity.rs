//! More is ready than fits: nothing is lost, and every descriptor gets its turn.

use std::collections::BTreeSet;
use std::fs::File;
use std::time::Duration;

use omnipoll::{EngineKind, Event, EventKind, Interest, Poller, Ready, Trigger};

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::fds::*;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(none_starves_when_all_stay_ready);
    suite.on_each_engine(one_added_among_busy_ones_does_not_starve);
    suite.on_each_engine(a_wake_among_busy_ones_does_not_starve);
    suite.on_each_engine(busy_ones_do_not_starve_among_wakes);
    suite.on_each_trigger(what_does_not_fit_is_not_lost);
    suite.on_each_engine(a_wake_that_does_not_fit_is_reported_later);
    suite.on_each_engine(a_large_buffer_works);
    suite.on_each_engine(events_are_appended_to_a_list);
}

const BUSY: u64 = 20;

/// Up to the capacity of each wait, after what is there; an error changes nothing.
fn events_are_appended_to_a_list(kind: EngineKind) {
    let poller = poller(kind);
    let _pipes = busy(&poller, Trigger::LEVEL);
    let other = Event::new(EventKind::Post, u64::MAX, 0);
    let mut events = vec![other];
    for (capacity, length) in [(3, 4), (BUSY as usize, 4 + BUSY as usize)] {
        assert_eq!(poller.wait_append(&mut events, capacity, LONG.into()).unwrap(), capacity);
        assert_eq!((events.len(), events[0]), (length, other));
    }
    let before = events.clone();
    expect_error(poller.wait_append(&mut events, 0, None), libc::EINVAL);
    expect_error(poller.wait_append(&mut events, usize::MAX, None), libc::ENOMEM);
    assert_eq!(events, before);
}

/// Pipes that are always ready to read, with tokens from 0 on.
fn busy(poller: &Poller, trigger: Trigger) -> Vec<(File, File)> {
    let pipes: Vec<_> = (0..BUSY).map(|_| pipe()).collect();
    for ((reader, writer), token) in pipes.iter().zip(0..) {
        write_byte(writer);
        poller.add(reader, read(trigger), token).unwrap();
    }
    pipes
}

/// The waits in which every descriptor must have had its turn: twice as many as a perfect rotation of
/// `ready` through room for `capacity` takes.
fn turns(ready: u64, capacity: usize) -> u64 {
    2 * ready.div_ceil(capacity as u64)
}

fn none_starves_when_all_stay_ready(kind: EngineKind) {
    let poller = poller(kind);
    let _pipes = busy(&poller, Trigger::LEVEL);
    for capacity in [1, 3, 7, 19, 20, 21] {
        for _ in 0..3 {
            let waits = (0..turns(BUSY, capacity)).map(|_| wait(&poller, capacity, Duration::ZERO));
            let seen: BTreeSet<_> = waits.flat_map(|events| tokens(&events)).collect();
            assert!(seen.into_iter().eq(0..BUSY), "somebody starved with room for {capacity}");
        }
    }
}

fn one_added_among_busy_ones_does_not_starve(kind: EngineKind) {
    let poller = poller(kind);
    let _pipes = busy(&poller, Trigger::LEVEL);
    let (reader, writer) = pipe();
    poller.add(&reader, Interest::READ, BUSY).unwrap();
    for capacity in [1, 3, 7] {
        for waits in 0..5 {
            (0..waits).for_each(|_| drop(wait(&poller, capacity, Duration::ZERO)));
            write_byte(&writer);
            let mut waits = (0..turns(BUSY + 1, capacity)).map(|_| wait(&poller, capacity, Duration::ZERO));
            assert!(waits.any(|events| tokens(&events).contains(&BUSY)), "starved with room for {capacity}");
            drain(&reader);
        }
    }
}

fn a_wake_among_busy_ones_does_not_starve(kind: EngineKind) {
    let poller = poller(kind);
    let _pipes = busy(&poller, Trigger::LEVEL);
    for capacity in [1, 3, 7] {
        for _ in 0..5 {
            poller.wake().unwrap();
            let mut waits = (0..turns(BUSY + 1, capacity)).map(|_| wait(&poller, capacity, Duration::ZERO));
            assert!(waits.any(|events| wakes(&events) == 1), "the wake starved with room for {capacity}");
        }
    }
}

fn busy_ones_do_not_starve_among_wakes(kind: EngineKind) {
    let poller = poller(kind);
    let _pipes = busy(&poller, Trigger::LEVEL);
    for capacity in [1, 3, 7] {
        let (mut seen, mut woken) = (BTreeSet::new(), 0);
        // With a wake for every wait, every other place may be a wake's.
        let asked = 2 * turns(BUSY, capacity);
        for _ in 0..asked {
            poller.wake().unwrap();
            let events = wait(&poller, capacity, Duration::ZERO);
            woken += wakes(&events);
            seen.extend(tokens(&events));
        }
        assert!(seen.into_iter().eq(0..BUSY), "somebody starved with room for {capacity}");
        woken += wakes(&wait(&poller, 1 + BUSY as usize, Duration::ZERO));
        assert_eq!(woken, asked as i64);
    }
}

/// A peer's poll(2) engine lost the events for which its buffer was too small.
fn what_does_not_fit_is_not_lost(kind: EngineKind, trigger: Trigger) {
    for capacity in [1, 3, 7] {
        let poller = poller(kind);
        let pipes = busy(&poller, trigger);
        let mut found = Vec::new();
        while found.len() < BUSY as usize {
            for token in tokens(&wait(&poller, capacity, LONG)) {
                found.push(token);
                drain(&pipes[token as usize].0);
            }
        }
        found.sort_unstable();
        assert!(found.into_iter().eq(0..BUSY), "not each of them once");
        expect_none(&poller);
    }
}

fn a_wake_that_does_not_fit_is_reported_later(kind: EngineKind) {
    let poller = poller(kind);
    let pipes = busy(&poller, Trigger::ONESHOT);
    (0..3).for_each(|_| poller.wake().unwrap());
    let (mut ios, mut woken) = (0, 0);
    for _ in 0..=BUSY {
        let events = wait(&poller, 1, LONG);
        ios += tokens(&events).len() as u64;
        woken += wakes(&events);
    }
    assert_eq!((ios, woken), (BUSY, 3));
    expect_none(&poller);
    drop(pipes);
}

fn a_large_buffer_works(kind: EngineKind) {
    let poller = poller(kind);
    let (_reader, writer) = pipe();
    poller.add(&writer, Interest::WRITE, 1).unwrap();
    let events = wait(&poller, 1_000_000, LONG);
    assert_eq!(tokens(&events), [1]);
    assert_eq!(events[0].ready(), Ready::WRITE);
}
