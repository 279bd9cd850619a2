//! A connection seen from other threads: [`ConnId`], and the mailbox of the loop it lives on.
//!
//! A connection belongs to one loop and only that loop touches it. What other threads want of
//! it is left in the loop's mailbox, which also knows who is open, so that whether a connection
//! is gone is answered at once.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockWriteGuard};

use super::account::{Account, Budget};
use super::write_queue::copy_of;
use crate::error::{fail, no_memory};
use crate::sys::fork;
use crate::sys::lock;
use crate::Poller;

/// Names one connection of this process for as long as the process lives; an id is not used
/// again when the connection has gone, by no server. Its methods may be called from any thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

/// The most loops of one process at a time.
pub(crate) const MAX_LOOPS: usize = 1 << LOOP_BITS;
/// The most connections of one loop.
pub(crate) const MAX_CONNECTIONS: usize = 1 << ENTRY_BITS;

// From the lowest bit on: the loop; what kind of handle this is, which the C library's others have
// in the same place; the connection's seat in the loop; and which of the seat's connections it is.
const LOOP_BITS: u32 = 16;
const KIND_BITS: u32 = 2;
const ENTRY_BITS: u32 = 20;
const GENERATION_BITS: u32 = 64 - LOOP_BITS - KIND_BITS - ENTRY_BITS;
const KIND: u64 = 3;
/// A seat that has had this many connections is not used again: its ids would repeat.
const LAST_GENERATION: u32 = (1 << GENERATION_BITS) - 1;

impl ConnId {
    /// The id that a number of [`ConnId::number`] stands for. Any number is one; that of no
    /// connection is `ESTALE` in every method.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The id as a number, never 0.
    pub const fn number(self) -> u64 {
        self.0
    }

    fn new(generation: u32, index: usize, entry_index: usize) -> Self {
        let entry = (u64::from(generation) << ENTRY_BITS | entry_index as u64) << KIND_BITS | KIND;
        Self(entry << LOOP_BITS | index as u64)
    }

    fn is_connection(self) -> bool {
        self.0 >> LOOP_BITS & ((1 << KIND_BITS) - 1) == KIND
    }

    fn index(self) -> usize {
        self.0 as usize & (MAX_LOOPS - 1)
    }

    fn entry_index(self) -> usize {
        (self.0 >> (LOOP_BITS + KIND_BITS)) as usize & (MAX_CONNECTIONS - 1)
    }

    fn generation(self) -> u32 {
        (self.0 >> (LOOP_BITS + KIND_BITS + ENTRY_BITS)) as u32
    }

    /// Has `data` written after what was written before, and returns how many bytes then wait
    /// to be sent. The data is copied.
    ///
    /// `ESTALE` when the connection is gone or closing, `EOWNERDEAD` when it is one of the process
    /// that has forked this one, `EPIPE` when its sending side is
    /// [shut down](crate::Conn::shutdown), `ENOBUFS` when more would wait than the server's
    /// [limits](crate::ServerOptions::queue_limit) allow, or 16,384 writes and posts to this
    /// connection wait for its loop, `ENOMEM` when there is no memory for a copy: nothing was taken
    /// then. When the result is more than the [high mark](crate::ServerOptions::water_marks),
    /// [`on_drain`](crate::Handler::on_drain) will be called.
    pub fn write(self, data: &[u8]) -> io::Result<usize> {
        self.mailbox()?.write(self, Arc::new(copy_of(data)?))
    }

    /// Hands a value to the connection's handler: [`Handler::on_post`](crate::Handler::on_post)
    /// is called with it on the connection's own loop. `ESTALE` and `EOWNERDEAD` as for `write`, as
    /// for every method; `EAGAIN` when 16,384 posts and writes to this connection wait for its
    /// loop: try again later.
    pub fn post(self, value: i64) -> io::Result<()> {
        self.send(Command::Post(value))
    }

    /// [`Conn::close`](crate::Conn::close), from any thread. `ESTALE` as for `write`.
    pub fn close(self) -> io::Result<()> {
        self.send(Command::Close)
    }

