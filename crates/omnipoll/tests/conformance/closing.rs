//! Descriptors that are closed while registered, and numbers that are used again.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use omnipoll::{Capabilities, EngineKind, Interest, Options, Poller, Ready, Trigger};

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::{fds::*, sys};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_trigger(closed_is_reported_once_where_the_system_reports_it);
    suite.on_each_engine(many_closed_at_once_are_reported_one_by_one);
    suite.on_each_trigger(closed_beyond_the_table_of_descriptors);
    suite.on_each_engine(closed_by_another_thread_during_a_wait);
    suite.on_each_engine(a_disarmed_oneshot_that_is_closed_stays_silent);
    suite.on_each_trigger(a_reused_fd_after_remove_gets_no_old_event);
    suite.on_each_trigger(a_reused_fd_without_remove_gets_no_old_event);
    suite.on_each_trigger(a_reused_fd_with_a_live_duplicate_gets_no_old_event);
    suite.on_each_engine(a_fd_reused_by_an_eventfd_gets_no_old_event);
    suite.on_each_engine(modify_of_a_reused_fd_is_enoent);
    suite.on_each_trigger(duplicated_closed_duplicated_back_and_watched_again);
    suite.on_each_trigger(a_descriptor_and_its_duplicate_are_two);
    suite.on_each_trigger(closed_while_a_duplicate_lives_neither_spins_nor_is_reported);
    suite.on_each_engine(more_stale_entries_than_are_remembered);
    suite.on_each_engine(a_poll_without_timeout_sees_past_stale_entries);
    suite.on_each_engine(a_stale_entry_leaves_the_others_unchanged);
    suite.on_each_engine(a_stale_entry_does_not_cut_off_waiting_threads);
    suite.on_each_trigger(an_event_removed_earlier_in_its_batch_is_the_last);
    suite.on_each_engine(a_dropped_poller_leaves_its_descriptors_open);
}

/// Two peers spun at over 100,000 wake-ups in 200 ms on poll(2), with events without a flag.
fn closed_is_reported_once_where_the_system_reports_it(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let ((reader, _writer), (other, other_writer)) = (pipe(), pipe());
    poller.add(&reader, read(trigger), 1).unwrap();
    poller.add(&other, Interest::READ, 2).unwrap();
    let number = close(reader);
    if reports_closed(&poller) {
        expect_event(&poller, 1, Ready::INVALID);
    }
    expect_quiet(&poller);
    write_byte(&other_writer);
    for _ in 0..3 {
        expect_event(&poller, 2, Ready::READ);
    }
    match reports_closed(&poller) {
        true => expect_error(poller.modify_raw(number, read(trigger), 1), libc::ENOENT),
        false => poller.remove_raw(number).unwrap(),
    }
    expect_error(poller.remove_raw(number), libc::ENOENT);
    expect_event(&poller, 2, Ready::READ);
}

fn many_closed_at_once_are_reported_one_by_one(kind: EngineKind) {
    let poller = poller(kind);
    let (other, other_writer) = pipe();
    let pipes: Vec<_> = (0..100).map(|_| pipe()).collect();
    for ((reader, _), token) in pipes.iter().zip(0..) {
        poller.add(reader, Interest::READ, token).unwrap();
    }
    poller.add(&other, read(Trigger::ONESHOT), 1000).unwrap();
    write_byte(&other_writer);
    drop(pipes);
    let mut found = Vec::new();
    loop {
        let events = wait(&poller, 3, Duration::ZERO);
        found.extend(tokens(&events));
        if events.is_empty() {
            break;
        }
    }
    found.sort_unstable();
    let reported = if reports_closed(&poller) { 0..100 } else { 0..0 };
    assert_eq!(found, reported.chain([1000]).collect::<Vec<_>>());
    expect_quiet(&poller);
}

