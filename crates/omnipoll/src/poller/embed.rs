//! [`Poller::embed`]: a poller inside another program's loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::Poller;
use crate::source::outer_loop::OuterLoop;

/// # In another loop
impl Poller {
    /// A descriptor for the loop of GLib, Qt, Node.js or another library: readable while there is something
    /// for a [`wait`](Self::wait) to return, be it of a descriptor, a timer, a signal, a child, a wake or a
    /// post. Whenever it is, call `wait` with a timeout of zero, once or more often: it stays readable
    /// until nothing is left.
    ///
    /// At times it is readable and a wait returns nothing: after a timer was cancelled, or another thread
    /// was quicker. Nobody else may wait on it by `epoll(7)` with [edges](crate::Trigger::EDGE). It
    /// belongs to the poller: never close it. It is the same at each call, and from the first on each
    /// change of the soonest timer, and each wake or post that finds nothing pending, costs a system call.
    ///
    /// # Errors
    ///
    /// `ENOTSUP` on select and poll, whose sets are not the kernel's; `EMFILE`, `ENFILE` and `ENOMEM` as the
    /// system says; `EOWNERDEAD` in a forked child before [`Poller::after_fork`].
    ///
    /// # Portability
    ///
    /// Linux: an `epoll(7)` of the engine's descriptor and a `timerfd_create(2)`. `ENOTSUP` on other systems.
    /// Call it in the thread that waits: on io_uring the polls of other descriptors are submitted by it,
    /// and system calls of that thread, those of the outer loop too, may fail with `EINTR`.
    ///
    /// ```
    /// use omnipoll::{Events, Interest, Poller};
    /// use std::time::Duration;
    ///
    /// let (outer, inner) = (Poller::new()?, Poller::new()?);
    /// # if cfg!(not(target_os = "linux")) { return Ok(()) }
    /// # if inner.embed().is_err() { return Ok(()) }
    /// outer.add(inner.embed()?, Interest::READ, 1)?;
    /// inner.timer_add(Duration::from_millis(1), None, 7)?;
    ///
    /// let mut events = Events::with_capacity(8);
    /// outer.wait(&mut events, None)?;
    /// assert_eq!(inner.wait(&mut events, Some(Duration::ZERO))?, 1);
    /// assert_eq!(events.iter().next().map(|event| event.token()), Some(7));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "epoll_create1")]
    pub fn embed(&self) -> io::Result<BorrowedFd<'_>> {
        self.check_owner()?;
        let state = self.sources.state();
        if let Some(outer_loop) = self.sources.outer_loop() {
            return Ok(outer_loop.set.as_fd());
        }
        let outer_loop = OuterLoop::new()?;
        self.engine.embed(&mut self.registry(), &outer_loop.set)?;
        Ok(self.sources.embed(outer_loop, &state)?.set.as_fd())
    }

    /// Whether an outer loop holds it.
    #[cfg(feature = "serve")]
    pub(crate) fn is_embedded(&self) -> bool {
        self.sources.outer_loop().is_some()
    }

    /// Makes the descriptor of an embedded poller readable while `fd` is, too, which no wait reports.
    #[cfg(all(feature = "serve", io_uring))]
    pub(crate) fn embed_with(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.sources.outer_loop().map_or(Ok(()), |outer_loop| outer_loop.set.add(fd))
    }

    /// Makes the descriptor of an embedded poller readable until the next wait, which has nothing to return
    /// for that.
    #[cfg(feature = "serve")]
    pub(crate) fn request_wait(&self) -> io::Result<()> {
        if self.is_embedded() && self.is_owner() {
            return self.sources.notify();
        }
        Ok(())
    }
}
