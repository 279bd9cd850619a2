//! The system calls the tests need and the standard library lacks, each as a safe function.

// Each test program uses a part of this.
#![allow(unused_imports)]

mod descriptors;
mod limits;
#[cfg(target_os = "linux")]
mod network;
mod processes;
mod signals;
mod threads;

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

pub(crate) use descriptors::*;
pub(crate) use limits::*;
#[cfg(target_os = "linux")]
pub(crate) use network::*;
pub(crate) use processes::*;
pub(crate) use signals::*;
pub(crate) use threads::*;

fn check(result: libc::c_int, call: &str) -> libc::c_int {
    assert!(result >= 0, "{call}: {}", io::Error::last_os_error());
    result
}

/// A descriptor that the kernel has just returned.
fn own(fd: libc::c_int) -> OwnedFd {
    // SAFETY: every caller passes what a successful system call returned, and it has no other owner.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
