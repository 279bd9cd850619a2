//! A server in a process of its own, and the test's control of it.
//!
//! Under FORK and PREFORK a server needs a process without other threads, and its handler's
//! calls are made in yet other processes: so that a test is the same for every model, the
//! server always gets a process, and reports through pipes.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use omnipoll::{ConnId, Handler, Server, ServerHandle, ServerOptions, WorkerStats};

use super::log::{Callback, Entry, Log, LogWriter};
use super::process::{self, Process};
use super::test_handler::{LoggingHandler, TestHandler};
use crate::client::with_timeouts;
use crate::support::expect::LONG;
use crate::support::sys;

/// Seconds after which a server that has not ended is killed.
const KILL_AFTER_SECONDS: u32 = 50;

/// Between the parts of the argument of a broadcast, and in the place of a group's name.
const SEPARATOR: char = '\u{1}';
const ALL: &str = "\u{2}";

/// A server that runs.
pub(crate) struct RunningServer {
    pub(crate) log: Log,
    pub(crate) process: Process,
    addresses: Vec<String>,
    commands: BufReader<UnixStream>,
}

/// How it has ended.
pub(crate) struct Outcome {
    /// What `run` returned: 0, or an error's number.
    pub(crate) errno: i32,
    pub(crate) stats: Stats,
    pub(crate) log: Log,
}

/// What a server has counted.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) total: WorkerStats,
    pub(crate) workers: Vec<WorkerStats>,
}

/// Serves on one address of the loopback device.
pub(crate) fn serve(options: ServerOptions, handler: TestHandler) -> RunningServer {
    serve_on(&["127.0.0.1:0"], options, handler, |_| {})
}

/// Serves on several addresses; `prepare` is called in the server's process before it runs.
pub(crate) fn serve_on(
    addresses: &[&str],
    options: ServerOptions,
    handler: TestHandler,
    prepare: impl FnOnce(&ServerHandle),
) -> RunningServer {
    serve_with(addresses, options, |log_writer| LoggingHandler { handler, log_writer }, prepare)
}

/// Serves with a handler of its own.
pub(crate) fn serve_with<H: Handler + Send + Sync>(
    addresses: &[&str],
    options: ServerOptions,
    handler: impl FnOnce(LogWriter) -> H,
    prepare: impl FnOnce(&ServerHandle),
) -> RunningServer {
    let (log_writer, reader) = Log::pipe();
    let (ours, theirs) = UnixStream::pair().expect("socketpair");
    let process = match process::fork() {
        None => {
            drop((ours, reader));
            sys::end_after_seconds(KILL_AFTER_SECONDS);
            let errno = run_server(addresses, options, handler(log_writer), prepare, &theirs);
            std::process::exit(i32::from(errno.is_err()));
        }
        Some(process) => process,
    };
    drop((theirs, log_writer));
    ours.set_read_timeout(Some(LONG)).expect("a timeout");
    let mut server = RunningServer {
        log: Log::read(reader),
        process,
        addresses: Vec::new(),
        commands: BufReader::new(ours),
    };
    let addresses = server.reply("listening");
    server.addresses = addresses.split_whitespace().map(str::to_owned).collect();
    server
}

fn run_server<H: Handler + Send + Sync>(
    addresses: &[&str],
    options: ServerOptions,
    handler: H,
    prepare: impl FnOnce(&ServerHandle),
    commands: &UnixStream,
) -> io::Result<()> {
    let server = Server::with_options(handler, options)?;
    let mut bound = Vec::new();
    for address in addresses {
        bound.push(server.listen(address)?);
    }
    let handle = server.handle();
    // Before there may be no descriptors left.
    let (commands_in, answers, at) = (commands.try_clone()?, commands.try_clone()?, handle.clone());
    prepare(&handle);
    send_line(commands, &format!("listening {}", bound.join(" ")));
    // It sleeps in a read, with nothing locked, whenever a model may fork.
    std::thread::spawn(move || run_commands(&at, commands_in, &answers));
    let (process, ran) = (std::process::id(), server.run());
    if std::process::id() != process {
        // A handler has forked, and its child has returned.
        sys::exit_at_once(match ran {
            Err(error) if error.raw_os_error() == Some(libc::EOWNERDEAD) => 1,
            _ => 2,
        });
    }
    let errno = ran.as_ref().err().map_or(0, |error| error.raw_os_error().unwrap_or(-1));
    send_line(commands, &format!("ended {errno} {}", pack(&handle)));
    ran
}

