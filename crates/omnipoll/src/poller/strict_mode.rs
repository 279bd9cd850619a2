//! Where a poller calls [strict mode](crate::strict), and reports what it finds.

use std::io;
use std::sync::{Arc, MutexGuard};

use super::Poller;
use crate::error::fail;
use crate::registry::Registry;
use crate::strict::{report, Finding, Strict};

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
