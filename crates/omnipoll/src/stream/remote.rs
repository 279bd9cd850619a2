//! A connection seen from other threads: [`ConnId`], and the mailbox of the loop it lives on.
//!
//! A connection belongs to one loop and only that loop touches it. What other threads want of
//! it is left in the loop's mailbox, which also knows who is open, so that whether a connection
//! is gone is answered at once.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};

use crate::engine::lock;
use crate::error::fail;
use crate::Poller;

/// Names one connection of this process for as long as the process lives; an id is not used
/// again when the connection has gone. Its methods may be called from any thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

/// The most connections of one loop.
pub(crate) const MOST_SLOTS: usize = 1 << SLOT_BITS;
/// The most loops of one process.
pub(crate) const MOST_LOOPS: usize = 1 << LOOP_BITS;
// From the lowest bit on: the slot, the loop, and how many connections there were before.
const SLOT_BITS: u32 = 20;
const LOOP_BITS: u32 = 14;
const BIRTH_BITS: u32 = 64 - LOOP_BITS - SLOT_BITS;

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

    pub(crate) fn slot(self) -> usize {
        self.0 as usize & (MOST_SLOTS - 1)
    }

    fn new(birth: u32, index: usize, slot: usize) -> Self {
        Self(u64::from(birth) << (LOOP_BITS + SLOT_BITS) | (index << SLOT_BITS | slot) as u64)
    }

    fn birth(self) -> u32 {
        (self.0 >> (LOOP_BITS + SLOT_BITS)) as u32
    }

    /// Has `data` written after what was written before, and returns how many bytes then wait
    /// to be sent. The data is copied.
    ///
    /// `ESTALE` when the connection is gone or closing, `EPIPE` when its sending side is
    /// [shut down](crate::Conn::shutdown), `ENOBUFS` when more would wait than the
    /// server's [limits](crate::ServerOptions::queue_limit) allow: nothing was taken then.
    pub fn write(self, data: &[u8]) -> io::Result<usize> {
        self.mailbox()?.write(self, data.into())
    }

    /// Hands a value to the connection's handler: [`Handler::on_post`](crate::Handler::on_post)
    /// is called with it on the connection's own loop. `ESTALE` as for `write`.
    pub fn post(self, value: i64) -> io::Result<()> {
        self.send(Order::Post(value))
    }

    /// [`Conn::close`](crate::Conn::close), from any thread. `ESTALE` as for `write`.
    pub fn close(self) -> io::Result<()> {
        self.send(Order::Close)
    }

    /// [`Conn::abort`](crate::Conn::abort), from any thread. `ESTALE` when it is gone.
    pub fn abort(self) -> io::Result<()> {
        self.send(Order::Abort)
    }

    /// [`Conn::pause`](crate::Conn::pause), from any thread. `ESTALE` as for `write`.
    pub fn pause(self) -> io::Result<()> {
        self.send(Order::Pause(true))
    }

    /// [`Conn::resume`](crate::Conn::resume), from any thread. `ESTALE` as for `write`.
    pub fn resume(self) -> io::Result<()> {
        self.send(Order::Pause(false))
    }

    /// Whether the connection is open at this moment.
    pub fn is_open(self) -> bool {
        self.mailbox().is_ok_and(|mailbox| lock(&mailbox.state).resident(self).is_ok())
    }

    fn send(self, order: Order) -> io::Result<()> {
        self.mailbox()?.send(self, order)
    }

    fn mailbox(self) -> io::Result<Arc<Mailbox>> {
        let index = (self.0 >> SLOT_BITS) as usize & (MOST_LOOPS - 1);
        let loops = LOOPS.read().unwrap_or_else(PoisonError::into_inner);
        loops.get(index).and_then(Clone::clone).ok_or_else(gone)
    }
}

impl std::fmt::Display for ConnId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The mailbox of every loop of this process, by the number that ids carry.
static LOOPS: RwLock<Vec<Option<Arc<Mailbox>>>> = RwLock::new(Vec::new());
/// Counts connections, so that no two have the same id.
static BIRTHS: AtomicU32 = AtomicU32::new(0);

