//! What callbacks and transports raise, and who hears of it.

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::loop_class::AsyncioLoop;

/// Whether it leaves the loop, and is reported to nobody.
pub(crate) fn is_exit(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py)
}

impl AsyncioLoop {
    /// Reports an exception to the loop's exception handler, with `message` and what else is given.
    /// `KeyboardInterrupt` and `SystemExit` are returned, the handler's too.
    pub(crate) fn exception(
        this: &Bound<'_, Self>,
        message: &str,
        error: PyErr,
        extra: &[(&str, &Bound<'_, PyAny>)],
    ) -> PyResult<()> {
        let py = this.py();
        if is_exit(py, &error) {
            return Err(error);
        }
        let context = PyDict::new(py);
        context.set_item(intern!(py, "message"), message)?;
        context.set_item(intern!(py, "exception"), error.into_value(py))?;
        for (name, value) in extra {
            context.set_item(name, value)?;
        }
        this.call_method1(intern!(py, "call_exception_handler"), (context,)).map(drop)
    }
}
