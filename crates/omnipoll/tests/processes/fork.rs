//! A poller's sources after `fork(2)`: what came to the parent stays with it; timers continue
//! on both sides.

// The pollers reap them.
#![allow(clippy::zombie_processes)]

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use omnipoll::{EngineKind, Event, EventKind, Poller};

use crate::suite::Suite;
use crate::support::expect::{expect_error, expect_none, next, poller, LONG};
use crate::support::sys::{fork, in_child, Side};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(every_call_of_the_child_is_eownerdead);
    suite.on_each_engine(timers_continue_in_both_processes);
    suite.on_each_engine(timers_are_cancelled_in_one_process_only);
    suite.on_each_engine(posts_and_wakes_stay_with_the_parent);
    suite.on_each_engine(signals_stay_in_their_process);
    suite.on_each_engine(until_after_fork_a_signal_has_its_previous_action);
    suite.on_each_engine(a_child_watches_what_its_parent_does);
    suite.on_each_engine(children_stay_with_the_parent);
    suite.on_each_engine(a_child_that_drops_it_does_not_affect_the_parent);
    suite.on_each_engine(forked_while_signals_are_handled);
}

const MOMENT: Duration = Duration::from_millis(20);

/// A process that ends when it is killed, or when its input ends with ours.
pub(crate) fn sleeper() -> std::process::Child {
    Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat")
}

fn raise(signo: i32) {
    // SAFETY: takes no pointer.
    assert_eq!(unsafe { libc::raise(signo) }, 0);
}

/// Kind, token and value of the events until that many have come.
pub(crate) fn collect(poller: &Poller, count: usize) -> Vec<(EventKind, u64, i64)> {
    let (mut all, begun) = (Vec::new(), Instant::now());
    while all.len() < count {
        assert!(begun.elapsed() < LONG, "only {all:?} came");
        all.extend(next(poller).iter().map(summarize));
    }
    all.sort_by_key(|fact| fact.1);
    all
}

fn summarize(event: &Event) -> (EventKind, u64, i64) {
    (event.kind(), event.token(), event.value())
}

fn every_call_of_the_child_is_eownerdead(kind: EngineKind) {
    let poller = poller(kind);
    let timer = poller.timer_add(LONG, None, 1).unwrap();
    poller.signal_add(libc::SIGUSR1, 2).unwrap();
    let mut watched = sleeper();
    poller.child_add(watched.id() as i32, 3).unwrap();
    in_child(|| {
        for _ in 0..2 {
            expect_error(poller.timer_add(MOMENT, None, 4), libc::EOWNERDEAD);
            expect_error(poller.timer_add_at(SystemTime::now(), 4), libc::EOWNERDEAD);
            expect_error(poller.timer_set(timer, MOMENT, None), libc::EOWNERDEAD);
            expect_error(poller.timer_cancel(timer), libc::EOWNERDEAD);
            expect_error(poller.signal_add(libc::SIGUSR2, 4), libc::EOWNERDEAD);
            expect_error(poller.signal_remove(libc::SIGUSR1), libc::EOWNERDEAD);
            expect_error(poller.child_add(std::process::id() as i32, 4), libc::EOWNERDEAD);
            expect_error(poller.child_remove(watched.id() as i32), libc::EOWNERDEAD);
            expect_error(poller.post(4, 4), libc::EOWNERDEAD);
            expect_error(poller.wake(), libc::EOWNERDEAD);
        }
    })
    .succeeds();
    expect_none(&poller);
    poller.timer_cancel(timer).unwrap();
    poller.signal_remove(libc::SIGUSR1).unwrap();
    watched.kill().unwrap();
    assert_eq!(collect(&poller, 1), [(EventKind::Child, 3, libc::SIGKILL.into())]);
}

