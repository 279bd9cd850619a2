//! The Python class `Connection`.

mod home;
mod making;

use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};

use omnipoll::{Address, Conn, ConnId, Frame, ProxyVersion, Timeout};
use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

pub(crate) use self::home::{not_here, Home};
use crate::address::to_python;
use crate::bytes::Bytes;
use crate::convert::{self, descriptor, error, number, text};
use crate::current;
use crate::fastcall::{Argument, Method};
use crate::finalization::protect_thread;
use crate::gil_cell::GilCell;

/// A connection of a server or of a Loop: the same object in every call of the handler, from on_open to
/// on_close. It takes any attribute, and is the place for what is known of the peer. It has no
/// subclasses but those that declare such attributes to a type checker, `if TYPE_CHECKING`: the
/// handler's methods may take the connection as one of these.
///
/// write(), writelines(), close(), abort(), shutdown(), pause(), resume(), post(), join(), leave(),
/// set_idle_timeout(), set_read_timeout(), set_write_timeout() and is_open may be used on any thread; when
/// the connection is gone they raise OSError (ESTALE), and BlockingIOError when too many calls from other
/// threads wait for its loop. Everything that looks into the connection works where its loop makes a call, of
/// this connection's or of another's or on_event, and of a Loop also between its waits, in its own thread;
/// it raises PermissionError elsewhere. There, what is done to a connection is done at once.
#[pyclass(frozen, dict, weakref, name = "Connection", module = "omnipoll")]
pub(crate) struct PyConnection {
    number: ConnId,
    /// The peer's; not known before the connection is open.
    address: OnceLock<Address>,
    loop_number: usize,
    is_outgoing: bool,
    /// What listen() or connect() was given, or the program has set.
    token: GilCell<Option<Py<PyAny>>>,
    home: Arc<dyn Home>,
    fd: AtomicI32,
    /// The handler has ended our direction.
    closed: AtomicBool,
    /// The system has ended the connection, as a write has found.
    broken: AtomicBool,
}

impl Drop for PyConnection {
    fn drop(&mut self) {
        protect_thread();
    }
}

impl PyConnection {
    /// Acts on the connection itself: in a callback of its loop, and between the waits of a Loop.
    #[inline]
    fn directly<R>(&self, py: Python<'_>, act: impl FnOnce(&mut Conn<'_>) -> R) -> Option<R> {
        let mut act = Some(act);
        let mut done = None;
        let mut once = |conn: &mut Conn<'_>| done = act.take().map(|act| act(conn));
        if current::connection(self.number, &mut once).is_none() {
            self.home.with_idle(py, self.number, &mut once);
        }
        done
    }

    fn here<R>(&self, py: Python<'_>, act: impl FnOnce(&mut Conn<'_>) -> R) -> PyResult<R> {
        protect_thread();
        self.directly(py, act).ok_or_else(|| not_here(self.number))
    }

    /// Acts on it directly where that is possible, and through its id elsewhere.
    fn anywhere(
        &self,
        py: Python<'_>,
        here: impl FnOnce(&mut Conn<'_>),
        elsewhere: impl FnOnce(ConnId) -> io::Result<()>,
    ) -> PyResult<()> {
        let here = |conn: &mut Conn<'_>| {
            here(conn);
            Ok(())
        };
        self.try_anywhere(py, here, elsewhere)
    }

    fn try_anywhere(
        &self,
        py: Python<'_>,
        here: impl FnOnce(&mut Conn<'_>) -> io::Result<()>,
        elsewhere: impl FnOnce(ConnId) -> io::Result<()>,
    ) -> PyResult<()> {
        protect_thread();
        self.directly(py, here).unwrap_or_else(|| elsewhere(self.number)).map_err(error)
    }

    #[inline]
    fn write_bytes(&self, py: Python<'_>, data: &[u8]) -> PyResult<usize> {
        match self.directly(py, |conn| conn.write(data)) {
            Some(Ok(queued)) => Ok(queued),
            Some(Err(refused)) => Err(self.refused(refused)),
            None => self.number.write(data).map_err(error),
        }
    }

    /// Ends our direction, in one way or another.
    fn finish(&self, conn: &mut Conn<'_>, finish: impl FnOnce(&mut Conn<'_>)) {
        self.closed.store(true, Ordering::Relaxed);
        finish(conn);
    }

    /// What a write has come to. Most errors are the connection's end.
    #[cold]
    fn refused(&self, refused: io::Error) -> PyErr {
        let continues = match refused.raw_os_error() {
            Some(libc::ENOBUFS | libc::ENOMEM | libc::EMFILE | libc::EBADF) => true,
            Some(libc::EPIPE) => self.closed.load(Ordering::Relaxed),
            _ => false,
        };
        self.broken.fetch_or(!continues, Ordering::Relaxed);
        error(refused)
    }
}

