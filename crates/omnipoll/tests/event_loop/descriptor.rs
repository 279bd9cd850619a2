//! A loop in an outer loop: its descriptor is readable while there is something to do.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use omnipoll::{
    Conn, ConnId, ConnectOptions, EngineKind, Event, EventKind, EventLoop, Events, Handler, Interest,
    LoopEvent, LoopEventKind, LoopOptions, LoopRef, Poller, PulledLoop,
};

use crate::client::{exchange, keep_small, pattern, read, read_to_end, small, with_timeouts};
use crate::running::LONG;
use crate::suite::Suite;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(clients_are_served_by_handler);
    suite.on_each_engine(clients_are_served_by_few_events_at_a_time);
    suite.on_each_engine(events_of_the_program_make_it_readable);
    suite.on_each_engine(what_waits_to_be_sent_drains);
    suite.on_each_engine(a_write_of_another_thread_is_sent);
    suite.on_each_engine(what_is_done_between_waits_is_followed_up);
    suite.on_each_engine(many_come_and_are_ended_at_once);
    suite.on_each_engine(many_are_served_at_once_by_handler);
    suite.on_each_engine(connections_out_open_and_fail);
    suite.on_each_engine(timeouts_of_connections_pass);
    suite.on_each_engine(a_stop_ends_the_loop);
    suite.on_each_engine(two_loops_in_one_poll);
}

/// A descriptor that is readable for nothing more often than this is that of a loop that spins.
const MAX_FOR_NOTHING: usize = 8;

/// An outer loop, on poll(2) or epoll(7).
struct Outer(Poller);

impl Outer {
    fn new(kind: EngineKind, descriptor: io::Result<BorrowedFd<'_>>) -> Self {
        let outer = Poller::with_engine(kind).unwrap();
        outer.add(descriptor.expect("a descriptor"), Interest::READ, 1).unwrap();
        Self(outer)
    }

    fn is_readable(&self, timeout: Duration) -> bool {
        self.0.wait(&mut Events::with_capacity(1), Some(timeout)).unwrap() > 0
    }

    /// One step of the loop each time that it is readable, until `is_done`.
    #[track_caller]
    fn run(&self, mut step: impl FnMut(), mut is_done: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_done() {
            // A thread of the test may be what has to end.
            if self.is_readable(Duration::from_millis(20)) {
                step();
            }
            assert!(begun.elapsed() < LONG, "something was missed");
        }
    }

    #[track_caller]
    fn expect_idle(&self, mut step: impl FnMut()) {
        for _ in 0..MAX_FOR_NOTHING {
            if !self.is_readable(Duration::ZERO) {
                return;
            }
            step();
        }
        assert!(!self.is_readable(Duration::ZERO), "it is readable, and there is nothing");
    }
}

/// On both kinds of outer loop, where the engine has a descriptor.
fn in_outer_loops(engine: EngineKind, test: impl Fn(EngineKind)) {
    let event_loop = PulledLoop::with_options(LoopOptions::new().engine(engine)).unwrap();
    if matches!(engine, EngineKind::Select | EngineKind::Poll) {
        let refused = event_loop.descriptor().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOTSUP));
        assert!(omnipoll::explain(&refused).contains("select and poll"));
        return;
    }
    let number = event_loop.descriptor().unwrap().as_raw_fd();
    assert_eq!(event_loop.descriptor().unwrap().as_raw_fd(), number);
    for outer in [EngineKind::Poll, EngineKind::Epoll] {
        test(outer);
    }
}

/// Echoes, and keeps what else has happened.
#[derive(Default)]
struct Echo {
    last: Cell<Option<ConnId>>,
    opened: Cell<usize>,
    closed: Cell<usize>,
    drained: Cell<usize>,
    events: RefCell<Vec<(EventKind, u64)>>,
}

