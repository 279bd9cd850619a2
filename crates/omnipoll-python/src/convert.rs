//! Between Python's values and the core's.

use std::ffi::c_int;
use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use omnipoll::{EngineKind, Feature, Interest, Options, Poller, WaitPolicy};
use pyo3::exceptions::{PyOSError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::fastcall::Argument;
use crate::finalization::protect_thread;

/// `EINVAL` is a `ValueError`; every other errno is the subclass of `OSError` Python has for it.
pub(crate) fn error(error: io::Error) -> PyErr {
    let words = omnipoll::take_words(&error);
    match error.raw_os_error() {
        Some(libc::EINVAL) => PyValueError::new_err(words),
        Some(errno) => PyOSError::new_err((errno, words)),
        None => PyOSError::new_err(words),
    }
}

/// Why a connection has ended: always an `OSError`.
pub(crate) fn reason(error: &io::Error) -> PyErr {
    let words = error.to_string();
    // Python puts the number in front by itself.
    let words = words.split_once(" (os error").map_or(&*words, |(words, _)| words).to_owned();
    PyOSError::new_err((error.raw_os_error(), words))
}

/// What the standard library says of a closed epoll object.
pub(crate) fn closed() -> PyErr {
    PyValueError::new_err("I/O operation on a closed poller")
}

/// Warns a program whose waits and threads are greenlets.
pub(crate) fn check_greenlets(py: Python<'_>) -> PyResult<()> {
    py.import("omnipoll.greenlets")?.call_method0("check").map(drop)
}

/// A poller that a signal can interrupt: Python's handlers run between two system calls.
pub(crate) fn poller(
    py: Python<'_>,
    engine: Option<&str>,
    files_always_ready: bool,
    strict: bool,
    policy: WaitPolicy,
) -> PyResult<Poller> {
    let options = Options::new().interruptible(true).files_always_ready(files_always_ready);
    let mut options = options.strict(strict).wait_policy(policy);
    if let Some(name) = engine {
        options = options.engine(self::engine(py, name)?);
    }
    options.build().map_err(error)
}

/// "balanced", or one of ("latency", seconds) and ("thrifty", seconds).
pub(crate) fn wait_policy(policy: &Bound<'_, PyAny>) -> PyResult<WaitPolicy> {
    const NAMES: [&str; 3] = ["balanced", "latency", "thrifty"];
    let py = policy.py();
    let (name, seconds): (String, Option<f64>) = match policy.extract() {
        Ok((name, seconds)) => (name, Some(seconds)),
        Err(_) => (policy.extract()?, None),
    };
    let time = seconds.map(|seconds| span(seconds, "wait_policy")).transpose()?;
    match (&*name, time) {
        ("balanced", None) => Ok(WaitPolicy::Balanced),
        ("latency", Some(spin)) => Ok(WaitPolicy::Latency { spin }),
        ("thrifty", Some(min_wait)) => Ok(WaitPolicy::Thrifty { min_wait }),
        ("balanced", Some(_)) => Err(PyValueError::new_err("the wait policy 'balanced' has no time")),
        ("latency" | "thrifty", None) => {
            Err(PyValueError::new_err(format!("the wait policy '{name}' has a time: ('{name}', seconds)")))
        }
        _ => Err(not_known(py, "wait policy", &name, NAMES)),
    }
}

pub(crate) fn engine(py: Python<'_>, name: &str) -> PyResult<EngineKind> {
    EngineKind::from_name(name)
        .ok_or_else(|| not_known(py, "engine", name, EngineKind::ALL.map(EngineKind::name)))
}

/// The features of the kernel that an engine uses or would use: name, version of Linux, and the errno for which
/// it is not in use, or None.
#[pyfunction]
pub(crate) fn _engine_features(
    py: Python<'_>,
    name: &str,
) -> PyResult<Vec<(&'static str, &'static str, Option<i32>)>> {
    let engine = engine(py, name)?;
    let features = py.detach(|| engine.features());
    let errno = |feature: &Feature| feature.error().and_then(|error| error.raw_os_error());
    Ok(features.iter().map(|feature| (feature.name(), feature.linux(), errno(feature))).collect())
}

/// The error of a name that stands for no engine, model or wait policy.
pub(crate) fn not_known<const N: usize>(py: Python<'_>, kind: &str, name: &str, known: [&str; N]) -> PyErr {
    let words = format!("there is no {kind} named '{name}'");
    let spelling = py.import("omnipoll.spelling");
    match spelling.and_then(|spelling| spelling.call_method1("not_known", (words, name, known))) {
        Ok(words) => PyValueError::new_err(words.unbind()),
        Err(error) => error,
    }
}

/// An int or a float as an argument of a method, or anything with `__index__()` or `__float__()`.
pub(crate) fn number<'a, 'py, T: FromPyObjectOwned<'py>>(object: &'a Bound<'py, PyAny>) -> PyResult<T> {
    protect_thread();
    object.extract().map_err(Into::into)
}

/// A str.
pub(crate) fn text(object: &Bound<'_, PyAny>) -> PyResult<String> {
    protect_thread();
    object.extract()
}

