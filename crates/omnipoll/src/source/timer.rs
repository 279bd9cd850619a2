//! Timers: deadlines in nanoseconds, the soonest first.
//!
//! A 4-ary heap whose entries know their slot and whose slots know their index in the heap, so
//! that cancelling needs no search. Four children share a cache line, which makes a heap of
//! a million half as deep as a binary one at the same number of lines touched.
//!
//! A hierarchical wheel was measured beside it, by the `timers` program of the benchmarks. With
//! a million armed it adds in the same time, for that is the lock, the clock and a cache miss,
//! and it cancels in half: some twenty nanoseconds less, which no wait notices. It was not kept
//! since it counts in ticks: a timer is up to a tick late, where these expire at their
//! nanosecond and in the order of their deadlines, its next deadline is only a bound, which
//! costs waits that return for nothing, and a tick as fine as a nanosecond takes eleven levels.

use std::collections::{TryReserveError, VecDeque};

use crate::event::{Event, EventKind};

/// How many timers without a period keep their ids after they have expired: one that is set again is
/// so soon, and those that are never set or cancelled must not pile up.
pub(crate) const MAX_EXPIRED: usize = 65_536;

/// [`Slot::heap_index`] of a timer that has expired and keeps its id.
const EXPIRED: u32 = u32::MAX;

/// Armed timers over one clock. The clock is the caller's: deadlines are numbers to it.
#[derive(Default)]
pub(crate) struct Timers {
    heap: Vec<Entry>,
    slots: Vec<Slot>,
    /// Slots that are free.
    free: Vec<u32>,
    /// Timers that have expired, the oldest first: their slots, and `created` to see whether one
    /// was set again since.
    expired: VecDeque<(u32, u32)>,
    /// Counts timers: of two with one deadline the older is first.
    created: u32,
}

#[derive(Clone, Copy)]
struct Entry {
    deadline: u64,
    created: u32,
    slot: u32,
}

struct Slot {
    token: u64,
    period: u64,
    /// Odd while the timer has an id, so that no id is 0 and none is used again.
    generation: u32,
    /// When it was armed last, in terms of [`Timers::created`].
    created: u32,
    /// Where its entry is in the heap, or [`EXPIRED`].
    heap_index: u32,
}

/// A timer that has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) token: u64,
    /// How many periods have passed; 1 for a timer without a period.
    pub(crate) times: u64,
}

impl Expired {
    pub(crate) fn event(self) -> Event {
        Event::new(EventKind::Timer, self.token, self.times as i64)
    }
}

impl Entry {
    /// Ties go by age.
    fn is_before(&self, other: &Self) -> bool {
        match self.deadline.cmp(&other.deadline) {
            std::cmp::Ordering::Equal => (self.created.wrapping_sub(other.created) as i32) < 0,
            order => order.is_lt(),
        }
    }
}

impl Timers {
    /// The soonest deadline.
    pub(crate) fn next(&self) -> Option<u64> {
        self.heap.first().map(|entry| entry.deadline)
    }

