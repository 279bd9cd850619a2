//! The Python class `Loop`.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use omnipoll::EventLoop;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::connect::connect_options;
use super::driving::{pull, timeout_of};
use super::handler::Mode;
use super::loop_core::LoopCore;
use crate::bytes::Bytes;
use crate::connection::PyConnection;
use crate::convert::{self, error, number, optional_text, text};
use crate::datagram_socket::PyDatagramSocket;
use crate::finalization::protect_thread;
use crate::init_cell::InitCell;
use crate::keywords::Keywords;
use crate::poller::PyPoller;

/// One event loop in one thread: connections in and out, datagram sockets, and all that its poller
/// watches. run() calls handlers with what happens, and wait() returns it as a list of events.
///
/// engine: "select", "poll", "epoll", "io_uring" or "auto"; None is "auto". handler: an object with some
/// of the methods that omnipoll.Server describes, for connections that have no other, and with
/// on_event(loop, event), which is called with each Event of what loop.poller watches: timers,
/// descriptors, signals, children and posts. TypeError for one that can't be meant.
///
/// max_clients, backlog, queue_limit, total_queue_limit, high_water, low_water, idle_timeout,
/// read_timeout, write_timeout, linger, wait_policy, proxy_header, allow, deny, max_address_clients,
/// max_address_rate, max_receive_rate: as for omnipoll.Server. max_clients counts what was accepted.
///
/// A loop belongs to the thread that has made it. Other threads have stop(), broadcast(),
/// connect_datagrams(), poller.post() and, of its connections, write(), close(), post() and what else
/// Connection says; the rest raises PermissionError
/// there. In its own thread, in calls of a handler and between waits, what is done to any of its
/// connections is done at once: a write goes to the socket. On io_uring small writes are sent by the ring,
/// together, when the loop waits next.
///
/// As a context manager it is closed at the end of the block.
///
/// >>> import omnipoll
/// >>> class Shout:
/// ...     def on_data(self, connection, data):
/// ...         connection.write(data.upper())
/// ...         connection.close()
/// ...     def on_event(self, loop, event):
/// ...         print(event.token)
/// ...         loop.stop()
/// >>> with omnipoll.Loop(handler=Shout()) as loop:
/// ...     address = loop.listen("127.0.0.1:0")
/// ...     id = loop.poller.timer_add(0.001, token="time is up")
/// ...     loop.run()
/// time is up
///
/// The same, pulled:
///
/// >>> with omnipoll.Loop() as loop:
/// ...     address = loop.listen("127.0.0.1:0")
/// ...     id = loop.poller.timer_add(0.001, token="time is up")
/// ...     for event in loop.wait():
/// ...         print(event.token)
/// time is up
#[pyclass(frozen, subclass, weakref, name = "Loop", module = "omnipoll")]
pub(crate) struct PyLoop(InitCell<Arc<LoopCore>>);

