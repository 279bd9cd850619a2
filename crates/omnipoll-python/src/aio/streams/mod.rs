//! `StreamReader` and `StreamWriter`: what an exchange of messages calls, natively.
//!
//! The objects are the standard library's own, with all of their attributes: a connection's reader and
//! writer get a subclass, `omnipoll.aio.streams`, whose methods here do what the standard library's code
//! does. What is rare, arguments that are no plain numbers or bytes among it, is left to that code.

mod coroutine;
mod feed;
mod methods;
mod reader;
mod reading;
mod step;
mod writing;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

pub(crate) use self::feed::{is_fed, Put, Target};

/// The classes, once Python has made them.
struct Classes {
    reader: Py<PyType>,
    protocol: Py<PyType>,
}

static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();

/// Gives Python's classes their native methods.
#[pyfunction]
pub(crate) fn _install_streams(
    reader: &Bound<'_, PyType>,
    writer: &Bound<'_, PyType>,
    protocol: &Bound<'_, PyType>,
) -> PyResult<()> {
    methods::install(reader, writer)?;
    let classes = Classes { reader: reader.clone().unbind(), protocol: protocol.clone().unbind() };
    let _ = CLASSES.set(reader.py(), classes);
    Ok(())
}

/// Whether it is an object of just that class.
#[inline]
fn is_exactly(object: &Bound<'_, PyAny>, class: &Py<PyType>) -> bool {
    object.get_type_ptr() == class.as_ptr().cast()
}