/// A str, or None.
pub(crate) fn optional_text(object: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    protect_thread();
    object.extract()
}

/// An int, or anything with `fileno()`.
pub(crate) fn descriptor(object: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    protect_thread();
    // SAFETY: `object` is a live object of the interpreter this thread is attached to.
    let fd: c_int = unsafe { ffi::PyObject_AsFileDescriptor(object.as_ptr()) };
    if fd < 0 {
        return Err(PyErr::fetch(object.py()));
    }
    Ok(fd)
}

pub(crate) fn interest(object: &Bound<'_, PyAny>) -> PyResult<Interest> {
    let known = match object.extract::<u32>() {
        Ok(bits) => Interest::from_bits(bits),
        Err(error) if error.is_instance_of::<PyOverflowError>(object.py()) => None,
        Err(error) => return Err(error),
    };
    known.ok_or_else(|| {
        PyValueError::new_err(format!(
            "invalid interest {object}: READ, WRITE and PRIORITY, or 0, with EDGE, ONESHOT or EXCLUSIVE; \
             EXCLUSIVE goes neither with PRIORITY nor with ONESHOT"
        ))
    })
}

/// A span of time as the caller gave it.
pub(crate) enum Timeout {
    /// `None`: indefinitely.
    Never,
    /// Zero: look and return.
    Look,
    After(Duration),
    Negative,
}

impl Timeout {
    /// As the core takes it; less than nothing is nothing.
    pub(crate) fn duration(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::Look | Self::Negative => Some(Duration::ZERO),
            Self::After(duration) => Some(duration),
        }
    }
}

/// A wait's timeout in seconds; `None` is indefinitely.
pub(crate) fn timeout(object: Argument<'_, '_>) -> PyResult<Timeout> {
    object.map_or(Ok(Timeout::Never), |object| seconds(&object, "timeout"))
}

/// A timer's delay in seconds.
pub(crate) fn delay(object: &Bound<'_, PyAny>) -> PyResult<Duration> {
    not_negative(seconds(object, "delay")?, "delay")
}

/// A timer's period in seconds, if it has one.
pub(crate) fn period(object: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Duration>> {
    let Some(object) = object else { return Ok(None) };
    match not_negative(seconds(object, "period")?, "period")? {
        Duration::ZERO => {
            Err(PyValueError::new_err("period must be more than 0: None is for a timer without"))
        }
        period => Ok(Some(period)),
    }
}

/// A span of time in seconds.
pub(crate) fn span(seconds: f64, name: &str) -> PyResult<Duration> {
    not_negative(timeout_of(seconds, name)?, name)
}

/// The same, or None.
pub(crate) fn optional_span(seconds: Option<f64>, name: &str) -> PyResult<Option<Duration>> {
    seconds.map(|seconds| span(seconds, name)).transpose()
}

fn not_negative(span: Timeout, name: &str) -> PyResult<Duration> {
    match span {
        Timeout::Negative => Err(PyValueError::new_err(format!("{name} must not be negative"))),
        span => Ok(span.duration().unwrap_or_default()),
    }
}

/// Seconds, rounded up to a nanosecond: nothing is early.
fn seconds(object: &Bound<'_, PyAny>, name: &str) -> PyResult<Timeout> {
    let seconds = object.extract().map_err(|error| match object.hasattr("total_seconds") {
        Ok(true) => {
            PyTypeError::new_err(format!("{name} is in seconds, not a timedelta: its total_seconds()"))
        }
        _ => error,
    })?;
    timeout_of(seconds, name)
}

fn timeout_of(seconds: f64, name: &str) -> PyResult<Timeout> {
    if seconds.is_nan() {
        return Err(PyValueError::new_err(format!("{name} must be a number, not NaN")));
    }
    if seconds <= 0.0 {
        return Ok(if seconds < 0.0 { Timeout::Negative } else { Timeout::Look });
    }
    let nanoseconds = (seconds * 1e9).ceil();
    if nanoseconds >= i64::MAX as f64 {
        return Err(PyOverflowError::new_err(format!("{name} is too large: more than 292 years")));
    }
    Ok(Timeout::After(Duration::from_nanos(nanoseconds as u64)))
}

/// A time of the wall clock: seconds since 1970, or anything with `timestamp()`, as a datetime.
/// What was before 1970 is past all the same.
pub(crate) fn time(object: &Bound<'_, PyAny>) -> PyResult<SystemTime> {
    let since = match object.getattr_opt("timestamp")? {
        // A datetime counts microseconds, and its timestamp() is the float that is nearest.
        Some(timestamp) => {
            let microseconds = (timestamp.call0()?.extract::<f64>()? * 1e6).round();
            Duration::from_micros(microseconds as u64)
        }
        None => seconds(object, "time")?.duration().unwrap_or_default(),
    };
    Ok(UNIX_EPOCH + since)
}

/// A process: its number, or anything with `pid`, as a Popen.
pub(crate) fn process(object: &Bound<'_, PyAny>) -> PyResult<i32> {
    match object.getattr_opt("pid")? {
        Some(pid) => pid.extract(),
        None => object.extract(),
    }
}
