//! Signals: a handler that counts them, and pollers that compare.
//!
//! `signalfd(2)` would need every thread of the program to block the signal. A handler may do
//! next to nothing (`signal-safety(7)`), so ours adds one to a count that all pollers share
//! and wakes those that watch the signal; each poller remembers the count it has seen. A signal
//! that arrives at any moment is in the count, and none is lost.
//!
//! A forked child inherits the handler, and no poller that watches. Until a poller of the child's
//! own watches the signal, the handler restores the old action. Nothing is locked or done at a
//! fork: it may come in a signal handler or past libc.

mod action;
mod handler;

use std::io;
use std::os::fd::RawFd;

use crate::error::fail;
use crate::event::Event;
use handler::{handle, WatcherSlot};

/// Signals are numbered from 1 to 64 on every Linux.
const SIGNALS: usize = 65;

/// One poller's signals.
#[derive(Default)]
pub(crate) struct Signals {
    slot: Option<&'static WatcherSlot>,
    watches: Vec<Watch>,
}

struct Watch {
    signo: i32,
    /// `None`: watched for the poller's own sake, and not reported.
    token: Option<u64>,
    /// The signal's count when it was last reported.
    seen: u32,
}

/// A signal that arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    pub(crate) signo: i32,
    pub(crate) token: u64,
    pub(crate) times: u32,
}

impl Arrived {
    pub(crate) fn event(self) -> Event {
        Event::signal(self.token, self.signo, self.times)
    }
}

impl Signals {
    /// Watches a signal; the handler writes to `wake_fd`. Without a token it does no more than that.
    pub(crate) fn add(&mut self, wake_fd: RawFd, signo: i32, token: Option<u64>) -> io::Result<()> {
        if !(1..SIGNALS as i32).contains(&signo) {
            return Err(fail(libc::EINVAL, "there is no signal of that number"));
        }
        if matches!(signo, libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL) {
            return Err(fail(libc::EINVAL, "a fault of the program itself can't be waited for"));
        }
        if self.watches.iter().any(|watch| watch.signo == signo && watch.token.is_some() == token.is_some()) {
            return Err(fail(libc::EEXIST, "the signal is watched already"));
        }
        let slot = *self.slot.get_or_insert_with(|| WatcherSlot::claim(wake_fd));
        let seen = handler::count(signo);
        action::install(signo, handle)?;
        slot.watch(signo);
        self.watches.push(Watch { signo, token, seen });
        Ok(())
    }

    /// Has a signal wake the poller without an event.
    pub(crate) fn watch_internally(&mut self, wake_fd: RawFd, signo: i32) -> io::Result<()> {
        if self.watches.iter().any(|watch| watch.signo == signo && watch.token.is_none()) {
            Ok(())
        } else {
            self.add(wake_fd, signo, None)
        }
    }

    /// Stops watching a signal; the last poller to do so restores the old action.
    pub(crate) fn remove(&mut self, signo: i32) -> io::Result<()> {
        let watched = |watch: &Watch| watch.signo == signo && watch.token.is_some();
        match self.watches.iter().position(watched) {
            Some(index) => self.end(index),
            None => Err(fail(libc::ENOENT, "the signal is not watched")),
        }
    }

    fn end(&mut self, index: usize) -> io::Result<()> {
        let signo = self.watches[index].signo;
        let owner = self.slot.map_or(0, WatcherSlot::owner);
        action::uninstall(signo, owner, handle)?;
        self.watches.swap_remove(index);
        if !self.watches.iter().any(|watch| watch.signo == signo) {
            self.slot.inspect(|slot| slot.unwatch(signo));
        }
        Ok(())
    }

    /// How many are watched for the caller.
    pub(crate) fn len(&self) -> usize {
        self.watches.iter().filter(|watch| watch.token.is_some()).count()
    }

    /// What has arrived since it was last asked, one signal at a time.
    pub(crate) fn next(&mut self) -> Option<Arrived> {
        self.watches.iter_mut().find_map(|watch| {
            let count = handler::count(watch.signo);
            let times = count.wrapping_sub(std::mem::replace(&mut watch.seen, count));
            let token = watch.token.filter(|_| times > 0)?;
            Some(Arrived { signo: watch.signo, token, times })
        })
    }

    /// Whether [`Signals::next`] has something.
    pub(crate) fn have_arrived(&self) -> bool {
        let mut reported = self.watches.iter().filter(|watch| watch.token.is_some());
        reported.any(|watch| handler::count(watch.signo) != watch.seen)
    }

    /// In a forked child: its parent's signals are not its own, and from now on it watches.
    pub(crate) fn after_fork(&mut self) {
        self.slot.inspect(|slot| slot.after_fork());
        for watch in &mut self.watches {
            watch.seen = handler::count(watch.signo);
            // It can't fail: this signal was caught before.
            let _ = action::install(watch.signo, handle);
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        while !self.watches.is_empty() {
            if self.end(0).is_err() {
                self.watches.swap_remove(0);
            }
        }
        self.slot.inspect(|slot| slot.release());
    }
}
