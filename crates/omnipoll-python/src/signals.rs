//! Python's own handlers of signals, which run between two system calls of a wait.

use std::cell::RefCell;
use std::io;

use pyo3::prelude::*;

use crate::finalization::attach;

thread_local! {
    /// What a handler has raised in a wait that has not ended yet.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// Before a wait sleeps that held signals back: another thread may have taken one.
pub(crate) fn observe() {
    omnipoll::before_sleep(|| {
        attach(|py| {
            py.check_signals().map_err(|failed| {
                RAISED.set(Some(failed));
                io::Error::from_raw_os_error(libc::EINTR)
            })
        })
    });
}

/// A wait was interrupted: the handlers run, unless one has ended it already.
pub(crate) fn check(py: Python<'_>) -> PyResult<()> {
    match RAISED.take() {
        Some(failed) => Err(failed),
        None => py.check_signals(),
    }
}
