//! A poller after `fork(2)`: the child must rebuild it, and can't disturb its parent.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use omnipoll::{EngineKind, Events, Interest, Options, Ready, Trigger};

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::fds::*;
use crate::support::sys::{dup_to, fork, in_child, Side};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(every_call_of_the_child_is_eownerdead);
    suite.on_each_engine(after_fork_in_the_parent_does_nothing);
    suite.on_each_trigger(rebuilt_the_child_has_every_registration);
    suite.on_each_trigger(what_the_child_does_is_not_seen_by_the_parent);
    suite.on_each_trigger(a_child_that_drops_everything_does_not_affect_the_parent);
    suite.on_each_trigger(what_the_child_closed_is_invalid);
    suite.on_each_trigger(what_was_closed_before_the_fork_is_invalid_in_the_child);
    suite.on_each_engine(many_closed_by_the_child_are_reported_one_by_one);
    suite.on_each_engine(an_always_ready_file_stays_ready_in_the_child);
    suite.on_each_engine(wakes_stay_in_their_process);
    suite.on_each_engine(a_grandchild_rebuilds_again);
    suite.on_each_engine(a_poller_made_in_the_child_is_its_own);
    suite.on_each_engine(a_waiting_parent_keeps_waiting);
    suite.on_each_engine(forked_while_other_threads_use_it);
}

fn every_call_of_the_child_is_eownerdead(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, Interest::READ, 1).unwrap();
    write_byte(&writer);
    let child = in_child(|| {
        for _ in 0..2 {
            let wait = |timeout| poller.wait(&mut Events::with_capacity(1), timeout);
            expect_error(poller.add(&writer, Interest::WRITE, 2), libc::EOWNERDEAD);
            expect_error(poller.modify(&reader, Interest::READ, 2), libc::EOWNERDEAD);
            expect_error(poller.rearm(&reader, Interest::READ), libc::EOWNERDEAD);
            expect_error(poller.remove(&reader), libc::EOWNERDEAD);
            expect_error(poller.wake(), libc::EOWNERDEAD);
            expect_error(wait(None), libc::EOWNERDEAD);
            expect_error(wait(Some(Duration::ZERO)), libc::EOWNERDEAD);
        }
    });
    child.succeeds();
    expect_event(&poller, 1, Ready::READ);
    drain(&reader);
    expect_none(&poller);
}

fn after_fork_in_the_parent_does_nothing(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read(Trigger::ONESHOT), 1).unwrap();
    write_byte(&writer);
    expect_event(&poller, 1, Ready::READ);
    in_child(|| ()).succeeds();
    poller.after_fork().unwrap();
    expect_none(&poller);
}

/// In the state it had: what has fired under ONESHOT stays silent until it is modified.
fn rebuilt_the_child_has_every_registration(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let ((fired, fired_writer), (fresh, fresh_writer)) = (pipe(), pipe());
    poller.add(&fired, read(trigger), 1).unwrap();
    poller.add(&fresh, read(trigger), 2).unwrap();
    write_byte(&fired_writer);
    expect_event(&poller, 1, Ready::READ);
    drain(&fired);
    if trigger == Trigger::EDGE {
        poller.rearm(&fired, Interest::READ).unwrap();
    }
    let go_on = || {
        expect_none(&poller);
        write_byte(&fired_writer);
        write_byte(&fresh_writer);
        match trigger {
            Trigger::ONESHOT => expect_event(&poller, 2, Ready::READ),
            _ => expect_events(&poller, &[(1, Ready::READ), (2, Ready::READ)]),
        }
        expect_error(poller.add(&fired, read(trigger), 3), libc::EEXIST);
        poller.remove(&fresh).unwrap();
        poller.modify(&fired, read(trigger), 3).unwrap();
        expect_event(&poller, 3, Ready::READ);
        drain(&fired);
        drain(&fresh);
        acknowledge(&poller, &fired, read(trigger), 3);
        expect_quiet(&poller);
    };
    let child = in_child(|| {
        poller.after_fork().unwrap();
        poller.after_fork().unwrap();
        go_on();
    });
    child.succeeds();
    if trigger == Trigger::EDGE {
        // What came through the pipes that both have, and went, may be an edge that is none.
        wait(&poller, 64, Duration::ZERO);
    }
    go_on();
}

