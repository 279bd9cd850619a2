//! A connection seen from other threads: [`ConnId`], and the mailbox of the loop it lives on.
//!
//! A connection belongs to one loop and only that loop touches it. What other threads want of
//! it is left in the loop's mailbox, which also knows who is open, so that whether a connection
//! is gone is answered at once.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockWriteGuard};

use super::account::{Account, Budget};
use super::output::copy_of;
use crate::error::{fail, no_memory};
use crate::sys::fork;
use crate::sys::lock;
use crate::Poller;

/// Names one connection of this process for as long as the process lives; an id is not used
/// again when the connection has gone, by no server. Its methods may be called from any thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

/// The most loops of one process at a time.
pub(crate) const MOST_LOOPS: usize = 1 << LOOP_BITS;
/// The most connections of one loop.
pub(crate) const MOST_SEATS: usize = 1 << SEAT_BITS;

// From the lowest bit on: the loop; what kind of handle this is, which the C library's others have
// in the same place; the connection's seat in the loop; and which of the seat's connections it is.
const LOOP_BITS: u32 = 16;
const KIND_BITS: u32 = 2;
const SEAT_BITS: u32 = 20;
const BIRTH_BITS: u32 = 64 - LOOP_BITS - KIND_BITS - SEAT_BITS;
const KIND: u64 = 3;
/// A seat that has had this many connections is not used again: its ids would repeat.
const LAST_BIRTH: u32 = (1 << BIRTH_BITS) - 1;

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

    fn new(birth: u32, index: usize, seat: usize) -> Self {
        let place = (u64::from(birth) << SEAT_BITS | seat as u64) << KIND_BITS | KIND;
        Self(place << LOOP_BITS | index as u64)
    }

    fn is_of_a_connection(self) -> bool {
        self.0 >> LOOP_BITS & ((1 << KIND_BITS) - 1) == KIND
    }

    fn index(self) -> usize {
        self.0 as usize & (MOST_LOOPS - 1)
    }

    fn seat(self) -> usize {
        (self.0 >> (LOOP_BITS + KIND_BITS)) as usize & (MOST_SEATS - 1)
    }

    fn birth(self) -> u32 {
        (self.0 >> (LOOP_BITS + KIND_BITS + SEAT_BITS)) as u32
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

    /// [`Conn::pause`](crate::Conn::pause), from any thread. `ESTALE` as for `write`. Of several
    /// calls of `pause` and `resume` before the loop comes to them, the last counts.
    pub fn pause(self) -> io::Result<()> {
        self.send(Order::Pause(true))
    }

    /// [`Conn::resume`](crate::Conn::resume), from any thread. `ESTALE` as for `write`.
    pub fn resume(self) -> io::Result<()> {
        self.send(Order::Pause(false))
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
            Err(gone())
        }
    }

    fn send(self, order: Order) -> io::Result<()> {
        self.mailbox()?.send(self, order)
    }

    /// Whether it is open, in the server that has this budget.
    pub(crate) fn belongs_to(self, budget: &Arc<Budget>) -> bool {
        let of = |mailbox: &Mailbox| Arc::ptr_eq(&mailbox.budget, budget) && mailbox.has(self);
        self.mailbox().is_ok_and(|mailbox| of(&mailbox))
    }

    /// `EOWNERDEAD` where only processes that this one descends from have had loops.
    fn mailbox(self) -> io::Result<Arc<Mailbox>> {
        let Some(loops) = Loops::of_this_process().get() else {
            return Err(if Loops::first().get().is_some() { anothers() } else { gone() });
        };
        let places = loops.places.read().unwrap_or_else(PoisonError::into_inner);
        let place = places.get(self.index()).filter(|_| self.is_of_a_connection());
        place.and_then(|place| place.mailbox.clone()).ok_or_else(gone)
    }
}

impl std::fmt::Display for ConnId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What the ids of one loop after another begin with.
#[derive(Debug, Clone, Default)]
struct Place {
    mailbox: Option<Arc<Mailbox>>,
    /// As many connections as a seat of the loops before has had at most.
    births: u32,
}

