//! The Python class `Server`, but for its context manager, which is Python.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::sync::{Arc, OnceLock, Weak};

use omnipoll::{Model, Restart, Server, ServerHandle, ServerOptions, StartedServer};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use crate::bytes::Bytes;
use crate::connection::PyConnection;
use crate::convert::{self, error, not_known, number, optional_text, text};
use crate::datagram_socket::PyDatagramSocket;
use crate::event_loop::timeout_of;
use crate::finalization::{attach, protect_thread};
use crate::forking;
use crate::handler::PyHandler;
use crate::init_cell::InitCell;
use crate::keywords::Keywords;
use crate::log;
use crate::server_steps::{not_started, Steps};
use crate::statistics::PyServerStats;

/// The native half of omnipoll.Server.
#[pyclass(frozen, subclass, weakref, name = "Server", module = "omnipoll._native")]
pub(crate) struct PyServer(InitCell<Serving>);

struct Serving {
    server: Server<PyHandler>,
    handle: ServerHandle,
    drain: Option<f64>,
    /// What the core has a weak reference to: it knows nothing of the garbage collector.
    on_restart: Option<Arc<Py<PyAny>>>,
    /// When it is run step by step.
    steps: OnceLock<Steps>,
}

#[pymethods]
impl PyServer {
    #[new]
    #[pyo3(
        signature = (*_arguments, **_keywords),
        text_signature = "(handler, address=None, *, model='reactor', engine='auto', workers=None, \
                          max_clients=None, backlog=4096, reuse_port=None, queue_limit=16777216, \
                          total_queue_limit=268435456, high_water=65536, low_water=16384, \
                          idle_timeout=None, read_timeout=None, write_timeout=60.0, linger=2.0, \
                          signals=False, drain=10.0, wait_policy='balanced', \
                          proxy_header=None, allow='', deny='', max_address_clients=None, \
                          max_address_rate=None, max_receive_rate=None, keep_alive=None, \
                          no_delay=True, receive_buffer=None, send_buffer=None, defer_accept=None, \
                          fast_open=None, free_bind=False, transparent=False, multicast='', \
                          unix_mode=None, unix_owner=None, pin_workers=False, notify=False, \
                          restart=None, restart_timeout=60.0, on_restart=None, \
                          clients_per_worker=None, clients_jitter=0, hang_timeout=None)"
    )]
    fn new(_arguments: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> Self {
        Self(InitCell::new())
    }

    #[pyo3(signature = (handler, address=None, **options))]
    fn __init__(
        &self,
        handler: &Bound<'_, PyAny>,
        address: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let py = handler.py();
        convert::check_greenlets(py)?;
        let keywords = Keywords::new(options);
        let engine: Option<String> = keywords.take("engine")?.flatten();
        let each_loop = keywords.loop_options(py, engine.as_deref())?;
        let mut options = ServerOptions::new().each_loop(each_loop).around_fork(forking::around());
        if let Some(model) = keywords.take::<String>("model")? {
            options = options.model(model_of(py, &model)?);
        }
        options = keywords.set_unless_none(options, "workers", ServerOptions::workers)?;
        options = keywords.set_unless_none(options, "reuse_port", ServerOptions::reuse_port)?;
        options = socket_options(&keywords, options)?;
        options = keywords.set(options, "signals", ServerOptions::signals)?;
        options = keywords.set(options, "notify", ServerOptions::notify)?;
        let on_restart: Option<Py<PyAny>> = keywords.take("on_restart")?.flatten();
        let on_restart = on_restart.map(Arc::new);
        if let Some(restart) = restart(&keywords, on_restart.as_ref())? {
            options = options.restart(restart);
        }
        let jitter = keywords.take("clients_jitter")?.unwrap_or(0);
        let set_clients = |options: ServerOptions, clients| options.clients_per_worker(clients, jitter);
        options = keywords.set_unless_none(options, "clients_per_worker", set_clients)?;
        if let Some(limit) = keywords.take_span("hang_timeout")?.flatten() {
            options = options.hang_timeout(limit);
        }
        let drain = keywords.take("drain")?.unwrap_or(Some(10.0));
        options = options.drain(convert::optional_span(drain, "drain")?);
        keywords.finish("check_options")?;
        let serving = Serving::new(handler, options, drain, on_restart)?;
        for address in addresses(address)? {
            serving.server.listen(&address).map_err(error)?;
        }
        self.0.make(serving)
    }

    /// Listens on one more address, and returns it with the port that the system has chosen
    /// where it was 0. Clients wait in the socket's queue until run().
    ///
    /// Raises ValueError for what is no address, OSError (EADDRINUSE, EADDRNOTAVAIL, EACCES) as
    /// the system says, OSError (ENOTSUP) for datagrams under "thread" and "fork".
    fn listen(&self, #[pyo3(from_py_with = text)] address: String) -> PyResult<String> {
        self.0.get()?.server.listen(&address).map_err(error)
    }

    /// The addresses it listens on, with their real ports: a list of strings.
    #[getter]
    fn addresses(&self) -> PyResult<Vec<String>> {
        Ok(self.0.get()?.handle.addresses())
    }

    /// Serves until stop() is called and every client has gone: see omnipoll.Server.run().
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        let server = &self.0.get()?.server;
        forking::serve_here();
        let served = py.detach(|| server.run());
        match server.handler().ending.take(py) {
            Some(ending) => Err(ending),
            None => served.map_err(error),
        }
    }

    /// Starts to serve step by step in this thread, in the place of run(): nothing is served but in
    /// run_once(). on_worker_start is called here. It is for loops of the program's own and of other
    /// libraries, and "reactor" alone. A server that is dropped before run_once() has returned False resets its
    /// connections without a call of the handler.
    ///
    /// Raises ValueError the second time and after run(), OSError (ENOTSUP) under another model, OSError as
    /// the system says, and what on_worker_start has raised.
    fn start(&self, py: Python<'_>) -> PyResult<()> {
        let serving = self.0.get()?;
        let steps = Steps::start(py, &serving.server)?;
        // It was empty: a server starts once.
        let _ = serving.steps.set(steps);
        Ok(())
    }

    /// After start(), in its thread: waits once, for no longer than timeout seconds (None: without limit),
    /// and serves what has come. False when the server was stopped and every client has gone, then and from
    /// then on. It returns after every wait, also when what came was the server's own business.
    ///
    /// What comes out of it as it does out of run(), such as a KeyboardInterrupt, has stopped the server at
    /// once: the next steps end it. Raises ValueError before start(), PermissionError in another thread,
    /// RuntimeError in a call of the server's, OSError (EOWNERDEAD) in a forked child.
    ///
    /// >>> import omnipoll, socket
    /// >>> class Shout:
    /// ...     def on_data(self, connection, data):
    /// ...         connection.write(data.upper())
    /// ...     def on_close(self, connection, error):
    /// ...         server.stop()
    /// >>> server = omnipoll.Server(Shout(), "127.0.0.1:0")
    /// >>> server.start()
    /// >>> host, port = server.addresses[0].split(":")
    /// >>> client = socket.create_connection((host, int(port)))
    /// >>> client.sendall(b"hello"); client.shutdown(socket.SHUT_WR)
    /// >>> while server.run_once():
    /// ...     pass
    /// >>> client.recv(100); client.close()
    /// b'HELLO'
    #[pyo3(signature = (timeout=None))]
    fn run_once(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let timeout = timeout_of(timeout)?;
        let serving = self.0.get()?;
        let ending = &serving.server.handler().ending;
        serving.step(py, |started| match started.run_once(timeout) {
            Err(error) if ending.is_of_interrupt(&error) => Ok(false),
            result => result,
        })
    }

    /// After start(), in its thread: a descriptor for an outer loop, as that of Loop.fileno(). Whenever it is
    /// readable, call run_once(0). It belongs to the server, and is the same at each call.
    ///
    /// Raises OSError (ENOTSUP) on select and poll, else as run_once().
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        self.0.get()?.step(py, |started| started.descriptor().map(|fd| fd.as_raw_fd()))
    }

    /// Stops the server: no new clients, while those that are served have drain seconds to
    /// finish (None: as long as they like; 0: none at all) before their connections are reset.
    /// It counts if it comes before run(), too; a second call sets a new limit. Any thread may
    /// call it; in a process that "fork" or "prefork" has forked it ends that process's serving
    /// only.
    #[pyo3(signature = (drain=None))]
    fn stop(&self, #[pyo3(from_py_with = number)] drain: Option<f64>) -> PyResult<()> {
        let drain = convert::optional_span(drain, "drain")?;
        self.0.get()?.handle.stop(drain).map_err(error)
    }

    /// Has a bytes-like object written to every connection that has room for it, and returns to
    /// how many; the others are counted in stats().total.writes_refused. Any thread may call it.
    ///
    /// group: only to the connections that have joined it by Connection.join(); it takes as long as they
    /// are many, however many others there are. exclude: a Connection that is left out, usually the one
    /// that has sent the data. Where more than high_water bytes wait then, on_drain is called, as after a
    /// write().
    ///
    /// Raises OSError (ENOTSUP) under "fork" and "prefork", whose processes don't reach each
    /// other's clients, and ValueError when group is no name of a group.
    #[pyo3(signature = (data, *, group=None, exclude=None))]
    fn broadcast(
        &self,
        data: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = optional_text)] group: Option<String>,
        exclude: Option<&Bound<'_, PyConnection>>,
    ) -> PyResult<usize> {
        let (handle, data) = (&self.0.get()?.handle, Bytes::of(data)?);
        let exclude = exclude.map(|connection| connection.get().core_id());
        handle.broadcast_in(group.as_deref(), &data, exclude).map_err(error)
    }

    /// What the server has counted, under "fork" and "prefork" in all its processes: a
    /// ServerStats.
    fn stats(&self) -> PyResult<PyServerStats> {
        Ok(PyServerStats(self.0.get()?.handle.stats()))
    }

    /// The sockets of its "udp:" addresses in their order, for one loop after another, because under
    /// "cores" and "prefork" each loop has a duplicate of each: a list of DatagramSocket. Empty before
    /// the loops run and after a stop; under "prefork" each process has its own.
    #[getter]
    fn datagram_sockets(&self) -> PyResult<Vec<PyDatagramSocket>> {
        Ok(self.0.get()?.handle.datagram_sockets().into_iter().map(PyDatagramSocket).collect())
    }

    /// A duplicate of the socket at addresses[number], as a descriptor that the caller owns: to set
    /// an option, or for a new process that takes over without a moment in which nothing listens. Give
    /// that one the descriptors from 3 on and their number in LISTEN_FDS, let it listen on "systemd",
    /// and stop this one when it serves. Nothing else changes: see keep_files().
    ///
    /// Raises FileNotFoundError when there is none of that number (after a stop there is none at
    /// all), OSError (EMFILE) as the system says.
    #[pyo3(signature = (number=0))]
    fn dup_listener(&self, #[pyo3(from_py_with = number)] number: usize) -> PyResult<i32> {
        self.0.get()?.handle.dup_listener(number).map(IntoRawFd::into_raw_fd).map_err(error)
    }

    /// Leaves the files of its unix sockets where they are when it stops: they lead to another
    /// process, which has duplicates of the sockets.
    fn keep_files(&self) -> PyResult<()> {
        self.0.get()?.handle.keep_files();
        Ok(())
    }

    /// Has a new process replace this server, as restart of its options says: no client is refused or lost over
    /// it. With signals=True, SIGHUP does the same. The new process gets duplicates of all the sockets; where
    /// it listens on the same address, by the same text, it has these. "systemd" is those that no other address
    /// has taken by then; what is left when it begins to serve is closed.
    ///
    /// This server serves until the workers of the new one have all begun to. Then it stops, with its drain, and
    /// leaves the files of unix sockets. If the new process can't be started, ends, or does not serve in time,
    /// this one goes on as before; either is reported to on_restart. A program with several servers restarts
    /// one of them only.
    ///
    /// It returns at once; any thread may call it. Raises OSError: ENOTSUP for a server without restart,
    /// EALREADY while one is in progress and when the server was replaced, EOWNERDEAD in a forked child.
    fn restart(&self) -> PyResult<()> {
        self.0.get()?.handle.restart().map_err(error)
    }

    /// Replaces the workers of "prefork", one after another: a new process serves before the old one stops
    /// accepting, and the clients of that have the drain. It returns at once; any thread may call it. A process
    /// that does not come to serve is tried again later, and the old one goes on.
    ///
    /// Raises OSError: ENOTSUP under another model, EALREADY while it is in progress, EOWNERDEAD in a forked
    /// child.
    fn restart_workers(&self) -> PyResult<()> {
        self.0.get()?.handle.restart_workers().map_err(error)
    }

    /// Sends the service manager a line of sd_notify(3), such as "STATUS=warm", or several, parted by \n.
    /// False when there is none: the server was made without notify=True, or NOTIFY_SOCKET was
    /// not set then. Any thread may call it. Raises ConnectionRefusedError, FileNotFoundError or
    /// BlockingIOError when nothing reads from that socket.
    fn notify(&self, py: Python<'_>, #[pyo3(from_py_with = text)] state: String) -> PyResult<bool> {
        let handle = &self.0.get()?.handle;
        py.detach(|| handle.notify(&state)).map_err(error)
    }

    /// The name of the engine.
    #[getter]
    fn engine(&self) -> PyResult<&'static str> {
        Ok(self.0.get()?.handle.engine().name())
    }

    /// The name of the model.
    #[getter]
    fn model(&self) -> PyResult<&'static str> {
        Ok(self.0.get()?.handle.model().name())
    }

    /// The seconds that clients have to finish after a signal, and after a with block; None is
    /// as long as they like.
    #[getter]
    fn drain(&self) -> PyResult<Option<f64>> {
        Ok(self.0.get()?.drain)
    }

    fn __repr__(&self) -> String {
        let Some(Serving { handle, .. }) = self.0.get_opt() else {
            return "<omnipoll.Server, not initialized>".into();
        };
        let (model, engine) = (handle.model().name(), handle.engine().name());
        format!("<omnipoll.Server {model} on {engine}: {}>", handle.addresses().join(" "))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(serving) = self.0.get_opt() else { return Ok(()) };
        if let Some(on_restart) = &serving.on_restart {
            visit.call(&**on_restart)?;
        }
        serving.server.handler().traverse(&visit)
    }
}

