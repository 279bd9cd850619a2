//! `poll(2)`, for any number of descriptors.

use std::io;
use std::time::{Duration, Instant};

use super::check;
use super::timeout::milliseconds;
#[cfg(target_os = "linux")]
use super::timeout::timespec;
use crate::error::fail;

/// `poll(2)` for any number of entries: how many are ready.
///
/// The system call refuses more of them than the process may have descriptors (`EINVAL`),
/// which is less than it has when RLIMIT_NOFILE was lowered: then it is called for one part of
/// the array after another, and sleeps in between with the first.
pub(crate) fn poll(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    match poll_once(entries, timeout) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => poll_in_parts(entries, timeout),
        result => result,
    }
}

#[cold]
fn poll_in_parts(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    /// How late a descriptor in another part than the first may be noticed.
    const SLICE: Duration = Duration::from_millis(5);
    let most = descriptor_limit().min(entries.len());
    if most == 0 {
        return Err(fail(libc::EINVAL, "poll can't be used: RLIMIT_NOFILE is 0"));
    }
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let mut ready = 0;
        for part in entries.chunks_mut(most) {
            ready += poll_once(part, Some(Duration::ZERO))?;
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if ready > 0 || left == Some(Duration::ZERO) {
            return Ok(ready);
        }
        poll_once(&mut entries[..most], Some(left.map_or(SLICE, |left| left.min(SLICE))))?;
    }
}

/// The soft limit RLIMIT_NOFILE.
fn descriptor_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is writable for the length of the call, which can't fail otherwise.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_cur.try_into().unwrap_or(usize::MAX)
}

#[cfg(target_os = "linux")]
fn poll_once(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    let (start, length) = (entries.as_mut_ptr(), entries.len() as libc::nfds_t);
    let ready = match timeout {
        Some(timeout) if !timeout.is_zero() => {
            let timeout = timespec(timeout);
            // SAFETY: the entries are writable and the timeout readable through the call; the signal
            // mask is left out.
            unsafe { libc::ppoll(start, length, &timeout, std::ptr::null()) }
        }
        // A look at one descriptor takes a tenth longer with a timespec, which is copied in and back.
        // SAFETY: as above.
        none_or_zero => unsafe { libc::poll(start, length, milliseconds(none_or_zero)) },
    };
    check(ready, "poll failed").map(|ready| ready as usize)
}

#[cfg(not(target_os = "linux"))]
fn poll_once(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    // SAFETY: the entries are writable through the call.
    let ready =
        unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, milliseconds(timeout)) };
    check(ready, "poll failed").map(|ready| ready as usize)
}