fn timers_continue_in_both_processes(kind: EngineKind) {
    let poller = poller(kind);
    let begun = Instant::now();
    poller.timer_add(MOMENT, None, 1).unwrap();
    let wall = SystemTime::now() + MOMENT;
    poller.timer_add_at(wall, 2).unwrap();
    let both = || {
        assert_eq!(collect(&poller, 2), [(EventKind::Timer, 1, 1), (EventKind::Timer, 2, 1)]);
        assert!(begun.elapsed() >= MOMENT && SystemTime::now() >= wall, "early");
        expect_none(&poller);
    };
    in_child(|| {
        poller.after_fork().unwrap();
        both();
        // And new ones, of both clocks.
        poller.timer_add(Duration::ZERO, None, 3).unwrap();
        poller.timer_add_at(SystemTime::now(), 4).unwrap();
        assert_eq!(collect(&poller, 2), [(EventKind::Timer, 3, 1), (EventKind::Timer, 4, 1)]);
    })
    .succeeds();
    both();
}

fn timers_are_cancelled_in_one_process_only(kind: EngineKind) {
    let arm = |poller: &Poller, of_the_wall: bool| match of_the_wall {
        true => poller.timer_add_at(SystemTime::now() + MOMENT, 1),
        false => poller.timer_add(MOMENT, None, 1),
    };
    for of_the_wall in [false, true] {
        let poller = poller(kind);
        let timer = arm(&poller, of_the_wall).unwrap();
        in_child(|| {
            poller.after_fork().unwrap();
            poller.timer_cancel(timer).unwrap();
            expect_none(&poller);
        })
        .succeeds();
        assert_eq!(collect(&poller, 1), [(EventKind::Timer, 1, 1)]);
    }
}

fn posts_and_wakes_stay_with_the_parent(kind: EngineKind) {
    let poller = poller(kind);
    poller.post(1, 10).unwrap();
    poller.post(2, 20).unwrap();
    poller.wake().unwrap();
    poller.wake().unwrap();
    in_child(|| {
        poller.after_fork().unwrap();
        expect_none(&poller);
        poller.post(3, 30).unwrap();
        poller.wake().unwrap();
        assert_eq!(collect(&poller, 2), [(EventKind::Wake, 0, 1), (EventKind::Post, 3, 30)]);
    })
    .succeeds();
    let expected = [(EventKind::Wake, 0, 2), (EventKind::Post, 1, 10), (EventKind::Post, 2, 20)];
    assert_eq!(collect(&poller, 3), expected);
    expect_none(&poller);
}

fn signals_stay_in_their_process(kind: EngineKind) {
    let poller = poller(kind);
    poller.signal_add(libc::SIGUSR1, 1).unwrap();
    raise(libc::SIGUSR1);
    raise(libc::SIGUSR1);
    let reported = |times| {
        let events = next(&poller);
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(summarize(&events[0]), (EventKind::Signal, 1, libc::SIGUSR1.into()));
        assert_eq!(events[0].count(), times);
        expect_none(&poller);
    };
    in_child(|| {
        poller.after_fork().unwrap();
        expect_none(&poller);
        raise(libc::SIGUSR1);
        reported(1);
        poller.signal_remove(libc::SIGUSR1).unwrap();
    })
    .succeeds();
    reported(2);
    raise(libc::SIGUSR1);
    reported(1);
}

/// Until `after_fork`, a signal does to the child what it did before it was watched.
fn until_after_fork_a_signal_has_its_previous_action(kind: EngineKind) {
    let poller = poller(kind);
    poller.signal_add(libc::SIGTERM, 1).unwrap();
    poller.signal_add(libc::SIGWINCH, 2).unwrap();
    match fork() {
        Side::Child => loop {
            raise(libc::SIGTERM);
        },
        Side::Parent(child) => child.expect_killed_by(libc::SIGTERM),
    }
    in_child(|| {
        // Its default is to be ignored.
        raise(libc::SIGWINCH);
        poller.after_fork().unwrap();
        // It came to a poller that was the parent's.
        expect_none(&poller);
        raise(libc::SIGWINCH);
        raise(libc::SIGTERM);
        let expected =
            [(EventKind::Signal, 1, libc::SIGTERM.into()), (EventKind::Signal, 2, libc::SIGWINCH.into())];
        assert_eq!(collect(&poller, 2), expected);
    })
    .succeeds();
    expect_none(&poller);
    raise(libc::SIGTERM);
    assert_eq!(collect(&poller, 1), [(EventKind::Signal, 1, libc::SIGTERM.into())]);
}

