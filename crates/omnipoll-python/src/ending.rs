//! [`Ending`]: an exception that is to come out of `run`.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;

use crate::finalization::attach;
use crate::gil_cell::GilCell;

/// A KeyboardInterrupt, SystemExit or the like that was raised in a callback, or by a signal's handler.
pub(crate) struct Ending {
    raised: GilCell<Option<PyErr>>,
    is_set: AtomicBool,
}

impl Ending {
    pub(crate) fn new(py: Python<'_>) -> Self {
        Self { raised: GilCell::new(py, None), is_set: false.into() }
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
            py.check_signals().map_err(|failed| {
                self.keep(py, failed);
                io::Error::from_raw_os_error(libc::EINTR)
            })
        })
    }
}
