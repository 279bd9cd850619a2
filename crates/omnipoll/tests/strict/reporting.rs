//! How findings are reported.

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use omnipoll::{EngineKind, FindingKind, Interest, Options, Poller, Ready};

use crate::suite::Suite;
use crate::support::expect::*;
use crate::support::fds::*;
use crate::Strict;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(a_callback_may_use_the_poller);
    suite.on_each_engine(a_callback_may_panic);
    suite.on_each_engine(a_callback_may_be_replaced);
    suite.on_each_engine(a_replaced_callback_may_use_the_poller_as_it_goes);
    suite.on_each_engine(without_a_callback_it_is_a_line_on_stderr);
    suite.on_each_engine(a_poller_that_is_not_strict_finds_nothing);
}

fn a_callback_may_use_the_poller(kind: EngineKind) {
    let poller = Arc::new(Options::new().engine(kind).strict(true).build().unwrap());
    let (reader, _writer) = pipe();
    let inside = Arc::downgrade(&poller);
    poller
        .on_finding(Box::new(move |finding| {
            let poller = inside.upgrade().expect("it is in use");
            assert_eq!(poller.dump().unwrap()[0].what, "closed");
            poller.on_finding(Box::new(|_| ())).unwrap();
            poller.remove_raw(finding.fd).unwrap();
            poller.post(9, 9).unwrap();
            assert_eq!(wait(&poller, 8, Duration::ZERO).len(), 1);
            poller.wake().unwrap();
        }))
        .unwrap();
    poller.add(&reader, Interest::READ, 7).unwrap();
    close(reader);
    expect_wake(&poller, 1);
    assert_eq!(poller.stats().unwrap().registrations, 0);
}

fn a_callback_may_panic(kind: EngineKind) {
    let strict = Strict::on(kind);
    strict.on_finding(Box::new(|_| panic!("on purpose"))).unwrap();
    let ((closed, _writer), (reader, writer)) = (pipe(), pipe());
    strict.add(&closed, Interest::READ, 1).unwrap();
    close(closed);
    strict.add(&reader, Interest::READ, 2).unwrap();
    write_byte(&writer);
    while tokens(&next(&strict)) != [2] {}
    drain(&reader);
    let _ = strict.remove(&reader);
    expect_none(&strict);
}

fn a_callback_may_be_replaced(kind: EngineKind) {
    let strict = Strict::on(kind);
    let first = strict.found.clone();
    let second = Arc::new(Mutex::new(Vec::new()));
    let note = second.clone();
    strict.on_finding(Box::new(move |finding| note.lock().unwrap().push(finding.kind))).unwrap();
    let (reader, _writer) = pipe();
    strict.add(&reader, Interest::READ, 1).unwrap();
    strict.end();
    first.expect_nothing();
    assert_eq!(*second.lock().unwrap(), [FindingKind::Leaked]);
}

fn a_replaced_callback_may_use_the_poller_as_it_goes(kind: EngineKind) {
    struct Goes(Weak<Poller>);
    impl Drop for Goes {
        fn drop(&mut self) {
            if let Some(poller) = self.0.upgrade() {
                poller.post(7, 7).unwrap();
                assert_eq!(poller.dump().unwrap().len(), 0);
            }
        }
    }
    let poller = Arc::new(Options::new().engine(kind).strict(true).build().unwrap());
    let goes = Goes(Arc::downgrade(&poller));
    poller.on_finding(Box::new(move |_| _ = goes.0.upgrade())).unwrap();
    poller.on_finding(Box::new(|_| ())).unwrap();
    assert_eq!(poller.stats().unwrap().posts, 1);
}

/// And the environment turns strict mode on. The case is run again, with `OMNIPOLL_STRICT`.
fn without_a_callback_it_is_a_line_on_stderr(kind: EngineKind) {
    const SWITCH: &str = "OMNIPOLL_STRICT";
    let (reader, _writer) = pipe();
    if std::env::var_os(SWITCH).is_some() {
        let poller = Poller::with_engine(kind).unwrap();
        return poller.add(&reader, Interest::READ, 42).unwrap();
    }
    let said = |value: &str| {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(std::env::args_os().skip(1)).env(SWITCH, value).stdin(Stdio::null());
        let output = again.output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let line = said("1");
    assert!(line.starts_with("omnipoll: descriptor ") && line.contains(" (token 42) "), "{line}");
    assert_eq!(line.find('\n'), Some(line.len() - 1), "{line}");
    assert_eq!(said("0"), "");
    assert_eq!(said(""), "");
}

fn a_poller_that_is_not_strict_finds_nothing(kind: EngineKind) {
    let poller = poller(kind);
    expect_error(poller.on_finding(Box::new(|_| ())), libc::EINVAL);
    let (reader, writer) = pipe();
    poller.add(&reader, Interest::READ, 7).unwrap();
    write_byte(&writer);
    expect_event(&poller, 7, Ready::READ);
    assert_eq!(poller.stats().unwrap().longest_dispatch, None);
}
