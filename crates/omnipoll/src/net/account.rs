//! How many bytes wait to be sent: the one place where they are counted, for one connection and for
//! the whole process.
//!
//! The counts are exact, whichever threads write: [`Budget::used`] is the sum of what every
//! [`Account`] says, and an account says what its connection's queue holds in memory, whether or not
//! a ring is sending it, and what other threads have written that the loop has not taken yet. A
//! byte is counted before it is kept, and until nobody keeps it any more.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use crate::error::fail;

/// How many bytes may wait to be sent, and how many do, in all of a process.
#[derive(Debug)]
pub(crate) struct Budget {
    each: usize,
    all: usize,
    /// Above so many, a connection is not read from.
    pub(crate) high_water: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(each: usize, all: usize, high_water: usize) -> Self {
        Self { each, all, high_water, used: AtomicUsize::new(0) }
    }

    /// How many bytes wait in all of the process.
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
    /// What the kernel does not take can't be kept: others use up what the process may hold.
    NoneOfAll,
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
            return Err(no_room_for_one());
        }
        let used = self.budget.used.load(Ordering::Relaxed);
        Ok(if used.saturating_add(more) > self.budget.all { Room::NoneOfAll } else { Room::Enough })
    }

    /// Counts `more` bytes, and returns how many wait then. `ENOBUFS` when they are more than the
    /// limits allow: none is counted.
    #[inline]
    pub(crate) fn reserve(&self, more: usize) -> io::Result<usize> {
        let add = |to: &AtomicUsize, limit: usize| {
            let within = |now: usize| now.checked_add(more).filter(|&then| then <= limit);
            to.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within)
        };
        let before = add(&self.waiting, self.budget.each).map_err(|_| no_room_for_one())?;
        if add(&self.budget.used, self.budget.all).is_err() {
            self.waiting.fetch_sub(more, Ordering::Relaxed);
            return Err(no_room_for_all());
        }
        Ok(before + more)
    }

    /// So many bytes are kept no more.
    #[inline]
    pub(crate) fn release(&self, bytes: usize) {
        let waiting = self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        let used = self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(waiting >= bytes && used >= bytes, "{bytes} of {waiting} of {used} bytes");
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(*self.waiting.get_mut(), Ordering::Relaxed);
    }
}

fn no_room_for_one() -> io::Error {
    fail(libc::ENOBUFS, "the connection would hold more unsent bytes than queue_limit")
}

pub(crate) fn no_room_for_all() -> io::Error {
    fail(libc::ENOBUFS, "the server would hold more unsent bytes than total_queue_limit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn limits_are_exact_whoever_writes() {
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
    fn who_leaves_takes_its_bytes_along() {
        let budget = Arc::new(Budget::new(600, 1000, 0));
        let account = Account::new(budget.clone());
        assert_eq!(account.reserve(600).unwrap(), 600);
        assert_eq!(account.reserve(1).unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
        let other = Account::new(budget.clone());
        assert_eq!(other.room(401).unwrap(), Room::NoneOfAll);
        assert_eq!(other.reserve(401).unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
        assert_eq!(other.waiting(), 0);
        drop(account);
        assert_eq!(other.reserve(401).unwrap(), 401);
    }
}
