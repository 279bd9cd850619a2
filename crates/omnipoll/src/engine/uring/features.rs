//! What pollers and loops on io_uring use of the kernel where they can.

use std::io;
use std::thread;
use std::time::Duration;

use io_uring::IoUring;

use super::availability::unavailable_errno;
use super::ring::Ring;
use crate::error::{bare, plain};
use crate::feature::Feature;
use crate::sys::busy_poll;
#[cfg(feature = "serve")]
use crate::sys::CompletionRing;

pub(in super::super) fn features() -> Vec<Feature> {
    // In a thread of its own: when a ring is gone, the kernel interrupts the thread that made it.
    let probing = thread::Builder::new().spawn(probe);
    let probed = probing.and_then(|probing| probing.join().map_err(|_| bare(libc::ENOTRECOVERABLE)));
    probed.unwrap_or_else(|error| all(|| Err(bare(error.raw_os_error().unwrap_or(libc::EAGAIN)))))
}

/// Of all of them, the same.
fn all(outcome: impl Fn() -> io::Result<()>) -> Vec<Feature> {
    POLLERS.iter().map(|&(name, linux, _)| Feature::new(name, linux, outcome())).chain(of_loops()).collect()
}

/// Of those of the ring of pollers: name, version, and how to try it out.
type Probe = fn(&IoUring) -> io::Result<()>;

const POLLERS: [(&str, &str, Probe); 3] = [
    ("IORING_SETUP_COOP_TASKRUN", "5.19", |_| Ring::cooperative(1).map(drop)),
    ("IORING_REGISTER_NAPI", "6.9", |ring| busy_poll::of_ring(Ring::descriptor_of(ring), Duration::ZERO)),
    ("IORING_ENTER_NO_IOWAIT", "6.15", |ring| match ring.params().is_feature_no_iowait() {
        true => Ok(()),
        false => Err(plain(libc::EINVAL)),
    }),
];

fn probe() -> Vec<Feature> {
    if let Some(errno) = unavailable_errno() {
        return all(|| Err(bare(errno)));
    }
    match IoUring::new(1) {
        Ok(ring) => POLLERS
            .iter()
            .map(|&(name, linux, probe)| Feature::new(name, linux, probe(&ring)))
            .chain(of_loops())
            .collect(),
        Err(error) => all(|| Err(bare(error.raw_os_error().unwrap_or(libc::EINVAL)))),
    }
}

#[cfg(feature = "serve")]
fn of_loops() -> Vec<Feature> {
    CompletionRing::features()
}

#[cfg(not(feature = "serve"))]
fn of_loops() -> Vec<Feature> {
    Vec::new()
}
