//! Whether io_uring can be used here: some are not allowed to, and others have an old one.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use io_uring::cqueue;

use super::ring::{Ring, Threads};
use crate::errno::{classify_making, ErrorClass};
use crate::error::{bare, fail, plain};
use crate::sys::descriptor::eventfd;

/// Why io_uring is not available here, if it isn't: found out once, by using it. A temporary error
/// is no answer, and the next call tries again.
pub(super) fn unavailable_reason() -> Option<Unavailable> {
    static ANSWER: OnceLock<Option<Unavailable>> = OnceLock::new();
    if let Some(answer) = ANSWER.get() {
        return *answer;
    }
    // In a thread of its own: when a ring is gone, the kernel interrupts the thread that made it.
    let probed = thread::Builder::new().spawn(probe).map(|probing| probing.join());
    let probed = probed.and_then(|outcome| outcome.unwrap_or_else(|_| Err(bare(libc::ENOTRECOVERABLE))));
    let answer = match probed {
        Ok(()) => None,
        Err(error) if is_temporary(&error) => return None,
        Err(error) => error.raw_os_error().map(Unavailable),
    };
    *ANSWER.get_or_init(|| answer)
}

/// The errno with which the kernel refuses it, if it does.
pub(super) fn unavailable_errno() -> Option<i32> {
    unavailable_reason().map(|Unavailable(errno)| errno)
}

/// Whether a ring could not be made, or used, for lack of descriptors or memory, or because of a
/// signal.
pub(super) fn is_temporary(error: &io::Error) -> bool {
    classify_making(error) != ErrorClass::Permanent
}

/// The errno with which the kernel refused.
#[derive(Clone, Copy)]
pub(super) struct Unavailable(i32);

impl Unavailable {
    /// `ENOSYS`, with words that say why.
    pub(super) fn error(self) -> io::Error {
        fail(
            libc::ENOSYS,
            match self.0 {
                libc::EPERM | libc::EACCES => {
                    "io_uring is forbidden here: by a seccomp filter (most containers have one) or by \
                     the sysctl kernel.io_uring_disabled"
                }
                libc::ENOSYS => "io_uring is missing: the kernel has none, or a seccomp filter hides it",
                _ => "io_uring is too old here: Linux 5.17 is needed",
            },
        )
    }
}

/// Has a multishot poll report an eventfd that is ready: all that the engine asks of the kernel.
fn probe() -> io::Result<()> {
    let ready = eventfd(1)?;
    let mut ring = Ring::new(Threads::One, None)?;
    ring.poll_add(ready.as_raw_fd(), libc::POLLIN as u32, true, 0);
    ring.handle().enter(1, 1, Some(Duration::from_secs(1)))?;
    let found = ring.completions().next();
    match found {
        Some(found) if found.result() == libc::POLLIN.into() && cqueue::more(found.flags()) => Ok(()),
        _ => Err(plain(libc::EINVAL)),
    }
}
