//! One wait for everything: timers, signals, children, wakes and posts, on every engine.

// The poller reaps them.
#![allow(clippy::zombie_processes)]

mod children;
#[cfg(target_os = "linux")]
mod embedded;
mod mixed;
mod posts;
mod signals;
mod timers;
#[cfg(target_os = "linux")]
mod without_pidfds;

use omnipoll::{EngineKind, Event, EventKind, Events, Poller};
use std::time::{Duration, Instant};

/// No wait of these tests takes this long unless something is lost.
const LONG: Duration = Duration::from_secs(20);

fn on_every_engine(test: impl Fn(&Poller)) {
    for kind in EngineKind::ALL.into_iter().filter(|kind| kind.is_available()) {
        eprintln!("on {}", kind.name());
        test(&Poller::with_engine(kind).unwrap());
    }
}

/// Waits until `count` events have come, `capacity` at a time.
fn collect(poller: &Poller, capacity: usize, count: usize) -> Vec<Event> {
    let mut events = Events::with_capacity(capacity);
    let mut all = Vec::new();
    let start = Instant::now();
    while all.len() < count {
        assert!(start.elapsed() < LONG, "{} of {count} events came: {all:?}", all.len());
        poller.wait(&mut events, Some(LONG)).unwrap();
        all.extend(events.iter().copied());
    }
    all
}

fn expect_none(poller: &Poller) {
    let mut events = Events::with_capacity(8);
    poller.wait(&mut events, Some(Duration::ZERO)).unwrap();
    assert!(events.is_empty(), "{events:?}");
}

/// What tests compare: kind, token and value.
fn summarize(events: &[Event]) -> Vec<(EventKind, u64, i64)> {
    events.iter().map(|event| (event.kind(), event.token(), event.value())).collect()
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}
