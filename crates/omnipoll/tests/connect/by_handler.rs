//! The same by handler: which calls there are, and what callbacks may ask for.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use omnipoll::{
    explain, Conn, ConnId, ConnectOptions, EngineKind, Event, EventLoop, FailedConnect, Handler, LoopOptions,
    LoopRef,
};

use crate::outgoing::SHORT;
use crate::peers::{nobody, Silent};
use crate::suite::Suite;
use crate::support::expect::LONG;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(one_that_fails_is_one_call);
    suite.on_each_engine(one_that_ends_at_once_is_told_without_a_wait);
    suite.on_each_engine(callbacks_connect_too);
    suite.on_each_engine(the_end_of_a_loop_tells_of_those_in_progress);
    suite.on_each_engine(who_always_tries_again_does_not_keep_a_loop_from_its_end);
}

/// Writes down what it is called with.
#[derive(Default)]
struct Notes {
    opened: RefCell<Vec<(ConnId, u64, bool)>>,
    closed: RefCell<Vec<ConnId>>,
    failed: RefCell<Vec<FailedConnect>>,
    /// Where a callback connects to next.
    next: RefCell<Vec<String>>,
}

impl Notes {
    fn connect_next(&self, event_loop: &mut LoopRef<'_>) {
        if let Some(next) = self.next.borrow_mut().pop() {
            event_loop.connect(&next, &ConnectOptions::new(), 8).expect("a connect that is tried");
        }
    }
}

impl Handler for Notes {
    type State = ();

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
        self.opened.borrow_mut().push((conn.id(), conn.token(), conn.is_outgoing()));
        self.connect_next(&mut conn.event_loop());
        Ok(())
    }

    fn on_data(&self, _: &mut Conn<'_>, (): &mut (), _: &[u8]) {}

    fn on_close(&self, conn: &mut Conn<'_>, (): (), _: Option<io::Error>) {
        self.closed.borrow_mut().push(conn.id());
    }

    fn on_event(&self, event_loop: &mut LoopRef<'_>, _: &Event) {
        self.connect_next(event_loop);
    }

    fn on_connect_error(&self, event_loop: &mut LoopRef<'_>, failed: &FailedConnect) {
        self.failed.borrow_mut().push(failed.clone());
        self.connect_next(event_loop);
    }
}

fn event_loop<H: Handler>(handler: H, engine: EngineKind) -> EventLoop<H> {
    EventLoop::with_options(handler, LoopOptions::new().engine(engine)).expect("a loop")
}

fn run_until(event_loop: &mut EventLoop<Notes>, is_done: impl Fn(&Notes) -> bool) {
    let begun = Instant::now();
    while !is_done(event_loop.handler()) {
        assert!(begun.elapsed() < LONG, "it takes too long");
        event_loop.run_once(None).expect("run_once");
    }
}

fn one_that_fails_is_one_call(engine: EngineKind) {
    let mut event_loop = event_loop(Notes::default(), engine);
    let (_socket, address) = nobody();
    let id = event_loop.connect(&address.to_string(), &ConnectOptions::new(), 7).unwrap();
    run_until(&mut event_loop, |notes| !notes.failed.borrow().is_empty());
    let notes = event_loop.handler();
    let failed = notes.failed.borrow()[0].clone();
    assert_eq!((failed.id(), failed.token()), (id, 7));
    let error = failed.error();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    assert_eq!(explain(&error), format!("connect {address}: Connection refused"));
    assert_eq!(failed.attempts(), [(address.into(), libc::ECONNREFUSED)]);
    assert!(notes.opened.borrow().is_empty() && notes.closed.borrow().is_empty());
}

fn one_that_ends_at_once_is_told_without_a_wait(engine: EngineKind) {
    let mut event_loop = event_loop(Notes::default(), engine);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    for address in ["unix:/nowhere/socket".to_owned(), format!("fd:{}", ours.as_raw_fd())] {
        event_loop.connect(&address, &ConnectOptions::new(), 7).unwrap();
        event_loop.run_once(None).unwrap();
    }
    let notes = event_loop.handler();
    assert_eq!((notes.failed.borrow().len(), notes.opened.borrow().len()), (1, 1));
}

fn callbacks_connect_too(engine: EngineKind) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_socket, nobody) = nobody();
    let [known, unknown] = [listener.local_addr().unwrap(), nobody].map(|address| address.to_string());
    let notes = Notes::default();
    // From the last: by an event, when one has failed, when one is open.
    notes.next.replace(vec![unknown.clone(), known.clone(), unknown]);
    let mut event_loop = event_loop(notes, engine);
    event_loop.poller().post(1, 1).unwrap();
    run_until(&mut event_loop, |notes| notes.failed.borrow().len() == 2);
    let notes = event_loop.handler();
    let opened = notes.opened.borrow();
    assert!(matches!(opened[..], [(_, 8, true)]), "{opened:?}");
}

fn the_end_of_a_loop_tells_of_those_in_progress(engine: EngineKind) {
    let notes = Notes::default();
    let silent = Silent::new();
    let mut event_loop = event_loop(&notes, engine);
    let id = event_loop.connect(&silent.address.to_string(), &ConnectOptions::new(), 7).unwrap();
    event_loop.run_once(Some(SHORT)).unwrap();
    drop(event_loop);
    let failed = notes.failed.borrow();
    assert_eq!(failed.len(), 1);
    let errno = failed[0].error().raw_os_error();
    assert_eq!((failed[0].id(), errno), (id, Some(libc::ECANCELED)));
}

/// Connects again and again.
struct Stubborn(String, Cell<i32>);

impl Handler for Stubborn {
    type State = ();

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
        Ok(())
    }

    fn on_data(&self, _: &mut Conn<'_>, (): &mut (), _: &[u8]) {}

    fn on_connect_error(&self, event_loop: &mut LoopRef<'_>, _: &FailedConnect) {
        if let Err(error) = event_loop.connect(&self.0, &ConnectOptions::new(), 7) {
            self.1.set(error.raw_os_error().expect("an errno"));
        }
    }
}

fn who_always_tries_again_does_not_keep_a_loop_from_its_end(engine: EngineKind) {
    let (_socket, nobody) = nobody();
    for (address, drain) in
        [(nobody, Duration::ZERO), (nobody, SHORT), (Silent::new().address, Duration::ZERO)]
    {
        let stubborn = Stubborn(address.to_string(), Cell::new(0));
        let mut event_loop = event_loop(stubborn, engine);
        event_loop.connect(&address.to_string(), &ConnectOptions::new(), 7).unwrap();
        event_loop.run_once(Some(SHORT)).unwrap();
        event_loop.handle().stop(Some(drain)).unwrap();
        event_loop.run().unwrap();
        assert_eq!(event_loop.handler().1.get(), libc::EINVAL);
    }
}
