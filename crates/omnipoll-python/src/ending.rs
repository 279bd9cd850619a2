//! [`Ending`]: an exception that is to come out of `run`.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;

use crate::finalization::attach;
use crate::gil_cell::GilCell;
use crate::signals;

/// A KeyboardInterrupt, SystemExit or the like that was raised in a callback, or by a signal's handler.
pub(crate) struct Ending {
    raised: GilCell<Option<PyErr>>,
    is_set: AtomicBool,
    has_interrupted: AtomicBool,
}

impl Ending {
    pub(crate) fn new(py: Python<'_>) -> Self {
        Self { raised: GilCell::new(py, None), is_set: false.into(), has_interrupted: false.into() }
    }

    /// Keeps what is to come out; the first counts.
    pub(crate) fn keep(&self, py: Python<'_>, failed: PyErr) {
        self.is_set.store(true, Ordering::Relaxed);
        let mut raised = self.raised.borrow(py);
        let second = match *raised {
            None => raised.replace(failed),
            Some(_) => Some(failed),
        };
        drop(raised);
        drop(second);
    }

    /// What is to come out, if anything.
    pub(crate) fn take(&self, py: Python<'_>) -> Option<PyErr> {
        self.is_set.store(false, Ordering::Relaxed);
        self.raised.borrow(py).take()
    }

    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    /// A signal has interrupted a wait: Python's own handlers run. `EINTR` when one has raised something.
    pub(crate) fn check_signals(&self) -> io::Result<()> {
        attach(|py| {
            signals::check(py).map_err(|failed| {
                self.keep(py, failed);
                self.has_interrupted.store(true, Ordering::Relaxed);
                io::Error::from_raw_os_error(libc::EINTR)
            })
        })
    }

    /// Whether an error is the one by which a signal's handler ended a server: what it raised has come out.
    pub(crate) fn is_of_interrupt(&self, error: &io::Error) -> bool {
        self.has_interrupted.load(Ordering::Relaxed) && error.raw_os_error() == Some(libc::EINTR)
    }
}
