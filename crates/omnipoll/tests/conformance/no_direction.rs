//! An interest without a direction: hang-up and errors only, where the engine can distinguish them.

use std::io::Write;
use std::net::Shutdown;

use omnipoll::{Capabilities, EngineKind, Interest, Poller, Ready, Trigger};

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::fds::*;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_trigger(data_and_a_half_close_are_not_reported);
    suite.on_each_trigger(a_hang_up_is_reported);
    suite.on_each_trigger(an_error_is_reported);
    suite.on_each_trigger(a_waiting_thread_is_woken_by_a_hang_up);
    suite.on_each_trigger(it_may_be_there_from_the_beginning);
    suite.on_each_engine(a_registration_is_silenced_and_asked_again);
    suite.on_each_engine(the_list_of_registrations_shows_it);
}

fn none(trigger: Trigger) -> Interest {
    Interest::NONE | trigger
}

/// It is reported, where the engine can distinguish it, as the trigger says.
fn expect_failure(poller: &Poller, fd: &impl std::os::fd::AsFd, trigger: Trigger, ready: Ready) {
    if !poller.capabilities().contains(Capabilities::REPORTS_HANGUP) {
        expect_none(poller);
        return;
    }
    expect_event(poller, 1, ready);
    if trigger == Trigger::LEVEL {
        expect_event(poller, 1, ready);
    } else {
        expect_none(poller);
    }
    poller.modify(fd, none(trigger), 1).unwrap();
    expect_event(poller, 1, ready);
}

fn data_and_a_half_close_are_not_reported(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, mut theirs) = pair();
    poller.add(&ours, none(trigger), 1).unwrap();
    expect_none(&poller);
    theirs.write_all(b"data").unwrap();
    expect_none(&poller);
    theirs.shutdown(Shutdown::Write).unwrap();
    expect_quiet(&poller);
    poller.modify(&ours, read(trigger), 1).unwrap();
    expect_event(&poller, 1, Ready::READ | Ready::READ_CLOSED);
}

fn a_hang_up_is_reported(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    poller.add(&ours, none(trigger), 1).unwrap();
    expect_none(&poller);
    drop(theirs);
    expect_failure(&poller, &ours, trigger, Ready::HANGUP);
}

fn an_error_is_reported(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&writer, none(trigger), 1).unwrap();
    expect_none(&poller);
    drop(reader);
    expect_failure(&poller, &writer, trigger, Ready::ERROR);
}

fn a_waiting_thread_is_woken_by_a_hang_up(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    poller.add(&ours, none(trigger), 1).unwrap();
    std::thread::scope(|scope| {
        let waiter = waiter(scope, &poller, LONG);
        drop(theirs);
        if poller.capabilities().contains(Capabilities::REPORTS_HANGUP) {
            assert_eq!(tokens(&waiter.events()), [1]);
        } else {
            poller.wake().unwrap();
            assert_eq!(tokens(&waiter.events()), []);
        }
    });
}

fn it_may_be_there_from_the_beginning(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    drop(theirs);
    poller.add(&ours, none(trigger), 1).unwrap();
    expect_failure(&poller, &ours, trigger, Ready::HANGUP);
}

fn a_registration_is_silenced_and_asked_again(kind: EngineKind) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    write_byte(&theirs);
    poller.add(&ours, Interest::NONE, 1).unwrap();
    for _ in 0..3 {
        poller.modify(&ours, Interest::READ | Interest::WRITE, 1).unwrap();
        expect_event(&poller, 1, Ready::READ | Ready::WRITE);
        poller.modify(&ours, Interest::NONE, 1).unwrap();
        expect_none(&poller);
    }
    poller.remove(&ours).unwrap();
    expect_error(poller.remove(&ours), libc::ENOENT);
    drop(theirs);
    expect_none(&poller);
}

fn the_list_of_registrations_shows_it(kind: EngineKind) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    poller.add(&ours, none(Trigger::ONESHOT), 1).unwrap();
    let armed = |poller: &Poller| poller.dump().unwrap()[0].armed;
    assert_eq!(armed(&poller), Some(Interest::NONE));
    drop(theirs);
    if poller.capabilities().contains(Capabilities::REPORTS_HANGUP) {
        expect_event(&poller, 1, Ready::HANGUP);
        assert_eq!(armed(&poller), None);
    }
}
