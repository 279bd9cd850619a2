//! System calls that a signal may interrupt.

use std::io;

use crate::error::{bare, errno};

/// Makes a system call until no signal interrupts it.
#[inline]
pub(super) fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        let result = call();
        if result >= 0 {
            return Ok(result as usize);
        }
        match errno() {
            libc::EINTR => {}
            errno => return Err(bare(errno)),
        }
    }
}