/// The child's own poller takes the signal over, and gives it back.
fn a_child_watches_what_its_parent_does(kind: EngineKind) {
    let parents = poller(kind);
    parents.signal_add(libc::SIGTERM, 1).unwrap();
    let watch_once = || {
        let own = poller(kind);
        own.signal_add(libc::SIGTERM, 2).unwrap();
        raise(libc::SIGTERM);
        assert_eq!(collect(&own, 1), [(EventKind::Signal, 2, libc::SIGTERM.into())]);
    };
    match fork() {
        Side::Child => {
            watch_once();
            watch_once();
            loop {
                raise(libc::SIGTERM);
            }
        }
        Side::Parent(child) => child.expect_killed_by(libc::SIGTERM),
    }
    expect_none(&parents);
}

fn children_stay_with_the_parent(kind: EngineKind) {
    let poller = poller(kind);
    let (mut early, mut late) = (sleeper(), sleeper());
    let pids = [early.id() as i32, late.id() as i32];
    pids.iter().for_each(|&pid| poller.child_add(pid, pid as u64).unwrap());
    early.kill().unwrap();
    in_child(|| {
        poller.after_fork().unwrap();
        expect_none(&poller);
        for pid in pids {
            expect_error(poller.child_remove(pid), libc::ENOENT);
            expect_error(poller.child_add(pid, 1), libc::ECHILD);
        }
        // Its own it may watch.
        let mut own = sleeper();
        poller.child_add(own.id() as i32, 7).unwrap();
        own.kill().unwrap();
        assert_eq!(collect(&poller, 1), [(EventKind::Child, 7, libc::SIGKILL.into())]);
    })
    .succeeds();
    assert_eq!(collect(&poller, 1), [(EventKind::Child, pids[0] as u64, libc::SIGKILL.into())]);
    expect_none(&poller);
    late.kill().unwrap();
    assert_eq!(collect(&poller, 1), [(EventKind::Child, pids[1] as u64, libc::SIGKILL.into())]);
    expect_none(&poller);
}

fn a_child_that_drops_it_does_not_affect_the_parent(kind: EngineKind) {
    for rebuilds in [false, true] {
        let poller = poller(kind);
        poller.signal_add(libc::SIGUSR1, 1).unwrap();
        poller.timer_add(MOMENT, None, 2).unwrap();
        poller.timer_add_at(SystemTime::now() + MOMENT, 3).unwrap();
        let mut watched = sleeper();
        poller.child_add(watched.id() as i32, 4).unwrap();
        poller.post(5, 5).unwrap();
        let mut poller = Some(poller);
        in_child(|| {
            let poller = poller.take().expect("the child's copy");
            if rebuilds {
                poller.after_fork().unwrap();
            }
            drop(poller);
        })
        .succeeds();
        let poller = poller.expect("the parent's");
        raise(libc::SIGUSR1);
        watched.kill().unwrap();
        let expected = [
            (EventKind::Signal, 1, libc::SIGUSR1.into()),
            (EventKind::Timer, 2, 1),
            (EventKind::Timer, 3, 1),
            (EventKind::Child, 4, libc::SIGKILL.into()),
            (EventKind::Post, 5, 5),
        ];
        assert_eq!(collect(&poller, 5), expected);
        expect_none(&poller);
    }
}

/// The fork may come at any moment of another thread's signal handler: the child, which has no
/// such thread, must not wait for it.
fn forked_while_signals_are_handled(kind: EngineKind) {
    let poller = poller(kind);
    poller.signal_add(libc::SIGUSR1, 1).unwrap();
    let enough = AtomicBool::new(false);
    let mut poller = Some(poller);
    thread::scope(|scope| {
        scope.spawn(|| {
            // At least once, however soon the forks are over.
            loop {
                raise(libc::SIGUSR1);
                if enough.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let children: Vec<_> = (0..100).map(|_| in_child(|| drop(poller.take()))).collect();
        enough.store(true, Ordering::Relaxed);
        children.into_iter().for_each(|child| child.succeeds());
    });
    let events = next(poller.as_ref().expect("the parent's"));
    assert_eq!(
        events.iter().map(summarize).collect::<Vec<_>>(),
        [(EventKind::Signal, 1, libc::SIGUSR1.into())]
    );
}
