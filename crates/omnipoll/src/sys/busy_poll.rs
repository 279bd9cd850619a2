//! Busy polling: the kernel looks at the queue of a network device (NAPI) before a wait sleeps. Where it
//! can't, nothing is lost but the time that an interrupt takes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use super::check;

/// How many packets a look takes at most: `BUSY_POLL_BUDGET` of net/busy_poll.h. More than 64 take a privilege.
const BUDGET: u16 = 8;

/// `struct epoll_params` of linux/eventpoll.h.
#[repr(C)]
struct EpollParams {
    microseconds: u32,
    budget: u16,
    prefer: u8,
    padding: u8,
}

/// Has the waits of an epoll poll the device, for so long: ioctl_eventpoll(2), Linux 6.9. `ENOTTY` before.
pub(crate) fn of_epoll(set: BorrowedFd<'_>, time: Duration) -> io::Result<()> {
    /// `_IOW(EPOLL_IOC_TYPE, 1, struct epoll_params)`.
    const EPIOCSPARAMS: u32 = 0x4008_8a01;
    let params = EpollParams { microseconds: microseconds(time), budget: BUDGET, prefer: 0, padding: 0 };
    // SAFETY: the argument lives through the call, which reads it.
    let set = unsafe { libc::ioctl(set.as_raw_fd(), EPIOCSPARAMS as _, &params) };
    check(set, "ioctl failed").map(drop)
}

/// `struct io_uring_napi` of linux/io_uring.h.
#[cfg(io_uring)]
#[repr(C)]
struct RingNapi {
    microseconds: u32,
    prefer: u8,
    operation: u8,
    padding: [u8; 2],
    parameter: u32,
    reserved: u32,
}

/// Has the waits in a ring poll the device, for so long: io_uring_register_napi(3), Linux 6.9. `EINVAL`
/// before.
#[cfg(io_uring)]
pub(crate) fn of_ring(ring: BorrowedFd<'_>, time: Duration) -> io::Result<()> {
    const IORING_REGISTER_NAPI: libc::c_uint = 27;
    let mut napi = RingNapi {
        microseconds: microseconds(time),
        prefer: 0,
        operation: 0,
        padding: [0; 2],
        parameter: 0,
        reserved: 0,
    };
    let ring = ring.as_raw_fd();
    // SAFETY: the argument lives through the call, which reads it and writes the previous values to it.
    let set =
        unsafe { libc::syscall(libc::SYS_io_uring_register, ring, IORING_REGISTER_NAPI, &raw mut napi, 1) };
    check(set as libc::c_int, "io_uring_register failed").map(drop)
}

fn microseconds(time: Duration) -> u32 {
    // The kernel takes no more than an int holds.
    time.as_micros().try_into().unwrap_or(i32::MAX as u32).min(i32::MAX as u32)
}
