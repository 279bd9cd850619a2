//! What is expected of a poller, in words.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use omnipoll::{
    explain, Capabilities, EngineKind, Event, EventKind, Events, Interest, Poller, Ready, Trigger,
};

use super::sys;

/// How long an event that must come is waited for. Only a failing test takes as long.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn poller(kind: EngineKind) -> Poller {
    let poller = Poller::with_engine(kind).expect("the engine is available");
    assert_eq!(poller.engine(), kind);
    poller
}

/// The events of one wait. One that lasts LONG ends by an event or by none: an event that is
/// only found when the time is up was not reported.
#[track_caller]
pub(crate) fn wait(poller: &Poller, capacity: usize, timeout: impl Into<Option<Duration>>) -> Vec<Event> {
    let mut events = Events::with_capacity(capacity);
    let begun = Instant::now();
    let count = poller.wait(&mut events, timeout.into()).expect("wait");
    assert!(count == 0 || begun.elapsed() < LONG, "found only when the time was up: {events:?}");
    assert_eq!(count, events.len());
    assert!(count <= capacity, "{count} events in room for {capacity}");
    for event in &events {
        assert!(event.kind() != EventKind::Io || event.ready().bits() != 0, "no flag in {event:?}");
    }
    events.iter().copied().collect()
}

/// The events of one wait, which must be some.
#[track_caller]
pub(crate) fn next(poller: &Poller) -> Vec<Event> {
    let events = wait(poller, 64, LONG);
    assert!(!events.is_empty(), "no event came");
    events
}

/// One wait brings exactly these tokens, each with exactly these flags (of those the engine
/// can distinguish), in any order.
#[track_caller]
pub(crate) fn expect_events(poller: &Poller, expected: &[(u64, Ready)]) {
    let expected: BTreeSet<_> =
        expected.iter().map(|&(token, ready)| (token, reported(poller, ready).bits())).collect();
    let events = next(poller);
    let found: BTreeSet<_> = events.iter().map(|event| (event.token(), event.ready().bits())).collect();
    assert!(
        found == expected && found.len() == events.len(),
        "expected {}, not {events:?}",
        describe(&expected)
    );
}

/// One wait brings one event: this token with exactly these flags (of those the engine can distinguish).
#[track_caller]
pub(crate) fn expect_event(poller: &Poller, token: u64, ready: Ready) {
    expect_events(poller, &[(token, ready)]);
}

/// No event comes: neither without blocking nor in a wait of a moment.
#[track_caller]
pub(crate) fn expect_none(poller: &Poller) {
    for timeout in [Duration::ZERO, Duration::from_millis(2)] {
        let events = wait(poller, 64, timeout);
        assert!(events.is_empty(), "expected no event, not {events:?}");
    }
}

/// One wait brings a single WAKE of that many wakes.
#[track_caller]
pub(crate) fn expect_wake(poller: &Poller, count: i64) {
    let events = next(poller);
    assert_eq!(wakes(&events), count, "{events:?}");
    assert_eq!((events.len(), events[0].token(), events[0].ready().bits()), (1, 0, 0), "{events:?}");
}

/// How many wakes these events stand for.
pub(crate) fn wakes(events: &[Event]) -> i64 {
    events.iter().filter(|event| event.kind() == EventKind::Wake).map(Event::value).sum()
}

/// The tokens of the descriptors among these events.
pub(crate) fn tokens(events: &[Event]) -> Vec<u64> {
    events.iter().filter(|event| event.kind() == EventKind::Io).map(Event::token).collect()
}

/// Waits until `token`, the only one, has been reported with all of these flags (of those the
/// engine can distinguish). For what arrives bit by bit over a network; the descriptor's own state
/// stays, so that `acknowledge` asks for it again.
#[track_caller]
pub(crate) fn until(poller: &Poller, fd: &impl AsFd, interest: Interest, token: u64, ready: Ready) {
    let wanted = reported(poller, ready);
    let begun = Instant::now();
    loop {
        let events = next(poller);
        assert_eq!(tokens(&events), [token], "{events:?}");
        if events[0].ready().contains(wanted) {
            return;
        }
        assert!(begun.elapsed() < LONG, "{wanted:?} never came, the last was {events:?}");
        poller.modify(fd, interest, token).expect("modify");
    }
}