#[pymethods]
impl PyLoop {
    #[new]
    #[pyo3(
        signature = (*_arguments, **_keywords),
        text_signature = "(engine=None, *, handler=None, max_clients=None, backlog=4096, \
                          queue_limit=16777216, total_queue_limit=268435456, high_water=65536, \
                          low_water=16384, idle_timeout=None, read_timeout=None, write_timeout=60.0, \
                          linger=2.0, wait_policy='balanced', proxy_header=None, allow='', deny='', \
                          max_address_clients=None, max_address_rate=None, max_receive_rate=None)"
    )]
    fn new(_arguments: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> Self {
        Self(InitCell::new())
    }

    #[pyo3(signature = (engine=None, *, handler=None, **options))]
    fn __init__(
        slf: &Bound<'_, Self>,
        engine: Option<&str>,
        handler: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let py = slf.py();
        convert::check_greenlets(py)?;
        let keywords = Keywords::new(options);
        let options = keywords.loop_options(py, engine)?;
        keywords.finish("check_loop_options")?;
        let make = |handler| EventLoop::with_options(handler, options).map_err(error);
        let core = LoopCore::new(py, handler, make)?;
        core.shared.set_object(slf)?;
        slf.get().0.make(core)
    }

    /// Listens on an address, and returns it with the port that the system has chosen where it was 0.
    /// Addresses are those of omnipoll.Server: "127.0.0.1:8080", "[::1]:8080", ":8080", "unix:/path",
    /// "unix:@abstract", "fd:3", "systemd", "udp:127.0.0.1:53".
    ///
    /// handler: for what comes to this address; without it, the loop's. token: any object, which each
    /// connection and each event of them has. It may be called in a call of the loop's.
    ///
    /// Raises ValueError for what is no address and after a stop, OSError (EADDRINUSE, EADDRNOTAVAIL,
    /// EACCES) as the system says, RuntimeError in on_datagram and on_datagram_error.
    #[pyo3(signature = (address, handler=None, token=None))]
    fn listen(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = text)] address: String,
        handler: Option<&Bound<'_, PyAny>>,
        token: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let core = self.0.get()?;
        core.check_thread()?;
        let listen = |token| core.here(py, |event_loop| event_loop.listen(&address, token));
        core.open_socket(py, handler, token, listen)
    }

    /// Begins to connect to an address, and returns the Connection at once: "192.0.2.1:80",
    /// "[2001:db8::1]:80", "example.org:80" (a name is looked up in another thread, and its addresses are
    /// tried in turn), "unix:/path", "unix:@abstract", "fd:3" (a socket that is connected already). It may
    /// be written to: what is written is sent when it is open.
    ///
    /// When it is open on_open is called for it, as for one that was accepted, or CONNECTED is returned;
    /// when it can't be opened, on_close alone, or CLOSED, with an OSError that says why and which
    /// addresses were tried.
    ///
    /// handler: for this connection; without it, the loop's. timeout: seconds it may take in all; None is
    /// as long as the system tries. local_address: the address of this machine to connect from, with a
    /// port or without. no_delay: whether small writes are sent at once. keep_alive: the seconds a peer
    /// may be silent before the system asks whether it is there. token: any object, which the connection
    /// and each event of it have. It may be called in a call of the loop's.
    ///
    /// Raises ValueError for what is no address and after a stop, OSError (EMFILE) as the system says,
    /// RuntimeError in on_datagram and on_datagram_error.
    ///
    /// >>> import omnipoll
    /// >>> class Ask:
    /// ...     def on_open(self, connection):
    /// ...         connection.write(b"hello")
    /// ...     def on_data(self, connection, data):
    /// ...         print(data)
    /// ...         connection.loop.stop(0)
    /// >>> class Echo:
    /// ...     def on_data(self, connection, data):
    /// ...         connection.write(data)
    /// >>> with omnipoll.Loop() as loop:
    /// ...     address = loop.listen("127.0.0.1:0", Echo())
    /// ...     connection = loop.connect(address, Ask())
    /// ...     loop.run()
    /// b'hello'
    #[pyo3(signature = (
        address, handler=None, *, timeout=Some(30.0), local_address=None, no_delay=true, keep_alive=None,
        token=None,
    ), text_signature = "($self, address, handler=None, *, timeout=30.0, local_address=None, no_delay=True, \
                         keep_alive=None, token=None)")]
    #[expect(clippy::too_many_arguments, reason = "each is a keyword of Python's")]
    fn connect(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = text)] address: String,
        handler: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = number)] timeout: Option<f64>,
        #[pyo3(from_py_with = optional_text)] local_address: Option<String>,
        no_delay: bool,
        #[pyo3(from_py_with = number)] keep_alive: Option<f64>,
        token: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyConnection>> {
        let options = connect_options(timeout, local_address, no_delay, keep_alive)?;
        self.0.get()?.connect(py, &address, &options, handler, token.unwrap_or_else(|| py.None()))
    }

    /// Opens a datagram socket that is connected to an address, "udp:192.0.2.1:53" with a number for the
    /// host, and returns it: a DatagramSocket, which sends. What comes from there comes to on_datagram of
    /// the handler, and that nothing listens there to on_datagram_error; pulled, as DATAGRAM and
    /// DATAGRAM_ERROR. Any thread may call it, and every call of the loop's.
    ///
    /// Raises ValueError for any other address, OSError (ENETUNREACH, EACCES, EADDRNOTAVAIL) as the
    /// system says.
    #[pyo3(signature = (address, handler=None, token=None))]
    fn connect_datagrams(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = text)] address: String,
        handler: Option<&Bound<'_, PyAny>>,
        token: Option<Py<PyAny>>,
    ) -> PyResult<PyDatagramSocket> {
        let core = self.0.get()?;
        let connect = |token| Ok(core.handle(py)?.connect_datagrams(&address, token));
        core.open_socket(py, handler, token, connect).map(PyDatagramSocket)
    }

    /// Starts a program, whose standard streams are connections of this loop and whose end is an event, and
    /// returns its pid, stdin, stdout and stderr: an omnipoll.programs.Program.
    ///
    /// args: its words, the program first, which is looked for in PATH. handler: for the streams; without it,
    /// the loop's. They open as what was connected does; close() of stdin has the program see
    /// the end of its input. pipes: the streams that are connections; the others are None, and are the
    /// program's as options say. token: any object, which the streams, their events and the program's end
    /// have; None is the Program. options: further ones of subprocess.Popen, such as env and cwd.
    ///
    /// The end comes to on_event of the loop's handler, or is returned by wait(): kind is CHILD, and
    /// os.waitstatus_to_exitcode(value) its exit status. It may be called in a call of the loop's.
    ///
    /// Raises ValueError for what is no stream and after a stop, OSError (ENOENT, EACCES) when the program
    /// can't be run and (EMFILE, EAGAIN, ENOMEM) as the system says, RuntimeError in on_datagram.
    ///
    /// >>> import omnipoll
    /// >>> with omnipoll.Loop() as loop:
    /// ...     program = loop.spawn(["tr", "a-z", "A-Z"], pipes=["stdin", "stdout"])
    /// ...     _ = program.stdin.write(b"hello")
    /// ...     program.stdin.close()
    /// ...     ended = False
    /// ...     while not ended or program.stdout.is_open:
    /// ...         for event in loop.wait():
    /// ...             if event.kind == omnipoll.DATA:
    /// ...                 print(event.data)
    /// ...             elif event.kind == omnipoll.ENDED:
    /// ...                 event.connection.close()
    /// ...             elif event.kind == omnipoll.CHILD:
    /// ...                 ended = event.token is program and event.value == 0
    /// b'HELLO'
    #[pyo3(
        signature = (args, handler=None, **options),
        text_signature = "($self, args, handler=None, *, pipes=('stdin', 'stdout', 'stderr'), token=None, \
                          **options)"
    )]
    fn spawn<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyAny>,
        handler: Option<&Bound<'py, PyAny>>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let core = slf.get().0.get()?;
        core.check_thread()?;
        core.handle(slf.py())?;
        slf.py().import("omnipoll.programs")?.call_method("spawn", (slf, args, handler), options)
    }

    /// The sockets of its "udp:" addresses, the oldest first: a list of DatagramSocket.
    #[getter]
    fn datagram_sockets(&self, py: Python<'_>) -> PyResult<Vec<PyDatagramSocket>> {
        let sockets = self.0.get()?.with(py, |event_loop| event_loop.datagram_sockets())?;
        Ok(sockets.into_iter().map(PyDatagramSocket).collect())
    }

    /// The Poller that the loop waits on: its add(), timer_add(), signal_add(), child_add() and post() are
    /// for the program's own, whose events come to on_event, or are returned by wait(). wait(), close(),
    /// fileno() and after_fork() are the loop's and raise PermissionError.
    #[getter]
    fn poller(&self, py: Python<'_>) -> PyResult<Py<PyPoller>> {
        Ok(self.0.get()?.shared.poller.clone_ref(py))
    }

    /// Runs until stop() is called and every connection has ended, and calls the handlers.
    ///
    /// Other threads run meanwhile. In the main thread handlers of signals run as usual: a
    /// KeyboardInterrupt comes out of run(), as SystemExit does and every other BaseException that is no
    /// Exception, wherever in a handler it was raised; the loop can continue after it. Any other exception
    /// in a call for a connection goes to logging.getLogger("omnipoll") with its traceback and ends that
    /// connection, and nothing else.
    ///
    /// Raises ValueError when there is no handler, RuntimeError in a call of the loop's, OSError
    /// (EOWNERDEAD) in a forked child.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        self.0
            .get()?
            .run_by_handler(py, |event_loop, shared| {
                while event_loop.run_once(None)? && !shared.ending.is_set() {}
                Ok(true)
            })
            .map(drop)
    }

    /// Waits once, for no longer than timeout seconds (None: without limit), and calls the handlers with
    /// what has come. False when the loop was stopped and every connection has ended. It returns after
    /// every wait, also when nothing has come that a handler is called for. Raises as run().
    #[pyo3(signature = (timeout=None))]
    fn run_once(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let timeout = timeout_of(timeout)?;
        self.0.get()?.run_by_handler(py, |event_loop, _| event_loop.run_once(timeout))
    }

    /// Waits until something has happened, for no longer than timeout seconds (None: without limit), and
    /// returns it: a list of LoopEvent, empty when time was up, or the loop was stopped and has no
    /// connections any more. No handler is called.
    ///
    /// max_events: at most so many, and at least one; the rest is returned by the next call, at once.
    /// Connections whose peer has ended its direction (ENDED) are to be closed.
    ///
    /// Other threads run meanwhile. A signal's handler runs at once; the wait then continues, unless the
    /// handler raised an exception (Ctrl-C does).
    ///
    /// Raises ValueError for a negative timeout, and when the loop is closed; RuntimeError in a call of
    /// the loop's; OSError (EOWNERDEAD) in a forked child.
    ///
    /// >>> import omnipoll, socket
    /// >>> with omnipoll.Loop() as loop:
    /// ...     host, port = loop.listen("127.0.0.1:0").split(":")
    /// ...     client = socket.create_connection((host, int(port)))
    /// ...     client.sendall(b"hello"); client.shutdown(socket.SHUT_WR)
    /// ...     ended = False
    /// ...     while not ended:
    /// ...         for event in loop.wait():
    /// ...             if event.kind == omnipoll.DATA:
    /// ...                 _ = event.connection.write(event.data)
    /// ...             elif event.kind == omnipoll.ENDED:
    /// ...                 event.connection.close()
    /// ...             elif event.kind == omnipoll.CLOSED:
    /// ...                 ended = True
    /// ...     print(client.recv(100)); client.close()
    /// b'hello'
    #[pyo3(signature = (timeout=None, max_events=None))]
    fn wait<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
        #[pyo3(from_py_with = number)] max_events: Option<isize>,
    ) -> PyResult<Bound<'py, PyList>> {
        let timeout = timeout_of(timeout)?;
        let most = max_events.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(0));
        if most == 0 {
            return Err(PyValueError::new_err("max_events must be at least 1"));
        }
        let core = self.0.get()?;
        core.drive(
            py,
            Mode::Pulled,
            |event_loop, shared| pull(event_loop, shared, timeout),
            |handler| handler.pulled().take(py, &core.shared, most),
        )
    }

    /// Stops the loop, for good: it accepts no more, each connection's handler is called with on_stop
    /// (pulled, STOPPING is returned), and connections have drain seconds to finish (None: as long as they
    /// like; 0: none at all) before they are reset. run() returns when the last has ended. A second call
    /// sets a new limit. Any thread may call it.
    #[pyo3(signature = (drain=None))]
    fn stop(&self, py: Python<'_>, #[pyo3(from_py_with = number)] drain: Option<f64>) -> PyResult<()> {
        let drain = convert::optional_span(drain, "drain")?;
        self.0.get()?.handle(py)?.stop(drain).map_err(error)
    }

    /// Has a bytes-like object written to every connection of the loop that has room for it, to those that it
    /// has connected too, and returns to how many. They are sent when the loop waits next. Any thread may
    /// call it.
    ///
    /// group: only to the connections that have joined it by Connection.join(). exclude: a Connection that
    /// is left out, usually the one that has sent the data. Where more than high_water bytes wait then,
    /// on_drain is called, or DRAINED returned, as after a write().
    ///
    /// Raises ValueError when group is no name of a group and when the loop is closed, OSError (EOWNERDEAD)
    /// in a forked child.
    #[pyo3(signature = (data, *, group=None, exclude=None))]
    fn broadcast(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = optional_text)] group: Option<String>,
        exclude: Option<&Bound<'_, PyConnection>>,
    ) -> PyResult<usize> {
        let (handle, data) = (self.0.get()?.handle(py)?, Bytes::of(data)?);
        let exclude = exclude.map(|connection| connection.get().core_id());
        handle.broadcast_in(group.as_deref(), &data, exclude).map_err(error)
    }

    /// A descriptor for an outer loop, such as GLib's, Qt's or asyncio's: readable while there is something
    /// to do, timers and posts too, and at times for nothing. Whenever it is, call run_once(0) or wait(0).
    /// It belongs to the loop, and is the same at each call.
    ///
    /// Raises OSError (ENOTSUP) on select and poll, RuntimeError in a call of the loop's.
    ///
    /// >>> import asyncio, omnipoll
    /// >>> class Tea:
    /// ...     def on_event(self, loop, event):
    /// ...         print(event.token)
    /// ...         asyncio.get_running_loop().stop()
    /// >>> outer = asyncio.new_event_loop()
    /// >>> with omnipoll.Loop("epoll", handler=Tea()) as loop:
    /// ...     id = loop.poller.timer_add(0.001, token="tea")
    /// ...     outer.add_reader(loop.fileno(), loop.run_once, 0)
    /// ...     outer.run_forever()
    /// ...     _ = outer.remove_reader(loop.fileno())
    /// tea
    /// >>> outer.close()
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        let descriptor = |event_loop: &mut EventLoop<_>| event_loop.descriptor().map(|fd| fd.as_raw_fd());
        self.0.get()?.with(py, descriptor)?.map_err(error)
    }

    /// Closes the loop: its connections are reset, with on_close (ECANCELED) for those whose handlers are
    /// called, and everything is released. Closing twice is closing once. In a call of the loop's it is
    /// done when run() or wait() is about to return, at once.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let Some(core) = self.0.get_opt() else { return Ok(()) };
        if core.is_closed(py) {
            return Ok(());
        }
        match core.take(py) {
            Ok(event_loop) => {
                core.close_later();
                core.put_back(py, event_loop);
                Ok(())
            }
            Err(not_here) => {
                core.check_thread().map_err(|_| not_here)?;
                core.close_later();
                self.stop(py, Some(0.0))
            }
        }
    }

    /// Whether close() was called.
    #[getter]
    fn closed(&self, py: Python<'_>) -> PyResult<bool> {
        let core = self.0.get()?;
        Ok(core.is_closed(py) || core.is_closing())
    }

    /// The name of the engine.
    #[getter]
    fn engine(&self) -> PyResult<&'static str> {
        Ok(self.0.get()?.engine.name())
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

    fn __repr__(&self, py: Python<'_>) -> String {
        let Some(core) = self.0.get_opt() else { return "<omnipoll.Loop, not initialized>".into() };
        let state = if core.is_closed(py) { ", closed" } else { "" };
        format!("<omnipoll.Loop on {}{state}>", core.engine.name())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.get_opt().map_or(Ok(()), |core| core.shared.traverse(&visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        if let Some(core) = self.0.get_opt() {
            core.close(py, false);
        }
    }
}

impl Drop for PyLoop {
    /// No handler is called for a loop that was not closed.
    fn drop(&mut self) {
        protect_thread();
        let Some(core) = self.0.get_opt() else { return };
        // It fails when the interpreter has ended: nothing is released then.
        let _ = Python::try_attach(|py| {
            let pending = PyErr::take(py);
            core.close(py, false);
            pending.into_iter().for_each(|error| error.restore(py));
        });
    }
}
