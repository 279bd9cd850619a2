//! What kind of error a system call has returned: the one place where that is decided, by the man
//! pages.
//!
//! Nothing temporary, and nothing that a peer can cause, ends a server. An error that no
//! man page knows here (a security module's, a seccomp filter's) is taken for a temporary one.

use std::io;

/// What kind of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorClass {
    /// No error: nothing was there, or a signal came. The call is made again when there is reason to.
    WouldBlock,
    /// It concerns one client, or one datagram, which is lost: the next call may bring another.
    Peer,
    /// The system is short of something: the call is made again a little later.
    Temporary,
    /// The call will never succeed.
    Permanent,
}

use ErrorClass::{Peer, Permanent, Temporary, WouldBlock};

/// The errno of an error.
pub(crate) fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// accept(2), which passes on what went wrong with a connection before it was accepted.
pub(crate) fn classify_accept(error: &io::Error) -> ErrorClass {
    #[cfg(target_os = "linux")]
    if number(error) == libc::ENONET {
        return Peer;
    }
    match number(error) {
        // A ring's accept that was cancelled is ECANCELED.
        libc::EAGAIN | libc::EINTR | libc::ECANCELED => WouldBlock,
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
        libc::EBADF | libc::EFAULT | libc::EINVAL | libc::ENOTSOCK => Permanent,
        // EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSR.
        _ => Temporary,
    }
}

/// connect(2) of a non-blocking socket, and what comes before it: socket(2), bind(2). `WouldBlock`: it is
/// in progress. `Temporary`: the same address is tried again.
/// `Peer`: this address can't be connected to.
pub(crate) fn classify_connect(error: &io::Error) -> ErrorClass {
    match number(error) {
        // EINTR: of a ring.
        libc::EINPROGRESS | libc::EALREADY | libc::EINTR => WouldBlock,
        // EAGAIN: the queue of the unix socket that listens there is full.
        libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => Temporary,
        // ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, ENOENT; EADDRNOTAVAIL and EADDRINUSE, no
        // port is left; EACCES and EPERM, a firewall's; EMFILE and ENFILE, which only the program can
        // do something about; and the rest.
        _ => Peer,
    }
}

/// Receiving datagrams, recv(2) and icmp(7).
pub(crate) fn classify_receive(error: &io::Error) -> ErrorClass {
    match number(error) {
        libc::EAGAIN | libc::EINTR => WouldBlock,
        // What ICMP said of a datagram sent before.
        libc::ECONNREFUSED
        | libc::ECONNRESET
        | libc::EHOSTUNREACH
        | libc::ENETUNREACH
        | libc::EHOSTDOWN
        | libc::ENOPROTOOPT
        | libc::EPROTO
        | libc::EMSGSIZE => Peer,
        libc::EBADF | libc::EFAULT | libc::EINVAL | libc::ENOTSOCK => Permanent,
        _ => Temporary,
    }
}

/// Sending datagrams, send(2).
pub(crate) fn classify_send(error: &io::Error) -> ErrorClass {
    match number(error) {
        libc::EAGAIN | libc::EINTR => WouldBlock,
        libc::EBADF | libc::EFAULT | libc::ENOTSOCK | libc::EPIPE => Permanent,
        _ => Peer,
    }
}

/// Waiting: poll(2), select(2), epoll_wait(2), io_uring_enter(2).
pub(crate) fn classify_wait(error: &io::Error) -> ErrorClass {
    match number(error) {
        libc::EINTR => WouldBlock,
        libc::EAGAIN | libc::EBUSY | libc::ENOMEM => Temporary,
        _ => Permanent,
    }
}

/// Making what a ring needs: a descriptor, a mapping or a thread: open(2), mmap(2), pthread_create(3).
#[cfg(io_uring)]
pub(crate) fn classify_making(error: &io::Error) -> ErrorClass {
    match number(error) {
        libc::EINTR => WouldBlock,
        libc::EAGAIN | libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS => Temporary,
        _ => Permanent,
    }
}

/// Registering a descriptor of the library's own: epoll_ctl(2), fstat(2), io_uring_enter(2).
pub(crate) fn classify_registration(error: &io::Error) -> ErrorClass {
    match number(error) {
        // EPERM: a file of a kind that can't be watched.
        libc::EBADF | libc::EEXIST | libc::EINVAL | libc::ENOENT | libc::EPERM => Permanent,
        _ => Temporary,
    }
}