impl Serving {
    fn new(
        handler: &Bound<'_, PyAny>,
        options: ServerOptions,
        drain: Option<f64>,
        on_restart: Option<Arc<Py<PyAny>>>,
    ) -> PyResult<Self> {
        let server = Server::with_options(PyHandler::new(handler)?, options).map_err(error)?;
        let handle = server.handle();
        // It was empty.
        let _ = server.handler().server.set(handle.clone());
        Ok(Self { server, handle, drain, on_restart, steps: OnceLock::new() })
    }

    fn step<R>(
        &self,
        py: Python<'_>,
        step: impl FnOnce(&mut StartedServer<PyHandler>) -> io::Result<R>,
    ) -> PyResult<R> {
        let steps = self.steps.get().ok_or_else(not_started)?;
        steps.step(py, (self.server.handler(), &self.handle), step)
    }
}

impl Drop for PyServer {
    fn drop(&mut self) {
        protect_thread();
        let Some(serving) = self.0.get_opt() else { return };
        let Some(steps) = serving.steps.get() else { return };
        // It fails when the interpreter has ended: nothing is released then.
        let _ = Python::try_attach(|py| {
            let pending = PyErr::take(py);
            steps.discard(py, serving.server.handler());
            pending.into_iter().for_each(|error| error.restore(py));
        });
    }
}

