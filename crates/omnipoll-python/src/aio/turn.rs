//! One turn of the loop: what is ready is polled for, then what is due and what waits is called.
//!
//! The standard library polls in every turn, three times for one `create_task` and `sleep(0)`. Here the
//! system is not asked while there is something to call, for so many callbacks or so long.

use std::mem;
use std::time::Duration;

use omnipoll::{Event, EventKind, Events, Ready};
use pyo3::intern;
use pyo3::prelude::*;

use super::handle::{Handle, TimerHandle};
use super::loop_class::AsyncioLoop;
use super::watched::Key;
use crate::convert::error;
use crate::finalization::protect_thread;

/// How many callbacks are called, and how long, before the next poll.
const CALLS: usize = 64;
const SECONDS: f64 = 200e-6;

/// The longest wait, as in the standard library.
const DAY: f64 = 24.0 * 3600.0;

/// The resolution of the clock: what is due within it is due.
const RESOLUTION: f64 = 1e-9;

/// Turns until `stop()` is called. The first one polls.
pub(crate) fn run(this: &Bound<'_, AsyncioLoop>) -> PyResult<()> {
    protect_thread();
    this.get().turn.borrow(this.py()).calls = CALLS;
    loop {
        once(this)?;
        if this.get().is_stopping() {
            return Ok(());
        }
    }
}

/// As the standard library has it: what became ready is called after what waits already, then
/// what is due. What these schedule is for the next turn.
pub(crate) fn once(this: &Bound<'_, AsyncioLoop>) -> PyResult<()> {
    let (py, core) = (this.py(), this.get());
    let waiting = core.ready(py).len();
    let is_polling = is_poll_due(core, py);
    if is_polling {
        poll(this, waiting > 0)?;
    }
    if !core.timers(py).is_empty() {
        push_due(core, py);
    }
    let calls = core.ready(py).len();
    core.turn.borrow(py).calls += calls;
    if !is_polling || waiting == 0 {
        return call(this, calls);
    }
    call(this, waiting)?;
    let left = mem::take(&mut core.turn.borrow(py).left);
    deliver(this, left.iter())?;
    call(this, calls - waiting)
}

fn call(this: &Bound<'_, AsyncioLoop>, calls: usize) -> PyResult<()> {
    let (py, core) = (this.py(), this.get());
    if core.is_debug() {
        return call_watched(this, calls);
    }
    for _ in 0..calls {
        let Some(handle) = core.ready(py).pop_front() else { break };
        let called = Handle::run(&handle, py);
        core.recycle(py, handle);
        called?;
    }
    Ok(())
}

fn is_poll_due(core: &AsyncioLoop, py: Python<'_>) -> bool {
    let turn = core.turn.borrow(py);
    turn.calls >= CALLS || core.ready(py).is_empty() || AsyncioLoop::now() - turn.polled >= SECONDS
}

fn push_due(core: &AsyncioLoop, py: Python<'_>) {
    let end = AsyncioLoop::now() + RESOLUTION;
    loop {
        let Some(timer) = core.timers(py).pop_due(py, end) else { break };
        core.push(py, TimerHandle::into_handle(timer, py));
    }
}

/// In debug mode a callback that takes long is reported.
fn call_watched(this: &Bound<'_, AsyncioLoop>, calls: usize) -> PyResult<()> {
    let (py, core) = (this.py(), this.get());
    for _ in 0..calls {
        let Some(handle) = core.ready(py).pop_front() else { break };
        if handle.get().is_cancelled(py) {
            continue;
        }
        this.setattr(intern!(py, "_current_handle"), &handle)?;
        let start = AsyncioLoop::now();
        let called = Handle::run(&handle, py);
        let seconds = AsyncioLoop::now() - start;
        this.setattr(intern!(py, "_current_handle"), py.None())?;
        called?;
        let limit: f64 = this.getattr(intern!(py, "slow_callback_duration"))?.extract()?;
        if seconds >= limit {
            let helpers = py.import(intern!(py, "omnipoll.aio.handles"))?;
            helpers.call_method1(intern!(py, "took"), (handle, seconds))?;
        }
    }
    Ok(())
}

// ---- Polling ---------------------------------------------------------------------------------------

