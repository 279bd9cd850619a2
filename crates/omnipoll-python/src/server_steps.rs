//! A server that is run step by step.

use std::io;
use std::time::Duration;

use omnipoll::{Server, ServerHandle, StartedServer};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::convert::error;
use crate::forking;
use crate::handler::PyHandler;
use crate::thread_cell::ThreadCell;
use crate::worker::PyWorker;

/// A server that was started, in the thread that has started it.
pub(crate) struct Steps {
    started: ThreadCell<StartedServer<PyHandler>>,
    /// That of its loop, if there is one from the beginning.
    worker: Option<Py<PyWorker>>,
}

impl Steps {
    pub(crate) fn start(py: Python<'_>, server: &Server<PyHandler>) -> PyResult<Self> {
        forking::serve_here();
        let handler = server.handler();
        let started = detached(py, || server.start());
        let started = match (handler.ending.take(py), started) {
            (Some(ending), _) => return Err(ending),
            (None, started) => started.map_err(error)?,
        };
        let worker = PyWorker::current(py, handler.as_owner());
        Ok(Self { started: ThreadCell::new(py, Some(Box::new(started))), worker })
    }

    /// Does something with it in its own thread. What is to end the program ends the server, too.
    pub(crate) fn step<R>(
        &self,
        py: Python<'_>,
        (handler, handle): (&PyHandler, &ServerHandle),
        step: impl FnOnce(&mut StartedServer<PyHandler>) -> io::Result<R>,
    ) -> PyResult<R> {
        if !self.started.is_here() {
            return Err(PyOSError::new_err((
                libc::EPERM,
                "the steps of a server are those of the thread that has started it",
            )));
        }
        let Some(mut started) = self.started.take(py) else {
            return Err(PyRuntimeError::new_err("the server is in a step of its own: not in its calls"));
        };
        let done = detached(py, || step(&mut started));
        self.started.put_back(py, started);
        match handler.ending.take(py) {
            Some(ending) => {
                // It fails only when the server's own descriptors were closed elsewhere.
                let _ = handle.stop(Some(Duration::ZERO));
                Err(ending)
            }
            None => done.map_err(error),
        }
    }

    /// Resets its connections, without a call of the handler.
    pub(crate) fn discard(&self, py: Python<'_>, handler: &PyHandler) {
        handler.silence();
        let started = self.started.take(py);
        drop(started);
        // Another thread than its own has not found it.
        self.worker.as_ref().inspect(|worker| worker.get().close(py));
    }
}

pub(crate) fn not_started() -> PyErr {
    PyValueError::new_err("the server was not started: start() comes before run_once() and fileno()")
}

fn detached<R>(py: Python<'_>, run: impl FnOnce() -> R) -> R {
    let (mut run, mut done) = (Some(run), None);
    forking::detached(py, &mut || done = run.take().map(|run| run()));
    done.expect("it was run")
}
