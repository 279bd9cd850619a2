use super::*;
use omnipoll::Interest;
use std::io::Write;
use std::os::unix::net::UnixStream;

#[test]
fn nothing_starves_when_everything_is_always_ready() {
    on_every_engine(|poller| {
        for capacity in [1, 2, 3] {
            let pairs: Vec<_> = (0..4).map(|_| UnixStream::pair().unwrap()).collect();
            for (index, (ours, theirs)) in pairs.iter().enumerate() {
                (&*theirs).write_all(b"x").unwrap();
                poller.add(ours, Interest::READ, index as u64).unwrap();
            }
            let timer = poller.timer_add(Duration::ZERO, Some(Duration::from_nanos(1)), 100).unwrap();
            let mut reported = [0u32; 8];
            let mut events = Events::with_capacity(capacity);
            for round in 0..1_000 {
                poller.post(0, round).unwrap();
                poller.wake().unwrap();
                let count = poller.wait(&mut events, Some(LONG)).unwrap();
                assert!((1..=capacity).contains(&count));
                for event in &events {
                    match event.kind() {
                        EventKind::Io => reported[event.token() as usize] += 1,
                        EventKind::Timer => reported[4] += 1,
                        EventKind::Post => reported[5] += 1,
                        EventKind::Wake => reported[6] += 1,
                        kind => panic!("{kind:?}"),
                    }
                }
            }
            assert!(reported[..7].iter().all(|&times| times > 20), "capacity {capacity}: {reported:?}");
            poller.timer_cancel(timer).unwrap();
            for (ours, _) in &pairs {
                poller.remove(ours).unwrap();
            }
            let mut left = 1_000 - reported[5] as usize;
            while left > 0 {
                left -= collect(poller, 64, 1).iter().filter(|event| event.kind() == EventKind::Post).count();
            }
        }
    });
}

#[test]
fn readiness_and_a_timer_at_the_same_moment_are_both_reported() {
    on_every_engine(|poller| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        poller.add(&ours, Interest::READ, 1).unwrap();
        theirs.write_all(b"x").unwrap();
        poller.timer_add(Duration::ZERO, None, 2).unwrap();
        let mut events = Events::with_capacity(8);
        poller.wait(&mut events, None).unwrap();
        let mut reported = summarize(&events.iter().copied().collect::<Vec<_>>());
        reported.sort_by_key(|fact| fact.1);
        assert_eq!(reported.iter().map(|fact| fact.0).collect::<Vec<_>>(), [EventKind::Io, EventKind::Timer]);
    });
}

#[test]
fn the_poller_s_own_descriptors_cannot_be_changed() {
    on_every_engine(|poller| {
        // It ends with its input, so it can't outlive a failed test.
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        poller.child_add(child.id() as i32, 1).unwrap();
        for fd in 0..256 {
            assert_eq!(errno(poller.remove_raw(fd)), libc::ENOENT, "descriptor {fd}");
            let refused = errno(poller.modify_raw(fd, Interest::READ, 0));
            assert!(matches!(refused, libc::ENOENT | libc::EINVAL), "descriptor {fd}: {refused}");
        }
        child.kill().unwrap();
        assert_eq!(collect(poller, 8, 1)[0].kind(), EventKind::Child);
    });
}
