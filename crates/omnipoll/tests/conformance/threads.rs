//! Any thread may change and wake a poller on which others wait.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, Sender};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use omnipoll::{Capabilities, EngineKind, Events, Interest, Options, Poller, Ready, Trigger};

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::{fds::*, sys};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_trigger(add_counts_for_the_wait_under_way);
    suite.on_each_trigger(modify_counts_for_the_wait_under_way);
    suite.on_each_engine(rearm_counts_for_the_wait_under_way);
    suite.on_each_trigger(remove_counts_for_the_wait_under_way);
    suite.on_each_engine(a_change_reaches_two_who_wait);
    suite.on_each_engine(what_holds_is_told_to_each_who_waits);
    suite.on_each_engine(a_oneshot_goes_to_one_of_two);
    suite.on_each_engine(an_edge_goes_to_one_of_two);
    suite.on_each_engine(under_edge_a_second_chunk_may_go_to_another);
    suite.on_each_engine(under_oneshot_a_second_chunk_goes_to_nobody);
    suite.on_each_engine(two_who_wait_each_wait_their_time);
    suite.on_each_trigger(removed_while_its_event_is_handled);
    suite.on_each_trigger(a_number_used_again_during_the_wait);
    suite.on_each_trigger(eight_change_while_two_wait);
    suite.on_each_trigger(nothing_is_lost_between_two_who_drain);
    suite.on_each_engine(a_wake_before_the_wait);
    suite.on_each_engine(a_wake_before_a_registration);
    suite.on_each_engine(wakes_are_counted_into_one_event);
    suite.on_each_engine(no_wake_of_many_threads_is_lost);
    suite.on_each_engine(a_wake_goes_to_one_of_two);
    suite.on_each_engine(a_wake_from_a_signal_handler);
    suite.on_each_engine(an_interruptible_wait_ends_with_eintr);
}

fn add_counts_for_the_wait_under_way(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let ((early, early_writer), (late, late_writer)) = (pipe(), pipe());
    poke(&early_writer);
    std::thread::scope(|scope| {
        let waiter = waiter(scope, &poller, LONG);
        poller.add(&early, read(trigger), 1).unwrap();
        assert_eq!(tokens(&waiter.events()), [1]);
    });
    drain(&early);
    settle(&poller, &early, read(trigger), 1);
    std::thread::scope(|scope| {
        let waiter = waiter(scope, &poller, LONG);
        poller.add(&late, read(trigger), 2).unwrap();
        poke(&late_writer);
        assert_eq!(tokens(&waiter.events()), [2]);
    });
}

fn modify_counts_for_the_wait_under_way(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poke(&writer);
    poller.add(&reader, Interest::PRIORITY | trigger, 1).unwrap();
    for token in 2..5 {
        std::thread::scope(|scope| {
            let waiter = waiter(scope, &poller, LONG);
            poller.modify(&reader, read(trigger), token).unwrap();
            assert_eq!(tokens(&waiter.events()), [token]);
        });
        poller.modify(&reader, Interest::PRIORITY | trigger, 1).unwrap();
    }
}

fn rearm_counts_for_the_wait_under_way(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read(Trigger::EDGE), 1).unwrap();
    for _ in 0..3 {
        poke(&writer);
        expect_event(&poller, 1, Ready::READ);
        drain(&reader);
        std::thread::scope(|scope| {
            let waiter = waiter(scope, &poller, LONG);
            poke(&writer);
            poller.rearm(&reader, Interest::READ).unwrap();
            assert_eq!(tokens(&waiter.events()), [1]);
        });
        drain(&reader);
        poller.rearm(&reader, Interest::READ).unwrap();
    }
}

fn remove_counts_for_the_wait_under_way(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let ((removed, removed_writer), (other, other_writer)) = (pipe(), pipe());
    poller.add(&removed, read(trigger), 1).unwrap();
    poller.add(&other, read(trigger), 2).unwrap();
    std::thread::scope(|scope| {
        let waiter = waiter(scope, &poller, LONG);
        poller.remove(&removed).unwrap();
        poke(&removed_writer);
        poke(&other_writer);
        assert_eq!(tokens(&waiter.events()), [2]);
    });
}

/// The change must not be known to one and kept from the other: each is told of one descriptor.
fn a_change_reaches_two_who_wait(kind: EngineKind) {
    for trigger in [Trigger::EDGE, Trigger::ONESHOT] {
        let poller = poller(kind);
        let pipes = [pipe(), pipe()];
        std::thread::scope(|scope| {
            let mut waiters = vec![waiter(scope, &poller, LONG), waiter(scope, &poller, LONG)];
            for ((reader, writer), token) in pipes.iter().zip(0..) {
                poller.add(reader, read(trigger), token).unwrap();
                poke(writer);
                assert_eq!(tokens(&first_to_end(&mut waiters).events()), [token]);
            }
        });
    }
}