/// Writes a line as a whole: other threads write too.
fn send_line(mut to: &UnixStream, line: &str) {
    to.write_all(format!("{line}\n").as_bytes()).expect("the test listens");
}

/// Does what the test asks for, in a thread of the server's process.
fn run_commands(handle: &ServerHandle, commands_in: UnixStream, answers: &UnixStream) {
    for line in BufReader::new(commands_in).lines() {
        let Ok(line) = line else { break };
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = match command {
            // It may have ended before there is time for an answer.
            "stop" => {
                handle.stop(drain_from(argument)).expect("stop");
                continue;
            }
            "restart_workers" => {
                handle.restart_workers().expect("restart_workers");
                continue;
            }
            "stats" => format!("stats {}", pack(handle)),
            "broadcast" => match broadcast(handle, argument) {
                Ok(count) => format!("broadcast {count}"),
                Err(error) => format!("broadcast -{}", error.raw_os_error().unwrap_or(0)),
            },
            command => panic!("no such order: {command}"),
        };
        send_line(answers, &answer);
    }
    // The test is gone.
    std::process::exit(1);
}

/// By the function for what the argument has: a group, an id, and a text.
fn broadcast(handle: &ServerHandle, argument: &str) -> io::Result<usize> {
    let mut parts = argument.splitn(3, SEPARATOR);
    let (group, except, text) = (parts.next(), parts.next(), parts.next());
    let except = except.and_then(|id| id.parse().ok()).map(ConnId::from_number);
    let data = text.unwrap_or("").as_bytes();
    match (group.filter(|&group| group != ALL), except) {
        (None, None) => handle.broadcast(data),
        (None, Some(except)) => handle.broadcast_except(data, except),
        (Some(group), except) => handle.broadcast_to(group, data, except),
    }
}

fn drain_from(argument: &str) -> Option<Duration> {
    argument.parse().ok().map(Duration::from_nanos)
}

