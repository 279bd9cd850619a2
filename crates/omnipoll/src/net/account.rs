//! How many bytes wait to be sent: the one place where they are counted, for one connection and for
//! the whole process.
//!
//! The invariants, exact whichever threads write:
//!
//! 1. An account's count is what its connection's queue holds in memory
//!    ([`WriteQueue::queued`](super::WriteQueue::queued), with what is in flight) and what other
//!    threads have written that is still in the loop's mailbox.
//! 2. A budget's count is the sum of its accounts' counts.
//! 3. Neither is ever above its limit: a byte is counted ([`Account::reserve`]) before it is kept, and
//!    until it is kept no longer ([`Account::release`], or the end of the account).
//!
//! Debug builds assert 3 here, the upper bound of 1 wherever a queue grows or shrinks, and 2 when an
//! account ends. Bytes of files are in no memory and not counted; those of datagrams are limited for
//! each socket by its own queue.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use crate::error::fail;

/// How many bytes may wait to be sent, and how many do, in the whole process.
#[derive(Debug)]
pub(crate) struct Budget {
    /// The limits of one connection and of them all.
    each: usize,
    all: usize,
    /// While more wait on a connection, nothing is read from it.
    pub(crate) high_water: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(each: usize, all: usize, high_water: usize) -> Self {
        Self { each, all, high_water, used: AtomicUsize::new(0) }
    }

    /// How many bytes wait in the whole process.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// The bytes that wait on one connection, and its share of the budget.
#[derive(Debug)]
pub(crate) struct Account {
    budget: Arc<Budget>,
    waiting: AtomicUsize,
}

/// Whether a write fits in the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Enough,
    /// What the kernel does not take can't be queued: others use up the limit of the process.
    TotalExhausted,
}

impl Account {
    pub(crate) fn new(budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self { budget, waiting: AtomicUsize::new(0) })
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether `more` bytes could wait, as it looks now; `ENOBUFS` when the connection's own limit
    /// is in the way.
    #[inline]
    pub(crate) fn room(&self, more: usize) -> io::Result<Room> {
        if self.waiting().saturating_add(more) > self.budget.each {
            return Err(connection_limit());
        }
        let used = self.budget.used.load(Ordering::Relaxed);
        Ok(if used.saturating_add(more) > self.budget.all { Room::TotalExhausted } else { Room::Enough })
    }

    /// Counts `more` bytes, and returns how many wait then. `ENOBUFS` when they are more than the
    /// limits allow: none is counted.
    #[inline]
    pub(crate) fn reserve(&self, more: usize) -> io::Result<usize> {
        let add = |to: &AtomicUsize, limit: usize| {
            let within = |now: usize| now.checked_add(more).filter(|&then| then <= limit);
            to.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within)
        };
        let before = add(&self.waiting, self.budget.each).map_err(|_| connection_limit())?;
        if add(&self.budget.used, self.budget.all).is_err() {
            self.waiting.fetch_sub(more, Ordering::Relaxed);
            return Err(total_limit());
        }
        debug_assert!(before + more <= self.budget.each);
        Ok(before + more)
    }

    /// So many bytes are kept no longer.
    #[inline]
    pub(crate) fn release(&self, bytes: usize) {
        let waiting = self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        let used = self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(waiting >= bytes && used >= bytes, "{bytes} of {waiting} of {used} bytes");
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let waiting = *self.waiting.get_mut();
        let used = self.budget.used.fetch_sub(waiting, Ordering::Relaxed);
        debug_assert!(used >= waiting, "{waiting} of {used} bytes");
    }
}

fn connection_limit() -> io::Error {
    fail(libc::ENOBUFS, "the connection would hold more unsent bytes than queue_limit")
}

pub(crate) fn total_limit() -> io::Error {
    fail(libc::ENOBUFS, "the server would hold more unsent bytes than total_queue_limit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn limits_are_exact_whichever_threads_write() {
        let budget = Arc::new(Budget::new(600, 1000, 0));
        let accounts = [(); 4].map(|()| Account::new(budget.clone()));
        for _ in 0..100 {
            let counted: usize = thread::scope(|scope| {
                let fill = |account: &Arc<Account>| {
                    let account = account.clone();
                    scope.spawn(move || (0..).take_while(|_| account.reserve(1).is_ok()).count())
                };
                let threads: Vec<_> = accounts.iter().chain(&accounts).map(fill).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(counted, 1000);
            assert_eq!(budget.used.load(Ordering::Relaxed), 1000);
            assert!(accounts.iter().all(|account| account.waiting() <= 600));
            accounts.iter().for_each(|account| account.release(account.waiting()));
            assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn an_account_that_ends_releases_its_bytes() {
        let budget = Arc::new(Budget::new(600, 1000, 0));
        let account = Account::new(budget.clone());
        assert_eq!(account.reserve(600).unwrap(), 600);
        assert_eq!(account.reserve(1).unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
        let other = Account::new(budget.clone());
        assert_eq!(other.room(401).unwrap(), Room::TotalExhausted);
        assert_eq!(other.reserve(401).unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
        assert_eq!(other.waiting(), 0);
        drop(account);
        assert_eq!(other.reserve(401).unwrap(), 401);
    }
}
