//! [`Mailbox`]: what other threads ask of a loop's connections.
//!
//! A connection belongs to one loop, and only that loop touches it. What other threads want is left in
//! the loop's mailbox, which also knows the connections that are open, so that a command for one that
//! has ended is an error at once.

use std::io;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::account::{Account, Budget};
use super::conn_id::{ConnId, MAX_CONNECTIONS};
use super::counters::WorkerCounters;
use super::datagram_id::DatagramId;
use super::datagram_socket::DatagramSocket;
use super::datagram_table::{DatagramTable, PendingDatagrams};
use super::groups::Groups;
use super::id_bits::LAST_GENERATION;
use super::timeouts::Timeout;
use crate::error::{fail, no_memory};
use crate::sys::lock;
use crate::Poller;

/// The highest generation of any connection, in this process and those that it descends from.
pub(super) static HIGHEST_GENERATION: AtomicU32 = AtomicU32::new(0);

/// What another thread asks of a connection.
#[derive(Debug)]
pub(crate) enum Command {
    /// Bytes that are counted, and whether the writer's result was more than the high mark.
    Write {
        data: Arc<Vec<u8>>,
        above_high_water: bool,
    },
    Post(i64),
    Pause(bool),
    Timeout(Timeout, Option<Duration>),
    Shutdown,
    Close,
    Abort,
}

/// A command, with the slot and the id of its connection, which may have ended when it is read.
pub(crate) type PendingCommand = (usize, ConnId, Command);

/// Stands for the slot of a connection that is not open yet.
pub(crate) const CONNECTING: usize = usize::MAX;

/// How many posts and writes to one connection may wait for its loop.
const MAX_PENDING: u32 = 16 * 1024;

/// A connection as other threads know it.
#[derive(Default, Debug)]
struct Entry {
    /// How many connections this entry has had, this one included.
    generation: u32,
    /// Its bytes that wait to be sent; `None` when it has ended.
    account: Option<Arc<Account>>,
    /// Its slot in the loop.
    slot: usize,
    /// Whether it takes no more commands but to abort.
    closing: bool,
    /// Whether it has been aborted.
    aborted: bool,
    /// Whether it takes no more writes.
    shut: bool,
    /// Whether it may be in a group.
    in_groups: bool,
    /// How many posts and writes wait for the loop.
    pending: u32,
    /// The last pause or resume that waits for the loop.
    pause: Option<bool>,
}

impl Entry {
    /// `ESTALE` for a connection that takes no more commands.
    fn not_closing(&mut self) -> io::Result<&mut Self> {
        if self.closing {
            return Err(stale());
        }
        Ok(self)
    }

    /// Whether one more post or write may wait for the loop.
    fn has_room(&self) -> bool {
        self.pending < MAX_PENDING
    }
}

#[derive(Debug, Default)]
struct State {
    entries: Vec<Entry>,
    /// Entries of connections that have ended.
    free: Vec<usize>,
    commands: Vec<PendingCommand>,
}

impl State {
    fn entry(&mut self, id: ConnId) -> io::Result<&mut Entry> {
        match self.entries.get_mut(id.entry()) {
            Some(entry) if entry.account.is_some() && entry.generation == id.generation() => Ok(entry),
            _ => Err(stale()),
        }
    }

    /// Counts and queues a write, and returns how many bytes wait then.
    fn write(&mut self, id: ConnId, data: Arc<Vec<u8>>, high_water: usize) -> io::Result<usize> {
        self.commands.try_reserve(1).map_err(no_memory)?;
        let entry = self.entry(id)?.not_closing()?;
        if entry.shut {
            return Err(fail(libc::EPIPE, "the connection's sending side is shut down"));
        }
        if !entry.has_room() {
            return Err(fail(libc::ENOBUFS, "16,384 writes and posts to the connection wait for its loop"));
        }
        let Some(account) = &entry.account else { return Err(stale()) };
        let waiting = account.reserve(data.len())?;
        entry.pending += 1;
        let command = Command::Write { data, above_high_water: waiting > high_water };
        let slot = entry.slot;
        self.commands.push((slot, id, command));
        Ok(waiting)
    }

    /// The id of the connection that has this entry now, if one has.
    fn id_at(&self, index: usize, loop_index: usize) -> Option<ConnId> {
        let entry = self.entries.get(index).filter(|entry| entry.account.is_some())?;
        Some(ConnId::new(entry.generation, loop_index, index))
    }
}

/// To how many connections a broadcast went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reached {
    pub(crate) queued: usize,
    /// Those that had no room for it.
    pub(crate) full: usize,
}

impl AddAssign for Reached {
    fn add_assign(&mut self, other: Self) {
        self.queued += other.queued;
        self.full += other.full;
    }
}