impl Handler for Echo {
    type State = ();

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
        self.last.set(Some(conn.id()));
        self.opened.set(self.opened.get() + 1);
        Ok(())
    }

    fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) {
        if data == b"much" {
            keep_small(conn);
            conn.write(&pattern(1, 4 << 20)).unwrap();
        } else {
            conn.write(data).unwrap();
        }
    }

    fn on_drain(&self, _: &mut Conn<'_>, _: &mut ()) {
        self.drained.set(self.drained.get() + 1);
    }

    fn on_close(&self, _: &mut Conn<'_>, _: (), _: Option<io::Error>) {
        self.closed.set(self.closed.get() + 1);
    }

    fn on_event(&self, _: &mut LoopRef<'_>, event: &Event) {
        self.events.borrow_mut().push((event.kind(), event.token()));
    }
}

fn loop_of(engine: EngineKind) -> (EventLoop<Echo>, String) {
    let options = LoopOptions::new().engine(engine).idle_timeout(None);
    let mut event_loop = EventLoop::with_options(Echo::default(), options).expect("a loop");
    let address = event_loop.listen("127.0.0.1:0", 1).expect("listen");
    (event_loop, address)
}

fn connect(address: &str) -> TcpStream {
    with_timeouts(TcpStream::connect(address).expect("connect"))
}

fn step<H: Handler>(event_loop: &mut EventLoop<H>) {
    assert!(event_loop.run_once(Some(Duration::ZERO)).expect("run_once"));
}

fn clients_are_served_by_handler(engine: EngineKind) {
    in_outer_loops(engine, |outer| {
        let (mut event_loop, address) = loop_of(engine);
        let outer = Outer::new(outer, event_loop.descriptor());
        for round in 0..30 {
            let address = address.clone();
            let clients = thread::spawn(move || {
                let clients = [(); 3].map(|()| connect(&address));
                for length in [1, 1_000, 2_049, 65_537] {
                    clients.iter().for_each(|client| exchange(client, &pattern(round, length)));
                }
            });
            outer.run(|| step(&mut event_loop), || clients.is_finished());
            clients.join().unwrap();
            let closed = 3 * (round + 1);
            while event_loop.handler().closed.get() < closed {
                assert!(outer.is_readable(LONG));
                step(&mut event_loop);
            }
            outer.expect_idle(|| step(&mut event_loop));
        }
    });
}

fn clients_are_served_by_few_events_at_a_time(engine: EngineKind) {
    in_outer_loops(engine, |outer| {
        let mut event_loop = PulledLoop::with_options(LoopOptions::new().engine(engine)).unwrap();
        let address = event_loop.listen("127.0.0.1:0", 1).unwrap();
        let outer = Outer::new(outer, event_loop.descriptor());
        let clients = thread::spawn(move || {
            let clients = [(); 5].map(|()| connect(&address));
            for length in [1, 1_000, 2_049, 65_537, 5, 5, 5] {
                clients.iter().for_each(|mut client| client.write_all(&pattern(1, length)).unwrap());
                clients.iter().for_each(|client| assert_eq!(read(client, length), pattern(1, length)));
            }
        });
        let mut event = [LoopEvent::default()];
        let mut closed = 0;
        while closed < 5 {
            assert!(outer.is_readable(LONG));
            if event_loop.wait(&mut event, Some(Duration::ZERO)).unwrap() == 0 {
                continue;
            }
            match event[0].kind() {
                LoopEventKind::Data => {
                    let data = event_loop.data(&event[0]).to_vec();
                    event_loop.conn(event[0].conn()).unwrap().write(&data).unwrap();
                }
                LoopEventKind::Ended => event_loop.conn(event[0].conn()).unwrap().close(),
                LoopEventKind::Closed => closed += 1,
                _ => {}
            }
        }
        clients.join().unwrap();
        outer.expect_idle(|| assert_eq!(event_loop.wait(&mut event, Some(Duration::ZERO)).unwrap(), 0));
    });
}

