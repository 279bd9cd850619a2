//! The findings of strict mode, and their words.

use std::os::fd::RawFd;

/// A mistake that [strict mode](crate::Options::strict) has found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Which mistake.
    pub kind: FindingKind,
    /// The descriptor; -1 when it is about no single one.
    pub fd: RawFd,
    /// The descriptor's token; 0 when there is none.
    pub token: u64,
    /// What was found and what to do, in one sentence.
    pub words: String,
}

/// The mistakes that are found. Each is reported once for a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum FindingKind {
    /// An EDGE on a descriptor without `O_NONBLOCK`: reading it until `EAGAIN` would block.
    BlockingEdge = 1,
    /// Something was left to read under EDGE and will not be reported again: for longer than
    /// [`Options::strict_limit`](crate::Options::strict_limit), with the engine silent about it.
    Undrained = 2,
    /// A ONESHOT fired and was not re-enabled by modify, though there is something to read: for
    /// 16 waits and longer than the limit.
    ForgottenOneshot = 3,
    /// A descriptor was closed before it was removed.
    Closed = 4,
    /// A descriptor was closed before it was removed, and its number stands for another file, as
    /// far as `fstat(2)` can distinguish them: eventfds, timerfds and epolls look all the same.
    Reused = 5,
    /// A LEVEL descriptor was reported as nothing but writable a thousand times, and nothing was
    /// written. Known of pipes, and of stream sockets of the Unix domain and TCP, on Linux. What
    /// is written and read again between two waits leaves no trace but on TCP: a program that
    /// holds both ends may be reported wrongly.
    BusyWriter = 6,
    /// A thread took longer than the limit from a wait that returned events to its next wait.
    BlockedLoop = 7,
    /// A forked child used its parent's poller, which is `EOWNERDEAD`. Not reported for
    /// [`wake`](crate::Poller::wake), which a signal handler may call.
    ForkedChild = 8,
    /// The poller was dropped while a descriptor was registered.
    Leaked = 9,
}

/// The registration that a finding is about.
#[derive(Clone, Copy)]
pub(super) struct Cause {
    pub(super) fd: RawFd,
    pub(super) token: u64,
}

impl FindingKind {
    /// The bit that marks it as reported.
    pub(super) const fn bit(self) -> u16 {
        1 << self as u32
    }

    /// What it says of a descriptor, or of the poller.
    const fn predicate(self) -> &'static str {
        match self {
            Self::BlockingEdge => {
                "is watched with EDGE but blocks: set O_NONBLOCK, or reading it until EAGAIN hangs the thread"
            }
            Self::Undrained => {
                "was reported under EDGE, still has something to read, and is not reported again: \
                 read until EAGAIN, then rearm"
            }
            Self::ForgottenOneshot => {
                "has fired its ONESHOT, has something to read, and was not re-enabled for 16 waits: \
                 modify it when it is served, or remove it"
            }
            Self::Closed => "was closed while registered: remove it before it is closed",
            Self::Reused => {
                "stands for another file than the one registered: remove a descriptor before it is closed"
            }
            Self::BusyWriter => {
                "was reported writable 1,000 times while nothing was written: \
                 ask for WRITE only while there is something to write"
            }
            Self::BlockedLoop => {
                "kept a thread from its next wait for too long: give long work to another thread"
            }
            Self::ForkedChild => {
                "was used by a forked child of its process: call after_fork first, or make a new one"
            }
            Self::Leaked => "was still registered when the poller was dropped: remove it first",
        }
    }

    /// The finding about this descriptor, or about no single one.
    pub(super) fn about(self, cause: Option<Cause>) -> Finding {
        let subject = match cause {
            Some(Cause { fd, token }) => format!("descriptor {fd} (token {token})"),
            None if self == Self::BlockedLoop => "a batch of events".to_owned(),
            None => "the poller".to_owned(),
        };
        let Cause { fd, token } = cause.unwrap_or(Cause { fd: -1, token: 0 });
        Finding { kind: self, fd, token, words: format!("{subject} {}", self.predicate()) }
    }
}
