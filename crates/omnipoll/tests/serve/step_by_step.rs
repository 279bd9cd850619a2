//! A server that is run step by step, in an outer loop or between other things.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use omnipoll::{
    Conn, EngineKind, Event, Events, Handler, Interest, LoopRef, Model, Poller, Server, StartedServer,
};

use crate::client::{exchange, expect_reset, pattern, with_timeouts};
use crate::config::Config;
use crate::suite::Suite;
use crate::support::expect::LONG;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(only_one_loop_can_be_run_so);
    suite.for_models(&[Model::Reactor], clients_are_served_without_an_outer_loop);
    suite.for_models(&[Model::Reactor], an_outer_loop_serves_until_the_stop);
    suite.for_models(&[Model::Reactor], a_signal_stops_it);
    suite.for_models(&[Model::Reactor], one_that_is_dropped_resets_its_clients);
    suite.for_models(&[Model::Reactor], a_worker_that_does_not_start_is_an_error);
}

/// Echoes, and counts.
#[derive(Default)]
struct Echo {
    opened: AtomicUsize,
    closed: AtomicUsize,
    timers: AtomicUsize,
    ended: AtomicUsize,
    refuses: bool,
}

impl Handler for Echo {
    type State = ();

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
        self.opened.fetch_add(1, SeqCst);
        Ok(())
    }

    fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) {
        conn.write(data).unwrap();
    }

    fn on_close(&self, _: &mut Conn<'_>, _: (), _: Option<io::Error>) {
        self.closed.fetch_add(1, SeqCst);
    }

    fn on_worker_start(&self, event_loop: &mut LoopRef<'_>) -> io::Result<()> {
        if self.refuses {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        event_loop.poller().timer_add(Duration::from_millis(1), None, 7)?;
        Ok(())
    }

    fn on_worker_end(&self, _: &mut LoopRef<'_>) {
        self.ended.fetch_add(1, SeqCst);
    }

    fn on_event(&self, _: &mut LoopRef<'_>, event: &Event) {
        assert_eq!(event.token(), 7);
        self.timers.fetch_add(1, SeqCst);
    }
}

fn server(config: Config) -> (Server<Echo>, String) {
    let server = Server::with_options(Echo::default(), config.options()).expect("a server");
    let address = server.listen("127.0.0.1:0").expect("listen");
    (server, address)
}

fn connect(address: &str) -> TcpStream {
    with_timeouts(TcpStream::connect(address).expect("connect"))
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

fn only_one_loop_can_be_run_so(config: Config) {
    let (server, _) = server(config);
    if config.model != Model::Reactor {
        assert_eq!(errno(server.start()), Some(libc::ENOTSUP));
        return;
    }
    let started = server.start().unwrap();
    assert_eq!(errno(server.start()), Some(libc::EINVAL));
    assert_eq!(errno(server.run()), Some(libc::EINVAL));
    assert_eq!(errno(server.listen("127.0.0.1:0")), Some(libc::EINVAL));
    let has_descriptor = matches!(config.engine, EngineKind::Epoll | EngineKind::IoUring);
    let expected = (!has_descriptor).then_some(libc::ENOTSUP);
    assert_eq!(errno(started.descriptor()), expected);
}

fn clients_are_served_without_an_outer_loop(config: Config) {
    let (server, address) = server(config);
    let handle = server.handle();
    let mut started = server.start().unwrap();
    let clients = thread::spawn(move || {
        for round in 0..10 {
            let client = connect(&address);
            exchange(&client, &pattern(round, 70_000));
        }
        handle.stop(None).unwrap();
    });
    while started.run_once(Some(LONG)).unwrap() {}
    assert!(!started.run_once(None).unwrap(), "it has ended");
    clients.join().unwrap();
    let handler = server.handler();
    assert_eq!((handler.opened.load(SeqCst), handler.closed.load(SeqCst)), (10, 10));
    assert_eq!((handler.timers.load(SeqCst), handler.ended.load(SeqCst)), (1, 1));
}

/// Serves in an outer loop until it ends. False when the engine has no descriptor.
fn serve_in_outer_loop(started: &mut StartedServer<Echo>, outer: EngineKind) -> bool {
    let outer = Poller::with_engine(outer).unwrap();
    match started.descriptor() {
        Ok(descriptor) => outer.add(descriptor, Interest::READ, 1).unwrap(),
        Err(_) => return false,
    }
    let mut events = Events::with_capacity(1);
    loop {
        assert_eq!(outer.wait(&mut events, Some(LONG)).unwrap(), 1, "something was missed");
        if !started.run_once(Some(Duration::ZERO)).unwrap() {
            return true;
        }
    }
}

fn an_outer_loop_serves_until_the_stop(config: Config) {
    for outer in [EngineKind::Poll, EngineKind::Epoll] {
        for drain in [None, Some(Duration::from_millis(20))] {
            let (server, address) = server(config);
            let handle = server.handle();
            let mut started = server.start().unwrap();
            if started.descriptor().is_err() {
                return;
            }
            let clients = thread::spawn(move || {
                let clients = [(); 5].map(|()| connect(&address));
                for round in 0..20 {
                    clients.iter().for_each(|client| exchange(client, &pattern(round, 1 + 500 * round)));
                    assert_eq!(handle.broadcast(b"all").unwrap(), 5);
                    clients.iter().for_each(|client| assert_eq!(crate::client::read(client, 3), b"all"));
                }
                handle.stop(drain).unwrap();
                // Without a limit they end by themselves.
                drain.map(|_| clients)
            });
            assert!(serve_in_outer_loop(&mut started, outer));
            clients.join().unwrap().iter().flatten().for_each(expect_reset);
            let handler = server.handler();
            assert_eq!((handler.closed.load(SeqCst), handler.ended.load(SeqCst)), (5, 1));
            assert_eq!(handler.timers.load(SeqCst), 1);
        }
    }
}

fn a_signal_stops_it(config: Config) {
    let options = config.options().signals(true);
    let server = Server::with_options(Echo::default(), options).unwrap();
    let mut started = server.start().unwrap();
    if started.descriptor().is_err() {
        return;
    }
    crate::process::kill(std::process::id() as i32, libc::SIGTERM);
    assert!(serve_in_outer_loop(&mut started, EngineKind::Epoll));
}

fn one_that_is_dropped_resets_its_clients(config: Config) {
    let (server, address) = server(config);
    let mut started = server.start().unwrap();
    let clients = [(); 3].map(|()| connect(&address));
    while server.handler().opened.load(SeqCst) < 3 {
        assert!(started.run_once(Some(LONG)).unwrap());
    }
    drop(started);
    clients.iter().for_each(expect_reset);
    assert_eq!(server.handler().closed.load(SeqCst), 3);
    assert_eq!(server.handler().ended.load(SeqCst), 1);
    assert!(TcpStream::connect(address).is_err(), "it listens");
    assert_eq!(server.handle().stats().total.active, 0);
}

fn a_worker_that_does_not_start_is_an_error(config: Config) {
    let handler = Echo { refuses: true, ..Echo::default() };
    let server = Server::with_options(handler, config.options()).unwrap();
    let address = server.listen("127.0.0.1:0").unwrap();
    let client = connect(&address);
    assert_eq!(errno(server.start()), Some(libc::ENOSPC));
    assert_eq!(server.handler().ended.load(SeqCst), 0);
    expect_reset(&client);
}