/// The option restart and those that go with it.
fn restart(keywords: &Keywords<'_, '_>, on_restart: Option<&Arc<Py<PyAny>>>) -> PyResult<Option<Restart>> {
    let asked: Option<Bound<'_, PyAny>> = keywords.take("restart")?;
    let timeout = keywords.take("restart_timeout")?.unwrap_or(60.0);
    let mut restart = Restart::new().timeout(convert::span(timeout, "restart_timeout")?);
    if let Some(on_restart) = on_restart.map(Arc::downgrade) {
        restart = restart.on_done(move |outcome| report(&on_restart, outcome));
    }
    let Some(asked) = asked.filter(|asked| !asked.is_none()) else { return Ok(None) };
    if let Ok(is_wanted) = asked.cast::<PyBool>() {
        return Ok(is_wanted.is_true().then_some(restart));
    }
    let words: Vec<OsString> = match asked.is_instance_of::<PyString>() {
        true => return Err(PyTypeError::new_err("restart is True, or a sequence of strings")),
        false => asked.extract()?,
    };
    let (program, arguments) =
        words.split_first().ok_or_else(|| PyValueError::new_err("restart has no program"))?;
    Ok(Some(restart.program(program).arguments(arguments)))
}

fn report(on_restart: &Weak<Py<PyAny>>, outcome: io::Result<i32>) {
    let outcome = outcome.map_err(error);
    attach(|py| {
        let Some(on_restart) = on_restart.upgrade() else { return };
        let (process, failure) = match outcome {
            Ok(process) => (Some(process), None),
            Err(failure) => (None, Some(failure)),
        };
        if let Err(failed) = on_restart.call1(py, (process, failure)) {
            log::exception(py, failed, format_args!("on_restart"));
        }
    });
}