/// A copied table is as short as the highest open fd permits, and select(2) leaves
/// out what is beyond: it looked ready indefinitely.
fn closed_beyond_the_table_of_descriptors(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    let ((high, _writer), number) = (pipe(), 900);
    let high = sys::dup_to(&high, number);
    poller.add(&high, read(trigger), 1).unwrap();
    poller.add(&reader, read(trigger), 2).unwrap();
    close(high);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            sys::unshare_descriptors();
            write_byte(&writer);
            let found: Vec<_> = (0..4).flat_map(|_| wait(&poller, 8, Duration::ZERO)).collect();
            let invalid = found.iter().filter(|event| event.token() == 1).collect::<Vec<_>>();
            let expected = if reports_closed(&poller) { 1 } else { 0 };
            assert!(invalid.iter().all(|event| event.ready() == Ready::INVALID), "{found:?}");
            assert_eq!(invalid.len(), expected, "{found:?}");
            assert!(tokens(&found).contains(&2), "{found:?}");
            drain(&reader);
            expect_quiet(&poller);
        });
    });
}

/// What the system makes of the closed one in the wait in progress is up to it (Linux calls it
/// readable in a select); the others are reported as before, and no later wait spins.
fn closed_by_another_thread_during_a_wait(kind: EngineKind) {
    let poller = poller(kind);
    let ((reader, _writer), (other, other_writer)) = (pipe(), pipe());
    poller.add(&reader, Interest::READ, 1).unwrap();
    poller.add(&other, Interest::READ, 2).unwrap();
    std::thread::scope(|scope| {
        let waiter = waiter(scope, &poller, LONG);
        close(reader);
        write_byte(&other_writer);
        let events = waiter.events();
        assert!(tokens(&events).contains(&2), "{events:?}");
        let is_right = |token, ready| match token {
            1 => reports_closed(&poller) && [Ready::INVALID, Ready::READ].contains(&ready),
            _ => ready == Ready::READ,
        };
        assert!(events.iter().all(|event| is_right(event.token(), event.ready())), "{events:?}");
    });
    drain(&other);
    if reports_closed(&poller) {
        wait(&poller, 64, Duration::ZERO);
    }
    expect_quiet(&poller);
}

fn a_disarmed_oneshot_that_is_closed_stays_silent(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read(Trigger::ONESHOT), 1).unwrap();
    write_byte(&writer);
    expect_event(&poller, 1, Ready::READ);
    let number = close(reader);
    expect_quiet(&poller);
    expect_error(poller.modify_raw(number, read(Trigger::ONESHOT), 1), libc::EBADF);
    poller.remove_raw(number).unwrap();
    expect_error(poller.remove_raw(number), libc::ENOENT);
    expect_quiet(&poller);
}

/// The new file under `number` is silent, then reported, under its own token only.
#[track_caller]
fn gets_no_old_event(poller: &Poller, number: &OwnedFd, interest: Interest, writer: &File) {
    expect_quiet(poller);
    write_byte(writer);
    expect_event(poller, 2, Ready::READ);
    poller.modify(number, interest, 3).unwrap();
    expect_event(poller, 3, Ready::READ);
}

fn a_reused_fd_after_remove_gets_no_old_event(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let ((old, old_writer), (new, new_writer)) = (pipe(), pipe());
    poller.add(&old, read(trigger), 1).unwrap();
    write_byte(&old_writer);
    let number = close(old);
    poller.remove_raw(number).unwrap();
    let number = sys::dup_to(&new, number);
    poller.add(&number, read(trigger), 2).unwrap();
    gets_no_old_event(&poller, &number, read(trigger), &new_writer);
}

fn a_reused_fd_without_remove_gets_no_old_event(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let ((old, old_writer), (new, new_writer)) = (pipe(), pipe());
    poller.add(&old, read(trigger), 1).unwrap();
    write_byte(&old_writer);
    let number = sys::dup_to(&new, close(old));
    poller.add(&number, read(trigger), 2).unwrap();
    gets_no_old_event(&poller, &number, read(trigger), &new_writer);
}