fn events_of_the_program_make_it_readable(engine: EngineKind) {
    in_outer_loops(engine, |outer| {
        let (mut event_loop, _) = loop_of(engine);
        let outer = Outer::new(outer, event_loop.descriptor());
        let poller = event_loop.poller().clone();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        poller.add(&ours, Interest::READ, 1).unwrap();
        poller.signal_add(libc::SIGUSR2, 2).unwrap();
        let mut expect = |expected| {
            while event_loop.handler().events.borrow().is_empty() {
                assert!(outer.is_readable(LONG), "no {expected:?}");
                step(&mut event_loop);
            }
            assert_eq!(event_loop.handler().events.take(), [expected]);
            if expected.0 == EventKind::Io {
                (&ours).read_exact(&mut [0]).unwrap();
            }
            outer.expect_idle(|| step(&mut event_loop));
        };
        for round in 0..30 {
            theirs.write_all(b"x").unwrap();
            expect((EventKind::Io, 1));
            // SAFETY: it is handled.
            unsafe { libc::raise(libc::SIGUSR2) };
            expect((EventKind::Signal, 2));
            poller.post(3, 0).unwrap();
            expect((EventKind::Post, 3));
            thread::scope(|scope| {
                scope.spawn(|| poller.post(4, 0).unwrap());
                expect((EventKind::Post, 4));
            });
            poller.timer_add(Duration::from_micros(200 * round), None, 5).unwrap();
            expect((EventKind::Timer, 5));
            poller.timer_add_at(SystemTime::now() + Duration::from_millis(1), 6).unwrap();
            expect((EventKind::Timer, 6));
        }
        let child = Command::new("true").spawn().unwrap();
        poller.child_add(child.id() as i32, 7).unwrap();
        expect((EventKind::Child, 7));
        poller.signal_remove(libc::SIGUSR2).unwrap();
    });
}

fn what_waits_to_be_sent_drains(engine: EngineKind) {
    in_outer_loops(engine, |outer| {
        let (mut event_loop, address) = loop_of(engine);
        let outer = Outer::new(outer, event_loop.descriptor());
        let client = thread::spawn(move || {
            let mut client = small(address.parse().unwrap());
            client.write_all(b"much").unwrap();
            assert_eq!(read(&client, 4 << 20), pattern(1, 4 << 20));
            exchange(&client, b"more");
        });
        outer.run(|| step(&mut event_loop), || client.is_finished());
        client.join().unwrap();
        assert_eq!(event_loop.handler().drained.get(), 1);
    });
}

fn a_write_of_another_thread_is_sent(engine: EngineKind) {
    in_outer_loops(engine, |outer| {
        let (mut event_loop, address) = loop_of(engine);
        let outer = Outer::new(outer, event_loop.descriptor());
        let client = connect(&address);
        while event_loop.handler().last.get().is_none() {
            assert!(outer.is_readable(LONG));
            step(&mut event_loop);
        }
        let id = event_loop.handler().last.get().unwrap();
        outer.expect_idle(|| step(&mut event_loop));
        let other = thread::spawn(move || {
            for round in 0..200 {
                id.write(&pattern(round, 7)).unwrap();
                assert_eq!(read(&client, 7), pattern(round, 7));
            }
            id.close().unwrap();
            assert_eq!(read_to_end(&client), b"");
        });
        outer.run(|| step(&mut event_loop), || other.is_finished());
        other.join().unwrap();
    });
}