impl Reached {
    /// Counts the result of a write. Connections that take no more writes are not counted.
    fn count(&mut self, written: &io::Result<usize>) {
        match written.as_ref().map_err(io::Error::raw_os_error) {
            Ok(_) => self.queued += 1,
            Err(Some(libc::ENOBUFS | libc::ENOMEM)) => self.full += 1,
            Err(_) => {}
        }
    }
}

/// The commands for one loop.
#[derive(Debug)]
pub(crate) struct Mailbox {
    loop_index: usize,
    /// The generations of its entries are above this.
    first_generation: u32,
    poller: Arc<Poller>,
    budget: Arc<Budget>,
    counters: WorkerCounters,
    groups: Arc<Groups>,
    state: Mutex<State>,
    datagrams: Mutex<DatagramTable>,
}

impl Mailbox {
    pub(super) fn new(
        loop_index: usize,
        first_generation: u32,
        poller: Arc<Poller>,
        budget: Arc<Budget>,
        counters: WorkerCounters,
        groups: Arc<Groups>,
    ) -> Self {
        let datagrams = Mutex::new(DatagramTable::new(loop_index, first_generation));
        let state = Mutex::default();
        Self { loop_index, first_generation, poller, budget, counters, groups, state, datagrams }
    }

    /// The groups that its connections join.
    pub(crate) fn groups(&self) -> &Groups {
        &self.groups
    }

    pub(super) fn loop_index(&self) -> usize {
        self.loop_index
    }

    /// The highest generation of its entries.
    pub(super) fn last_generation(&self) -> u32 {
        let last = lock(&self.state).entries.iter().map(|entry| entry.generation).max();
        last.unwrap_or(self.first_generation).max(lock(&self.datagrams).last_generation())
    }

    /// The loop has a new connection in `slot`.
    pub(crate) fn add(&self, slot: usize) -> (ConnId, Arc<Account>) {
        let account = Account::new(self.budget.clone());
        let mut state = lock(&self.state);
        let index = state.free.pop().unwrap_or(state.entries.len());
        if index == state.entries.len() {
            state.entries.push(Entry { generation: self.first_generation, ..Entry::default() });
        }
        let generation = state.entries[index].generation + 1;
        HIGHEST_GENERATION.fetch_max(generation, Ordering::Relaxed);
        let here = Some(account.clone());
        state.entries[index] = Entry { generation, account: here, slot, ..Entry::default() };
        (ConnId::new(generation, self.loop_index, index), account)
    }

    /// The loop is to have a connection that is not open yet. `EAGAIN` when it has as many as it can have.
    pub(super) fn reserve(&self) -> io::Result<ConnId> {
        if lock(&self.state).entries.len() >= MAX_CONNECTIONS {
            return Err(fail(libc::EAGAIN, "the loop has too many connections"));
        }
        Ok(self.add(CONNECTING).0)
    }

    /// A connection that was [reserved](Self::reserve) is open.
    pub(crate) fn open(&self, id: ConnId, slot: usize) -> Option<Arc<Account>> {
        let mut state = lock(&self.state);
        let entry = state.entry(id).ok()?;
        entry.slot = slot;
        entry.account.clone()
    }

    pub(super) fn has(&self, id: ConnId) -> bool {
        lock(&self.state).entry(id).is_ok()
    }

    /// The slot of a connection that has not ended.
    pub(super) fn slot(&self, id: ConnId) -> Option<usize> {
        let of_this_loop = id.is_connection() && id.loop_index() == self.loop_index;
        of_this_loop.then(|| lock(&self.state).entry(id).map(|entry| entry.slot).ok()).flatten()
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

    /// The connection has ended.
    pub(crate) fn remove(&self, id: ConnId) {
        let mut state = lock(&self.state);
        let Ok(entry) = state.entry(id) else { return };
        entry.account = None;
        let (generation, in_groups) = (entry.generation, entry.in_groups);
        if generation < LAST_GENERATION {
            state.free.push(id.entry());
        }
        drop(state);
        if in_groups {
            self.groups.leave_all(id);
        }
    }

    pub(super) fn join(&self, id: ConnId, group: &str) -> io::Result<()> {
        // With the groups locked: a connection that ends now leaves them afterwards.
        self.groups.join(id, group, || {
            let mut state = lock(&self.state);
            let entry = state.entry(id).and_then(Entry::not_closing)?;
            entry.in_groups = true;
            Ok(())
        })
    }

    pub(super) fn leave(&self, id: ConnId, group: &str) -> io::Result<()> {
        self.groups.leave(id, group, || lock(&self.state).entry(id).and_then(Entry::not_closing).map(drop))
    }

    pub(super) fn write(&self, id: ConnId, data: Arc<Vec<u8>>) -> io::Result<usize> {
        let waiting = lock(&self.state).write(id, data, self.budget.high_water)?;
        self.poller.wake()?;
        Ok(waiting)
    }

    pub(super) fn send(&self, id: ConnId, command: Command) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.commands.try_reserve(1).map_err(no_memory)?;
        let entry = state.entry(id)?;
        if entry.closing && !matches!(command, Command::Abort) {
            return Err(stale());
        }
        let is_waiting = match command {
            Command::Post(_) | Command::Timeout(..) if !entry.has_room() => {
                return Err(fail(
                    libc::EAGAIN,
                    "16,384 writes and posts to the connection wait for its loop: post again later",
                ));
            }
            Command::Pause(pause) => entry.pause.replace(pause).is_some(),
            Command::Abort => std::mem::replace(&mut entry.aborted, true),
            Command::Shutdown => std::mem::replace(&mut entry.shut, true),
            _ => false,
        };
        if is_waiting {
            return Ok(());
        }
        entry.pending += u32::from(matches!(command, Command::Post(_) | Command::Timeout(..)));
        entry.closing |= matches!(command, Command::Close | Command::Abort);
        let slot = entry.slot;
        state.commands.push((slot, id, command));
        drop(state);
        self.poller.wake()
    }

