//! Which system calls are made to fail, and with which errors.

/// A kind of system call.
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) number: libc::c_long,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Takes a client from a listening socket.
    Accept,
    /// A loop can't continue without it. These errors pass.
    Needed(&'static [i32]),
    /// Has something watched. EPERM says that it is of a kind that can't be.
    Watch,
    /// Connects a socket.
    Connect,
    /// Moves bytes, for which EINTR and EAGAIN are nothing unusual.
    Transfer,
    /// Makes a process or a thread.
    Fork,
    Other,
}

impl Call {
    /// The errors it is made to fail with.
    pub(crate) fn errnos(&self) -> impl Iterator<Item = i32> {
        let of_its_own: &[i32] = match self.kind {
            Kind::Accept => PASSED_ON_BY_ACCEPT,
            Kind::Connect => OF_CONNECT,
            _ => &[],
        };
        GENERAL.iter().chain(of_its_own).copied()
    }

    /// Whether a loop has to continue after that error. It may give up when it can't wait, or watch its
    /// sockets, and the man page doesn't know that to pass.
    pub(crate) fn is_survived(&self, errno: i32, lasting: bool) -> bool {
        match self.kind {
            Kind::Needed(passing) => passing.contains(&errno),
            Kind::Watch => errno != libc::EPERM && !lasting,
            _ => true,
        }
    }

    /// Whether no client may notice that error.
    pub(crate) fn is_unnoticed(&self, errno: i32) -> bool {
        match self.kind {
            Kind::Accept | Kind::Transfer => matches!(errno, libc::EINTR | libc::EAGAIN),
            Kind::Needed(_) => self.is_survived(errno, false),
            Kind::Connect | Kind::Fork | Kind::Watch | Kind::Other => false,
        }
    }
}

const EPOLL: Kind = Kind::Needed(&[libc::EINTR]);
const POLL: Kind = Kind::Needed(&[libc::EINTR, libc::EAGAIN, libc::ENOMEM]);
const RING: Kind = Kind::Needed(&[libc::EINTR, libc::EAGAIN, libc::ENOMEM, libc::EBUSY]);

const fn call(name: &'static str, number: libc::c_long, kind: Kind) -> Call {
    Call { name, number, kind }
}

/// Every kind. Those that a run doesn't make are passed over.
pub(crate) const CALLS: &[Call] = &[
    call("accept4", libc::SYS_accept4, Kind::Accept),
    #[cfg(target_arch = "x86_64")]
    call("accept", libc::SYS_accept, Kind::Accept),
    call("recvfrom", libc::SYS_recvfrom, Kind::Transfer),
    call("recvmsg", libc::SYS_recvmsg, Kind::Transfer),
    call("recvmmsg", libc::SYS_recvmmsg, Kind::Transfer),
    call("read", libc::SYS_read, Kind::Transfer),
    call("sendto", libc::SYS_sendto, Kind::Transfer),
    call("sendmsg", libc::SYS_sendmsg, Kind::Transfer),
    call("sendmmsg", libc::SYS_sendmmsg, Kind::Transfer),
    call("sendfile", libc::SYS_sendfile, Kind::Transfer),
    call("splice", libc::SYS_splice, Kind::Transfer),
    call("write", libc::SYS_write, Kind::Transfer),
    call("io_uring_enter", libc::SYS_io_uring_enter, RING),
    call("io_uring_setup", libc::SYS_io_uring_setup, Kind::Other),
    call("io_uring_register", libc::SYS_io_uring_register, Kind::Other),
    #[cfg(target_arch = "x86_64")]
    call("epoll_wait", libc::SYS_epoll_wait, EPOLL),
    call("epoll_pwait", libc::SYS_epoll_pwait, EPOLL),
    call("epoll_pwait2", libc::SYS_epoll_pwait2, EPOLL),
    call("epoll_ctl", libc::SYS_epoll_ctl, Kind::Watch),
    call("epoll_create1", libc::SYS_epoll_create1, Kind::Other),
    #[cfg(target_arch = "x86_64")]
    call("poll", libc::SYS_poll, POLL),
    call("ppoll", libc::SYS_ppoll, POLL),
    call("pselect6", libc::SYS_pselect6, POLL),
    call("eventfd2", libc::SYS_eventfd2, Kind::Other),
    call("timerfd_create", libc::SYS_timerfd_create, Kind::Other),
    call("timerfd_settime", libc::SYS_timerfd_settime, Kind::Other),
    call("pidfd_open", libc::SYS_pidfd_open, Kind::Other),
    call("waitid", libc::SYS_waitid, Kind::Other),
    call("wait4", libc::SYS_wait4, Kind::Other),
    call("clone", libc::SYS_clone, Kind::Fork),
    call("clone3", libc::SYS_clone3, Kind::Fork),
    #[cfg(target_arch = "x86_64")]
    call("fork", libc::SYS_fork, Kind::Fork),
    call("socket", libc::SYS_socket, Kind::Other),
    call("socketpair", libc::SYS_socketpair, Kind::Other),
    call("bind", libc::SYS_bind, Kind::Other),
    call("listen", libc::SYS_listen, Kind::Other),
    call("connect", libc::SYS_connect, Kind::Connect),
    call("getpeername", libc::SYS_getpeername, Kind::Other),
    call("getsockname", libc::SYS_getsockname, Kind::Other),
    call("getsockopt", libc::SYS_getsockopt, Kind::Other),
    call("setsockopt", libc::SYS_setsockopt, Kind::Other),
    call("shutdown", libc::SYS_shutdown, Kind::Other),
    call("fcntl", libc::SYS_fcntl, Kind::Other),
    call("pipe2", libc::SYS_pipe2, Kind::Other),
    #[cfg(target_arch = "x86_64")]
    call("pipe", libc::SYS_pipe, Kind::Other),
    call("mmap", libc::SYS_mmap, Kind::Other),
    call("fstat", libc::SYS_fstat, Kind::Watch),
    call("newfstatat", libc::SYS_newfstatat, Kind::Watch),
    call("rt_sigaction", libc::SYS_rt_sigaction, Kind::Needed(&[])),
    call("signalfd4", libc::SYS_signalfd4, Kind::Other),
];

