//! Descriptors: files of every kind, and which are open.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::{check, own};

/// The reading and the writing end, both non-blocking.
pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: pipe2 writes two numbers into an array of two.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) }, "pipe2");
    (own(ends[0]), own(ends[1]))
}

/// Has calls wait that the file can't answer at once.
pub(crate) fn set_blocking(file: &impl AsRawFd) {
    // SAFETY: takes no pointer.
    let flags = check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) }, "F_GETFL");
    // SAFETY: as above.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK) }, "F_SETFL");
}

/// Makes `number` refer to the file of `file`; it must not be in use.
pub(crate) fn dup_to(file: &impl AsRawFd, number: RawFd) -> OwnedFd {
    assert!(!is_open(number), "descriptor {number} is in use");
    // SAFETY: takes no pointer, and the fd is free.
    own(check(unsafe { libc::dup3(file.as_raw_fd(), number, libc::O_CLOEXEC) }, "dup3"))
}

/// Makes the fd of `old` refer to the file of `new`, without being free in between.
pub(crate) fn replace(new: &impl AsRawFd, old: &impl AsRawFd) {
    // SAFETY: takes no pointer, and both are open during the call.
    check(unsafe { libc::dup3(new.as_raw_fd(), old.as_raw_fd(), libc::O_CLOEXEC) }, "dup3");
}

/// Closes what this process was started with, other than standard input, output and error: a
/// jobserver's pipes, a shell's files.
pub(crate) fn close_inherited() {
    // SAFETY: takes no pointer, and nothing has been opened yet.
    check(unsafe { libc::close_range(3, libc::c_uint::MAX, 0) }, "close_range");
}

/// fcntl(2) with a number.
pub(crate) fn fcntl(fd: RawFd, command: i32, argument: i32) -> i32 {
    // SAFETY: the commands that tests use take no pointer.
    check(unsafe { libc::fcntl(fd, command, argument) }, "fcntl")
}

/// Closes these numbers in a forked child, which owns none of them.
pub(crate) fn close_here(numbers: &[RawFd]) {
    for &number in numbers {
        // SAFETY: takes no pointer. The child ends without running the destructors that own them.
        check(unsafe { libc::close(number) }, "close");
    }
}

/// Whether the fd is open.
pub(crate) fn is_open(number: RawFd) -> bool {
    // SAFETY: takes no pointer.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// The descriptors this process has open.
pub(crate) fn open_descriptors() -> BTreeSet<RawFd> {
    let folder = std::fs::read_dir("/proc/self/fd").expect("/proc/self/fd");
    let names = folder.map(|entry| entry.expect("an entry").file_name());
    let numbers: Vec<RawFd> =
        names.map(|name| name.to_str().and_then(|name| name.parse().ok()).expect("a number")).collect();
    // The folder's own is among them, and closed by now.
    numbers.into_iter().filter(|&number| is_open(number)).collect()
}

/// An eventfd with that count.
pub(crate) fn eventfd(count: u32) -> OwnedFd {
    // SAFETY: takes no pointer.
    own(check(unsafe { libc::eventfd(count, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }, "eventfd"))
}

/// Anonymous files that no system call can wait for: a Landlock ruleset (Linux 5.13) and a file
/// system's context, where this process may make them.
pub(crate) fn anonymous_files_without_readiness() -> impl Iterator<Item = OwnedFd> {
    // `handled_access_fs` of `struct landlock_ruleset_attr`: to execute a file.
    let attributes: u64 = 1;
    // SAFETY: the attributes are readable for the length that is given.
    let ruleset = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &attributes, 8, 0) };
    // SAFETY: the name is a string that lives through the call.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 1) };
    [ruleset, context].into_iter().filter(|&fd| fd >= 0).map(|fd| own(fd as libc::c_int))
}

/// Files of other kinds than pipes and sockets that have readiness.
pub(crate) fn files_with_readiness() -> Vec<OwnedFd> {
    let file = |path: &str| OwnedFd::from(std::fs::File::open(path).expect("a file of /proc"));
    // SAFETY: none of these takes a pointer.
    let made = unsafe {
        [
            libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC),
            libc::inotify_init1(libc::IN_CLOEXEC),
            libc::epoll_create1(libc::EPOLL_CLOEXEC),
            libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC),
            libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) as libc::c_int,
        ]
    };
    let made = made.into_iter().filter(|&fd| fd >= 0).map(own);
    made.chain([eventfd(0), eventfd(1), file("/proc/self/mountinfo"), file("/proc/mounts")]).collect()
}

/// A named pipe.
pub(crate) fn make_fifo(path: &std::path::Path) {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("a path");
    // SAFETY: the path is a string that lives through the call.
    check(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, "mkfifo");
}

/// Gives this thread a table of descriptors of its own, with all that is open.
pub(crate) fn unshare_descriptors() {
    // SAFETY: takes no pointer.
    check(unsafe { libc::unshare(libc::CLONE_FILES) }, "unshare");
}

/// A bare epoll set that watches `file` for reading: something to nest.
pub(crate) fn epoll_of(file: &impl AsRawFd) -> OwnedFd {
    // SAFETY: takes no pointer.
    let set = own(check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }, "epoll_create1"));
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
    // SAFETY: the event lives through the call.
    let result =
        unsafe { libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_ADD, file.as_raw_fd(), &mut event) };
    check(result, "epoll_ctl");
    set
}

/// Gives the sockets that a listening one accepts the largest receive buffer that the system permits.
pub(crate) fn maximize_receive_buffer(listener: &impl AsRawFd) {
    let (most, size) = (1 << 30, size_of::<libc::c_int>() as libc::socklen_t);
    let (level, option) = (libc::SOL_SOCKET, libc::SO_RCVBUF);
    // SAFETY: the option is read from an integer that lives through the call.
    let result =
        unsafe { libc::setsockopt(listener.as_raw_fd(), level, option, (&raw const most).cast(), size) };
    check(result, "SO_RCVBUF");
}

/// Succeeds in a shell that has inherited no descriptors but 0, 1 and 2.
pub(crate) const NOTHING_ELSE_IS_OPEN: &str =
    r#"for fd in /proc/$$/fd/*; do [ "${fd##*/}" -le 2 ] || [ ! -e "$fd" ] || exit 1; done"#;

/// Makes standard output refer to that file.
pub(crate) fn redirect_output(output: &impl AsRawFd) {
    // SAFETY: takes no pointer.
    check(unsafe { libc::dup2(output.as_raw_fd(), 1) }, "dup2");
}
