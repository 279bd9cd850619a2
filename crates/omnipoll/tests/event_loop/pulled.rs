//! The pulled face: what a wait returns.

use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use omnipoll::{EngineKind, LoopEvent, LoopEventKind, LoopOptions, PulledLoop};

use crate::client::{exchange, expect_end, expect_reset, pattern, read, read_to_end, send_meanwhile, small};
use crate::running::{Listening, LONG};
use crate::suite::Suite;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(a_connection_from_its_begin_to_its_end);
    suite.on_each_engine(many_clients_are_served_by_few_events_at_a_time);
    suite.on_each_engine(what_does_not_fit_the_buffer_comes_with_the_next_wait);
    suite.on_each_engine(an_end_comes_after_the_last_bytes_where_the_buffer_is_full);
    suite.on_each_engine(a_wait_ends_at_its_time);
    suite.on_each_engine(the_high_mark_and_the_low_one);
    suite.on_each_engine(a_reset_is_reported_with_its_words);
    suite.on_each_engine(other_threads_reach_a_connection_by_its_id);
    suite.on_each_engine(what_another_thread_writes_comes_behind_what_waits);
    suite.on_each_engine(other_threads_shut_down_and_limit_a_connection);
    suite.on_each_engine(a_stop_ends_the_loop_when_its_connections_have_ended);
    suite.on_each_engine(a_stop_resets_what_is_left_in_the_end);
    suite.on_each_engine(a_dropped_loop_leaves_nothing);
    suite.on_each_engine(a_forked_child_has_no_loop);
    suite.once(options_that_make_no_sense);
}

fn a_connection_from_its_begin_to_its_end(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let (mut client, id) = listening.client();
    listening.event_loop.conn(id).unwrap().set_token(42);
    client.write_all(b"hello").unwrap();
    let data = listening.next(LoopEventKind::Data);
    assert_eq!((data.conn(), data.token()), (id, 42));
    assert_eq!(&*listening.event_loop.data(&data), b"hello");
    let mut conn = listening.event_loop.conn(id).unwrap();
    assert!(!conn.is_outgoing());
    conn.write(b"welcome").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(listening.next(LoopEventKind::Ended).conn(), id);
    listening.event_loop.conn(id).unwrap().close();
    let reading = thread::spawn(move || read_to_end(&client));
    let closed = listening.next(LoopEventKind::Closed);
    assert_eq!((closed.conn(), closed.token()), (id, 42));
    assert!(closed.error().is_none() && listening.event_loop.data(&closed).is_empty());
    assert_eq!(reading.join().unwrap(), b"welcome");
    let stale = listening.event_loop.conn(id).map(drop).unwrap_err();
    assert_eq!(stale.raw_os_error(), Some(libc::ESTALE));
}

/// Echoes until a post comes.
fn echo(listening: &mut Listening, capacity: usize) {
    let mut events = vec![LoopEvent::default(); capacity];
    loop {
        let count = listening.event_loop.wait(&mut events, Some(LONG)).expect("wait");
        assert!(count > 0, "nothing happens");
        for event in &events[..count] {
            match event.kind() {
                LoopEventKind::Data => {
                    let data = listening.event_loop.data(event).to_vec();
                    // The client may have gone.
                    if let Ok(mut conn) = listening.event_loop.conn(event.conn()) {
                        let _ = conn.write(&data);
                    }
                }
                LoopEventKind::Ended => listening.event_loop.conn(event.conn()).unwrap().close(),
                LoopEventKind::Post => return,
                _ => {}
            }
        }
    }
}

