//! What arrives, divided into frames: lines, and messages of a known length.

use std::io::Write;
use std::time::Duration;

use omnipoll::{Conn, Frame};

use crate::client::{end, expect_end, keep_small, pattern, read, read_to_end, send_meanwhile};
use crate::config::Config;
use crate::log::Callback;
use crate::running_server::{port_of, serve};
use crate::suite::Suite;
use crate::test_handler::TestHandler;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(many_lines_at_once);
    suite.for_each_config(a_byte_at_a_time);
    suite.for_each_config(frames_of_one_length);
    suite.for_each_config(messages_with_their_length);
    suite.for_each_config(at_least_so_many_bytes);
    suite.for_each_config(what_is_there_is_enough);
    suite.for_each_config(what_is_left_at_the_end_comes_before_it);
    suite.for_each_config(a_line_that_is_too_long_ends_the_connection);
    suite.for_each_config(a_pause_holds_the_rest_of_a_batch);
    suite.for_each_config(back_pressure_holds_the_rest_of_a_batch);
    suite.for_each_config(the_end_waits_for_frames_that_are_held);
    suite.for_each_config(nothing_follows_a_close);
    suite.for_each_config(a_panic_in_a_batch_ends_the_connection);
    suite.for_each_config(another_frame_counts_for_what_is_kept);
    suite.for_each_config(frames_are_given_up);
    suite.for_each_model(what_is_no_frame_is_refused);
}

const LINE: Frame<'_> = Frame::Until { delimiter: b"\n", max: 100_000 };

/// Answers with each frame in brackets.
fn bracket(conn: &mut Conn<'_>, data: &[u8]) {
    let _ = conn.write(&[b"<", data, b">"].concat());
}

fn bracketed(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.iter().flat_map(|frame| [b"<", &frame[..], b">"].concat()).collect()
}

/// Divides into frames from the start, and answers with each in brackets.
fn brackets(frame: Frame<'static>) -> TestHandler {
    TestHandler::echo()
        .on_open(move |conn, _| conn.set_frame(frame))
        .on_data(|conn, _, data| bracket(conn, data))
}

/// Lines of all lengths up to some thousand.
fn lines(delimiter: &[u8]) -> Vec<Vec<u8>> {
    let lengths = (0..600).map(|number| number % 40).chain([5_000, 70_000, 0, 3]);
    lengths.map(|length| [&vec![b'a'; length], delimiter].concat()).collect()
}

fn many_lines_at_once(config: Config) {
    for delimiter in [&b"\n"[..], b"\r\n", b"a\n\n"] {
        let frame = Frame::Until { delimiter: Box::leak(delimiter.into()), max: 100_000 };
        let server = serve(config.options(), brackets(frame));
        let client = server.client();
        let sender = send_meanwhile(&client, lines(delimiter).concat());
        let expected = bracketed(&lines(delimiter));
        assert!(read(&client, expected.len()) == expected, "other frames than were sent");
        sender.join().unwrap();
        drop(client);
        server.stop_and_check();
    }
}

fn a_byte_at_a_time(config: Config) {
    let frame = Frame::Until { delimiter: b"\r\n", max: 8 };
    let server = serve(config.options(), brackets(frame));
    let mut client = server.client();
    for byte in b"o\nne\r\n\r\r\n\r\n123456\r\n" {
        client.write_all(&[*byte]).unwrap();
    }
    let expected = b"<o\nne\r\n><\r\r\n><\r\n><123456\r\n>";
    assert_eq!(read(&client, expected.len()), expected);
    drop(client);
    server.stop_and_check();
}

fn frames_of_one_length(config: Config) {
    for length in [1, 5, 100_000] {
        let server = serve(config.options(), brackets(Frame::Exactly(length)));
        let client = server.client();
        let frames: Vec<_> = (0..7).map(|number| vec![b'0' + number; length]).collect();
        let sender = send_meanwhile(&client, frames.concat());
        let expected = bracketed(&frames);
        assert!(read(&client, expected.len()) == expected, "other frames than were sent");
        sender.join().unwrap();
        drop(client);
        server.stop_and_check();
    }
}