#[pymethods]
impl PyConnection {
    /// write() of several bytes-like objects one after another.
    fn writelines(&self, py: Python<'_>, lines: &Bound<'_, PyAny>) -> PyResult<usize> {
        protect_thread();
        let mut all = Vec::new();
        for line in lines.try_iter()? {
            all.extend_from_slice(&Bytes::of(&line?)?);
        }
        self.write_bytes(py, &all)
    }

    /// Sends a stretch of a file after what is queued, by sendfile(2): it does not pass through
    /// this process's memory.
    ///
    /// file: an open file, or anything else with fileno(), or a descriptor; it may be closed at
    /// once. offset: where it begins. length: how many bytes; None is up to the file's present
    /// end. A file that turns out to be shorter when they are sent ends the connection.
    ///
    /// Raises BrokenPipeError as write(), OSError (EMFILE) when the file can't be duplicated, and
    /// (ENOBUFS) when 16 files wait on this connection.
    #[pyo3(signature = (file, offset=0, length=None))]
    fn send_file(
        &self,
        py: Python<'_>,
        file: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = number)] offset: u64,
        #[pyo3(from_py_with = number)] length: Option<u64>,
    ) -> PyResult<()> {
        let fd = descriptor(file)?;
        // SAFETY: the caller's file stays open during the call; a number that is not open is
        // the system's to refuse.
        let file = unsafe { BorrowedFd::borrow_raw(fd) };
        let length = match length {
            Some(length) => length,
            None => size_of(file).map_err(error)?.saturating_sub(offset),
        };
        self.here(py, |conn| conn.send_file(&file, offset, length))?.map_err(|refused| self.refused(refused))
    }

    /// Ends the connection cleanly: what is queued is sent, and the peer sees the end and
    /// has the server's linger time to read it all. No more data comes to the handler.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.anywhere(py, |conn| self.finish(conn, |conn| conn.close()), ConnId::close)
    }

    /// Ends the connection at once: what is queued is thrown away, and the peer sees a reset.
    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        self.anywhere(py, |conn| self.finish(conn, |conn| conn.abort()), ConnId::abort)
    }

    /// Ends our direction when what is queued has been sent: the peer sees the end of our data,
    /// and its own still arrives.
    fn shutdown(&self, py: Python<'_>) -> PyResult<()> {
        self.anywhere(py, |conn| self.finish(conn, |conn| conn.shutdown()), ConnId::shutdown)
    }

    /// Takes no more data from the peer, which eventually can't send either.
    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        self.anywhere(py, |conn| conn.pause(), ConnId::pause)
    }

    /// Takes data again.
    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.anywhere(py, |conn| conn.resume(), ConnId::resume)
    }

    /// Has another connection of the same loop send on all that this one receives from now on, instead of
    /// on_data: a proxy is made of two relays. While more than high_water bytes wait to be sent on the
    /// other, nothing is read from this one. The peer's end ends the other's direction when all is sent, as
    /// shutdown() does. When one of the two fails or is aborted, the other is reset; when one has ended
    /// cleanly, the other is closed.
    /// Each one's on_close is called.
    ///
    /// Raises OSError (ESTALE) when the other has ended or is of another loop, (EBUSY) when another is
    /// relayed to that one, PermissionError where the connection can't be looked into.
    fn relay_to(&self, py: Python<'_>, other: &Bound<'_, PyConnection>) -> PyResult<()> {
        let other = other.get().core_id();
        self.here(py, |conn| conn.relay_to(other))?.map_err(error)
    }

    /// Writes a header of the PROXY protocol, of version 1 or 2, to a server behind this one: it says what
    /// peer and local are of client, a Connection of the same loop, which may have them from such a header
    /// itself. It must be the first that is written. None, and a client of a unix socket: the header says that
    /// they are not known.
    ///
    /// Raises ValueError for another version, OSError (ESTALE) when client has ended or is of another loop,
    /// else as write(); PermissionError where the connection can't be looked into.
    #[pyo3(signature = (version, client=None))]
    fn write_proxy_header(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = number)] version: u32,
        client: Option<&Bound<'_, PyConnection>>,
    ) -> PyResult<usize> {
        let version = match version {
            1 => ProxyVersion::V1,
            2 => ProxyVersion::V2,
            _ => return Err(PyValueError::new_err("the PROXY protocol has versions 1 and 2")),
        };
        let client = client.map(|client| client.get().core_id());
        self.here(py, |conn| conn.write_proxy_header(version, client))?.map_err(error)
    }

    /// Has the handler's on_post(connection, value) called on the connection's own loop. value:
    /// an int of 64 bits. Raises BlockingIOError when 16,384 posts and writes from other threads
    /// wait for that loop: post again later.
    fn post(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let number =
            number(value).map_err(|error: PyErr| match error.is_instance_of::<PyTypeError>(value.py()) {
                true => PyTypeError::new_err(format!(
                    "post() takes an int, not {value:?}: leave it in an attribute of the connection"
                )),
                false => error,
            })?;
        self.number.post(number).map_err(error)
    }

    /// Joins a group, to whose members broadcast(data, group=...) of its server or Loop writes. group: a
    /// str of 1 to 255 bytes in UTF-8. A connection that is in it already stays in it; it leaves all its
    /// groups when it ends. Raises ValueError for another name, and OSError (ENOBUFS) when the connection is in 64 groups.
    fn join(&self, py: Python<'_>, #[pyo3(from_py_with = text)] group: String) -> PyResult<()> {
        self.try_anywhere(py, |conn| conn.join(&group), |id| id.join(&group))
    }

    /// Leaves a group. Nothing happens if the connection isn't in it. Raises ValueError as join().
    fn leave(&self, py: Python<'_>, #[pyo3(from_py_with = text)] group: String) -> PyResult<()> {
        self.try_anywhere(py, |conn| conn.leave(&group), |id| id.leave(&group))
    }

    /// What no other connection of this process ever has: an int.
    #[getter]
    fn id(&self) -> u64 {
        self.number.number()
    }

    /// The address of the other end: "127.0.0.1:5000", "[::1]:5000", "unix:/path", "unix:" for a unix
    /// socket without a name.
    #[getter]
    fn peer(&self) -> PyResult<String> {
        Ok(self.address()?.to_string())
    }

    /// The same as the socket module has it: ("127.0.0.1", 5000), ("::1", 5000, 0, 0), "/path", "" for a
    /// unix socket without a name, b"\\0name" for an abstract name.
    #[getter]
    fn peername(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        to_python(self.address()?, py)
    }

    /// The address that the client came to, written as peer is. In a call of the handler.
    #[getter]
    fn local(&self, py: Python<'_>) -> PyResult<String> {
        self.here(py, |conn| conn.local())?.map(|local| local.to_string()).map_err(error)
    }

    /// The same as peername has it. In a call of the handler.
    #[getter]
    fn sockname(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        to_python(&self.here(py, |conn| conn.local())?.map_err(error)?, py)
    }

    /// How many bytes wait in memory to be sent. In a call of the handler.
    #[getter]
    fn queued(&self, py: Python<'_>) -> PyResult<usize> {
        self.here(py, |conn| conn.queued())
    }

    /// Whether pause() is in force. In a call of the handler.
    #[getter]
    fn is_paused(&self, py: Python<'_>) -> PyResult<bool> {
        self.here(py, |conn| conn.is_paused())
    }

    /// Whether the peer has ended its direction. In a call of the handler.
    #[getter]
    fn has_ended(&self, py: Python<'_>) -> PyResult<bool> {
        self.here(py, |conn| conn.has_ended())
    }

    /// Whether the server is stopping: an answer may be the last. In a call of the handler.
    #[getter]
    fn is_stopping(&self, py: Python<'_>) -> PyResult<bool> {
        self.here(py, |conn| conn.is_stopping())
    }

    /// Whether the connection is there at this moment; on any thread.
    #[getter]
    fn is_open(&self) -> bool {
        self.number.is_open()
    }

    /// The number of the loop or process that serves it, as in Server.stats().workers.
    #[getter]
    fn worker(&self) -> usize {
        self.loop_number
    }

    /// The socket's descriptor, for its options: reading, writing and closing are the server's.
    /// -1 after on_close.
    fn fileno(&self) -> i32 {
        self.fd.load(Ordering::Relaxed)
    }

    /// Ends this connection (on_close with TimeoutError) when nothing was read or written for
    /// so many seconds, unless on_timeout prevents it; None is without limit. The time of every
    /// timeout begins again.
    fn set_idle_timeout(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = number)] seconds: Option<f64>,
    ) -> PyResult<()> {
        self.set_timeout(py, Timeout::Idle, seconds)
    }

    /// The same when nothing was read for so long while it was being read.
    fn set_read_timeout(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = number)] seconds: Option<f64>,
    ) -> PyResult<()> {
        self.set_timeout(py, Timeout::Read, seconds)
    }

    /// The same when bytes were queued for so long and none could be sent.
    fn set_write_timeout(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = number)] seconds: Option<f64>,
    ) -> PyResult<()> {
        self.set_timeout(py, Timeout::Write, seconds)
    }

    /// Has what arrives divided after each delimiter, one to four bytes, from the next byte on that
    /// on_data has not got: on_data gets one frame in each call, which ends with the delimiter. What is
    /// incomplete is kept. A frame of more than max bytes, its delimiter included, ends the connection
    /// (on_close with OSError, EMSGSIZE). When the peer ends its direction, what is left comes without a
    /// delimiter in a last on_data, in which has_ended is true. In a call of the handler.
    fn set_frame_until(
        &self,
        py: Python<'_>,
        delimiter: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = number)] max: usize,
    ) -> PyResult<()> {
        let delimiter = Bytes::of(delimiter)?;
        self.here(py, |conn| conn.set_frame(Frame::Until { delimiter: &delimiter, max }))?.map_err(error)
    }

    /// Has what arrives divided into frames of so many bytes, as set_frame_until() does after
    /// delimiters; what is left in the end is shorter. In a call of the handler.
    fn set_frame_exactly(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = number)] length: usize,
    ) -> PyResult<()> {
        self.here(py, |conn| conn.set_frame(Frame::Exactly(length)))?.map_err(error)
    }

    /// Has what arrives kept until it is so many bytes, and then come as a whole, as set_frame_until() does;
    /// what is left in the end is shorter. 1 is set_frame_any(). In a call of the handler.
    fn set_frame_at_least(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = number)] count: usize,
    ) -> PyResult<()> {
        self.here(py, |conn| conn.set_frame(Frame::AtLeast(count)))?.map_err(error)
    }

    /// Has what arrives come as it does again, as before set_frame_until() and those beside it. In a call of
    /// the handler.
    fn set_frame_any(&self, py: Python<'_>) -> PyResult<()> {
        self.here(py, |conn| conn.set_frame(Frame::Any))?.map_err(error)
    }

    /// Begins the time of every timeout again, as if something had just been read and written. In a
    /// call of the handler.
    fn restart_timeouts(&self, py: Python<'_>) -> PyResult<()> {
        self.here(py, |conn| conn.restart_timeouts())
    }

    /// Has the handler's on_timer(connection) called once when so many seconds have passed; None
    /// cancels that. A connection has one timer: setting it again replaces what was set. In a call of
    /// the handler.
    fn set_timer(&self, py: Python<'_>, #[pyo3(from_py_with = number)] seconds: Option<f64>) -> PyResult<()> {
        let delay = convert::optional_span(seconds, "seconds")?;
        self.here(py, |conn| conn.set_timer(delay))?.map_err(error)
    }

    /// What listen() or connect() of its Loop was given, None on a server; any object may be set instead.
    #[getter(token)]
    fn get_token(&self, py: Python<'_>) -> Py<PyAny> {
        protect_thread();
        self.token(py)
    }

    #[setter(token)]
    fn set_token(&self, py: Python<'_>, token: Py<PyAny>) {
        protect_thread();
        let replaced = self.token.borrow(py).replace(token);
        drop(replaced);
    }

    /// Whether this program has connected to the peer, and not the peer to it.
    #[getter]
    fn is_outgoing(&self) -> bool {
        self.is_outgoing
    }

    /// The Loop that it is a connection of. On a server, in a call of the handler, the Worker whose loop it
    /// is; PermissionError elsewhere.
    #[getter(r#loop)]
    fn event_loop(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        protect_thread();
        self.home.event_loop(py, self.number)
    }

    fn __repr__(&self) -> String {
        let way = if self.is_outgoing { "to" } else { "from" };
        let peer = self.address.get().map_or_else(|| "an address".into(), Address::to_string);
        format!("<omnipoll.Connection {} {way} {peer}>", self.number)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.token.visit(&visit) {
            Some(token) => visit.call(&*token),
            None => Ok(()),
        }
    }
}

