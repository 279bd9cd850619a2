//! What a descriptor is and how it is doing, asked without changing anything: for strict mode
//! and for [`dump`](crate::Poller::dump). A failure is no error: it leaves no words behind.

use std::os::fd::RawFd;

/// The type of a file and its identity, as far as `fstat(2)` knows them: pipes and sockets have
/// inode numbers of their own, but all eventfds, timerfds and epolls share one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: libc::dev_t,
    inode: libc::ino_t,
    kind: libc::mode_t,
}

/// Which file the number stands for; `None` when it is not open.
pub(crate) fn identity(fd: RawFd) -> Option<Identity> {
    // SAFETY: `stat` is plain old data, for which all zeroes is a value.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is writable for the length of the call.
    let result = unsafe { libc::fstat(fd, &mut stat) };
    let kind = stat.st_mode & libc::S_IFMT;
    (result == 0).then_some(Identity { device: stat.st_dev, inode: stat.st_ino, kind })
}

/// What the number stands for, in words.
pub(crate) fn what(fd: RawFd) -> String {
    let Some(identity) = identity(fd) else { return "closed".to_owned() };
    match std::fs::read_link(format!("/proc/self/fd/{fd}")) {
        Ok(path) => path.to_string_lossy().into_owned(),
        Err(_) => identity.in_words().to_owned(),
    }
}

impl Identity {
    fn in_words(self) -> &'static str {
        match self.kind {
            libc::S_IFSOCK => "socket",
            libc::S_IFIFO => "pipe",
            libc::S_IFCHR => "character device",
            libc::S_IFBLK => "block device",
            libc::S_IFDIR => "directory",
            libc::S_IFREG => "file",
            _ => "unknown",
        }
    }
}

/// Whether reads and writes may block; not when it is not open.
pub(crate) fn is_blocking(fd: RawFd) -> bool {
    // SAFETY: F_GETFL takes no pointer; a bad number is an error, not a fault.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_NONBLOCK == 0
}

/// Whether there is something to read, of `events` (POLLIN, POLLPRI): unread bytes, a connection to
/// accept, urgent data. End of file and errors alone are not.
pub(crate) fn is_unread(fd: RawFd, events: libc::c_short) -> bool {
    let mut call = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: `call` is an array of one that lives through the call.
    let found = unsafe { libc::poll(&mut call, 1, 0) } > 0 && call.revents & events != 0;
    // What can't count its bytes (a listener, an eventfd) has something when it is readable.
    found && (call.revents & libc::POLLPRI & events != 0 || count(fd, libc::FIONREAD as _) != Some(0))
}

/// A stamp that changes when something is written to a connected stream: what is still to be
/// sent, and on TCP how much ever was. `None` for anything else, for which there is no way to know.
#[cfg(target_os = "linux")]
pub(crate) fn written(fd: RawFd) -> Option<u64> {
    if identity(fd)?.kind == libc::S_IFIFO {
        return count(fd, libc::FIONREAD as _).map(u64::from);
    }
    let waiting = |fd| count(fd, libc::TIOCOUTQ as _).map(u64::from);
    match (option(fd, libc::SO_TYPE)?, option(fd, libc::SO_DOMAIN)?) {
        (libc::SOCK_STREAM, libc::AF_UNIX) => waiting(fd),
        (libc::SOCK_STREAM, libc::AF_INET | libc::AF_INET6) => {
            Some(u64::from(segments_sent(fd)?) << 32 | waiting(fd)?)
        }
        _ => None,
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn written(_: RawFd) -> Option<u64> {
    None
}

/// Writes one line to stderr, without any lock that a fork may have left locked.
pub(crate) fn write_line(line: &str) {
    // SAFETY: the line is readable for its length. A failure doesn't matter.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
}

/// The answer of an ioctl(2) that counts bytes.
fn count(fd: RawFd, request: libc::c_ulong) -> Option<u32> {
    let mut count: libc::c_int = 0;
    // SAFETY: the requests passed here write one int, and `count` lives through the call.
    let result = unsafe { libc::ioctl(fd, request as _, &mut count) };
    (result == 0).then_some(count as u32)
}

/// An option of a socket that is an int; `None` when it is no socket.
#[cfg(target_os = "linux")]
fn option(fd: RawFd, name: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both live through the call, and `length` is the value's.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut length) };
    (result == 0).then_some(value)
}

/// How many segments with data a TCP socket has sent: `tcpi_data_segs_out` of tcp(7), since
/// Linux 4.6.
#[cfg(target_os = "linux")]
fn segments_sent(fd: RawFd) -> Option<u32> {
    const PLACE: usize = 156;
    let mut info = [0u8; PLACE + 4];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: both live through the call, and the kernel writes no more than `length` bytes.
    let result = unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    let bytes = info[PLACE..].try_into().ok()?;
    (result == 0 && length as usize == info.len()).then(|| u32::from_ne_bytes(bytes))
}
