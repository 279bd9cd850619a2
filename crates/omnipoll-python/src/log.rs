//! Exceptions of handlers, into Python's `logging`.

use std::fmt::Arguments;

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Logs an exception with its traceback, as an error of the logger "omnipoll".
#[cold]
pub(crate) fn exception(py: Python<'_>, failed: PyErr, what: Arguments<'_>) {
    let logged = (|| {
        let logger = py.import("logging")?.call_method1("getLogger", ("omnipoll",))?;
        let options = PyDict::new(py);
        options.set_item("exc_info", (failed.get_type(py), failed.value(py), failed.traceback(py)))?;
        logger.call_method("error", ("exception in %s", what.to_string()), Some(&options))
    })();
    if let Err(error) = logged {
        error.write_unraisable(py, None);
    }
}

/// Logs a mistake of the program's, as a warning of the same logger.
#[cold]
pub(crate) fn warning(py: Python<'_>, words: &str) {
    let logged = py
        .import("logging")
        .and_then(|logging| logging.call_method1("getLogger", ("omnipoll",)))
        .and_then(|logger| logger.call_method1("warning", (words,)));
    if let Err(error) = logged {
        error.write_unraisable(py, None);
    }
}
