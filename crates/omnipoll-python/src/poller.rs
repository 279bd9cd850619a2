//! The Python class `Poller`.

mod waiting;

use std::os::fd::RawFd;

use omnipoll::WaitPolicy;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use pyo3::{intern, PyTraverseError, PyVisit};

use crate::convert::{self, descriptor, number};
use crate::event;
use crate::init_cell::InitCell;
use crate::inspect::{PyRegistered, PyStats};
use crate::poller_core::PollerCore;

/// Watches descriptors, timers, signals and children, takes what other threads post, and waits
/// for all of it at once; any thread may call any method.
///
/// engine: "select", "poll", "epoll" or "io_uring"; None takes the one OMNIPOLL_ENGINE names in the
/// environment, and without that the best of this machine. LEVEL, EDGE and ONESHOT mean the
/// same on each. files_always_ready: take regular files and directories as always ready, as
/// poll(2) does, instead of refusing them with PermissionError, as epoll does.
///
/// strict: look for mistakes in the use of the poller, as OMNIPOLL_STRICT=1 in the environment
/// does, and say each once and in words: an EDGE on a blocking descriptor, one that was left
/// undrained, a descriptor closed while registered, and so on. Slow: for development. on_finding:
/// called with each Finding, on the thread that made or met the mistake; without it, each is a
/// StrictWarning. Where a filter makes that an error, the call that has met the mistake raises it, as
/// it does a KeyboardInterrupt or SystemExit of on_finding; what the call has done is done.
///
/// wait_policy: what a wait does before it sleeps. "balanced": nothing. ("latency", seconds): it looks again
/// and again for so long, so that what comes meanwhile does not have to wake the thread, which costs that
/// much processor time and a system call for each look; on epoll and io_uring from Linux 6.9 on the
/// kernel then looks at the network device for as long (NAPI). ("thrifty", seconds): it does not return
/// before so long has passed since it began, and reports all that has come by then, up to so much later
/// than otherwise: wakes and posts too, while its timeout, the timers that were armed before, and
/// signals are on time. Neither concerns a wait with a timeout of 0.
///
/// Raises ValueError for a name that is no engine's or policy's and for on_finding without strict, OSError
/// (ENOSYS) for an engine that is not available here, OSError (EMFILE, ENFILE, ENOMEM) as the system
/// says.
///
/// >>> import os, omnipoll
/// >>> reader, writer = os.pipe()
/// >>> with omnipoll.Poller() as poller:
/// ...     poller.add(reader, omnipoll.READ, token="greetings")
/// ...     _ = os.write(writer, b"hello")
/// ...     for event in poller.wait(timeout=10):
/// ...         print(event.token, os.read(event.value, 100))
/// greetings b'hello'
/// >>> os.close(reader); os.close(writer)
#[pyclass(frozen, subclass, weakref, name = "Poller", module = "omnipoll")]
pub(crate) struct PyPoller {
    core: InitCell<PollerCore>,
}

impl PyPoller {
    /// The poller of a loop.
    pub(crate) fn of_loop(core: PollerCore) -> PyResult<Self> {
        let cell = InitCell::new();
        cell.make(core)?;
        Ok(Self { core: cell })
    }

    pub(crate) fn core(&self) -> PyResult<&PollerCore> {
        self.core.get()
    }
}

