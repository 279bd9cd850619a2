//! What `Server.stats()` returns.

use omnipoll::{ServerStats, WorkerStats};
use pyo3::prelude::*;

/// What a server has counted since it was made. Taken while it continues: the numbers may be some
/// moments apart.
#[pyclass(frozen, name = "ServerStats", module = "omnipoll")]
pub(crate) struct PyServerStats(pub(crate) ServerStats);

#[pymethods]
impl PyServerStats {
    /// All of it: a WorkerStats.
    #[getter]
    fn total(&self) -> PyWorkerStats {
        PyWorkerStats(self.0.total)
    }

    /// A WorkerStats for each loop under "cores" and each process under "prefork"; one under the
    /// other models.
    #[getter]
    fn workers(&self) -> Vec<PyWorkerStats> {
        self.0.workers.iter().copied().map(PyWorkerStats).collect()
    }

    /// All of it in Prometheus' text format, version 0.0.4: what a server answers to GET /metrics. Each
    /// number is a metric omnipoll_server_... with the label worker.
    fn prometheus(&self) -> String {
        self.0.prometheus()
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// What a worker, or the whole server, has counted.
#[pyclass(frozen, name = "WorkerStats", module = "omnipoll")]
pub(crate) struct PyWorkerStats(WorkerStats);

#[pymethods]
impl PyWorkerStats {
    /// Clients that were accepted.
    #[getter]
    fn accepted(&self) -> u64 {
        self.0.accepted
    }

    /// Clients that are being served.
    #[getter]
    fn active(&self) -> u64 {
        self.0.active
    }

    /// Bytes read from clients.
    #[getter]
    fn bytes_in(&self) -> u64 {
        self.0.bytes_in
    }

    /// Bytes that the system took for clients.
    #[getter]
    fn bytes_out(&self) -> u64 {
        self.0.bytes_out
    }

    /// Clients that were refused: by on_open, for want of a thread or process, or for one of the reasons
    /// that are counted by themselves.
    #[getter]
    fn refused(&self) -> u64 {
        self.0.refused
    }

    /// Connections that ended because they were silent for too long.
    #[getter]
    fn timed_out(&self) -> u64 {
        self.0.timed_out
    }

    /// How often accepting paused for want of descriptors or memory.
    #[getter]
    fn accept_pauses(&self) -> u64 {
        self.0.accept_pauses
    }

    /// How often a broadcast passed over a client that had no room for it.
    #[getter]
    fn writes_refused(&self) -> u64 {
        self.0.writes_refused
    }

    /// Datagrams that arrived.
    #[getter]
    fn datagrams_in(&self) -> u64 {
        self.0.datagrams_in
    }

    /// Datagrams that the system took.
    #[getter]
    fn datagrams_out(&self) -> u64 {
        self.0.datagrams_out
    }

    /// Datagrams that could not be sent to where they should go.
    #[getter]
    fn datagrams_dropped(&self) -> u64 {
        self.0.datagrams_dropped
    }

    /// How often a worker process died and was replaced.
    #[getter]
    fn restarts(&self) -> u64 {
        self.0.restarts
    }

    /// Of those refused: for want of a header of the PROXY protocol.
    #[getter]
    fn refused_header(&self) -> u64 {
        self.0.refused_header
    }

    /// Of those refused: whose address is not allowed.
    #[getter]
    fn refused_filter(&self) -> u64 {
        self.0.refused_filter
    }

    /// Of those refused: because their address had too many connections.
    #[getter]
    fn refused_address(&self) -> u64 {
        self.0.refused_address
    }

    /// Of those refused: because their address made too many in a second.
    #[getter]
    fn refused_rate(&self) -> u64 {
        self.0.refused_rate
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}
