//! How a loop is run and waited for.

use std::io;
use std::time::{Duration, Instant};

use omnipoll::EventLoop;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::handler::{LoopHandler, Mode};
use super::loop_core::{closed, LoopCore};
use super::shared::Shared;
use crate::convert::{self, error, Timeout};
use crate::finalization::protect_thread;
use crate::forking;

impl LoopCore {
    pub(super) fn run_by_handler(
        &self,
        py: Python<'_>,
        run: impl FnOnce(&mut EventLoop<LoopHandler>, &Shared) -> io::Result<bool>,
    ) -> PyResult<bool> {
        self.check_thread()?;
        if self.is_closed(py) {
            return Err(closed());
        }
        self.shared.check_handlers(py)?;
        let mut result = false;
        let run = |event_loop: &mut EventLoop<LoopHandler>, shared: &Shared| {
            result = run(event_loop, shared)?;
            Ok(())
        };
        self.drive(py, Mode::Calls, run, |_| Ok(()))?;
        Ok(result)
    }

    /// Does something with the core's loop, detached, and then something with what has come of it.
    pub(super) fn drive<R>(
        &self,
        py: Python<'_>,
        mode: Mode,
        run: impl FnOnce(&mut EventLoop<LoopHandler>, &Shared) -> io::Result<()>,
        finish: impl FnOnce(&LoopHandler) -> PyResult<R>,
    ) -> PyResult<R> {
        let mut event_loop = self.take(py)?;
        if let Err(failed) = event_loop.handler().prepare(py, mode) {
            self.put_back(py, event_loop);
            return Err(failed);
        }
        let mut run = Some(run);
        let mut done = Ok(());
        forking::detached(py, &mut || {
            if let Some(run) = run.take() {
                done = run(&mut event_loop, &self.shared);
            }
        });
        let result = match (self.shared.ending.take(py), done) {
            (Some(ending), _) => Err(ending),
            (None, Err(failed)) => Err(error(failed)),
            (None, Ok(())) => finish(event_loop.handler()),
        };
        self.put_back(py, event_loop);
        result
    }
}

/// Waits until something is kept that was not returned.
pub(super) fn pull(
    event_loop: &mut EventLoop<LoopHandler>,
    shared: &Shared,
    timeout: Option<Duration>,
) -> io::Result<()> {
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut limit = timeout;
    while event_loop.handler().pulled().is_empty() {
        event_loop.handler().pulled().forget();
        if !event_loop.run_once(limit)? || shared.ending.is_set() {
            break;
        }
        limit = until.map(|until| until.saturating_duration_since(Instant::now()));
        if limit == Some(Duration::ZERO) {
            break;
        }
    }
    Ok(())
}

pub(crate) fn timeout_of(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Duration>> {
    protect_thread();
    match convert::timeout(timeout.map(|timeout| timeout.as_borrowed()))? {
        Timeout::Negative => {
            Err(PyValueError::new_err("timeout must not be negative: None waits indefinitely"))
        }
        timeout => Ok(timeout.duration()),
    }
}
