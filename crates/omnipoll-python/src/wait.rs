//! One wait: the core's events in, a list of Python objects out.

use std::cell::RefMut;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use omnipoll::{EngineKind, Event, EventKind, Events, Poller, Ready};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::convert::error;
use crate::list_builder::ListBuilder;
use crate::poller_core::PollerCore;
use crate::signals;
use crate::state::State;

/// How much room a wait has for what is no descriptor's. A million armed timers need not fit.
const ROOM: usize = 1000;

/// Makes a report of an event and of its object, which a WAKE event has not.
/// `None` when there is nothing to report.
pub(crate) type Make =
    for<'py> fn(Python<'py>, Option<Bound<'py, PyAny>>, &Event) -> PyResult<Option<Bound<'py, PyAny>>>;

impl PollerCore {
    /// Waits until there is something to report, time is up or the poller is closed. `most` is
    /// the most events to return; 0 is `EINVAL`. `None` when the poller is closed, unless the wait has
    /// an exception of its own to raise, of a signal handler that has closed it, say.
    pub(crate) fn wait<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<Duration>,
        most: Option<usize>,
        make: Make,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        self.check_is_own()?;
        let Some((core, mut events)) = self.enter(py, most) else { return Ok(None) };
        let end = timeout.filter(|timeout| !timeout.is_zero()).map(|timeout| Instant::now() + timeout);
        let mut left = timeout;
        let list = loop {
            let waited = self.block(py, &core, &mut events, left);
            let list = waited.and_then(|()| self.collect(py, &events, make));
            // Nothing in time: a signal came, or all of it is of registrations that have ended.
            let again = list.as_ref().is_ok_and(ListBuilder::is_empty) && !self.is_closed(py);
            if !again {
                break list;
            }
            left = end.map(|end| end.saturating_duration_since(Instant::now())).or(left);
            if left == Some(Duration::ZERO) {
                break list;
            }
        };
        let stays_open = leave(self.state.borrow(py), &core, events);
        let list = list?;
        stays_open.then(|| list.finish()).transpose()
    }

    /// What a wait needs, taken out of the state so that another thread may wait, too. `None` when
    /// the poller is closed.
    fn enter(&self, py: Python<'_>, most: Option<usize>) -> Option<(Arc<Poller>, Events)> {
        let mut state = self.state.borrow(py);
        state.drop_inherited_waits();
        let core = state.core.clone()?;
        // One more than is registered: a WAKE event may come with them.
        let wanted = state.table.len() + state.sources.len().min(ROOM) + 1;
        let mut events = mem::replace(&mut state.events, Events::with_capacity(0));
        state.waits.begin();
        drop(state);
        let capacity = match most {
            Some(most) => most.min(wanted),
            None if events.capacity() < wanted => wanted.next_power_of_two(),
            None => events.capacity(),
        };
        if capacity != events.capacity() {
            events = Events::with_capacity(capacity);
        }
        Some((core, events))
    }

    /// Waits with the interpreter released. Runs Python's signal handlers when a signal came
    /// (PEP 475), and has no events then.
    fn block(
        &self,
        py: Python<'_>,
        core: &Poller,
        events: &mut Events,
        left: Option<Duration>,
    ) -> PyResult<()> {
        // A look at an epoll takes less time than releasing the interpreter and taking it back.
        let waited = match left == Some(Duration::ZERO) && self.engine == EngineKind::Epoll {
            true => core.wait(events, left),
            false => py.detach(|| core.wait(events, left)),
        };
        match waited {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => signals::check(py),
            waited => waited.map(drop).map_err(error),
        }
    }

    /// Makes the reports; the last one of a registration serves again while its readiness is
    /// the same.
    fn collect<'py>(&self, py: Python<'py>, events: &Events, make: Make) -> PyResult<ListBuilder<'py>> {
        let mut list = ListBuilder::new(py, events.len())?;
        let mut state = self.state.borrow(py);
        for event in events {
            if let Some(report) = state.table.report(event.token(), event.ready().bits()) {
                list.push(report.clone_ref(py));
                continue;
            }
            drop(state);
            if let Some(report) = self.report(py, event, make)? {
                list.push(report);
            }
            state = self.state.borrow(py);
        }
        Ok(list)
    }

    /// Makes a report and keeps it. None of a registration that has ended meanwhile.
    pub(crate) fn report(&self, py: Python<'_>, event: &Event, make: Make) -> PyResult<Option<Py<PyAny>>> {
        match event.kind() {
            EventKind::Io => {}
            EventKind::Wake => return Ok(make(py, None, event)?.map(Bound::unbind)),
            _ => return self.report_source(py, event, make),
        }
        let (token, ready) = (event.token(), event.ready());
        let object = self.state.borrow(py).table.object(token).map(|object| object.clone_ref(py));
        let Some(object) = object else { return Ok(None) };
        let Some(report) = make(py, Some(object.into_bound(py)), event)? else { return Ok(None) };
        let mut state = self.state.borrow(py);
        let dropped = match ready.contains(Ready::INVALID) {
            true => state.table.end(event.value() as i32, token),
            false => state.table.remember(token, ready.bits(), report.clone().unbind()),
        };
        drop(state);
        dropped.release(py);
        Ok(Some(report.unbind()))
    }

    /// The report of a timer, a signal, a child or a post, which ends most of them.
    fn report_source(&self, py: Python<'_>, event: &Event, make: Make) -> PyResult<Option<Py<PyAny>>> {
        let object = self.state.borrow(py).sources.object(event).map(|object| object.clone_ref(py));
        let Some(object) = object else { return Ok(None) };
        let dropped = self.state.borrow(py).sources.delivered(event);
        dropped.release(py);
        Ok(make(py, Some(object.into_bound(py)), event)?.map(Bound::unbind))
    }
}

/// Ends a wait; whether the poller is still open.
fn leave(mut state: RefMut<'_, State>, core: &Poller, events: Events) -> bool {
    state.waits.end();
    if state.core.is_some() {
        state.events = events;
        return true;
    }
    if !state.waits.is_empty() {
        // One wake ends one wait: hand it on. It fails in a forked child only.
        let _ = core.wake();
    }
    false
}
