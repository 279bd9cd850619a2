use super::*;

#[test]
fn arrive_in_order_and_none_is_lost() {
    on_every_engine(|poller| {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for value in 0..5_000 {
                        while let Err(error) = poller.post(thread, value) {
                            assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut next = [0; 4];
            for event in collect(poller, 64, 20_000) {
                assert_eq!(event.kind(), EventKind::Post);
                let expected = &mut next[event.token() as usize];
                assert_eq!(event.value(), *expected, "thread {}", event.token());
                *expected += 1;
            }
        });
        expect_none(poller);
    });
}

#[test]
fn a_full_queue_is_an_error_and_nothing_is_lost() {
    on_every_engine(|poller| {
        for value in 0..65_536 {
            poller.post(1, value).unwrap();
        }
        assert_eq!(errno(poller.post(1, -1)), libc::EAGAIN);
        assert_eq!(collect(poller, 1, 1)[0].value(), 0);
        poller.post(1, 65_536).unwrap();
        let values: Vec<_> = collect(poller, 1_000, 65_536).iter().map(Event::value).collect();
        assert_eq!(values, (1..=65_536).collect::<Vec<_>>());
    });
}
