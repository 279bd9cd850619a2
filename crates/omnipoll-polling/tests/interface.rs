//! What a program of polling's relies on, on each engine. The suites of other packages are run by
//! `suites.py`. The engine is that of `OMNIPOLL_ENGINE`, which `suites.py` sets to each.

use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use polling::{Event, Events, PollMode, Poller};

const NOW: Option<Duration> = Some(Duration::ZERO);
const LONG: Option<Duration> = Some(Duration::from_secs(60));

fn engine() -> String {
    std::env::var("OMNIPOLL_ENGINE").unwrap_or_else(|_| "epoll".into())
}

/// Whether the kernel has the set: what edges and a descriptor need.
fn has_kernel_set() -> bool {
    ["epoll", "io_uring"].contains(&engine().as_str())
}

fn add(poller: &Poller, source: &UnixStream, interest: Event, mode: PollMode) -> std::io::Result<()> {
    // SAFETY: omnipoll asks for nothing; the tests delete what they add, or drop the poller.
    unsafe { poller.add_with_mode(source, interest, mode) }
}

fn wait(poller: &Poller, timeout: Option<Duration>) -> Vec<Event> {
    let mut events = Events::new();
    poller.wait(&mut events, timeout).unwrap();
    events.iter().map(Event::with_no_extra).collect()
}

#[test]
fn the_key_of_notifications_and_registering_twice_are_errors() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let poller = Poller::new().unwrap();
    let kind = |outcome: std::io::Result<()>| outcome.unwrap_err().kind();
    let reserved = Event::readable(usize::MAX);
    assert_eq!(kind(add(&poller, &ours, reserved, PollMode::Oneshot)), ErrorKind::InvalidInput);
    assert_eq!(kind(poller.modify(&ours, Event::all(1))), ErrorKind::NotFound);
    assert_eq!(kind(poller.delete(&ours)), ErrorKind::NotFound);
    add(&poller, &ours, Event::readable(usize::MAX - 1), PollMode::Oneshot).unwrap();
    assert_eq!(kind(add(&poller, &ours, Event::all(1), PollMode::Level)), ErrorKind::AlreadyExists);
    assert_eq!(kind(poller.modify(&ours, reserved)), ErrorKind::InvalidInput);
    poller.modify(&ours, Event::writable(7)).unwrap();
    assert_eq!(wait(&poller, LONG), [Event::writable(7)]);
    assert_eq!(wait(&poller, NOW), [], "a oneshot is reported once");
    poller.delete(&ours).unwrap();
    assert_eq!(kind(poller.delete(&ours)), ErrorKind::NotFound);
}

#[test]
fn edges_are_refused_where_there_are_none() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let poller = Poller::new().unwrap();
    assert!(poller.supports_level());
    assert_eq!(poller.supports_edge(), has_kernel_set());
    for mode in [PollMode::Edge, PollMode::EdgeOneshot] {
        let outcome = add(&poller, &ours, Event::writable(1), mode);
        if has_kernel_set() {
            outcome.unwrap();
            assert_eq!(wait(&poller, LONG), [Event::writable(1)]);
            assert_eq!(wait(&poller, NOW), []);
            poller.delete(&ours).unwrap();
        } else {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unsupported);
            assert_eq!(poller.delete(&ours).unwrap_err().kind(), ErrorKind::NotFound);
        }
    }
}

#[test]
fn hang_up_is_both_directions_where_the_engine_can_tell() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let poller = Poller::new().unwrap();
    add(&poller, &ours, Event::readable(1), PollMode::Level).unwrap();
    drop(theirs);
    let mut events = Events::new();
    assert_eq!(poller.wait(&mut events, LONG).unwrap(), 1);
    let event = events.iter().next().unwrap();
    let distinguishes = engine() != "select";
    assert_eq!(event.with_no_extra(), Event::new(1, true, distinguishes));
    assert_eq!((event.is_interrupt(), event.is_err()), (distinguishes, distinguishes.then_some(false)));
    // An interest in nothing is one in hang-up.
    poller.modify(&ours, Event::none(2)).unwrap();
    assert_eq!(wait(&poller, NOW), if distinguishes { vec![Event::all(2)] } else { vec![] });
    poller.delete(&ours).unwrap();
}

