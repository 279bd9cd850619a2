//! EDGE: on a descriptor that blocks, and with something left to read.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use omnipoll::{EngineKind, FindingKind, Interest, Ready, Trigger};

use crate::suite::{read, Suite};
use crate::support::expect::*;
use crate::support::fds::*;
use crate::Strict;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(on_a_blocking_descriptor);
    suite.on_each_engine(nothing_else_needs_non_blocking);
    suite.on_each_engine(left_undrained);
    suite.on_each_engine(left_undrained_it_is_reported_though_nothing_ends_the_wait);
    suite.on_each_engine(a_connection_left_in_the_queue);
    suite.on_each_engine(read_until_eagain_and_rearmed);
    suite.on_each_engine(left_with_room_to_write);
    suite.on_each_engine(left_at_the_end_of_file);
    suite.on_each_engine(more_ready_than_fits);
}

fn on_a_blocking_descriptor(kind: EngineKind) {
    let strict = Strict::on(kind);
    let (blocking, _peer) = UnixStream::pair().unwrap();
    strict.add(&blocking, read(Trigger::EDGE), 7).unwrap();
    strict.found.expect(FindingKind::BlockingEdge, &blocking, 7);
    strict.modify(&blocking, read(Trigger::EDGE), 8).unwrap();
    strict.found.expect_nothing();
    strict.remove(&blocking).unwrap();
    strict.add(&blocking, Interest::READ, 9).unwrap();
    strict.found.expect_nothing();
    strict.modify(&blocking, read(Trigger::EDGE), 9).unwrap();
    strict.found.expect(FindingKind::BlockingEdge, &blocking, 9);
    strict.remove(&blocking).unwrap();
}

fn nothing_else_needs_non_blocking(kind: EngineKind) {
    let strict = Strict::on(kind);
    let ((blocking, _peer), (ours, _theirs)) = (UnixStream::pair().unwrap(), pair());
    for trigger in [Trigger::LEVEL, Trigger::ONESHOT] {
        strict.add(&blocking, read(trigger), 1).unwrap();
        strict.remove(&blocking).unwrap();
    }
    strict.add(&ours, read(Trigger::EDGE), 2).unwrap();
    strict.remove(&ours).unwrap();
    strict.end().expect_nothing();
}

/// The pipe experiment, which hangs at the second wait.
fn left_undrained(kind: EngineKind) {
    let strict = Strict::on(kind);
    let (mut reader, writer) = pipe();
    strict.add(&reader, read(Trigger::EDGE), 7).unwrap();
    fill(&writer);
    expect_event(&strict, 7, Ready::READ);
    assert!(reader.read(&mut [0; 1000]).unwrap() > 0);
    strict.found.expect_nothing();
    for _ in 0..3 {
        expect_none(&strict);
    }
    strict.found.expect(FindingKind::Undrained, &reader, 7);
    strict.remove(&reader).unwrap();
}

fn left_undrained_it_is_reported_though_nothing_ends_the_wait(kind: EngineKind) {
    let strict = Strict::on(kind);
    let (reader, writer) = pipe();
    strict.add(&reader, read(Trigger::EDGE), 7).unwrap();
    write_byte(&writer);
    let (sender, reported) = std::sync::mpsc::channel();
    strict.on_finding(Box::new(move |finding| sender.send(finding.kind).unwrap())).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            expect_event(&strict, 7, Ready::READ);
            expect_wake(&strict, 1);
        });
        let kinds = std::iter::from_fn(|| reported.recv_timeout(LONG).ok());
        assert!(kinds.into_iter().any(|kind| kind == FindingKind::Undrained));
        strict.wake().unwrap();
        waiter.join().unwrap();
    });
    let stats = strict.stats().unwrap();
    assert_eq!((stats.waits, stats.spurious), (2, 0), "a repeated poll of its own is not counted");
    strict.remove(&reader).unwrap();
}

