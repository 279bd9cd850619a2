//! Which file a descriptor stands for, and whether it can be watched.

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
#[cfg(target_os = "linux")]
use std::time::Duration;

#[cfg(target_os = "linux")]
use super::descriptor::epoll_create;
#[cfg(target_os = "linux")]
use super::poll::poll;
use crate::error::{errno, fail, system};

/// An open file, as far as `fstat(2)` can distinguish it from another: pipes and sockets have inode
/// numbers of their own, but all eventfds, timerfds and epolls share one.
pub(crate) struct FileInfo {
    /// A hash of device and inode.
    pub(crate) identity: u32,
    mode: libc::mode_t,
}

impl FileInfo {
    /// `EBADF` when it is not open.
    pub(crate) fn of(fd: RawFd) -> io::Result<Self> {
        // SAFETY: `stat` is plain old data, for which all zeroes is a value.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: `stat` is writable for the length of the call.
        if unsafe { libc::fstat(fd, &mut stat) } < 0 {
            return Err(match errno() {
                libc::EBADF => not_open(),
                _ => system("fstat failed"),
            });
        }
        let identity =
            (stat.st_ino as u64 ^ (stat.st_dev as u64).rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Ok(Self { identity: (identity >> 32) as u32, mode: stat.st_mode })
    }

    /// Whether it is an eventfd, a timerfd, an epoll or the like, of which all share one inode.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_anonymous(&self) -> bool {
        self.mode & libc::S_IFMT == 0
    }

    /// Whether it has readiness at all, as `epoll_ctl(2)` answers it. Every socket and pipe has.
    /// Files on a disk and /dev/null have none, /proc/self/mountinfo and a terminal have; of the
    /// anonymous ones an eventfd has, and a Landlock ruleset has none.
    ///
    /// `EBADF` for one that was opened with `O_PATH`. `EMFILE` and the like when only an epoll
    /// could tell and none can be made.
    pub(crate) fn can_be_watched(&self, fd: RawFd) -> io::Result<bool> {
        match self.mode & libc::S_IFMT {
            #[cfg(target_os = "linux")]
            _ if is_path(fd) => Err(not_open()),
            libc::S_IFSOCK | libc::S_IFIFO => Ok(true),
            libc::S_IFDIR | libc::S_IFBLK => Ok(false),
            kind => can_be_watched(fd, kind),
        }
    }
}

pub(crate) fn not_open() -> io::Error {
    fail(libc::EBADF, "the descriptor is not open")
}

pub(crate) fn always_ready() -> io::Error {
    fail(
        libc::EPERM,
        "this kind of file is always ready: it can't be watched unless files_always_ready is asked for",
    )
}

/// Whether it was opened with `O_PATH`: for every call but a few it is not open.
#[cfg(target_os = "linux")]
fn is_path(fd: RawFd) -> bool {
    // SAFETY: F_GETFL takes no pointer; a bad number is an error, not a fault.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_PATH != 0
}

/// Asks an epoll, which alone knows; but only where poll(2) answers what it answers for files
/// that have no readiness (`DEFAULT_POLLMASK`).
#[cfg(target_os = "linux")]
fn can_be_watched(fd: RawFd, _: libc::mode_t) -> io::Result<bool> {
    const DEFAULT: libc::c_short = libc::POLLIN | libc::POLLOUT | libc::POLLRDNORM | libc::POLLWRNORM;
    let mut entry = [libc::pollfd { fd, events: DEFAULT, revents: 0 }];
    if poll(&mut entry, Some(Duration::ZERO)).is_ok() && entry[0].revents != DEFAULT {
        return Ok(true);
    }
    let epoll = epoll_create()?;
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: `event` lives through the call; a number that is no file is an error.
    let result = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) };
    Ok(result == 0 || errno() != libc::EPERM)
}

#[cfg(not(target_os = "linux"))]
fn can_be_watched(_: RawFd, kind: libc::mode_t) -> io::Result<bool> {
    Ok(kind != libc::S_IFREG)
}
