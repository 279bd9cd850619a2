//! Which descriptors a [`Poller`] watches, and for what.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::MutexGuard;

use super::reserved::Owner;
use super::Poller;
use crate::engine::Capabilities;
use crate::error::fail;
use crate::interest::Interest;
use crate::registry::{Registry, Role, Tag};

/// # Registrations
///
/// A registration belongs to a descriptor's number. The poller neither owns nor duplicates the
/// descriptor: remove it before you close it.
impl Poller {
    /// Starts watching a descriptor; its events carry `token`.
    ///
    /// The descriptor is borrowed for this call only: pass a reference, so that it stays open.
    ///
    /// # Errors
    ///
    /// - `EEXIST`: it is registered.
    /// - `EBADF`: it was opened with `O_PATH`.
    /// - `EPERM`: it is a kind of file that is always ready, such as a regular file
    ///   ([`Options::files_always_ready`](crate::Options::files_always_ready) allows those).
    /// - `EINVAL`: the interest has a trigger that the engine doesn't have (EXCLUSIVE), or the
    ///   descriptor is the poller's own.
    /// - `ENOMEM`, `ENOSPC`: as `epoll_ctl(2)` says.
    /// - `EMFILE`: only an epoll could tell whether the file can be watched, and none can be made.
    /// - `EOWNERDEAD`: in a forked child before [`Poller::after_fork`].
    ///
    /// # Portability
    ///
    /// `epoll_ctl(2)` with `EPOLL_CTL_ADD` on epoll. On io_uring the next wait submits a poll; on
    /// select and poll the next wait passes the descriptor. There a change makes a system call only
    /// when a thread waits, to wake it.
    ///
    /// ```
    /// use omnipoll::{Interest, Poller, Trigger};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (ours, _theirs) = UnixStream::pair()?;
    /// let poller = Poller::new()?;
    /// poller.add(&ours, Interest::READ | Interest::WRITE | Trigger::EDGE, 1)?;
    /// let error = poller.add(&ours, Interest::READ, 2).unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    /// # poller.remove(&ours)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "epoll_ctl")]
    #[doc(alias = "EPOLL_CTL_ADD")]
    #[doc(alias = "register")]
    pub fn add(&self, fd: impl AsFd, interest: Interest, token: u64) -> io::Result<()> {
        self.add_raw(fd.as_fd().as_raw_fd(), interest, token)
    }

    /// Replaces interest, trigger and token. Re-enables a ONESHOT that has fired, and rearms
    /// an EDGE: what is ready now is reported by the next wait.
    ///
    /// # Errors
    ///
    /// - `ENOENT`: it is not registered.
    /// - `EINVAL`: as for [`Poller::add`], or the old or the new interest is EXCLUSIVE.
    /// - `EOWNERDEAD`: in a forked child before [`Poller::after_fork`].
    ///
    /// # Portability
    ///
    /// `epoll_ctl(2)` with `EPOLL_CTL_MOD` on epoll; elsewhere as for [`Poller::add`].
    ///
    /// ```
    /// use omnipoll::{Events, Interest, Poller, Trigger};
    /// use std::os::unix::net::UnixStream;
    /// use std::time::Duration;
    ///
    /// let (ours, _theirs) = UnixStream::pair()?;
    /// let poller = Poller::new()?;
    /// poller.add(&ours, Interest::WRITE | Trigger::ONESHOT, 1)?;
    /// let mut events = Events::with_capacity(8);
    /// assert_eq!(poller.wait(&mut events, None)?, 1);
    /// assert_eq!(poller.wait(&mut events, Some(Duration::ZERO))?, 0);
    /// poller.modify(&ours, Interest::WRITE | Trigger::ONESHOT, 1)?;
    /// assert_eq!(poller.wait(&mut events, None)?, 1);
    /// # poller.remove(&ours)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "epoll_ctl")]
    #[doc(alias = "EPOLL_CTL_MOD")]
    #[doc(alias = "reregister")]
    pub fn modify(&self, fd: impl AsFd, interest: Interest, token: u64) -> io::Result<()> {
        self.modify_raw(fd.as_fd().as_raw_fd(), interest, token)
    }

