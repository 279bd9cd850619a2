//! The tokens that a loop keeps for itself on the poller it waits on, which the program uses too.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::Poller;
use crate::error::fail;
use crate::Interest;

/// On the poller of a loop, tokens from this one on are the loop's own.
pub(crate) const RESERVED_TOKENS: u64 = 0xffff_ffff_8000_0000;

/// Who has made a registration, or changes one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// It may change its own only.
    Program,
    /// The loop that waits on the poller.
    Loop,
}

/// For the loop itself.
impl Poller {
    pub(crate) fn add_reserved(&self, fd: RawFd, interest: Interest, token: u64) -> io::Result<()> {
        self.add_registration(fd, interest, token)
    }

    pub(crate) fn modify_reserved(&self, fd: RawFd, interest: Interest, token: u64) -> io::Result<()> {
        self.modify_registration(fd, interest, token, Owner::Loop)
    }

    pub(crate) fn remove_reserved(&self, fd: RawFd) -> io::Result<()> {
        self.remove_registration(fd, Owner::Loop)
    }

    pub(crate) fn timer_add_reserved(&self, delay: Duration, token: u64) -> io::Result<u64> {
        self.timer_add_any(delay, None, token)
    }

    pub(crate) fn child_add_reserved(&self, pid: i32, token: u64) -> io::Result<()> {
        self.child_add_any(pid, token)
    }

    pub(crate) fn signal_add_reserved(&self, signo: i32, token: u64) -> io::Result<()> {
        self.signal_add_any(signo, token)
    }
}

impl Poller {
    #[inline]
    fn is_reserved(&self, token: u64) -> bool {
        self.reserves_tokens && token >= RESERVED_TOKENS
    }

    /// `EINVAL` for a token that the program can't use on this poller.
    #[inline]
    pub(super) fn check_token(&self, token: u64) -> io::Result<()> {
        if self.is_reserved(token) {
            return Err(fail(
                libc::EINVAL,
                "on a loop's poller, tokens from 0xffffffff80000000 on are the loop's",
            ));
        }
        Ok(())
    }

    /// `EPERM` for a registration of this token that the loop has made for itself, unless it changes it.
    #[inline]
    pub(super) fn check_may_change(&self, by: Owner, token: u64) -> io::Result<()> {
        if by == Owner::Program && self.is_reserved(token) {
            return Err(fail(
                libc::EPERM,
                "the descriptor is the loop's: a connection or a listening socket",
            ));
        }
        Ok(())
    }
}
