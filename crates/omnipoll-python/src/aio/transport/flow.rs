//! When a protocol is asked to pause writing, and to resume.

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::class::Transport;
use crate::aio::arguments::Arguments;
use crate::aio::AsyncioLoop;

/// How many bytes may wait to be sent before the protocol is paused.
const HIGH: usize = 64 * 1024;

pub(super) struct Flow {
    high: usize,
    low: usize,
    pub(super) is_paused: bool,
}

impl Default for Flow {
    fn default() -> Self {
        Self { high: HIGH, low: HIGH / 4, is_paused: false }
    }
}

impl Flow {
    /// As `(low, high)`.
    pub(super) fn limits(&self) -> (usize, usize) {
        (self.low, self.high)
    }

    /// What isn't given follows from what is.
    ///
    /// # Errors
    ///
    /// `ValueError` unless high >= low >= 0.
    pub(super) fn set_limits(&mut self, high: Option<i64>, low: Option<i64>) -> PyResult<()> {
        let high = high.unwrap_or_else(|| low.map_or(HIGH as i64, |low| low.saturating_mul(4)));
        let low = low.unwrap_or(high.div_euclid(4));
        if !(high >= low && low >= 0) {
            return Err(PyValueError::new_err(format!("high ({high}) must be >= low ({low}) must be >= 0")));
        }
        (self.high, self.low) = (high as usize, low as usize);
        Ok(())
    }
}

impl Transport {
    /// After the queue has grown.
    pub(super) fn pause_protocol_if_due(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        {
            let mut state = this.get().state(py);
            let size = state.queue.size();
            let flow = &mut state.flow;
            if flow.is_paused || size <= flow.high {
                return Ok(());
            }
            flow.is_paused = true;
        }
        control(this, intern!(py, "pause_writing"))
    }

    /// After it has shrunk.
    pub(super) fn resume_protocol_if_due(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        {
            let mut state = this.get().state(py);
            let size = state.queue.size();
            let flow = &mut state.flow;
            if !flow.is_paused || size > flow.low {
                return Ok(());
            }
            flow.is_paused = false;
        }
        control(this, intern!(py, "resume_writing"))
    }
}

fn control(this: &Bound<'_, Transport>, method: &Bound<'_, PyString>) -> PyResult<()> {
    let Err(failed) = Transport::call_protocol(this, method, None, &Arguments::None) else { return Ok(()) };
    let Some((owner, protocol)) = this.get().owner_and_protocol(this.py()) else { return Err(failed) };
    let extra = [("transport", this.as_any()), ("protocol", &protocol)];
    AsyncioLoop::exception(&owner, &format!("protocol.{method}() failed"), failed, &extra)
}
