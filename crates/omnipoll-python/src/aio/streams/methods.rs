//! The methods of Python's classes. What they can't do they leave to the standard library's own.

use std::ffi::CStr;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyInt, PyString, PyType};

use super::coroutine::{Operation, StreamCoroutine};
use super::reader::Attributes;
use super::reading::{Call, Reading};
use super::writing::Drain;
use crate::aio::vectorcall::call_method;
use crate::fastcall::{self, Argument, Entry, Given};

struct Read;
struct ReadExactly;
struct ReadUntil;
struct ReadLine;
struct DrainCall;
struct Write;

pub(super) fn install(reader: &Bound<'_, PyType>, writer: &Bound<'_, PyType>) -> PyResult<()> {
    fastcall::install_in::<Read>(reader)?;
    fastcall::install_in::<ReadExactly>(reader)?;
    fastcall::install_in::<ReadUntil>(reader)?;
    fastcall::install_in::<ReadLine>(reader)?;
    fastcall::install_in::<DrainCall>(writer)?;
    fastcall::install_in::<Write>(writer)
}

impl Entry for Read {
    type Class = PyAny;
    const METHOD: &'static CStr = c"read";
    const DOCUMENTATION: &'static CStr = c"read($self, n=-1)\n--\n\n\
        Reads up to `n` bytes, and at least one unless the stream has ended; all until its end without `n`.";

    #[inline]
    fn call<'py>(this: &Bound<'py, PyAny>, given: Given<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        let [size] = fastcall::sort(&given, &["n"], Self::METHOD)?;
        match size.map_or(Some(-1), |size| number(&size)) {
            Some(size) if size < 0 => start(this, Call::ReadAll(Vec::new())),
            Some(size) => start(this, Call::Read(size)),
            None => leave(this, intern!(this.py(), "read"), size),
        }
    }
}

impl Entry for ReadExactly {
    type Class = PyAny;
    const METHOD: &'static CStr = c"readexactly";
    const DOCUMENTATION: &'static CStr = c"readexactly($self, n)\n--\n\n\
        Reads exactly `n` bytes: IncompleteReadError if the stream ends before.";

    #[inline]
    fn call<'py>(this: &Bound<'py, PyAny>, given: Given<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        let [size] = fastcall::sort(&given, &["n"], Self::METHOD)?;
        let Some(size) = size else { return Err(missing(Self::METHOD, "n")) };
        match number(&size) {
            Some(size) => start(this, Call::ReadExactly(size)),
            None => leave(this, intern!(this.py(), "readexactly"), Some(size)),
        }
    }
}

impl Entry for ReadUntil {
    type Class = PyAny;
    const METHOD: &'static CStr = c"readuntil";
    const DOCUMENTATION: &'static CStr = c"readuntil($self, separator=b'\\n')\n--\n\n\
        Reads until the separator, which is included. IncompleteReadError if the stream ends before, and \
        LimitOverrunError if more than the limit comes before it.";

    #[inline]
    fn call<'py>(this: &Bound<'py, PyAny>, given: Given<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        let [separator] = fastcall::sort(&given, &["separator"], Self::METHOD)?;
        let Some(separator) = separator else {
            let separator = PyBytes::new(this.py(), b"\n").unbind();
            return start(this, Call::ReadUntil { separator, offset: 0 });
        };
        match separator.cast_exact::<PyBytes>() {
            Ok(bytes) if !bytes.as_bytes().is_empty() => {
                let separator = bytes.to_owned().unbind();
                start(this, Call::ReadUntil { separator, offset: 0 })
            }
            _ => leave(this, intern!(this.py(), "readuntil"), Some(separator)),
        }
    }
}

impl Entry for ReadLine {
    type Class = PyAny;
    const METHOD: &'static CStr = c"readline";
    const DOCUMENTATION: &'static CStr = c"readline($self)\n--\n\n\
        Reads a line, with its end unless the stream ends before: ValueError if it is longer than the limit.";

    #[inline]
    fn call<'py>(this: &Bound<'py, PyAny>, given: Given<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        fastcall::sort(&given, &[], Self::METHOD)?;
        start(this, Call::ReadLine { offset: 0 })
    }
}

impl Entry for DrainCall {
    type Class = PyAny;
    const METHOD: &'static CStr = c"drain";
    const DOCUMENTATION: &'static CStr = c"drain($self)\n--\n\n\
        Waits until it is appropriate to write again.";

    #[inline]
    fn call<'py>(this: &Bound<'py, PyAny>, given: Given<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        fastcall::sort(&given, &[], Self::METHOD)?;
        StreamCoroutine::make(this.py(), Operation::Drain(Drain::new(this)))
    }
}

impl Entry for Write {
    type Class = PyAny;
    const METHOD: &'static CStr = c"write";
    const DOCUMENTATION: &'static CStr = c"write($self, data)\n--\n\n\
        Has the transport write data.";

    #[inline]
    fn call<'py>(this: &Bound<'py, PyAny>, given: Given<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        let [data] = fastcall::sort(&given, &["data"], Self::METHOD)?;
        let Some(data) = data else { return Err(missing(Self::METHOD, "data")) };
        let py = this.py();
        let transport = Attributes::new(this)?.get(intern!(py, "_transport"))?;
        call_method(intern!(py, "write"), [&transport, &data])?;
        Ok(py.None().into_bound(py))
    }
}

// ---- Arguments -------------------------------------------------------------------------------------

#[inline]
fn start<'py>(reader: &Bound<'py, PyAny>, call: Call) -> PyResult<Bound<'py, PyAny>> {
    StreamCoroutine::make(reader.py(), Operation::Read(Reading::new(reader, call)))
}

fn missing(method: &CStr, name: &str) -> PyErr {
    fastcall::wrong(method, format_args!("missing 1 required positional argument: '{name}'"))
}

/// A plain int of at most 64 bits.
#[inline]
fn number(object: &Bound<'_, PyAny>) -> Option<i64> {
    object.cast_exact::<PyInt>().ok()?.extract().ok()
}

/// The standard library's own method, for an argument that takes its own words.
#[cold]
fn leave<'py>(
    reader: &Bound<'py, PyAny>,
    method: &Bound<'py, PyString>,
    argument: Argument<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = CLASS.import(reader.py(), "asyncio", "StreamReader")?;
    class.call_method1(method, (reader, argument.map(|argument| argument.to_owned())))
}
