use super::*;

fn raise(signo: i32) {
    // SAFETY: takes no pointer.
    assert_eq!(unsafe { libc::kill(libc::getpid(), signo) }, 0);
}

fn disposition(signo: i32) -> libc::sigaction {
    // SAFETY: sigaction is plain old data; `now` lives through the call.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(signo, std::ptr::null(), &mut now), 0);
        now
    }
}

/// kill(2) of the own process may be served by any thread, at any moment: events may come in
/// several batches, but their counts add up.
fn count_up_to(poller: &Poller, signo: i32, least: u32) -> u32 {
    let mut count = 0;
    while count < least {
        for event in collect(poller, 4, 1) {
            assert_eq!((event.kind(), event.value(), event.token()), (EventKind::Signal, signo.into(), 77));
            count += event.count();
        }
    }
    count
}

#[test]
fn are_reported_and_counted() {
    on_every_engine(|poller| {
        poller.signal_add(libc::SIGUSR1, 77).unwrap();
        assert_eq!(errno(poller.signal_add(libc::SIGUSR1, 78)), libc::EEXIST);
        raise(libc::SIGUSR1);
        assert_eq!(count_up_to(poller, libc::SIGUSR1, 1), 1);
        expect_none(poller);
        poller.signal_remove(libc::SIGUSR1).unwrap();
        assert_eq!(errno(poller.signal_remove(libc::SIGUSR1)), libc::ENOENT);
    });
}

#[test]
fn the_previous_disposition_is_restored_with_the_last_poller() {
    on_every_engine(|poller| {
        let before = disposition(libc::SIGHUP).sa_sigaction;
        poller.signal_add(libc::SIGHUP, 77).unwrap();
        let other = Poller::with_engine(poller.engine()).unwrap();
        other.signal_add(libc::SIGHUP, 77).unwrap();
        assert_ne!(disposition(libc::SIGHUP).sa_sigaction, before);
        raise(libc::SIGHUP);
        assert_eq!(count_up_to(poller, libc::SIGHUP, 1), 1);
        assert_eq!(count_up_to(&other, libc::SIGHUP, 1), 1, "every poller that watches gets it");
        poller.signal_remove(libc::SIGHUP).unwrap();
        raise(libc::SIGHUP);
        assert_eq!(count_up_to(&other, libc::SIGHUP, 1), 1);
        expect_none(poller);
        drop(other);
        assert_eq!(disposition(libc::SIGHUP).sa_sigaction, before);
    });
}

#[test]
fn none_is_lost_between_waits() {
    on_every_engine(|poller| {
        poller.signal_add(libc::SIGWINCH, 77).unwrap();
        // A standard signal that is pending already is merged by the kernel: each raise waits
        // until the one before has been handled.
        let mut reported = 0;
        for round in 1..=200 {
            raise(libc::SIGWINCH);
            reported += count_up_to(poller, libc::SIGWINCH, 1);
            assert_eq!(reported, round);
        }
    });
}

#[test]
fn signals_that_cannot_be_watched_are_refused() {
    on_every_engine(|poller| {
        for signo in [0, -1, 65, i32::MAX, libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV] {
            assert_eq!(errno(poller.signal_add(signo, 1)), libc::EINVAL, "signal {signo}");
        }
    });
}
