//! Errors: a negative errno for programs, and words for people.

use std::any::Any;
use std::borrow::Cow;
use std::cell::Cell;
use std::ffi::{c_char, c_int, CStr};
use std::io::{self, Write};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// What each errno means when it comes from this library.
const MEANINGS: [(c_int, &str, &CStr); 32] = [
    (libc::EPERM, "EPERM", c"a file of this kind can't be watched, or the call is not permitted here"),
    (libc::ENOENT, "ENOENT", c"it is not registered, or there is none of that number"),
    (libc::ECHILD, "ECHILD", c"this process has no such child, or it was reaped"),
    (libc::EINTR, "EINTR", c"a signal has ended the wait"),
    (libc::E2BIG, "E2BIG", c"the struct asks for something that this version does not have"),
    (libc::EBADF, "EBADF", c"the descriptor is not open"),
    (libc::EAGAIN, "EAGAIN", c"65,536 posts wait to be taken: post again when some are"),
    (libc::ENOMEM, "ENOMEM", c"there is not enough memory"),
    (libc::EACCES, "EACCES", c"the process may not use that address"),
    (libc::EBUSY, "EBUSY", c"another thread was changing the poller during the fork"),
    (libc::EEXIST, "EEXIST", c"it is registered already"),
    (libc::EINVAL, "EINVAL", c"an argument is not valid"),
    (libc::ENFILE, "ENFILE", c"the system has too many open files"),
    (libc::EMFILE, "EMFILE", c"the process has too many open files, or pollers, or loops, or servers"),
    (libc::ENOSPC, "ENOSPC", c"the limit /proc/sys/fs/epoll/max_user_watches is reached"),
    (libc::EPIPE, "EPIPE", c"the connection is closing, or its sending side is shut down"),
    (libc::ENOSYS, "ENOSYS", c"the engine is not available here"),
    (libc::ELOOP, "ELOOP", c"epolls would watch each other in a circle, or more than five deep"),
    (libc::ENOTSUP, "ENOTSUP", c"it is not available on this system, or under this model"),
    (libc::EADDRINUSE, "EADDRINUSE", c"another socket listens on that address"),
    (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL", c"the address is not one of this machine"),
    (libc::ECONNABORTED, "ECONNABORTED", c"the connection was aborted on this side"),
    (libc::ECONNRESET, "ECONNRESET", c"the peer has reset the connection"),
    (
        libc::ENOBUFS,
        "ENOBUFS",
        c"more bytes would wait to be sent, or a connection be in more groups, than the limits allow",
    ),
    (libc::ECONNREFUSED, "ECONNREFUSED", c"no socket listens on that address"),
    (libc::ENETUNREACH, "ENETUNREACH", c"there is no route to that network"),
    (libc::EHOSTUNREACH, "EHOSTUNREACH", c"the host can't be reached"),
    (libc::ETIMEDOUT, "ETIMEDOUT", c"the time is over in which something had to be read or written"),
    (libc::ESTALE, "ESTALE", c"the handle is stale: what it stood for was freed, or is over"),
    (
        libc::ECANCELED,
        "ECANCELED",
        c"the server or loop has stopped, and the time to drain it is over, or a connect was given up",
    ),
    (
        libc::EOWNERDEAD,
        "EOWNERDEAD",
        c"the poller belongs to the parent process: call omni_poller_after_fork first",
    ),
    (libc::ENOTRECOVERABLE, "ENOTRECOVERABLE", c"a bug in the library has left the object unusable: free it"),
];

const LONGEST: usize = 512;

thread_local! {
    /// The words of the thread's last error. A plain array, so that nothing is destroyed at the
    /// thread's end that its other destructors could still ask for.
    static LAST_ERROR: Cell<[u8; LONGEST]> = const { Cell::new([0; LONGEST]) };
    static SYSTEM_TEXT: Cell<[u8; LONGEST]> = const { Cell::new([0; LONGEST]) };
}

/// Why a call failed.
pub(crate) struct Failure {
    errno: c_int,
    words: Cow<'static, str>,
}

impl Failure {
    pub(crate) const fn new(errno: c_int, words: &'static str) -> Self {
        Self { errno, words: Cow::Borrowed(words) }
    }

    /// `errno`, in the words that `omni_strerror` has for it.
    pub(crate) fn of(errno: c_int) -> Self {
        Self::new(errno, meaning(errno).map_or("", |(_, words)| words.to_str().unwrap_or_default()))
    }

    /// No handle could be given: EMFILE in these words, or ENOMEM.
    pub(crate) fn full(errno: c_int, words: &'static str) -> Self {
        match errno {
            libc::EMFILE => Self::new(errno, words),
            _ => Self::of(errno),
        }
    }

    /// The core's error of that number.
    pub(crate) fn without_words(&self) -> io::Error {
        io::Error::from_raw_os_error(self.errno)
    }

    /// What a caught panic becomes.
    pub(crate) fn panicked(_: Box<dyn Any + Send>) -> Self {
        Self::of(libc::ENOTRECOVERABLE)
    }

    /// What the call returns. Its words become the thread's last error.
    #[cold]
    fn record(&self, function: &str) -> c_int {
        let mut text = [0; LONGEST];
        // The last byte stays 0. Words that don't fit are cut off.
        let mut room = &mut text[..LONGEST - 1];
        let _ = match meaning(self.errno) {
            Some((name, _)) => write!(room, "{function}: {} ({name})", self.words),
            None => write!(room, "{function}: {} (errno {})", self.words, self.errno),
        };
        LAST_ERROR.set(text);
        -self.errno
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { errno: errno(&error), words: omnipoll::take_words(&error).into() }
    }
}

/// The number of an error of the core.
pub(crate) fn errno(error: &io::Error) -> c_int {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Runs a call, and returns its result as C gets it. A panic becomes an error.
#[inline]
pub(crate) fn call_caught(function: &str, call: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Failure::panicked(panic).record(function))
}

/// Runs something whose panic becomes an error.
#[inline]
pub(crate) fn catch_panic(body: impl FnOnce() -> Result<c_int, Failure>) -> Result<c_int, Failure> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(Failure::panicked(panic)))
}

