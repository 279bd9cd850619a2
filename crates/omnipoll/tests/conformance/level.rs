//! LEVEL: reported by every wait as long as it holds.

use std::io::{Read, Write};

use omnipoll::{EngineKind, Interest, Ready, Trigger};

use crate::suite::Suite;
use crate::support::expect::*;
use crate::support::fds::*;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(the_pipe_experiment_returns_at_the_second_wait);
    suite.on_each_engine(reported_as_long_as_it_holds);
    suite.on_each_engine(several_interests_make_one_event);
    suite.on_each_engine(only_the_requested_interest_is_reported);
    suite.on_each_engine(a_change_of_interest_and_token_counts_for_the_next_wait);
    suite.on_each_trigger(the_new_interest_is_watched_though_it_is_not_ready_yet);
    suite.on_each_engine(removed_means_silent_even_when_ready);
    suite.on_each_engine(many_descriptors_each_with_its_own_token);
}

/// `epoll(7)`: 2 kB are written and 1 kB is read between two waits. Under LEVEL the second
/// wait returns at once.
fn the_pipe_experiment_returns_at_the_second_wait(kind: EngineKind) {
    let poller = poller(kind);
    let (mut reader, mut writer) = pipe();
    poller.add(&reader, Interest::READ, 1).unwrap();
    writer.write_all(&[0; 2048]).unwrap();
    expect_event(&poller, 1, Ready::READ);
    reader.read_exact(&mut [0; 1024]).unwrap();
    expect_event(&poller, 1, Ready::READ);
}

fn reported_as_long_as_it_holds(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, Interest::READ, 7).unwrap();
    expect_none(&poller);
    for _ in 0..3 {
        write_byte(&writer);
        for _ in 0..3 {
            expect_event(&poller, 7, Ready::READ);
        }
        drain(&reader);
        expect_none(&poller);
    }
}

fn several_interests_make_one_event(kind: EngineKind) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    poller.add(&ours, Interest::READ | Interest::WRITE, 3).unwrap();
    expect_event(&poller, 3, Ready::WRITE);
    write_byte(&theirs);
    expect_event(&poller, 3, Ready::READ | Ready::WRITE);
    fill(&ours);
    expect_event(&poller, 3, Ready::READ);
    drain(&ours);
    expect_none(&poller);
    drain(&theirs);
    expect_event(&poller, 3, Ready::WRITE);
}

fn only_the_requested_interest_is_reported(kind: EngineKind) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    write_byte(&theirs);
    poller.add(&ours, Interest::WRITE, 1).unwrap();
    expect_event(&poller, 1, Ready::WRITE);
    poller.modify(&ours, Interest::READ, 1).unwrap();
    expect_event(&poller, 1, Ready::READ);
    poller.modify(&ours, Interest::PRIORITY, 1).unwrap();
    expect_none(&poller);
}

fn a_change_of_interest_and_token_counts_for_the_next_wait(kind: EngineKind) {
    let poller = poller(kind);
    let (ours, _theirs) = pair();
    poller.add(&ours, Interest::READ, 1).unwrap();
    expect_none(&poller);
    poller.modify(&ours, Interest::READ | Interest::WRITE, 2).unwrap();
    expect_event(&poller, 2, Ready::WRITE);
    poller.modify(&ours, Interest::READ, 3).unwrap();
    expect_none(&poller);
}

/// Under every trigger: neither direction is ready when it is asked for.
fn the_new_interest_is_watched_though_it_is_not_ready_yet(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    fill(&ours);
    poller.add(&ours, Interest::READ | trigger, 1).unwrap();
    expect_none(&poller);
    poller.modify(&ours, Interest::WRITE | trigger, 2).unwrap();
    expect_none(&poller);
    drain(&theirs);
    expect_event(&poller, 2, Ready::WRITE);
    fill(&ours);
    poller.modify(&ours, Interest::READ | trigger, 3).unwrap();
    expect_none(&poller);
    write_byte(&theirs);
    expect_event(&poller, 3, Ready::READ);
}

fn removed_means_silent_even_when_ready(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    write_byte(&writer);
    poller.add(&reader, Interest::READ, 1).unwrap();
    expect_event(&poller, 1, Ready::READ);
    poller.remove(&reader).unwrap();
    expect_quiet(&poller);
    poller.add(&reader, Interest::READ, 2).unwrap();
    expect_event(&poller, 2, Ready::READ);
}

fn many_descriptors_each_with_its_own_token(kind: EngineKind) {
    let poller = poller(kind);
    let pipes: Vec<_> = (0..40).map(|_| pipe()).collect();
    for ((reader, _), token) in pipes.iter().zip(100..) {
        poller.add(reader, Interest::READ, token).unwrap();
    }
    for chosen in [0..1, 39..40, 7..23, 0..40] {
        pipes[chosen.clone()].iter().for_each(|(_, writer)| write_byte(writer));
        let expected: Vec<_> = chosen.clone().map(|index| (100 + index as u64, Ready::READ)).collect();
        expect_events(&poller, &expected);
        for (reader, _) in &pipes[chosen] {
            drain(reader);
        }
        expect_none(&poller);
    }
}
