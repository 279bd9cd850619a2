//! What `Poller.stats()` and `Poller.dump()` return.

use omnipoll::{Registered, Stats};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::event::names;
use crate::finalization::protect_thread;

/// What a poller holds, and what it has done since it was made. Taken piece by piece while
/// other threads continue: the numbers may be some moments apart.
#[pyclass(frozen, name = "Stats", module = "omnipoll")]
pub(crate) struct PyStats(pub(crate) Stats);

#[pymethods]
impl PyStats {
    /// Descriptors registered now.
    #[getter]
    fn registrations(&self) -> u64 {
        self.0.registrations
    }

    /// Timers armed now, wall-clock ones among them.
    #[getter]
    fn timers(&self) -> u64 {
        self.0.timers
    }

    /// Signals watched now.
    #[getter]
    fn signals(&self) -> u64 {
        self.0.signals
    }

    /// Children watched now.
    #[getter]
    fn children(&self) -> u64 {
        self.0.children
    }

    /// Posts that wait to be taken now.
    #[getter]
    fn posts(&self) -> u64 {
        self.0.posts
    }

    /// Waits begun; a signal that runs a handler of Python's begins another.
    #[getter]
    fn waits(&self) -> u64 {
        self.0.waits
    }

    /// System calls made by the waits.
    #[getter]
    fn system_calls(&self) -> u64 {
        self.0.system_calls
    }

    /// System calls of a wait that returned early and without an event.
    #[getter]
    fn spurious(&self) -> u64 {
        self.0.spurious
    }

    /// IO events returned.
    #[getter]
    fn io_events(&self) -> u64 {
        self.0.io_events
    }

    /// TIMER events returned.
    #[getter]
    fn timer_events(&self) -> u64 {
        self.0.timer_events
    }

    /// SIGNAL events returned.
    #[getter]
    fn signal_events(&self) -> u64 {
        self.0.signal_events
    }

    /// CHILD events returned.
    #[getter]
    fn child_events(&self) -> u64 {
        self.0.child_events
    }

    /// WAKE events returned.
    #[getter]
    fn wake_events(&self) -> u64 {
        self.0.wake_events
    }

    /// POST events returned.
    #[getter]
    fn post_events(&self) -> u64 {
        self.0.post_events
    }

    /// The longest time in seconds that a thread took from a wait that returned events to its
    /// next wait; None unless the poller is strict.
    #[getter]
    fn longest_dispatch(&self) -> Option<f64> {
        self.0.longest_dispatch.map(|longest| longest.as_secs_f64())
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// One registration, as it was when dump() was called. As a string it is one line.
#[pyclass(frozen, name = "Registered", module = "omnipoll")]
pub(crate) struct PyRegistered {
    /// The descriptor.
    #[pyo3(get)]
    fd: i32,
    /// Its token.
    #[pyo3(get)]
    token: Py<PyAny>,
    /// What the number stands for now: "socket:[1234]", a path; "closed" when it is not open.
    #[pyo3(get)]
    what: String,
    /// What was asked for: READ, WRITE, ... joined by |, with EDGE, ONESHOT or EXCLUSIVE.
    #[pyo3(get)]
    interest: u32,
    /// What the engine will report before it is rearmed or modified; 0 for a ONESHOT that has fired, and,
    /// on engines without NATIVE_EDGE, for an EDGE until rearm().
    #[pyo3(get)]
    armed: u32,
    /// For how many seconds it has been registered; None unless the poller is strict.
    #[pyo3(get)]
    age: Option<f64>,
    /// What was last reported, and how many seconds ago; None when nothing was, or the poller
    /// is not strict.
    #[pyo3(get)]
    last_event: Option<(u32, f64)>,
}

impl PyRegistered {
    pub(crate) fn new(registered: Registered, token: Py<PyAny>) -> Self {
        Self {
            fd: registered.fd,
            token,
            what: registered.what,
            interest: registered.interest.bits(),
            armed: registered.armed.map_or(0, |armed| armed.bits()),
            age: registered.age.map(|age| age.as_secs_f64()),
            last_event: registered.last_event.map(|(ready, ago)| (ready.bits(), ago.as_secs_f64())),
        }
    }
}

impl Drop for PyRegistered {
    fn drop(&mut self) {
        protect_thread();
    }
}

#[pymethods]
impl PyRegistered {
    fn __str__(&self, py: Python<'_>) -> PyResult<String> {
        protect_thread();
        let Self { fd, what, .. } = self;
        let mut line = format!("{fd} {what} token {} {}", self.token.bind(py).repr()?, names(self.interest));
        line += &match self.armed {
            0 => " disarmed".to_owned(),
            armed => format!(" armed {}", names(armed)),
        };
        if let Some(age) = self.age {
            line += &format!(" age {age:.3}s");
        }
        if let Some((ready, ago)) = self.last_event {
            line += &format!(" last {} {ago:.3}s ago", names(ready));
        }
        Ok(line)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<omnipoll.Registered {}>", self.__str__(py)?))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.token)
    }
}
