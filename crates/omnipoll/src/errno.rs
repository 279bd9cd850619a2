//! What an error of a system call is about: the one place where that is decided, by the man pages.
//!
//! Nothing that passes by itself, and nothing that a peer can cause, ends a server. An error that no
//! man page knows here (a security module's, a seccomp filter's) is taken for one that may pass.

use std::io;

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// Nothing has happened: the call is made again when there is reason to.
    Nothing,
    /// One client, or one datagram, which is lost: the next call may bring another.
    Peer,
    /// A moment in which the system is short of something: the call is made again a little later.
    Moment,
    /// The call itself, which will never succeed.
    Call,
}

use About::{Call, Moment, Nothing, Peer};

fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// accept(2), which passes on what went wrong with a connection before it was accepted.
pub(crate) fn of_accept(error: &io::Error) -> About {
    #[cfg(target_os = "linux")]
    if number(error) == libc::ENONET {
        return Peer;
    }
    match number(error) {
        // A ring's accept that was cancelled is ECANCELED.
        libc::EAGAIN | libc::EINTR | libc::ECANCELED => Nothing,
        // EPERM is a firewall's.
        libc::ECONNABORTED
        | libc::EPERM
        | libc::EPROTO
        | libc::ENETDOWN
        | libc::ENOPROTOOPT
        | libc::EHOSTDOWN
        | libc::EHOSTUNREACH
        | libc::EOPNOTSUPP
        | libc::ENETUNREACH
        | libc::ETIMEDOUT => Peer,
        libc::EBADF | libc::EFAULT | libc::EINVAL | libc::ENOTSOCK => Call,
        // EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSR.
        _ => Moment,
    }
}

/// Receiving datagrams, recv(2) and icmp(7).
pub(crate) fn of_receive(error: &io::Error) -> About {
    match number(error) {
        libc::EAGAIN | libc::EINTR => Nothing,
        // What ICMP said of a datagram sent before.
        libc::ECONNREFUSED
        | libc::ECONNRESET
        | libc::EHOSTUNREACH
        | libc::ENETUNREACH
        | libc::EHOSTDOWN
        | libc::ENOPROTOOPT
        | libc::EPROTO
        | libc::EMSGSIZE => Peer,
        libc::EBADF | libc::EFAULT | libc::EINVAL | libc::ENOTSOCK => Call,
        _ => Moment,
    }
}

/// Sending datagrams, send(2).
pub(crate) fn of_send(error: &io::Error) -> About {
    match number(error) {
        libc::EAGAIN | libc::EINTR => Nothing,
        libc::EBADF | libc::EFAULT | libc::ENOTSOCK | libc::EPIPE => Call,
        _ => Peer,
    }
}

/// Waiting: poll(2), select(2), epoll_wait(2), io_uring_enter(2).
pub(crate) fn of_wait(error: &io::Error) -> About {
    match number(error) {
        libc::EINTR => Nothing,
        libc::EAGAIN | libc::EBUSY | libc::ENOMEM => Moment,
        _ => Call,
    }
}

/// Making what a ring needs: a descriptor, a mapping or a thread: open(2), mmap(2), pthread_create(3).
#[cfg(io_uring)]
pub(crate) fn of_making(error: &io::Error) -> About {
    match number(error) {
        libc::EINTR => Nothing,
        libc::EAGAIN | libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS => Moment,
        _ => Call,
    }
}

/// Registering a descriptor of the library's own: epoll_ctl(2), fstat(2), io_uring_enter(2).
pub(crate) fn of_registration(error: &io::Error) -> About {
    match number(error) {
        // EPERM: a file of a kind that can't be watched.
        libc::EBADF | libc::EEXIST | libc::EINVAL | libc::ENOENT | libc::EPERM => Call,
        _ => Moment,
    }
}