    /// [`Conn::abort`](crate::Conn::abort), from any thread. `ESTALE` when it is gone.
    pub fn abort(self) -> io::Result<()> {
        self.send(Command::Abort)
    }

    /// [`Conn::pause`](crate::Conn::pause), from any thread. `ESTALE` as for `write`. Of several
    /// calls of `pause` and `resume` before the loop comes to them, the last counts.
    pub fn pause(self) -> io::Result<()> {
        self.send(Command::Pause(true))
    }

    /// [`Conn::resume`](crate::Conn::resume), from any thread. `ESTALE` as for `write`.
    pub fn resume(self) -> io::Result<()> {
        self.send(Command::Pause(false))
    }

    /// Whether the connection is open at this moment, and this process's.
    pub fn is_open(self) -> bool {
        self.check().is_ok()
    }

    /// For the bindings: why it is not open, `ESTALE` or `EOWNERDEAD`.
    #[doc(hidden)]
    pub fn check(self) -> io::Result<()> {
        if self.mailbox()?.has(self) {
            Ok(())
        } else {
            Err(stale())
        }
    }

    fn send(self, command: Command) -> io::Result<()> {
        self.mailbox()?.send(self, command)
    }

    /// Whether it is open, in the server that has this budget.
    pub(crate) fn belongs_to(self, budget: &Arc<Budget>) -> bool {
        let of = |mailbox: &Mailbox| Arc::ptr_eq(&mailbox.budget, budget) && mailbox.has(self);
        self.mailbox().is_ok_and(|mailbox| of(&mailbox))
    }

    /// `EOWNERDEAD` where only processes that this one descends from have had loops.
    fn mailbox(self) -> io::Result<Arc<Mailbox>> {
        let Some(loops) = Loops::of_this_process().get() else {
            return Err(if Loops::first().get().is_some() { owner_dead() } else { stale() });
        };
        let loops = loops.loops.read().unwrap_or_else(PoisonError::into_inner);
        let entry = loops.get(self.index()).filter(|_| self.is_connection());
        entry.and_then(|entry| entry.mailbox.clone()).ok_or_else(stale)
    }
}

impl std::fmt::Display for ConnId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What the ids of one loop after another begin with.
#[derive(Debug, Clone, Default)]
struct LoopEntry {
    mailbox: Option<Arc<Mailbox>>,
    /// As many connections as a seat of the loops before has had at most.
    generations: u32,
}

/// Every loop of one process, by the number that ids carry. A forked child has a table of its own: it
/// may have inherited its parent's locked, by a thread that it doesn't have.
#[derive(Debug)]
struct Loops {
    /// As [`fork::epoch`] numbers it.
    process: u32,
    /// What the births of its connections are above: those that its ancestors have had.
    generations: u32,
    loops: RwLock<Vec<LoopEntry>>,
    child: OnceLock<Box<Loops>>,
}

/// What the births of every loop that is opened next are above.
static GENERATIONS: AtomicU32 = AtomicU32::new(0);
/// The highest birth of any connection, in this process and those that it descends from.
static HIGHEST_GENERATION: AtomicU32 = AtomicU32::new(0);

impl Loops {
    /// Where the first process keeps its table.
    fn first() -> &'static OnceLock<Box<Loops>> {
        static FIRST: OnceLock<Box<Loops>> = OnceLock::new();
        &FIRST
    }

    /// Where this process keeps its table, which is empty until it has a loop.
    fn of_this_process() -> &'static OnceLock<Box<Loops>> {
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
            let generations = HIGHEST_GENERATION.load(Ordering::Relaxed) % (LAST_GENERATION / 2);
            let (process, loops, child) = (fork::epoch(), RwLock::default(), OnceLock::new());
            Box::new(Self { process, generations, loops, child })
        })
    }

    fn lock(&self) -> RwLockWriteGuard<'_, Vec<LoopEntry>> {
        self.loops.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the ids of the child that is forked next differ from those of its siblings, unless one