fn what_is_done_between_waits_is_followed_up(engine: EngineKind) {
    in_outer_loops(engine, |outer| {
        let mut event_loop = PulledLoop::with_options(LoopOptions::new().engine(engine)).unwrap();
        let outer = Outer::new(outer, event_loop.descriptor());
        let mut events = [LoopEvent::default(); 8];
        let mut wait =
            |event_loop: &mut PulledLoop| event_loop.wait(&mut events, Some(Duration::ZERO)).unwrap();
        outer.expect_idle(|| assert_eq!(wait(&mut event_loop), 0));
        let address = event_loop.listen("127.0.0.1:0", 1).unwrap();
        let client = connect(&address);
        assert!(outer.is_readable(LONG));
        while wait(&mut event_loop) == 0 {
            assert!(outer.is_readable(LONG));
        }
        let id = {
            let mut ids = events.iter().filter(|event| event.kind() == LoopEventKind::Accepted);
            ids.next().expect("a client").conn()
        };
        let mut wait =
            |event_loop: &mut PulledLoop| event_loop.wait(&mut events, Some(Duration::ZERO)).unwrap();
        outer.expect_idle(|| assert_eq!(wait(&mut event_loop), 0));
        let reading = thread::spawn(move || {
            assert_eq!(read(&client, 5), b"hello");
            assert_eq!(read_to_end(&client), b" world");
        });
        event_loop.conn(id).unwrap().write(b"hello").unwrap();
        outer.expect_idle(|| assert_eq!(wait(&mut event_loop), 0));
        let mut conn = event_loop.conn(id).unwrap();
        conn.write(b" world").unwrap();
        conn.close();
        outer.run(|| _ = wait(&mut event_loop), || reading.is_finished());
        reading.join().unwrap();
    });
}

