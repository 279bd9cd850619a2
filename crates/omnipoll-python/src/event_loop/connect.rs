//! The options of a connect, and what comes of one that fails.

use omnipoll::{ConnectOptions, FailedConnect};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use super::members::OUTGOING;
use super::shared::Shared;
use crate::convert;
use crate::methods::Failures;

impl Shared {
    /// It never opened, and its on_close says why.
    pub(super) fn connect_failed(&self, py: Python<'_>, failed: &FailedConnect) {
        let key = (failed.token() - OUTGOING) as usize;
        let connection = self.members.borrow(py).connection(py, key);
        let methods = self.members.borrow(py).methods(key);
        if let (Some(connection), Some(methods)) = (connection, methods) {
            if let Err(raised) = methods.never_opened(py, &connection, reason(failed)) {
                self.failed(py, raised, format_args!("on_close of what never opened"));
            }
        }
        self.remove(py, key);
    }
}

/// The options of a connect, as Python gives them.
pub(crate) fn connect_options(
    timeout: Option<f64>,
    local_address: Option<String>,
    no_delay: bool,
    keep_alive: Option<f64>,
) -> PyResult<ConnectOptions> {
    let options = ConnectOptions::new()
        .timeout(convert::optional_span(timeout, "timeout")?)
        .keep_alive(convert::optional_span(keep_alive, "keep_alive")?)
        .no_delay(no_delay);
    Ok(match local_address {
        Some(address) => options.local_address(address),
        None => options,
    })
}

/// In words, with the addresses that were tried.
pub(crate) fn reason(failed: &FailedConnect) -> PyErr {
    let error = failed.error();
    PyOSError::new_err((error.raw_os_error(), omnipoll::explain(&error).to_string()))
}
