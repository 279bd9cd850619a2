use super::*;
use std::time::SystemTime;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn expire_in_the_order_of_their_deadlines_and_never_early() {
    on_every_engine(|poller| {
        // Between which times each is due: this thread may not run for a while in between.
        let due = [30, 10, 20].map(|delay| {
            let before = Instant::now();
            poller.timer_add(ms(delay), None, delay).unwrap();
            (delay, before + ms(delay), Instant::now() + ms(delay))
        });
        let mut last = None;
        for _ in due {
            let event = collect(poller, 1, 1)[0];
            assert_eq!((event.kind(), event.value()), (EventKind::Timer, 1));
            let (delay, earliest, latest) = *due.iter().find(|it| it.0 == event.token()).unwrap();
            assert!(Instant::now() >= earliest, "timer {delay} was early");
            assert!(last.replace(earliest).is_none_or(|last| last <= latest), "timer {delay} was too late");
        }
        expect_none(poller);
    });
}

#[test]
fn with_one_deadline_expire_in_the_order_they_were_made() {
    on_every_engine(|poller| {
        for token in 0..1_000 {
            poller.timer_add(Duration::ZERO, None, token).unwrap();
        }
        let tokens: Vec<_> = collect(poller, 7, 1_000).iter().map(Event::token).collect();
        // Made later, due later: the clock may have moved in between, never back.
        assert_eq!(tokens, (0..1_000).collect::<Vec<_>>());
    });
}

#[test]
fn a_late_periodic_timer_reports_how_many_periods_passed_and_does_not_burst() {
    on_every_engine(|poller| {
        let start = Instant::now();
        let id = poller.timer_add(ms(1), Some(ms(1)), 5).unwrap();
        let added = Instant::now();
        while added.elapsed() < ms(50) {
            std::hint::spin_loop();
        }
        let events = collect(poller, 64, 1);
        assert_eq!(events.len(), 1);
        assert!(events[0].value() >= 49, "{events:?}");
        let times = events[0].value() + collect(poller, 64, 1)[0].value();
        assert!(start.elapsed() >= ms(times as u64), "{times} periods can't have passed");
        poller.timer_cancel(id).unwrap();
        expect_none(poller);
    });
}

#[test]
fn a_cancelled_timer_is_silent_and_its_id_stale() {
    on_every_engine(|poller| {
        let id = poller.timer_add(Duration::ZERO, None, 1).unwrap();
        poller.timer_cancel(id).unwrap();
        expect_none(poller);
        assert_eq!(errno(poller.timer_cancel(id)), libc::ESTALE);
        assert_eq!(errno(poller.timer_set(id, ms(1), None)), libc::ESTALE);
        let next = poller.timer_add(ms(1), None, 2).unwrap();
        assert_ne!(next, id, "an id was used twice");
        assert_eq!(errno(poller.timer_cancel(id)), libc::ESTALE);
        assert_eq!(collect(poller, 8, 1)[0].token(), 2);
        assert_eq!(errno(poller.timer_cancel(next)), libc::ESTALE, "it has expired");
        for nonsense in [0, 1, u64::MAX, 1 << 31] {
            assert_eq!(errno(poller.timer_cancel(nonsense)), libc::ESTALE);
        }
        assert_eq!(errno(poller.timer_add(ms(1), Some(Duration::ZERO), 1)), libc::EINVAL);
    });
}

#[test]
fn a_timer_can_be_moved_both_ways() {
    on_every_engine(|poller| {
        let early = poller.timer_add(ms(1), None, 1).unwrap();
        let late = poller.timer_add(LONG * 2, None, 2).unwrap();
        poller.timer_set(early, LONG * 3, None).unwrap();
        poller.timer_set(late, ms(5), None).unwrap();
        assert_eq!(summarize(&collect(poller, 8, 1)), [(EventKind::Timer, 2, 1)]);
        expect_none(poller);
        poller.timer_cancel(early).unwrap();
    });
}

/// What comes in the batch that reports its expiry puts an idle timer off, and so does what comes later.
#[test]
fn can_be_set_again_until_it_is_cancelled() {
    on_every_engine(|poller| {
        let id = poller.timer_add(Duration::ZERO, None, 1).unwrap();
        for _ in 0..3 {
            assert_eq!(summarize(&collect(poller, 8, 1)), [(EventKind::Timer, 1, 1)]);
            expect_none(poller);
            poller.timer_set(id, Duration::ZERO, None).unwrap();
        }
        poller.timer_set(id, ms(1), Some(LONG)).unwrap();
        assert_eq!(summarize(&collect(poller, 8, 1)), [(EventKind::Timer, 1, 1)]);
        poller.timer_set(id, Duration::ZERO, None).unwrap();
        assert_eq!(summarize(&collect(poller, 8, 1)), [(EventKind::Timer, 1, 1)]);
        assert_eq!(errno(poller.timer_cancel(id)), libc::ESTALE, "it has expired");
        assert_eq!(errno(poller.timer_set(id, ms(1), None)), libc::ESTALE, "it was cancelled");
    });
}

