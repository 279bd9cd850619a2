//! What was asked for and what was reported, and when, by a clock of the test's own.

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

/// How often a token may be reported in all.
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
    reported: AtomicU32,
    /// The time at which it ended; 0 while it lives.
    ended: AtomicU64,
}

/// Shared by all threads, without a lock that would order what is under test.
pub(crate) struct Accounting {
    clock: AtomicU64,
    summarize: Vec<Vec<Fact>>,
    pub(crate) wakes: AtomicU64,
    pub(crate) posts: AtomicU64,
}

impl Accounting {
    pub(crate) fn new(threads: usize, tokens: usize) -> Self {
        let summarize = || (0..tokens).map(|_| Fact::default()).collect();
        Self {
            clock: AtomicU64::new(1),
            summarize: (0..threads).map(|_| summarize()).collect(),
            wakes: AtomicU64::new(0),
            posts: AtomicU64::new(0),
        }
    }

    /// The time. A wait that begins now must not report what has ended.
    pub(crate) fn now(&self) -> u64 {
        self.clock.load(SeqCst)
    }

    /// Notes that a call which ends this token has returned.
    pub(crate) fn end(&self, token: u64) {
        let (thread, serial) = split(token);
        let now = self.clock.fetch_add(1, SeqCst) + 1;
        self.summarize[thread][serial].ended.store(now, SeqCst);
    }

    /// Notes that a wait which began at that time has reported this event.
    pub(crate) fn report(&self, event: &Event, began: u64) {
        let (thread, serial) = split(event.token());
        let fact = &self.summarize[thread][serial];
        let ended = fact.ended.load(SeqCst);
        assert!(ended == 0 || began < ended, "ended at {ended}, reported by a wait of {began}: {event:?}");
        fact.reported.fetch_add(1, SeqCst);
    }

    fn reported(&self, thread: usize, serial: usize) -> u32 {
        self.summarize[thread][serial].reported.load(SeqCst)
    }

    /// Returns once everything that must still come has come. Whoever waits for what is lost
    /// can't be stopped, so this ends the process.
    pub(crate) fn until_reported(&self, asked: &[Asked]) {
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
        if let Some((what, reported, all)) =
            counts.into_iter().find(|(_, reported, all)| reported.load(SeqCst) < *all)
        {
            return Some(format!("{} of {all} {what} came", reported.load(SeqCst)));
        }
        let due = |times: &Times| matches!(times, Times::Once | Times::OnceAtLeast);
        asked.iter().find_map(|Asked { thread, tokens, .. }| {
            let all = tokens.iter().enumerate().filter(|(_, times)| due(times));
            let mut missing = all.filter(|(serial, _)| self.reported(*thread, *serial) == 0).peekable();
            missing.peek()?;
            Some(format!("of thread {thread} {:?}", missing.collect::<Vec<_>>()))
        })
    }

    pub(crate) fn check(&self, asked: &[Asked], seen: &[Seen]) {
        assert_eq!(self.wakes.load(SeqCst), sum(asked, |it| it.wakes), "wakes");
        for Asked { thread, tokens, posts, .. } in asked {
            for (serial, &times) in tokens.iter().enumerate() {
                let reported = self.reported(*thread, serial);
                let fits = match times {
                    Times::Never => reported == 0,
                    Times::Once => reported == 1,
                    Times::OnceAtMost => reported <= 1,
                    Times::OnceAtLeast => reported >= 1,
                    Times::Any => true,
                };
                assert!(
                    fits,
                    "token {serial} of thread {thread} was reported {reported} times, not {times:?}"
                );
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
