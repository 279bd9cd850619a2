//! Any thread may change a poller on which others wait.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, Sender};
use std::time::{Duration, Instant};

use omnipoll::{Capabilities, EngineKind, Interest, Poller, Ready, Trigger};

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::{fds::*, sys};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_trigger(add_affects_the_wait_in_progress);
    suite.on_each_trigger(modify_affects_the_wait_in_progress);
    suite.on_each_engine(rearm_affects_the_wait_in_progress);
    suite.on_each_trigger(remove_affects_the_wait_in_progress);
    suite.on_each_engine(a_change_reaches_two_waiting_threads);
    suite.on_each_engine(a_lasting_condition_is_reported_to_each_waiting_thread);
    suite.on_each_engine(a_oneshot_goes_to_one_of_two);
    suite.on_each_engine(an_edge_goes_to_one_of_two);
    suite.on_each_engine(under_edge_a_second_chunk_may_go_to_another);
    suite.on_each_engine(under_oneshot_a_second_chunk_is_not_reported);
    suite.on_each_engine(two_waiting_threads_each_keep_their_timeout);
    suite.on_each_trigger(removed_while_its_event_is_handled);
    suite.on_each_trigger(a_fd_reused_during_the_wait);
    suite.on_each_trigger(an_old_event_never_reaches_a_new_registration);
    suite.on_each_trigger(eight_threads_change_while_two_wait);
    suite.on_each_trigger(nothing_is_lost_between_two_draining_threads);
}

fn add_affects_the_wait_in_progress(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let ((early, early_writer), (late, late_writer)) = (pipe(), pipe());
    write_byte(&early_writer);
    std::thread::scope(|scope| {
        let waiter = waiter(scope, &poller, LONG);
        poller.add(&early, read(trigger), 1).unwrap();
        assert_eq!(tokens(&waiter.events()), [1]);
    });
    drain(&early);
    acknowledge(&poller, &early, read(trigger), 1);
    std::thread::scope(|scope| {
        let waiter = waiter(scope, &poller, LONG);
        poller.add(&late, read(trigger), 2).unwrap();
        write_byte(&late_writer);
        assert_eq!(tokens(&waiter.events()), [2]);
    });
}

fn modify_affects_the_wait_in_progress(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    write_byte(&writer);
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

fn rearm_affects_the_wait_in_progress(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read(Trigger::EDGE), 1).unwrap();
    for _ in 0..3 {
        write_byte(&writer);
        expect_event(&poller, 1, Ready::READ);
        drain(&reader);
        std::thread::scope(|scope| {
            let waiter = waiter(scope, &poller, LONG);
            write_byte(&writer);
            poller.rearm(&reader, Interest::READ).unwrap();
            assert_eq!(tokens(&waiter.events()), [1]);
        });
        drain(&reader);
        poller.rearm(&reader, Interest::READ).unwrap();
    }
}

fn remove_affects_the_wait_in_progress(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let ((removed, removed_writer), (other, other_writer)) = (pipe(), pipe());
    poller.add(&removed, read(trigger), 1).unwrap();
    poller.add(&other, read(trigger), 2).unwrap();
    std::thread::scope(|scope| {
        let waiter = waiter(scope, &poller, LONG);
        poller.remove(&removed).unwrap();
        write_byte(&removed_writer);
        write_byte(&other_writer);
        assert_eq!(tokens(&waiter.events()), [2]);
    });
}

/// The change must not be known to one and kept from the other: each gets one descriptor.
fn a_change_reaches_two_waiting_threads(kind: EngineKind) {
    for round in 0..50 {
        let poller = poller(kind);
        let pipes = [pipe(), pipe()];
        let trigger = [Trigger::EDGE, Trigger::ONESHOT][round % 2];
        std::thread::scope(|scope| {
            let mut waiters = vec![waiter(scope, &poller, LONG), waiter(scope, &poller, LONG)];
            for ((reader, writer), token) in pipes.iter().zip(0..) {
                poller.add(reader, read(trigger), token).unwrap();
                write_byte(writer);
                assert_eq!(tokens(&take_first_ended(&mut waiters).events()), [token]);
            }
        });
    }
}

