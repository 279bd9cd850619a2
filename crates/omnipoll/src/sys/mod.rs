//! What the operating system gives, and nothing of our own on top of it: descriptors, sockets and
//! their addresses, processes and shared memory, the system calls that libc does not have or makes
//! slowly. Whatever is different from one system to another is told apart here.

#[cfg(feature = "serve")]
pub(crate) mod address;
#[cfg(feature = "serve")]
#[cfg_attr(not(io_uring), path = "no_completion_ring.rs")]
pub(crate) mod completion_ring;
pub(crate) mod descriptor;
pub(crate) mod file;
pub(crate) mod fork;
#[cfg(feature = "serve")]
pub(crate) mod pktinfo;
pub(crate) mod poll;
pub(crate) mod probe;
#[cfg(feature = "serve")]
pub(crate) mod process;
pub(crate) mod raw_syscalls;
#[cfg(feature = "serve")]
pub(crate) mod shared_memory;
#[cfg(all(feature = "serve", target_os = "linux"))]
mod sigpipe;
#[cfg(feature = "serve")]
pub(crate) mod socket;
pub(crate) mod timeout;
mod waker;

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::system;

#[cfg(feature = "serve")]
pub use address::Address;
#[cfg(feature = "serve")]
pub(crate) use completion_ring::{Chunk, Completion, CompletionRing};
pub(crate) use descriptor::{above_stdio, pipe, replace, FIRST_ABOVE_STDIO};
#[cfg(feature = "serve")]
pub(crate) use shared_memory::SharedWords;
pub(crate) use waker::{write_to_waker, Waker};

/// Locks what no panic leaves half changed.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// -1 is an error that `errno` tells.
pub(crate) fn check(result: libc::c_int, words: &'static str) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(system(words));
    }
    Ok(result)
}
