//! After `remove` the poller holds no reference to the file: closed next, it is closed, and its
//! peer sees it.

use std::io::{ErrorKind, Read};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use omnipoll::{EngineKind, Interest, Poller, Trigger};

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::{fds::*, sys};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_trigger(removed_and_closed_while_nobody_waits);
    suite.on_each_trigger(removed_and_closed_while_others_wait);
    suite.on_each_trigger(removed_and_closed_after_its_event);
    suite.on_each_engine(a_removed_listener_s_port_is_free);
    suite.on_each_engine(removed_repeatedly_while_two_wait);
    suite.on_each_engine(a_forked_child_holds_no_file_of_a_poller_that_was_dropped);
    suite.on_each_engine(a_forked_child_holds_no_file_of_a_poller_on_which_another_thread_waits);
}

/// There is no other descriptor for the peer of `theirs`, and no system call in progress has its file.
#[track_caller]
fn expect_closed(mut theirs: &UnixStream) {
    // The pair is non-blocking, unless said: the end is there now, not in a while.
    let read = loop {
        match theirs.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => break read,
        }
    };
    assert_eq!(read.expect("the end of the file"), 0);
}

fn removed_and_closed_while_nobody_waits(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    for waits in [true, false] {
        let (ours, theirs) = pair();
        poller.add(&ours, read(trigger), 1).unwrap();
        if waits {
            expect_none(&poller);
        }
        poller.remove(&ours).unwrap();
        close(ours);
        expect_closed(&theirs);
    }
}

fn removed_and_closed_while_others_wait(kind: EngineKind, trigger: Trigger) {
    for count in 1..=3 {
        let poller = poller(kind);
        let (early, early_peer) = pair();
        let (late, late_peer) = pair();
        poller.add(&early, read(trigger), 1).unwrap();
        std::thread::scope(|scope| {
            let waiters: Vec<_> = (0..count).map(|_| waiter(scope, &poller, None)).collect();
            poller.add(&late, read(trigger), 2).unwrap();
            for (ours, theirs) in [(early, &early_peer), (late, &late_peer)] {
                // The removal before has woken them; io_uring may let go later for one that is not
                // in its wait again.
                waiters.iter().for_each(|waiter| sys::wait_until_asleep(waiter.thread));
                poller.remove(&ours).unwrap();
                close(ours);
                expect_closed(theirs);
            }
            for waiter in waiters {
                // A wake may end one wait or several.
                while waiter.still_waits() {
                    poller.wake().unwrap();
                    std::thread::yield_now();
                }
                assert_eq!(tokens(&waiter.events()), []);
            }
        });
    }
}

/// What was reported once may still be watched, and not be read.
fn removed_and_closed_after_its_event(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    let (other, other_peer) = pair();
    poller.add(&ours, Interest::WRITE | trigger, 1).unwrap();
    poller.add(&other, read(trigger), 2).unwrap();
    for _ in 0..3 {
        wait(&poller, 8, Duration::ZERO);
    }
    for (ours, theirs) in [(ours, theirs), (other, other_peer)] {
        poller.remove(&ours).unwrap();
        close(ours);
        expect_closed(&theirs);
    }
}

fn a_removed_listener_s_port_is_free(kind: EngineKind) {
    let poller = poller(kind);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    poller.add(&listener, Interest::READ, 1).unwrap();
    std::thread::scope(|scope| {
        let waiter = waiter(scope, &poller, None);
        poller.remove(&listener).unwrap();
        close(listener);
        drop(TcpListener::bind(address).expect("the port is free"));
        poller.wake().unwrap();
        waiter.events();
    });
}

/// Whatever the two are about, asleep, on their way or back: each removal is one.
fn removed_repeatedly_while_two_wait(kind: EngineKind) {
    let poller = poller(kind);
    let busy = pair();
    poller.add(&busy.0, Interest::READ, 0).unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !ended.load(Ordering::SeqCst) {
                    wait(&poller, 8, LONG);
                    drain(&busy.0);
                }
                poller.wake().unwrap();
            });
        }
        for round in 0..200 {
            let (ours, theirs) = pair();
            poller.add(&ours, Interest::READ, 1).unwrap();
            if round % 2 == 0 {
                write_byte(&busy.1);
            }
            poller.remove(&ours).unwrap();
            close(ours);
            expect_closed(&theirs);
        }
        ended.store(true, Ordering::SeqCst);
        poller.wake().unwrap();
    });
}

/// Has `parent` let go of a watched file while a child lives that inherited the poller's own
/// descriptors, and has closed the file.
fn beside_a_child(kind: EngineKind, parent: impl FnOnce(Poller, UnixStream)) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    poller.add(&ours, Interest::READ, 1).unwrap();
    expect_none(&poller);
    let (ended, end) = pipe();
    let ready = pipe();
    let child = sys::in_child(|| {
        sys::close_here(&[ours.as_raw_fd(), end.as_raw_fd()]);
        write_byte(&ready.1);
        sys::set_blocking(&ended);
        assert_eq!((&ended).read(&mut [0]).unwrap(), 0);
    });
    sys::set_blocking(&ready.0);
    (&ready.0).read_exact(&mut [0]).unwrap();
    parent(poller, ours);
    // What is left to do may be the work of a thread that has ended: the kernel does it soon.
    theirs.set_nonblocking(false).unwrap();
    theirs.set_read_timeout(Some(LONG)).unwrap();
    expect_closed(&theirs);
    drop(end);
    child.succeeds();
}

fn a_forked_child_holds_no_file_of_a_poller_that_was_dropped(kind: EngineKind) {
    beside_a_child(kind, |poller, ours| {
        drop(poller);
        close(ours);
    });
}

/// io_uring moves to another ring for that.
fn a_forked_child_holds_no_file_of_a_poller_on_which_another_thread_waits(kind: EngineKind) {
    beside_a_child(kind, |poller, ours| {
        std::thread::scope(|scope| scope.spawn(|| expect_none(&poller)).join().unwrap());
        poller.remove(&ours).unwrap();
        close(ours);
    });
}
