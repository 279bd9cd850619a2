//! `drain`: waits until a writer's transport has sent most of what was written.

use pyo3::exceptions::PyStopIteration;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::reader::{Attributes, Reader};
use super::step::{Sent, Step};
use super::{is_exactly, CLASSES};
use crate::aio::vectorcall::call_method;

enum Stage {
    Start,
    /// Until the loop's next turn, in which `connection_lost()` may be called.
    Turn,
    /// In the protocol's own `_drain_helper()`.
    Protocol(Py<PyAny>),
}

pub(super) struct Drain {
    writer: Py<PyAny>,
    stage: Stage,
}

impl Drain {
    pub(super) fn new(writer: &Bound<'_, PyAny>) -> Self {
        Self { writer: writer.clone().unbind(), stage: Stage::Start }
    }

    pub(super) fn awaited<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        match &self.stage {
            Stage::Protocol(coroutine) => Some(coroutine.bind(py).clone()),
            Stage::Start | Stage::Turn => None,
        }
    }

    #[inline]
    pub(super) fn resume<'py>(&mut self, py: Python<'py>, sent: Sent) -> PyResult<Step<'py>> {
        match (&self.stage, sent) {
            (Stage::Protocol(coroutine), Sent::Exception(exception)) => {
                let exception = exception.into_value(py);
                step(py, coroutine.bind(py).call_method1(intern!(py, "throw"), (exception,)))
            }
            (_, Sent::Exception(exception)) => Err(exception),
            (Stage::Protocol(coroutine), _) => advance(coroutine.bind(py)),
            (Stage::Start, _) if self.must_yield(py)? => {
                self.stage = Stage::Turn;
                Ok(Step::Yield(py.None().into_bound(py)))
            }
            (Stage::Start | Stage::Turn, _) => self.ask_protocol(py),
        }
    }

    #[inline]
    fn must_yield(&self, py: Python<'_>) -> PyResult<bool> {
        let writer = Attributes::new(self.writer.bind(py))?;
        let reader = writer.get(intern!(py, "_reader"))?;
        if CLASSES.get(py).is_some_and(|classes| is_exactly(&reader, &classes.reader)) {
            Reader::new(&reader)?.check_exception()?;
        } else if !reader.is_none() {
            let exception = reader.call_method0(intern!(py, "exception"))?;
            if !exception.is_none() {
                return Err(PyErr::from_value(exception));
            }
        }
        let transport = writer.get(intern!(py, "_transport"))?;
        call_method(intern!(py, "is_closing"), [&transport])?.is_truthy()
    }

    #[inline]
    fn ask_protocol<'py>(&mut self, py: Python<'py>) -> PyResult<Step<'py>> {
        let protocol = Attributes::new(self.writer.bind(py))?.get(intern!(py, "_protocol"))?;
        let is_known = CLASSES.get(py).is_some_and(|classes| is_exactly(&protocol, &classes.protocol));
        if is_known
            && !protocol.getattr(intern!(py, "_connection_lost"))?.is_truthy()?
            && !protocol.getattr(intern!(py, "_paused"))?.is_truthy()?
        {
            return Ok(Step::Return(py.None().into_bound(py)));
        }
        let awaitable = protocol.call_method0(intern!(py, "_drain_helper"))?;
        let coroutine = awaitable.call_method0(intern!(py, "__await__"))?;
        self.stage = Stage::Protocol(coroutine.clone().unbind());
        advance(&coroutine)
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.writer)?;
        match &self.stage {
            Stage::Protocol(coroutine) => visit.call(coroutine),
            Stage::Start | Stage::Turn => Ok(()),
        }
    }
}

fn advance<'py>(coroutine: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
    let py = coroutine.py();
    step(py, coroutine.call_method1(intern!(py, "send"), (py.None(),)))
}

/// A coroutine returns by an exception.
fn step<'py>(py: Python<'py>, sent: PyResult<Bound<'py, PyAny>>) -> PyResult<Step<'py>> {
    match sent {
        Ok(yielded) => Ok(Step::Yield(yielded)),
        Err(failed) if failed.is_instance_of::<PyStopIteration>(py) => {
            failed.value(py).getattr(intern!(py, "value")).map(Step::Return)
        }
        Err(failed) => Err(failed),
    }
}
