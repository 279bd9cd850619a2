//! `sock_recv` and its neighbours: calls on a program's own sockets that wait until they can be done.
//!
//! A call is tried first. When it must wait, its socket is registered with edges, and on epoll it stays
//! so: from the second call on nothing is changed in the poller, and what is known not to be ready is not
//! tried. Elsewhere the registration ends with the last call that waits: a ring's poll would hold a
//! socket that the program has closed.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

use omnipoll::{Capabilities, EngineKind, Interest, Ready, Trigger};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit};

use super::loop_class::{AsyncioLoop, Watch, Watched};
use super::readers::Direction;
use super::report::is_exit;
use super::socket_attempt::{is_stream, Attempt};
use super::watched::{self, Key};
use crate::convert::{error, reason};
use crate::gil_cell::GilCell;

/// The calls that wait for one socket.
#[pyclass(frozen, module = "omnipoll._native")]
pub(crate) struct SocketCalls {
    /// Not a strong one: a program may drop its socket, which closes it.
    socket: Py<PyWeakrefReference>,
    fd: RawFd,
    /// A short read has emptied it: not a datagram's, nor where the peer's end is not reported.
    drains: bool,
    /// Stays registered while no call waits.
    stays: bool,
    state: GilCell<State>,
}

struct State {
    reading: Queue,
    writing: Queue,
    /// The peer has ended, or there is an error: it stays ready.
    has_ended: bool,
}

struct Queue {
    waiting: VecDeque<Waiting>,
    /// A call may be tried.
    may_be_ready: bool,
}

struct Waiting {
    future: Py<PyAny>,
    attempt: Attempt,
}

impl State {
    fn queue(&mut self, direction: Direction) -> &mut Queue {
        match direction {
            Direction::Reading => &mut self.reading,
            Direction::Writing => &mut self.writing,
        }
    }
}

impl SocketCalls {
    fn new(this: &Bound<'_, AsyncioLoop>, socket: &Bound<'_, PyAny>, fd: RawFd) -> PyResult<Py<Self>> {
        let py = this.py();
        let engine = this.get().poller().map_err(error)?.engine();
        let queue = || Queue { waiting: VecDeque::new(), may_be_ready: false };
        let state = State { reading: queue(), writing: queue(), has_ended: false };
        let calls = Self {
            socket: PyWeakrefReference::new(socket)?.unbind(),
            fd,
            drains: is_stream(fd) && engine.capabilities().contains(Capabilities::REPORTS_READ_CLOSED),
            stays: engine == EngineKind::Epoll,
            state: GilCell::new(py, state),
        };
        Py::new(py, calls)
    }

    fn is_of(&self, socket: &Bound<'_, PyAny>) -> bool {
        self.socket.bind_borrowed(socket.py()).upgrade().is_some_and(|own| own.is(socket))
    }

    fn is_idle(&self, py: Python<'_>) -> bool {
        let state = self.state.borrow(py);
        state.reading.waiting.is_empty() && state.writing.waiting.is_empty()
    }

    /// Tries it, and remembers what that says of the socket.
    fn attempt(
        &self,
        this: &Bound<'_, AsyncioLoop>,
        socket: &Bound<'_, PyAny>,
        attempt: &mut Attempt,
        direction: Direction,
    ) -> PyResult<Option<Py<PyAny>>> {
        let outcome = attempt.run(this, socket, self.fd)?;
        let mut state = self.state.borrow(this.py());
        let is_emptied = outcome.is_short && self.drains && !state.has_ended;
        if outcome.result.is_none() || is_emptied {
            state.queue(direction).may_be_ready = false;
        }
        Ok(outcome.result)
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.socket)?;
        let Some(state) = self.state.visit(visit) else { return Ok(()) };
        for waiting in state.reading.waiting.iter().chain(&state.writing.waiting) {
            visit.call(&waiting.future)?;
            waiting.attempt.traverse(visit)?;
        }
        Ok(())
    }
}

#[pymethods]
impl SocketCalls {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.traverse(&visit)
    }

    fn __clear__(&self, py: Python<'_>) {
        let mut state = self.state.borrow(py);
        let waiting =
            (std::mem::take(&mut state.reading.waiting), std::mem::take(&mut state.writing.waiting));
        drop(state);
        drop(waiting);
    }
}

