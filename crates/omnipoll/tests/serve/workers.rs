//! The start and the end of each worker, and what a program waits for on its loop.

use std::collections::HashSet;
use std::io;
use std::net::TcpStream;
use std::time::Duration;

use omnipoll::{Conn, Event, EventKind, Handler, Interest, LoopRef, Model};

use crate::client::{end, exchange, expect_end};
use crate::config::Config;
use crate::log::{Callback, ConnLog, Entry, LogWriter};
use crate::process::kill;
use crate::running_server::{serve_with, RunningServer};
use crate::suite::Suite;
use crate::support::{fds, sys};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(each_worker_starts_and_ends_once);
    suite.for_each_config(a_worker_starts_before_its_clients_and_ends_after_them);
    suite.for_each_config(a_worker_that_does_not_start_ends_the_server);
    suite.for_each_config(a_panic_at_the_start_ends_the_server);
    suite.for_each_config(a_panic_at_the_end_is_ignored);
    suite.for_models(&[Model::Cores, Model::Prefork], one_worker_that_does_not_start_ends_all);
    suite.for_models(&[Model::Prefork], a_worker_that_is_replaced_starts_again);
    suite.for_each_config(a_worker_waits_for_timers_descriptors_signals_and_posts);
    suite.for_each_config(the_tokens_of_the_loop_are_refused);
}

