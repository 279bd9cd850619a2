//! [`ServerStats`]: what a server has counted.

use crate::net::{Counter, Counters, WorkerCounters};

/// What a worker, or the whole server, has counted since it was made.
///
/// See the example of [`ServerHandle`](crate::ServerHandle).
///
/// # Portability
///
/// The same on every system and engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Clients that were accepted.
    pub accepted: u64,
    /// Clients that are being served.
    pub active: u64,
    /// Bytes read from clients.
    pub bytes_in: u64,
    /// Bytes that the kernel took for clients.
    pub bytes_out: u64,
    /// Clients that were refused: by `on_open`, because there was no thread or process for them, or for one
    /// of the reasons that are counted by themselves.
    pub refused: u64,
    /// Connections that ended because they were silent for too long.
    pub timed_out: u64,
    /// How often accepting paused because descriptors or memory had run out.
    pub accept_pauses: u64,
    /// How often a broadcast skipped a client that had no room for it.
    pub writes_refused: u64,
    /// Datagrams that arrived.
    pub datagrams_in: u64,
    /// Datagrams that the kernel took.
    pub datagrams_out: u64,
    /// Datagrams that could not be sent.
    pub datagrams_dropped: u64,
    /// How often a worker process died and was replaced.
    pub restarts: u64,
    /// Of those refused: for lack of a header of the PROXY protocol.
    pub refused_header: u64,
    /// Of those refused: whose address is not allowed.
    pub refused_filter: u64,
    /// Of those refused: because their address had too many connections.
    pub refused_address: u64,
    /// Of those refused: because their address made too many in a second.
    pub refused_rate: u64,
}

/// What a [`Server`](crate::Server) has counted.
///
/// See the example of [`ServerHandle`](crate::ServerHandle).
///
/// # Portability
///
/// The same on every system and engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// All of it.
    pub total: WorkerStats,
    /// For each loop under CORES and each process under PREFORK; one under the other models.
    pub workers: Vec<WorkerStats>,
}

impl WorkerStats {
    fn of(counters: &WorkerCounters) -> Self {
        let accepted = counters.get(Counter::Accepted);
        Self {
            accepted,
            active: accepted.saturating_sub(counters.get(Counter::Closed)),
            bytes_in: counters.get(Counter::BytesIn),
            bytes_out: counters.get(Counter::BytesOut),
            refused: counters.get(Counter::Refused),
            timed_out: counters.get(Counter::TimedOut),
            accept_pauses: counters.get(Counter::AcceptPauses),
            writes_refused: counters.get(Counter::WritesRefused),
            datagrams_in: counters.get(Counter::DatagramsIn),
            datagrams_out: counters.get(Counter::DatagramsOut),
            datagrams_dropped: counters.get(Counter::DatagramsDropped),
            restarts: counters.get(Counter::Restarts),
            refused_header: counters.get(Counter::RefusedHeader),
            refused_filter: counters.get(Counter::RefusedFilter),
            refused_address: counters.get(Counter::RefusedAddress),
            refused_rate: counters.get(Counter::RefusedRate),
        }
    }

    fn and(self, other: &Self) -> Self {
        Self {
            accepted: self.accepted + other.accepted,
            active: self.active + other.active,
            bytes_in: self.bytes_in + other.bytes_in,
            bytes_out: self.bytes_out + other.bytes_out,
            refused: self.refused + other.refused,
            timed_out: self.timed_out + other.timed_out,
            accept_pauses: self.accept_pauses + other.accept_pauses,
            writes_refused: self.writes_refused + other.writes_refused,
            datagrams_in: self.datagrams_in + other.datagrams_in,
            datagrams_out: self.datagrams_out + other.datagrams_out,
            datagrams_dropped: self.datagrams_dropped + other.datagrams_dropped,
            restarts: self.restarts + other.restarts,
            refused_header: self.refused_header + other.refused_header,
            refused_filter: self.refused_filter + other.refused_filter,
            refused_address: self.refused_address + other.refused_address,
            refused_rate: self.refused_rate + other.refused_rate,
        }
    }
}

impl ServerStats {
    pub(super) fn of(counters: &Counters) -> Self {
        let workers: Vec<_> =
            (0..counters.workers()).map(|worker| WorkerStats::of(&counters.of(worker))).collect();
        let total = workers.iter().fold(WorkerStats::default(), WorkerStats::and);
        Self { total, workers }
    }
}
