//! What the fields of options stand for.

use std::ffi::{c_char, CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use crate::buffer::read_str;
use crate::error::Failure;

/// Sets an option that is not left to its default.
pub(crate) fn with<O, T>(options: O, value: Option<T>, set: impl FnOnce(O, T) -> O) -> O {
    match value {
        Some(value) => set(options, value),
        None => options,
    }
}

/// The text of a list; empty when it is NULL.
///
/// # Safety
/// It is NULL, or a text that lives for as long as the result is used.
pub(crate) unsafe fn list<'a>(text: *const c_char) -> Result<&'a str, Failure> {
    match text.is_null() {
        true => Ok(""),
        // SAFETY: as this function's contract says.
        false => unsafe { read_str(text, "") },
    }
}

/// A number; none when it is 0.
pub(crate) fn some_u32(number: u32) -> Option<u32> {
    (number > 0).then_some(number)
}

/// A number of bytes, or of anything; none when it is 0.
pub(crate) fn count(number: u64) -> Option<usize> {
    (number > 0).then(|| number.try_into().unwrap_or(usize::MAX))
}

/// Nanoseconds that are a time; none when they are 0 or negative.
pub(crate) fn some_time(nanoseconds: i64) -> Option<Duration> {
    u64::try_from(nanoseconds).ok().filter(|&time| time > 0).map(Duration::from_nanos)
}

/// The texts of an array; none when it is NULL.
///
/// # Safety
/// It is NULL, or texts with NULL at their end.
pub(crate) unsafe fn texts<'a>(mut first: *const *const c_char) -> Vec<&'a OsStr> {
    let mut all = Vec::new();
    if first.is_null() {
        return all;
    }
    // SAFETY: the caller's promise.
    while let Some(text) = unsafe { first.read().as_ref() } {
        // SAFETY: as above.
        all.push(OsStr::from_bytes(unsafe { CStr::from_ptr(text) }.to_bytes()));
        // SAFETY: as above.
        first = unsafe { first.add(1) };
    }
    all
}
