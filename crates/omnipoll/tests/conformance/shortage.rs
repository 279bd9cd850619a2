//! What passes by itself, and limits that were lowered: nothing is lost, no wait spins, and what
//! needs no system call continues.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use omnipoll::{EngineKind, EventKind, Events, Interest, Poller, Ready, Trigger};

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::{fds::*, sys};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_trigger(a_shortage_of_memory_loses_nothing);
    suite.on_each_engine(a_shortage_of_memory_keeps_no_timer_and_no_wake);
    suite.on_each_trigger(more_are_watched_than_the_limit_of_descriptors_allows);
    suite.on_each_engine(a_wait_for_more_than_the_limit_lasts_its_time);
    suite.on_each_engine(another_thread_ends_a_wait_for_more_than_the_limit);
    #[cfg(target_os = "linux")]
    suite.on_each_engine(what_is_added_without_memory_is_enomem);
}

/// The system calls of a wait, each with what it says when memory is short.
fn calls(kind: EngineKind) -> Vec<(&'static [libc::c_long], i32)> {
    #[cfg(target_arch = "x86_64")]
    const EPOLL: &[libc::c_long] = &[libc::SYS_epoll_wait, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];
    #[cfg(not(target_arch = "x86_64"))]
    const EPOLL: &[libc::c_long] = &[libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];
    #[cfg(target_arch = "x86_64")]
    const POLL: &[libc::c_long] = &[libc::SYS_poll, libc::SYS_ppoll];
    #[cfg(not(target_arch = "x86_64"))]
    const POLL: &[libc::c_long] = &[libc::SYS_ppoll];
    const RING: &[libc::c_long] = &[libc::SYS_io_uring_enter];
    match kind {
        EngineKind::Select => vec![(&[libc::SYS_pselect6], libc::ENOMEM)],
        EngineKind::Poll => vec![(POLL, libc::ENOMEM)],
        EngineKind::Epoll => vec![(EPOLL, libc::ENOMEM)],
        _ => vec![(RING, libc::EAGAIN), (RING, libc::EBUSY), (RING, libc::ENOMEM), (POLL, libc::ENOMEM)],
    }
}

/// Runs `life` in a thread in which these calls fail from now on: a filter is a thread's.
fn with_failing_calls<T: Send>(calls: &[libc::c_long], errno: i32, life: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            calls.iter().for_each(|&call| sys::forbid(call, errno));
            life()
        });
        thread.join().expect("the thread did not panic")
    })
}

/// What a wait brings without the call that fails, which it tries again now and then.
fn wait_with_failing_calls(poller: &Poller, errno: i32) -> Vec<u64> {
    let (begun, used) = (Instant::now(), sys::processor_time());
    let mut events = Events::with_capacity(8);
    let result = poller.wait(&mut events, Some(Duration::from_millis(20)));
    if result.is_err() {
        expect_error(result, errno);
        let (lasted, used) = (begun.elapsed(), sys::processor_time() - used);
        assert!(lasted >= Duration::from_millis(10) && used < lasted / 2, "{used:?} of {lasted:?}");
    }
    tokens(&events.iter().copied().collect::<Vec<_>>())
}

fn a_shortage_of_memory_loses_nothing(kind: EngineKind, trigger: Trigger) {
    for (calls, errno) in calls(kind) {
        let poller = poller(kind);
        let (reader, writer) = pipe();
        poller.add(&reader, read(trigger), 1).unwrap();
        for _ in 0..2 {
            write_byte(&writer);
            expect_event(&poller, 1, Ready::READ);
            // On io_uring what is LEVEL is looked at by the next wait.
            with_failing_calls(calls, errno, || wait_with_failing_calls(&poller, errno));
            if trigger == Trigger::LEVEL {
                expect_event(&poller, 1, Ready::READ);
            }
            drain(&reader);
            acknowledge(&poller, &reader, read(trigger), 1);
            let reported = with_failing_calls(calls, errno, || {
                write_byte(&writer);
                wait_with_failing_calls(&poller, errno)
            });
            if reported.is_empty() || trigger == Trigger::LEVEL {
                expect_event(&poller, 1, Ready::READ);
            }
            drain(&reader);
            acknowledge(&poller, &reader, read(trigger), 1);
        }
    }
}

fn a_shortage_of_memory_keeps_no_timer_and_no_wake(kind: EngineKind) {
    for (calls, errno) in calls(kind) {
        let poller = poller(kind);
        with_failing_calls(calls, errno, || {
            poller.timer_add(Duration::from_millis(5), None, 7).unwrap();
            let events = next(&poller);
            assert_eq!((events[0].kind(), events[0].token()), (EventKind::Timer, 7));
            poller.wake().unwrap();
            expect_wake(&poller, 1);
            poller.post(3, 4).unwrap();
            assert_eq!(next(&poller)[0].kind(), EventKind::Post);
        });
    }
}