/// What happens at the start and at the end of a worker, and for an event of the program's.
type Start = dyn Fn(&mut LoopRef<'_>) -> io::Result<()> + Send + Sync;
type End = dyn Fn(&mut LoopRef<'_>) + Send + Sync;
type OnEvent = dyn Fn(&mut LoopRef<'_>, &Event) + Send + Sync;

/// Echoes, and logs the starts, the ends and the events of its workers, with their threads.
struct Workers {
    start: Box<Start>,
    end: Box<End>,
    event: Box<OnEvent>,
}

impl Workers {
    fn new(start: impl Fn(&mut LoopRef<'_>) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { start: Box::new(start), end: Box::new(|_| {}), event: Box::new(|_, _| {}) }
    }

    fn on_end(self, end: impl Fn(&mut LoopRef<'_>) + Send + Sync + 'static) -> Self {
        Self { end: Box::new(end), ..self }
    }

    fn on_event(self, event: impl Fn(&mut LoopRef<'_>, &Event) + Send + Sync + 'static) -> Self {
        Self { event: Box::new(event), ..self }
    }
}

struct LoggingWorkers {
    workers: Workers,
    log_writer: LogWriter,
}

impl LoggingWorkers {
    fn record(&self, event_loop: &LoopRef<'_>, callback: Callback, value: i64) {
        ConnLog::of_worker(event_loop.worker(), &self.log_writer).record(callback, value);
    }
}

impl Handler for LoggingWorkers {
    type State = ();

    fn on_worker_start(&self, event_loop: &mut LoopRef<'_>) -> io::Result<()> {
        self.record(event_loop, Callback::WorkerStart, sys::thread_id().into());
        (self.workers.start)(event_loop)
    }

    fn on_worker_end(&self, event_loop: &mut LoopRef<'_>) {
        self.record(event_loop, Callback::WorkerEnd, sys::thread_id().into());
        (self.workers.end)(event_loop);
    }

    fn on_event(&self, event_loop: &mut LoopRef<'_>, event: &Event) {
        self.record(event_loop, Callback::Event, event.token() as i64);
        (self.workers.event)(event_loop, event);
    }

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
        ConnLog::of(conn, &self.log_writer).record(Callback::Open, sys::thread_id().into());
        Ok(())
    }

    fn on_data(&self, conn: &mut Conn<'_>, (): &mut (), data: &[u8]) {
        let _ = conn.write(data);
    }

    fn on_close(&self, conn: &mut Conn<'_>, (): (), _: Option<io::Error>) {
        ConnLog::of(conn, &self.log_writer).record(Callback::Close, sys::thread_id().into());
    }
}

fn serve(config: Config, workers: Workers) -> RunningServer {
    let handler = |log_writer| LoggingWorkers { workers, log_writer };
    serve_with(&["127.0.0.1:0"], config.options(), handler, |_| {})
}

/// Whether each client has a worker of its own.
fn is_worker_per_client(config: Config) -> bool {
    matches!(config.model, Model::Thread | Model::Fork)
}

/// How many workers there are for two clients that come one after another.
fn workers_of(config: Config) -> usize {
    if config.model == Model::Reactor {
        1
    } else {
        2
    }
}

/// Two clients, one after another.
fn two_clients(server: &RunningServer) {
    for _ in 0..2 {
        let client = server.client();
        exchange(&client, b"hello");
        end(&client);
        expect_end(&client);
    }
}

fn only(entries: &[Entry], callback: Callback) -> Vec<Entry> {
    entries.iter().copied().filter(|entry| entry.callback == callback).collect()
}

fn each_worker_starts_and_ends_once(config: Config) {
    let server = serve(config, Workers::new(|_| Ok(())));
    two_clients(&server);
    let process = server.process.pid;
    let entries = server.stop_and_check().log.all();
    let starts = only(&entries, Callback::WorkerStart);
    let place = |entry: &Entry| (entry.worker, entry.process, entry.value);
    let mut ends: Vec<_> = only(&entries, Callback::WorkerEnd).iter().map(place).collect();
    let mut started: Vec<_> = starts.iter().map(place).collect();
    started.sort_unstable();
    ends.sort_unstable();
    assert_eq!(started, ends, "in the same thread and process");
    assert_eq!(starts.len(), workers_of(config));
    let numbers: HashSet<usize> = starts.iter().map(|entry| entry.worker).collect();
    assert_eq!(numbers.len(), if is_worker_per_client(config) { 1 } else { workers_of(config) });
    let main_thread = (process, i64::from(process));
    let in_main_thread = starts.iter().filter(|entry| (entry.process, entry.value) == main_thread).count();
    let expected = usize::from(matches!(config.model, Model::Reactor | Model::Cores));
    assert_eq!(in_main_thread, expected, "in the thread of `run`");
}

fn a_worker_starts_before_its_clients_and_ends_after_them(config: Config) {
    let server = serve(config, Workers::new(|_| Ok(())));
    two_clients(&server);
    let entries = server.stop_and_check().log.all();
    let opened = only(&entries, Callback::Open);
    assert_eq!(opened.len(), 2);
    for open in opened {
        // Its worker's, which has a thread or process of its own.
        let of_worker = entries.iter().filter(|entry| {
            (entry.process, entry.value) == (open.process, open.value) && entry.worker == open.worker
        });
        let calls: Vec<Callback> = of_worker.map(|entry| entry.callback).collect();
        assert_eq!(calls.first(), Some(&Callback::WorkerStart), "{calls:?}");
        assert_eq!(calls.last(), Some(&Callback::WorkerEnd), "{calls:?}");
    }
}

/// Has a server whose workers don't start end, which those that have one for each client do with the first.
fn expect_end_without_start(config: Config, workers: Workers, errno: i32) {
    let server = serve(config, workers);
    // Else it may have ended already.
    let client = is_worker_per_client(config).then(|| server.client());
    let outcome = server.wait_for_end();
    assert_eq!(outcome.errno, errno);
    drop(client);
    let entries = outcome.log.all();
    assert!(!only(&entries, Callback::WorkerStart).is_empty());
    assert_eq!(only(&entries, Callback::WorkerEnd), [], "what has not started has no end");
    assert_eq!(only(&entries, Callback::Open), []);
}

fn a_worker_that_does_not_start_ends_the_server(config: Config) {
    let start = |_: &mut LoopRef<'_>| Err(io::Error::from_raw_os_error(libc::EACCES));
    expect_end_without_start(config, Workers::new(start), libc::EACCES);
    let start = |_: &mut LoopRef<'_>| Err(io::Error::other("no number"));
    expect_end_without_start(config, Workers::new(start), libc::EIO);
}

fn a_panic_at_the_start_ends_the_server(config: Config) {
    expect_end_without_start(config, Workers::new(|_| panic!("at the start")), libc::ENOTRECOVERABLE);
}

fn a_panic_at_the_end_is_ignored(config: Config) {
    let server = serve(config, Workers::new(|_| Ok(())).on_end(|_| panic!("at the end")));
    two_clients(&server);
    server.stop_and_check();
}

fn one_worker_that_does_not_start_ends_all(config: Config) {
    for failing in 0..2 {
        let start = move |event_loop: &mut LoopRef<'_>| match event_loop.worker() == failing {
            true => Err(io::Error::from_raw_os_error(libc::EACCES)),
            false => Ok(()),
        };
        let outcome = serve(config, Workers::new(start)).wait_for_end();
        assert_eq!(outcome.errno, libc::EACCES, "worker {failing}");
        let entries = outcome.log.all();
        let started = only(&entries, Callback::WorkerStart).iter().filter(|it| it.worker != failing).count();
        assert_eq!(only(&entries, Callback::WorkerEnd).len(), started, "worker {failing}");
    }
}

fn a_worker_that_is_replaced_starts_again(config: Config) {
    let server = serve(config, Workers::new(|_| Ok(())));
    let client = server.client();
    exchange(&client, b"hello");
    let process = server.expect(&client, Callback::Open).process;
    kill(process, libc::SIGKILL);
    server.log.wait_for("the third start", |entries| {
        (only(entries, Callback::WorkerStart).len() == 3).then_some(())
    });
    two_clients(&server);
    let entries = server.stop_and_check().log.all();
    let ended: Vec<i32> = only(&entries, Callback::WorkerEnd).iter().map(|entry| entry.process).collect();
    assert_eq!(ended.len(), 2, "what was killed has no end");
    assert!(!ended.contains(&process));
}

const TIMER: u64 = 1;
const DESCRIPTOR: u64 = 2;
const SIGNAL: u64 = 3;
const POST: u64 = 4;
const AGAIN: u64 = 5;

fn a_worker_waits_for_timers_descriptors_signals_and_posts(config: Config) {
    let start = |event_loop: &mut LoopRef<'_>| {
        let poller = event_loop.poller();
        poller.timer_add(Duration::from_millis(1), None, TIMER)?;
        poller.signal_add(libc::SIGUSR1, SIGNAL)?;
        poller.post(POST, 7)?;
        // Left open: it is readable for as long as the worker lives.
        let (reader, writer) = fds::pipe();
        fds::write_byte(&writer);
        poller.add(&reader, Interest::READ, DESCRIPTOR)?;
        std::mem::forget((reader, writer));
        Ok(())
    };
    let event = |event_loop: &mut LoopRef<'_>, event: &Event| {
        let poller = event_loop.poller();
        match (event.kind(), event.token()) {
            (EventKind::Timer, TIMER) => poller.timer_add(Duration::ZERO, None, AGAIN).map(drop).unwrap(),
            (EventKind::Io, DESCRIPTOR) => {
                poller.remove_raw(event.value() as i32).unwrap();
            }
            (EventKind::Post, POST) => {
                assert_eq!(event.value(), 7);
                kill(std::process::id() as i32, libc::SIGUSR1);
            }
            (EventKind::Signal, SIGNAL) | (EventKind::Timer, AGAIN) => {}
            other => panic!("{other:?}"),
        }
    };
    let server = serve(config, Workers::new(start).on_event(event));
    let client = server.client();
    exchange(&client, b"hello");
    let open = server.expect(&client, Callback::Open);
    let expected = HashSet::from([TIMER, DESCRIPTOR, SIGNAL, POST, AGAIN]);
    server.log.wait_for("an event of each kind", |entries| {
        let of_worker = |entry: &&Entry| entry.process == open.process && entry.worker == open.worker;
        let events = only(entries, Callback::Event);
        let tokens: HashSet<u64> = events.iter().filter(of_worker).map(|entry| entry.value as u64).collect();
        (tokens == expected).then_some(())
    });
    exchange(&client, b"still served");
    end(&client);
    expect_end(&client);
    let entries = server.stop_and_check().log.all();
    let once = [TIMER, DESCRIPTOR, AGAIN];
    for entry in only(&entries, Callback::Event).iter().filter(|it| once.contains(&(it.value as u64))) {
        let same = |other: &&Entry| {
            (other.callback, other.process, other.worker, other.value)
                == (entry.callback, entry.process, entry.worker, entry.value)
        };
        assert_eq!(entries.iter().filter(same).count(), 1, "{entry:?}");
    }
}

fn the_tokens_of_the_loop_are_refused(config: Config) {
    let start = |event_loop: &mut LoopRef<'_>| {
        let poller = event_loop.poller();
        let refused = [
            poller.timer_add(Duration::ZERO, None, 0xffff_ffff_8000_0000).map(drop),
            poller.signal_add(libc::SIGUSR1, u64::MAX),
            poller.post(u64::MAX, 1),
        ];
        for result in refused {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
        poller.timer_add(Duration::ZERO, None, 0xffff_ffff_7fff_ffff).map(drop)
    };
    let server = serve(config, Workers::new(start));
    let client: TcpStream = server.client();
    exchange(&client, b"hello");
    server.log.wait_for("the timer", |entries| (!only(entries, Callback::Event).is_empty()).then_some(()));
    drop(client);
    server.stop_and_check();
}