fn many_come_and_are_ended_at_once(engine: EngineKind) {
    const CLIENTS: usize = 200;
    in_outer_loops(engine, |outer| {
        let mut event_loop = PulledLoop::with_options(LoopOptions::new().engine(engine)).unwrap();
        let address = event_loop.listen("127.0.0.1:0", 1).unwrap();
        let outer = Outer::new(outer, event_loop.descriptor());
        let mut event = [LoopEvent::default()];
        outer.expect_idle(|| assert_eq!(event_loop.wait(&mut event, Some(Duration::ZERO)).unwrap(), 0));
        let mut collect = |event_loop: &mut PulledLoop, kind| {
            let mut count = 0;
            while count < CLIENTS {
                assert!(outer.is_readable(LONG), "{count} events");
                if event_loop.wait(&mut event, Some(Duration::ZERO)).unwrap() > 0 {
                    assert_eq!(event[0].kind(), kind);
                    count += 1;
                }
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| connect(&address)).collect();
        collect(&mut event_loop, LoopEventKind::Accepted);
        event_loop.handle().stop(None).unwrap();
        collect(&mut event_loop, LoopEventKind::Stopping);
        event_loop.handle().stop(Some(Duration::ZERO)).unwrap();
        collect(&mut event_loop, LoopEventKind::Closed);
        drop(clients);
    });
}

fn many_are_served_at_once_by_handler(engine: EngineKind) {
    const CLIENTS: usize = 300;
    in_outer_loops(engine, |outer| {
        let (mut event_loop, address) = loop_of(engine);
        let outer = Outer::new(outer, event_loop.descriptor());
        outer.expect_idle(|| step(&mut event_loop));
        // All wait already when the first is accepted, and nothing happens besides.
        let clients: Vec<_> = (0..CLIENTS).map(|_| connect(&address)).collect();
        while event_loop.handler().opened.get() < CLIENTS {
            assert!(outer.is_readable(LONG), "{} of them", event_loop.handler().opened.get());
            step(&mut event_loop);
        }
        outer.expect_idle(|| step(&mut event_loop));
        drop(clients);
        while event_loop.handler().closed.get() < CLIENTS {
            assert!(outer.is_readable(LONG));
            step(&mut event_loop);
        }
        outer.expect_idle(|| step(&mut event_loop));
    });
}

fn connections_out_open_and_fail(engine: EngineKind) {
    in_outer_loops(engine, |outer| {
        let mut event_loop = PulledLoop::with_options(LoopOptions::new().engine(engine)).unwrap();
        let address = event_loop.listen("127.0.0.1:0", 1).unwrap();
        let (_, port) = address.rsplit_once(':').unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let outer = Outer::new(outer, event_loop.descriptor());
        let mut events = [LoopEvent::default(); 8];
        for (to, expected) in [
            (address.clone(), LoopEventKind::Connected),
            (format!("localhost:{port}"), LoopEventKind::Connected),
            (free.to_string(), LoopEventKind::Closed),
        ] {
            outer.expect_idle(|| _ = event_loop.wait(&mut events, Some(Duration::ZERO)).unwrap());
            let id = event_loop.connect(&to, &ConnectOptions::new(), 5).unwrap();
            let is_told = |event: &LoopEvent| event.conn() == id && event.kind() == expected;
            loop {
                assert!(outer.is_readable(LONG), "{to}");
                let count = event_loop.wait(&mut events, Some(Duration::ZERO)).unwrap();
                if events[..count].iter().any(is_told) {
                    break;
                }
            }
        }
    });
}

fn timeouts_of_connections_pass(engine: EngineKind) {
    in_outer_loops(engine, |outer| {
        let options = LoopOptions::new().engine(engine).idle_timeout(Some(Duration::from_millis(30)));
        let mut event_loop = EventLoop::with_options(Echo::default(), options).unwrap();
        let address = event_loop.listen("127.0.0.1:0", 1).unwrap();
        let outer = Outer::new(outer, event_loop.descriptor());
        let client = connect(&address);
        while event_loop.handler().closed.get() == 0 {
            assert!(outer.is_readable(LONG));
            step(&mut event_loop);
        }
        drop(client);
    });
}

fn a_stop_ends_the_loop(engine: EngineKind) {
    in_outer_loops(engine, |outer| {
        for drain in [None, Some(Duration::ZERO), Some(Duration::from_millis(10))] {
            let (mut event_loop, address) = loop_of(engine);
            let outer = Outer::new(outer, event_loop.descriptor());
            let client = connect(&address);
            while event_loop.handler().last.get().is_none() {
                assert!(outer.is_readable(LONG));
                step(&mut event_loop);
            }
            outer.expect_idle(|| step(&mut event_loop));
            let handle = event_loop.handle();
            thread::spawn(move || handle.stop(drain).unwrap()).join().unwrap();
            if drain.is_none() {
                drop(client);
            }
            loop {
                assert!(outer.is_readable(LONG), "the stop was missed");
                if !event_loop.run_once(Some(Duration::ZERO)).unwrap() {
                    break;
                }
            }
            assert!(!event_loop.run_once(None).unwrap(), "it has ended");
        }
    });
}

/// An outer loop of the oldest kind, with two of ours and a descriptor of its own.
fn two_loops_in_one_poll(engine: EngineKind) {
    in_outer_loops(engine, |_| {
        let (mut first, address) = loop_of(engine);
        let (mut second, other_address) = loop_of(engine);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let clients = thread::spawn(move || {
            let clients = [connect(&address), connect(&other_address)];
            for round in 0..100 {
                clients.iter().for_each(|client| exchange(client, &pattern(round, 100 * round + 1)));
            }
            theirs.write_all(b"x").unwrap();
        });
        let mut watched = [
            first.descriptor().unwrap().as_raw_fd(),
            second.descriptor().unwrap().as_raw_fd(),
            ours.as_raw_fd(),
        ]
        .map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        loop {
            // SAFETY: the array is writable for its length.
            let ready = unsafe { libc::poll(watched.as_mut_ptr(), 3, LONG.as_millis() as i32) };
            assert!(ready > 0 || io::Error::last_os_error().kind() == io::ErrorKind::Interrupted);
            if watched[0].revents != 0 {
                step(&mut first);
            }
            if watched[1].revents != 0 {
                step(&mut second);
            }
            if watched[2].revents != 0 {
                break;
            }
        }
        clients.join().unwrap();
    });
}