impl PyConnection {
    fn address(&self) -> PyResult<&Address> {
        self.address
            .get()
            .ok_or_else(|| PyOSError::new_err((libc::ENOTCONN, "the connection is not open yet")))
    }

    fn set_timeout(&self, py: Python<'_>, which: Timeout, seconds: Option<f64>) -> PyResult<()> {
        let time = convert::optional_span(seconds, "seconds")?;
        let here = |conn: &mut Conn<'_>| match which {
            Timeout::Idle => conn.set_idle_timeout(time),
            Timeout::Read => conn.set_read_timeout(time),
            Timeout::Write => conn.set_write_timeout(time),
        };
        self.anywhere(py, here, |id| id.set_timeout(which, time))
    }
}

impl Method<1> for PyConnection {
    type Class = Self;
    const METHOD: &'static CStr = c"write";
    const ARGUMENTS: [&'static str; 1] = ["data"];
    const DOCUMENTATION: &'static CStr = c"write($self, /, data)
--

Writes a bytes-like object and returns how many bytes then wait to be sent: what the system does
not take at once is copied and queued.

While more than high_water bytes wait, nothing more is read from a client, but from what a loop has
connected; on_drain is called when no more than low_water do.

Raises OSError (ENOBUFS) when more would be queued than queue_limit or total_queue_limit allow,
or (ENOMEM) when there is no memory to queue it: nothing was written then, and the connection goes
on. BrokenPipeError after close(), abort() and shutdown(). Any other OSError, as ConnectionResetError,
ends the connection; a handler need not catch it: it is no failure of the handler's, and on_close is
called with it.";

    #[inline]
    fn call<'py>(this: &Bound<'py, Self>, [data]: [Argument<'_, 'py>; 1]) -> PyResult<Bound<'py, PyAny>> {
        let Some(data) = data else {
            return Err(PyTypeError::new_err("write() needs a bytes-like object"));
        };
        let queued = this.get().write_bytes(this.py(), &Bytes::of(&data)?)?;
        Ok(queued.into_pyobject(this.py())?.into_any())
    }
}

fn size_of(file: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(std::fs::File::from(file.try_clone_to_owned()?).metadata()?.len())
}