/// Holds the table still during a fork, so that the child does not inherit it locked by a
/// thread that it doesn't have.
pub(crate) fn hold_still() -> impl Sized {
    fn write() -> RwLockWriteGuard<'static, Vec<Option<Arc<Mailbox>>>> {
        LOOPS.write().unwrap_or_else(PoisonError::into_inner)
    }
    write()
}

/// Lets the ids of the child that is forked next differ from those of its siblings, unless one
/// makes more than `share` connections.
pub(crate) fn set_births_apart(share: u32) {
    BIRTHS.fetch_add(share, Ordering::Relaxed);
}

/// What another thread wants of a connection.
#[derive(Debug)]
pub(crate) enum Order {
    Write(Arc<[u8]>),
    Post(i64),
    Pause(bool),
    Close,
    Abort,
}

/// An order, and for whom; the connection may be gone by the time it is read.
pub(crate) type Letter = (ConnId, Order);

/// How many bytes may wait to be sent, and how many do, in all of a server.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) each: usize,
    pub(crate) all: usize,
    pub(crate) used: AtomicUsize,
}

impl Budget {
    /// Whether `more` bytes may wait on a connection on which `waiting` do, of which `uncounted`
    /// are not among those used.
    pub(crate) fn check(&self, waiting: usize, uncounted: usize, more: usize) -> io::Result<()> {
        if waiting.saturating_add(more) > self.each {
            return Err(fail(libc::ENOBUFS, "the connection would hold more unsent bytes than queue_limit"));
        }
        let used = self.used.load(Ordering::Relaxed).saturating_add(uncounted);
        if used.saturating_add(more) > self.all {
            return Err(fail(
                libc::ENOBUFS,
                "the server would hold more unsent bytes than total_queue_limit",
            ));
        }
        Ok(())
    }
}

/// A connection as other threads know it.
#[derive(Clone, Copy, Default, Debug)]
struct Resident {
    /// 0 when the slot is free.
    birth: u32,
    /// Whether it takes no more orders but to abort.
    closing: bool,
    /// Whether it takes no more writes.
    shut: bool,
    /// Bytes that wait to be sent, in its queue or on the way to it.
    waiting: usize,
}

#[derive(Debug, Default)]
struct State {
    residents: Vec<Resident>,
    letters: Vec<Letter>,
}

impl State {
    fn resident(&mut self, id: ConnId) -> io::Result<&mut Resident> {
        match self.residents.get_mut(id.slot()) {
            Some(resident) if resident.birth == id.birth() && resident.birth != 0 => Ok(resident),
            _ => Err(gone()),
        }
    }
}

/// What other threads leave for one loop.
#[derive(Debug)]
pub(crate) struct Mailbox {
    index: usize,
    poller: Arc<Poller>,
    budget: Arc<Budget>,
    state: Mutex<State>,
}

impl Mailbox {
    /// Opens one for the loop that waits on `poller`, at the first free number from `from` on.
    /// `EAGAIN` when the process has as many loops as it can have.
    pub(crate) fn open(from: usize, poller: Arc<Poller>, budget: Arc<Budget>) -> io::Result<Arc<Self>> {
        let mut loops = LOOPS.write().unwrap_or_else(PoisonError::into_inner);
        let free = (from..loops.len()).find(|&index| loops[index].is_none());
        let index = free.unwrap_or_else(|| loops.len().max(from));
        if index >= MOST_LOOPS {
            return Err(fail(libc::EAGAIN, "this process has too many loops"));
        }
        if index >= loops.len() {
            loops.resize(index + 1, None);
        }
        let mailbox = Arc::new(Self { index, poller, budget, state: Mutex::default() });
        loops[index] = Some(mailbox.clone());
        Ok(mailbox)
    }

    /// Closes it, with its loop; all its connections are gone.
    pub(crate) fn close(&self) {
        LOOPS.write().unwrap_or_else(PoisonError::into_inner)[self.index] = None;
    }