fn a_lasting_condition_is_reported_to_each_waiting_thread(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, Interest::READ, 1).unwrap();
    std::thread::scope(|scope| {
        let waiters = [waiter(scope, &poller, LONG), waiter(scope, &poller, LONG)];
        write_byte(&writer);
        for waiter in waiters {
            assert_eq!(tokens(&waiter.events()), [1]);
        }
    });
}

/// Two wait; one event comes. One thread gets it, and the other nothing but the wake after it.
fn goes_to_one_of_two(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read(trigger), 1).unwrap();
    for _ in 0..50 {
        std::thread::scope(|scope| {
            let mut waiters = vec![waiter(scope, &poller, LONG), waiter(scope, &poller, LONG)];
            write_byte(&writer);
            assert_eq!(tokens(&take_first_ended(&mut waiters).events()), [1]);
            poller.wake().unwrap();
            assert_eq!(tokens(&take_first_ended(&mut waiters).events()), []);
        });
        drain(&reader);
        acknowledge(&poller, &reader, read(trigger), 1);
    }
}

fn a_oneshot_goes_to_one_of_two(kind: EngineKind) {
    goes_to_one_of_two(kind, Trigger::ONESHOT);
}

fn an_edge_goes_to_one_of_two(kind: EngineKind) {
    goes_to_one_of_two(kind, Trigger::EDGE);
}

/// One thread got a first chunk and still reads when a second one comes, of which
/// another thread is notified: at once by a kernel that has edges, after the rearm by the others.
fn under_edge_a_second_chunk_may_go_to_another(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read(Trigger::EDGE), 1).unwrap();
    write_byte(&writer);
    expect_event(&poller, 1, Ready::READ);
    std::thread::scope(|scope| {
        let other = waiter(scope, &poller, LONG);
        write_byte(&writer);
        if !poller.capabilities().contains(Capabilities::NATIVE_EDGE) {
            assert!(other.still_waits());
            poller.rearm(&reader, Interest::READ).unwrap();
        }
        assert_eq!(tokens(&other.events()), [1]);
    });
}

fn under_oneshot_a_second_chunk_is_not_reported(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read(Trigger::ONESHOT), 1).unwrap();
    write_byte(&writer);
    expect_event(&poller, 1, Ready::READ);
    std::thread::scope(|scope| {
        let other = waiter(scope, &poller, LONG);
        write_byte(&writer);
        poller.wake().unwrap();
        assert_eq!(tokens(&other.events()), []);
    });
    poller.modify(&reader, read(Trigger::ONESHOT), 2).unwrap();
    expect_event(&poller, 2, Ready::READ);
}

