//! A server that is replaced by a new process while clients keep coming.
//!
//! It is this program itself, as [`program`] has it when the environment says so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use omnipoll::{Conn, Datagram, EngineKind, Handler, Model, Restart, Server, ServerOptions};

use crate::client::with_timeouts;
use crate::config::Config;
use crate::process::{is_alive, kill, until};
use crate::suite::Suite;
use crate::support::expect::LONG;
use crate::support::sys;

pub(crate) fn behaviours(suite: &mut Suite) {
    let models = [Model::Reactor, Model::Cores, Model::Prefork];
    suite.for_models(&models, no_client_is_lost_over_a_restart);
    suite.for_each_model(a_program_that_does_not_serve_changes_nothing);
    suite.for_each_model(a_stop_ends_the_process_that_was_to_follow);
}

/// What the program is asked to do, by variables of the environment.
const CONFIG: &str = "OMNIPOLL_TEST_CONFIG";
const ADDRESSES: &str = "OMNIPOLL_TEST_ADDRESSES";
const NEXT: &str = "OMNIPOLL_TEST_NEXT";

/// Answers with the number of the process that listens.
struct Who;

impl Handler for Who {
    type State = ();

    fn on_open(&self, _: &mut Conn<'_>) -> std::io::Result<()> {
        Ok(())
    }

    fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), _: &[u8]) {
        let _ = conn.write(format!("{}\n", listening_process()).as_bytes());
    }

    fn on_datagram(&self, datagram: &mut Datagram<'_>, _: &[u8]) {
        let _ = datagram.reply(format!("{}\n", listening_process()).as_bytes());
    }
}

static LISTENING: AtomicUsize = AtomicUsize::new(0);

fn listening_process() -> usize {
    LISTENING.load(Ordering::Relaxed)
}

/// The program that is restarted, if this process is to be it.
pub(crate) fn program() {
    let Ok(config) = std::env::var(CONFIG) else { return };
    sys::end_after_seconds(50);
    LISTENING.store(std::process::id() as usize, Ordering::Relaxed);
    let (model, engine) = config.split_once(' ').expect("a model and an engine");
    let restart = match std::env::var(NEXT).expect("what follows").as_str() {
        "hang" => Restart::new().program("sleep").arguments(["600"]).timeout(Duration::from_millis(20)),
        "last" => Restart::new().program("sleep").arguments(["600"]),
        "" => Restart::new(),
        program => Restart::new().program(program),
    };
    let restart = restart.on_done(|outcome| match outcome {
        Ok(pid) => println!("replaced by {pid}"),
        Err(error) => println!("failed with {}", error.raw_os_error().unwrap_or(0)),
    });
    let options = ServerOptions::new()
        .model(Model::from_name(model).expect("a model"))
        .engine(EngineKind::from_name(engine).expect("an engine"))
        .workers(2)
        .signals(true)
        .drain(Some(LONG))
        .restart(restart);
    let server = Server::with_options(Who, options).expect("a server");
    let addresses = std::env::var(ADDRESSES).expect("addresses");
    let bound: Vec<_> =
        addresses.split(' ').map(|address| server.listen(address).expect("an address")).collect();
    println!("listening {} {}", std::process::id(), bound.join(" "));
    let served = server.run();
    println!("ended {}", std::process::id());
    std::process::exit(i32::from(served.is_err()));
}

/// The program, and what it and those that follow it print.
struct Running {
    first: Child,
    said: BufReader<ChildStdout>,
    current: i32,
    addresses: Vec<String>,
}

impl Running {
    fn new(config: Config, addresses: &str, next: &str) -> Self {
        let mut first = Command::new(std::env::current_exe().expect("a path"))
            .env(CONFIG, format!("{} {}", config.model.name(), config.engine.name()))
            .env(ADDRESSES, addresses)
            .env(NEXT, next)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let said = BufReader::new(first.stdout.take().expect("a pipe"));
        let mut running = Self { first, said, current: 0, addresses: Vec::new() };
        running.listening();
        running
    }

