//! The system calls that every engine needs, and what differs between systems.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use crate::error::{bare, errno, fail, system, Describe};

/// -1 is an error that `errno` tells.
pub(crate) fn check(result: libc::c_int, words: &'static str) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(system(words));
    }
    Ok(result)
}

/// The numbers below are standard input, output and error, also of a program that was started with
/// some of them closed: what it prints must not reach a client.
pub(crate) const FIRST_ABOVE_STDIO: RawFd = 3;

/// The same file with a number that is nobody's standard input, output or error: every descriptor
/// that the library makes goes through here.
#[inline]
pub(crate) fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() >= FIRST_ABOVE_STDIO {
        return Ok(fd);
    }
    // The standard library's duplicates begin at 3, and are closed by `exec`.
    fd.try_clone().describe("a descriptor can't be moved above 2")
}

/// The same for what owns its descriptor: those below are kept until one above them is made.
#[cfg(io_uring)]
pub(crate) fn make_above_stdio<T: AsRawFd>(make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let mut below = Vec::new();
    loop {
        let made = make()?;
        if made.as_raw_fd() >= FIRST_ABOVE_STDIO {
            return Ok(made);
        }
        below.push(made);
    }
}

/// A timeout as the kernel takes it. Beyond what `time_t` holds the caller's deadline goes on.
pub(crate) fn timespec(timeout: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos() as _,
    }
}

/// A timeout in milliseconds, rounded up so that it is never early; -1 for none.
pub(crate) fn milliseconds(timeout: Option<Duration>) -> libc::c_int {
    match timeout {
        None => -1,
        Some(Duration::ZERO) => 0,
        Some(timeout) => timeout.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(libc::c_int::MAX),
    }
}

/// `poll(2)` for any number of entries: how many are ready.
///
/// The system call refuses more of them than the process may have descriptors (`EINVAL`),
/// which is less than it has when RLIMIT_NOFILE was lowered: then it is called for one part of
/// the array after another, and sleeps in between with the first.
pub(crate) fn poll(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    match poll_once(entries, timeout) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => poll_in_parts(entries, timeout),
        result => result,
    }
}

#[cold]
fn poll_in_parts(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    /// How late a descriptor in another part than the first may be noticed.
    const SLICE: Duration = Duration::from_millis(5);
    let most = descriptor_limit().min(entries.len());
    if most == 0 {
        return Err(fail(libc::EINVAL, "poll can't be used: RLIMIT_NOFILE is 0"));
    }
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let mut ready = 0;
        for part in entries.chunks_mut(most) {
            ready += poll_once(part, Some(Duration::ZERO))?;
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if ready > 0 || left == Some(Duration::ZERO) {
            return Ok(ready);
        }
        poll_once(&mut entries[..most], Some(left.map_or(SLICE, |left| left.min(SLICE))))?;
    }
}

/// The soft limit RLIMIT_NOFILE.
fn descriptor_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is writable for the length of the call, which can't fail otherwise.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_cur.try_into().unwrap_or(usize::MAX)
}

#[cfg(target_os = "linux")]
fn poll_once(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    let (start, length) = (entries.as_mut_ptr(), entries.len() as libc::nfds_t);
    let ready = match timeout {
        Some(timeout) if !timeout.is_zero() => {
            let timeout = timespec(timeout);
            // SAFETY: the entries are writable and the timeout readable through the call; the signal
            // mask is left out.
            unsafe { libc::ppoll(start, length, &timeout, std::ptr::null()) }
        }
        // A look at one descriptor takes a tenth longer with a timespec, which is copied in and back.
        // SAFETY: as above.
        none_or_zero => unsafe { libc::poll(start, length, milliseconds(none_or_zero)) },
    };
    check(ready, "poll failed").map(|ready| ready as usize)
}

#[cfg(not(target_os = "linux"))]
fn poll_once(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    // SAFETY: the entries are writable through the call.
    let ready =
        unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, milliseconds(timeout)) };
    check(ready, "poll failed").map(|ready| ready as usize)
}