fn what_holds_is_told_to_each_who_waits(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, Interest::READ, 1).unwrap();
    std::thread::scope(|scope| {
        let waiters = [waiter(scope, &poller, LONG), waiter(scope, &poller, LONG)];
        poke(&writer);
        for waiter in waiters {
            assert_eq!(tokens(&waiter.events()), [1]);
        }
    });
}

/// Two wait; one event comes. One is told, and the other hears nothing but the wake after it.
fn goes_to_one_of_two(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read(trigger), 1).unwrap();
    for _ in 0..50 {
        std::thread::scope(|scope| {
            let mut waiters = vec![waiter(scope, &poller, LONG), waiter(scope, &poller, LONG)];
            poke(&writer);
            assert_eq!(tokens(&first_to_end(&mut waiters).events()), [1]);
            poller.wake().unwrap();
            assert_eq!(tokens(&first_to_end(&mut waiters).events()), []);
        });
        drain(&reader);
        settle(&poller, &reader, read(trigger), 1);
    }
}

fn a_oneshot_goes_to_one_of_two(kind: EngineKind) {
    goes_to_one_of_two(kind, Trigger::ONESHOT);
}

fn an_edge_goes_to_one_of_two(kind: EngineKind) {
    goes_to_one_of_two(kind, Trigger::EDGE);
}

/// One thread was told of a first chunk and still reads when a second one comes, of which
/// another thread is told: at once by a kernel that has edges, after the rearm by the others.
fn under_edge_a_second_chunk_may_go_to_another(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read(Trigger::EDGE), 1).unwrap();
    poke(&writer);
    expect_event(&poller, 1, Ready::READ);
    std::thread::scope(|scope| {
        let other = waiter(scope, &poller, LONG);
        poke(&writer);
        if !poller.capabilities().contains(Capabilities::NATIVE_EDGE) {
            assert!(other.still_waits());
            poller.rearm(&reader, Interest::READ).unwrap();
        }
        assert_eq!(tokens(&other.events()), [1]);
    });
}

fn under_oneshot_a_second_chunk_goes_to_nobody(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read(Trigger::ONESHOT), 1).unwrap();
    poke(&writer);
    expect_event(&poller, 1, Ready::READ);
    std::thread::scope(|scope| {
        let other = waiter(scope, &poller, LONG);
        poke(&writer);
        poller.wake().unwrap();
        assert_eq!(tokens(&other.events()), []);
    });
    poller.modify(&reader, read(Trigger::ONESHOT), 2).unwrap();
    expect_event(&poller, 2, Ready::READ);
}

/// In a peer the second one to wait was sent away at once with nothing, and spun.
fn two_who_wait_each_wait_their_time(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, _writer) = pipe();
    poller.add(&reader, Interest::READ, 1).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let timeout = Duration::from_millis(100);
                let begun = Instant::now();
                assert_eq!(wait(&poller, 8, timeout), []);
                assert!(begun.elapsed() >= timeout, "early by {:?}", timeout - begun.elapsed());
            });
        }
    });
}

/// The waiter that handles an event finds its descriptor removed by somebody else.
fn removed_while_its_event_is_handled(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    let (other, other_writer) = pipe();
    poller.add(&other, read(trigger), 2).unwrap();
    for _ in 0..50 {
        poller.add(&reader, read(trigger), 1).unwrap();
        poke(&writer);
        std::thread::scope(|scope| {
            let (tell, told) = channel();
            let handler = scope.spawn(|| {
                let tell = tell;
                expect_event(&poller, 1, Ready::READ);
                tell.send(()).unwrap();
                // The event is being handled while the main thread removes it.
                while poller.modify(&reader, read(trigger), 1).is_ok() {}
                expect_error(poller.rearm(&reader, Interest::READ), libc::ENOENT);
                expect_event(&poller, 2, Ready::READ);
            });
            told.recv().unwrap();
            poller.remove(&reader).unwrap();
            poke(&other_writer);
            handler.join().unwrap();
        });
        drain(&reader);
        drain(&other);
        settle(&poller, &other, read(trigger), 2);
    }
}

/// Whoever waits has asked the kernel about a number that is another file's by the time it answers.
fn a_number_used_again_during_the_wait(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    for round in 0..20 {
        let ((old, old_writer), (new, new_writer)) = (pipe(), pipe());
        let _duplicate = dup(&old);
        poller.add(&old, read(trigger), 1).unwrap();
        std::thread::scope(|scope| {
            let waiter = waiter(scope, &poller, LONG);
            let number = close(old);
            if round % 2 == 0 {
                poller.remove(&number).unwrap();
            }
            let number = sys::dup_to(&new, number);
            poller.add(&number, read(trigger), 2).unwrap();
            poke(&old_writer);
            poke(&new_writer);
            assert_eq!(tokens(&waiter.events()), [2]);
            poller.remove(&number).unwrap();
        });
    }
}

const CHANGERS: u64 = 8;
const ROUNDS: u64 = 200;