/// Every loop of one process, by the number that ids carry. A forked child has a table of its own: it
/// may have inherited its parent's locked, by a thread that it doesn't have.
#[derive(Debug)]
struct Loops {
    /// As [`fork::count`] numbers it.
    process: u32,
    /// What the births of its connections are above: those that its ancestors have had.
    births: u32,
    places: RwLock<Vec<Place>>,
    of_child: OnceLock<Box<Loops>>,
}

/// What the births of every loop that is opened next are above.
static BIRTHS: AtomicU32 = AtomicU32::new(0);
/// The highest birth of any connection, in this process and those that it descends from.
static HIGHEST_BIRTH: AtomicU32 = AtomicU32::new(0);

impl Loops {
    /// Where the first process keeps its table.
    fn first() -> &'static OnceLock<Box<Loops>> {
        static FIRST: OnceLock<Box<Loops>> = OnceLock::new();
        &FIRST
    }

    /// Where this process keeps its table, which is empty until it has a loop.
    fn of_this_process() -> &'static OnceLock<Box<Loops>> {
        let process = fork::count();
        let mut next = Self::first();
        while let Some(loops) = next.get().filter(|loops| loops.process != process) {
            next = &loops.of_child;
        }
        next
    }

    /// This process's table, made if it has none.
    fn make() -> &'static Self {
        Self::of_this_process().get_or_init(|| {
            let births = HIGHEST_BIRTH.load(Ordering::Relaxed) % (LAST_BIRTH / 2);
            let (process, places, of_child) = (fork::count(), RwLock::default(), OnceLock::new());
            Box::new(Self { process, births, places, of_child })
        })
    }

    fn lock(&self) -> RwLockWriteGuard<'_, Vec<Place>> {
        self.places.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the ids of the child that is forked next differ from those of its siblings, unless one
/// has more than `share` connections on a seat. They repeat when there were very many children;
/// within one process no id does.
pub(crate) fn set_births_apart(share: u32) {
    let next = |births: u32| Some((births + share) % (LAST_BIRTH / 2));
    let _ = BIRTHS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
}

/// What another thread wants of a connection.
#[derive(Debug)]
pub(crate) enum Order {
    /// Bytes that are counted, and whether the writer was told of more than the high mark.
    Write {
        data: Arc<Vec<u8>>,
        fills: bool,
    },
    Post(i64),
    Pause(bool),
    Close,
    Abort,
}

/// An order, for whom, and where it lives in its loop; it may be gone by the time it is read.
pub(crate) type Letter = (usize, ConnId, Order);

/// How many values and writes may wait on one connection for its loop to take them.
const MOST_LETTERS: u32 = 16 * 1024;

/// A connection as other threads know it.
#[derive(Default, Debug)]
struct Resident {
    /// How many connections this seat has had, this one included.
    birth: u32,
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
    letters: u32,
    /// Whether it is to be paused or resumed, once the loop comes to it.
    pause: Option<bool>,
}

impl Resident {
    /// Whether one more value or write may wait for the loop.
    fn has_room(&self) -> bool {
        self.letters < MOST_LETTERS
    }
}

#[derive(Debug, Default)]
struct State {
    residents: Vec<Resident>,
    /// Seats of those that have gone.
    vacant: Vec<usize>,
    letters: Vec<Letter>,
}

impl State {
    fn resident(&mut self, id: ConnId) -> io::Result<&mut Resident> {
        match self.residents.get_mut(id.seat()) {
            Some(resident) if resident.account.is_some() && resident.birth == id.birth() => Ok(resident),
            _ => Err(gone()),
        }
    }
}

