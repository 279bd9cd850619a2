//! What the engine uses of the kernel where it can.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use crate::error::plain;
use crate::feature::Feature;
use crate::sys::descriptor::{epoll_create, eventfd};
use crate::sys::{busy_poll, check};

pub(in super::super) fn features() -> Vec<Feature> {
    let with_set = |probe: fn(OwnedFd) -> io::Result<()>| epoll_create().and_then(probe);
    vec![
        Feature::new("EPOLLEXCLUSIVE", "4.5", with_set(exclusive)),
        Feature::new("epoll_pwait2", "5.11", with_set(pwait2)),
        Feature::new("EPIOCSPARAMS", "6.9", with_set(|set| busy_poll::of_epoll(set.as_fd(), Duration::ZERO))),
    ]
}

fn exclusive(set: OwnedFd) -> io::Result<()> {
    let watched = eventfd(0)?;
    let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLEXCLUSIVE) as u32, u64: 0 };
    let (set, watched) = (set.as_raw_fd(), watched.as_raw_fd());
    // SAFETY: the event lives through the call.
    check(unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, watched, &mut event) }, "epoll_ctl failed")
        .map(drop)
}

/// A look at an empty set.
fn pwait2(set: OwnedFd) -> io::Result<()> {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    let timeout = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let no_mask = std::ptr::null::<libc::sigset_t>();
    let set = set.as_raw_fd();
    // SAFETY: there is room for one event, and the kernel only reads the timeout.
    match unsafe { libc::syscall(libc::SYS_epoll_pwait2, set, &raw mut event, 1, &timeout, no_mask, 0) } {
        0 => Ok(()),
        _ => Err(plain(crate::error::errno())),
    }
}