/// The child gets every event, changes, removes, closes and drops everything; the parent
/// gets every event all the same.
fn what_the_child_does_is_not_seen_by_the_parent(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let ((first, first_writer), (second, second_writer)) = (pipe(), pipe());
    poller.add(&first, read(trigger), 1).unwrap();
    poller.add(&second, read(trigger), 2).unwrap();
    write_byte(&first_writer);
    write_byte(&second_writer);
    match fork() {
        Side::Child => {
            poller.after_fork().unwrap();
            expect_events(&poller, &[(1, Ready::READ), (2, Ready::READ)]);
            poller.modify(&first, Interest::PRIORITY | trigger, 3).unwrap();
            poller.remove(&second).unwrap();
            expect_none(&poller);
            close(first);
            close(second);
        }
        Side::Parent(child) => {
            child.succeeds();
            expect_events(&poller, &[(1, Ready::READ), (2, Ready::READ)]);
            poller.modify(&first, read(trigger), 3).unwrap();
            poller.remove(&second).unwrap();
            expect_event(&poller, 3, Ready::READ);
        }
    }
}

/// As a child does that goes its own way: no word to the poller, and everything closed.
fn a_child_that_drops_everything_does_not_affect_the_parent(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read(trigger), 1).unwrap();
    match fork() {
        Side::Child => {
            close(reader);
            drop(poller);
        }
        Side::Parent(child) => {
            child.succeeds();
            expect_none(&poller);
            write_byte(&writer);
            expect_event(&poller, 1, Ready::READ);
            poller.remove(&reader).unwrap();
            expect_none(&poller);
        }
    }
}

fn what_the_child_closed_is_invalid(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let ((closed, closed_writer), (open, open_writer)) = (pipe(), pipe());
    poller.add(&closed, read(trigger), 1).unwrap();
    poller.add(&open, read(trigger), 2).unwrap();
    match fork() {
        Side::Child => {
            let number = close(closed);
            poller.after_fork().unwrap();
            expect_event(&poller, 1, Ready::INVALID);
            expect_error(poller.remove_raw(number), libc::ENOENT);
            write_byte(&open_writer);
            expect_event(&poller, 2, Ready::READ);
        }
        Side::Parent(child) => {
            child.succeeds();
            write_byte(&closed_writer);
            expect_events(&poller, &[(1, Ready::READ), (2, Ready::READ)]);
        }
    }
}

/// The child's table of descriptors is shorter than the fd, which select(2) passed over.
fn what_was_closed_before_the_fork_is_invalid_in_the_child(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    let high = dup_to(&reader, 900);
    poller.add(&high, read(trigger), 1).unwrap();
    poller.add(&reader, read(trigger), 2).unwrap();
    close(high);
    let child = in_child(|| {
        poller.after_fork().unwrap();
        expect_event(&poller, 1, Ready::INVALID);
        expect_quiet(&poller);
        write_byte(&writer);
        expect_event(&poller, 2, Ready::READ);
    });
    child.succeeds();
}

fn many_closed_by_the_child_are_reported_one_by_one(kind: EngineKind) {
    let poller = poller(kind);
    let pipes: Vec<_> = (0..20).map(|_| pipe()).collect();
    for ((reader, _), token) in pipes.iter().zip(0..) {
        poller.add(reader, Interest::READ, token).unwrap();
    }
    match fork() {
        Side::Child => {
            drop(pipes);
            poller.after_fork().unwrap();
            let mut found = Vec::new();
            while found.len() < 20 {
                let events = wait(&poller, 3, LONG);
                assert!(events.iter().all(|event| event.ready() == Ready::INVALID), "{events:?}");
                found.extend(tokens(&events));
            }
            found.sort_unstable();
            assert!(found.into_iter().eq(0..20));
            expect_quiet(&poller);
        }
        Side::Parent(child) => {
            child.succeeds();
            expect_none(&poller);
        }
    }
}