/// What a call has come to.
pub(crate) enum Call {
    Done(Py<PyAny>),
    /// It waits for this future.
    Waits(Py<PyAny>),
}

/// Tries a call, and has it wait when it can't be done yet.
pub(crate) fn start(
    this: &Bound<'_, AsyncioLoop>,
    socket: &Bound<'_, PyAny>,
    mut attempt: Attempt,
    direction: Direction,
) -> PyResult<Call> {
    let py = this.py();
    let fd: RawFd = socket.call_method0(intern!(py, "fileno"))?.extract()?;
    let registered = find(this.get(), py, fd).filter(|(_, calls)| calls.get().is_of(socket));
    let (key, calls) = match registered {
        Some((key, calls)) => {
            if is_worth_trying(calls.get(), py, direction) {
                if let Some(result) = calls.get().attempt(this, socket, &mut attempt, direction)? {
                    return Ok(Call::Done(result));
                }
            }
            (key, calls)
        }
        None => {
            if let Some(result) = attempt.run(this, socket, fd)?.result {
                return Ok(Call::Done(result));
            }
            register(this, socket, fd, direction)?
        }
    };
    ask_for(this.get(), py, key, direction)?;
    let future = this.call_method0(intern!(py, "create_future"))?.unbind();
    let waiting = Waiting { future: future.clone_ref(py), attempt };
    calls.get().state.borrow(py).queue(direction).waiting.push_back(waiting);
    Ok(Call::Waits(future))
}

/// Not behind others, nor when nothing has come since the last time.
fn is_worth_trying(calls: &SocketCalls, py: Python<'_>, direction: Direction) -> bool {
    let mut state = calls.state.borrow(py);
    let has_ended = state.has_ended;
    let queue = state.queue(direction);
    let is_registered_for = queue.may_be_ready || has_ended || direction == Direction::Writing;
    queue.waiting.is_empty() && is_registered_for
}

fn find(core: &AsyncioLoop, py: Python<'_>, fd: RawFd) -> Option<(Key, Py<SocketCalls>)> {
    let mut set = core.watched(py);
    let key = set.find(fd)?;
    let calls = set.get_mut(key)?.watched.get::<SocketCalls>(py)?;
    Some((key, calls.unbind()))
}

fn register(
    this: &Bound<'_, AsyncioLoop>,
    socket: &Bound<'_, PyAny>,
    fd: RawFd,
    direction: Direction,
) -> PyResult<(Key, Py<SocketCalls>)> {
    let py = this.py();
    this.call_method1(intern!(py, "_ensure_fd_no_transport"), (fd,))?;
    let calls = SocketCalls::new(this, socket, fd)?;
    let watched = Watched::new(calls.bind(py));
    let key = this.get().watch(py, fd, interest(direction) | Trigger::EDGE, watched).map_err(error)?;
    Ok((key, calls))
}

fn interest(direction: Direction) -> Interest {
    match direction {
        Direction::Reading => Interest::READ,
        Direction::Writing => Interest::WRITE,
    }
}

/// Has a direction reported, and what has been ready all along.
fn ask_for(core: &AsyncioLoop, py: Python<'_>, key: Key, direction: Direction) -> PyResult<()> {
    let mut set = core.watched(py);
    let Some(registration) = set.get_mut(key) else { return Ok(()) };
    let before = registration.interest;
    drop(set);
    let wanted = before | interest(direction);
    if wanted != before {
        return core.set_interest(py, key, wanted).map_err(error);
    }
    rearm(core, py, key).map_err(error)
}

/// Has the next edge reported where the engine has none by itself.
fn rearm(core: &AsyncioLoop, py: Python<'_>, key: Key) -> io::Result<()> {
    let (fd, interest) = match core.watched(py).get_mut(key) {
        Some(registration) if registration.is_in_poller => (registration.fd, registration.interest),
        _ => return Ok(()),
    };
    core.on_poller(|poller| poller.rearm_raw(fd, interest))
}

/// Has what is ready reported again.
fn ask_again(core: &AsyncioLoop, py: Python<'_>, key: Key) -> io::Result<()> {
    let (fd, interest) = match core.watched(py).get_mut(key) {
        Some(registration) if registration.is_in_poller => (registration.fd, registration.interest),
        _ => return Ok(()),
    };
    core.on_poller(|poller| poller.modify_raw(fd, interest, key.token()))
}

impl Watch for SocketCalls {
    const GIVES_WAY: bool = true;