#[test]
fn keep_their_ids_until_many_others_have_expired() {
    const MANY: u64 = 65_536;
    let poller = Poller::new().unwrap();
    let expire = |count: u64| {
        let ids: Vec<_> =
            (0..count).map(|token| poller.timer_add(Duration::ZERO, None, token).unwrap()).collect();
        collect(&poller, 4_096, count as usize);
        ids
    };
    let [first, kept, set] = expire(3)[..] else { unreachable!() };
    expire(MANY - 3);
    poller.timer_set(set, LONG, None).unwrap();
    expire(1);
    assert_eq!(errno(poller.timer_set(first, LONG, None)), libc::ESTALE);
    poller.timer_set(kept, LONG, None).unwrap();
    // The ones set again are armed, and must not be discarded.
    let others = expire(MANY);
    [kept, set].into_iter().for_each(|id| poller.timer_cancel(id).unwrap());
    let slots = |ids: &[u64]| ids.iter().map(|id| *id as u32).max().unwrap();
    assert!(slots(&others) < 3 * MANY as u32, "expired timers pile up");
    assert!(slots(&expire(MANY)) < 3 * MANY as u32, "expired timers pile up");
}

#[test]
fn added_inside_a_batch_runs_in_a_later_one() {
    on_every_engine(|poller| {
        poller.timer_add(Duration::ZERO, None, 1).unwrap();
        let mut events = Events::with_capacity(8);
        poller.wait(&mut events, None).unwrap();
        assert_eq!(events.len(), 1);
        poller.timer_add(Duration::ZERO, None, 2).unwrap();
        assert_eq!(summarize(&collect(poller, 8, 1)), [(EventKind::Timer, 2, 1)]);
    });
}

#[test]
fn added_by_another_thread_shortens_the_wait_in_progress() {
    on_every_engine(|poller| {
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| collect(poller, 8, 1));
            // Whichever comes first, the wait or the timer, it must be reported.
            poller.timer_add(ms(2), None, 9).unwrap();
            assert_eq!(summarize(&waiter.join().unwrap()), [(EventKind::Timer, 9, 1)]);
        });
    });
}

#[test]
fn the_longest_delays_work() {
    on_every_engine(|poller| {
        let id = poller.timer_add(Duration::MAX, Some(Duration::MAX), 1).unwrap();
        expect_none(poller);
        poller.timer_set(id, Duration::from_nanos(1), Some(Duration::MAX)).unwrap();
        assert_eq!(summarize(&collect(poller, 8, 1)), [(EventKind::Timer, 1, 1)]);
        expect_none(poller);
    });
}

#[test]
fn a_million_of_them() {
    let poller = Poller::new().unwrap();
    let ids: Vec<_> = (0..1_000_000u64)
        .map(|n| {
            poller
                .timer_add(LONG + Duration::from_nanos(n.wrapping_mul(0x9e37_79b9) % 1_000_000), None, n)
                .unwrap()
        })
        .collect();
    let kept = 999_983;
    poller.timer_set(ids[kept], Duration::ZERO, None).unwrap();
    assert_eq!(summarize(&collect(&poller, 8, 1)), [(EventKind::Timer, kept as u64, 1)]);
    for (index, id) in ids.into_iter().enumerate().filter(|(index, _)| *index != kept) {
        poller.timer_cancel(id).unwrap_or_else(|error| panic!("timer {index}: {error}"));
    }
    expect_none(&poller);
}

#[test]
#[cfg(target_os = "linux")]
fn a_wall_clock_time_is_never_early() {
    on_every_engine(|poller| {
        let soon = SystemTime::now() + ms(15);
        poller.timer_add_at(soon + LONG, 3).unwrap();
        poller.timer_add_at(soon, 1).unwrap();
        let cancelled = poller.timer_add_at(SystemTime::now(), 2).unwrap();
        poller.timer_cancel(cancelled).unwrap();
        assert_eq!(summarize(&collect(poller, 8, 1)), [(EventKind::Timer, 1, 1)]);
        assert!(SystemTime::now() >= soon);
        assert_eq!(errno(poller.timer_cancel(cancelled)), libc::ESTALE);
        poller.timer_add_at(SystemTime::UNIX_EPOCH, 4).unwrap();
        assert_eq!(summarize(&collect(poller, 8, 1)), [(EventKind::Timer, 4, 1)], "a time that has passed");
        expect_none(poller);
    });
}