    /// Stops watching a descriptor. No later wait returns an event of it, and nothing of the
    /// poller's holds its file: when it is closed next, the file is closed, and its peer notices.
    /// For one that has been closed already there is [`Poller::remove_raw`].
    ///
    /// # Errors
    ///
    /// - `ENOENT`: it is not registered.
    /// - `EOWNERDEAD`: in a forked child before [`Poller::after_fork`].
    ///
    /// # Portability
    ///
    /// `epoll_ctl(2)` with `EPOLL_CTL_DEL` on epoll. The other system calls hold the files they
    /// watch: there this call wakes the threads that wait, and waits until they have returned from
    /// the kernel.
    ///
    /// ```
    /// use omnipoll::{Interest, Poller};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (ours, _theirs) = UnixStream::pair()?;
    /// let poller = Poller::new()?;
    /// poller.add(&ours, Interest::READ, 1)?;
    /// poller.remove(&ours)?;
    /// drop(ours);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "epoll_ctl")]
    #[doc(alias = "EPOLL_CTL_DEL")]
    #[doc(alias = "deregister")]
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        self.remove_raw(fd.as_fd().as_raw_fd())
    }

    /// Says of an EDGE registration that these directions were read or written until `EAGAIN`:
    /// the next readiness is an edge again. Directions that are not registered are passed over; on
    /// LEVEL it does nothing.
    ///
    /// # Errors
    ///
    /// - `ENOENT`: it is not registered.
    /// - `EINVAL`: it is a ONESHOT, which [`Poller::modify`] re-enables.
    /// - `EOWNERDEAD`: in a forked child before [`Poller::after_fork`].
    ///
    /// # Portability
    ///
    /// Makes no system call where the engine has [edges of its own](Capabilities::NATIVE_EDGE), and
    /// elsewhere only when a thread waits.
    ///
    /// ```
    /// use omnipoll::{Events, Interest, Poller, Trigger};
    /// use std::io::{ErrorKind, Read, Write};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (mut ours, mut theirs) = UnixStream::pair()?;
    /// ours.set_nonblocking(true)?;
    /// let poller = Poller::new()?;
    /// poller.add(&ours, Interest::READ | Trigger::EDGE, 1)?;
    /// let mut events = Events::with_capacity(8);
    /// for _ in 0..2 {
    ///     theirs.write_all(b"data")?;
    ///     assert_eq!(poller.wait(&mut events, None)?, 1);
    ///     let mut buffer = [0; 64];
    ///     while ours.read(&mut buffer).map_err(|error| error.kind()) != Err(ErrorKind::WouldBlock) {}
    ///     poller.rearm(&ours, Interest::READ)?;
    /// }
    /// # poller.remove(&ours)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn rearm(&self, fd: impl AsFd, interest: Interest) -> io::Result<()> {
        self.rearm_raw(fd.as_fd().as_raw_fd(), interest)
    }
}

