//! `run_forever`: what is so while the loop runs, and how it was before.
//!
//! An interrupt is raised where the interpreter is between two instructions of Python's. From the first
//! change to the last there are none but those of what the loop calls: everything here is a call of C's.

use std::os::fd::RawFd;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::loop_class::AsyncioLoop;
use super::turn;

/// What set_wakeup_fd() takes and returns for none.
const NONE: RawFd = -1;

/// What is put back.
struct Before<'py> {
    /// Of `sys.get_asyncgen_hooks()`.
    hooks: Bound<'py, PyTuple>,
    /// Python writes signals to the loop's socket.
    takes_signals: bool,
}

pub(super) fn run_forever(this: &Bound<'_, AsyncioLoop>) -> PyResult<()> {
    let py = this.py();
    this.get().check_open()?;
    this.call_method0(intern!(py, "_check_running"))?;
    let is_main = is_main_thread(py)?;
    let sys = py.import(intern!(py, "sys"))?;
    let hooks = sys.call_method0(intern!(py, "get_asyncgen_hooks"))?.cast_into()?;
    let mut before = Before { hooks, takes_signals: false };
    let done = begin(this, &mut before, is_main).and_then(|()| turn::run(this));
    let ended = end(this, &before);
    done.and(ended)
}

fn begin(this: &Bound<'_, AsyncioLoop>, before: &mut Before<'_>, is_main: bool) -> PyResult<()> {
    let py = this.py();
    track_origins(this, this.get().is_debug())?;
    let thread = py.import(intern!(py, "_thread"))?.call_method0(intern!(py, "get_ident"))?;
    this.get().set_thread(Some(thread.extract()?));
    let first = this.getattr(intern!(py, "_asyncgen_firstiter_hook"))?;
    let last = this.getattr(intern!(py, "_asyncgen_finalizer_hook"))?;
    set_hooks(py, &first, &last)?;
    set_running_loop(py, this.as_any())?;
    if is_main {
        before.takes_signals = take_signals(this)?;
    }
    Ok(())
}

/// All of it, whatever fails.
fn end(this: &Bound<'_, AsyncioLoop>, before: &Before<'_>) -> PyResult<()> {
    let py = this.py();
    this.get().set_stopping(false);
    this.get().set_thread(None);
    let running = set_running_loop(py, py.None().bind(py));
    let tracking = track_origins(this, false);
    let hooks = before.hooks.get_item(0).and_then(|first| set_hooks(py, &first, &before.hooks.get_item(1)?));
    let signals = if before.takes_signals { give_signals_back(this) } else { Ok(()) };
    running.and(tracking).and(hooks).and(signals)
}

fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import(intern!(py, "threading"))?;
    let main = threading.call_method0(intern!(py, "main_thread"))?.getattr(intern!(py, "ident"))?;
    main.eq(threading.call_method0(intern!(py, "get_ident"))?)
}

fn set_running_loop(py: Python<'_>, running: &Bound<'_, PyAny>) -> PyResult<()> {
    let asyncio = py.import(intern!(py, "asyncio"))?;
    asyncio.call_method1(intern!(py, "_set_running_loop"), (running,)).map(drop)
}

fn set_hooks(py: Python<'_>, first: &Bound<'_, PyAny>, last: &Bound<'_, PyAny>) -> PyResult<()> {
    let sys = py.import(intern!(py, "sys"))?;
    sys.call_method1(intern!(py, "set_asyncgen_hooks"), (first, last)).map(drop)
}

/// What `_set_coroutine_origin_tracking()` does, with its attributes.
fn track_origins(this: &Bound<'_, AsyncioLoop>, is_on: bool) -> PyResult<()> {
    let py = this.py();
    let enabled = intern!(py, "_coroutine_origin_tracking_enabled");
    if this.getattr(enabled)?.is_truthy()? == is_on {
        return Ok(());
    }
    let sys = py.import(intern!(py, "sys"))?;
    let saved = intern!(py, "_coroutine_origin_tracking_saved_depth");
    let depth = match is_on {
        true => {
            let before = sys.call_method0(intern!(py, "get_coroutine_origin_tracking_depth"))?;
            this.setattr(saved, before)?;
            py.import(intern!(py, "asyncio.constants"))?.getattr(intern!(py, "DEBUG_STACK_DEPTH"))?
        }
        false => this.getattr(saved)?,
    };
    sys.call_method1(intern!(py, "set_coroutine_origin_tracking_depth"), (depth,))?;
    this.setattr(enabled, is_on)
}

/// Has Python write signals to the loop's socket, so that they end the wait: one that comes just before it, or
/// to another thread, would not. Unless it writes them elsewhere already; whether it does so now.
fn take_signals(this: &Bound<'_, AsyncioLoop>) -> PyResult<bool> {
    let py = this.py();
    let before = set_wakeup_fd(py, signal_socket(this)?)?;
    if before == NONE {
        return Ok(true);
    }
    set_wakeup_fd(py, before).map(|_| false)
}

/// Unless there are signal handlers, for which it stays so.
fn give_signals_back(this: &Bound<'_, AsyncioLoop>) -> PyResult<()> {
    let py = this.py();
    if this.getattr(intern!(py, "_signal_handlers"))?.is_truthy()? {
        return Ok(());
    }
    let current = set_wakeup_fd(py, NONE)?;
    if current != signal_socket(this)? {
        set_wakeup_fd(py, current)?;
    }
    Ok(())
}

fn signal_socket(this: &Bound<'_, AsyncioLoop>) -> PyResult<RawFd> {
    let py = this.py();
    this.getattr(intern!(py, "_csock"))?.call_method0(intern!(py, "fileno"))?.extract()
}

fn set_wakeup_fd(py: Python<'_>, fd: RawFd) -> PyResult<RawFd> {
    let options = PyDict::new(py);
    options.set_item(intern!(py, "warn_on_full_buffer"), false)?;
    let signal = py.import(intern!(py, "_signal"))?;
    signal.call_method(intern!(py, "set_wakeup_fd"), (fd,), Some(&options))?.extract()
}
