//! Handles: numbers that stand for objects, so that one used too late is an error and nothing worse.
//!
//! C programs free twice, use what they have freed and pass garbage. A handle is therefore not
//! an address but the index of a slot, the kind of the object, and the slot's *generation*, which
//! changes each time the slot is given to a new object. The ids of connections and of datagram
//! sockets, which the core makes, and a datagram's handle have their kind in the same place. A slot's
//! whole state is one atomic word:
//!
//! ```text
//! handle                         47                19 18  16 15     0
//!                                | generation        | kind | index |
//! slot    63    40   34       33      32 31         3 2     0
//!         users    | POISONED CLOSING OPEN | generation | kind |
//! ```
//!
//! Entering adds a user and reads the generation in the same instruction; leaving removes the user.
//! Neither takes a lock, and slots don't share cache lines. They are allocated in blocks, when they
//! are needed, and stay where they are. The object is dropped by the thread that removes the last user
//! of a slot that is closing, so that it can be freed while other threads are using it.
//!
//! A forked child has one thread. Users that it has inherited will never leave, except for that
//! thread's own: it has forked in a callback, or in the handler of a signal that arrived during a call,
//! and returns from there. So each thread counts its uses. Outside of all of them,
//! [`Table::after_fork`] sets the child's counts to 0. Inside of one it leaves them as they are, and
//! what the parent's other threads were using is not dropped in the child. The same is true of a child
//! that was not made by `fork(2)`.

use std::alloc::{alloc_zeroed, dealloc, Layout};
use std::cell::Cell;
use std::ffi::c_int;
use std::io;
use std::ops::Deref;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use crate::error::errno;

/// The slot's object may be used.
const OPEN: u64 = 1 << 32;
/// The slot's object is to be dropped once its users have left.
const CLOSING: u64 = 1 << 33;
/// A panic has left the slot's object in an unknown state.
const POISONED: u64 = 1 << 34;
/// One user. The count is in the highest bits, so that an overflow leaves the others as they are.
const USER: u64 = 1 << 40;
/// Generation and kind.
const NAME: u64 = u32::MAX as u64;
/// One generation more.
const NEXT: u64 = 1 << KIND_BITS;

const INDEX_BITS: u32 = 16;
const KIND_BITS: u32 = 3;
/// The most slots a table can have.
pub(crate) const MAX_SLOTS: usize = 1 << INDEX_BITS;
/// A slot that has had this many objects is not used again: its handles would repeat.
const LAST_GENERATION: u64 =
    if usize::BITS == 64 { NAME >> KIND_BITS } else { (1 << (usize::BITS - INDEX_BITS - KIND_BITS)) - 1 };

/// What a handle of each kind has above its index. The core gives a connection's 3, and a datagram
/// socket's 4.
pub(crate) const DATAGRAM: u8 = 0;
pub(crate) const POLLER: u8 = 1;
pub(crate) const SERVER: u8 = 2;
pub(crate) const LOOP: u8 = 5;

/// Generation and kind together.
pub(crate) const fn name_of(generation: u64, kind: u8) -> u64 {
    (generation * NEXT) | kind as u64
}

pub(crate) const fn handle_of(name: u64, index: u16) -> usize {
    ((name as usize) << INDEX_BITS) | index as usize
}

/// How many slots are made at a time.
const BLOCK: usize = 256;

/// Objects behind handles of one kind, `SLOTS` at most.
pub(crate) struct Table<T, const KIND: u8, const SLOTS: usize> {
    /// Null where no slot was needed yet.
    blocks: [AtomicPtr<Block<T>>; MAX_SLOTS / BLOCK],
    /// Where to look for a vacant slot first.
    vacant: AtomicUsize,
    /// No slot from here on was ever used.
    end: AtomicUsize,
    /// A slot is closing, and its last user has left without dropping its object.
    abandoned: AtomicBool,
}

type Block<T> = [Slot<T>; BLOCK];

/// On a cache line of its own: two threads with a poller each don't slow each other down.
#[repr(align(64))]
struct Slot<T> {
    state: AtomicU64,
    /// From a `Box`. Null in a vacant slot.
    object: AtomicPtr<T>,
}

thread_local! {
    /// The uses that this thread is inside of, without those by signal handlers.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// The use of an object, which can't be dropped meanwhile.
pub(crate) struct Entry<'a, T: Send + Sync, const KIND: u8, const SLOTS: usize> {
    table: &'a Table<T, KIND, SLOTS>,
    slot: &'a Slot<T>,
    index: u16,
    /// The slot's state just before.
    found: u64,
    /// This thread's [`INSIDE`], whose address is asked for once: after a system call a call through a
    /// pointer is mispredicted, and a shared library finds its thread's storage by one. `None` in a
    /// signal handler, which never drops the object, and touches no storage of the thread's.
    inside: Option<NonNull<Cell<u32>>>,
}

impl<T: Send + Sync, const KIND: u8, const SLOTS: usize> Table<T, KIND, SLOTS> {
    pub(crate) const fn new() -> Self {
        assert!(SLOTS <= MAX_SLOTS && KIND < 1 << KIND_BITS);
        Self {
            blocks: [const { AtomicPtr::new(ptr::null_mut()) }; MAX_SLOTS / BLOCK],
            vacant: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            abandoned: AtomicBool::new(false),
        }
    }