/// In a peer the second one to wait was sent away at once with nothing, and spun.
fn two_waiting_threads_each_keep_their_timeout(kind: EngineKind) {
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

/// The waiter that handles an event finds its descriptor removed by another thread.
fn removed_while_its_event_is_handled(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    let (other, other_writer) = pipe();
    poller.add(&other, read(trigger), 2).unwrap();
    for _ in 0..50 {
        poller.add(&reader, read(trigger), 1).unwrap();
        write_byte(&writer);
        std::thread::scope(|scope| {
            let (sender, reported) = channel();
            let handler = scope.spawn(|| {
                let sender = sender;
                expect_event(&poller, 1, Ready::READ);
                sender.send(()).unwrap();
                // The event is being handled while the main thread removes it.
                while poller.modify(&reader, read(trigger), 1).is_ok() {}
                expect_error(poller.rearm(&reader, Interest::READ), libc::ENOENT);
                expect_event(&poller, 2, Ready::READ);
            });
            reported.recv().unwrap();
            poller.remove(&reader).unwrap();
            write_byte(&other_writer);
            handler.join().unwrap();
        });
        drain(&reader);
        drain(&other);
        acknowledge(&poller, &other, read(trigger), 2);
    }
}

/// Whoever waits has asked the kernel about a number that is another file's by the time it answers.
fn a_fd_reused_during_the_wait(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    for round in 0..20 {
        let ((old, old_writer), (new, new_writer)) = (pipe(), pipe());
        let _duplicate = dup(&old);
        poller.add(&old, read(trigger), 1).unwrap();
        std::thread::scope(|scope| {
            let waiter = waiter(scope, &poller, LONG);
            let number = close(old);
            if round % 2 == 0 {
                poller.remove_raw(number).unwrap();
            }
            let number = sys::dup_to(&new, number);
            poller.add(&number, read(trigger), 2).unwrap();
            write_byte(&old_writer);
            write_byte(&new_writer);
            assert_eq!(tokens(&waiter.events()), [2]);
            poller.remove(&number).unwrap();
        });
    }
}

/// One number stands for a file that is ready and for one that never is, in turns. What the
/// kernel has said of the first, and a thread has not yet handed out, is not the second's.
fn an_old_event_never_reaches_a_new_registration(kind: EngineKind, trigger: Trigger) {
    const READY: u64 = 1;
    const SILENT: u64 = 2;
    let poller = poller(kind);
    let ((ready, writer), (silent, _silent_writer)) = (pipe(), pipe());
    write_byte(&writer);
    let number = dup(&ready);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let events = wait(&poller, 4, Duration::ZERO);
                    assert!(!tokens(&events).contains(&SILENT), "{events:?}");
                }
            });
        }
        for round in 0..1500 {
            for (file, token) in [(&ready, READY), (&silent, SILENT)] {
                sys::replace(file, &number);
                poller.add(&number, read(trigger), token).unwrap();
                // Lives of many lengths, so that a life's end falls into every step of a wait.
                (0..round).for_each(|_| std::hint::spin_loop());
                poller.remove(&number).unwrap();
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}

const CHANGERS: u64 = 8;
const ROUNDS: u64 = 200;

/// Each of eight threads registers, changes and removes a pipe of its own, and gets each
/// of its events by one of two that wait: none is lost, none comes early.
fn eight_threads_change_while_two_wait(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (senders, reported): (Vec<_>, Vec<_>) = (0..CHANGERS).map(|_| channel()).unzip();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waiters = [(); 2].map(|()| scope.spawn(|| deliver_until_over(&poller, &senders, &over)));
        let changers: Vec<_> = (0..CHANGERS)
            .zip(reported)
            .map(|(me, reported)| {
                let poller = &poller;
                let expect_token = move |token| loop {
                    match reported.recv_timeout(LONG).expect("the event was lost") {
                        got if got == token => break,
                        // A waiting thread may still deliver what has passed meanwhile.
                        got => assert!(got < token, "{got} was reported too early"),
                    }
                };
                scope.spawn(move || change(poller, trigger, me, expect_token))
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

fn deliver_until_over(poller: &Poller, senders: &[Sender<u64>], over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        for token in tokens(&wait(poller, 4, LONG)) {
            // A changer that is done listens no more.
            let _ = senders[(token % CHANGERS) as usize].send(token / CHANGERS);
        }
    }
}

fn change(poller: &Poller, trigger: Trigger, me: u64, expect_token: impl Fn(u64)) {
    let (reader, writer) = pipe();
    for round in (0..ROUNDS).map(|round| round * 3) {
        poller.add(&reader, read(trigger), round * CHANGERS + me).unwrap();
        write_byte(&writer);
        expect_token(round);
        poller.modify(&reader, read(trigger), (round + 1) * CHANGERS + me).unwrap();
        expect_token(round + 1);
        drain(&reader);
        poller.modify(&reader, read(trigger), (round + 2) * CHANGERS + me).unwrap();
        write_byte(&writer);
        expect_token(round + 2);
        poller.remove(&reader).unwrap();
        drain(&reader);
    }
}

/// Two threads take what four pipes bring, each reading until `EAGAIN` whatever is reported
/// of, then asking for more: every byte arrives, so no event was lost on the way.
fn nothing_is_lost_between_two_draining_threads(kind: EngineKind, trigger: Trigger) {
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
                acknowledge(&poller, reader, read(trigger), token);
            }
        }
        // The other one may be waiting for what will not come.
        poller.wake().unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(drain_until_all_is_here);
        scope.spawn(drain_until_all_is_here);
        for byte in 0..BYTES {
            pipes.iter().for_each(|(_, writer)| write_byte(writer));
            if byte % 16 == 0 {
                std::thread::yield_now();
            }
        }
    });
    assert_eq!(drained.into_inner(), pipes.len() * BYTES);
}
