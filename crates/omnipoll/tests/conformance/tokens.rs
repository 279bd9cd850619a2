//! Tokens: 64 bits of the caller's, which come back as they were given.

use std::os::fd::AsRawFd;

use omnipoll::{EngineKind, Interest, Poller, Ready, Trigger};

use crate::suite::Suite;
use crate::support::expect::*;
use crate::support::fds::*;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_trigger(any_token_comes_back_as_it_was_given);
    suite.on_each_trigger(the_token_of_each_of_many_changes_comes_back);
}

/// One event: that `fd` can be written, with this token.
#[track_caller]
fn expect_reported(poller: &Poller, fd: &impl AsRawFd, token: u64) {
    let events = wait(poller, 4, LONG);
    assert_eq!(tokens(&events), [token]);
    assert_eq!((events[0].value(), events[0].ready()), (fd.as_raw_fd().into(), Ready::WRITE));
}

fn any_token_comes_back_as_it_was_given(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (_reader, writer) = pipe();
    let interest = Interest::WRITE | trigger;
    for token in (0..64).map(|bit| 1 << bit).flat_map(|power: u64| [power - 1, power, !power]) {
        poller.add(&writer, interest, token).unwrap();
        expect_reported(&poller, &writer, token);
        poller.modify(&writer, interest, !token).unwrap();
        expect_reported(&poller, &writer, !token);
        poller.modify(&writer, interest, token).unwrap();
        expect_reported(&poller, &writer, token);
        poller.remove(&writer).unwrap();
    }
}

/// So many that no counter of lives of 12 bits would do, of numbers that are even and odd.
fn the_token_of_each_of_many_changes_comes_back(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (_reader, writer) = pipe();
    let interest = Interest::WRITE | trigger;
    for number in (0..3).map(|_| dup(&writer)).collect::<Vec<_>>() {
        poller.add(&number, interest, 0).unwrap();
        for token in 1..=5000 {
            poller.modify(&number, interest, token).unwrap();
            expect_reported(&poller, &number, token);
        }
        poller.remove(&number).unwrap();
        expect_quiet(&poller);
    }
}