/// More pipes than the process may have open any more.
fn too_many(poller: &Poller, trigger: Trigger) -> Vec<(std::fs::File, std::fs::File)> {
    let pipes: Vec<_> = (0..100).map(|_| pipe()).collect();
    for ((reader, _), token) in pipes.iter().zip(0..) {
        poller.add(reader, read(trigger), token).unwrap();
    }
    expect_none(poller);
    sys::limit_descriptors(30);
    pipes
}

/// `poll(2)` refuses with EINVAL, indefinitely.
fn more_are_watched_than_the_limit_of_descriptors_allows(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let pipes = too_many(&poller, trigger);
    for _ in 0..2 {
        for token in [0, 50, 99] {
            write_byte(&pipes[token].1);
            for _ in 0..if trigger == Trigger::LEVEL { 3 } else { 1 } {
                expect_event(&poller, token as u64, Ready::READ);
            }
            drain(&pipes[token].0);
            acknowledge(&poller, &pipes[token].0, read(trigger), token as u64);
            expect_quiet(&poller);
        }
        pipes.iter().for_each(|(_, writer)| write_byte(writer));
        let mut found = tokens(&wait(&poller, 100, LONG));
        found.sort_unstable();
        assert!(found.into_iter().eq(0..100));
        for ((reader, _), token) in pipes.iter().zip(0..) {
            drain(reader);
            acknowledge(&poller, reader, read(trigger), token);
        }
    }
}

fn a_wait_for_more_than_the_limit_lasts_its_time(kind: EngineKind) {
    let poller = poller(kind);
    let _pipes = too_many(&poller, Trigger::LEVEL);
    let (begun, timeout) = (Instant::now(), Duration::from_millis(50));
    expect_sleep(|| assert_eq!(wait(&poller, 8, timeout), []));
    assert!(begun.elapsed() >= timeout);
    assert_eq!(wait(&poller, 8, Duration::ZERO), []);
}

fn another_thread_ends_a_wait_for_more_than_the_limit(kind: EngineKind) {
    let poller = poller(kind);
    let pipes = too_many(&poller, Trigger::LEVEL);
    std::thread::scope(|scope| {
        let waiter = waiter(scope, &poller, None);
        poller.modify(&pipes[99].0, Interest::READ, 1000).unwrap();
        write_byte(&pipes[99].1);
        assert_eq!(tokens(&waiter.events()), [1000]);
    });
}

/// Takes all the memory that is left but for pieces too small for a list or a table to grow.
#[cfg(target_os = "linux")]
fn exhaust_memory() -> Vec<Vec<u8>> {
    let mut taken = Vec::with_capacity(1 << 20);
    sys::limit_memory(4 << 20);
    for size in (12..=20).rev().map(|power| 1 << power) {
        loop {
            let mut piece = Vec::new();
            if taken.len() == taken.capacity() || piece.try_reserve_exact(size).is_err() {
                break;
            }
            taken.push(piece);
        }
    }
    taken
}

#[cfg(target_os = "linux")]
fn what_is_added_without_memory_is_enomem(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    let fds: Vec<OwnedFd> = (0..2_000).map(|_| dup(&reader)).collect();
    poller.add(&fds[0], Interest::READ, 0).unwrap();
    let timer = poller.timer_add(LONG, None, 7).unwrap();
    expect_none(&poller);
    let memory = exhaust_memory();
    let fails = |add: &mut dyn FnMut() -> io::Result<()>| loop {
        if let Err(error) = add() {
            break error;
        }
    };
    let mut added = 1;
    let errors = [
        fails(&mut || {
            poller.add(&fds[added], Interest::READ, added as u64)?;
            added += 1;
            Ok(())
        }),
        fails(&mut || poller.timer_add(LONG, None, 7).map(drop)),
        fails(&mut || poller.post(8, 0)),
    ];
    drop(memory);
    assert!(errors.iter().all(|error| error.raw_os_error() == Some(libc::ENOMEM)), "{errors:?}");
    // Nothing is lost, and what failed can be done again.
    poller.timer_set(timer, Duration::ZERO, None).unwrap();
    poller.add(&fds[added], Interest::READ, added as u64).unwrap();
    write_byte(&writer);
    let mut seen = HashSet::new();
    while !(0..=added as u64).all(|token| seen.contains(&(EventKind::Io, token)))
        || !seen.contains(&(EventKind::Timer, 7))
    {
        seen.extend(next(&poller).iter().map(|event| (event.kind(), event.token())));
    }
}
