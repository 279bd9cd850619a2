//! A poller in a forked child.

use omnipoll::{EngineKind, FindingKind, Interest, Ready};

use crate::suite::Suite;
use crate::support::expect::*;
use crate::support::fds::*;
use crate::support::sys::{fork, in_child, Side};
use crate::Strict;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(used_by_a_child);
    suite.on_each_engine(rebuilt_by_a_child);
    suite.on_each_engine(dropped_by_a_child);
}

fn used_by_a_child(kind: EngineKind) {
    let strict = Strict::on(kind);
    let (reader, _writer) = pipe();
    let child = in_child(|| {
        for _ in 0..3 {
            expect_error(strict.add(&reader, Interest::READ, 1), libc::EOWNERDEAD);
            expect_error(strict.stats(), libc::EOWNERDEAD);
            expect_error(strict.dump(), libc::EOWNERDEAD);
        }
        let findings = strict.found.take();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!((findings[0].kind, findings[0].fd), (FindingKind::ForkedChild, -1));
        assert!(findings[0].words.contains("after_fork"), "{}", findings[0].words);
        in_child(|| {
            expect_error(strict.rearm(&reader, Interest::READ), libc::EOWNERDEAD);
            assert_eq!(strict.found.take().len(), 1, "another child, another mistake");
        })
        .succeeds();
    });
    child.succeeds();
    strict.end().expect_nothing();
}

/// It may have closed what it does not need, and gets INVALID for that.
fn rebuilt_by_a_child(kind: EngineKind) {
    let strict = Strict::on(kind);
    let ((kept, writer), (dropped, _other)) = (pipe(), pipe());
    strict.add(&kept, Interest::READ, 1).unwrap();
    strict.add(&dropped, Interest::READ, 2).unwrap();
    match fork() {
        Side::Child => {
            close(dropped);
            strict.after_fork().unwrap();
            expect_event(&strict, 2, Ready::INVALID);
            write_byte(&writer);
            expect_event(&strict, 1, Ready::READ);
            strict.remove(&kept).unwrap();
            strict.end().expect_nothing();
        }
        Side::Parent(child) => {
            child.succeeds();
            expect_event(&strict, 1, Ready::READ);
            strict.remove(&kept).unwrap();
            strict.remove(&dropped).unwrap();
            strict.end().expect_nothing();
        }
    }
}

fn dropped_by_a_child(kind: EngineKind) {
    let strict = Strict::on(kind);
    let (reader, _writer) = pipe();
    strict.add(&reader, Interest::READ, 7).unwrap();
    match fork() {
        Side::Child => strict.end().expect_nothing(),
        Side::Parent(child) => {
            child.succeeds();
            strict.end().expect(FindingKind::Leaked, &reader, 7);
        }
    }
}
