//! Many descriptors, high descriptors, many pollers.

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use omnipoll::{EngineKind, Interest, Poller, Ready, Trigger};

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::{fds::*, sys};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_trigger(a_descriptor_past_a_thousand);
    suite.on_each_trigger(a_descriptor_at_a_hundred_thousand);
    suite.on_each_trigger(twenty_thousand_descriptors);
    suite.on_each_engine(two_thousand_pollers_leave_nothing_open);
    suite.on_each_engine(a_poller_that_is_used_for_long);
}

/// select(2) as libc has it ends at 1,023.
fn a_descriptor_past_a_thousand(kind: EngineKind, trigger: Trigger) {
    for number in [1023, 1024, 1025, 5000] {
        high(kind, trigger, number);
    }
}

fn a_descriptor_at_a_hundred_thousand(kind: EngineKind, trigger: Trigger) {
    high(kind, trigger, 100_000);
}

fn high(kind: EngineKind, trigger: Trigger, number: i32) {
    let number = sys::allow_descriptors(number as u64 + 1) as i32 - 1;
    let poller = poller(kind);
    let ((low, low_writer), (reader, writer)) = (pipe(), pipe());
    let high = sys::dup_to(&reader, number);
    poller.add(&low, read(trigger), 1).unwrap();
    poller.add(&high, read(trigger), 2).unwrap();
    for _ in 0..2 {
        expect_none(&poller);
        write_byte(&writer);
        expect_event(&poller, 2, Ready::READ);
        drain(&reader);
        acknowledge(&poller, &high, read(trigger), 2);
    }
    poller.remove(&high).unwrap();
    write_byte(&writer);
    write_byte(&low_writer);
    expect_event(&poller, 1, Ready::READ);
    drain(&low);
    acknowledge(&poller, &low, read(trigger), 1);
    poller.add(&high, read(trigger), 3).unwrap();
    expect_event(&poller, 3, Ready::READ);
    poller.modify(&high, Interest::PRIORITY | trigger, 3).unwrap();
    close(high);
    match reports_closed(&poller) {
        true => expect_event(&poller, 3, Ready::INVALID),
        false => poller.remove_raw(number).unwrap(),
    }
    expect_quiet(&poller);
}

fn twenty_thousand_descriptors(kind: EngineKind, trigger: Trigger) {
    let count = (sys::allow_descriptors(20_100) - 100) / 2;
    let poller = poller(kind);
    let pairs: Vec<_> = (0..count).map(|_| pair()).collect();
    for ((ours, theirs), token) in pairs.iter().zip(0..) {
        poller.add(ours, read(trigger), token).unwrap();
        poller.add(theirs, read(trigger), count + token).unwrap();
    }
    for few in [vec![0], vec![count - 1], vec![17, 1234, count / 2]] {
        few.iter().for_each(|&token| write_byte(&pairs[token as usize].1));
        expect_events(&poller, &few.iter().map(|&token| (token, Ready::READ)).collect::<Vec<_>>());
        few.iter().for_each(|&token| expect_sleep(&poller, &pairs, trigger, token));
        assert_eq!(wait(&poller, 8, Duration::ZERO), []);
    }
    pairs.iter().for_each(|(_, theirs)| write_byte(theirs));
    let mut found = BTreeSet::new();
    while found.len() < pairs.len() {
        for token in tokens(&wait(&poller, 512, LONG)) {
            assert!(found.insert(token), "{token} came twice");
            expect_sleep(&poller, &pairs, trigger, token);
        }
    }
    assert!(found.into_iter().eq(0..count));
    expect_none(&poller);
    for (ours, theirs) in &pairs {
        poller.remove(ours).unwrap();
        poller.remove(theirs).unwrap();
    }
    expect_none(&poller);
}

fn expect_sleep(poller: &Poller, pairs: &[(UnixStream, UnixStream)], trigger: Trigger, token: u64) {
    let ours = &pairs[token as usize].0;
    assert_eq!(drain(ours), 1);
    acknowledge(poller, ours, read(trigger), token);
}

fn two_thousand_pollers_leave_nothing_open(kind: EngineKind) {
    let (reader, writer) = pipe();
    write_byte(&writer);
    drop(poller(kind));
    let before = sys::open_descriptors();
    for round in 0..2000 {
        let poller = poller(kind);
        poller.add(&reader, read(Trigger::EDGE), 1).unwrap();
        poller.add(&writer, Interest::WRITE, 2).unwrap();
        match round % 3 {
            0 => expect_events(&poller, &[(1, Ready::READ), (2, Ready::WRITE)]),
            1 => poller.wake().unwrap(),
            _ => {}
        }
    }
    assert_eq!(sys::open_descriptors(), before);
    assert!(sys::is_open(reader.as_raw_fd()) && sys::is_open(writer.as_raw_fd()));
}

/// Many lives of the same few numbers: each has its own token and no other's events.
fn a_poller_that_is_used_for_long(kind: EngineKind) {
    let poller = poller(kind);
    let (idle, _idle_writer) = pipe();
    poller.add(&idle, Interest::READ, u64::MAX).unwrap();
    for life in 0..20_000 {
        let (reader, writer) = pipe();
        poller.add(&reader, read(Trigger::ONESHOT), life).unwrap();
        write_byte(&writer);
        if life % 2 == 0 {
            assert_eq!(tokens(&wait(&poller, 8, LONG)), [life]);
        }
        poller.remove(&reader).unwrap();
    }
    expect_none(&poller);
}
