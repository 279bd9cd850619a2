//! The face by handler.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use omnipoll::{Conn, ConnId, EngineKind, Event, EventKind, EventLoop, Handler, LoopOptions, LoopRef};

use crate::client::{read, with_timeouts};
use crate::suite::Suite;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(connections_of_a_loop_reach_each_other_at_once);
    suite.on_each_engine(events_of_the_program_reach_connections);
    suite.on_each_engine(a_panic_costs_one_event);
    suite.on_each_engine(run_once_returns_after_one_wait);
}

fn loop_of<H: Handler>(engine: EngineKind, handler: H) -> (EventLoop<H>, String) {
    let mut event_loop = EventLoop::with_options(handler, LoopOptions::new().engine(engine)).expect("a loop");
    let address = event_loop.listen("127.0.0.1:0", 1).expect("listen");
    (event_loop, address)
}

/// Sends what one says to all the others, at once.
#[derive(Default)]
struct Chat {
    members: RefCell<Vec<ConnId>>,
    /// What each write to another has returned.
    queued: RefCell<Vec<usize>>,
}

impl Handler for Chat {
    type State = ();

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
        assert_eq!(conn.token(), 1);
        self.members.borrow_mut().push(conn.id());
        Ok(())
    }

    fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) {
        let own = conn.id();
        for &id in self.members.borrow().iter().filter(|&&id| id != own) {
            let mut other = conn.other(id).expect("a member");
            self.queued.borrow_mut().push(other.write(data).expect("write"));
        }
        if data == b"stop" {
            conn.event_loop().stop(Some(Duration::ZERO)).expect("stop");
        }
    }

    fn on_close(&self, conn: &mut Conn<'_>, _: (), _: Option<io::Error>) {
        self.members.borrow_mut().retain(|&id| id != conn.id());
        assert!(conn.other(ConnId::from_number(3)).is_err(), "there is no such connection");
    }
}

fn connections_of_a_loop_reach_each_other_at_once(engine: EngineKind) {
    let (mut event_loop, address) = loop_of(engine, Chat::default());
    let clients = thread::spawn(move || {
        let clients: Vec<_> =
            (0..3).map(|_| with_timeouts(TcpStream::connect(&address).expect("connect"))).collect();
        // All are there when each has been heard.
        for (at, mut speaker) in clients.iter().enumerate() {
            loop {
                speaker.write_all(b"hello").unwrap();
                let mut word = [0; 5];
                let other = &clients[(at + 1) % 3];
                other.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                if (&*other).read_exact(&mut word).is_ok() {
                    break assert_eq!(&word, b"hello");
                }
            }
        }
        (&clients[0]).write_all(b"stop").unwrap();
        clients
    });
    event_loop.run().expect("run");
    drop(clients.join().unwrap());
    let queued = event_loop.handler().queued.borrow();
    assert!(!queued.is_empty());
    if engine != EngineKind::IoUring {
        assert!(queued.iter().all(|&queued| queued == 0), "sent at once");
    }
}

/// Writes to its connection each time that a timer expires.
#[derive(Default)]
struct Beat {
    conn: Cell<Option<ConnId>>,
}

impl Handler for Beat {
    type State = ();

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
        self.conn.set(Some(conn.id()));
        conn.event_loop().poller().timer_add(Duration::from_millis(1), Some(Duration::from_millis(1)), 5)?;
        Ok(())
    }

    fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), _: &[u8]) {
        conn.event_loop().stop(Some(Duration::ZERO)).expect("stop");
    }

    fn on_event(&self, event_loop: &mut LoopRef<'_>, event: &Event) {
        assert_eq!((event.kind(), event.token()), (EventKind::Timer, 5));
        let id = self.conn.get().expect("a connection");
        event_loop.conn(id).expect("it is open").write(b".").expect("write");
    }
}

fn events_of_the_program_reach_connections(engine: EngineKind) {
    let (mut event_loop, address) = loop_of(engine, Beat::default());
    let client = thread::spawn(move || {
        let mut client = with_timeouts(TcpStream::connect(address).expect("connect"));
        assert_eq!(read(&client, 5), b".....");
        client.write_all(b"enough").unwrap();
    });
    event_loop.run().expect("run");
    client.join().unwrap();
}

struct Panics(Cell<u32>);

impl Handler for Panics {
    type State = ();

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
        Ok(())
    }

    fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}

    fn on_event(&self, event_loop: &mut LoopRef<'_>, _: &Event) {
        self.0.set(self.0.get() + 1);
        if self.0.get() == 2 {
            event_loop.stop(None).expect("stop");
        }
        panic!("the handler's own fault");
    }
}

fn a_panic_costs_one_event(engine: EngineKind) {
    std::panic::set_hook(Box::new(|_| {}));
    let (mut event_loop, _) = loop_of(engine, Panics(Cell::new(0)));
    for value in 0..2 {
        event_loop.poller().post(1, value).unwrap();
    }
    event_loop.run().expect("run");
    assert_eq!(event_loop.handler().0.get(), 2);
}

fn run_once_returns_after_one_wait(engine: EngineKind) {
    let (mut event_loop, _) = loop_of(engine, Panics(Cell::new(7)));
    assert!(event_loop.run_once(Some(Duration::ZERO)).unwrap());
    event_loop.handle().stop(None).unwrap();
    while event_loop.run_once(None).unwrap() {}
    assert!(!event_loop.run_once(None).unwrap(), "it has ended");
}