    /// Gives `object` a handle, which is never 0. `EMFILE` when every slot is taken, `ENOMEM` when
    /// there is no memory for one.
    pub(crate) fn insert(&self, object: T) -> Result<usize, c_int> {
        if self.abandoned.swap(false, Ordering::Acquire) {
            (0..self.used()).for_each(|index| self.retire(index));
        }
        let object = Box::into_raw(Box::new(object));
        let inserted = self.claim(object);
        if inserted.is_err() {
            // SAFETY: from `Box::into_raw` above, and no slot has taken it.
            drop(unsafe { Box::from_raw(object) });
        }
        inserted
    }

    fn claim(&self, object: *mut T) -> Result<usize, c_int> {
        let first = self.vacant.load(Ordering::Relaxed);
        for index in (first..SLOTS).chain(0..first) {
            let slot = self.slot_or_new(index).ok_or(libc::ENOMEM)?;
            if slot.claim(object) {
                self.end.fetch_max(index + 1, Ordering::Relaxed);
                // It fails when a lower slot has become vacant meanwhile, which is right.
                let _ = self.vacant.compare_exchange(first, index + 1, Ordering::Relaxed, Ordering::Relaxed);
                return Ok(handle_of(slot.open(KIND), index as u16));
            }
        }
        Err(libc::EMFILE)
    }

    /// None where no object ever was.
    #[inline]
    fn slot(&self, index: u16) -> Option<&Slot<T>> {
        let block = self.blocks[usize::from(index) / BLOCK].load(Ordering::Acquire);
        // SAFETY: null, or made by `slot_or_new`, and there as long as the table.
        let block = unsafe { block.as_ref() }?;
        Some(&block[usize::from(index) % BLOCK])
    }

    /// None when there is no memory for it.
    fn slot_or_new(&self, index: usize) -> Option<&Slot<T>> {
        let place = &self.blocks[index / BLOCK];
        if place.load(Ordering::Acquire).is_null() {
            // SAFETY: the layout is not empty. All zeros are slots that are vacant.
            let new = unsafe { alloc_zeroed(Layout::new::<Block<T>>()) }.cast::<Block<T>>();
            let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
            let placed = place.compare_exchange(ptr::null_mut(), new, success, failure);
            if placed.is_err() {
                // SAFETY: made above, or null, and another thread's was placed instead.
                unsafe { dealloc_block(new) };
            }
        }
        self.slot(index as u16)
    }

    /// Enters the object of `handle`. `None` when the handle is stale, or never was one.
    pub(crate) fn enter(&self, handle: usize) -> Option<Entry<'_, T, KIND, SLOTS>> {
        self.enter_as(handle, false)
    }

    /// Enters for a signal handler, which can't drop an object, nor touch storage of its thread's:
    /// the first touch may allocate. If this is the last user of a closing slot, the next
    /// `insert` drops the object.
    pub(crate) fn enter_signal_safe(&self, handle: usize) -> Option<Entry<'_, T, KIND, SLOTS>> {
        self.enter_as(handle, true)
    }

    fn enter_as(&self, handle: usize, in_handler: bool) -> Option<Entry<'_, T, KIND, SLOTS>> {
        let index = handle as u16;
        let slot = self.slot(index)?;
        let inside = (!in_handler).then(|| INSIDE.with(|inside| NonNull::from(inside)));
        // First, and taken back last: a handler that forks in between finds this thread inside.
        count_inside(inside, 1);
        let found = slot.state.fetch_add(USER, Ordering::Acquire);
        let entry = Entry { table: self, slot, index, found, inside };
        let is_open = found & (OPEN | CLOSING) == OPEN;
        (is_open && found & NAME == (handle >> INDEX_BITS) as u64).then_some(entry)
    }

    /// Forgets the users that a forked child has inherited, whose threads are not in it, unless
    /// its only thread may be one of them. To be called in the child before it can make a thread.
    pub(crate) fn after_fork(&self) {
        if INSIDE.get() != 0 {
            return;
        }
        for slot in (0..self.used()).filter_map(|index| self.slot(index as u16)) {
            slot.state.fetch_and(USER - 1, Ordering::Relaxed);
        }
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Drops what is in a slot, if it is closing and unused.
    fn retire(&self, index: usize) {
        if self.slot(index as u16).is_some_and(Slot::retire) {
            self.vacant.fetch_min(index, Ordering::Relaxed);
        }
    }

    fn used(&self) -> usize {
        self.end.load(Ordering::Relaxed)
    }
}

/// Counts a use that begins or ends in this thread.
#[inline]
fn count_inside(inside: Option<NonNull<Cell<u32>>>, change: i32) {
    if let Some(inside) = inside {
        // SAFETY: of this thread, as an `Entry` stays where it was made, and there as long as the
        // thread, because it has no destructor.
        let inside = unsafe { inside.as_ref() };
        inside.set(inside.get().wrapping_add_signed(change));
    }
}

