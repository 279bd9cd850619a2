//! What was asked for and what was told, and when, by a clock of the test's own.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use omnipoll::Event;

use crate::support::expect::LONG;

/// A token: which thread gave it, and its how manyth it was.
pub(crate) fn token(thread: usize, serial: usize) -> u64 {
    (thread as u64) << 32 | serial as u64
}

fn split(token: u64) -> (usize, usize) {
    ((token >> 32) as usize, token as u32 as usize)
}

/// How often a token may be told in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    Never,
    Once,
    OnceAtMost,
    OnceAtLeast,
    Any,
}

/// What a worker has asked for.
pub(crate) struct Asked {
    pub(crate) thread: usize,
    /// By serial.
    pub(crate) tokens: Vec<Times>,
    pub(crate) posts: i64,
    pub(crate) wakes: i64,
}

/// What a waiter has seen: each thread's posts, in the order they came.
pub(crate) struct Seen {
    pub(crate) posts: Vec<Vec<i64>>,
}

#[derive(Default)]
struct Fact {
    told: AtomicU32,
    /// The time at which it ended; 0 while it lives.
    ended: AtomicU64,
}

/// Shared by all threads, without a lock that would order what is under test.
pub(crate) struct Ledger {
    clock: AtomicU64,
    facts: Vec<Vec<Fact>>,
    pub(crate) wakes: AtomicU64,
    pub(crate) posts: AtomicU64,
}

impl Ledger {
    pub(crate) fn new(threads: usize, tokens: usize) -> Self {
        let facts = || (0..tokens).map(|_| Fact::default()).collect();
        Self {
            clock: AtomicU64::new(1),
            facts: (0..threads).map(|_| facts()).collect(),
            wakes: AtomicU64::new(0),
            posts: AtomicU64::new(0),
        }
    }

    /// The time. A wait that begins now must not tell what has ended.
    pub(crate) fn now(&self) -> u64 {
        self.clock.load(SeqCst)
    }

    /// Notes that a call which ends this token has returned.
    pub(crate) fn end(&self, token: u64) {
        let (thread, serial) = split(token);
        let now = self.clock.fetch_add(1, SeqCst) + 1;
        self.facts[thread][serial].ended.store(now, SeqCst);
    }

    /// Notes that a wait which began at that time has told this event.
    pub(crate) fn tell(&self, event: &Event, began: u64) {
        let (thread, serial) = split(event.token());
        let fact = &self.facts[thread][serial];
        let ended = fact.ended.load(SeqCst);
        assert!(ended == 0 || began < ended, "ended at {ended}, told by a wait of {began}: {event:?}");
        fact.told.fetch_add(1, SeqCst);
    }

    fn told(&self, thread: usize, serial: usize) -> u32 {
        self.facts[thread][serial].told.load(SeqCst)
    }

    /// Returns once everything that must still come has come. Whoever waits for what is lost
    /// can't be told to stop, so this ends the process.
    pub(crate) fn until_told(&self, asked: &[Asked]) {
        let begun = Instant::now();
        while let Some(missing) = self.missing(asked) {
            if begun.elapsed() > LONG {
                eprintln!("lost: {missing}");
                std::process::exit(1);
            }
            std::thread::yield_now();
        }
    }

    /// Something that must still come.
    fn missing(&self, asked: &[Asked]) -> Option<String> {
        let counts = [
            ("posts", &self.posts, sum(asked, |it| it.posts)),
            ("wakes", &self.wakes, sum(asked, |it| it.wakes)),
        ];
        if let Some((what, told, all)) = counts.into_iter().find(|(_, told, all)| told.load(SeqCst) < *all) {
            return Some(format!("{} of {all} {what} came", told.load(SeqCst)));
        }
        let due = |times: &Times| matches!(times, Times::Once | Times::OnceAtLeast);
        asked.iter().find_map(|Asked { thread, tokens, .. }| {
            let all = tokens.iter().enumerate().filter(|(_, times)| due(times));
            let mut missing = all.filter(|(serial, _)| self.told(*thread, *serial) == 0).peekable();
            missing.peek()?;
            Some(format!("of thread {thread} {:?}", missing.collect::<Vec<_>>()))
        })
    }

    pub(crate) fn check(&self, asked: &[Asked], seen: &[Seen]) {
        assert_eq!(self.wakes.load(SeqCst), sum(asked, |it| it.wakes), "wakes");
        for Asked { thread, tokens, posts, .. } in asked {
            for (serial, &times) in tokens.iter().enumerate() {
                let told = self.told(*thread, serial);
                let fits = match times {
                    Times::Never => told == 0,
                    Times::Once => told == 1,
                    Times::OnceAtMost => told <= 1,
                    Times::OnceAtLeast => told >= 1,
                    Times::Any => true,
                };
                assert!(fits, "token {serial} of thread {thread} was told {told} times, not {times:?}");
            }
            let orders = seen.iter().map(|seen| &seen.posts[*thread]);
            for order in orders.clone() {
                assert!(order.is_sorted(), "thread {thread}'s posts came out of order");
            }
            let mut all: Vec<_> = orders.flatten().copied().collect();
            all.sort_unstable();
            assert_eq!(all, (0..*posts).collect::<Vec<_>>(), "thread {thread}'s posts");
        }
    }
}

fn sum(asked: &[Asked], what: impl Fn(&Asked) -> i64) -> u64 {
    asked.iter().map(what).sum::<i64>() as u64
}
