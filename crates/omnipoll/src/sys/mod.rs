//! What the operating system gives, and nothing of our own on top of it: descriptors, sockets and
//! their addresses, processes and shared memory, the system calls that libc does not have or makes
//! slowly. Whatever is different from one system to another is told apart here.

#[cfg(feature = "serve")]
pub(crate) mod address;
#[cfg(feature = "serve")]
#[cfg_attr(not(io_uring), path = "no_completion_ring.rs")]
pub(crate) mod completion_ring;
pub(crate) mod descriptor;
pub(crate) mod fork;
#[cfg(feature = "serve")]
pub(crate) mod pktinfo;
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
mod waker;

use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(feature = "serve")]
pub use address::Address;
#[cfg(feature = "serve")]
pub(crate) use completion_ring::{Chunk, Completion, CompletionRing};
pub(crate) use descriptor::{above_stdio, pipe, replace, write_to_notifier, FIRST_ABOVE_STDIO};
#[cfg(feature = "serve")]
pub(crate) use shared_memory::SharedWords;
pub(crate) use waker::Doorbell;

/// Locks what no panic leaves half changed.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
