//! Timers of the wall clock: it is set while they wait (`TFD_TIMER_CANCEL_ON_SET`).

use std::io;
use std::mem::zeroed;
use std::thread;
use std::time::{Duration, SystemTime};

use omnipoll::{EngineKind, EventKind};

use crate::suite::Suite;
use crate::support::expect::{expect_none, expect_quiet, poller, waiter};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(setting_the_clock_reports_nothing_and_loses_nothing);
    suite.on_each_engine(an_expired_and_cancelled_timer_is_silent);
}

/// Moves the wall clock by that many nanoseconds, -1 or 1, in one step (`adjtimex(2)`): a
/// clock that is read and set again would lose the time between.
fn move_clock(by: i64) -> io::Result<()> {
    // SAFETY: timex is plain old data, for which all zeroes is a value.
    let mut step: libc::timex = unsafe { zeroed() };
    step.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
    step.time.tv_sec = by.div_euclid(1_000_000_000);
    step.time.tv_usec = by.rem_euclid(1_000_000_000);
    // SAFETY: the step lives through the call.
    match unsafe { libc::adjtimex(&mut step) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn setting_the_clock_reports_nothing_and_loses_nothing(kind: EngineKind) {
    match move_clock(1) {
        Ok(()) => move_clock(-1).expect("the clock was moved the other way"),
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
            println!("the clock was not set, for which CAP_SYS_TIME is needed");
            return;
        }
    }
    let poller = poller(kind);
    poller.timer_add_at(SystemTime::now() + Duration::from_secs(3_600), 1).expect("timer_add_at");
    for by in [1, -1] {
        move_clock(by).expect("the clock was moved before");
        expect_none(&poller);
    }
    let time = SystemTime::now() + Duration::from_millis(50);
    poller.timer_add_at(time, 2).expect("timer_add_at");
    thread::scope(|scope| {
        let waiter = waiter(scope, &poller, None);
        for by in [1, -1, 1, -1] {
            move_clock(by).expect("the clock was moved before");
        }
        let events = waiter.events();
        assert!(SystemTime::now() >= time, "early");
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!((events[0].kind(), events[0].token()), (EventKind::Timer, 2));
    });
    expect_none(&poller);
}

fn an_expired_and_cancelled_timer_is_silent(kind: EngineKind) {
    let poller = poller(kind);
    let now = poller.timer_add_at(SystemTime::now(), 1).expect("timer_add_at");
    poller.timer_cancel(now).expect("timer_cancel");
    expect_quiet(&poller);
}