/// has more than `share` connections on a seat. They repeat when there were very many children;
/// within one process no id does.
pub(crate) fn reserve_generations(share: u32) {
    let next = |generations: u32| Some((generations + share) % (LAST_GENERATION / 2));
    let _ = GENERATIONS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
}

/// What another thread wants of a connection.
#[derive(Debug)]
pub(crate) enum Command {
    /// Bytes that are counted, and whether the writer was told of more than the high mark.
    Write {
        data: Arc<Vec<u8>>,
        above_high_water: bool,
    },
    Post(i64),
    Pause(bool),
    Close,
    Abort,
}

/// An order, for whom, and where it lives in its loop; it may be gone by the time it is read.
pub(crate) type PendingCommand = (usize, ConnId, Command);

/// How many values and writes may wait on one connection for its loop to take them.
const MAX_PENDING: u32 = 16 * 1024;

/// A connection as other threads know it.
#[derive(Default, Debug)]
struct Entry {
    /// How many connections this seat has had, this one included.
    generation: u32,
    /// Its bytes that wait to be sent; `None` when it has gone.
    account: Option<Arc<Account>>,
    /// Where it lives in its loop.
    slot: usize,
    /// Whether it takes no more orders but to abort.
    closing: bool,
    /// Whether it has been aborted.
    aborted: bool,
    /// Whether it takes no more writes.
    shut: bool,
    /// How many values and writes wait for the loop.
    commands: u32,
    /// Whether it is to be paused or resumed, once the loop comes to it.
    pause: Option<bool>,
}

impl Entry {
    /// Whether one more value or write may wait for the loop.
    fn has_room(&self) -> bool {
        self.commands < MAX_PENDING
    }
}

#[derive(Debug, Default)]
struct State {
    entries: Vec<Entry>,
    /// Seats of those that have gone.
    free: Vec<usize>,
    commands: Vec<PendingCommand>,
}

impl State {
    fn entry(&mut self, id: ConnId) -> io::Result<&mut Entry> {
        match self.entries.get_mut(id.entry_index()) {
            Some(entry) if entry.account.is_some() && entry.generation == id.generation() => Ok(entry),
            _ => Err(stale()),
        }
    }
}

/// What other threads leave for one loop.
#[derive(Debug)]
pub(crate) struct Mailbox {
    index: usize,
    /// What the births of its connections are above.
    generations: u32,
    poller: Arc<Poller>,
    budget: Arc<Budget>,
    state: Mutex<State>,
}

impl Mailbox {
    /// Opens one for the loop that waits on `poller`, at the first free number from `from` on.
    /// `EAGAIN` when the process has as many loops as it can have.
    pub(crate) fn open(from: usize, poller: Arc<Poller>, budget: Arc<Budget>) -> io::Result<Arc<Self>> {
        let of_process = Loops::make();
        let mut loops = of_process.lock();
        let is_free = |entry: &LoopEntry| entry.mailbox.is_none() && entry.generations < LAST_GENERATION;
        let free = (from..loops.len()).find(|&index| is_free(&loops[index]));
        let index = free.unwrap_or_else(|| loops.len().max(from));
        if index >= MAX_LOOPS {
            return Err(fail(libc::EAGAIN, "this process has too many loops"));
        }
        if index >= loops.len() {
            loops.resize(index + 1, LoopEntry::default());
        }
        let entry = &mut loops[index];
        let generations =
            entry.generations.max(of_process.generations).max(GENERATIONS.load(Ordering::Relaxed));
        let mailbox = Arc::new(Self { index, generations, poller, budget, state: Mutex::default() });
        entry.mailbox = Some(mailbox.clone());
        Ok(mailbox)
    }

    /// Closes it, with its loop; all its connections are gone.
    pub(crate) fn close(&self) {
        let generations = lock(&self.state).entries.iter().map(|entry| entry.generation).max();
        // Nothing in a forked child, whose table has not got it.
        let Some(loops) = Loops::of_this_process().get() else { return };
        let mut loops = loops.lock();
        let is_this =
            |entry: &&mut LoopEntry| entry.mailbox.as_deref().is_some_and(|it| std::ptr::eq(it, self));
        if let Some(entry) = loops.get_mut(self.index).filter(is_this) {
            *entry = LoopEntry { mailbox: None, generations: generations.unwrap_or(self.generations) };
        }
    }

