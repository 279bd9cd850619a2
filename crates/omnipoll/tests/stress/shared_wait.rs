//! Two threads that wait on one poller.

use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use omnipoll::{EngineKind, Event, EventKind, Interest, Poller, Trigger};

use crate::suite::Suite;
use crate::support::expect::{poller, wait};
use crate::support::fds::{pipe, write_byte};
use crate::support::sys;

type Waiter<'scope> = ScopedJoinHandle<'scope, Vec<Event>>;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(a_timer_fires_though_the_thread_that_armed_it_has_left);
    suite.on_each_engine(a_post_and_a_wake_need_one_waiter_each);
}

/// A timer shortens the sleep of the thread that is woken for it. When that one returns with something
/// else, the other must not sleep on.
fn a_timer_fires_though_the_thread_that_armed_it_has_left(kind: EngineKind) {
    for _ in 0..20 {
        let poller = poller(kind);
        let (reader, writer) = pipe();
        poller.add(&reader, Interest::READ | Trigger::ONESHOT, 1).expect("add");
        thread::scope(|scope| {
            let waiters = [one_event(scope, &poller), one_event(scope, &poller)];
            poller.timer_add(Duration::from_millis(30), None, 2).expect("timer_add");
            write_byte(&writer);
            assert_eq!(reported(waiters), [EventKind::Io, EventKind::Timer]);
        });
    }
}

/// Two events come at once for two threads that each have room for one.
fn a_post_and_a_wake_need_one_waiter_each(kind: EngineKind) {
    for round in 0..50 {
        let poller = poller(kind);
        thread::scope(|scope| {
            let waiters = [one_event(scope, &poller), one_event(scope, &poller)];
            poller.post(3, round).expect("post");
            poller.wake().expect("wake");
            assert_eq!(reported(waiters), [EventKind::Wake, EventKind::Post]);
        });
    }
}

/// A thread that waits for one event, and sleeps by now.
fn one_event<'scope>(scope: &'scope Scope<'scope, '_>, poller: &'scope Poller) -> Waiter<'scope> {
    let (sender, reported) = std::sync::mpsc::channel();
    let waiter = scope.spawn(move || {
        sender.send(sys::thread_id()).expect("the other thread listens");
        wait(poller, 1, None)
    });
    sys::wait_until_asleep(reported.recv().expect("the thread runs"));
    waiter
}

fn reported(waiters: [Waiter<'_>; 2]) -> Vec<EventKind> {
    let mut events: Vec<_> = waiters.into_iter().flat_map(|it| it.join().expect("a waiter")).collect();
    events.sort_by_key(Event::token);
    events.iter().map(Event::kind).collect()
}
