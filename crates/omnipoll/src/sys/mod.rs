//! What the operating system gives, and nothing of our own on top of it: descriptors, sockets and
//! their addresses, processes and shared memory, the system calls that libc does not have or makes
//! slowly. Whatever differs from one system to another is here.

#[cfg(feature = "serve")]
pub(crate) mod address;
#[cfg(feature = "serve")]
pub(crate) mod affinity;
#[cfg(target_os = "linux")]
pub(crate) mod busy_poll;
pub(crate) mod child_process;
#[cfg(feature = "serve")]
pub(crate) mod completion;
#[cfg(all(feature = "serve", io_uring))]
pub(crate) mod completion_ring;
#[cfg(feature = "serve")]
pub(crate) mod connecting;
#[cfg(feature = "serve")]
pub(crate) mod datagrams;
pub(crate) mod descriptor;
pub(crate) mod file;
pub(crate) mod fork;
#[cfg(feature = "serve")]
mod mapping;
mod outer_set;
#[cfg(feature = "serve")]
pub(crate) mod pktinfo;
pub(crate) mod poll;
pub(crate) mod probe;
#[cfg(feature = "serve")]
pub(crate) mod process;
pub(crate) mod raw_syscalls;
#[cfg(all(feature = "serve", io_uring))]
mod receive_buffers;
#[cfg(feature = "serve")]
mod retry;
#[cfg(feature = "serve")]
pub(crate) mod shared_memory;
pub(crate) mod signal_mask;
#[cfg(all(feature = "serve", target_os = "linux"))]
mod sigpipe;
#[cfg(feature = "serve")]
mod sockaddr;
#[cfg(feature = "serve")]
pub(crate) mod socket;
#[cfg(feature = "serve")]
pub(crate) mod socket_options;
#[cfg(feature = "serve")]
pub(crate) mod spawn;
#[cfg(all(feature = "serve", target_os = "linux"))]
pub(crate) mod splice;
pub(crate) mod timeout;
pub(crate) mod timerfd;
mod waker;

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::system;

#[cfg(feature = "serve")]
pub use address::Address;
#[cfg(feature = "serve")]
pub(crate) use completion::{Chunk, Completion};
#[cfg(all(feature = "serve", io_uring))]
pub(crate) use completion_ring::CompletionRing;
pub(crate) use descriptor::{above_stdio, pipe, replace, FIRST_ABOVE_STDIO};
pub(crate) use outer_set::OuterSet;
#[cfg(feature = "serve")]
pub(crate) use shared_memory::SharedWords;
pub(crate) use waker::{write_to_waker, Waker};

/// Locks what no panic leaves half changed.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// -1 is an error, which `errno` names.
pub(crate) fn check(result: libc::c_int, words: &'static str) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(system(words));
    }
    Ok(result)
}

/// Where this thread's errno is.
pub(crate) fn errno_location() -> *mut libc::c_int {
    // SAFETY: takes nothing and returns an address.
    unsafe {
        #[cfg(any(target_os = "linux", target_os = "emscripten", target_os = "hurd"))]
        return libc::__errno_location();
        #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
        return libc::__errno();
        #[cfg(any(target_vendor = "apple", target_os = "freebsd", target_os = "dragonfly"))]
        return libc::__error();
        #[cfg(any(target_os = "solaris", target_os = "illumos"))]
        return libc::___errno();
    }
}