/// epoll keeps reporting a file whose registered fd is closed, under what it was
/// registered with: that must not reach the file that has the fd now.
fn a_reused_fd_with_a_live_duplicate_gets_no_old_event(kind: EngineKind, trigger: Trigger) {
    // Many programs use the fd as the token: then old and new have the same.
    for (removes, old_token) in [(true, 1), (false, 1), (true, 2), (false, 2)] {
        let poller = poller(kind);
        let ((old, old_writer), (new, new_writer)) = (pipe(), pipe());
        poller.add(&old, read(trigger), old_token).unwrap();
        let _duplicate = dup(&old);
        let number = close(old);
        if removes {
            poller.remove_raw(number).unwrap();
        }
        let number = sys::dup_to(&new, number);
        poller.add(&number, read(trigger), 2).unwrap();
        write_byte(&old_writer);
        gets_no_old_event(&poller, &number, read(trigger), &new_writer);
        drop(old_writer);
        poller.remove(&number).unwrap();
        expect_quiet(&poller);
    }
}

/// All eventfds share an inode, so that `fstat(2)` can't distinguish a new one from the old: where
/// the engine has nothing else to go by, it is taken for the one that is registered.
fn a_fd_reused_by_an_eventfd_gets_no_old_event(kind: EngineKind) {
    let poller = poller(kind);
    let (old, new) = (sys::eventfd(1), sys::eventfd(0));
    poller.add(&old, Interest::READ, 1).unwrap();
    expect_event(&poller, 1, Ready::READ);
    let number = sys::dup_to(&new, close(old));
    match reports_closed(&poller) {
        true => {
            expect_error(poller.add(&number, Interest::READ, 2), libc::EEXIST);
            poller.modify(&number, Interest::READ, 2).unwrap();
        }
        false => poller.add(&number, Interest::READ, 2).unwrap(),
    }
    expect_quiet(&poller);
}

fn modify_of_a_reused_fd_is_enoent(kind: EngineKind) {
    let poller = poller(kind);
    let ((old, _old_writer), (new, new_writer)) = (pipe(), pipe());
    poller.add(&old, Interest::READ, 1).unwrap();
    let number = sys::dup_to(&new, close(old));
    expect_error(poller.modify(&number, Interest::READ, 2), libc::ENOENT);
    write_byte(&new_writer);
    expect_quiet(&poller);
    poller.add(&number, Interest::READ, 3).unwrap();
    expect_event(&poller, 3, Ready::READ);
}

fn duplicated_closed_duplicated_back_and_watched_again(kind: EngineKind, trigger: Trigger) {
    for waits_between in [false, true] {
        let poller = poller(kind);
        let (reader, writer) = pipe();
        poller.add(&reader, read(trigger), 1).unwrap();
        let duplicate = dup(&reader);
        let number = close(reader);
        if waits_between {
            wait(&poller, 64, Duration::ZERO);
        }
        let number = sys::dup_to(&duplicate, number);
        if let Err(error) = poller.remove(&number) {
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
            assert!(waits_between && reports_closed(&poller), "the registration had ended unseen");
        }
        poller.add(&number, read(trigger), 2).unwrap();
        expect_quiet(&poller);
        write_byte(&writer);
        expect_event(&poller, 2, Ready::READ);
    }
}

fn a_descriptor_and_its_duplicate_are_two(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    let duplicate = dup(&ours);
    poller.add(&ours, read(trigger), 1).unwrap();
    poller.add(&duplicate, Interest::WRITE | trigger, 2).unwrap();
    expect_event(&poller, 2, Ready::WRITE);
    poller.remove(&duplicate).unwrap();
    expect_none(&poller);
    poller.add(&duplicate, read(trigger), 3).unwrap();
    write_byte(&theirs);
    expect_events(&poller, &[(1, Ready::READ), (3, Ready::READ)]);
    poller.remove(&ours).unwrap();
    drain(&ours);
    acknowledge(&poller, &duplicate, read(trigger), 3);
    write_byte(&theirs);
    expect_event(&poller, 3, Ready::READ);
}