/// What other threads leave for one loop.
#[derive(Debug)]
pub(crate) struct Mailbox {
    index: usize,
    /// What the births of its connections are above.
    births: u32,
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
        let is_free = |place: &Place| place.mailbox.is_none() && place.births < LAST_BIRTH;
        let free = (from..loops.len()).find(|&index| is_free(&loops[index]));
        let index = free.unwrap_or_else(|| loops.len().max(from));
        if index >= MOST_LOOPS {
            return Err(fail(libc::EAGAIN, "this process has too many loops"));
        }
        if index >= loops.len() {
            loops.resize(index + 1, Place::default());
        }
        let place = &mut loops[index];
        let births = place.births.max(of_process.births).max(BIRTHS.load(Ordering::Relaxed));
        let mailbox = Arc::new(Self { index, births, poller, budget, state: Mutex::default() });
        place.mailbox = Some(mailbox.clone());
        Ok(mailbox)
    }

    /// Closes it, with its loop; all its connections are gone.
    pub(crate) fn close(&self) {
        let births = lock(&self.state).residents.iter().map(|resident| resident.birth).max();
        // Nothing in a forked child, whose table has not got it.
        let Some(loops) = Loops::of_this_process().get() else { return };
        let mut loops = loops.lock();
        let is_this = |place: &&mut Place| place.mailbox.as_deref().is_some_and(|it| std::ptr::eq(it, self));
        if let Some(place) = loops.get_mut(self.index).filter(is_this) {
            *place = Place { mailbox: None, births: births.unwrap_or(self.births) };
        }
    }

    /// A connection has come to live in `slot` of the loop.
    pub(crate) fn settle(&self, slot: usize) -> (ConnId, Arc<Account>) {
        let account = Account::new(self.budget.clone());
        let mut state = lock(&self.state);
        let seat = state.vacant.pop().unwrap_or(state.residents.len());
        if seat == state.residents.len() {
            state.residents.push(Resident { birth: self.births, ..Resident::default() });
        }
        let birth = state.residents[seat].birth + 1;
        HIGHEST_BIRTH.fetch_max(birth, Ordering::Relaxed);
        let here = Some(account.clone());
        state.residents[seat] = Resident { birth, account: here, slot, ..Resident::default() };
        (ConnId::new(birth, self.index, seat), account)
    }

    fn has(&self, id: ConnId) -> bool {
        lock(&self.state).resident(id).is_ok()
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

    /// The connection is gone.
    pub(crate) fn leave(&self, id: ConnId) {
        let mut state = lock(&self.state);
        if let Ok(resident) = state.resident(id) {
            resident.account = None;
            if resident.birth < LAST_BIRTH {
                state.vacant.push(id.seat());
            }
        }
    }

    fn write(&self, id: ConnId, data: Arc<Vec<u8>>) -> io::Result<usize> {
        let mut state = lock(&self.state);
        state.letters.try_reserve(1).map_err(no_memory)?;
        let resident = state.resident(id)?;
        if resident.closing {
            return Err(gone());
        }
        if resident.shut {
            return Err(fail(libc::EPIPE, "the connection's sending side is shut down"));
        }
        if !resident.has_room() {
            return Err(fail(libc::ENOBUFS, "16,384 writes and posts to the connection wait for its loop"));
        }
        let Some(account) = &resident.account else { return Err(gone()) };
        let waiting = account.reserve(data.len())?;
        resident.letters += 1;
        let (slot, fills) = (resident.slot, waiting > self.budget.high_water);
        state.letters.push((slot, id, Order::Write { data, fills }));
        drop(state);
        self.poller.wake()?;
        Ok(waiting)
    }

    fn send(&self, id: ConnId, order: Order) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.letters.try_reserve(1).map_err(no_memory)?;
        let resident = state.resident(id)?;
        if resident.closing && !matches!(order, Order::Abort) {
            return Err(gone());
        }
        let is_waiting = match order {
            Order::Post(_) if !resident.has_room() => {
                return Err(fail(
                    libc::EAGAIN,
                    "16,384 writes and posts to the connection wait for its loop: post again later",
                ));
            }
            Order::Pause(pause) => resident.pause.replace(pause).is_some(),
            Order::Abort => std::mem::replace(&mut resident.aborted, true),
            _ => false,
        };
        if is_waiting {
            return Ok(());
        }
        resident.letters += u32::from(matches!(order, Order::Post(_)));
        resident.closing |= matches!(order, Order::Close | Order::Abort);
        let slot = resident.slot;
        state.letters.push((slot, id, order));
        drop(state);
        self.poller.wake()
    }

    /// Gives `data` to every open connection that has room for it, and returns to how many.
    pub(crate) fn broadcast(&self, data: &Arc<Vec<u8>>) -> io::Result<(usize, usize)> {
        let (mut given, mut full) = (0, 0);
        let mut state = lock(&self.state);
        let State { residents, letters, .. } = &mut *state;
        for (seat, resident) in residents.iter_mut().enumerate() {
            let Some(account) = resident.account.as_ref().filter(|_| !resident.closing && !resident.shut)
            else {
                continue;
            };
            let has_room = resident.has_room() && letters.try_reserve(1).is_ok();
            if !has_room || account.reserve(data.len()).is_err() {
                full += 1;
                continue;
            }
            resident.letters += 1;
            let id = ConnId::new(resident.birth, self.index, seat);
            letters.push((resident.slot, id, Order::Write { data: data.clone(), fills: false }));
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
        let mut state = lock(&self.state);
        std::mem::swap(&mut state.letters, into);
        for (_, id, order) in into {
            let Ok(resident) = state.resident(*id) else { continue };
            resident.letters = 0;
            if let Order::Pause(pause) = order {
                // Of several calls the last counts.
                *pause = resident.pause.take().unwrap_or(*pause);
            }
        }
    }

    /// Makes the loop look up from its wait.
    pub(crate) fn wake(&self) -> io::Result<()> {
        self.poller.wake()
    }
}

