//! What the operating system gives, and nothing of our own on top of it: descriptors, sockets and
//! their addresses, processes and shared memory, the system calls that libc does not have or makes
//! slowly. Whatever is different from one system to another is told apart here.

pub(crate) mod address;
#[cfg_attr(not(io_uring), path = "no_completion_ring.rs")]
pub(crate) mod completion_ring;
pub(crate) mod descriptor;
pub(crate) mod fork;
pub(crate) mod pktinfo;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod raw_syscalls;
pub(crate) mod shared_memory;
#[cfg(target_os = "linux")]
mod sigpipe;
pub(crate) mod socket;
mod waker;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use address::Peer;
pub(crate) use completion_ring::{Chunk, Completion, Done};
pub(crate) use descriptor::{above_stdio, pipe, replace, write_to_notifier, FIRST_ABOVE_STDIO};
pub(crate) use shared_memory::SharedWords;
pub(crate) use waker::Doorbell;

/// Locks what no panic leaves half changed.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
