//! The table of a process's loops, by which ids lead to mailboxes.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockWriteGuard};

use super::account::Budget;
use super::counters::WorkerCounters;
use super::groups::Groups;
use super::id_bits::{LAST_GENERATION, MAX_LOOPS};
use super::mailbox::{Mailbox, HIGHEST_GENERATION};
use crate::error::fail;
use crate::sys::fork;
use crate::Poller;

/// A loop, by the number that ids carry, and what was there before.
#[derive(Debug, Clone, Default)]
struct LoopEntry {
    mailbox: Option<Arc<Mailbox>>,
    /// The highest generation of the loops before.
    last_generation: u32,
}

/// Every loop of one process. A forked child has a table of its own: it may have inherited its
/// parent's locked, by a thread that it doesn't have.
#[derive(Debug)]
pub(super) struct LoopTable {
    /// As [`fork::epoch`] numbers it.
    process: u32,
    /// The generations of its connections are above this, the highest that its ancestors have had.
    first_generation: u32,
    loops: RwLock<Vec<LoopEntry>>,
    child: OnceLock<Box<LoopTable>>,
}

/// The generations of every loop that is opened next are above this.
static FIRST_GENERATION: AtomicU32 = AtomicU32::new(0);

impl LoopTable {
    /// Where the first process keeps its table.
    fn first() -> &'static OnceLock<Box<LoopTable>> {
        static FIRST: OnceLock<Box<LoopTable>> = OnceLock::new();
        &FIRST
    }

    /// Where this process keeps its table, which is empty until it has a loop.
    fn of_this_process() -> &'static OnceLock<Box<LoopTable>> {
        let process = fork::epoch();
        let mut next = Self::first();
        while let Some(loops) = next.get().filter(|loops| loops.process != process) {
            next = &loops.child;
        }
        next
    }

    /// This process's table, made if it has none.
    fn make() -> &'static Self {
        Self::of_this_process().get_or_init(|| {
            let first_generation = HIGHEST_GENERATION.load(Ordering::Relaxed) % (LAST_GENERATION / 2);
            let (process, loops, child) = (fork::epoch(), RwLock::default(), OnceLock::new());
            Box::new(Self { process, first_generation, loops, child })
        })
    }

    /// The mailbox of one of this process's loops.
    pub(super) fn mailbox(index: usize) -> Option<Arc<Mailbox>> {
        let table = Self::of_this_process().get()?;
        let loops = table.loops.read().unwrap_or_else(PoisonError::into_inner);
        loops.get(index)?.mailbox.clone()
    }

    /// Whether only processes that this one descends from have had loops.
    pub(super) fn is_parents() -> bool {
        Self::of_this_process().get().is_none() && Self::first().get().is_some()
    }

    fn lock(&self) -> RwLockWriteGuard<'_, Vec<LoopEntry>> {
        self.loops.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the ids of the child that is forked next differ from those of its siblings, unless one has
/// more than `count` connections on an entry. They repeat when there were very many children; within
/// one process no id does.
pub(crate) fn reserve_generations(count: u32) {
    let next = |first: u32| Some((first + count) % (LAST_GENERATION / 2));
    let _ = FIRST_GENERATION.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
}

/// Opens the mailbox of the loop that waits on `poller`, at the first free number from `from` on.
/// `EAGAIN` when the process has as many loops as it can have.
pub(crate) fn open_mailbox(
    from: usize,
    poller: Arc<Poller>,
    budget: Arc<Budget>,
    counters: WorkerCounters,
    groups: Arc<Groups>,
) -> io::Result<Arc<Mailbox>> {
    let table = LoopTable::make();
    let mut loops = table.lock();
    let is_free = |entry: &LoopEntry| entry.mailbox.is_none() && entry.last_generation < LAST_GENERATION;
    let free = (from..loops.len()).find(|&index| is_free(&loops[index]));
    let index = free.unwrap_or_else(|| loops.len().max(from));
    if index >= MAX_LOOPS {
        return Err(fail(libc::EAGAIN, "this process has too many loops"));
    }
    if index >= loops.len() {
        loops.resize(index + 1, LoopEntry::default());
    }
    let entry = &mut loops[index];
    let inherited = table.first_generation.max(FIRST_GENERATION.load(Ordering::Relaxed));
    let first_generation = entry.last_generation.max(inherited);
    let mailbox = Arc::new(Mailbox::new(index, first_generation, poller, budget, counters, groups));
    entry.mailbox = Some(mailbox.clone());
    Ok(mailbox)
}

/// Closes a mailbox with its loop; all its connections have ended.
pub(crate) fn close_mailbox(mailbox: &Mailbox) {
    let last_generation = mailbox.last_generation();
    // Nothing in a forked child, which has a table of its own.
    let Some(table) = LoopTable::of_this_process().get() else { return };
    let mut loops = table.lock();
    let is_this =
        |entry: &&mut LoopEntry| entry.mailbox.as_deref().is_some_and(|it| std::ptr::eq(it, mailbox));
    if let Some(entry) = loops.get_mut(mailbox.loop_index()).filter(is_this) {
        *entry = LoopEntry { mailbox: None, last_generation };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Counters;

    /// A loop of this number, whose entries had so many connections before.
    fn open_after(index: usize, last_generation: u32) -> Arc<Mailbox> {
        let mut loops = LoopTable::make().lock();
        let length = loops.len().max(index + 1);
        loops.resize(length, LoopEntry::default());
        loops[index].last_generation = last_generation;
        drop(loops);
        open(index)
    }

    fn open(from: usize) -> Arc<Mailbox> {
        let poller = Arc::new(Poller::new().unwrap());
        let budget = Budget::new(usize::MAX, usize::MAX, usize::MAX);
        let counters = Counters::new(1).unwrap().of(0);
        open_mailbox(from, poller, budget.into(), counters, Arc::default()).unwrap()
    }

    #[test]
    fn an_entry_is_given_up_before_its_ids_repeat() {
        let mailbox = open_after(40, LAST_GENERATION - 2);
        let ids = [7, 8, 9].map(|slot| {
            let (id, _) = mailbox.add(slot);
            assert!(mailbox.has(id));
            mailbox.remove(id);
            assert!(!mailbox.has(id));
            (id.entry(), id.generation())
        });
        assert_eq!(ids, [(0, LAST_GENERATION - 1), (0, LAST_GENERATION), (1, LAST_GENERATION - 1)]);
        close_mailbox(&mailbox);
        // No id is left for this loop.
        let next = open(mailbox.loop_index());
        assert_ne!(next.loop_index(), mailbox.loop_index());
        close_mailbox(&next);
    }

    #[test]
    fn the_next_loop_of_a_number_has_other_ids() {
        let first = open_after(50, 5);
        let (id, _) = first.add(0);
        first.remove(id);
        close_mailbox(&first);
        let second = open(first.loop_index());
        assert_eq!(second.loop_index(), first.loop_index());
        assert_eq!(second.add(0).0.generation(), id.generation() + 1);
        close_mailbox(&second);
    }
}