/// epoll can't see that a fd was closed whose file stays open, and reports it until it is
/// removed; then it can't be removed, and must be silenced all the same.
fn closed_while_a_duplicate_lives_neither_spins_nor_is_reported(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read(trigger), 1).unwrap();
    let duplicate = dup(&reader);
    let number = close(reader);
    match reports_closed(&poller) {
        true => {
            expect_event(&poller, 1, Ready::INVALID);
            expect_error(poller.remove_raw(number), libc::ENOENT);
        }
        false => {
            write_byte(&writer);
            match poller.engine() {
                // It looks at the fd, not at the file.
                EngineKind::IoUring => expect_quiet(&poller),
                _ => expect_event(&poller, 1, Ready::READ),
            }
            poller.remove_raw(number).unwrap();
        }
    }
    for _ in 0..3 {
        write_byte(&writer);
        expect_quiet(&poller);
        drain(&File::from(dup(&duplicate)));
    }
    drop(writer);
    expect_quiet(&poller);
    poller.add(&duplicate, read(trigger), 2).unwrap();
    expect_event(&poller, 2, Ready::READ | Ready::HANGUP);
}

/// Makes a stale entry where the engine can have one: a descriptor that was closed before it was
/// removed, and whose duplicate, which is returned, lives on and is readable. An engine that
/// detects closed descriptors sees a removed one instead.
fn stale_entry(poller: &Poller, trigger: Trigger) -> (OwnedFd, File) {
    let (reader, writer) = pipe();
    poller.add(&reader, read(trigger), 666).unwrap();
    let duplicate = dup(&reader);
    if reports_closed(poller) {
        poller.remove(&reader).unwrap();
        close(reader);
    } else {
        let number = close(reader);
        poller.remove_raw(number).unwrap();
    }
    write_byte(&writer);
    (duplicate, writer)
}

fn more_stale_entries_than_are_remembered(kind: EngineKind) {
    for capacity in [1, 7, 64] {
        let poller = poller(kind);
        let _stale_entries: Vec<_> = (0..300).map(|_| stale_entry(&poller, Trigger::LEVEL)).collect();
        expect_sleep(|| {
            let events = wait(&poller, capacity, Duration::from_millis(200));
            assert!(events.is_empty(), "{events:?}");
        });
        let (reader, writer) = pipe();
        poller.add(&reader, Interest::READ, 1).unwrap();
        write_byte(&writer);
        assert_eq!(tokens(&wait(&poller, capacity, LONG)), [1]);
    }
}

/// A stale entry that takes the only place in the kernel's answer must not end the poll.
fn a_poll_without_timeout_sees_past_stale_entries(kind: EngineKind) {
    for stale_entries in [1, 3, 100] {
        let poller = poller(kind);
        let _stale_entries: Vec<_> =
            (0..stale_entries).map(|_| stale_entry(&poller, Trigger::LEVEL)).collect();
        let (reader, writer) = pipe();
        poller.add(&reader, read(Trigger::ONESHOT), 1).unwrap();
        write_byte(&writer);
        assert_eq!(tokens(&wait(&poller, 1, Duration::ZERO)), [1]);
        expect_quiet(&poller);
    }
}