/// What a program does that has read or written until `EAGAIN`, so that the next readiness is
/// reported: nothing under LEVEL, rearm under EDGE, modify under ONESHOT.
#[track_caller]
pub(crate) fn acknowledge(poller: &Poller, fd: &impl AsFd, interest: Interest, token: u64) {
    if interest.trigger().contains(Trigger::ONESHOT) {
        poller.modify(fd, interest, token).expect("modify");
    } else if interest.trigger().contains(Trigger::EDGE) {
        poller.rearm(fd, interest).expect("rearm");
    }
}

/// Those of the flags that the engine can distinguish.
pub(crate) fn reported(poller: &Poller, ready: Ready) -> Ready {
    let can = |what| poller.capabilities().contains(what);
    let tellable = [
        (Ready::READ, true),
        (Ready::WRITE, true),
        (Ready::PRIORITY, true),
        (Ready::READ_CLOSED, can(Capabilities::REPORTS_READ_CLOSED)),
        (Ready::HANGUP, can(Capabilities::REPORTS_HANGUP)),
        (Ready::ERROR, can(Capabilities::REPORTS_HANGUP)),
        (Ready::INVALID, true),
    ];
    let reported = tellable.into_iter().filter(|&(flag, reported)| reported && ready.contains(flag));
    reported
        .map(|(flag, _)| flag)
        .reduce(|all, flag| all | flag)
        .expect("a flag that the engine can distinguish")
}

/// Whether the engine detects descriptors that are closed while registered.
pub(crate) fn reports_closed(poller: &Poller) -> bool {
    matches!(poller.engine(), EngineKind::Select | EngineKind::Poll)
}

/// The call fails with this errno, and there are words for it.
#[track_caller]
pub(crate) fn expect_error<T>(result: io::Result<T>, errno: i32) {
    let error = result.err().expect("an error");
    assert_eq!(error.raw_os_error(), Some(errno), "{error}: {}", explain(&error));
    assert!(!explain(&error).is_empty());
}

/// Runs `nothing_to_do`, which must last by sleeping: it may use at most a quarter of the
/// time that passes, where a loop that spins uses all of it.
#[track_caller]
pub(crate) fn expect_sleep(nothing_to_do: impl FnOnce()) {
    let (begun, used) = (Instant::now(), sys::processor_time());
    nothing_to_do();
    let (lasted, used) = (begun.elapsed(), sys::processor_time() - used);
    assert!(used < lasted / 4, "{used:?} of processor time in {lasted:?} of waiting");
}

/// No event comes for a while, and the wait for it sleeps.
#[track_caller]
pub(crate) fn expect_quiet(poller: &Poller) {
    expect_sleep(|| {
        let events = wait(poller, 64, Duration::from_millis(100));
        assert!(events.is_empty(), "expected no event, not {events:?}");
    });
}

/// A thread that waits once.
pub(crate) struct Waiter<'scope> {
    pub(crate) thread: libc::pid_t,
    wait: ScopedJoinHandle<'scope, Vec<Event>>,
}

/// Starts a thread that waits on `poller`, and returns once it sleeps.
pub(crate) fn waiter<'scope>(
    scope: &'scope Scope<'scope, '_>,
    poller: &'scope Poller,
    timeout: impl Into<Option<Duration>>,
) -> Waiter<'scope> {
    let timeout = timeout.into();
    let (sender, reported) = std::sync::mpsc::channel();
    let wait = scope.spawn(move || {
        sender.send(sys::thread_id()).expect("the other thread listens");
        wait(poller, 64, timeout)
    });
    let thread = reported.recv().expect("the thread runs");
    sys::wait_until_asleep(thread);
    Waiter { thread, wait }
}

impl Waiter<'_> {
    /// Whether it still waits.
    pub(crate) fn still_waits(&self) -> bool {
        !self.wait.is_finished()
    }

    /// What it got.
    #[track_caller]
    pub(crate) fn events(self) -> Vec<Event> {
        self.wait.join().expect("the waiter did not panic")
    }
}

/// Takes out of `waiters` the first that ends.
pub(crate) fn take_first_ended<'scope>(waiters: &mut Vec<Waiter<'scope>>) -> Waiter<'scope> {
    loop {
        match waiters.iter().position(|waiter| !waiter.still_waits()) {
            Some(index) => return waiters.swap_remove(index),
            None => sys::yield_briefly(),
        }
    }
}

fn describe(expected: &BTreeSet<(u64, u32)>) -> String {
    let words = |&(token, bits): &(u64, u32)| format!("{token} with the bits {bits:#x}");
    expected.iter().map(words).collect::<Vec<_>>().join(", ")
}
