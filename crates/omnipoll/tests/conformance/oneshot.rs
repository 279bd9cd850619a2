//! ONESHOT: reported once, then silent until `modify`.

use std::io::{Read, Write};

use omnipoll::{EngineKind, Interest, Ready, Trigger};

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::fds::*;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(the_pipe_experiment_blocks_until_modify);
    suite.on_each_engine(silent_after_one_event_whatever_comes);
    suite.on_each_engine(what_came_meanwhile_is_reported_at_once_after_modify);
    suite.on_each_engine(one_event_disarms_every_direction);
    suite.on_each_engine(disarmed_it_ignores_the_peer_s_hang_up);
    suite.on_each_engine(disarmed_beside_others_it_stays_silent);
    suite.on_each_engine(it_can_be_modified_from_the_handling_of_another_event);
    suite.on_each_engine(modified_before_it_fired_it_fires_once);
    suite.on_each_engine(it_can_become_level_and_back);
    suite.on_each_engine(rearm_is_refused);
}

fn read_once() -> Interest {
    read(Trigger::ONESHOT)
}

fn the_pipe_experiment_blocks_until_modify(kind: EngineKind) {
    let poller = poller(kind);
    let (mut reader, mut writer) = pipe();
    poller.add(&reader, read_once(), 1).unwrap();
    writer.write_all(&[0; 2048]).unwrap();
    expect_event(&poller, 1, Ready::READ);
    reader.read_exact(&mut [0; 1024]).unwrap();
    expect_quiet(&poller);
    poller.modify(&reader, read_once(), 1).unwrap();
    expect_event(&poller, 1, Ready::READ);
}

fn silent_after_one_event_whatever_comes(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read_once(), 1).unwrap();
    write_byte(&writer);
    expect_event(&poller, 1, Ready::READ);
    for _ in 0..3 {
        drain(&reader);
        expect_none(&poller);
        write_byte(&writer);
        expect_none(&poller);
    }
}

fn what_came_meanwhile_is_reported_at_once_after_modify(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read_once(), 0).unwrap();
    write_byte(&writer);
    expect_event(&poller, 0, Ready::READ);
    for token in 1..100 {
        drain(&reader);
        write_byte(&writer);
        poller.modify(&reader, read_once(), token).unwrap();
        expect_event(&poller, token, Ready::READ);
    }
    drain(&reader);
    poller.modify(&reader, read_once(), 100).unwrap();
    expect_none(&poller);
    write_byte(&writer);
    expect_event(&poller, 100, Ready::READ);
}

fn one_event_disarms_every_direction(kind: EngineKind) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    let both = Interest::READ | Interest::WRITE | Trigger::ONESHOT;
    poller.add(&ours, both, 1).unwrap();
    expect_event(&poller, 1, Ready::WRITE);
    write_byte(&theirs);
    expect_quiet(&poller);
    poller.modify(&ours, both, 1).unwrap();
    expect_event(&poller, 1, Ready::READ | Ready::WRITE);
}

/// `poll(2)` reports a hang-up even when nothing was asked for: a peer's engine spun, with
/// 90,000 events in 200 ms, when the other side of a disarmed descriptor went away.
fn disarmed_it_ignores_the_peer_s_hang_up(kind: EngineKind) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    poller.add(&ours, read_once(), 1).unwrap();
    write_byte(&theirs);
    expect_event(&poller, 1, Ready::READ);
    drop(theirs);
    expect_quiet(&poller);
    drain(&ours);
    poller.modify(&ours, read_once(), 2).unwrap();
    expect_event(&poller, 2, Ready::READ | Ready::READ_CLOSED | Ready::HANGUP);
    expect_quiet(&poller);
}

fn disarmed_beside_others_it_stays_silent(kind: EngineKind) {
    let poller = poller(kind);
    let ((once, once_writer), (level, level_writer)) = (pipe(), pipe());
    poller.add(&once, read_once(), 1).unwrap();
    poller.add(&level, Interest::READ, 2).unwrap();
    write_byte(&once_writer);
    write_byte(&level_writer);
    expect_events(&poller, &[(1, Ready::READ), (2, Ready::READ)]);
    drop(once_writer);
    for _ in 0..3 {
        expect_event(&poller, 2, Ready::READ);
    }
    drain(&level);
    expect_quiet(&poller);
}

fn it_can_be_modified_from_the_handling_of_another_event(kind: EngineKind) {
    let poller = poller(kind);
    let ((first, first_writer), (second, second_writer)) = (pipe(), pipe());
    poller.add(&first, read_once(), 1).unwrap();
    poller.add(&second, read_once(), 2).unwrap();
    write_byte(&first_writer);
    write_byte(&second_writer);
    for event in next(&poller) {
        let other = if event.token() == 1 { &second } else { &first };
        poller.modify(other, read_once(), 3 - event.token()).unwrap();
    }
    expect_events(&poller, &[(1, Ready::READ), (2, Ready::READ)]);
    expect_none(&poller);
}

fn modified_before_it_fired_it_fires_once(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read_once(), 1).unwrap();
    poller.modify(&reader, read_once(), 2).unwrap();
    write_byte(&writer);
    poller.modify(&reader, read_once(), 3).unwrap();
    expect_event(&poller, 3, Ready::READ);
    expect_none(&poller);
}

fn it_can_become_level_and_back(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read_once(), 1).unwrap();
    write_byte(&writer);
    expect_event(&poller, 1, Ready::READ);
    poller.modify(&reader, Interest::READ, 1).unwrap();
    expect_event(&poller, 1, Ready::READ);
    expect_event(&poller, 1, Ready::READ);
    poller.modify(&reader, read_once(), 1).unwrap();
    expect_event(&poller, 1, Ready::READ);
    expect_none(&poller);
}

fn rearm_is_refused(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, read_once(), 1).unwrap();
    write_byte(&writer);
    expect_event(&poller, 1, Ready::READ);
    expect_error(poller.rearm(&reader, Interest::READ), libc::EINVAL);
    expect_none(&poller);
}