impl RunningServer {
    /// Its first address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0].parse().expect("an address")
    }

    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// A new client, whose reads and writes end when they take too long.
    #[track_caller]
    pub(crate) fn client(&self) -> TcpStream {
        with_timeouts(TcpStream::connect(self.address()).expect("connect"))
    }

    fn command(&mut self, command: &str, answer: &str) -> String {
        send_line(self.commands.get_ref(), command);
        self.reply(answer)
    }

    fn reply(&mut self, tag: &str) -> String {
        loop {
            let mut line = String::new();
            let count = self.commands.read_line(&mut line).expect("an answer in time");
            assert_ne!(count, 0, "the server has ended without a word");
            if let Some(rest) = line.trim_end().strip_prefix(tag) {
                return rest.trim_start().to_owned();
            }
        }
    }

    /// Stops it from another thread of its process.
    pub(crate) fn stop(&self, drain: impl Into<Option<Duration>>) {
        let drain = drain.into().map_or(String::from("none"), |drain| drain.as_nanos().to_string());
        send_line(self.commands.get_ref(), &format!("stop {drain}"));
    }

    /// Has its workers replaced, one after another.
    pub(crate) fn restart_workers(&self) {
        send_line(self.commands.get_ref(), "restart_workers");
    }

    pub(crate) fn stats(&mut self) -> Stats {
        unpack(&self.command("stats", "stats"))
    }

    /// Waits until what it counts is as it should be.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, is: impl Fn(&Stats) -> bool) -> Stats {
        let end = std::time::Instant::now() + LONG;
        loop {
            let stats = self.stats();
            if is(&stats) {
                return stats;
            }
            assert!(std::time::Instant::now() < end, "{what}: it never came to that: {stats:#?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// To how many it went, or a negative error's number.
    pub(crate) fn broadcast(&mut self, text: &str) -> i64 {
        self.broadcast_as(ALL, None, text)
    }

    pub(crate) fn broadcast_except(&mut self, text: &str, except: u64) -> i64 {
        self.broadcast_as(ALL, Some(except), text)
    }

    pub(crate) fn broadcast_to(&mut self, group: &str, text: &str, except: Option<u64>) -> i64 {
        self.broadcast_as(group, except, text)
    }

    fn broadcast_as(&mut self, group: &str, except: Option<u64>, text: &str) -> i64 {
        let except = except.map_or(String::new(), |id| id.to_string());
        let command = format!("broadcast {group}{SEPARATOR}{except}{SEPARATOR}{text}");
        self.command(&command, "broadcast").parse().expect("a number")
    }

    /// Waits for an entry of this client's.
    #[track_caller]
    pub(crate) fn expect(&self, client: &TcpStream, callback: Callback) -> Entry {
        self.expect_of(port_of(client), callback)
    }

    /// Waits for an entry of the client that has, or had, this port.
    #[track_caller]
    pub(crate) fn expect_of(&self, port: u16, callback: Callback) -> Entry {
        self.log.wait_for(&format!("{callback:?} of port {port}"), |entries| {
            entries.iter().find(|entry| entry.port == port && entry.callback == callback).copied()
        })
    }

    /// What the handler said of this client, once it has said that many things.
    #[track_caller]
    pub(crate) fn values(&self, client: &TcpStream, count: usize) -> Vec<i64> {
        let port = port_of(client);
        self.log.wait_for(&format!("{count} things said of port {port}"), |entries| {
            let said = entries.iter().filter(|entry| entry.port == port && entry.callback == Callback::Value);
            let said: Vec<i64> = said.map(|entry| entry.value).collect();
            (said.len() >= count).then_some(said)
        })
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub(crate) fn wait_for_end(mut self) -> Outcome {
        let reply = self.reply("ended");
        let (errno, stats) = reply.split_once(' ').expect("two parts");
        let errno = errno.parse().expect("a number");
        let status = self.process.wait();
        assert_eq!(status, if errno == 0 { 0 } else { 1 << 8 }, "how its process ended");
        self.log.complete();
        Outcome { errno, stats: unpack(stats), log: self.log }
    }

    /// Stops it with all the time it needs, and sees it end well.
    #[track_caller]
    pub(crate) fn stop_and_check(self) -> Outcome {
        self.stop(None);
        let outcome = self.wait_for_end();
        assert_eq!(outcome.errno, 0, "run has failed");
        outcome
    }
}

pub(crate) fn port_of(client: &TcpStream) -> u16 {
    client.local_addr().expect("an address").port()
}

/// The statistics in one line: the workers, and before them the total.
fn pack(handle: &ServerHandle) -> String {
    let stats = handle.stats();
    let row = |mut of: WorkerStats| numbers(&mut of).map(|number| number.to_string()).join(",");
    let rows = std::iter::once(stats.total).chain(stats.workers).map(row);
    rows.collect::<Vec<_>>().join(" ")
}

fn unpack(line: &str) -> Stats {
    let row = |row: &str| {
        let mut of = WorkerStats::default();
        for (field, number) in numbers(&mut of).into_iter().zip(row.split(',')) {
            *field = number.parse().expect("a number");
        }
        of
    };
    let mut rows = line.split_whitespace().map(row);
    Stats { total: rows.next().expect("a total"), workers: rows.collect() }
}

fn numbers(of: &mut WorkerStats) -> [&mut u64; 16] {
    [
        &mut of.accepted,
        &mut of.active,
        &mut of.bytes_in,
        &mut of.bytes_out,
        &mut of.refused,
        &mut of.timed_out,
        &mut of.accept_pauses,
        &mut of.writes_refused,
        &mut of.datagrams_in,
        &mut of.datagrams_out,
        &mut of.datagrams_dropped,
        &mut of.restarts,
        &mut of.refused_header,
        &mut of.refused_rate,
        &mut of.refused_address,
        &mut of.refused_filter,
    ]
}
