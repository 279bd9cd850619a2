//! The system calls that every engine needs, and what differs between systems.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::error::{bare, errno, fail, system};

/// -1 is an error that `errno` tells.
pub(super) fn check(result: libc::c_int, words: &'static str) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(system(words));
    }
    Ok(result)
}

/// A timeout as the kernel takes it. Beyond what `time_t` holds the caller's deadline goes on.
pub(super) fn timespec(timeout: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos() as _,
    }
}

/// A timeout in milliseconds, rounded up so that it is never early; -1 for none.
pub(super) fn milliseconds(timeout: Option<Duration>) -> libc::c_int {
    match timeout {
        None => -1,
        Some(Duration::ZERO) => 0,
        Some(timeout) => timeout.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(libc::c_int::MAX),
    }
}

/// Whether the number stands for an open file.
pub(super) fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD takes no pointer; a bad number is an error, not a fault.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// An open file, as far as `fstat(2)` can tell it from another: pipes and sockets have inode
/// numbers of their own, but all eventfds, timerfds and epolls share one.
pub(super) struct File {
    pub(super) identity: u32,
    mode: libc::mode_t,
}

impl File {
    /// `EBADF` when it is not open.
    pub(super) fn of(fd: RawFd) -> io::Result<Self> {
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
    pub(super) fn is_anonymous(&self) -> bool {
        self.mode & libc::S_IFMT == 0
    }

    pub(super) fn is_always_ready(&self, fd: RawFd) -> bool {
        match self.mode & libc::S_IFMT {
            libc::S_IFDIR | libc::S_IFBLK => true,
            libc::S_IFREG | libc::S_IFCHR => !can_be_watched(fd),
            _ => false,
        }
    }
}

pub(super) fn not_open() -> io::Error {
    fail(libc::EBADF, "the descriptor is not open")
}

pub(super) fn always_ready() -> io::Error {
    fail(
        libc::EPERM,
        "this kind of file is always ready: it can't be watched unless files_always_ready is asked for",
    )
}

/// A file on a disk and /dev/null have no readiness, /proc/self/mountinfo and a terminal have:
/// only epoll tells them apart.
#[cfg(target_os = "linux")]
fn can_be_watched(fd: RawFd) -> bool {
    let Ok(epoll) = epoll_create() else { return true };
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: `event` lives through the call; a number that is no file is an error.
    let result = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) };
    result == 0 || errno() != libc::EPERM
}

#[cfg(not(target_os = "linux"))]
fn can_be_watched(fd: RawFd) -> bool {
    File::of(fd).is_ok_and(|file| file.mode & libc::S_IFMT == libc::S_IFCHR)
}

#[cfg(target_os = "linux")]
pub(super) fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }, "epoll_create1 failed")?;
    // SAFETY: the kernel has just given us this number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor that [`notify`] makes readable, and the one to write to where that is another.
#[cfg(target_os = "linux")]
pub(super) fn notifier() -> io::Result<(OwnedFd, Option<OwnedFd>)> {
    Ok((eventfd(0)?, None))
}

/// An eventfd: readable while its count is not 0, and writable.
#[cfg(target_os = "linux")]
pub(super) fn eventfd(count: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd =
        check(unsafe { libc::eventfd(count, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }, "eventfd failed")?;
    // SAFETY: the kernel has just given us this number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(not(target_os = "linux"))]
pub(super) fn notifier() -> io::Result<(OwnedFd, Option<OwnedFd>)> {
    let mut ends = [0; 2];
    // SAFETY: pipe writes two numbers into an array of two.
    check(unsafe { libc::pipe(ends.as_mut_ptr()) }, "pipe failed")?;
    // SAFETY: the kernel has just given us these numbers.
    let ends = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    for end in &ends {
        // SAFETY: fcntl with these commands takes no pointer.
        unsafe {
            check(libc::fcntl(end.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC), "fcntl failed")?;
            check(libc::fcntl(end.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK), "fcntl failed")?;
        }
    }
    let [reader, writer] = ends;
    Ok((reader, Some(writer)))
}

/// How often a notifier is written to before a failure is believed: there is nothing else that
/// would reach the thread that sleeps. A pipe may be short of memory for a moment.
const TRIES: usize = 3;

/// Makes a notifier readable; does so already when it would block.
pub(super) fn notify(writer: &OwnedFd) -> io::Result<()> {
    if write_to_notifier(writer.as_raw_fd()) {
        return Ok(());
    }
    match errno() {
        libc::EAGAIN => Ok(()),
        // A signal handler may be the caller.
        errno => Err(bare(errno)),
    }
}

/// Writes to a notifier; `false` with `errno` when that is not to be. Async-signal-safe.
pub(crate) fn write_to_notifier(writer: RawFd) -> bool {
    let one = 1u64.to_ne_bytes();
    // SAFETY: `one` is readable for its length.
    let write = || unsafe { libc::write(writer, one.as_ptr().cast(), one.len()) };
    (0..TRIES).any(|_| write() >= 0)
}

/// Takes everything out of a notifier.
pub(super) fn drain(reader: &OwnedFd) {
    let mut bytes = [0u8; 512];
    // SAFETY: `bytes` is writable for its length. An eventfd gives 8 bytes once; a pipe that
    // held more stays readable and is drained by the next wait.
    unsafe { libc::read(reader.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
}

/// Makes the number of `old` stand for the file of `new`, atomically.
pub(crate) fn replace(new: &OwnedFd, old: &OwnedFd) -> io::Result<()> {
    loop {
        // SAFETY: both are open descriptors of ours.
        let result = unsafe { libc::dup2(new.as_raw_fd(), old.as_raw_fd()) };
        match check(result, "dup2 failed") {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(fd) => {
                // SAFETY: takes no pointer. dup2 clears the flag; dup3 is not in POSIX before 2024.
                return check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }, "fcntl failed")
                    .map(drop);
            }
        }
    }
}
