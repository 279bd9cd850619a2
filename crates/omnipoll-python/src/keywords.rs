//! [`Keywords`]: the options of servers and of loops. What was not given has the core's default.

use std::time::Duration;

use omnipoll::LoopOptions;
use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::convert;
use crate::finalization::protect_thread;

/// Keyword arguments, each of which is taken out.
pub(crate) struct Keywords<'a, 'py>(Option<&'a Bound<'py, PyDict>>);

impl<'a, 'py> Keywords<'a, 'py> {
    pub(crate) fn new(given: Option<&'a Bound<'py, PyDict>>) -> Self {
        protect_thread();
        Self(given)
    }

    /// `None` when it was not given.
    pub(crate) fn take<T: FromPyObjectOwned<'py>>(&self, name: &str) -> PyResult<Option<T>> {
        let Some(given) = self.0 else { return Ok(None) };
        let Some(value) = given.get_item(name)? else { return Ok(None) };
        given.del_item(name)?;
        let extracted: PyResult<T> = value.extract().map_err(Into::into);
        extracted.map(Some).map_err(|failed| naming(given.py(), name, failed))
    }

    /// Seconds, or None.
    pub(crate) fn take_span(&self, name: &str) -> PyResult<Option<Option<Duration>>> {
        let seconds: Option<Option<f64>> = self.take(name)?;
        seconds.map(|seconds| convert::optional_span(seconds, name)).transpose()
    }

    /// Gives one to an option's method, if it was given.
    pub(crate) fn set<O, T: FromPyObjectOwned<'py>>(
        &self,
        options: O,
        name: &str,
        set: impl FnOnce(O, T) -> O,
    ) -> PyResult<O> {
        Ok(match self.take(name)? {
            Some(value) => set(options, value),
            None => options,
        })
    }

    /// The same with one that may be None, which is the default.
    pub(crate) fn set_unless_none<O, T: FromPyObjectOwned<'py>>(
        &self,
        options: O,
        name: &str,
        set: impl FnOnce(O, T) -> O,
    ) -> PyResult<O> {
        Ok(match self.take::<Option<T>>(name)?.flatten() {
            Some(value) => set(options, value),
            None => options,
        })
    }

    /// The same with seconds, or None for no limit.
    pub(crate) fn set_span<O>(
        &self,
        options: O,
        name: &str,
        set: impl FnOnce(O, Option<Duration>) -> O,
    ) -> PyResult<O> {
        Ok(match self.take_span(name)? {
            Some(span) => set(options, span),
            None => options,
        })
    }

    /// The same with a str.
    pub(crate) fn set_text<O>(&self, options: O, name: &str, set: impl FnOnce(O, &str) -> O) -> PyResult<O> {
        self.set_unless_none(options, name, |options, text: String| set(options, &text))
    }

    /// What loops and the loops of servers have in common.
    pub(crate) fn loop_options(&self, py: Python<'py>, engine: Option<&str>) -> PyResult<LoopOptions> {
        let mut options = LoopOptions::new();
        if let Some(engine) = engine.filter(|engine| *engine != "auto") {
            options = options.engine(convert::engine(py, engine)?);
        }
        options = self.set_unless_none(options, "max_clients", LoopOptions::max_clients)?;
        options = self.set(options, "backlog", LoopOptions::backlog)?;
        options = self.set(options, "queue_limit", LoopOptions::queue_limit)?;
        options = self.set(options, "total_queue_limit", LoopOptions::total_queue_limit)?;
        let (low, high) = (self.take("low_water")?, self.take("high_water")?);
        options = options.water_marks(low.unwrap_or(16 << 10), high.unwrap_or(64 << 10));
        options = self.set_span(options, "idle_timeout", LoopOptions::idle_timeout)?;
        options = self.set_span(options, "read_timeout", LoopOptions::read_timeout)?;
        options = self.set_span(options, "write_timeout", LoopOptions::write_timeout)?;
        options = self.set_span(options, "proxy_header", LoopOptions::proxy_header)?;
        options = self.set_text(options, "allow", LoopOptions::allow)?;
        options = self.set_text(options, "deny", LoopOptions::deny)?;
        options = self.set_unless_none(options, "max_address_clients", LoopOptions::max_address_clients)?;
        options = self.set_unless_none(options, "max_address_rate", LoopOptions::max_address_rate)?;
        options = self.set_unless_none(options, "max_receive_rate", LoopOptions::max_receive_rate)?;
        if let Some(linger) = self.take("linger")? {
            options = options.linger(convert::span(linger, "linger")?);
        }
        if let Some(policy) = self.take::<Bound<'py, PyAny>>("wait_policy")? {
            options = options.wait_policy(convert::wait_policy(&policy)?);
        }
        Ok(options)
    }

    /// `TypeError` for what is left, from a function of `omnipoll.spelling`.
    pub(crate) fn finish(&self, check: &str) -> PyResult<()> {
        match self.0.filter(|left| !left.is_empty()) {
            Some(left) => left.py().import("omnipoll.spelling")?.call_method1(check, (left,)).map(drop),
            None => Ok(()),
        }
    }
}

fn naming(py: Python<'_>, name: &str, failed: PyErr) -> PyErr {
    match failed.is_instance_of::<PyTypeError>(py) {
        true => PyTypeError::new_err(format!("argument '{name}': {}", failed.value(py))),
        false => failed,
    }
}
