//! A poller in an outer loop: its descriptor is readable while there is anything to wait for.

use super::*;
use omnipoll::Interest;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::SystemTime;

/// An outer loop, by poll(2) or epoll(7), and the poller in it.
struct Embedded<'a> {
    outer: Poller,
    inner: &'a Poller,
}

/// What comes of itself ends: a descriptor that is readable for nothing so often is a loop that spins.
const MAX_FOR_NOTHING: usize = 8;

impl<'a> Embedded<'a> {
    fn new(outer: EngineKind, inner: &'a Poller) -> Self {
        let outer = Poller::with_engine(outer).unwrap();
        outer.add(inner.embed().unwrap(), Interest::READ, 1).unwrap();
        Self { outer, inner }
    }

    fn is_readable(&self, timeout: Duration) -> bool {
        self.outer.wait(&mut Events::with_capacity(1), Some(timeout)).unwrap() > 0
    }

    /// Waits in the outer loop, and makes one wait without time each time that the descriptor is readable,
    /// until `count` events have come.
    #[track_caller]
    fn collect(&self, capacity: usize, count: usize) -> Vec<Event> {
        let mut events = Events::with_capacity(capacity);
        let (mut all, start) = (Vec::new(), Instant::now());
        while all.len() < count {
            assert!(self.is_readable(LONG), "{} of {count} events came: {all:?}", all.len());
            assert!(start.elapsed() < LONG, "{} of {count} events came: {all:?}", all.len());
            self.inner.wait(&mut events, Some(Duration::ZERO)).unwrap();
            all.extend(events.iter().copied());
        }
        all
    }

    /// Nothing is left: the descriptor becomes unreadable.
    #[track_caller]
    fn expect_idle(&self) {
        let readable = (0..=MAX_FOR_NOTHING).take_while(|_| {
            let is_readable = self.is_readable(Duration::ZERO);
            expect_none(self.inner);
            is_readable
        });
        assert!(readable.count() <= MAX_FOR_NOTHING, "it is readable, and there is nothing");
    }

    #[track_caller]
    fn expect(&self, kind: EventKind, token: u64) {
        let event = self.collect(8, 1)[0];
        assert_eq!((event.kind(), event.token()), (kind, token));
    }
}

/// On the engines that have a descriptor, in a loop by poll(2) and by epoll(7).
fn embedded(test: impl Fn(&Embedded<'_>)) {
    on_every_engine(|inner| match inner.engine() {
        EngineKind::Select | EngineKind::Poll => assert_eq!(errno(inner.embed()), libc::ENOTSUP),
        kind => {
            for outer in [EngineKind::Poll, EngineKind::Epoll] {
                let inner = Poller::with_engine(kind).unwrap();
                test(&Embedded::new(outer, &inner));
            }
        }
    });
}

#[test]
fn it_is_the_same_each_time() {
    embedded(|Embedded { inner, .. }| {
        let first = inner.embed().unwrap().as_raw_fd();
        assert_eq!(inner.embed().unwrap().as_raw_fd(), first);
    });
}

#[test]
fn each_kind_makes_it_readable_and_nothing_else_does() {
    embedded(|loops| {
        let inner = loops.inner;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        inner.add(&ours, Interest::READ, 1).unwrap();
        inner.signal_add(libc::SIGUSR2, 2).unwrap();
        for _ in 0..50 {
            loops.expect_idle();
            theirs.write_all(b"x").unwrap();
            loops.expect(EventKind::Io, 1);
            (&ours).read_exact(&mut [0]).unwrap();
            loops.expect_idle();
            // SAFETY: it is handled.
            unsafe { libc::raise(libc::SIGUSR2) };
            loops.expect(EventKind::Signal, 2);
            loops.expect_idle();
            inner.post(3, 0).unwrap();
            loops.expect(EventKind::Post, 3);
            loops.expect_idle();
            inner.wake().unwrap();
            loops.expect(EventKind::Wake, 0);
            loops.expect_idle();
            inner.timer_add(Duration::from_millis(1), None, 4).unwrap();
            loops.expect(EventKind::Timer, 4);
            loops.expect_idle();
            inner.timer_add_at(SystemTime::now() + Duration::from_millis(1), 5).unwrap();
            loops.expect(EventKind::Timer, 5);
        }
        for _ in 0..5 {
            loops.expect_idle();
            let child = Command::new("true").spawn().unwrap();
            inner.child_add(child.id() as i32, 6).unwrap();
            loops.expect(EventKind::Child, 6);
        }
        inner.signal_remove(libc::SIGUSR2).unwrap();
    });
}

#[test]
fn what_came_before_it_was_embedded_is_not_missed() {
    embedded(|Embedded { inner, .. }| {
        for (kind, happens) in FIRST {
            let inner = Poller::with_engine(inner.engine()).unwrap();
            happens(&inner);
            let loops = Embedded::new(EngineKind::Epoll, &inner);
            assert_eq!(loops.collect(8, 1)[0].kind(), kind);
            loops.expect_idle();
        }
    });
}

type Happens = fn(&Poller);
const FIRST: [(EventKind, Happens); 3] = [
    (EventKind::Post, |inner| inner.post(7, 0).unwrap()),
    (EventKind::Timer, |inner| _ = inner.timer_add(Duration::from_millis(1), None, 7).unwrap()),
    (EventKind::Wake, |inner| inner.wake().unwrap()),
];

#[test]
fn it_stays_readable_until_nothing_is_left() {
    embedded(|loops| {
        let inner = loops.inner;
        let pairs: Vec<_> = (0..5).map(|_| UnixStream::pair().unwrap()).collect();
        for round in 0..20 {
            for (ours, theirs) in &pairs {
                inner.add(ours, Interest::READ | omnipoll::Trigger::ONESHOT, 1).unwrap();
                (&*theirs).write_all(b"x").unwrap();
                inner.post(2, 0).unwrap();
                inner.timer_add(Duration::from_micros(round * 50), None, 3).unwrap();
            }
            inner.wake().unwrap();
            let all = loops.collect(1 + round as usize % 4, 16);
            for (kind, count) in
                [(EventKind::Io, 5), (EventKind::Post, 5), (EventKind::Timer, 5), (EventKind::Wake, 1)]
            {
                assert_eq!(all.iter().filter(|event| event.kind() == kind).count(), count, "{kind:?}");
            }
            loops.expect_idle();
            for (ours, _) in &pairs {
                (&*ours).read_exact(&mut [0]).unwrap();
                inner.remove(ours).unwrap();
            }
            loops.expect_idle();
        }
    });
}

#[test]
fn a_level_that_holds_stays_readable() {
    embedded(|loops| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        loops.inner.add(&ours, Interest::READ, 1).unwrap();
        theirs.write_all(b"x").unwrap();
        assert_eq!(loops.collect(8, 10).len(), 10);
        loops.inner.modify(&ours, Interest::WRITE, 2).unwrap();
        loops.expect(EventKind::Io, 2);
        loops.inner.remove(&ours).unwrap();
        loops.expect_idle();
    });
}