/// Transports act at once, unless there are callbacks that wait already: those come first.
fn poll(this: &Bound<'_, AsyncioLoop>, callbacks_wait: bool) -> PyResult<()> {
    let (py, core) = (this.py(), this.get());
    if core.take_was_forked() {
        this.call_method0(intern!(py, "_after_fork"))?;
    }
    let limit = limit(core, py);
    let (mut events, left) = {
        let mut turn = core.turn.borrow(py);
        turn.polls += 1;
        (mem::replace(&mut turn.events, Events::with_capacity(0)), mem::take(&mut turn.left))
    };
    let delivered = match (left.is_empty(), callbacks_wait) {
        (true, false) => wait(core, py, &mut events, limit).and_then(|()| deliver(this, events.iter())),
        (true, true) => wait(core, py, &mut events, limit).and_then(|()| put_off(this, events.iter())),
        (false, false) => deliver(this, left.iter()),
        (false, true) => put_off(this, left.iter()),
    };
    let mut turn = core.turn.borrow(py);
    turn.events = events;
    turn.calls = 0;
    turn.polled = AsyncioLoop::now();
    drop(turn);
    delivered?;
    py.check_signals()
}

/// How long to wait at most.
fn limit(core: &AsyncioLoop, py: Python<'_>) -> Option<Duration> {
    if core.is_stopping() || !core.ready(py).is_empty() || !core.turn.borrow(py).left.is_empty() {
        return Some(Duration::ZERO);
    }
    if core.timers(py).is_empty() {
        return None;
    }
    core.drop_cancelled_timers(py);
    loop {
        let Some(timer) = core.timers(py).pop_cancelled(py) else { break };
        core.recycle_timer(py, timer);
    }
    let seconds = core.timers(py).next()? - AsyncioLoop::now();
    // What is not a number is due.
    let seconds = if seconds > 0.0 { seconds.min(DAY) } else { 0.0 };
    Some(Duration::from_secs_f64(seconds))
}

/// Waits, with the interpreter released unless it only looks. A signal ends the wait.
fn wait(core: &AsyncioLoop, py: Python<'_>, events: &mut Events, limit: Option<Duration>) -> PyResult<()> {
    let waited = core.on_poller(|poller| {
        if limit == Some(Duration::ZERO) {
            return poller.wait(events, limit);
        }
        core.set_asleep(true);
        let waited = py.detach(|| poller.wait(events, limit));
        core.set_asleep(false);
        waited
    });
    match waited {
        Err(failed) if failed.raw_os_error() != Some(libc::EINTR) => Err(error(failed)),
        _ => Ok(()),
    }
}

/// Readers and writers are called after what waits already, and the rest is delivered then.
fn put_off<'a>(this: &Bound<'_, AsyncioLoop>, events: impl Iterator<Item = &'a Event>) -> PyResult<()> {
    let (py, core) = (this.py(), this.get());
    for event in events.filter(|event| event.kind() == EventKind::Io) {
        let key = Key::from_token(event.token());
        let is_queued = core.watched(py).get_mut(key).is_some_and(|registration| registration.watched.queues);
        if is_queued {
            ready(this, key, event.ready())?;
        } else {
            core.turn.borrow(py).left.push(*event);
        }
    }
    Ok(())
}

/// An exception keeps the rest for the next turn.
fn deliver<'a>(this: &Bound<'_, AsyncioLoop>, events: impl Iterator<Item = &'a Event>) -> PyResult<()> {
    let mut events = events;
    while let Some(event) = events.next() {
        if event.kind() != EventKind::Io {
            continue;
        }
        if let Err(failed) = ready(this, Key::from_token(event.token()), event.ready()) {
            this.get().turn.borrow(this.py()).left.extend(events);
            return Err(failed);
        }
    }
    Ok(())
}

/// A descriptor is ready.
fn ready(this: &Bound<'_, AsyncioLoop>, key: Key, ready: Ready) -> PyResult<()> {
    let (py, core) = (this.py(), this.get());
    let mut set = core.watched(py);
    let Some(registration) = set.get_mut(key) else { return Ok(()) };
    if ready.contains(Ready::INVALID) {
        registration.is_in_poller = false;
    }
    let watched = registration.watched.clone_ref(py);
    drop(set);
    let done = watched.ready(this, key, ready);
    watched.object.drop_ref(py);
    done
}