fn a_connection_left_in_the_queue(kind: EngineKind) {
    let strict = Strict::on(kind);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let connect = || std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    strict.add(&listener, read(Trigger::EDGE), 7).unwrap();
    let _clients = [connect(), connect()];
    expect_event(&strict, 7, Ready::READ);
    let _first = listener.accept().unwrap();
    for _ in 0..3 {
        expect_none(&strict);
    }
    strict.found.expect(FindingKind::Undrained, &listener, 7);
    strict.remove(&listener).unwrap();
}

/// Whenever more arrives: after the drain, after the rearm, or during the wait.
fn read_until_eagain_and_rearmed(kind: EngineKind) {
    let strict = Strict::on(kind);
    let (ours, theirs) = pair();
    strict.add(&ours, read(Trigger::EDGE), 7).unwrap();
    write_byte(&theirs);
    for round in 0..60 {
        expect_event(&strict, 7, Ready::READ);
        drain(&ours);
        if round % 3 == 0 {
            write_byte(&theirs);
        }
        strict.rearm(&ours, Interest::READ).unwrap();
        if round % 3 == 1 {
            write_byte(&theirs);
        }
        if round % 3 == 2 {
            expect_none(&strict);
            write_byte(&theirs);
        }
    }
    strict.remove(&ours).unwrap();
    strict.end().expect_nothing();
}

/// A writer that has nothing to write leaves nothing undone.
fn left_with_room_to_write(kind: EngineKind) {
    let strict = Strict::on(kind);
    let (ours, theirs) = pair();
    strict.add(&ours, Interest::READ | Interest::WRITE | Trigger::EDGE, 7).unwrap();
    expect_event(&strict, 7, Ready::WRITE);
    for _ in 0..20 {
        write_byte(&theirs);
        assert!(next(&strict)[0].is_readable());
        drain(&ours);
        strict.rearm(&ours, Interest::READ).unwrap();
        expect_none(&strict);
    }
    strict.remove(&ours).unwrap();
    strict.end().expect_nothing();
}

/// Nothing follows an end of file, so no rearm is needed after it.
fn left_at_the_end_of_file(kind: EngineKind) {
    let ((reader, writer), (ours, theirs), (server, client)) = (pipe(), pair(), tcp());
    reads_to_the_end(kind, &reader, writer);
    reads_to_the_end(kind, &ours, theirs);
    reads_to_the_end(kind, &server, client);
}

fn reads_to_the_end<R: AsFd, W: AsFd>(kind: EngineKind, from: &R, peer: W)
where
    for<'a> &'a R: Read,
    for<'a> &'a W: Write,
{
    let strict = Strict::on(kind);
    strict.add(from, read(Trigger::EDGE), 7).unwrap();
    write_byte(&peer);
    close(peer);
    until_the_end(&strict, from);
    for _ in 0..20 {
        wait(&strict, 8, Duration::ZERO);
    }
    strict.remove(from).unwrap();
    strict.end().expect_nothing();
}

/// Reads what is reported up to the end of file, after which it neither reads nor rearms.
fn until_the_end<R: AsFd>(strict: &Strict, from: &R)
where
    for<'a> &'a R: Read,
{
    let mut from_there = from;
    loop {
        assert!(next(strict)[0].is_readable());
        loop {
            match from_there.read(&mut [0; 64]) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => break assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        strict.rearm(from, Interest::READ).unwrap();
    }
}

/// What did not fit into the array was not left undrained.
fn more_ready_than_fits(kind: EngineKind) {
    let strict = Strict::on(kind);
    let pipes: Vec<_> = (0..20).map(|_| pipe()).collect();
    for ((reader, writer), token) in pipes.iter().zip(0..) {
        strict.add(reader, read(Trigger::EDGE), token).unwrap();
        write_byte(writer);
    }
    for _ in 0..200 {
        for token in tokens(&wait(&strict, 1, LONG)) {
            let (reader, writer) = &pipes[token as usize];
            drain(reader);
            strict.rearm(reader, Interest::READ).unwrap();
            write_byte(writer);
        }
    }
    pipes.iter().for_each(|(reader, _)| strict.remove(reader).unwrap());
    strict.end().expect_nothing();
}
