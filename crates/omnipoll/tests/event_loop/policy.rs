//! Wait policies of a loop.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use omnipoll::{EngineKind, LoopEvent, LoopEventKind, LoopOptions, WaitPolicy};

use crate::running::{Listening, LONG};
use crate::suite::Suite;
use crate::support::sys;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(thrifty_reports_together_what_comes_within_its_time);
    suite.on_each_engine(thrifty_is_in_time_for_timers_and_its_timeout);
    suite.on_each_engine(latency_looks_again_and_again_while_it_spins);
    suite.on_each_engine(latency_sleeps_when_its_time_is_over);
    suite.on_each_engine(latency_loses_no_signal);
}

/// Longer than a case may last.
const HOUR: Duration = Duration::from_secs(3600);

fn with(engine: EngineKind, policy: WaitPolicy) -> LoopOptions {
    LoopOptions::new().engine(engine).wait_policy(policy)
}

/// One client has sent something before the wait, and the other does while it sleeps: any other wait would
/// return the first at once. On a busy machine the second may be too late.
fn thrifty_reports_together_what_comes_within_its_time(engine: EngineKind) {
    let min_wait = Duration::from_millis(100);
    let mut listening = Listening::with_options(with(engine, WaitPolicy::Thrifty { min_wait }));
    let ((mut first, _), (mut second, _)) = (listening.client(), listening.client());
    let this = sys::thread_id();
    for _ in 0..100 {
        first.write_all(b"x").unwrap();
        let event_loop = &mut listening.event_loop;
        let begun = Instant::now();
        let mut data_of_one_wait = thread::scope(|scope| {
            let writing = scope.spawn(|| {
                sys::wait_until_asleep(this);
                second.write_all(b"x").unwrap();
            });
            let data = count_data(event_loop);
            while !writing.is_finished() {
                thread::sleep(Duration::from_millis(1));
            }
            data
        });
        assert!(begun.elapsed() >= min_wait);
        if data_of_one_wait == 2 {
            return;
        }
        while data_of_one_wait < 2 {
            data_of_one_wait += count_data(event_loop);
        }
    }
    panic!("they are never reported together");
}

/// How many DATA events the next wait brings.
fn count_data(event_loop: &mut omnipoll::PulledLoop) -> usize {
    let mut events = [LoopEvent::default(); 8];
    let count = event_loop.wait(&mut events, Some(LONG)).unwrap();
    events[..count].iter().filter(|event| event.kind() == LoopEventKind::Data).count()
}

fn thrifty_is_in_time_for_timers_and_its_timeout(engine: EngineKind) {
    let mut listening = Listening::with_options(with(engine, WaitPolicy::Thrifty { min_wait: HOUR }));
    let event_loop = &mut listening.event_loop;
    let mut events = [LoopEvent::default(); 8];
    event_loop.poller().timer_add(Duration::from_millis(10), None, 2).unwrap();
    assert_eq!(event_loop.wait(&mut events, None).unwrap(), 1);
    assert_eq!(events[0].kind(), LoopEventKind::Timer);
    assert_eq!(event_loop.wait(&mut events, Some(Duration::from_millis(10))).unwrap(), 0);
}

fn latency_looks_again_and_again_while_it_spins(engine: EngineKind) {
    let mut listening = Listening::with_options(with(engine, WaitPolicy::Latency { spin: HOUR }));
    let (mut client, _) = listening.client();
    let poller = listening.event_loop.poller().clone();
    let writing = thread::spawn(move || {
        let looks = || poller.stats().unwrap().system_calls;
        let enough = looks() + 100;
        while looks() < enough {
            sys::yield_briefly();
        }
        client.write_all(b"x").unwrap();
        client
    });
    listening.next(LoopEventKind::Data);
    listening.event_loop.poller().timer_add(Duration::from_millis(1), None, 2).unwrap();
    listening.next(LoopEventKind::Timer);
    listening.event_loop.poller().post(3, 0).unwrap();
    listening.next(LoopEventKind::Post);
    drop(writing.join());
}

fn latency_sleeps_when_its_time_is_over(engine: EngineKind) {
    let policy = WaitPolicy::Latency { spin: Duration::from_millis(2) };
    let mut listening = Listening::with_options(with(engine, policy));
    let (mut client, _) = listening.client();
    let this = sys::thread_id();
    thread::scope(|scope| {
        scope.spawn(|| {
            sys::wait_until_asleep(this);
            client.write_all(b"x").unwrap();
        });
        listening.next(LoopEventKind::Data);
    });
}

/// A signal whose handler has run between two looks would not end the sleep after them.
fn latency_loses_no_signal(engine: EngineKind) {
    extern "C" fn do_nothing(_: libc::c_int) {}
    sys::on_signal(libc::SIGUSR1, do_nothing);
    let options = with(engine, WaitPolicy::Latency { spin: Duration::from_millis(300) });
    let mut listening = Listening::with_options(options.interruptible(true));
    let poller = listening.event_loop.poller().clone();
    let this = sys::thread_id();
    let before = poller.stats().unwrap().system_calls;
    let sending = thread::spawn(move || {
        // On a busy machine it may not have the time to look so often.
        while poller.stats().unwrap().system_calls < before + 4 && !sys::is_asleep(this) {
            sys::yield_briefly();
        }
        sys::signal_thread(this, libc::SIGUSR1);
    });
    let waited = listening.event_loop.wait(&mut [LoopEvent::default(); 8], None);
    assert_eq!(waited.unwrap_err().raw_os_error(), Some(libc::EINTR));
    sending.join().unwrap();
}
