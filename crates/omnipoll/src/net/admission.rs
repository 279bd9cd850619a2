//! [`Admission`]: which clients are served, by their addresses.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::address_filter::AddressFilter;
use super::address_table::AddressTable;
use super::counters::{Counter, WorkerCounters};
use crate::sys::{fork, Address, SharedWords};

/// The limits of a server or a loop, which all its workers have in common.
#[derive(Debug)]
pub(crate) struct AddressLimits {
    filter: AddressFilter,
    table: Option<AddressTable>,
    /// For each process of one client, while it serves it: the row that it has entered, and one.
    held: SharedWords,
}

/// What the clients of one worker are admitted by.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    limits: Arc<AddressLimits>,
    counters: WorkerCounters,
    worker: usize,
    /// Where a process of one client leaves its row to its parent.
    place: Option<usize>,
}

/// Has been counted as refused.
#[derive(Debug)]
pub(crate) struct Refused;

/// Counts as a connection of its address until it is dropped, in the process that has counted it.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Admission,
    row: usize,
    process: u32,
}

impl AddressLimits {
    /// `None` when there is nothing to limit. `processes`: how many of one client there may be.
    pub(crate) fn new(
        filter: AddressFilter,
        table: Option<AddressTable>,
        processes: usize,
    ) -> io::Result<Option<Arc<Self>>> {
        if filter.is_empty() && table.is_none() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self { filter, table, held: SharedWords::new(processes.max(1))? })))
    }

    /// The process of a worker has ended.
    pub(crate) fn forget_worker(&self, worker: usize) {
        self.table.iter().for_each(|table| table.forget(worker));
    }

    /// The process of one client has ended: what it still counted, it counts no more.
    pub(crate) fn forget_process(&self, place: usize) {
        let row = self.held[place].swap(0, Ordering::Relaxed);
        if let (Some(table), 1..) = (&self.table, row) {
            table.leave(0, row as usize - 1);
        }
    }
}

impl Admission {
    pub(crate) fn new(limits: &Arc<AddressLimits>, counters: WorkerCounters, worker: usize) -> Self {
        Self { limits: limits.clone(), counters, worker, place: None }
    }

    /// For a process of one client.
    pub(crate) fn at_place(self, place: usize) -> Self {
        Self { place: Some(place), ..self }
    }

    /// Counts a client, unless it is refused, which is counted too. Nothing is counted of unix sockets.
    pub(crate) fn admit(&self, peer: &Address) -> Result<Option<Admitted>, Refused> {
        let Some(ip) = peer.as_socket_addr().map(|address| address.ip()) else { return Ok(None) };
        if !self.limits.filter.passes(ip) {
            return Err(self.refuse(Counter::RefusedFilter));
        }
        let Some(table) = &self.limits.table else { return Ok(None) };
        let row = table.enter(self.worker, ip).map_err(|reason| self.refuse(reason))?;
        self.held().into_iter().for_each(|held| held.store(row as u64 + 1, Ordering::Relaxed));
        Ok(Some(Admitted { admission: self.clone(), row, process: fork::epoch() }))
    }

    fn refuse(&self, reason: Counter) -> Refused {
        self.counters.add(Counter::Refused, 1);
        self.counters.add(reason, 1);
        Refused
    }

    fn held(&self) -> Option<&AtomicU64> {
        self.place.map(|place| &self.limits.held[place])
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        // One that was forked has a copy.
        if self.process != fork::epoch() {
            return;
        }
        let Admission { limits, worker, .. } = &self.admission;
        self.admission.held().into_iter().for_each(|held| held.store(0, Ordering::Relaxed));
        limits.table.iter().for_each(|table| table.leave(*worker, self.row));
    }
}