    /// A connection has come to live in `slot`.
    pub(crate) fn settle(&self, slot: usize) -> ConnId {
        let birth = loop {
            match BIRTHS.fetch_add(1, Ordering::Relaxed).wrapping_add(1) % (1 << BIRTH_BITS) {
                0 => {}
                birth => break birth,
            }
        };
        let mut state = lock(&self.state);
        if slot >= state.residents.len() {
            state.residents.resize(slot + 1, Resident::default());
        }
        state.residents[slot] = Resident { birth, ..Resident::default() };
        ConnId::new(birth, self.index, slot)
    }

    /// From now on the connection is closing, and takes no more writes.
    pub(crate) fn is_closing(&self, id: ConnId) {
        if let Ok(resident) = lock(&self.state).resident(id) {
            resident.closing = true;
        }
    }

    /// From now on it takes no more writes.
    pub(crate) fn is_shut(&self, id: ConnId) {
        if let Ok(resident) = lock(&self.state).resident(id) {
            resident.shut = true;
        }
    }

    /// How many bytes wait to be sent on it, or are on the way to it.
    pub(crate) fn waiting(&self, id: ConnId) -> usize {
        lock(&self.state).resident(id).map_or(0, |resident| resident.waiting)
    }

    /// The connection is gone.
    pub(crate) fn leave(&self, id: ConnId) {
        if let Ok(resident) = lock(&self.state).resident(id) {
            self.budget.used.fetch_sub(resident.waiting, Ordering::Relaxed);
            *resident = Resident::default();
        }
    }

    /// The connection's own loop has put `more` bytes into its queue, or taken `fewer` out.
    pub(crate) fn account(&self, id: ConnId, more: usize, fewer: usize) {
        if let Ok(resident) = lock(&self.state).resident(id) {
            resident.waiting = resident.waiting + more - fewer;
            self.budget.used.fetch_add(more, Ordering::Relaxed);
            self.budget.used.fetch_sub(fewer, Ordering::Relaxed);
        }
    }

    fn write(&self, id: ConnId, data: Arc<[u8]>) -> io::Result<usize> {
        let mut state = lock(&self.state);
        let resident = state.resident(id)?;
        if resident.closing {
            return Err(gone());
        }
        if resident.shut {
            return Err(fail(libc::EPIPE, "the connection's sending side is shut down"));
        }
        self.budget.check(resident.waiting, 0, data.len())?;
        resident.waiting += data.len();
        let waiting = resident.waiting;
        self.budget.used.fetch_add(data.len(), Ordering::Relaxed);
        state.letters.push((id, Order::Write(data)));
        drop(state);
        self.poller.wake()?;
        Ok(waiting)
    }

    fn send(&self, id: ConnId, order: Order) -> io::Result<()> {
        let mut state = lock(&self.state);
        let resident = state.resident(id)?;
        if resident.closing && !matches!(order, Order::Abort) {
            return Err(gone());
        }
        resident.closing |= matches!(order, Order::Close | Order::Abort);
        state.letters.push((id, order));
        drop(state);
        self.poller.wake()
    }

    /// Gives `data` to every open connection that has room for it, and returns to how many.
    pub(crate) fn broadcast(&self, data: &Arc<[u8]>) -> io::Result<(usize, usize)> {
        let (mut given, mut full) = (0, 0);
        let mut state = lock(&self.state);
        let State { residents, letters, .. } = &mut *state;
        for (slot, resident) in residents.iter_mut().enumerate() {
            if resident.birth == 0 || resident.closing || resident.shut {
                continue;
            }
            if self.budget.check(resident.waiting, 0, data.len()).is_err() {
                full += 1;
                continue;
            }
            resident.waiting += data.len();
            self.budget.used.fetch_add(data.len(), Ordering::Relaxed);
            let id = ConnId::new(resident.birth, self.index, slot);
            letters.push((id, Order::Write(data.clone())));
            given += 1;
        }
        drop(state);
        if given > 0 {
            self.poller.wake()?;
        }
        Ok((given, full))
    }

    /// Takes what has arrived.
    pub(crate) fn take(&self, into: &mut Vec<Letter>) {
        std::mem::swap(&mut lock(&self.state).letters, into);
    }

    /// Makes the loop look up from its wait.
    pub(crate) fn wake(&self) -> io::Result<()> {
        self.poller.wake()
    }
}

fn gone() -> io::Error {
    fail(libc::ESTALE, "the connection is gone")
}