fn with_echo<T: Send>(listening: &mut Listening, capacity: usize, clients: impl FnOnce() -> T + Send) -> T {
    let handle = listening.event_loop.handle();
    thread::scope(|scope| {
        let clients = scope.spawn(move || {
            let result = clients();
            handle.poller().post(1, 1).expect("post");
            result
        });
        echo(listening, capacity);
        clients.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn many_clients_are_served_by_few_events_at_a_time(engine: EngineKind) {
    for capacity in [1, 3, 256] {
        let mut listening = Listening::new(engine);
        let address = listening.address;
        with_echo(&mut listening, capacity, move || {
            let clients: Vec<_> = (0..40).map(|_| small(address)).collect();
            for round in 0..5 {
                let words: Vec<_> = (0..clients.len()).map(|at| pattern(at + round, 50)).collect();
                clients.iter().zip(&words).for_each(|(mut client, words)| client.write_all(words).unwrap());
                clients.iter().zip(&words).for_each(|(client, words)| assert_eq!(&read(client, 50), words));
            }
        });
    }
}

fn what_does_not_fit_the_buffer_comes_with_the_next_wait(engine: EngineKind) {
    const EACH: usize = 1 << 20;
    let mut listening = Listening::new(engine);
    let clients: Vec<_> = (0..12).map(|_| listening.client().0).collect();
    with_echo(&mut listening, 64, move || {
        let data: Vec<_> = (0..clients.len()).map(|seed| pattern(seed, EACH)).collect();
        let sending: Vec<_> =
            clients.iter().zip(&data).map(|(client, data)| send_meanwhile(client, data.clone())).collect();
        thread::scope(|scope| {
            for (client, data) in clients.iter().zip(&data) {
                scope.spawn(move || assert!(&read(client, EACH) == data, "the echo differs"));
            }
        });
        sending.into_iter().for_each(|sending| sending.join().unwrap());
    });
}

fn an_end_comes_after_the_last_bytes_where_the_buffer_is_full(engine: EngineKind) {
    const COUNT: usize = 16;
    const EACH: usize = 200 << 10;
    let mut listening = Listening::new(engine);
    let mut clients: Vec<_> = (0..COUNT)
        .map(|seed| {
            let (client, id) = listening.client();
            listening.event_loop.conn(id).unwrap().set_token(seed as u64);
            client
        })
        .collect();
    let mut sent = Vec::new();
    for (seed, client) in clients.iter_mut().enumerate() {
        // As much as there is room for in the socket, and so at once.
        client.set_nonblocking(true).unwrap();
        sent.push(client.write(&pattern(seed, EACH)).unwrap());
        client.shutdown(Shutdown::Write).unwrap();
    }
    let mut received = vec![Vec::new(); COUNT];
    let mut ended = 0;
    let mut events = [LoopEvent::default(); 64];
    while ended < COUNT {
        let count = listening.event_loop.wait(&mut events, Some(LONG)).unwrap();
        assert!(count > 0, "nothing happens");
        for event in &events[..count] {
            let seed = event.token() as usize;
            match event.kind() {
                LoopEventKind::Data => {
                    received[seed].extend_from_slice(&listening.event_loop.data(event));
                }
                LoopEventKind::Ended => {
                    ended += 1;
                    let whole = &pattern(seed, EACH)[..sent[seed]];
                    assert!(received[seed] == whole, "{} of {} bytes", received[seed].len(), whole.len());
                }
                kind => panic!("{kind:?}"),
            }
        }
    }
}

fn a_wait_ends_at_its_time(engine: EngineKind) {
    let mut event_loop = PulledLoop::with_options(LoopOptions::new().engine(engine)).unwrap();
    let mut events = [LoopEvent::default(); 4];
    assert_eq!(event_loop.wait(&mut events, Some(Duration::ZERO)).unwrap(), 0);
    let begun = Instant::now();
    // A wake is the loop's own business.
    event_loop.handle().poller().wake().unwrap();
    assert_eq!(event_loop.wait(&mut events, Some(Duration::from_millis(30))).unwrap(), 0);
    assert!(begun.elapsed() >= Duration::from_millis(30), "it ended early");
    let error = event_loop.wait(&mut [], None).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
}

fn the_high_mark_and_the_low_one(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let client = small(listening.address);
    let id = listening.next(LoopEventKind::Accepted).conn();
    crate::client::keep_small(&listening.event_loop.conn(id).unwrap());
    let data = pattern(5, 1 << 20);
    let queued = listening.event_loop.conn(id).unwrap().write(&data).unwrap();
    assert!(queued > 64 << 10, "{queued} bytes are queued");
    let expected = data.clone();
    let reading = thread::spawn(move || assert!(read(&client, expected.len()) == expected));
    assert_eq!(listening.next(LoopEventKind::Drained).conn(), id);
    assert!(listening.event_loop.conn(id).unwrap().queued() <= 16 << 10);
    listening.while_running(move || reading.join().unwrap());
}

fn a_reset_is_reported_with_its_words(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let (client, id) = listening.client();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let closed = listening.next(LoopEventKind::Closed);
    assert_eq!(closed.conn(), id);
    assert_eq!(closed.error().unwrap().raw_os_error(), Some(libc::ECONNRESET));
    assert!(!listening.event_loop.data(&closed).is_empty(), "words");
}

fn other_threads_reach_a_connection_by_its_id(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let (client, id) = listening.client();
    listening.while_running(move || {
        id.write(b"from a thread").unwrap();
        assert_eq!(read(&client, 13), b"from a thread");
        id.post(-7).unwrap();
        id.close().unwrap();
        expect_end(&client);
    });
    let posted = listening.next(LoopEventKind::ConnPost);
    assert_eq!((posted.conn(), posted.posted()), (id, -7));
}

/// Also when the socket has room again at that moment.
fn what_another_thread_writes_comes_behind_what_waits(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let client = small(listening.address);
    let id = listening.next(LoopEventKind::Accepted).conn();
    crate::client::keep_small(&listening.event_loop.conn(id).unwrap());
    let waiting = pattern(1, 256 << 10);
    let queued = listening.event_loop.conn(id).unwrap().write(&waiting).unwrap();
    assert!(queued > 0, "nothing waits");
    // All that the kernel has taken of it.
    let mut got = read(&client, waiting.len() - queued);
    id.write(b"behind").unwrap();
    got.extend(listening.while_running(move || read(&client, queued + 6)));
    assert!(got.starts_with(&waiting), "what waited comes in another order");
    assert_eq!(&got[waiting.len()..], b"behind");
}

fn other_threads_shut_down_and_limit_a_connection(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let (client, id) = listening.client();
    listening.while_running(move || {
        id.write(b"the last").unwrap();
        id.shutdown().unwrap();
        assert_eq!(id.write(b"x").unwrap_err().raw_os_error(), Some(libc::EPIPE));
        id.shutdown().unwrap();
        assert_eq!(read_to_end(&client), b"the last");
        // The other direction is open: its silence ends it.
        id.set_timeout(omnipoll::Timeout::Read, Some(Duration::from_millis(20))).unwrap();
        while id.is_open() {
            thread::yield_now();
        }
    });
    let closed = listening.next(LoopEventKind::Closed);
    assert_eq!(closed.error().and_then(|error| error.raw_os_error()), Some(libc::ETIMEDOUT));
}

fn a_stop_ends_the_loop_when_its_connections_have_ended(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let (client, id) = listening.client();
    exchange_once(&mut listening, &client);
    listening.event_loop.handle().stop(None).unwrap();
    assert_eq!(listening.next(LoopEventKind::Stopping).conn(), id);
    // No one else is let in.
    assert!(std::net::TcpStream::connect(listening.address).is_err());
    exchange_once(&mut listening, &client);
    listening.event_loop.conn(id).unwrap().close();
    let reading = thread::spawn(move || expect_end(&client));
    assert_eq!(listening.next(LoopEventKind::Closed).conn(), id);
    let mut events = [LoopEvent::default(); 4];
    assert_eq!(listening.event_loop.wait(&mut events, None).unwrap(), 0, "it has ended");
    assert_eq!(listening.event_loop.wait(&mut events, None).unwrap(), 0, "and stays so");
    let error = listening.event_loop.listen("127.0.0.1:0", 1).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    reading.join().unwrap();
}

fn exchange_once(listening: &mut Listening, client: &std::net::TcpStream) {
    let exchanging = client.try_clone().unwrap();
    with_echo(listening, 8, move || exchange(&exchanging, b"are you there?"));
}

fn a_stop_resets_what_is_left_in_the_end(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let (client, id) = listening.client();
    listening.event_loop.handle().stop(Some(Duration::from_millis(20))).unwrap();
    let closed = listening.next(LoopEventKind::Closed);
    assert_eq!(closed.conn(), id);
    assert_eq!(closed.error().unwrap().raw_os_error(), Some(libc::ECANCELED));
    let mut events = [LoopEvent::default(); 4];
    assert_eq!(listening.event_loop.wait(&mut events, None).unwrap(), 0, "it has ended");
    expect_reset(&client);
}

fn a_dropped_loop_leaves_nothing(engine: EngineKind) {
    // What the process opens once for all.
    drop(Listening::new(engine));
    let before = crate::support::sys::open_descriptors().len();
    let mut listening = Listening::new(engine);
    let (client, id) = listening.client();
    listening.event_loop.poller().timer_add(LONG, None, 1).unwrap();
    drop(listening);
    expect_reset(&client);
    assert_eq!(id.write(b"too late").unwrap_err().raw_os_error(), Some(libc::ESTALE));
    drop(client);
    assert_eq!(crate::support::sys::open_descriptors().len(), before);
}

fn a_forked_child_has_no_loop(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let (client, id) = listening.client();
    // SAFETY: the child only makes calls of the library, and ends.
    match unsafe { libc::fork() } {
        0 => {
            let mut events = [LoopEvent::default(); 4];
            let all = [
                listening.event_loop.wait(&mut events, Some(Duration::ZERO)).map(drop),
                listening.event_loop.conn(id).map(drop),
                listening.event_loop.listen("127.0.0.1:0", 1).map(drop),
                listening.event_loop.handle().stop(None),
                id.write(b"x").map(drop),
            ];
            let is_right = all
                .into_iter()
                .all(|result| result.is_err_and(|error| error.raw_os_error() == Some(libc::EOWNERDEAD)));
            drop(listening);
            // SAFETY: ends the process.
            unsafe { libc::_exit(i32::from(!is_right)) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: the status is writable.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            assert_eq!(status, 0, "the child got other errors");
        }
    }
    // The parent's is as it was.
    exchange_once(&mut listening, &client);
}

fn options_that_make_no_sense() {
    for options in [LoopOptions::new().max_clients(0), LoopOptions::new().water_marks(2, 1)] {
        let error = PulledLoop::with_options(options).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
