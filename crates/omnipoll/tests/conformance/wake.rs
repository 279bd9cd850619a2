//! Wakes and signals: what ends a wait besides a descriptor.

use std::sync::mpsc::channel;
use std::sync::OnceLock;

use omnipoll::{EngineKind, Events, Interest, Options, Poller, Ready, Trigger};

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::{fds::*, sys};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(a_wake_before_the_wait);
    suite.on_each_engine(a_wake_before_a_registration);
    suite.on_each_engine(wakes_are_counted_into_one_event);
    suite.on_each_engine(no_wake_from_many_threads_is_lost);
    suite.on_each_engine(a_wake_goes_to_one_of_two);
    suite.on_each_engine(a_wake_from_a_signal_handler);
    suite.on_each_engine(an_interruptible_wait_ends_with_eintr);
}

fn a_wake_before_the_wait(kind: EngineKind) {
    let poller = poller(kind);
    for _ in 0..3 {
        poller.wake().unwrap();
        expect_wake(&poller, 1);
        expect_none(&poller);
    }
}

/// In a peer's poll(2) engine, registering between the wake and the wait lost the wake.
fn a_wake_before_a_registration(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.wake().unwrap();
    poller.add(&reader, Interest::READ, 1).unwrap();
    expect_wake(&poller, 1);
    poller.wake().unwrap();
    poller.modify(&reader, read(Trigger::EDGE), 1).unwrap();
    poller.rearm(&reader, Interest::READ).unwrap();
    expect_wake(&poller, 1);
    poller.wake().unwrap();
    write_byte(&writer);
    let events = next(&poller);
    assert_eq!((tokens(&events), wakes(&events)), (vec![1], 1), "{events:?}");
    poller.wake().unwrap();
    poller.remove(&reader).unwrap();
    expect_wake(&poller, 1);
    expect_none(&poller);
}

fn wakes_are_counted_into_one_event(kind: EngineKind) {
    let poller = poller(kind);
    for count in [1, 2, 5, 1000] {
        (0..count).for_each(|_| poller.wake().unwrap());
        expect_wake(&poller, count);
        expect_none(&poller);
    }
}

fn no_wake_from_many_threads_is_lost(kind: EngineKind) {
    const WAKES: i64 = 5000;
    let poller = poller(kind);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..WAKES).for_each(|_| poller.wake().unwrap()));
        }
        let mut woken = 0;
        while woken < 4 * WAKES {
            let events = next(&poller);
            assert!(events.len() == 1 && wakes(&events) > 0, "{events:?}");
            woken += wakes(&events);
        }
        assert_eq!(woken, 4 * WAKES);
    });
    expect_none(&poller);
}

fn a_wake_goes_to_one_of_two(kind: EngineKind) {
    let poller = poller(kind);
    for _ in 0..50 {
        std::thread::scope(|scope| {
            let mut waiters = vec![waiter(scope, &poller, LONG), waiter(scope, &poller, LONG)];
            for _ in 0..2 {
                poller.wake().unwrap();
                let events = take_first_ended(&mut waiters).events();
                assert_eq!((events.len(), wakes(&events)), (1, 1), "{events:?}");
            }
        });
        expect_none(&poller);
    }
}

/// What the handler wakes: a signal handler has no argument to find it by.
static TO_WAKE: OnceLock<Poller> = OnceLock::new();

extern "C" fn wake_poller(_signal: libc::c_int) {
    if let Some(poller) = TO_WAKE.get() {
        // A handler can't report an error; a wake that failed fails the test by its absence.
        let _ = poller.wake();
    }
}

fn a_wake_from_a_signal_handler(kind: EngineKind) {
    let poller = TO_WAKE.get_or_init(|| poller(kind));
    sys::on_signal(libc::SIGUSR1, wake_poller);
    sys::signal_thread(sys::thread_id(), libc::SIGUSR1);
    expect_wake(poller, 1);
    for _ in 0..50 {
        std::thread::scope(|scope| {
            let interrupted = waiter(scope, poller, LONG);
            sys::signal_thread(interrupted.thread, libc::SIGUSR1);
            assert_eq!(wakes(&interrupted.events()), 1);
            let woken = waiter(scope, poller, LONG);
            sys::signal_thread(sys::thread_id(), libc::SIGUSR1);
            assert_eq!(wakes(&woken.events()), 1);
        });
    }
    expect_none(poller);
}

extern "C" fn do_nothing(_signal: libc::c_int) {}

fn an_interruptible_wait_ends_with_eintr(kind: EngineKind) {
    let poller = Options::new().engine(kind).interruptible(true).build().unwrap();
    let (reader, writer) = pipe();
    poller.add(&reader, Interest::READ, 1).unwrap();
    sys::on_signal(libc::SIGUSR1, do_nothing);
    std::thread::scope(|scope| {
        let (sender, reported) = channel();
        let poller = &poller;
        let interrupted = scope.spawn(move || {
            sender.send(sys::thread_id()).unwrap();
            expect_error(poller.wait(&mut Events::with_capacity(8), None), libc::EINTR);
        });
        let thread = reported.recv().unwrap();
        sys::wait_until_asleep(thread);
        sys::signal_thread(thread, libc::SIGUSR1);
        interrupted.join().unwrap();
    });
    write_byte(&writer);
    expect_event(&poller, 1, Ready::READ);
}