/// What is set on its sockets.
fn socket_options(keywords: &Keywords<'_, '_>, options: ServerOptions) -> PyResult<ServerOptions> {
    let mut options = options;
    if let Some((idle, interval, count)) = keywords.take::<Option<(f64, f64, u32)>>("keep_alive")?.flatten() {
        let span = |seconds| convert::span(seconds, "keep_alive");
        options = options.keep_alive(span(idle)?, span(interval)?, count);
    }
    options = keywords.set(options, "no_delay", ServerOptions::no_delay)?;
    options = keywords.set_unless_none(options, "receive_buffer", ServerOptions::receive_buffer)?;
    options = keywords.set_unless_none(options, "send_buffer", ServerOptions::send_buffer)?;
    if let Some(time) = keywords.take_span("defer_accept")?.flatten() {
        options = options.defer_accept(time);
    }
    options = keywords.set_unless_none(options, "fast_open", ServerOptions::fast_open)?;
    options = keywords.set(options, "free_bind", ServerOptions::free_bind)?;
    options = keywords.set(options, "transparent", ServerOptions::transparent)?;
    options = keywords.set_text(options, "multicast", ServerOptions::multicast)?;
    options = keywords.set_unless_none(options, "unix_mode", ServerOptions::unix_mode)?;
    if let Some((user, group)) = keywords.take::<Option<(Option<u32>, Option<u32>)>>("unix_owner")?.flatten()
    {
        options = options.unix_owner(user, group);
    }
    keywords.set(options, "pin_workers", ServerOptions::pin_workers)
}

fn model_of(py: Python<'_>, name: &str) -> PyResult<Model> {
    Model::from_name(name).ok_or_else(|| not_known(py, "model", name, Model::ALL.map(Model::name)))
}

/// One address, several, or none.
fn addresses(given: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<String>> {
    match given {
        None => Ok(Vec::new()),
        Some(one) if one.is_instance_of::<PyString>() => Ok(vec![one.extract()?]),
        Some(several) => several.extract().map_err(|_| not_addresses(several)),
    }
}

fn not_addresses(given: &Bound<'_, PyAny>) -> PyErr {
    let example = match given.extract::<(String, u16)>() {
        Ok((host, port)) if host.contains(':') => format!("[{host}]:{port}"),
        Ok((host, port)) => format!("{host}:{port}"),
        Err(_) => "127.0.0.1:8080".to_owned(),
    };
    PyTypeError::new_err(format!("an address is a string such as '{example}', and not {given:?}"))
}
