//! [`ConnectionTable`]: the connections of one loop, by the slots that its events carry.

use std::ops::{Index, IndexMut};

use super::connection::Connection;

/// Slots of a page. It never moves: memory that grows leaves holes behind, as large as all connections.
const PAGE: usize = 64;

/// Slots of connections; one that is freed is used again.
#[derive(Debug, Default)]
pub(crate) struct ConnectionTable {
    /// All full but the last.
    pages: Vec<Vec<Option<Connection>>>,
    /// How many slots there are.
    slots: usize,
    free: Vec<usize>,
    /// How many of the connections were accepted.
    accepted: usize,
}

impl ConnectionTable {
    /// The slot that the next connection gets.
    pub(crate) fn next_slot(&self) -> usize {
        self.free.last().copied().unwrap_or(self.slots)
    }

    /// Puts a connection into the [next slot](Self::next_slot).
    pub(crate) fn insert(&mut self, connection: Connection) -> usize {
        self.accepted += usize::from(!connection.is_outgoing);
        match self.free.pop() {
            Some(slot) => {
                self.pages[slot / PAGE][slot % PAGE] = Some(connection);
                slot
            }
            None => {
                if self.slots % PAGE == 0 {
                    self.pages.push(Vec::with_capacity(PAGE));
                }
                self.pages[self.slots / PAGE].push(Some(connection));
                self.slots += 1;
                self.slots - 1
            }
        }
    }

    pub(crate) fn remove(&mut self, slot: usize) {
        if let Some(connection) = self.pages[slot / PAGE][slot % PAGE].take() {
            self.accepted -= usize::from(!connection.is_outgoing);
            self.free.push(slot);
        }
    }

    #[inline]
    pub(crate) fn get(&self, slot: usize) -> Option<&Connection> {
        self.pages.get(slot / PAGE)?.get(slot % PAGE)?.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: usize) -> Option<&mut Connection> {
        self.pages.get_mut(slot / PAGE)?.get_mut(slot % PAGE)?.as_mut()
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.slots - self.free.len()
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
        (0..self.slots).filter(is_open).collect()
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
