//! The waits of [strict mode](crate::strict), which leave the fast path alone.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::deadline::Deadline;
use super::wait::zero_capacity;
use super::Poller;
use crate::engine;
use crate::error::fail;
use crate::event::Event;
use crate::registry::Registry;
use crate::strict::{report, Finding, Strict};

/// A strict wait keeps a list of what it brings, whatever room the caller says there is.
const MOST_EVENTS: usize = 4_096;

impl Poller {
    /// Sets what every finding of [strict mode](crate::Options::strict) is reported to, instead of
    /// stderr. It is called on the thread that is at fault or finds it, with nothing locked: it
    /// may use the poller. A panic in it is caught, and the poller stays usable.
    ///
    /// `EINVAL` when the poller is not strict, `EOWNERDEAD` in a forked child.
    ///
    /// # Portability
    ///
    /// The same on every system, but for BUSY_WRITER, which only Linux finds.
    ///
    /// ```
    /// use omnipoll::{FindingKind, Interest, Options, Trigger};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let poller = Options::new().strict(true).build()?;
    /// let (sender, findings) = std::sync::mpsc::channel();
    /// poller.on_finding(Box::new(move |finding| sender.send(finding.kind).unwrap()))?;
    /// let (blocking, _peer) = UnixStream::pair()?;
    /// poller.add(&blocking, Interest::READ | Trigger::EDGE, 1)?;
    /// assert_eq!(findings.recv(), Ok(FindingKind::BlockingEdge));
    /// poller.remove(&blocking)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn on_finding(&self, callback: Box<dyn Fn(&Finding) + Send + Sync>) -> io::Result<()> {
        self.check_owner()?;
        let Some(strict) = &self.strict else {
            return Err(fail(libc::EINVAL, "the poller is not strict"));
        };
        let registry = self.registry();
        let old = strict.replace_callback(Arc::from(callback));
        drop(registry);
        drop(old);
        Ok(())
    }

    /// A wait that [is special](Self::is_special): an ordinary one between two checks of
    /// everything. As long as something is left unread it returns in between to check again: the
    /// mistake may be that nothing will ever end the wait.
    #[cold]
    pub(super) fn wait_strictly(
        &self,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        self.check_owner()?;
        let Some(strict) = &self.strict else { return Err(zero_capacity()) };
        if events.is_empty() {
            return Err(zero_capacity());
        }
        self.in_strict_mode(self.registry(), |strict, _| strict.wait_begins());
        let deadline = Deadline::after(timeout);
        let mut left = timeout;
        loop {
            let mut has_unread = false;
            self.in_strict_mode(self.registry(), |strict, registry| {
                let (findings, unread) = strict.before_wait(registry);
                has_unread = unread;
                findings
            });
            let slice = if has_unread {
                Some(left.map_or(strict.limit(), |left| left.min(strict.limit())))
            } else {
                left
            };
            let filled = self.wait_and_check(events, slice)?;
            if filled > 0 || slice == left {
                return Ok(filled);
            }
            left = deadline.left();
            // Only the slice is over: that is no wait of the caller's, and nothing spurious.
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An ordinary wait, and a check of what it brought.
    fn wait_and_check(
        &self,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        // The callback of a finding may have forked: this may be the child.
        self.check_owner()?;
        let deadline = Deadline::after(timeout);
        let most = events.len().min(MOST_EVENTS);
        let mut list = Vec::with_capacity(most);
        engine::fill(&mut list, most, |slots| {
            let (batch, due) = self.round(slots, timeout);
            self.wait_slow(slots, &deadline, batch, due)
        })?;
        for (slot, event) in events.iter_mut().zip(&list) {
            slot.write(*event);
        }
        self.in_strict_mode(self.registry(), |strict, registry| {
            strict.after_wait(registry, &list, list.len() == most)
        });
        Ok(list.len())
    }

    /// Has strict mode, if it is on, check what has happened, and reports what it finds once the
    /// registry is unlocked.
    #[inline]
    pub(super) fn in_strict_mode(
        &self,
        registry: MutexGuard<'_, Registry>,
        check: impl FnOnce(&Strict, &Registry) -> Vec<Finding>,
    ) {
        if let Some(strict) = &self.strict {
            let findings = check(strict, &registry);
            let callback = strict.callback();
            drop(registry);
            report(findings, callback);
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        if self.strict.is_some() && self.is_owner() {
            self.in_strict_mode(self.registry(), Strict::dropped);
        }
    }
}
