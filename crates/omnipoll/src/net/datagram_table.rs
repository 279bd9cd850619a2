//! [`DatagramTable`]: the datagram sockets of one loop, as other threads find them.

use std::io;
use std::sync::Arc;

use super::datagram_id::DatagramId;
use super::datagram_socket::{stale, DatagramSocket};
use super::id_bits::{LAST_GENERATION, MAX_ENTRIES};
use crate::error::{fail, no_memory};

#[derive(Debug)]
struct Entry {
    /// How many sockets this entry has had, this one included.
    generation: u32,
    /// `None` when it is closed.
    socket: Option<Arc<DatagramSocket>>,
    /// It takes no more datagrams, and the loop is to close it.
    is_closing: bool,
    /// The loop is to look at it.
    is_pending: bool,
}

/// Sockets by their ids, and those that the loop is to open, to flush or to close.
#[derive(Debug)]
pub(super) struct DatagramTable {
    loop_index: usize,
    /// The generations of its entries are above this.
    first_generation: u32,
    entries: Vec<Entry>,
    /// Entries of sockets that are closed.
    free: Vec<usize>,
    pending: Vec<DatagramId>,
    /// The loop has no more sockets.
    is_closed: bool,
}

/// What a loop is to do with one of its sockets.
pub(crate) struct PendingDatagrams {
    pub(crate) id: DatagramId,
    pub(crate) socket: Arc<DatagramSocket>,
    pub(crate) is_closing: bool,
}

impl DatagramTable {
    pub(super) fn new(loop_index: usize, first_generation: u32) -> Self {
        let (entries, free, pending) = (Vec::new(), Vec::new(), Vec::new());
        Self { loop_index, first_generation, entries, free, pending, is_closed: false }
    }

    /// The highest generation of its entries.
    pub(super) fn last_generation(&self) -> u32 {
        self.entries.iter().map(|entry| entry.generation).max().unwrap_or(self.first_generation)
    }

    /// A new socket, which the loop is to open.
    pub(super) fn add(&mut self, socket: Arc<DatagramSocket>) -> io::Result<DatagramId> {
        if self.is_closed {
            return Err(fail(libc::ESTALE, "the loop has stopped"));
        }
        // One for each entry is the most that `pending` and `free` ever have.
        self.entries.try_reserve(1).map_err(no_memory)?;
        let capacity = self.entries.len() + 1;
        self.pending.try_reserve(capacity - self.pending.len()).map_err(no_memory)?;
        self.free.try_reserve(capacity - self.free.len()).map_err(no_memory)?;
        let index = self.free.pop().unwrap_or(self.entries.len());
        if index == MAX_ENTRIES {
            return Err(fail(libc::EMFILE, "the loop has too many datagram sockets"));
        }
        if index == self.entries.len() {
            let generation = self.first_generation;
            self.entries.push(Entry { generation, socket: None, is_closing: false, is_pending: false });
        }
        let generation = self.entries[index].generation + 1;
        self.entries[index] =
            Entry { generation, socket: Some(socket), is_closing: false, is_pending: false };
        let id = DatagramId::new(generation, self.loop_index, index);
        self.set_pending(id);
        Ok(id)
    }

    fn entry(&mut self, id: DatagramId) -> io::Result<&mut Entry> {
        match self.entries.get_mut(id.entry()) {
            Some(entry) if entry.socket.is_some() && entry.generation == id.generation() => Ok(entry),
            _ => Err(stale()),
        }
    }

    /// The socket of an id.
    pub(super) fn get(&mut self, id: DatagramId) -> io::Result<Arc<DatagramSocket>> {
        let entry = self.entry(id)?;
        entry.socket.clone().filter(|_| !entry.is_closing).ok_or_else(stale)
    }

    /// The loop is to look at a socket.
    pub(super) fn set_pending(&mut self, id: DatagramId) {
        let Ok(entry) = self.entry(id) else { return };
        if !std::mem::replace(&mut entry.is_pending, true) {
            self.pending.push(id);
        }
    }

    /// From now on its id is stale, and the loop is to close it.
    pub(super) fn set_closing(&mut self, id: DatagramId) -> io::Result<()> {
        self.get(id)?;
        self.entry(id)?.is_closing = true;
        self.set_pending(id);
        Ok(())
    }

    /// Takes what the loop is to do.
    pub(super) fn take_pending(&mut self) -> Vec<PendingDatagrams> {
        let pending = self.pending.clone();
        self.pending.clear();
        let take = |id| {
            let entry = self.entry(id).ok()?;
            entry.is_pending = false;
            Some(PendingDatagrams { id, socket: entry.socket.clone()?, is_closing: entry.is_closing })
        };
        pending.into_iter().filter_map(take).collect()
    }

    /// The loop has closed a socket.
    pub(super) fn remove(&mut self, id: DatagramId) {
        let Ok(entry) = self.entry(id) else { return };
        entry.socket = None;
        if entry.generation < LAST_GENERATION {
            self.free.push(id.entry());
        }
    }

    /// The loop closes all of them, and takes no more.
    pub(super) fn close(&mut self) -> Vec<Arc<DatagramSocket>> {
        self.is_closed = true;
        self.pending.clear();
        self.entries.iter_mut().filter_map(|entry| entry.socket.take()).collect()
    }

    /// All that are open.
    pub(super) fn ids(&self) -> impl Iterator<Item = DatagramId> + '_ {
        let open = |entry: &Entry| entry.socket.is_some() && !entry.is_closing;
        let of = |(index, entry): (usize, &Entry)| DatagramId::new(entry.generation, self.loop_index, index);
        self.entries.iter().enumerate().filter(move |(_, entry)| open(entry)).map(of)
    }
}