    /// A connection has come to live in `slot` of the loop.
    pub(crate) fn add(&self, slot: usize) -> (ConnId, Arc<Account>) {
        let account = Account::new(self.budget.clone());
        let mut state = lock(&self.state);
        let entry_index = state.free.pop().unwrap_or(state.entries.len());
        if entry_index == state.entries.len() {
            state.entries.push(Entry { generation: self.generations, ..Entry::default() });
        }
        let generation = state.entries[entry_index].generation + 1;
        HIGHEST_GENERATION.fetch_max(generation, Ordering::Relaxed);
        let here = Some(account.clone());
        state.entries[entry_index] = Entry { generation, account: here, slot, ..Entry::default() };
        (ConnId::new(generation, self.index, entry_index), account)
    }

    fn has(&self, id: ConnId) -> bool {
        lock(&self.state).entry(id).is_ok()
    }

    /// From now on the connection is closing, and takes no more writes.
    pub(crate) fn set_closing(&self, id: ConnId) {
        if let Ok(entry) = lock(&self.state).entry(id) {
            entry.closing = true;
        }
    }

    /// From now on it takes no more writes.
    pub(crate) fn set_shut(&self, id: ConnId) {
        if let Ok(entry) = lock(&self.state).entry(id) {
            entry.shut = true;
        }
    }

    /// The connection is gone.
    pub(crate) fn remove(&self, id: ConnId) {
        let mut state = lock(&self.state);
        if let Ok(entry) = state.entry(id) {
            entry.account = None;
            if entry.generation < LAST_GENERATION {
                state.free.push(id.entry_index());
            }
        }
    }

    fn write(&self, id: ConnId, data: Arc<Vec<u8>>) -> io::Result<usize> {
        let mut state = lock(&self.state);
        state.commands.try_reserve(1).map_err(no_memory)?;
        let entry = state.entry(id)?;
        if entry.closing {
            return Err(stale());
        }
        if entry.shut {
            return Err(fail(libc::EPIPE, "the connection's sending side is shut down"));
        }
        if !entry.has_room() {
            return Err(fail(libc::ENOBUFS, "16,384 writes and posts to the connection wait for its loop"));
        }
        let Some(account) = &entry.account else { return Err(stale()) };
        let waiting = account.reserve(data.len())?;
        entry.commands += 1;
        let (slot, above_high_water) = (entry.slot, waiting > self.budget.high_water);
        state.commands.push((slot, id, Command::Write { data, above_high_water }));
        drop(state);
        self.poller.wake()?;
        Ok(waiting)
    }

    fn send(&self, id: ConnId, command: Command) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.commands.try_reserve(1).map_err(no_memory)?;
        let entry = state.entry(id)?;
        if entry.closing && !matches!(command, Command::Abort) {
            return Err(stale());
        }
        let is_waiting = match command {
            Command::Post(_) if !entry.has_room() => {
                return Err(fail(
                    libc::EAGAIN,
                    "16,384 writes and posts to the connection wait for its loop: post again later",
                ));
            }
            Command::Pause(pause) => entry.pause.replace(pause).is_some(),
            Command::Abort => std::mem::replace(&mut entry.aborted, true),
            _ => false,
        };
        if is_waiting {
            return Ok(());
        }
        entry.commands += u32::from(matches!(command, Command::Post(_)));
        entry.closing |= matches!(command, Command::Close | Command::Abort);
        let slot = entry.slot;
        state.commands.push((slot, id, command));
        drop(state);
        self.poller.wake()
    }

    /// Gives `data` to every open connection that has room for it, and returns to how many.
    pub(crate) fn broadcast(&self, data: &Arc<Vec<u8>>) -> io::Result<(usize, usize)> {
        let (mut given, mut full) = (0, 0);
        let mut state = lock(&self.state);
        let State { entries, commands, .. } = &mut *state;
        for (entry_index, entry) in entries.iter_mut().enumerate() {
            let Some(account) = entry.account.as_ref().filter(|_| !entry.closing && !entry.shut) else {
                continue;
            };
            let has_room = entry.has_room() && commands.try_reserve(1).is_ok();
            if !has_room || account.reserve(data.len()).is_err() {
                full += 1;
                continue;
            }
            entry.commands += 1;
            let id = ConnId::new(entry.generation, self.index, entry_index);
            commands.push((entry.slot, id, Command::Write { data: data.clone(), above_high_water: false }));
            given += 1;
        }
        drop(state);
        if given > 0 {
            self.poller.wake()?;
        }
        Ok((given, full))
    }

    /// Takes what has arrived.
    pub(crate) fn take(&self, into: &mut Vec<PendingCommand>) {
        let mut state = lock(&self.state);
        std::mem::swap(&mut state.commands, into);
        for (_, id, command) in into {
            let Ok(entry) = state.entry(*id) else { continue };
            entry.commands = 0;
            if let Command::Pause(pause) = command {
                // Of several calls the last counts.
                *pause = entry.pause.take().unwrap_or(*pause);
            }
        }
    }

    /// Makes the loop look up from its wait.
    pub(crate) fn wake(&self) -> io::Result<()> {
        self.poller.wake()
    }
}