/// Messages that begin with their length in four bytes: answers with each in brackets.
fn message(conn: &mut Conn<'_>, data: &[u8]) {
    let next = match data.try_into().map(u32::from_be_bytes) {
        Ok(length) if length > 4 => length as usize,
        _ => {
            bracket(conn, data);
            4
        }
    };
    conn.set_frame(Frame::Exactly(next)).unwrap();
}

fn messages_with_their_length(config: Config) {
    let handler = TestHandler::echo()
        .on_open(|conn, _| conn.set_frame(Frame::Exactly(4)))
        .on_data(|conn, _, data| message(conn, data));
    let server = serve(config.options(), handler);
    let client = server.client();
    let lengths = (5..300).chain([300_000, 5, 65_536, 65_532, 7]);
    let messages: Vec<Vec<u8>> = lengths.map(|length| vec![length as u8; length]).collect();
    let sent = messages.iter().flat_map(|body| [&(body.len() as u32).to_be_bytes(), &body[..]].concat());
    let sender = send_meanwhile(&client, sent.collect());
    let expected = bracketed(&messages);
    assert!(read(&client, expected.len()) == expected, "other messages than were sent");
    sender.join().unwrap();
    drop(client);
    server.stop_and_check();
}

fn at_least_so_many_bytes(config: Config) {
    const LEAST: usize = 1_000;
    let handler = TestHandler::echo().on_open(|conn, _| conn.set_frame(Frame::AtLeast(LEAST))).on_data(
        |conn, _, data| {
            assert!(data.len() >= LEAST || conn.has_ended());
            let _ = conn.write(data);
        },
    );
    let server = serve(config.options(), handler);
    let mut client = server.client();
    client.write_all(&[b'a'; LEAST - 1]).unwrap();
    client.write_all(b"b").unwrap();
    assert_eq!(read(&client, LEAST), [&[b'a'; LEAST - 1][..], b"b"].concat());
    let sent = pattern(5, 300_000);
    let sender = send_meanwhile(&client, sent.clone());
    let (most, rest) = sent.split_at(sent.len() - LEAST);
    assert!(read(&client, most.len()) == most, "other bytes than were sent");
    sender.join().unwrap();
    end(&client);
    assert!(read_to_end(&client) == rest, "other bytes than were sent");
    server.stop_and_check();
}

fn what_is_there_is_enough(config: Config) {
    // Each frame is set when the whole text has arrived.
    let handler = TestHandler::echo().on_open(|conn, _| conn.set_frame(LINE)).on_data(|conn, _, data| {
        bracket(conn, data);
        let next = if data == b"\n" { Frame::AtLeast(4) } else { LINE };
        conn.set_frame(next).unwrap();
    });
    let server = serve(config.options(), handler);
    let mut client = server.client();
    client.write_all(b"head\n\nbody\nof").unwrap();
    let answer = b"<head\n><\n><body\nof>";
    assert_eq!(read(&client, answer.len()), answer);
    client.write_all(b"\nabc").unwrap();
    assert_eq!(read(&client, 3), b"<\n>");
    client.write_all(b"d").unwrap();
    assert_eq!(read(&client, 6), b"<abcd>");
    drop(client);
    server.stop_and_check();
}

fn what_is_left_at_the_end_comes_before_it(config: Config) {
    for frame in [LINE, Frame::Exactly(4)] {
        let handler = TestHandler::echo()
            .on_open(move |conn, _| conn.set_frame(frame))
            .on_data(|conn, log, data| {
                log.value(i64::from(conn.has_ended()));
                bracket(conn, data);
            })
            .on_end(|conn, _| {
                conn.write(b"end").unwrap();
                conn.close();
            });
        let server = serve(config.options(), handler);
        for (sent, answer, ended) in [("one\ntwo", "<one\n><two>end", 1), ("one\n", "<one\n>end", 0)] {
            let mut client = server.client();
            client.write_all(sent.as_bytes()).unwrap();
            assert_eq!(read(&client, 6), b"<one\n>");
            end(&client);
            assert_eq!(read_to_end(&client), &answer.as_bytes()[6..]);
            assert_eq!(server.values(&client, 1 + ended), [0, 1][..=ended]);
        }
        server.stop_and_check();
    }
}

