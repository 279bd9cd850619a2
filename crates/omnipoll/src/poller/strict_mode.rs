//! Where a poller and [strict mode](crate::strict) meet: beside every path that must be fast.

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
use crate::strict::{deliver, Finding, Strict};

/// A strict wait keeps a list of what it brings, whatever room the caller says there is.
const MOST_EVENTS: usize = 4_096;

impl Poller {
    /// Sets what every finding of [strict mode](crate::Options::strict) is told to, instead of
    /// stderr. It is called on the thread that is at fault or finds it, with nothing locked: it
    /// may use the poller. A panic in it is caught, and the poller goes on.
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
    /// let (tell, told) = std::sync::mpsc::channel();
    /// poller.on_finding(Box::new(move |finding| tell.send(finding.kind).unwrap()))?;
    /// let (blocking, _peer) = UnixStream::pair()?;
    /// poller.add(&blocking, Interest::READ | Trigger::EDGE, 1)?;
    /// assert_eq!(told.recv(), Ok(FindingKind::BlockingEdge));
    /// poller.remove(&blocking)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn on_finding(&self, callback: Box<dyn Fn(&Finding) + Send + Sync>) -> io::Result<()> {
        self.check_owner()?;
        let Some(strict) = &self.strict else {
            return Err(fail(libc::EINVAL, "the poller is not strict"));
        };
        let registry = self.registry();
        let former = strict.replace_callback(Arc::from(callback));
        drop(registry);
        drop(former);
        Ok(())
    }

    /// A wait that [is special](Self::is_special): an ordinary one between two looks at
    /// everything. As long as something is left to read it gets up in between to look again:
    /// the mistake may be that nothing will ever end the wait.
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
        self.in_strict_mode(self.registry(), |strict, _| strict.came_back());
        let deadline = Deadline::after(timeout);
        let mut left = timeout;
        loop {
            let mut suspicious = false;
            self.in_strict_mode(self.registry(), |strict, registry| {
                let (findings, suspects) = strict.before(registry);
                suspicious = suspects;
                findings
            });
            let slice = match suspicious {
                true => Some(left.map_or(strict.limit(), |left| left.min(strict.limit()))),
                false => left,
            };
            let filled = self.wait_between(events, slice)?;
            if filled > 0 || slice == left {
                return Ok(filled);
            }
            left = deadline.left();
            // It got up by itself: that is no wait more, and nothing spurious.
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An ordinary wait, and a look at what it brought.
    fn wait_between(
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
            strict.after(registry, &list, list.len() == most)
        });
        Ok(list.len())
    }

    /// Lets strict mode, if it is on, look at what has happened, and says what it finds once
    /// the registry is unlocked.
    #[inline]
    pub(super) fn in_strict_mode(
        &self,
        registry: MutexGuard<'_, Registry>,
        look: impl FnOnce(&Strict, &Registry) -> Vec<Finding>,
    ) {
        if let Some(strict) = &self.strict {
            let findings = look(strict, &registry);
            let callback = strict.callback();
            drop(registry);
            deliver(findings, callback);
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        if self.strict.is_some() && self.is_owner() {
            self.in_strict_mode(self.registry(), Strict::leaks);
        }
    }
}