    /// The next line that begins so: the rest of it.
    #[track_caller]
    fn wait_for(&mut self, beginning: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.said.read_line(&mut line).expect("a line"), 0, "all have ended");
            if let Some(rest) = line.trim_end().strip_prefix(beginning) {
                return rest.trim().to_owned();
            }
        }
    }

    fn listening(&mut self) {
        let line = self.wait_for("listening");
        let mut words = line.split(' ').map(str::to_owned);
        self.current = words.next().expect("a process").parse().expect("a number");
        self.addresses = words.collect();
    }

    /// Asks who serves, by a new connection.
    #[track_caller]
    fn who(&self) -> i32 {
        ask(with_timeouts(TcpStream::connect(&self.addresses[0]).expect("connect")))
    }

    fn stop(mut self) {
        kill(self.current, libc::SIGTERM);
        until("it has ended", || !is_alive(self.current));
        let _ = self.first.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.first.kill();
            kill(self.current, libc::SIGKILL);
        }
    }
}

#[track_caller]
fn ask(mut client: impl Read + Write) -> i32 {
    client.write_all(b"who?").expect("it takes a question");
    let mut answer = String::new();
    BufReader::new(client).read_line(&mut answer).expect("an answer in time");
    answer.trim().parse().unwrap_or_else(|_| panic!("an answer, and not {answer:?}"))
}

fn no_client_is_lost_over_a_restart(config: Config) {
    let path = std::env::temp_dir().join(format!("omnipoll-restart-{}", std::process::id()));
    let path = path.to_str().unwrap();
    let mut server = Running::new(config, &format!("127.0.0.1:0 unix:{path} udp:127.0.0.1:0"), "");
    let addresses = server.addresses.clone();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = |ask_once: &'static (dyn Fn(&str) -> i32 + Sync), address: String| {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    ask_once(&address);
                }
            })
        };
        let over_tcp = &|address: &str| ask(with_timeouts(TcpStream::connect(address).expect("connect")));
        let loads = [
            load(over_tcp, addresses[0].clone()),
            load(over_tcp, addresses[0].clone()),
            load(&|path| ask(UnixStream::connect(path).expect("connect")), path.to_owned()),
            load(&ask_by_datagram, addresses[2]["udp:".len()..].to_owned()),
        ];
        let restarted = || {
            for _ in 0..2 {
                let (old, stays) = (server.current, TcpStream::connect(&addresses[0]).expect("connect"));
                assert_eq!(ask(stays.try_clone().unwrap()), old);
                kill(old, libc::SIGHUP);
                server.listening();
                assert_eq!(server.wait_for("replaced by").parse(), Ok(server.current));
                assert_eq!(server.addresses, addresses);
                until("the new one alone listens", || server.who() == server.current);
                assert_eq!(ask(stays), old, "who is connected is served to the end");
                server.wait_for(&format!("ended {old}"));
            }
        };
        let restarted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(restarted));
        is_over.store(true, Ordering::Relaxed);
        let ended = loads.map(thread::ScopedJoinHandle::join);
        assert!(restarted.is_ok() && ended.iter().all(Result::is_ok), "see the messages above");
    });
    server.stop();
    assert!(!std::path::Path::new(path).exists(), "the last one removes the file");
}

fn ask_by_datagram(address: &str) -> i32 {
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.set_read_timeout(Some(LONG)).expect("a timeout");
    client.send_to(b"who?", address).expect("a datagram");
    let mut answer = [0; 32];
    let length = client.recv(&mut answer).expect("an answer in time");
    String::from_utf8_lossy(&answer[..length]).trim().parse().expect("a number")
}

fn a_program_that_does_not_serve_changes_nothing(config: Config) {
    for (next, errno) in
        [("/nowhere/server", libc::ENOENT), ("false", libc::EPIPE), ("hang", libc::ETIMEDOUT)]
    {
        let mut server = Running::new(config, "127.0.0.1:0", next);
        assert_eq!(server.who(), server.current, "it runs, and handles signals");
        for _ in 0..2 {
            kill(server.current, libc::SIGHUP);
            assert_eq!(server.wait_for("failed with").parse(), Ok(errno), "{next}");
            assert_eq!(server.who(), server.current);
        }
        server.stop();
    }
}

fn a_stop_ends_the_process_that_was_to_follow(config: Config) {
    let mut server = Running::new(config, "127.0.0.1:0", "last");
    assert_eq!(server.who(), server.current);
    kill(server.current, libc::SIGHUP);
    let children = || crate::process::children_of(server.current);
    let name_of = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let mut next = None;
    until("the next one runs", || {
        next = children().into_iter().find(|pid| name_of(pid) == "sleep\n");
        next.is_some()
    });
    kill(server.current, libc::SIGTERM);
    assert_eq!(server.wait_for("failed with").parse(), Ok(libc::ECANCELED));
    server.wait_for("ended");
    until("it has ended", || !is_alive(next.unwrap()));
    server.stop();
}