fn a_stale_entry_leaves_the_others_unchanged(kind: EngineKind) {
    let poller = Options::new().engine(kind).files_always_ready(true).build().unwrap();
    let file = File::open("/dev/null").unwrap();
    poller.add(&file, read(Trigger::ONESHOT), 5).unwrap();
    expect_event(&poller, 5, Ready::READ);
    let (exclusive, exclusive_writer) = pipe();
    if poller.capabilities().contains(Capabilities::HAS_EXCLUSIVE) {
        poller.add(&exclusive, read(Trigger::EXCLUSIVE), 7).unwrap();
    } else {
        poller.add(&exclusive, Interest::READ, 7).unwrap();
    }
    let pipes: [_; 4] = std::array::from_fn(|_| pipe());
    let triggers = [Trigger::LEVEL, Trigger::EDGE, Trigger::ONESHOT, Trigger::ONESHOT];
    for (((reader, _), trigger), token) in pipes.iter().zip(triggers).zip(0..) {
        poller.add(reader, read(trigger), token).unwrap();
    }
    write_byte(&pipes[3].1);
    expect_event(&poller, 3, Ready::READ);
    let _stale_entries = [stale_entry(&poller, Trigger::LEVEL), stale_entry(&poller, Trigger::LEVEL)];
    poller.wake().unwrap();
    expect_wake(&poller, 1);
    expect_quiet(&poller);
    pipes.iter().for_each(|(_, writer)| write_byte(writer));
    expect_events(&poller, &[(0, Ready::READ), (1, Ready::READ), (2, Ready::READ)]);
    expect_event(&poller, 0, Ready::READ);
    poller.remove(&pipes[0].0).unwrap();
    poller.modify(&pipes[3].0, read(Trigger::ONESHOT), 4).unwrap();
    expect_event(&poller, 4, Ready::READ);
    poller.modify(&file, read(Trigger::ONESHOT), 6).unwrap();
    expect_event(&poller, 6, Ready::READ);
    expect_quiet(&poller);
    write_byte(&exclusive_writer);
    expect_event(&poller, 7, Ready::READ);
}

/// A stale EDGE entry wakes one waiting thread at a time; whatever is done about it, at the
/// first event or a later one, must not leave the other alone with the stale entry.
fn a_stale_entry_does_not_cut_off_waiting_threads(kind: EngineKind) {
    for events in 1..6 {
        let poller = poller(kind);
        let pipes = [pipe(), pipe()];
        std::thread::scope(|scope| {
            let mut waiters = vec![waiter(scope, &poller, LONG), waiter(scope, &poller, LONG)];
            let all_sleep = |waiters: &[Waiter<'_>]| {
                waiters.iter().for_each(|waiter| sys::wait_until_asleep(waiter.thread));
            };
            let (_duplicate, writer) = stale_entry(&poller, Trigger::EDGE);
            for _ in 1..events {
                all_sleep(&waiters);
                write_byte(&writer);
            }
            all_sleep(&waiters);
            for ((reader, writer), token) in pipes.iter().zip(0..) {
                poller.add(reader, read(Trigger::ONESHOT), token).unwrap();
                write_byte(writer);
                assert_eq!(tokens(&take_first_ended(&mut waiters).events()), [token]);
            }
        });
    }
}

/// A batch is a snapshot: the event stays in the list that was handed out, and is the last.
fn an_event_removed_earlier_in_its_batch_is_the_last(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let pipes = [pipe(), pipe()];
    for ((reader, writer), token) in pipes.iter().zip(0..) {
        poller.add(reader, read(trigger), token).unwrap();
        write_byte(writer);
    }
    let events = next(&poller);
    assert_eq!(events.len(), 2, "{events:?}");
    let (first, second) = (events[0].token(), events[1].token());
    poller.remove(&pipes[second as usize].0).unwrap();
    drain(&pipes[first as usize].0);
    expect_quiet(&poller);
    poller.add(&pipes[second as usize].0, read(trigger), 7).unwrap();
    expect_event(&poller, 7, Ready::READ);
}

fn a_dropped_poller_leaves_its_descriptors_open(kind: EngineKind) {
    let (reader, writer) = pipe();
    let first = poller(kind);
    first.add(&reader, Interest::READ, 1).unwrap();
    drop(first);
    assert!(sys::is_open(reader.as_raw_fd()));
    let second = poller(kind);
    second.add(&reader, Interest::READ, 2).unwrap();
    write_byte(&writer);
    expect_event(&second, 2, Ready::READ);
}
