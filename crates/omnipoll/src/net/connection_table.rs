//! [`ConnectionTable`]: the connections of one loop, by the slots that its events carry.

use std::ops::{Index, IndexMut};

use super::connection::Connection;

/// Slots of connections; one that is freed is used again.
#[derive(Debug, Default)]
pub(crate) struct ConnectionTable {
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// How many of the connections were accepted.
    accepted: usize,
}

impl ConnectionTable {
    /// The slot that the next connection gets.
    pub(crate) fn next_slot(&self) -> usize {
        self.free.last().copied().unwrap_or(self.slots.len())
    }

    /// Puts a connection into the [next slot](Self::next_slot).
    pub(crate) fn insert(&mut self, connection: Connection) -> usize {
        self.accepted += usize::from(!connection.is_outgoing);
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(connection);
                slot
            }
            None => {
                if self.slots.len() == self.slots.capacity() {
                    // A vector that doubles has up to as many slots that are never used.
                    self.slots.reserve_exact((self.slots.len() / 4).max(16));
                }
                self.slots.push(Some(connection));
                self.slots.len() - 1
            }
        }
    }

    pub(crate) fn remove(&mut self, slot: usize) {
        if let Some(connection) = self.slots[slot].take() {
            self.accepted -= usize::from(!connection.is_outgoing);
            self.free.push(slot);
        }
    }

    #[inline]
    pub(crate) fn get(&self, slot: usize) -> Option<&Connection> {
        self.slots.get(slot)?.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: usize) -> Option<&mut Connection> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of them were accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted
    }

    /// The slots of those that have not ended.
    pub(crate) fn open_slots(&self) -> Vec<usize> {
        let is_open = |slot: &usize| self.get(*slot).is_some_and(|connection| !connection.is_ended());
        (0..self.slots.len()).filter(is_open).collect()
    }
}

/// For a slot that is known to be in use.
impl Index<usize> for ConnectionTable {
    type Output = Connection;

    #[inline]
    fn index(&self, slot: usize) -> &Connection {
        self.get(slot).unwrap_or_else(|| vacant(slot))
    }
}

impl IndexMut<usize> for ConnectionTable {
    #[inline]
    fn index_mut(&mut self, slot: usize) -> &mut Connection {
        self.get_mut(slot).unwrap_or_else(|| vacant(slot))
    }
}

#[cold]
fn vacant(slot: usize) -> ! {
    panic!("slot {slot} has no connection")
}
