//! `create_future`, which every wait begins with.

use std::ffi::CStr;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use super::loop_class::AsyncioLoop;
use crate::fastcall::{self, Entry, Given};

struct CreateFuture;

pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    fastcall::install_entry::<CreateFuture>(py)
}

impl Entry for CreateFuture {
    type Class = AsyncioLoop;
    const METHOD: &'static CStr = c"create_future";
    const DOCUMENTATION: &'static CStr =
        c"create_future($self)\n--\n\nReturns an asyncio.Future of this loop.";

    #[inline]
    fn call<'py>(this: &Bound<'py, AsyncioLoop>, given: Given<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        fastcall::sort(&given, &[], Self::METHOD)?;
        let py = this.py();
        let named = PyDict::new(py);
        named.set_item(intern!(py, "loop"), this)?;
        CLASS.import(py, "asyncio", "Future")?.call((), Some(&named))
    }
}