fn a_line_that_is_too_long_ends_the_connection(config: Config) {
    let server = serve(config.options(), brackets(Frame::Until { delimiter: b"\n", max: 6 }));
    for (sent, answer) in [
        (vec!["12345\n123456\n"], "<12345\n>"),
        (vec!["12345\n1234567"], "<12345\n>"),
        (vec!["123", "45\n123", "456"], "<12345\n>"),
        (vec!["123", "456\n"], ""),
    ] {
        let mut client = server.client();
        let port = port_of(&client);
        for part in sent {
            // In one piece, or one after another.
            client.write_all(part.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(server.expect_of(port, Callback::Close).value, i64::from(libc::EMSGSIZE));
        assert_eq!(read(&client, answer.len()), answer.as_bytes());
    }
    server.stop_and_check();
}

/// Goes on with a connection from another thread, a little later.
fn resume_later(conn: &mut Conn<'_>) {
    let id = conn.id();
    conn.pause();
    std::thread::spawn(move || id.resume());
}

fn a_pause_holds_the_rest_of_a_batch(config: Config) {
    let handler = TestHandler::echo().on_open(|conn, _| conn.set_frame(LINE)).on_data(|conn, _, data| {
        assert!(!conn.is_paused());
        bracket(conn, data);
        resume_later(conn);
    });
    let server = serve(config.options(), handler);
    let client = server.client();
    let sender = send_meanwhile(&client, lines(b"\n").concat());
    let expected = bracketed(&lines(b"\n"));
    assert!(read(&client, expected.len()) == expected, "other frames than were sent");
    sender.join().unwrap();
    drop(client);
    server.stop_and_check();
}

fn back_pressure_holds_the_rest_of_a_batch(config: Config) {
    const ANSWER: usize = 50_000;
    let handler = TestHandler::echo().on_open(|conn, _| conn.set_frame(LINE)).on_data(|conn, log, data| {
        keep_small(conn);
        assert_eq!(data, b"more\n");
        let queued = conn.write(&[b'x'; ANSWER]).unwrap();
        log.value(queued as i64);
    });
    let server = serve(config.options().water_marks(10_000, 100_000), handler);
    let mut client = crate::client::small(server.address());
    client.write_all(&b"more\n".repeat(40)).unwrap();
    assert!(read(&client, 40 * ANSWER).iter().all(|&byte| byte == b'x'));
    let queued = server.values(&client, 40);
    assert!(queued.iter().all(|&queued| queued <= 100_000 + ANSWER as i64), "{queued:?}");
    drop(client);
    server.stop_and_check();
}

fn the_end_waits_for_frames_that_are_held(config: Config) {
    let handler = TestHandler::echo().on_open(|conn, _| conn.set_frame(LINE)).on_data(|conn, _, data| {
        bracket(conn, data);
        if !conn.has_ended() {
            resume_later(conn);
        }
    });
    let server = serve(config.options(), handler);
    let mut client = server.client();
    client.write_all(b"one\ntwo\nthree\nrest").unwrap();
    end(&client);
    assert_eq!(read_to_end(&client), b"<one\n><two\n><three\n><rest>");
    let port = port_of(&client);
    drop(client);
    assert_eq!(server.expect_of(port, Callback::Close).value, 0);
    server.stop_and_check();
}

fn nothing_follows_a_close(config: Config) {
    let ways: [fn(&mut Conn<'_>); 2] = [|conn| conn.close(), |conn| conn.abort()];
    for (close, error) in ways.into_iter().zip([0, libc::ECONNABORTED]) {
        let handler =
            TestHandler::echo().on_open(|conn, _| conn.set_frame(LINE)).on_data(move |conn, log, data| {
                log.value(data.len() as i64);
                if data == b"last\n" {
                    close(conn);
                }
            });
        let server = serve(config.options(), handler);
        let mut client = server.client();
        client.write_all(b"a\nlast\nanother\nrest").unwrap();
        let _ = client.shutdown(std::net::Shutdown::Write);
        assert_eq!(server.expect(&client, Callback::Close).value, i64::from(error));
        assert_eq!(server.values(&client, 2), [2, 5]);
        if error == 0 {
            expect_end(&client);
        }
        let log = server.stop_and_check().log.of(port_of(&client));
        assert_eq!(log.iter().filter(|entry| entry.callback == Callback::Data).count(), 2, "{log:#?}");
        assert!(log.iter().all(|entry| entry.callback != Callback::End), "{log:#?}");
    }
}

fn a_panic_in_a_batch_ends_the_connection(config: Config) {
    let handler = TestHandler::echo().on_open(|conn, _| conn.set_frame(LINE)).on_data(|conn, _, data| {
        assert_ne!(data, b"panic\n", "as the test wants it");
        bracket(conn, data);
    });
    let server = serve(config.options(), handler);
    let (mut client, mut witness) = (server.client(), server.client());
    client.write_all(b"a\npanic\nb\n").unwrap();
    assert_eq!(server.expect(&client, Callback::Close).value, i64::from(libc::ENOTRECOVERABLE));
    witness.write_all(b"still here\n").unwrap();
    assert_eq!(read(&witness, 13), b"<still here\n>");
    drop(witness);
    server.stop_and_check();
}

fn another_frame_counts_for_what_is_kept(config: Config) {
    for (frame, answer) in [
        (Frame::Any, "<four>"),
        (Frame::Exactly(2), "<fo><ur>"),
        (Frame::Until { delimiter: b"o", max: 9 }, "<fo>"),
    ] {
        let handler = brackets(LINE)
            .on_data(|conn, _, data| {
                bracket(conn, data);
                let id = conn.id();
                if data == b"set\n" {
                    std::thread::spawn(move || id.post(1));
                }
            })
            .on_post(move |conn, _, _| conn.set_frame(frame).unwrap());
        let server = serve(config.options(), handler);
        let mut client = server.client();
        client.write_all(b"set\nfour").unwrap();
        assert_eq!(read(&client, 6), b"<set\n>");
        assert_eq!(read(&client, answer.len()), answer.as_bytes());
        client.write_all(b"ono").unwrap();
        let next = if frame == Frame::Any { "<ono>" } else { "<on>" };
        let next = if matches!(frame, Frame::Until { .. }) { "<uro>" } else { next };
        assert_eq!(read(&client, next.len()), next.as_bytes());
        drop(client);
        server.stop_and_check();
    }
}

fn frames_are_given_up(config: Config) {
    // What follows the last line comes as it arrives.
    let handler = brackets(LINE).on_data(|conn, _, data| {
        bracket(conn, data);
        if data == b"\n" {
            conn.set_frame(Frame::Any).unwrap();
            resume_later(conn);
        }
    });
    let server = serve(config.options(), handler);
    let mut client = server.client();
    client.write_all(b"head\n\nbody\nof\n").unwrap();
    let answer = b"<head\n><\n><body\nof\n>";
    assert_eq!(read(&client, answer.len()), answer);
    client.write_all(b"no line").unwrap();
    assert_eq!(read(&client, 9), b"<no line>");
    drop(client);
    server.stop_and_check();
}

fn what_is_no_frame_is_refused(config: Config) {
    let handler = TestHandler::echo().on_open(|conn, log| {
        for frame in [
            Frame::Exactly(0),
            Frame::AtLeast(0),
            Frame::Until { delimiter: b"", max: 10 },
            Frame::Until { delimiter: b"12345", max: 10 },
            Frame::Until { delimiter: b"\r\n", max: 1 },
        ] {
            log.value(i64::from(conn.set_frame(frame).unwrap_err().raw_os_error().unwrap()));
        }
        Ok(())
    });
    let server = serve(config.options(), handler);
    let client = server.client();
    crate::client::exchange(&client, b"as it comes");
    assert_eq!(server.values(&client, 5), [i64::from(libc::EINVAL); 5]);
    drop(client);
    server.stop_and_check();
}