    /// How many are armed.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Arms a timer; a period of 0 is none. Returns its id, which is never 0.
    pub(crate) fn add(&mut self, deadline: u64, period: u64, token: u64) -> Result<u64, TryReserveError> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.new_slot()?,
        };
        let slot = &mut self.slots[index as usize];
        (slot.token, slot.period) = (token, period);
        slot.generation = slot.generation.wrapping_add(1);
        let id = u64::from(slot.generation) << 32 | u64::from(index);
        self.arm(index, deadline);
        Ok(id)
    }

    /// Makes a slot. There is room in the lists for each one there is, so that nothing else needs
    /// memory.
    fn new_slot(&mut self) -> Result<u32, TryReserveError> {
        let index = self.slots.len();
        self.slots.try_reserve(1)?;
        self.heap.try_reserve(index + 1 - self.heap.len())?;
        self.free.try_reserve(index + 1 - self.free.len())?;
        self.slots.push(Slot { token: 0, period: 0, generation: 0, created: 0, heap_index: EXPIRED });
        Ok(index as u32)
    }

    fn arm(&mut self, index: u32, deadline: u64) {
        self.created = self.created.wrapping_add(1);
        self.slots[index as usize].created = self.created;
        self.heap.push(Entry { deadline, created: self.created, slot: index });
        self.sift_up(self.heap.len() - 1);
    }

    /// Moves a timer to another deadline and period; arms it again if it has expired. `false`
    /// when there is none of that id.
    pub(crate) fn set(&mut self, id: u64, deadline: u64, period: u64) -> bool {
        let Some(index) = self.find(id) else { return false };
        self.slots[index].period = period;
        match self.slots[index].heap_index {
            EXPIRED => self.arm(index as u32, deadline),
            position => {
                self.heap[position as usize].deadline = deadline;
                self.sift(position as usize);
            }
        }
        true
    }

    /// Ends a timer and its id. `false` when it was not armed.
    pub(crate) fn cancel(&mut self, id: u64) -> bool {
        let Some(index) = self.find(id) else { return false };
        let position = self.slots[index].heap_index;
        self.free_slot(index as u32);
        if position != EXPIRED {
            self.remove(position as usize);
        }
        position != EXPIRED
    }

    /// Takes one timer that is due at `now`. A late one with a period reports how many
    /// have passed and is armed for the next; others keep their ids for a while.
    pub(crate) fn expire(&mut self, now: u64) -> Option<Expired> {
        let first = *self.heap.first().filter(|entry| entry.deadline <= now)?;
        let Slot { token, period, .. } = self.slots[first.slot as usize];
        if period == 0 {
            self.remove(0);
            self.keep_id(first.slot, first.created);
            return Some(Expired { token, times: 1 });
        }
        let times = (now - first.deadline) / period + 1;
        self.heap[0].deadline = first.deadline.saturating_add(times.saturating_mul(period));
        self.sift_down(0);
        Some(Expired { token, times })
    }

    fn find(&self, id: u64) -> Option<usize> {
        let index = id as u32 as usize;
        let slot = self.slots.get(index)?;
        (u64::from(slot.generation) == id >> 32 && slot.generation % 2 == 1).then_some(index)
    }

    fn remove(&mut self, position: usize) {
        self.heap.swap_remove(position);
        if position < self.heap.len() {
            self.sift(position);
        }
    }

    /// Keeps the id of a timer that has expired, for as long as there is room.
    fn keep_id(&mut self, index: u32, created: u32) {
        self.slots[index as usize].heap_index = EXPIRED;
        if self.expired.len() == MAX_EXPIRED {
            let oldest = self.expired.pop_front();
            oldest.inspect(|&(index, created)| self.drop_id(index, created));
        }
        match self.expired.try_reserve(1) {
            Ok(()) => self.expired.push_back((index, created)),
            Err(_) => self.free_slot(index),
        }
    }

    /// Takes the id of a timer that has neither been set again nor cancelled since it expired.
    fn drop_id(&mut self, index: u32, created: u32) {
        let slot = &self.slots[index as usize];
        if slot.heap_index == EXPIRED && slot.created == created && slot.generation % 2 == 1 {
            self.free_slot(index);
        }
    }

    fn free_slot(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
    }

    /// Moves an entry that may be too high or too low where it belongs.
    fn sift(&mut self, position: usize) {
        if self.sift_up(position) == position {
            self.sift_down(position);
        }
    }

    fn sift_up(&mut self, mut position: usize) -> usize {
        let entry = self.heap[position];
        while position > 0 && entry.is_before(&self.heap[(position - 1) / 4]) {
            self.put(position, self.heap[(position - 1) / 4]);
            position = (position - 1) / 4;
        }
        self.put(position, entry);
        position
    }

    fn sift_down(&mut self, mut position: usize) {
        let entry = self.heap[position];
        loop {
            let children = 4 * position + 1..(4 * position + 5).min(self.heap.len());
            let soonest = children.reduce(|a, b| if self.heap[b].is_before(&self.heap[a]) { b } else { a });
            match soonest.filter(|&child| self.heap[child].is_before(&entry)) {
                Some(child) => {
                    self.put(position, self.heap[child]);
                    position = child;
                }
                None => break,
            }
        }
        self.put(position, entry);
    }

    fn put(&mut self, position: usize, entry: Entry) {
        self.heap[position] = entry;
        self.slots[entry.slot as usize].heap_index = position as u32;
    }
}