#[test]
fn one_thread_waits_at_a_time_and_notifications_are_one() {
    let poller = Poller::new().unwrap();
    let stopping = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stopping.load(Ordering::SeqCst) {
                assert_eq!(wait(&poller, None), []);
            }
        });
        // Early, because the other thread waits.
        let slice = Duration::from_millis(20);
        let is_early = || {
            let begin = Instant::now();
            wait(&poller, Some(slice)).is_empty() && begin.elapsed() < slice
        };
        let begin = Instant::now();
        while !is_early() {
            assert!(begin.elapsed() < LONG.unwrap(), "two threads wait");
        }
        stopping.store(true, Ordering::SeqCst);
        poller.notify().unwrap();
    });
    for _ in 0..3 {
        poller.notify().unwrap();
    }
    assert_eq!(wait(&poller, None), []);
    let begin = Instant::now();
    assert_eq!(wait(&poller, Some(Duration::from_millis(20))), []);
    assert!(begin.elapsed() >= Duration::from_millis(20), "a notification was kept");
}

#[test]
fn a_full_list_is_an_error_and_loses_nothing() {
    let pairs: Vec<_> = (0..3).map(|_| UnixStream::pair().unwrap()).collect();
    let poller = Poller::new().unwrap();
    for (key, (ours, _)) in pairs.iter().enumerate() {
        add(&poller, ours, Event::writable(key), PollMode::Oneshot).unwrap();
    }
    let mut events = Events::with_capacity(2.try_into().unwrap());
    assert_eq!((poller.wait(&mut events, LONG).unwrap(), events.capacity().get()), (2, 2));
    assert_eq!(poller.wait(&mut events, NOW).unwrap_err().kind(), ErrorKind::InvalidInput);
    let mut keys: Vec<_> = events.iter().map(|event| event.key).collect();
    events.clear();
    assert_eq!(poller.wait(&mut events, LONG).unwrap(), 1);
    keys.extend(events.iter().map(|event| event.key));
    keys.sort_unstable();
    assert_eq!(keys, [0, 1, 2]);
}

#[test]
fn a_closed_descriptor_is_no_event_and_its_number_can_be_used_again() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let poller = Poller::new().unwrap();
    add(&poller, &ours, Event::readable(1), PollMode::Level).unwrap();
    let number = ours.as_raw_fd();
    drop(ours);
    assert_eq!(wait(&poller, NOW), []);
    // Another thread's test may have taken the number.
    let again: Vec<_> = (0..100)
        .map(|_| UnixStream::pair().unwrap())
        .take_while({
            let mut found = false;
            move |(ours, theirs)| {
                let before = found;
                found |= [ours.as_raw_fd(), theirs.as_raw_fd()].contains(&number);
                !before
            }
        })
        .collect();
    for (key, (ours, _)) in again.iter().enumerate() {
        add(&poller, ours, Event::readable(key), PollMode::Level).unwrap();
    }
    assert_eq!(wait(&poller, NOW), []);
}

#[test]
fn its_descriptor_is_readable_while_a_wait_would_return() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (outer, inner) = (Poller::new().unwrap(), Poller::new().unwrap());
    if !has_kernel_set() {
        assert!(catch_unwind(AssertUnwindSafe(|| inner.as_fd().as_raw_fd())).is_err());
        return;
    }
    // SAFETY: as above.
    unsafe { outer.add_with_mode(&inner, Event::readable(1), PollMode::Level).unwrap() };
    add(&inner, &ours, Event::readable(2), PollMode::Level).unwrap();
    assert_eq!(wait(&inner, NOW), []);
    assert_eq!(wait(&outer, NOW), []);
    theirs.write_all(b"data").unwrap();
    assert_eq!(wait(&outer, LONG), [Event::readable(1)]);
    assert_eq!(wait(&inner, NOW), [Event::readable(2)]);
    inner.delete(&ours).unwrap();
    assert_eq!(wait(&inner, NOW), []);
    inner.notify().unwrap();
    assert_eq!(wait(&outer, LONG), [Event::readable(1)]);
    assert_eq!(wait(&inner, NOW), []);
}