/// # Safety
/// From `alloc_zeroed` with this layout, and used no more; or null.
unsafe fn dealloc_block<T>(block: *mut Block<T>) {
    if !block.is_null() {
        // SAFETY: the caller's promise. A slot owns nothing that must be dropped.
        unsafe { dealloc(block.cast(), Layout::new::<Block<T>>()) };
    }
}

impl<T> Slot<T> {
    /// Takes a vacant slot.
    fn claim(&self, object: *mut T) -> bool {
        self.object.compare_exchange(ptr::null_mut(), object, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Lets the users of a new object in, by the name that is returned. Those of stale handles
    /// come and go meanwhile.
    fn open(&self, kind: u8) -> u64 {
        let before = self.state.load(Ordering::Relaxed) & NAME;
        let name = name_of(before / NEXT + 1, kind);
        self.state.fetch_add(OPEN + name - before, Ordering::Release);
        name
    }

    /// Drops the object of a slot that is closing and unused; says whether it did.
    fn retire(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        let is_over = state & CLOSING != 0 && state < USER;
        let empty = state & NAME;
        if !is_over
            || self.state.compare_exchange(state, empty, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return false;
        }
        let object = self.object.load(Ordering::Relaxed);
        if empty / NEXT < LAST_GENERATION {
            self.object.store(ptr::null_mut(), Ordering::Release);
        }
        // SAFETY: from `Box::into_raw` in `insert`. The exchange above has one winner, found no
        // user, and lets none in any more.
        let object = unsafe { Box::from_raw(object) };
        // A panic in the object's `drop` can't be returned by any call: the handle is stale.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(object)));
        true
    }
}

/// The object of a handle, or the errno of one that can't be used.
pub(crate) fn checked<T: Send + Sync, const KIND: u8, const SLOTS: usize>(
    handle: usize,
    entry: Option<Entry<'_, T, KIND, SLOTS>>,
) -> Result<Entry<'_, T, KIND, SLOTS>, c_int> {
    match entry {
        Some(entry) if entry.is_poisoned() => Err(libc::ENOTRECOVERABLE),
        Some(entry) => Ok(entry),
        None if handle == 0 => Err(libc::EINVAL),
        None => Err(libc::ESTALE),
    }
}

/// Runs a call that a signal handler may make, and returns its result as C gets it: without a text,
/// which would be kept in storage of the thread's.
pub(crate) fn call_signal_safe<T: Send + Sync, const KIND: u8, const SLOTS: usize>(
    table: &Table<T, KIND, SLOTS>,
    handle: usize,
    body: impl FnOnce(&T) -> io::Result<()>,
) -> c_int {
    let entry = match checked(handle, table.enter_signal_safe(handle)) {
        Ok(entry) => entry,
        Err(errno) => return -errno,
    };
    match catch_unwind(AssertUnwindSafe(|| body(&entry))) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => -errno(&error),
        Err(_) => {
            entry.poison();
            -libc::ENOTRECOVERABLE
        }
    }
}

impl<'a, T: Send + Sync, const KIND: u8, const SLOTS: usize> Entry<'a, T, KIND, SLOTS> {
    /// Whether an earlier use of the object ended in a panic.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.found & POISONED != 0
    }

    /// Notes that this use has ended in a panic.
    pub(crate) fn poison(&self) {
        self.slot.state.fetch_or(POISONED, Ordering::Relaxed);
    }

    /// Makes the handle stale: the object is dropped when its last user has left. False when
    /// another thread was faster.
    pub(crate) fn close(&self) -> bool {
        self.slot.state.fetch_or(CLOSING, Ordering::Release) & CLOSING == 0
    }

    /// Whether the object was closed since it was entered.
    pub(crate) fn is_closing(&self) -> bool {
        self.slot.state.load(Ordering::Acquire) & CLOSING != 0
    }
}

impl<T: Send + Sync, const KIND: u8, const SLOTS: usize> Deref for Entry<'_, T, KIND, SLOTS> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `enter` found the slot open in the same instruction that made us a user of
        // it, and `retire` drops no object that has a user.
        unsafe { &*self.slot.object.load(Ordering::Relaxed) }
    }
}

impl<T: Send + Sync, const KIND: u8, const SLOTS: usize> Drop for Entry<'_, T, KIND, SLOTS> {
    fn drop(&mut self) {
        if self.inside.is_none() {
            return self.leave_signal_safe();
        }
        let before = self.slot.state.fetch_sub(USER, Ordering::Release);
        count_inside(self.inside, -1);
        if before & CLOSING != 0 {
            self.table.retire(self.index.into());
        }
    }
}

impl<T: Send + Sync, const KIND: u8, const SLOTS: usize> Entry<'_, T, KIND, SLOTS> {
    /// The count may be 0: a handler that interrupted this use has forked, and this is the child.
    fn leave_signal_safe(&self) {
        let leave = |state: u64| state.checked_sub(USER);
        let left = self.slot.state.fetch_update(Ordering::Release, Ordering::Relaxed, leave);
        if left.is_ok_and(|before| before & CLOSING != 0) {
            self.table.abandoned.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests;
