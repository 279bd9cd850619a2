//! What a [`PollerCore`] waits for besides descriptors.

use std::io;
use std::time::{Duration, SystemTime};

use omnipoll::Poller;
use pyo3::prelude::*;

use super::PollerCore;
use crate::convert::error;
use crate::sources::{Clock, Sources};
use crate::table::DeferredDrop;

/// Timers. Python knows one by its token, which is its object, too, unless there is another.
impl PollerCore {
    pub(crate) fn timer_add(
        &self,
        py: Python<'_>,
        delay: Duration,
        period: Option<Duration>,
        object: Option<Py<PyAny>>,
    ) -> PyResult<u64> {
        self.arm(py, Clock::of(delay, period), object, |core, token| core.timer_add(delay, period, token))
    }

    pub(crate) fn timer_add_at(
        &self,
        py: Python<'_>,
        time: SystemTime,
        object: Option<Py<PyAny>>,
    ) -> PyResult<u64> {
        self.arm(py, Clock::Wall, object, |core, token| core.timer_add_at(time, token))
    }

    fn arm(
        &self,
        py: Python<'_>,
        clock: Clock,
        object: Option<Py<PyAny>>,
        arm: impl FnOnce(&Poller, u64) -> io::Result<u64>,
    ) -> PyResult<u64> {
        let token = self.state.borrow(py).sources.new_token();
        let object = match object {
            Some(object) => object,
            None => token.into_pyobject(py)?.into_any().unbind(),
        };
        let mut state = self.change(py);
        let id = arm(state.core()?, token).map_err(error)?;
        state.sources.add_timer(token, id, clock, object);
        Ok(token)
    }

    pub(crate) fn timer_set(
        &self,
        py: Python<'_>,
        id: u64,
        delay: Duration,
        period: Option<Duration>,
    ) -> PyResult<()> {
        let mut state = self.change(py);
        let core = state.core()?.clone();
        let clock = Clock::of(delay, period);
        core.timer_set(state.sources.timer_id(id), delay, period).map_err(error)?;
        state.sources.set_timer(id, clock);
        Ok(())
    }

    pub(crate) fn timer_cancel(&self, py: Python<'_>, id: u64) -> PyResult<()> {
        let mut state = self.change(py);
        let core = state.core()?.clone();
        let cancelled = core.timer_cancel(state.sources.timer_id(id));
        // One that has expired ends, too.
        let ended = match &cancelled {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(libc::ESTALE),
        };
        let dropped = if ended { state.sources.end_timer(id) } else { DeferredDrop::default() };
        drop(state);
        dropped.release(py);
        cancelled.map_err(error)
    }
}

impl PollerCore {
    pub(crate) fn signal_add(&self, py: Python<'_>, signo: i32, object: Py<PyAny>) -> PyResult<()> {
        let keep = |sources: &mut Sources, token, object| sources.add_signal(token, signo, object);
        self.begin(py, object, |core, token| core.signal_add(signo, token), keep)
    }

    pub(crate) fn signal_remove(&self, py: Python<'_>, signo: i32) -> PyResult<()> {
        let mut state = self.change(py);
        state.core()?.signal_remove(signo).map_err(error)?;
        let dropped = state.sources.remove_signal(signo);
        drop(state);
        dropped.release(py);
        Ok(())
    }

    pub(crate) fn child_add(&self, py: Python<'_>, pid: i32, object: Py<PyAny>) -> PyResult<()> {
        let keep = |sources: &mut Sources, token, object| sources.add_child(token, pid, object);
        self.begin(py, object, |core, token| core.child_add(pid, token), keep)
    }

    pub(crate) fn child_remove(&self, py: Python<'_>, pid: i32) -> PyResult<()> {
        let mut state = self.change(py);
        state.core()?.child_remove(pid).map_err(error)?;
        let dropped = state.sources.remove_child(pid);
        drop(state);
        dropped.release(py);
        Ok(())
    }

    pub(crate) fn post(&self, py: Python<'_>, object: Py<PyAny>, value: i64) -> PyResult<()> {
        self.begin(py, object, |core, token| core.post(token, value), Sources::add_post)
    }

    /// Begins a source, and keeps its object. A thread that gets its event at once can't look
    /// for the object before this thread has released the state.
    fn begin(
        &self,
        py: Python<'_>,
        object: Py<PyAny>,
        begin: impl FnOnce(&Poller, u64) -> io::Result<()>,
        keep: impl FnOnce(&mut Sources, u64, Py<PyAny>),
    ) -> PyResult<()> {
        let mut state = self.change(py);
        let token = state.sources.new_token();
        begin(state.core()?, token).map_err(error)?;
        keep(&mut state.sources, token, object);
        Ok(())
    }
}
