//! Frames and timers of connections, pulled: each frame is an event.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use omnipoll::{ConnId, EngineKind, Frame, LoopEvent, LoopEventKind};

use crate::client::{pattern, read, read_to_end, send_meanwhile};
use crate::running::Listening;
use crate::suite::Suite;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(each_frame_is_an_event);
    suite.on_each_engine(more_frames_than_the_buffer_has_room_for);
    suite.on_each_engine(the_longest_frame_fills_the_buffer);
    suite.on_each_engine(at_least_so_many_bytes_fit_the_buffer);
    suite.on_each_engine(the_next_frame_may_be_set_after_a_wait);
    suite.on_each_engine(a_relay_begins_after_a_line);
    suite.on_each_engine(a_timer_is_an_event);
}

const LINE: Frame<'_> = Frame::Until { delimiter: b"\n", max: 1000 };
/// The size of a pulled loop's buffer.
const BUFFER: usize = 256 << 10;

/// The bytes of the connection's next event, which is DATA.
fn next_frame(listening: &mut Listening, id: ConnId) -> Vec<u8> {
    let event = listening.next(LoopEventKind::Data);
    assert_eq!(event.conn(), id);
    listening.event_loop.data(&event).to_vec()
}

fn each_frame_is_an_event(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let (mut client, id) = listening.client();
    listening.event_loop.conn(id).unwrap().set_frame(LINE).unwrap();
    client.write_all(b"one\ntwo\nre").unwrap();
    assert_eq!(next_frame(&mut listening, id), b"one\n");
    assert_eq!(next_frame(&mut listening, id), b"two\n");
    client.write_all(b"st").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(next_frame(&mut listening, id), b"rest");
    assert_eq!(listening.next(LoopEventKind::Ended).conn(), id);
}

fn more_frames_than_the_buffer_has_room_for(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let clients: Vec<_> = (0..10).map(|_| listening.client()).collect();
    let lines: Vec<_> = (0..2000).map(|number| format!("{number:>99}\n").into_bytes()).collect();
    let mut expected: Vec<_> = clients.iter().map(|(_, id)| (*id, lines.iter())).collect();
    let senders: Vec<_> = clients.iter().map(|(client, _)| send_meanwhile(client, lines.concat())).collect();
    for (_, id) in &clients {
        listening.event_loop.conn(*id).unwrap().set_frame(LINE).unwrap();
    }
    for _ in 0..clients.len() * lines.len() {
        let event = listening.next(LoopEventKind::Data);
        let (_, lines) = expected.iter_mut().find(|(id, _)| *id == event.conn()).expect("a client's");
        assert_eq!(Some(&listening.event_loop.data(&event).to_vec()), lines.next());
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
}

fn the_longest_frame_fills_the_buffer(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let (client, id) = listening.client();
    let mut conn = listening.event_loop.conn(id).unwrap();
    assert_eq!(conn.set_frame(Frame::Exactly(BUFFER + 1)).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    conn.set_frame(Frame::Exactly(BUFFER)).unwrap();
    let sent = pattern(3, 3 * BUFFER + 5);
    let sender = send_meanwhile(&client, sent.clone());
    for frame in sent.chunks_exact(BUFFER) {
        assert!(next_frame(&mut listening, id) == frame, "a frame arrived differently");
    }
    sender.join().unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(next_frame(&mut listening, id), sent[3 * BUFFER..]);
    listening.next(LoopEventKind::Ended);
}

fn at_least_so_many_bytes_fit_the_buffer(engine: EngineKind) {
    const SHARE: usize = BUFFER / 2 + 1;
    let mut listening = Listening::new(engine);
    let (client, id) = listening.client();
    let mut conn = listening.event_loop.conn(id).unwrap();
    assert_eq!(conn.set_frame(Frame::AtLeast(BUFFER + 1)).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    conn.set_frame(Frame::AtLeast(SHARE)).unwrap();
    let sent = pattern(4, 5 * BUFFER);
    let sender = send_meanwhile(&client, sent.clone());
    let mut received = Vec::new();
    while received.len() + SHARE <= sent.len() {
        let frame = next_frame(&mut listening, id);
        assert!((SHARE..=BUFFER).contains(&frame.len()), "a frame of {} bytes", frame.len());
        received.extend(frame);
    }
    sender.join().unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    while received.len() < sent.len() {
        received.extend(next_frame(&mut listening, id));
    }
    assert!(received == sent, "other bytes than were sent");
    listening.next(LoopEventKind::Ended);
}

fn the_next_frame_may_be_set_after_a_wait(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let (mut client, id) = listening.client();
    listening.event_loop.conn(id).unwrap().set_frame(LINE).unwrap();
    client.write_all(b"head\nabcdefg").unwrap();
    assert_eq!(next_frame(&mut listening, id), b"head\n");
    listening.event_loop.conn(id).unwrap().set_frame(Frame::Exactly(5)).unwrap();
    assert_eq!(next_frame(&mut listening, id), b"abcde");
    listening.event_loop.conn(id).unwrap().set_frame(Frame::Any).unwrap();
    assert_eq!(next_frame(&mut listening, id), b"fg");
    client.write_all(b"as it comes").unwrap();
    assert_eq!(next_frame(&mut listening, id), b"as it comes");
}

fn a_relay_begins_after_a_line(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let [(mut client, from), (backend, to)] = [listening.client(), listening.client()];
    listening.event_loop.conn(from).unwrap().set_frame(LINE).unwrap();
    client.write_all(b"CONNECT backend\n").unwrap();
    assert_eq!(next_frame(&mut listening, from), b"CONNECT backend\n");
    let mut conn = listening.event_loop.conn(from).unwrap();
    conn.set_frame(Frame::Exactly(100)).unwrap();
    client.write_all(b"hello\nwor").unwrap();
    // It is read, and kept.
    let count = listening.event_loop.wait(&mut [LoopEvent::default()], Some(Duration::from_millis(20)));
    assert_eq!(count.unwrap(), 0);
    listening.event_loop.conn(from).unwrap().relay_to(to).unwrap();
    listening.event_loop.conn(from).unwrap().set_frame(Frame::Any).unwrap();
    listening.while_running(move || {
        assert_eq!(read(&backend, 9), b"hello\nwor");
        client.write_all(b"ld\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&backend), b"ld\n");
    });
}

fn a_timer_is_an_event(engine: EngineKind) {
    const DELAY: Duration = Duration::from_millis(20);
    let mut listening = Listening::new(engine);
    let (_client, id) = listening.client();
    let begun = Instant::now();
    listening.event_loop.conn(id).unwrap().set_timer(Some(DELAY)).unwrap();
    assert_eq!(listening.next(LoopEventKind::ConnTimer).conn(), id);
    assert!(begun.elapsed() >= DELAY, "it came after {:?}", begun.elapsed());
}