/// What every call is made to fail with.
const GENERAL: &[i32] = &[
    libc::EINTR,
    libc::EAGAIN,
    libc::ENOMEM,
    libc::ENOBUFS,
    libc::EMFILE,
    libc::ENFILE,
    libc::EPERM,
    libc::EACCES,
    libc::ENOSYS,
];

/// What went wrong with a client's connection before it was accepted, accept(2).
const PASSED_ON_BY_ACCEPT: &[i32] = &[
    libc::ECONNABORTED,
    libc::EPROTO,
    libc::ENETDOWN,
    libc::ENOPROTOOPT,
    libc::EHOSTDOWN,
    libc::ENONET,
    libc::EHOSTUNREACH,
    libc::EOPNOTSUPP,
    libc::ENETUNREACH,
    libc::ETIMEDOUT,
    libc::ENOSR,
];

/// What else connect(2) may say.
const OF_CONNECT: &[i32] = &[
    libc::EADDRINUSE,
    libc::EADDRNOTAVAIL,
    libc::ECONNREFUSED,
    libc::EHOSTUNREACH,
    libc::ENETUNREACH,
    libc::ETIMEDOUT,
];

/// Errors that stay for a while. EINTR and EAGAIN pass by their nature.
pub(crate) const LASTING: &[i32] = &[libc::ENOMEM, libc::EMFILE, libc::EPERM, libc::ENOSYS];

const NAMES: &[(&str, i32)] = &[
    ("EINTR", libc::EINTR),
    ("EAGAIN", libc::EAGAIN),
    ("ENOMEM", libc::ENOMEM),
    ("ENOBUFS", libc::ENOBUFS),
    ("EMFILE", libc::EMFILE),
    ("ENFILE", libc::ENFILE),
    ("EPERM", libc::EPERM),
    ("EACCES", libc::EACCES),
    ("ENOSYS", libc::ENOSYS),
    ("ECONNABORTED", libc::ECONNABORTED),
    ("EPROTO", libc::EPROTO),
    ("ENETDOWN", libc::ENETDOWN),
    ("ENOPROTOOPT", libc::ENOPROTOOPT),
    ("EHOSTDOWN", libc::EHOSTDOWN),
    ("ENONET", libc::ENONET),
    ("EHOSTUNREACH", libc::EHOSTUNREACH),
    ("EOPNOTSUPP", libc::EOPNOTSUPP),
    ("ENETUNREACH", libc::ENETUNREACH),
    ("ETIMEDOUT", libc::ETIMEDOUT),
    ("ENOSR", libc::ENOSR),
    ("EADDRINUSE", libc::EADDRINUSE),
    ("EADDRNOTAVAIL", libc::EADDRNOTAVAIL),
    ("ECONNREFUSED", libc::ECONNREFUSED),
];

/// The name of an error that is injected.
pub(crate) fn name_of(errno: i32) -> &'static str {
    NAMES.iter().find(|&&(_, number)| number == errno).map_or("?", |&(name, _)| name)
}