/// Each of eight threads registers, changes and removes a pipe of its own, and is told of each
/// of its events by one of two that wait: none is lost, none is told of what is not yet.
fn eight_change_while_two_wait(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (tell, told): (Vec<_>, Vec<_>) = (0..CHANGERS).map(|_| channel()).unzip();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waiters = [(); 2].map(|()| scope.spawn(|| tell_until_over(&poller, &tell, &over)));
        let changers: Vec<_> = (0..CHANGERS)
            .zip(told)
            .map(|(me, told)| {
                let poller = &poller;
                let hear = move |token| loop {
                    match told.recv_timeout(LONG).expect("the event was lost") {
                        heard if heard == token => break,
                        // Somebody who waits may still tell of what has passed meanwhile.
                        heard => assert!(heard < token, "{heard} was told before its time"),
                    }
                };
                scope.spawn(move || change(poller, trigger, me, hear))
            })
            .collect();
        changers.into_iter().for_each(|changer| changer.join().unwrap());
        over.store(true, Ordering::Release);
        for waiter in waiters {
            while !waiter.is_finished() {
                poller.wake().unwrap();
                std::thread::yield_now();
            }
        }
    });
    while wakes(&wait(&poller, 8, Duration::ZERO)) != 0 {}
    expect_none(&poller);
}

fn tell_until_over(poller: &Poller, tell: &[Sender<u64>], over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        for token in tokens(&wait(poller, 4, LONG)) {
            // A changer that is done listens no more.
            let _ = tell[(token % CHANGERS) as usize].send(token / CHANGERS);
        }
    }
}

fn change(poller: &Poller, trigger: Trigger, me: u64, hear: impl Fn(u64)) {
    let (reader, writer) = pipe();
    for round in (0..ROUNDS).map(|round| round * 3) {
        poller.add(&reader, read(trigger), round * CHANGERS + me).unwrap();
        poke(&writer);
        hear(round);
        poller.modify(&reader, read(trigger), (round + 1) * CHANGERS + me).unwrap();
        hear(round + 1);
        drain(&reader);
        poller.modify(&reader, read(trigger), (round + 2) * CHANGERS + me).unwrap();
        poke(&writer);
        hear(round + 2);
        poller.remove(&reader).unwrap();
        drain(&reader);
    }
}

/// Two threads take what four pipes bring, each reading until `EAGAIN` whatever it is told
/// of, then asking for more: every byte arrives, so no event was lost on the way.
fn nothing_is_lost_between_two_who_drain(kind: EngineKind, trigger: Trigger) {
    const BYTES: usize = 3000;
    let poller = poller(kind);
    let pipes: [_; 4] = std::array::from_fn(|_| pipe());
    for ((reader, _), token) in pipes.iter().zip(0..) {
        poller.add(reader, read(trigger), token).unwrap();
    }
    let drained = AtomicUsize::new(0);
    let drain_until_all_is_here = || {
        while drained.load(Ordering::Relaxed) < pipes.len() * BYTES {
            let events = wait(&poller, 2, LONG);
            assert!(!events.is_empty(), "only {drained:?} bytes came");
            for token in tokens(&events) {
                let reader = &pipes[token as usize].0;
                drained.fetch_add(drain(reader), Ordering::Relaxed);
                settle(&poller, reader, read(trigger), token);
            }
        }
        // The other one may be waiting for what will not come.
        poller.wake().unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(drain_until_all_is_here);
        scope.spawn(drain_until_all_is_here);
        for byte in 0..BYTES {
            pipes.iter().for_each(|(_, writer)| poke(writer));
            if byte % 16 == 0 {
                std::thread::yield_now();
            }
        }
    });
    assert_eq!(drained.into_inner(), pipes.len() * BYTES);
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
    poke(&writer);
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

fn no_wake_of_many_threads_is_lost(kind: EngineKind) {
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
                let events = first_to_end(&mut waiters).events();
                assert_eq!((events.len(), wakes(&events)), (1, 1), "{events:?}");
            }
        });
        expect_none(&poller);
    }
}

/// What the handler wakes: a signal handler has no argument to find it by.
static TO_WAKE: OnceLock<Poller> = OnceLock::new();

extern "C" fn wake_it(_signal: libc::c_int) {
    if let Some(poller) = TO_WAKE.get() {
        // A handler can't report an error; a wake that failed fails the test by its absence.
        let _ = poller.wake();
    }
}

fn a_wake_from_a_signal_handler(kind: EngineKind) {
    let poller = TO_WAKE.get_or_init(|| poller(kind));
    sys::on_signal(libc::SIGUSR1, wake_it);
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
        let (tell, told) = channel();
        let poller = &poller;
        let interrupted = scope.spawn(move || {
            tell.send(sys::thread_id()).unwrap();
            expect_error(poller.wait(&mut Events::with_capacity(8), None), libc::EINTR);
        });
        let thread = told.recv().unwrap();
        sys::until_it_sleeps(thread);
        sys::signal_thread(thread, libc::SIGUSR1);
        interrupted.join().unwrap();
    });
    poke(&writer);
    expect_event(&poller, 1, Ready::READ);
    assert!(sys::is_open(reader.as_raw_fd()));
}
