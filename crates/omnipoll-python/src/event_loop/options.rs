//! The options of a loop, from Python.

use omnipoll::LoopOptions;
use pyo3::prelude::*;

use crate::convert;

/// As Python gives them.
pub(super) struct Given<'a> {
    pub(super) engine: Option<&'a str>,
    pub(super) max_clients: Option<usize>,
    pub(super) backlog: i32,
    pub(super) queue_limit: usize,
    pub(super) total_queue_limit: usize,
    pub(super) high_water: usize,
    pub(super) low_water: usize,
    pub(super) idle_timeout: Option<f64>,
    pub(super) read_timeout: Option<f64>,
    pub(super) write_timeout: Option<f64>,
    pub(super) linger: f64,
}

impl Given<'_> {
    pub(super) fn options(self, py: Python<'_>) -> PyResult<LoopOptions> {
        let span =
            |seconds: Option<f64>, name| seconds.map(|seconds| convert::span(seconds, name)).transpose();
        let mut options = LoopOptions::new()
            .backlog(self.backlog)
            .queue_limit(self.queue_limit)
            .total_queue_limit(self.total_queue_limit)
            .water_marks(self.low_water, self.high_water)
            .idle_timeout(span(self.idle_timeout, "idle_timeout")?)
            .read_timeout(span(self.read_timeout, "read_timeout")?)
            .write_timeout(span(self.write_timeout, "write_timeout")?)
            .linger(convert::span(self.linger, "linger")?);
        if let Some(engine) = self.engine.filter(|engine| *engine != "auto") {
            options = options.engine(convert::engine(py, engine)?);
        }
        if let Some(clients) = self.max_clients {
            options = options.max_clients(clients);
        }
        Ok(options)
    }
}
