//! Errors: an errno for programs and a sentence for people.
//!
//! An `io::Error` made from an errno has no room for a message, so its words are kept for the
//! thread, as `errno` itself is. They would pass for another error's as soon as one without words
//! had the same number. Therefore every error is made here: clippy.toml forbids the constructors
//! elsewhere, and what the standard library or socket2 returns goes through [`Describe`].

use std::borrow::Cow;
use std::cell::RefCell;
use std::{fmt, io};

/// An errno and its words, as one value. It can be handed to another thread, which an `io::Error`
/// can't without losing its words.
#[derive(Debug)]
pub(crate) struct Error {
    errno: i32,
    /// Empty where the system's text for the number says it all.
    words: Cow<'static, str>,
}

thread_local! {
    /// What the last error made on this thread was.
    static LAST: RefCell<Error> = const { RefCell::new(Error { errno: 0, words: Cow::Borrowed("") }) };
}

/// An error found by the library itself.
#[cold]
pub(crate) fn fail(errno: i32, words: impl Into<Cow<'static, str>>) -> io::Error {
    Error { errno, words: words.into() }.into()
}

/// The error of the system call that has just failed.
#[cold]
pub(crate) fn system(words: impl Into<Cow<'static, str>>) -> io::Error {
    fail(errno(), words)
}

/// An error whose number says it all.
#[cold]
pub(crate) fn plain(errno: i32) -> io::Error {
    fail(errno, "")
}

/// There is no memory for what was asked.
#[cold]
pub(crate) fn no_memory(_: std::collections::TryReserveError) -> io::Error {
    plain(libc::ENOMEM)
}

/// Leaves the thread's storage alone, whose first use may allocate: for signal handlers, and for
/// what is looked at often and seldom leaves the crate. What leaves is described there.
#[expect(clippy::disallowed_methods, reason = "for errors without words")]
pub(crate) fn bare(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// The errno of the system call that has just failed.
#[inline]
#[expect(clippy::disallowed_methods, reason = "only its number is used")]
pub(crate) fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Gives words to what the standard library or socket2 returns.
pub(crate) trait Describe {
    /// What was tried, and with what: "bind 127.0.0.1:80". The system's text is added.
    fn describe(self, what: impl fmt::Display) -> Self;
}

impl<T> Describe for io::Result<T> {
    fn describe(self, what: impl fmt::Display) -> Self {
        self.map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            fail(errno, format!("{what}: {}", text(&error)))
        })
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        Self { errno, words: explain(&error).into() }
    }
}

impl From<Error> for io::Error {
    #[expect(clippy::disallowed_methods, reason = "its words are kept")]
    fn from(error: Error) -> Self {
        let errno = error.errno;
        // Not at the end of a thread that has given up its storage: the words are lost then.
        let _ = LAST.try_with(|last| last.replace(error));
        Self::from_raw_os_error(errno)
    }
}

/// What was wrong, in words: the sentence for `error` if it is the last one this library
/// returned on this thread, the system's own text for its errno otherwise.
///
/// # Portability
///
/// The sentences are the same on every system; the system's text is its own.
///
/// ```
/// let poller = omnipoll::Poller::new()?;
/// let error = poller.remove_raw(0).unwrap_err();
/// assert_eq!(omnipoll::explain(&error), "the descriptor is not registered");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn explain(error: &io::Error) -> String {
    let own = |last: &RefCell<Error>| {
        let last = last.borrow();
        let is_last = error.raw_os_error() == Some(last.errno) && !last.words.is_empty();
        is_last.then(|| last.words.to_string())
    };
    LAST.try_with(own).ok().flatten().unwrap_or_else(|| text(error))
}

/// For the bindings, which translate an error once: as [`explain`], and gives the words away, so
/// that they can't pass for those of a later error that has none.
#[doc(hidden)]
pub fn take_words(error: &io::Error) -> String {
    let words = explain(error);
    let _ = LAST.try_with(|last| last.replace(Error { errno: 0, words: "".into() }));
    words
}

/// The system's text for an errno.
pub(crate) fn text_of(errno: i32) -> String {
    text(&bare(errno))
}

/// The system's text without the number that the standard library adds.
fn text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_belong_to_their_error() {
        let words = |error: io::Error| (error.raw_os_error(), explain(&error));
        assert_eq!(
            words(fail(libc::ENOENT, "not registered")),
            (Some(libc::ENOENT), "not registered".into())
        );
        // Of the same number, without words of its own.
        assert_eq!(words(plain(libc::ENOENT)).1, "No such file or directory");
        assert_eq!(words(fail(libc::ENOENT, "not registered")).1, "not registered");
        let opened = std::fs::File::open("/nowhere").describe("open /nowhere");
        assert_eq!(words(opened.unwrap_err()).1, "open /nowhere: No such file or directory");
    }

    #[test]
    fn words_go_with_their_error_to_another_thread() {
        let error = std::thread::spawn(|| Error::from(fail(libc::ENOENT, "there"))).join().unwrap();
        let here = fail(libc::ENOENT, "here");
        assert_eq!(explain(&here), "here");
        assert_eq!(explain(&error.into()), "there");
    }
}