/// # Registrations by number
///
/// The same for a bare number: of a descriptor that the program has from elsewhere, or has closed.
/// They are safe functions. A poller asks the system whether a file is ready; it never reads,
/// writes, changes or closes it, so that a wrong number breaks nothing that another part of the
/// program relies on. It is an error or an unexpected event, and [the contract](crate)
/// says what comes of a number that was closed or used again.
impl Poller {
    /// [`Poller::add`] by number. `EBADF` when it is not open.
    ///
    /// # Portability
    ///
    /// As for [`Poller::add`].
    ///
    /// ```
    /// use omnipoll::{Interest, Poller};
    ///
    /// let poller = Poller::new()?;
    /// let error = poller.add_raw(-1, Interest::READ, 1).unwrap_err();
    /// assert_eq!(omnipoll::explain(&error), "a descriptor is never negative");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn add_raw(&self, fd: RawFd, interest: Interest, token: u64) -> io::Result<()> {
        self.check_token(token)?;
        self.add_registration(fd, interest, token)
    }

    #[inline]
    pub(super) fn add_registration(&self, fd: RawFd, interest: Interest, token: u64) -> io::Result<()> {
        let mut registry = self.lock_to_change(fd)?;
        self.check(fd, interest)?;
        registry.reserve(fd)?;
        self.engine.add(&mut registry, fd, interest, Tag { token, role: Role::User })?;
        self.in_strict_mode(registry, |strict, registry| strict.added(registry, fd));
        Ok(())
    }

    /// [`Poller::modify`] by number. `EBADF` when it is not open.
    ///
    /// # Portability
    ///
    /// As for [`Poller::modify`].
    ///
    /// ```
    /// use omnipoll::{Interest, Poller};
    /// use std::os::fd::AsRawFd;
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (ours, _theirs) = UnixStream::pair()?;
    /// let poller = Poller::new()?;
    /// poller.add_raw(ours.as_raw_fd(), Interest::READ, 1)?;
    /// poller.modify_raw(ours.as_raw_fd(), Interest::WRITE, 2)?;
    /// # poller.remove(&ours)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn modify_raw(&self, fd: RawFd, interest: Interest, token: u64) -> io::Result<()> {
        self.check_token(token)?;
        self.modify_registration(fd, interest, token, Owner::Program)
    }

    #[inline]
    pub(super) fn modify_registration(
        &self,
        fd: RawFd,
        interest: Interest,
        token: u64,
        by: Owner,
    ) -> io::Result<()> {
        let mut registry = self.lock_to_change(fd)?;
        self.check(fd, interest)?;
        let registration = registry.user_registration(fd)?;
        let old = registration.interest;
        self.check_may_change(by, registration.token)?;
        if old.is_exclusive() || interest.is_exclusive() {
            return Err(fail(libc::EINVAL, "an EXCLUSIVE registration can't be modified: remove and add it"));
        }
        self.engine.modify(&mut registry, fd, interest, token)?;
        self.in_strict_mode(registry, |strict, registry| strict.modified(registry, fd));
        Ok(())
    }

    /// [`Poller::remove`] by number. It works on a descriptor that was closed meanwhile.
    ///
    /// # Portability
    ///
    /// As for [`Poller::remove`].
    ///
    /// ```
    /// use omnipoll::{Interest, Poller};
    /// use std::os::fd::AsRawFd;
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (ours, _theirs) = UnixStream::pair()?;
    /// let poller = Poller::new()?;
    /// poller.add(&ours, Interest::READ, 1)?;
    /// let number = ours.as_raw_fd();
    /// drop(ours);
    /// poller.remove_raw(number)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn remove_raw(&self, fd: RawFd) -> io::Result<()> {
        self.remove_registration(fd, Owner::Program)
    }

    #[inline]
    pub(super) fn remove_registration(&self, fd: RawFd, by: Owner) -> io::Result<()> {
        let mut registry = self.lock_to_change(fd)?;
        self.check_may_change(by, registry.user_registration(fd)?.token)?;
        self.engine.remove(&mut registry, fd);
        self.in_strict_mode(registry, |strict, _| strict.removed(fd));
        // Unless a callback has forked: the threads that wait are the parent's.
        if self.is_owner() {
            self.engine.release_files(&self.registry);
        }
        Ok(())
    }

    /// [`Poller::rearm`] by number.
    ///
    /// # Portability
    ///
    /// As for [`Poller::rearm`].
    ///
    /// ```
    /// use omnipoll::{Interest, Poller, Trigger};
    /// use std::os::fd::AsRawFd;
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (ours, _theirs) = UnixStream::pair()?;
    /// let poller = Poller::new()?;
    /// poller.add_raw(ours.as_raw_fd(), Interest::READ | Trigger::EDGE, 1)?;
    /// poller.rearm_raw(ours.as_raw_fd(), Interest::READ)?;
    /// # poller.remove(&ours)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn rearm_raw(&self, fd: RawFd, interest: Interest) -> io::Result<()> {
        let mut registry = self.lock_to_change(fd)?;
        let registration = registry.user_registration(fd)?;
        let wanted = registration.interest;
        self.check_may_change(Owner::Program, registration.token)?;
        if wanted.is_oneshot() {
            return Err(fail(libc::EINVAL, "a ONESHOT registration is re-enabled by modify, not by rearm"));
        }
        if wanted.is_edge() {
            self.engine.rearm(&mut registry, fd, interest);
        }
        Ok(())
    }
}

impl Poller {
    /// The registry, locked for a change of this descriptor's registration.
    fn lock_to_change(&self, fd: RawFd) -> io::Result<MutexGuard<'_, Registry>> {
        self.check_owner()?;
        if fd < 0 {
            return Err(fail(libc::EBADF, "a descriptor is never negative"));
        }
        Ok(self.registry())
    }

    fn check(&self, fd: RawFd, interest: Interest) -> io::Result<()> {
        if !interest.is_possible() {
            return Err(fail(libc::EINVAL, "EXCLUSIVE goes with neither PRIORITY nor ONESHOT"));
        }
        if interest.is_exclusive() && !self.capabilities().contains(Capabilities::HAS_EXCLUSIVE) {
            return Err(fail(libc::EINVAL, "this engine has no EXCLUSIVE"));
        }
        if self.sources.waker.owns(fd) {
            return Err(fail(libc::EINVAL, "the descriptor is the poller's own"));
        }
        Ok(())
    }
}
