//! Errors: an errno for programs and a sentence for people.
//!
//! An `io::Error` made from an errno has no room for a message, so the words that say which
//! mistake it was are kept for the thread, as `errno` itself is.

use std::cell::Cell;
use std::io;

thread_local! {
    static LAST: Cell<(i32, &'static str)> = const { Cell::new((0, "")) };
}

/// An error found by the library itself.
pub(crate) fn fail(errno: i32, words: &'static str) -> io::Error {
    LAST.set((errno, words));
    io::Error::from_raw_os_error(errno)
}

/// The error of the system call that has just failed.
pub(crate) fn system(words: &'static str) -> io::Error {
    let error = io::Error::last_os_error();
    LAST.set((error.raw_os_error().unwrap_or(0), words));
    error
}

/// What was wrong, in words: the sentence for `error` if it is the last one this library
/// returned on this thread, the system's own text for its errno otherwise.
///
/// ```
/// let poller = omnipoll::Poller::new()?;
/// let error = poller.remove(&0).unwrap_err();
/// assert_eq!(omnipoll::explain(&error), "the descriptor is not registered");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn explain(error: &io::Error) -> String {
    match LAST.get() {
        (errno, words) if errno != 0 && error.raw_os_error() == Some(errno) => words.to_owned(),
        _ => error.to_string(),
    }
}