fn stale() -> io::Error {
    fail(libc::ESTALE, "the connection is gone")
}

fn owner_dead() -> io::Error {
    fail(libc::EOWNERDEAD, "the connection belongs to the parent process")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loop of this number, before which there were so many connections.
    fn open(index: usize, generations: u32) -> Arc<Mailbox> {
        let mut loops = Loops::make().lock();
        let most = loops.len().max(index + 1);
        loops.resize(most, LoopEntry::default());
        loops[index].generations = generations;
        drop(loops);
        let poller = Arc::new(Poller::new().unwrap());
        let budget = Budget::new(usize::MAX, usize::MAX, usize::MAX);
        Mailbox::open(index, poller, budget.into()).unwrap()
    }

    #[test]
    fn an_id_says_what_it_is_of() {
        let id = ConnId::new(LAST_GENERATION, MAX_LOOPS - 1, MAX_CONNECTIONS - 1);
        assert_eq!(id.number(), u64::MAX);
        assert_eq!(
            (id.generation(), id.index(), id.entry_index()),
            (LAST_GENERATION, MAX_LOOPS - 1, MAX_CONNECTIONS - 1)
        );
        let id = ConnId::new(3, 2, 1);
        assert_eq!((id.generation(), id.index(), id.entry_index()), (3, 2, 1));
        assert!(id.is_connection());
        assert!(!ConnId(id.0 ^ 1 << LOOP_BITS).is_connection());
    }

    #[test]
    fn a_seat_is_given_up_before_its_ids_repeat() {
        let mailbox = open(40, LAST_GENERATION - 2);
        let ids = [7, 8, 9].map(|slot| {
            let (id, _) = mailbox.add(slot);
            assert!(mailbox.has(id));
            mailbox.remove(id);
            assert!(!mailbox.has(id));
            (id.entry_index(), id.generation())
        });
        assert_eq!(ids, [(0, LAST_GENERATION - 1), (0, LAST_GENERATION), (1, LAST_GENERATION - 1)]);
        mailbox.close();
        // No id is left for this loop.
        let (poller, budget) = (mailbox.poller.clone(), mailbox.budget.clone());
        let next = Mailbox::open(mailbox.index, poller, budget).unwrap();
        assert_ne!(next.index, mailbox.index);
        next.close();
    }

    #[test]
    fn the_next_loop_of_a_number_has_other_ids() {
        let first = open(50, 5);
        let (id, _) = first.add(0);
        first.remove(id);
        first.close();
        let (poller, budget) = (first.poller.clone(), first.budget.clone());
        let second = Mailbox::open(first.index, poller, budget).unwrap();
        assert_eq!(second.index, first.index);
        assert_eq!(second.add(0).0.generation(), id.generation() + 1);
        second.close();
    }
}
