//! Writing: what the application writes is encrypted and sent at once.

use std::ffi::CStr;

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PySlice};

use super::class::{Phase, Tls};
use super::ends::Done;
use crate::aio::arguments::Arguments;
use crate::fastcall::{self, Argument, Method};

struct Write;

pub(super) fn install(py: Python<'_>) -> PyResult<()> {
    fastcall::install::<Write, 1>(py)
}

impl Method<1> for Write {
    type Class = Tls;
    const METHOD: &'static CStr = c"_write";
    const DOCUMENTATION: &'static CStr = c"_write($self, data)\n--\n\n\
        Encrypts data and sends it: the write() of the application's transport.";
    const ARGUMENTS: [&'static str; 1] = ["data"];

    #[inline]
    fn call<'py>(this: &Bound<'py, Tls>, [data]: [Argument<'_, 'py>; 1]) -> PyResult<Bound<'py, PyAny>> {
        let none = this.py().None().into_bound(this.py());
        write(this, data.as_deref().unwrap_or(&none))?;
        Ok(none)
    }
}

#[inline]
fn write(this: &Bound<'_, Tls>, data: &Bound<'_, PyAny>) -> PyResult<()> {
    let is_data = data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>();
    if !is_data {
        let name = data.get_type().name()?;
        return Err(PyTypeError::new_err(format!("data: expecting a bytes-like instance, got {name}")));
    }
    let length = data.len()?;
    if length == 0 {
        return Ok(());
    }
    let py = this.py();
    let state = this.get().state(py);
    let is_direct = state.phase == Phase::Wrapped && state.unencrypted == 0;
    drop(state);
    if !is_direct {
        return write_later(this, data);
    }
    let (_, ends) = this.get().opened()?;
    match ends.write(data) {
        Ok(Done::Bytes(count)) if count >= length => {
            Tls::send(this).or_else(|failed| Tls::fail(this, failed))
        }
        Ok(Done::Bytes(count)) => {
            let rest = PySlice::new(py, count as isize, length as isize, 1);
            write_later(this, &data.get_item(rest)?)
        }
        Ok(Done::Again) => write_later(this, data),
        Err(failed) => Tls::fail(this, failed),
    }
}

/// `_write_appdata`, which queues it if it has to.
fn write_later(this: &Bound<'_, Tls>, data: &Bound<'_, PyAny>) -> PyResult<()> {
    this.call_method1(intern!(this.py(), "_write_appdata"), ((data,),)).map(drop)
}

impl Tls {
    /// `_process_outgoing`.
    #[inline]
    pub(super) fn send(this: &Bound<'_, Self>) -> PyResult<()> {
        let (py, tls) = (this.py(), this.get());
        if !tls.state(py).is_sending_paused {
            let data = tls.opened()?.1.take(py)?;
            if !data.as_bytes().is_empty() {
                send(this, data)?;
            }
        }
        let state = tls.state(py);
        let is_due = state.is_sending_paused
            || state.is_protocol_paused
            || state.is_writing_limited
            || state.unencrypted != 0;
        drop(state);
        match is_due {
            true => Self::call(this, intern!(py, "_control_app_writing")),
            false => Ok(()),
        }
    }
}

#[inline]
fn send(this: &Bound<'_, Tls>, data: Bound<'_, PyBytes>) -> PyResult<()> {
    let py = this.py();
    let method = this.get().state(py).send.as_ref().map(|method| method.clone_ref(py));
    let Some(method) = method else {
        // What the standard library raises when there is no transport any more.
        let transport = this.getattr(intern!(py, "_transport"))?;
        return transport.call_method1(intern!(py, "write"), (data,)).map(drop);
    };
    let arguments = Arguments::One([data.into_any().unbind()]);
    let sent = arguments.call(py, &method).map(drop);
    arguments.release(py);
    method.drop_ref(py);
    sent
}
