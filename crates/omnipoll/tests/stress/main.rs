//! Threads under stress, on every engine: eight that change a poller in every way there is,
//! while two wait on it. At the end everything is accounted for.
//!
//! `make tsan` runs this program under ThreadSanitizer: see `tests/sanitize.sh`.

#[allow(dead_code)]
#[path = "../conformance/suite.rs"]
mod suite;
#[path = "../support/mod.rs"]
mod support;

mod accounting;
mod shared_wait;
mod waiter;
mod worker;

use std::thread;

use omnipoll::EngineKind;

use accounting::Accounting;

const WORKERS: usize = 8;
const WAITERS: usize = 2;

fn main() -> std::process::ExitCode {
    let mut suite = suite::Suite::default();
    suite.on_each_engine(every_event_is_accounted_for);
    shared_wait::behaviours(&mut suite);
    suite.main()
}

/// Waits have no timeout, so that whatever is lost is a hang, which the suite ends and reports.
fn every_event_is_accounted_for(kind: EngineKind) {
    let poller = support::expect::poller(kind);
    let accounting = Accounting::new(WORKERS, worker::MAX_TOKENS);
    let pipes = || (0..worker::PIPES).map(|_| support::fds::pipe()).unzip();
    let (readers, writers): (Vec<Vec<_>>, Vec<Vec<_>>) = (0..WORKERS).map(|_| pipes()).unzip();
    thread::scope(|scope| {
        let waiters: Vec<_> =
            (0..WAITERS).map(|_| scope.spawn(|| waiter::run(&poller, &accounting, &readers))).collect();
        let ends = readers.iter().zip(writers).enumerate();
        let workers: Vec<_> = ends
            .map(|(thread, (readers, writers))| {
                let worker = worker::Worker::new(&poller, &accounting, readers, writers, thread);
                scope.spawn(move || worker.run())
            })
            .collect();
        // Joined one by one: that is an order which ThreadSanitizer sees.
        let asked: Vec<_> = workers.into_iter().map(|worker| worker.join().expect("a worker")).collect();
        accounting.until_reported(&asked);
        poller.post(waiter::STOP, 0).expect("room for a post");
        let seen: Vec<_> = waiters.into_iter().map(|waiter| waiter.join().expect("a waiter")).collect();
        accounting.check(&asked, &seen);
    });
    // What is left are the last registrations, and the word to stop.
    for reader in readers.iter().flatten() {
        poller.remove(reader).expect("the last registration");
    }
    let stop = support::expect::wait(&poller, 64, std::time::Duration::ZERO);
    assert!(matches!(&stop[..], [event] if event.token() == waiter::STOP), "{stop:?}");
    support::expect::expect_none(&poller);
}