    /// The calls that wait are tried, in their order.
    fn ready(calls: &Bound<'_, Self>, this: &Bound<'_, AsyncioLoop>, key: Key, ready: Ready) -> PyResult<()> {
        let py = this.py();
        {
            let mut state = calls.get().state.borrow(py);
            state.has_ended |=
                ready.intersects(Ready::READ_CLOSED | Ready::HANGUP | Ready::ERROR | Ready::INVALID);
            state.reading.may_be_ready |= watched::is_readable(ready);
            state.writing.may_be_ready |= watched::is_writable(ready);
        }
        continue_calls(this, key, calls, Direction::Reading)?;
        continue_calls(this, key, calls, Direction::Writing)?;
        if !calls.get().stays && calls.get().is_idle(py) {
            drop(this.get().unwatch(py, key));
        }
        Ok(())
    }
}

fn continue_calls(
    this: &Bound<'_, AsyncioLoop>,
    key: Key,
    calls: &Bound<'_, SocketCalls>,
    direction: Direction,
) -> PyResult<()> {
    let py = this.py();
    let calls = calls.get();
    loop {
        let waiting = {
            let mut state = calls.state.borrow(py);
            let is_ready = state.has_ended || state.queue(direction).may_be_ready;
            match is_ready {
                true => state.queue(direction).waiting.pop_front(),
                false => None,
            }
        };
        let Some(mut waiting) = waiting else { return Ok(()) };
        let future = waiting.future.bind(py);
        if future.call_method0(intern!(py, "done"))?.is_truthy()? {
            continue;
        }
        let outcome = match calls.open_socket(py)? {
            Some(socket) => calls.attempt(this, &socket, &mut waiting.attempt, direction),
            None => Err(reason(&io::Error::from_raw_os_error(libc::EBADF))),
        };
        match outcome {
            Ok(Some(result)) => future.call_method1(intern!(py, "set_result"), (result,))?,
            Ok(None) => {
                // A method may say that it would block though the socket is ready.
                let again = match waiting.attempt {
                    Attempt::Method { .. } => ask_again(this.get(), py, key),
                    _ => rearm(this.get(), py, key),
                };
                calls.state.borrow(py).queue(direction).waiting.push_front(waiting);
                return again.map_err(error);
            }
            Err(failed) if is_exit(py, &failed) => return Err(failed),
            Err(failed) => future.call_method1(intern!(py, "set_exception"), (failed.into_value(py),))?,
        };
    }
}

impl SocketCalls {
    /// The socket, unless the program has closed it.
    fn open_socket<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(socket) = self.socket.bind_borrowed(py).upgrade() else { return Ok(None) };
        let fd: RawFd = socket.call_method0(intern!(py, "fileno"))?.extract()?;
        Ok(Some(socket).filter(|_| fd == self.fd))
    }
}

// ---- For Python ------------------------------------------------------------------------------------

impl AsyncioLoop {
    /// `sock_recv`: the bytes, or a future of them.
    pub(crate) fn start_receiving(
        this: &Bound<'_, Self>,
        socket: &Bound<'_, PyAny>,
        size: usize,
    ) -> PyResult<Py<PyAny>> {
        match start(this, socket, Attempt::Receive { size }, Direction::Reading)? {
            Call::Done(result) | Call::Waits(result) => Ok(result),
        }
    }

    /// `sock_sendall`: None when all of it was sent, or a future of that.
    pub(crate) fn start_sending(
        this: &Bound<'_, Self>,
        socket: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        let attempt = Attempt::send_all(data)?;
        match start(this, socket, attempt, Direction::Writing)? {
            Call::Done(result) | Call::Waits(result) => Ok(result),
        }
    }

    /// `(True, result)` of a method of the socket's, or `(False, future)` when that would block.
    pub(crate) fn start_call<'py>(
        this: &Bound<'py, Self>,
        socket: &Bound<'py, PyAny>,
        direction: Direction,
        name: &Bound<'py, PyString>,
        arguments: &Bound<'py, PyTuple>,
    ) -> PyResult<(bool, Py<PyAny>)> {
        let (name, arguments) = (name.clone().unbind(), arguments.clone().unbind());
        match start(this, socket, Attempt::Method { name, arguments }, direction)? {
            Call::Done(result) => Ok((true, result)),
            Call::Waits(future) => Ok((false, future)),
        }
    }
}