/// What `function` returns to C.
#[inline]
pub(crate) fn to_c_result(function: &str, outcome: Result<c_int, Failure>) -> c_int {
    outcome.unwrap_or_else(|failure| failure.record(function))
}

/// The name of an errno that the library has words for.
pub(crate) fn name_of(errno: c_int) -> Option<&'static str> {
    meaning(errno).map(|(name, _)| name)
}

fn meaning(errno: c_int) -> Option<(&'static str, &'static CStr)> {
    MEANINGS.iter().find(|(number, ..)| *number == errno).map(|&(_, name, words)| (name, words))
}

/// Describes an error number: `omni_strerror(-EEXIST)` is "it is registered already". Takes what
/// the functions return, or an errno without the sign. A number that has no meaning of its own in
/// this library gets the system's text.
///
/// Never NULL. The text is the library's, and valid until this thread calls `omni_strerror` again
/// or ends. System calls: none. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn omni_strerror(error: c_int) -> *const c_char {
    let errno = error.saturating_abs();
    if errno == 0 {
        return c"no error".as_ptr();
    }
    if let Some((_, words)) = meaning(errno) {
        return words.as_ptr();
    }
    let mut text = [0; LONGEST];
    // SAFETY: the buffer is ours and as long as we say. The text written ends with a 0.
    unsafe { libc::strerror_r(errno, text.as_mut_ptr().cast(), text.len()) };
    SYSTEM_TEXT.set(text);
    SYSTEM_TEXT.with(Cell::as_ptr).cast_const().cast()
}

/// Describes the last call of this thread that failed, with the function's name and the error's:
/// "omni_poller_remove: the descriptor is not registered (ENOENT)". Empty when none has failed yet;
/// a call that succeeds leaves it as it is, and so do `omni_poller_wake` and `omni_server_stop`.
///
/// Never NULL. The text is the library's, and valid until the next call of this thread fails or the
/// thread ends. System calls: none. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn omni_last_error() -> *const c_char {
    LAST_ERROR.with(Cell::as_ptr).cast_const().cast()
}