#[pymethods]
impl PyPoller {
    #[new]
    #[pyo3(
        signature = (*_arguments, **_keywords),
        text_signature = "(engine=None, *, files_always_ready=False, strict=False, on_finding=None, \
                          wait_policy='balanced')"
    )]
    fn new(_arguments: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> Self {
        Self { core: InitCell::new() }
    }

    #[pyo3(signature = (engine=None, *, files_always_ready=false, strict=false, on_finding=None,
                        wait_policy=None))]
    fn __init__(
        &self,
        py: Python<'_>,
        engine: Option<&str>,
        files_always_ready: bool,
        strict: bool,
        on_finding: Option<Py<PyAny>>,
        wait_policy: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        convert::check_greenlets(py)?;
        let policy = wait_policy.map_or(Ok(WaitPolicy::Balanced), convert::wait_policy)?;
        let core = convert::poller(py, engine, files_always_ready, strict, policy)?;
        self.core.make(PollerCore::new(py, core, on_finding)?)
    }

    /// Starts watching a descriptor: an int, or anything with fileno().
    ///
    /// interest: READ, WRITE and PRIORITY, joined by |, with EDGE, ONESHOT or EXCLUSIVE if need be;
    /// without any of the first three, hang-up and errors alone are reported. token: any object, handed back by each event of this descriptor; without it, fd as
    /// it was given. The descriptor stays the caller's: remove it before it is closed.
    ///
    /// Raises FileExistsError when it is registered, OSError (EBADF) when it is not open,
    /// PermissionError for a kind of file that is always ready, ValueError for an interest that
    /// makes no sense or that the engine hasn't (EXCLUSIVE).
    #[pyo3(signature = (fd, interest, token=None))]
    fn add(
        &self,
        py: Python<'_>,
        fd: Bound<'_, PyAny>,
        interest: Bound<'_, PyAny>,
        token: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let number = descriptor(&fd)?;
        self.core
            .get()?
            .call(|core| core.add(py, number, convert::interest(&interest)?, token.unwrap_or(fd).unbind()))
    }

    /// Replaces the interest, and the token if one is given. Makes a ONESHOT that has fired and
    /// an EDGE report again: what is ready now is reported by the next wait.
    ///
    /// Raises FileNotFoundError when the descriptor is not registered, OSError (EBADF) when it
    /// is not open, ValueError as add() and for a registration with EXCLUSIVE.
    #[pyo3(signature = (fd, interest, token=None))]
    fn modify(
        &self,
        py: Python<'_>,
        fd: &Bound<'_, PyAny>,
        interest: Bound<'_, PyAny>,
        token: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.core.get()?.call(|core| {
            core.modify(py, descriptor(fd)?, convert::interest(&interest)?, token.map(Bound::unbind))
        })
    }

    /// Stops watching a descriptor; one that was closed meanwhile is named by its number.
    ///
    /// Raises FileNotFoundError when it is not registered.
    fn remove(&self, py: Python<'_>, fd: &Bound<'_, PyAny>) -> PyResult<()> {
        self.core.get()?.call(|core| core.remove(py, descriptor(fd)?))
    }

    /// Says of an EDGE registration that these directions were read or written until
    /// BlockingIOError: the next readiness is an edge again. Costs nothing on epoll.
    ///
    /// Raises FileNotFoundError when the descriptor is not registered, ValueError when it is
    /// registered with ONESHOT, which modify() re-enables.
    fn rearm(&self, py: Python<'_>, fd: &Bound<'_, PyAny>, interest: Bound<'_, PyAny>) -> PyResult<()> {
        self.core.get()?.call(|core| core.rearm(py, descriptor(fd)?, convert::interest(&interest)?))
    }

    /// Arms a timer and returns its id: a TIMER event when delay seconds have passed, and again
    /// after each period, if there is one. Never early; the soonest first. A late timer is reported
    /// once, and event.value says how many of its periods have passed.
    ///
    /// delay, period: seconds, with fractions down to a nanosecond, on the monotonic clock.
    /// token: any object, handed back by each event; without it, the id. A timer without a period
    /// keeps its id and its token when it has expired: timer_set() arms it again, and
    /// timer_cancel() releases it, or else the 65,536th that expires after it. Raises ValueError for
    /// a negative delay and for a period that is not more than 0, OverflowError for more than
    /// 292 years.
    ///
    /// >>> import omnipoll
    /// >>> with omnipoll.Poller() as poller:
    /// ...     once = poller.timer_add(0.001, token="tea")
    /// ...     often = poller.timer_add(60, period=60, token="clock")
    /// ...     print([(event.token, event.value) for event in poller.wait()])
    /// ...     poller.timer_cancel(often)
    /// [('tea', 1)]
    #[pyo3(signature = (delay, period=None, token=None))]
    fn timer_add(
        &self,
        py: Python<'_>,
        delay: &Bound<'_, PyAny>,
        period: Option<&Bound<'_, PyAny>>,
        token: Option<Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        self.core.get()?.call(|core| {
            core.timer_add(py, convert::delay(delay)?, convert::period(period)?, token.map(Bound::unbind))
        })
    }

    /// Arms a timer for a time of the wall clock and returns its id: a TIMER event when it has
    /// come, also when the clock was set meanwhile.
    ///
    /// when: seconds since 1970, as time.time() has them, or a datetime (one without a time zone
    /// is local time). What is past is reported by the next wait. token: as in timer_add(). Raises
    /// OSError (ENOTSUP) on systems other than Linux.
    ///
    /// >>> import datetime, omnipoll
    /// >>> with omnipoll.Poller() as poller:
    /// ...     soon = datetime.datetime.now() + datetime.timedelta(milliseconds=1)
    /// ...     id = poller.timer_add_at(soon, token="noon")
    /// ...     print([event.token for event in poller.wait()])
    /// ['noon']
    #[pyo3(signature = (when, token=None))]
    fn timer_add_at(
        &self,
        py: Python<'_>,
        when: &Bound<'_, PyAny>,
        token: Option<Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        self.core.get()?.call(|core| core.timer_add_at(py, convert::time(when)?, token.map(Bound::unbind)))
    }

    /// Moves a timer to a new delay from now, and to a new period or none; arms it again if it has
    /// expired, under the same id: an idle timer is one timer that is set whenever data comes.
    ///
    /// Raises OSError (ESTALE) when it was cancelled, or has expired and 65,536 others after it,
    /// ValueError as timer_add() and for a timer of timer_add_at(), which ends when it expires.
    ///
    /// >>> import omnipoll
    /// >>> with omnipoll.Poller() as poller:
    /// ...     idle = poller.timer_add(60, token="idle")
    /// ...     poller.timer_set(idle, 0.001)
    /// ...     print([event.token for event in poller.wait()])
    /// ['idle']
    #[pyo3(signature = (id, delay, period=None))]
    fn timer_set(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = number)] id: u64,
        delay: &Bound<'_, PyAny>,
        period: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.core.get()?.call(|core| core.timer_set(py, id, convert::delay(delay)?, convert::period(period)?))
    }

    /// Disarms a timer, and releases its token: no later wait reports it.
    ///
    /// Raises OSError (ESTALE) when it was cancelled before, and when it has expired, of which the id
    /// and the token are given up all the same.
    fn timer_cancel(&self, py: Python<'_>, #[pyo3(from_py_with = number)] id: u64) -> PyResult<()> {
        self.core.get()?.call(|core| core.timer_cancel(py, id))
    }

    /// Turns a signal into SIGNAL events: event.value is its number, event.count how often it
    /// came. Several pollers may watch one signal; each reports it. Any thread may call it.
    ///
    /// It replaces the handler that the system calls, and that is the one in which Python takes
    /// note of signals: until signal_remove() or close(), a handler set by signal.signal() does
    /// not run, and nothing is written to the descriptor of signal.set_wakeup_fd(). Ctrl-C then
    /// raises no KeyboardInterrupt when SIGINT is watched. Don't call signal.signal() for a
    /// watched signal: it would take the signal away from the poller.
    ///
    /// signum: a member of signal.Signals, or an int. token: any object; without it, signum as
    /// it was given. A child that is forked meanwhile gets the signal as if it were not watched, until
    /// its after_fork(): terminate() ends it.
    ///
    /// Raises FileExistsError when this poller watches it, ValueError for a number
    /// that is no signal, for SIGKILL and SIGSTOP, and for faults (SIGSEGV, SIGBUS, SIGFPE,
    /// SIGILL).
    ///
    /// >>> import omnipoll, os, signal
    /// >>> with omnipoll.Poller() as poller:
    /// ...     poller.signal_add(signal.SIGTERM, token="shut down")
    /// ...     os.kill(os.getpid(), signal.SIGTERM)
    /// ...     print([(event.token, event.count) for event in poller.wait()])
    /// [('shut down', 1)]
    #[pyo3(signature = (signum, token=None))]
    fn signal_add(
        &self,
        py: Python<'_>,
        signum: Bound<'_, PyAny>,
        token: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.core.get()?.call(|core| core.signal_add(py, signum.extract()?, token.unwrap_or(signum).unbind()))
    }

    /// Watches a signal no more; the last poller to do so restores what was done about it
    /// before, so that Python's handler runs again.
    ///
    /// Raises FileNotFoundError when this poller does not watch it.
    fn signal_remove(&self, py: Python<'_>, #[pyo3(from_py_with = number)] signum: i32) -> PyResult<()> {
        self.core.get()?.call(|core| core.signal_remove(py, signum))
    }

    /// Reports by a CHILD event that a child of this process has ended, and reaps it; the watch
    /// ends with that. event.value is its status as os.wait() has it:
    /// os.waitstatus_to_exitcode(event.value) makes an exit code of it.
    ///
    /// The poller has reaped the child then, so nothing else can know the status: wait() and
    /// poll() of a subprocess.Popen would return 0. Set it: process.returncode = exit code.
    ///
    /// process: a subprocess.Popen, anything else with pid, or an int. token: any object;
    /// without it, process as it was given. Raises ChildProcessError when there is no such
    /// child or it was reaped, FileExistsError when it is watched.
    ///
    /// >>> import omnipoll, os, subprocess, sys
    /// >>> with omnipoll.Poller() as poller:
    /// ...     poller.child_add(subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]))
    /// ...     for event in poller.wait():
    /// ...         event.token.returncode = os.waitstatus_to_exitcode(event.value)
    /// ...         print(event.token.wait())
    /// 3
    #[pyo3(signature = (process, token=None))]
    fn child_add(
        &self,
        py: Python<'_>,
        process: Bound<'_, PyAny>,
        token: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.core
            .get()?
            .call(|core| core.child_add(py, convert::process(&process)?, token.unwrap_or(process).unbind()))
    }

    /// Forgets a child without reaping it.
    ///
    /// Raises FileNotFoundError when it is not watched.
    fn child_remove(&self, py: Python<'_>, process: &Bound<'_, PyAny>) -> PyResult<()> {
        self.core.get()?.call(|core| core.child_remove(py, convert::process(process)?))
    }

    /// Hands something to the thread that waits: a POST event with this token, which may be any
    /// object, and this value, an int of 64 bits. Posts arrive in the order they were made, and
    /// none is lost. Any thread may call it.
    ///
    /// Raises BlockingIOError when 65,536 posts wait to be taken; nothing was posted then.
    ///
    /// >>> import omnipoll, threading
    /// >>> with omnipoll.Poller() as poller:
    /// ...     worker = threading.Thread(target=poller.post, args=(["a", "result"], 42))
    /// ...     worker.start()
    /// ...     print([(event.token, event.value) for event in poller.wait()])
    /// ...     worker.join()
    /// [(['a', 'result'], 42)]
    #[pyo3(signature = (token, value=0))]
    fn post(
        &self,
        py: Python<'_>,
        token: Py<PyAny>,
        #[pyo3(from_py_with = number)] value: i64,
    ) -> PyResult<()> {
        self.core.get()?.call(|core| core.post(py, token, value))
    }

    /// Makes a wait return with a WAKE event: the one in progress, or else the next. Wakes that
    /// come before it are counted into one event. Any thread may call it, and a signal handler.
    fn wake(&self, py: Python<'_>) -> PyResult<()> {
        self.core.get()?.call(|core| core.wake(py))
    }

    /// Rebuilds an inherited poller in a forked child, with all its registrations, timers and
    /// signals; its parent's children and what was posted are not the child's. Does nothing in
    /// the process that made it.
    ///
    /// Raises OSError (EBUSY) when another thread of the parent was changing the poller at the
    /// very moment of the fork: make a new one then.
    fn after_fork(&self, py: Python<'_>) -> PyResult<()> {
        self.core.get()?.call(|core| {
            core.check_is_own()?;
            core.after_fork(py)
        })
    }

    /// How much there is, and how much was done: a Stats. Makes no system call.
    ///
    /// >>> import omnipoll
    /// >>> with omnipoll.Poller() as poller:
    /// ...     poller.wake()
    /// ...     events = poller.wait()
    /// ...     stats = poller.stats()
    /// >>> stats.waits, stats.wake_events, stats.io_events
    /// (1, 1, 0)
    fn stats(&self, py: Python<'_>) -> PyResult<PyStats> {
        self.core.get()?.call(|core| core.stats(py))
    }

    /// Every registered descriptor, the lowest first: a list of Registered, of which each is one
    /// line to print. One readlink(2) for each.
    ///
    /// >>> import omnipoll, socket
    /// >>> ours, theirs = socket.socketpair()
    /// >>> with omnipoll.Poller() as poller:
    /// ...     poller.add(ours, omnipoll.READ | omnipoll.ONESHOT, token="client")
    /// ...     for one in poller.dump():
    /// ...         print(str(one).partition(" token ")[2])
    /// 'client' READ|ONESHOT armed READ
    /// >>> ours.close(); theirs.close()
    fn dump(&self, py: Python<'_>) -> PyResult<Vec<PyRegistered>> {
        self.core.get()?.call(|core| core.dump(py))
    }

    /// The engine's own descriptor, readable while something registered is ready, so that another
    /// poller can watch this one: epoll has one.
    ///
    /// Raises io.UnsupportedOperation, an OSError, on other engines, ValueError when the poller is
    /// closed.
    fn fileno(&self, py: Python<'_>) -> PyResult<RawFd> {
        let core = self.core.get()?;
        core.check_is_own()?;
        core.descriptor(py)
    }

    /// Ends the waits in progress with ValueError and releases everything; the descriptors that
    /// were registered stay open. Closing twice is closing once.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let Some(core) = self.core.get_opt() else { return Ok(()) };
        core.call(|core| {
            core.check_is_own()?;
            core.close(py);
            Ok(())
        })
    }

    /// Whether close() was called.
    #[getter]
    fn closed(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.core.get()?.is_closed(py))
    }

    /// The name of the engine.
    #[getter]
    fn engine(&self) -> PyResult<&'static str> {
        Ok(self.core.get()?.engine.name())
    }

    /// What the engine can tell apart: REPORTS_HANGUP, REPORTS_READ_CLOSED, NATIVE_EDGE and
    /// HAS_EXCLUSIVE, joined by |.
    #[getter]
    fn capabilities(&self) -> PyResult<u32> {
        Ok(self.core.get()?.capabilities().bits())
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.close(py)
    }

    /// Every event, wait after wait, until the poller is closed. The events of one wait are a
    /// snapshot: one of them may be of a descriptor that was removed since.
    fn __iter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let waits = py.import(intern!(py, "builtins"))?.getattr(intern!(py, "iter"))?;
        let waits = waits.call1((slf.getattr(intern!(py, "_wait_unless_closed"))?, py.None()))?;
        let chain = py.import(intern!(py, "itertools"))?.getattr(intern!(py, "chain"))?;
        chain.call_method1(intern!(py, "from_iterable"), (waits,))
    }

    /// wait() for the iterator: None ends it.
    fn _wait_unless_closed<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        self.core.get()?.call(|core| core.wait(py, None, None, event::make))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let Some(core) = self.core.get_opt() else { return "<omnipoll.Poller, not initialized>".into() };
        let engine = core.engine.name();
        match core.is_closed(py) {
            true => format!("<omnipoll.Poller on {engine}, closed>"),
            false => {
                let (registered, others) = core.len(py);
                let others = if others > 0 { format!(" and {others} others") } else { String::new() };
                format!("<omnipoll.Poller on {engine}, {registered} registered{others}>")
            }
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.core.get_opt().map_or(Ok(()), |core| core.traverse(&visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        if let Some(core) = self.core.get_opt() {
            core.close(py);
        }
    }
}