/// Whether the number stands for an open file.
pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD takes no pointer; a bad number is an error, not a fault.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// An open file, as far as `fstat(2)` can tell it from another: pipes and sockets have inode
/// numbers of their own, but all eventfds, timerfds and epolls share one.
pub(crate) struct File {
    pub(crate) identity: u32,
    mode: libc::mode_t,
}

impl File {
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
    if poll_once(&mut entry, Some(Duration::ZERO)).is_ok() && entry[0].revents != DEFAULT {
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

#[cfg(target_os = "linux")]
pub(crate) fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }, "epoll_create1 failed")?;
    // SAFETY: the kernel has just given us this number.
    above_stdio(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor that [`notify`] makes readable, and the one to write to where that is another.
#[cfg(target_os = "linux")]
pub(crate) fn notifier() -> io::Result<(OwnedFd, Option<OwnedFd>)> {
    Ok((eventfd(0)?, None))
}

/// An eventfd: readable while its count is not 0, and writable.
#[cfg(target_os = "linux")]
pub(crate) fn eventfd(count: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd =
        check(unsafe { libc::eventfd(count, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }, "eventfd failed")?;
    // SAFETY: the kernel has just given us this number.
    above_stdio(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn notifier() -> io::Result<(OwnedFd, Option<OwnedFd>)> {
    let (reader, writer) = pipe()?;
    for end in [&reader, &writer] {
        // SAFETY: F_SETFL takes no pointer.
        check(unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, "fcntl failed")?;
    }
    Ok((reader, Some(writer)))
}

/// A pipe's reading and writing end, both close-on-exec: at once, so that no other thread's exec
/// comes in between, where the system can do that.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    #[cfg(not(target_vendor = "apple"))]
    // SAFETY: pipe2 writes two numbers into an array of two.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, "pipe2 failed")?;
    #[cfg(target_vendor = "apple")]
    // SAFETY: as above.
    check(unsafe { libc::pipe(ends.as_mut_ptr()) }, "pipe failed")?;
    // SAFETY: the kernel has just given us these numbers.
    let [reader, writer] = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    #[cfg(target_vendor = "apple")]
    for end in [&reader, &writer] {
        // SAFETY: F_SETFD takes no pointer.
        check(unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) }, "fcntl failed")?;
    }
    Ok((above_stdio(reader)?, above_stdio(writer)?))
}

/// How often a notifier is written to before a failure is believed: there is nothing else that
/// would reach the thread that sleeps. A pipe may be short of memory for a moment.
const TRIES: usize = 3;

/// Makes a notifier readable; does so already when it would block.
pub(crate) fn notify(writer: &OwnedFd) -> io::Result<()> {
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

/// Takes everything out of a notifier. False when it can't be read, and goes on being readable.
pub(crate) fn drain(reader: &OwnedFd) -> bool {
    let mut bytes = [0u8; 512];
    // SAFETY: `bytes` is writable for its length. An eventfd gives 8 bytes once; a pipe that
    // held more stays readable and is drained by the next wait.
    let count = unsafe { libc::read(reader.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
    count >= 0 || errno() == libc::EAGAIN
}

/// Makes the number of `old` stand for the file of `new`, atomically.
pub(crate) fn replace(new: &OwnedFd, old: &OwnedFd) -> io::Result<()> {
    loop {
        match check(dup_over(new.as_raw_fd(), old.as_raw_fd()), "dup3 failed") {
            // EBUSY: Linux, when another thread is about to open something.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) => {}
            result => return result.map(drop),
        }
    }
}

#[cfg(not(target_vendor = "apple"))]
fn dup_over(new: RawFd, old: RawFd) -> libc::c_int {
    // SAFETY: takes no pointer; both are open descriptors of ours.
    unsafe { libc::dup3(new, old, libc::O_CLOEXEC) }
}

#[cfg(target_vendor = "apple")]
fn dup_over(new: RawFd, old: RawFd) -> libc::c_int {
    // SAFETY: as above. dup2 clears the flag.
    match unsafe { libc::dup2(new, old) } {
        // SAFETY: takes no pointer.
        fd if fd >= 0 => unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) },
        error => error,
    }
}
