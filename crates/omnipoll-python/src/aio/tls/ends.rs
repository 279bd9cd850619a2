//! The ssl module's own objects of a connection, by their methods.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;
use pyo3::{PyTraverseError, PyVisit};

use super::buffer::Memory;
use crate::aio::arguments::Arguments;

pub(super) struct Ends {
    /// The `MemoryBIO` of what has arrived, and its `write`.
    incoming: Py<PyAny>,
    put: Py<PyAny>,
    /// The `read` and the `write` of the SSL object.
    read: Py<PyAny>,
    write: Py<PyAny>,
    /// The `read` of the `MemoryBIO` of what is to be sent.
    take: Py<PyAny>,
}

/// What a call of the SSL object has come to.
pub(super) enum Done {
    /// So many bytes; when reading, 0 says that the peer has sent its last.
    Bytes(usize),
    /// It needs more of what the peer sends.
    Again,
}

impl Ends {
    pub(super) fn new(
        ssl_object: &Bound<'_, PyAny>,
        incoming: &Bound<'_, PyAny>,
        outgoing: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let py = incoming.py();
        let (read, write) = (intern!(py, "read"), intern!(py, "write"));
        Ok(Self {
            incoming: incoming.clone().unbind(),
            put: incoming.getattr(write)?.unbind(),
            read: ssl_object.getattr(read)?.unbind(),
            write: ssl_object.getattr(write)?.unbind(),
            take: outgoing.getattr(read)?.unbind(),
        })
    }

    /// Hands over the first `count` bytes, which have arrived.
    #[inline]
    pub(super) fn put(&self, py: Python<'_>, memory: &Memory, count: usize) -> PyResult<()> {
        let arguments = Arguments::One([memory.part(py, 0, count)?.unbind()]);
        let done = arguments.call(py, &self.put).map(drop);
        arguments.release(py);
        done
    }

    /// How much has arrived that the SSL object has not read.
    #[inline]
    pub(super) fn pending(&self, py: Python<'_>) -> PyResult<usize> {
        self.incoming.bind(py).getattr(intern!(py, "pending"))?.extract()
    }

    /// Decrypts into the memory from `start` on.
    #[inline]
    pub(super) fn read(&self, py: Python<'_>, memory: &Memory, start: usize) -> PyResult<Done> {
        let arguments = match start {
            0 => [memory.size.clone_ref(py), memory.whole.clone_ref(py)],
            _ => {
                let end = memory.len();
                let size = (end - start).into_pyobject(py)?.into_any();
                [size.unbind(), memory.part(py, start, end)?.unbind()]
            }
        };
        done(py, &self.read, Arguments::Two(arguments))
    }

    #[inline]
    pub(super) fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<Done> {
        done(data.py(), &self.write, Arguments::One([data.clone().unbind()]))
    }

    /// What is to be sent.
    #[inline]
    pub(super) fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(Arguments::None.call(py, &self.take)?.cast_into()?)
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for object in [&self.incoming, &self.put, &self.read, &self.write, &self.take] {
            visit.call(object)?;
        }
        Ok(())
    }
}

#[inline]
fn done(py: Python<'_>, method: &Py<PyAny>, arguments: Arguments) -> PyResult<Done> {
    let called = arguments.call(py, method);
    arguments.release(py);
    match called {
        Ok(count) => Ok(Done::Bytes(count.extract()?)),
        Err(failed) if is_again(py, &failed)? => Ok(Done::Again),
        Err(failed) => Err(failed),
    }
}

fn is_again(py: Python<'_>, failed: &PyErr) -> PyResult<bool> {
    static AGAIN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let find = || py.import("asyncio.sslproto")?.getattr("SSLAgainErrors").map(Bound::unbind);
    Ok(failed.matches(py, AGAIN.get_or_try_init(py, find)?.bind(py))?)
}