#[test]
fn the_soonest_timer_makes_it_readable_never_early() {
    embedded(|loops| {
        let inner = loops.inner;
        let far = inner.timer_add(Duration::from_secs(3_600), None, 1).unwrap();
        loops.expect_idle();
        for delay in [5, 3, 1].map(Duration::from_millis) {
            let start = Instant::now();
            inner.timer_add(delay, None, 2).unwrap();
            loops.expect(EventKind::Timer, 2);
            assert!(start.elapsed() >= delay);
        }
        // Moved to be sooner, and later.
        inner.timer_set(far, Duration::from_millis(1), None).unwrap();
        loops.expect(EventKind::Timer, 1);
        let start = Instant::now();
        let later = inner.timer_add(Duration::from_millis(1), None, 3).unwrap();
        inner.timer_set(later, Duration::from_millis(20), None).unwrap();
        loops.expect(EventKind::Timer, 3);
        assert!(start.elapsed() >= Duration::from_millis(20));
        // One that was cancelled has it readable once more at most.
        let cancelled = inner.timer_add(Duration::from_millis(1), None, 4).unwrap();
        inner.timer_cancel(cancelled).unwrap();
        loops.is_readable(Duration::from_millis(20));
        loops.expect_idle();
        let periodic = inner.timer_add(Duration::from_millis(2), Some(Duration::from_millis(1)), 5).unwrap();
        loops.collect(8, 10).iter().for_each(|event| assert_eq!(event.token(), 5));
        inner.timer_cancel(periodic).unwrap();
        loops.expect_idle();
    });
}

#[test]
fn other_threads_reach_it_in_every_moment() {
    const EACH: usize = 2_000;
    embedded(|loops| {
        thread::scope(|scope| {
            for token in [1, 2] {
                let inner = loops.inner;
                scope.spawn(move || {
                    for number in 0..EACH {
                        match number % 3 {
                            0 => drop(inner.timer_add(Duration::ZERO, None, token).unwrap()),
                            _ => inner.post(token, 0).unwrap(),
                        }
                        if number % 5 == 0 {
                            thread::yield_now();
                        }
                    }
                });
            }
            assert_eq!(loops.collect(3, 2 * EACH).len(), 2 * EACH);
        });
        loops.expect_idle();
    });
}

#[test]
fn a_thread_that_waits_too_takes_nothing_that_the_outer_loop_needs() {
    embedded(|loops| {
        let inner = loops.inner;
        for _ in 0..100 {
            thread::scope(|scope| {
                let waiting = scope.spawn(|| collect(inner, 1, 1));
                inner.post(1, 0).unwrap();
                inner.post(2, 0).unwrap();
                // One is the thread's.
                loops.collect(1, 1);
                waiting.join().unwrap();
            });
            loops.expect_idle();
        }
    });
}

/// The engine replaces its set then, of which the outer loop must not notice anything.
#[test]
fn a_registration_that_was_closed_and_lives_on_is_survived() {
    embedded(|loops| {
        let inner = loops.inner;
        for _ in 0..3 {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            inner.add(&ours, Interest::READ, 1).unwrap();
            let _duplicate = ours.as_fd().try_clone_to_owned().unwrap();
            inner
                .remove_raw({
                    let number = ours.as_raw_fd();
                    drop(ours);
                    number
                })
                .unwrap();
            theirs.write_all(b"x").unwrap();
            loops.expect_idle();
            inner.post(2, 0).unwrap();
            loops.expect(EventKind::Post, 2);
            loops.expect_idle();
        }
    });
}