fn gone() -> io::Error {
    fail(libc::ESTALE, "the connection is gone")
}

fn anothers() -> io::Error {
    fail(libc::EOWNERDEAD, "the connection belongs to the parent process")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loop of this number, before which there were so many connections.
    fn open(index: usize, births: u32) -> Arc<Mailbox> {
        let mut loops = Loops::make().lock();
        let most = loops.len().max(index + 1);
        loops.resize(most, Place::default());
        loops[index].births = births;
        drop(loops);
        let poller = Arc::new(Poller::new().unwrap());
        let budget = Budget::new(usize::MAX, usize::MAX, usize::MAX);
        Mailbox::open(index, poller, budget.into()).unwrap()
    }

    #[test]
    fn an_id_says_what_it_is_of() {
        let id = ConnId::new(LAST_BIRTH, MOST_LOOPS - 1, MOST_SEATS - 1);
        assert_eq!(id.number(), u64::MAX);
        assert_eq!((id.birth(), id.index(), id.seat()), (LAST_BIRTH, MOST_LOOPS - 1, MOST_SEATS - 1));
        let id = ConnId::new(3, 2, 1);
        assert_eq!((id.birth(), id.index(), id.seat()), (3, 2, 1));
        assert!(id.is_of_a_connection());
        assert!(!ConnId(id.0 ^ 1 << LOOP_BITS).is_of_a_connection());
    }

    #[test]
    fn a_seat_is_given_up_before_its_ids_repeat() {
        let mailbox = open(40, LAST_BIRTH - 2);
        let ids = [7, 8, 9].map(|slot| {
            let (id, _) = mailbox.settle(slot);
            assert!(mailbox.has(id));
            mailbox.leave(id);
            assert!(!mailbox.has(id));
            (id.seat(), id.birth())
        });
        assert_eq!(ids, [(0, LAST_BIRTH - 1), (0, LAST_BIRTH), (1, LAST_BIRTH - 1)]);
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
        let (id, _) = first.settle(0);
        first.leave(id);
        first.close();
        let (poller, budget) = (first.poller.clone(), first.budget.clone());
        let second = Mailbox::open(first.index, poller, budget).unwrap();
        assert_eq!(second.index, first.index);
        assert_eq!(second.settle(0).0.birth(), id.birth() + 1);
        second.close();
    }
}