fn an_always_ready_file_stays_ready_in_the_child(kind: EngineKind) {
    let poller = Options::new().engine(kind).files_always_ready(true).build().unwrap();
    let [level, once] = [(); 2].map(|()| File::open("/dev/null").unwrap());
    poller.add(&level, Interest::READ, 1).unwrap();
    poller.add(&once, read(Trigger::ONESHOT), 2).unwrap();
    expect_events(&poller, &[(1, Ready::READ), (2, Ready::READ)]);
    let child = in_child(|| {
        poller.after_fork().unwrap();
        expect_event(&poller, 1, Ready::READ);
        poller.modify(&once, read(Trigger::ONESHOT), 3).unwrap();
        poller.remove(&level).unwrap();
        expect_event(&poller, 3, Ready::READ);
        expect_quiet(&poller);
    });
    child.succeeds();
    expect_event(&poller, 1, Ready::READ);
}

fn wakes_stay_in_their_process(kind: EngineKind) {
    let poller = poller(kind);
    poller.wake().unwrap();
    let child = in_child(|| {
        poller.after_fork().unwrap();
        expect_none(&poller);
        poller.wake().unwrap();
        poller.wake().unwrap();
        expect_wake(&poller, 2);
        (0..5).for_each(|_| poller.wake().unwrap());
    });
    child.succeeds();
    expect_wake(&poller, 1);
    expect_none(&poller);
}

fn a_grandchild_rebuilds_again(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, Interest::READ, 1).unwrap();
    write_byte(&writer);
    for child_rebuilds in [true, false] {
        let child = in_child(|| {
            if child_rebuilds {
                poller.after_fork().unwrap();
            }
            let grandchild = in_child(|| {
                expect_error(poller.wake(), libc::EOWNERDEAD);
                poller.after_fork().unwrap();
                expect_event(&poller, 1, Ready::READ);
                poller.remove(&reader).unwrap();
                expect_none(&poller);
            });
            grandchild.succeeds();
            match child_rebuilds {
                true => expect_event(&poller, 1, Ready::READ),
                false => expect_error(poller.wake(), libc::EOWNERDEAD),
            }
        });
        child.succeeds();
    }
    expect_event(&poller, 1, Ready::READ);
}

fn a_poller_made_in_the_child_is_its_own(kind: EngineKind) {
    let _parents = poller(kind);
    let child = in_child(|| {
        let poller = poller(kind);
        let (reader, writer) = pipe();
        poller.add(&reader, Interest::READ, 1).unwrap();
        write_byte(&writer);
        expect_event(&poller, 1, Ready::READ);
        poller.after_fork().unwrap();
        expect_event(&poller, 1, Ready::READ);
    });
    child.succeeds();
}

/// The fork happens while a thread of the parent waits; no thread waits on the child's set.
fn a_waiting_parent_keeps_waiting(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read(Trigger::ONESHOT), 1).unwrap();
    std::thread::scope(|scope| {
        let waiter = waiter(scope, &poller, LONG);
        let child = in_child(|| {
            poller.after_fork().unwrap();
            expect_none(&poller);
            let (mine, writer) = pipe();
            poller.add(&mine, Interest::READ, 2).unwrap();
            write_byte(&writer);
            expect_event(&poller, 2, Ready::READ);
            poller.wake().unwrap();
        });
        child.succeeds();
        assert!(waiter.still_waits());
        write_byte(&writer);
        assert_eq!(tokens(&waiter.events()), [1]);
    });
}

/// The fork may happen in the middle of another thread's change: the child gets an error, or
/// has a poller that works, and never hangs.
fn forked_while_other_threads_use_it(kind: EngineKind) {
    let poller = poller(kind);
    let (idle, _idle_writer) = pipe();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| while wakes(&next(&poller)) == 0 {});
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                poller.add(&idle, read(Trigger::EDGE), 1).unwrap();
                poller.modify(&idle, Interest::READ, 2).unwrap();
                poller.remove(&idle).unwrap();
            }
        });
        for _ in 0..50 {
            let child = in_child(|| match poller.after_fork() {
                Ok(()) => {
                    let (reader, writer) = pipe();
                    poller.add(&reader, Interest::READ, 3).unwrap();
                    write_byte(&writer);
                    expect_event(&poller, 3, Ready::READ);
                }
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EBUSY)),
            });
            child.succeeds();
        }
        over.store(true, Ordering::Relaxed);
        poller.wake().unwrap();
    });
}
