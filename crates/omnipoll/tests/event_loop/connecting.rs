//! Connections out, as the loop returns them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use omnipoll::{ConnectOptions, EngineKind, LoopEvent, LoopEventKind, LoopOptions, PulledLoop};

use crate::running::Listening;
use crate::suite::Suite;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(what_was_written_before_is_sent_when_it_is_open);
    suite.on_each_engine(a_refused_connection_is_closed_with_words);
    suite.on_each_engine(one_that_is_closed_before_it_opens);
    suite.on_each_engine(a_loop_connects_to_itself);
    suite.on_each_engine(a_stop_without_time_ends_what_is_connecting);
}

fn what_was_written_before_is_sent_when_it_is_open(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let id = listening.event_loop.connect(&address, &ConnectOptions::new(), 77).unwrap();
    id.write(b"a greeting").unwrap();
    id.post(5).unwrap();
    let connected = listening.next(LoopEventKind::Connected);
    assert_eq!((connected.conn(), connected.token()), (id, 77));
    let posted = listening.next(LoopEventKind::ConnPost);
    assert_eq!((posted.conn(), posted.token(), posted.posted()), (id, 77, 5));
    let mut conn = listening.event_loop.conn(id).unwrap();
    assert!(conn.is_outgoing());
    assert_eq!(conn.peer().to_string(), address);
    conn.write(b" and more").unwrap();
    listening.while_running(move || {
        let mut word = [0; 19];
        let mut served = server.accept().unwrap().0;
        served.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"a greeting and more");
        served.write_all(b"welcome").unwrap();
    });
    let ended = listening.next(LoopEventKind::Ended);
    assert_eq!(ended.conn(), id);
    listening.event_loop.conn(id).unwrap().close();
    assert!(listening.next(LoopEventKind::Closed).error().is_none());
}

fn a_refused_connection_is_closed_with_words(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let id = listening.event_loop.connect(&nobody, &ConnectOptions::new(), 7).unwrap();
    let closed = listening.next(LoopEventKind::Closed);
    assert_eq!((closed.conn(), closed.token()), (id, 7));
    assert_eq!(closed.error().unwrap().raw_os_error(), Some(libc::ECONNREFUSED));
    let words = String::from_utf8(listening.event_loop.data(&closed).to_vec()).unwrap();
    assert!(words.contains(&nobody), "{words}");
    assert_eq!(id.write(b"x").unwrap_err().raw_os_error(), Some(libc::ESTALE));
}

fn one_that_is_closed_before_it_opens(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    for end in [omnipoll::ConnId::close, omnipoll::ConnId::abort] {
        let id = listening.event_loop.connect(&address, &ConnectOptions::new(), 7).unwrap();
        end(id).unwrap();
        // It may have been open before the loop heard of it.
        let closed = listening.next(LoopEventKind::Closed);
        assert_eq!(closed.conn(), id);
    }
}

fn a_loop_connects_to_itself(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let address = listening.address.to_string();
    let ids: Vec<_> = (0..500)
        .map(|token| listening.event_loop.connect(&address, &ConnectOptions::new(), token).unwrap())
        .collect();
    let mut connected: Vec<_> = ids.iter().map(|_| listening.next(LoopEventKind::Connected)).collect();
    connected.sort_by_key(LoopEvent::token);
    assert!(connected.iter().map(LoopEvent::conn).eq(ids.iter().copied()));
    for &id in &ids {
        listening.event_loop.conn(id).unwrap().write(b"x").unwrap();
    }
    for _ in &ids {
        let data = listening.next(LoopEventKind::Data);
        assert_eq!(data.token(), 1, "the accepted side's");
    }
}

fn a_stop_without_time_ends_what_is_connecting(engine: EngineKind) {
    let mut event_loop = PulledLoop::with_options(LoopOptions::new().engine(engine)).unwrap();
    // A queue that is full, so that the system answers no more.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap().to_string();
    let ids: Vec<_> =
        (0..8).map(|token| event_loop.connect(&address, &ConnectOptions::new(), token).unwrap()).collect();
    let mut events = [LoopEvent::default(); 64];
    event_loop.wait(&mut events, Some(Duration::ZERO)).unwrap();
    event_loop.handle().stop(Some(Duration::ZERO)).unwrap();
    let mut closed = Vec::new();
    loop {
        let count = event_loop.wait(&mut events, None).unwrap();
        if count == 0 {
            break;
        }
        closed.extend(events[..count].iter().filter(|event| event.kind() == LoopEventKind::Closed).copied());
    }
    assert_eq!(closed.len(), ids.len());
    assert!(
        closed.iter().all(|it| it.error().unwrap().raw_os_error() == Some(libc::ECANCELED)),
        "{closed:?}"
    );
}
