//! On which processors a thread runs: sched_setaffinity(2).

use std::io;

#[cfg(target_os = "linux")]
use crate::error::system;

/// Keeps the calling thread on one processor until it is dropped, in the same thread.
#[cfg(target_os = "linux")]
pub(crate) struct Pinned {
    before: libc::cpu_set_t,
}

#[cfg(target_os = "linux")]
impl Pinned {
    /// On the processor number `index` of those on which the thread may run, counted round and round.
    pub(crate) fn new(index: usize) -> io::Result<Self> {
        let before = allowed()?;
        // SAFETY: the macros read and write the set that they are given.
        let one = unsafe {
            let all: Vec<usize> =
                (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &before)).collect();
            let mut one = std::mem::zeroed();
            libc::CPU_SET(all[index % all.len()], &mut one);
            one
        };
        allow(&one)?;
        Ok(Self { before })
    }
}

#[cfg(target_os = "linux")]
impl Drop for Pinned {
    fn drop(&mut self) {
        // It was allowed before; if a processor is gone by now, the thread stays where it is.
        let _ = allow(&self.before);
    }
}

#[cfg(target_os = "linux")]
fn allowed() -> io::Result<libc::cpu_set_t> {
    // SAFETY: zeros are an empty set, which the kernel fills.
    unsafe {
        let mut set = std::mem::zeroed();
        match libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) {
            0 => Ok(set),
            _ => Err(system("sched_getaffinity failed")),
        }
    }
}

#[cfg(target_os = "linux")]
fn allow(set: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: the set is readable for its size.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set) } {
        0 => Ok(()),
        _ => Err(system("sched_setaffinity failed")),
    }
}

/// There is no portable way elsewhere.
#[cfg(not(target_os = "linux"))]
pub(crate) struct Pinned;

#[cfg(not(target_os = "linux"))]
impl Pinned {
    pub(crate) fn new(_: usize) -> io::Result<Self> {
        Err(crate::error::fail(libc::ENOTSUP, "workers are kept on their processors on Linux only"))
    }
}