    /// Queues `data` on every open connection but `except` that has room for it.
    pub(crate) fn broadcast(&self, data: &Arc<Vec<u8>>, except: Option<ConnId>) -> io::Result<Reached> {
        let mut state = lock(&self.state);
        let mut reached = Reached::default();
        for index in 0..state.entries.len() {
            let id = state.id_at(index, self.loop_index).filter(|&id| Some(id) != except);
            if let Some(id) = id {
                reached.count(&state.write(id, data.clone(), self.budget.high_water));
            }
        }
        drop(state);
        self.wake_if(reached)
    }

    /// Queues `data` on those connections that are open and have room for it.
    pub(super) fn broadcast_to(
        &self,
        ids: impl Iterator<Item = ConnId>,
        data: &Arc<Vec<u8>>,
    ) -> io::Result<Reached> {
        let mut state = lock(&self.state);
        let mut reached = Reached::default();
        for id in ids {
            reached.count(&state.write(id, data.clone(), self.budget.high_water));
        }
        drop(state);
        self.wake_if(reached)
    }

    fn wake_if(&self, reached: Reached) -> io::Result<Reached> {
        if reached.queued > 0 {
            self.poller.wake()?;
        }
        Ok(reached)
    }

    /// Takes all commands.
    pub(crate) fn take(&self, into: &mut Vec<PendingCommand>) {
        let mut state = lock(&self.state);
        std::mem::swap(&mut state.commands, into);
        for (slot, id, command) in into {
            let Ok(entry) = state.entry(*id) else { continue };
            *slot = entry.slot;
            entry.pending = 0;
            if let Command::Pause(pause) = command {
                // Of several calls the last counts.
                *pause = entry.pause.take().unwrap_or(*pause);
            }
        }
    }

    /// What the loop counts by.
    pub(crate) fn counters(&self) -> &WorkerCounters {
        &self.counters
    }

    /// The loop's datagram sockets.
    pub(super) fn datagrams(&self) -> MutexGuard<'_, DatagramTable> {
        lock(&self.datagrams)
    }

    /// Gives the loop one more datagram socket, which sends from now on.
    pub(crate) fn open_datagrams(&self, socket: DatagramSocket) -> io::Result<DatagramId> {
        let id = self.datagrams().add(Arc::new(socket))?;
        HIGHEST_GENERATION.fetch_max(id.generation(), Ordering::Relaxed);
        self.poller.wake()?;
        Ok(id)
    }

    /// Has the loop send what waits on a datagram socket.
    pub(super) fn flush_datagrams(&self, id: DatagramId) -> io::Result<()> {
        self.datagrams().set_pending(id);
        self.poller.wake()
    }

    /// Has the loop close a datagram socket.
    pub(super) fn close_datagrams(&self, id: DatagramId) -> io::Result<()> {
        self.datagrams().set_closing(id)?;
        self.poller.wake()
    }

    /// Takes what the loop is to do with its datagram sockets.
    pub(crate) fn take_datagrams(&self) -> Vec<PendingDatagrams> {
        self.datagrams().take_pending()
    }

    /// The loop has closed a datagram socket.
    pub(crate) fn remove_datagrams(&self, id: DatagramId) {
        self.datagrams().remove(id);
    }

    /// The loop opens no more datagram sockets, and closes these.
    pub(crate) fn end_datagrams(&self) -> Vec<Arc<DatagramSocket>> {
        self.datagrams().close()
    }

    /// The datagram sockets that are open.
    pub(crate) fn datagram_ids(&self) -> Vec<DatagramId> {
        self.datagrams().ids().collect()
    }

    /// Ends the loop's wait.
    pub(crate) fn wake(&self) -> io::Result<()> {
        self.poller.wake()
    }
}

pub(super) fn stale() -> io::Error {
    fail(libc::ESTALE, "the connection is gone")
}
