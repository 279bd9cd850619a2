//! Broadcasts of one loop: to all its connections, to all but one, and to groups.

use std::thread;

use omnipoll::{EngineKind, LoopEventKind, LoopOptions};

use crate::client::read;
use crate::running::Listening;
use crate::suite::Suite;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(a_broadcast_reaches_all_or_all_but_one);
    suite.on_each_engine(a_broadcast_reaches_a_group);
    suite.on_each_engine(loops_have_groups_of_their_own);
    suite.on_each_engine(a_broadcast_above_the_high_mark_is_drained);
}

fn a_broadcast_reaches_all_or_all_but_one(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let handle = listening.event_loop.handle();
    assert_eq!(handle.broadcast(b"nobody").unwrap(), 0);
    let clients = [(); 3].map(|()| listening.client());
    // From another thread.
    let except = clients[0].1;
    thread::spawn(move || {
        assert_eq!(handle.broadcast(b"all").unwrap(), 3);
        assert_eq!(handle.broadcast_except(b"one", except).unwrap(), 2);
    })
    .join()
    .unwrap();
    listening.while_running(|| {
        assert_eq!(read(&clients[0].0, 3), b"all");
        assert_eq!(read(&clients[1].0, 6), b"allone");
        assert_eq!(read(&clients[2].0, 6), b"allone");
    });
    let handle = listening.event_loop.handle();
    drop(listening);
    assert_eq!(handle.broadcast(b"nobody").unwrap(), 0, "the loop is gone");
}

fn a_broadcast_reaches_a_group(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let handle = listening.event_loop.handle();
    let clients = [(); 3].map(|()| listening.client());
    // By the connection itself between two waits, and by its id.
    listening.event_loop.conn(clients[0].1).unwrap().join("a").unwrap();
    clients[1].1.join("a").unwrap();
    assert_eq!(handle.broadcast_to("a", b"group", None).unwrap(), 2);
    assert_eq!(handle.broadcast_to("a", b" but", Some(clients[0].1)).unwrap(), 1);
    assert_eq!(handle.broadcast_to("b", b"nobody", None).unwrap(), 0);
    assert_eq!(handle.broadcast_to("", b"x", None).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    assert_eq!(handle.broadcast(b".").unwrap(), 3);
    listening.while_running(|| {
        assert_eq!(read(&clients[0].0, 6), b"group.");
        assert_eq!(read(&clients[1].0, 10), b"group but.");
        assert_eq!(read(&clients[2].0, 1), b".");
    });
    let [first, ..] = clients;
    listening.event_loop.conn(first.1).unwrap().abort();
    assert_eq!(listening.next(LoopEventKind::Closed).conn(), first.1);
    assert_eq!(handle.broadcast_to("a", b"again", None).unwrap(), 1);
}

fn loops_have_groups_of_their_own(engine: EngineKind) {
    let mut loops = [Listening::new(engine), Listening::new(engine)];
    let clients = [0, 1].map(|number| {
        let client = loops[number].client();
        client.1.join("a").unwrap();
        client
    });
    assert_eq!(loops[0].event_loop.handle().broadcast_to("a", b"first", None).unwrap(), 1);
    assert_eq!(loops[1].event_loop.handle().broadcast(b"second").unwrap(), 1);
    loops[0].while_running(|| assert_eq!(read(&clients[0].0, 5), b"first"));
    loops[1].while_running(|| assert_eq!(read(&clients[1].0, 6), b"second"));
}

fn a_broadcast_above_the_high_mark_is_drained(engine: EngineKind) {
    let mut listening = Listening::with_options(LoopOptions::new().engine(engine).water_marks(10, 1000));
    let (client, id) = listening.client();
    let handle = listening.event_loop.handle();
    // The kernel takes all of it at once.
    assert_eq!(handle.broadcast(&[b'x'; 1001]).unwrap(), 1);
    assert_eq!(listening.next(LoopEventKind::Drained).conn(), id);
    assert_eq!(read(&client, 1001).len(), 1001);
}
