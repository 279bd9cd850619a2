//! Strict mode, stats and dump: each mistake is provoked and said once, and correct code is met
//! with silence. Each case runs in a process of its own: most are about descriptor numbers.

#[allow(dead_code)]
#[path = "../conformance/suite.rs"]
mod suite;
#[path = "../support/mod.rs"]
mod support;

mod busy_writer;
mod dispatch;
mod edge;
mod fork;
mod inspect;
mod lifetime;
mod oneshot;
mod reporting;

use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use omnipoll::{EngineKind, Finding, FindingKind, Options, Poller};

fn main() -> std::process::ExitCode {
    let mut suite = suite::Suite::default();
    edge::behaviours(&mut suite);
    oneshot::behaviours(&mut suite);
    lifetime::behaviours(&mut suite);
    busy_writer::behaviours(&mut suite);
    dispatch::behaviours(&mut suite);
    fork::behaviours(&mut suite);
    reporting::behaviours(&mut suite);
    inspect::behaviours(&mut suite);
    suite.main()
}

/// A strict poller, and what it has found.
struct Strict {
    poller: Option<Poller>,
    found: Found,
}

#[derive(Clone, Default)]
struct Found(Arc<Mutex<Vec<Finding>>>);

impl Strict {
    /// One without any patience, for which a dispatch is always too long: that is not noted.
    fn on(kind: EngineKind) -> Self {
        let strict = Self::with_limit(kind, Duration::ZERO);
        strict.found.listen(&strict, |kind| kind != FindingKind::BlockedLoop);
        strict
    }

    fn with_limit(kind: EngineKind, limit: Duration) -> Self {
        let options = Options::new().engine(kind).strict(true).strict_limit(limit);
        let strict = Self { poller: Some(options.build().expect("a poller")), found: Found::default() };
        strict.found.listen(&strict, |_| true);
        strict
    }

    /// Ends the poller; what it had found then is still to be seen.
    fn end(mut self) -> Found {
        self.poller = None;
        self.found.clone()
    }
}

impl Deref for Strict {
    type Target = Poller;
    fn deref(&self) -> &Poller {
        self.poller.as_ref().expect("it has not ended")
    }
}

impl Found {
    fn listen(&self, poller: &Poller, to: impl Fn(FindingKind) -> bool + Send + Sync + 'static) {
        let found = self.clone();
        let note = move |finding: &Finding| {
            if to(finding.kind) {
                found.0.lock().unwrap().push(finding.clone());
            }
        };
        poller.on_finding(Box::new(note)).expect("the poller is strict");
    }

    fn take(&self) -> Vec<Finding> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Exactly this was found since it was last asked, and the words name the descriptor, its
    /// token, and what to do.
    #[track_caller]
    fn expect(&self, kind: FindingKind, fd: &impl AsRawFd, token: u64) {
        let findings = self.take();
        let [finding] = findings.as_slice() else { panic!("expected one {kind:?}, not {findings:?}") };
        assert_eq!((finding.kind, finding.fd, finding.token), (kind, fd.as_raw_fd(), token));
        let subject = format!("descriptor {} (token {token}) ", fd.as_raw_fd());
        assert!(finding.words.starts_with(&subject) && finding.words.contains(": "), "{}", finding.words);
        assert!(!finding.words.contains('\n'), "{}", finding.words);
    }

    #[track_caller]
    fn expect_nothing(&self) {
        let findings = self.take();
        assert!(findings.is_empty(), "{findings:?}");
    }
}
