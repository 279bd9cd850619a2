//! A handler that forks in each of its calls. What it has forked ends, becomes another program,
//! makes a server of its own, or returns to its parent's; the server continues.

use std::io::{self, Write};
use std::net::{TcpStream, UdpSocket};
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use omnipoll::{Conn, Datagram, Handler, LoopRef, Model, Server};

use crate::client::{end, exchange, expect_end, keep_small, read, read_to_end, small, with_timeouts};
use crate::config::Config;
use crate::log::{Callback, ConnLog, Log, LogWriter};
use crate::process::kill;
use crate::running_server::{serve_with, Outcome, RunningServer};
use crate::suite::Suite;
use crate::support::engines;
use crate::support::expect::LONG;
use crate::support::sys::{self, ForkCall};
use crate::test_handler::{LoggingHandler, TestHandler};

/// A call of the handler's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    WorkerStart,
    WorkerEnd,
    Open,
    Data,
    Drain,
    End,
    Close,
    Post,
    Stop,
    Datagram,
}

const CALLS: [Call; 10] = [
    Call::WorkerStart,
    Call::WorkerEnd,
    Call::Open,
    Call::Data,
    Call::Drain,
    Call::End,
    Call::Close,
    Call::Post,
    Call::Stop,
    Call::Datagram,
];

impl Call {
    /// Whether a handler is called so under this model.
    fn is_made(self, model: Model) -> bool {
        match self {
            Self::Datagram => !matches!(model, Model::Thread | Model::Fork),
            _ => true,
        }
    }

    /// Whether it comes when the server has been stopped.
    fn is_after_stop(self) -> bool {
        matches!(self, Self::Stop | Self::WorkerEnd)
    }
}

/// What becomes of the process that was forked.
#[derive(Clone, Copy, Debug)]
enum Life {
    EndsAtOnce,
    Executes,
    Serves,
    /// To where it is of no use: `run` fails, or ends the process.
    Returns,
}

const LIVES: [Life; 4] = [Life::EndsAtOnce, Life::Executes, Life::Serves, Life::Returns];

impl Life {
    /// Returns only if that is its life.
    fn live(self, config: Config) {
        // It must not unwind into its parent's server.
        let lived = catch_unwind(|| match self {
            Self::EndsAtOnce | Self::Returns => {}
            Self::Executes => sys::execute("sh", &["-c", sys::NOTHING_ELSE_IS_OPEN]),
            Self::Serves => serve_single_client(config),
        });
        if !matches!(self, Self::Returns) {
            sys::exit_at_once(i32::from(lived.is_err()));
        }
    }

    /// Its status.
    fn end(self) -> i64 {
        match self {
            Self::Returns => 1 << 8,
            _ => 0,
        }
    }
}

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(in_a_handler);
    suite.for_each_config(forked_beside_threads_that_use_the_server);
    suite.for_models(&[Model::Cores, Model::Thread], in_a_destructor_of_a_thread);
    for model in Model::ALL {
        for engine in engines() {
            for call in CALLS.into_iter().filter(|call| call.is_made(model)) {
                let name = format!("forking::in_on_{call:?} [{}, {}]", model.name(), engine.name());
                suite.add(name.to_lowercase(), move || each_life(Config { model, engine }, call));
            }
        }
    }
}

/// The calls after which a child may do all this: but for `fork(2)` the memory of a process may
/// be unusable whose other threads allocate.
fn fork_calls(model: Model, at: Call) -> impl Iterator<Item = ForkCall> {
    let is_alone = !matches!(model, Model::Cores | Model::Thread) && !at.is_after_stop();
    sys::fork_calls().filter(move |&call| call == ForkCall::Fork || is_alone)
}

fn each_life(config: Config, at: Call) {
    for (call, life) in fork_calls(config.model, at).flat_map(|call| LIVES.map(|life| (call, life))) {
        let addresses: &[&str] =
            if at == Call::Datagram { &["127.0.0.1:0", "udp:127.0.0.1:0"] } else { &["127.0.0.1:0"] };
        let options = config.options().signals(true).water_marks(10_000, 100_000);
        let server = serve_with(
            addresses,
            options,
            |log_writer| Forker { config, at, call, life, log_writer },
            |_| {},
        );
        let client = small(server.address());
        exchange(&client, b"hello");
        provoke(at, &server, &client);
        if !at.is_after_stop() {
            expect_child_has_ended(&server, life);
        }
        let other = server.client();
        exchange(&other, b"hello");
        let has_ended = matches!(at, Call::End | Call::Close);
        if !has_ended {
            exchange(&client, b"still served");
        }
        match at {
            Call::Stop => server.stop(None),
            _ if has_ended => end(&other),
            _ => [&client, &other].into_iter().for_each(end),
        }
        // In order: no child has had it reset.
        expect_end(&client);
        expect_end(&other);
        drop((client, other));
        if at != Call::Stop {
            server.stop(None);
        }
        let Outcome { errno, log, stats } = server.wait_for_end();
        assert_eq!(errno, 0, "run has failed");
        let total = stats.total;
        assert_eq!((total.accepted, total.active, total.refused), (2, 0, 0), "{call:?}, {life:?}");
        let statuses: Vec<_> =
            log.all().iter().filter(|it| it.callback == Callback::Value).map(|it| it.value).collect();
        assert!(
            !statuses.is_empty() && statuses.iter().all(|&it| it == life.end()),
            "{call:?}, {life:?}: {statuses:?}"
        );
    }
}

/// What the handler of a signal forks, and where it says how that has ended.
static FORKED_BY_SIGNAL: OnceLock<(ForkCall, Life, LogWriter)> = OnceLock::new();

/// The handler of a signal that interrupts the wait of the loop which runs in the thread of `run`.
fn in_a_handler(config: Config) {
    extern "C" fn handler(_: libc::c_int) {
        let (call, life, log_writer) = FORKED_BY_SIGNAL.get().expect("what to do");
        match sys::fork_by(*call) {
            0 if matches!(life, Life::Returns) => sys::end_after_seconds(20),
            0 => sys::exit_at_once(0),
            child => ConnLog::without_connection(log_writer).value(sys::wait_for(child)),
        }
    }
    for (call, life) in
        sys::fork_calls().flat_map(|call| [Life::EndsAtOnce, Life::Returns].map(|it| (call, it)))
    {
        let handle = |log_writer: LogWriter| {
            FORKED_BY_SIGNAL.get_or_init(|| (call, life, log_writer.clone()));
            sys::on_signal(libc::SIGUSR2, handler);
            LoggingHandler { handler: TestHandler::echo(), log_writer }
        };
        let server = serve_with(&["127.0.0.1:0"], config.options(), handle, |_| {});
        let client = server.client();
        exchange(&client, b"hello");
        // Only there may it fork: fork(2) itself is not to be interrupted so, nor is the allocator.
        let pid = server.process.pid;
        sys::wait_until_asleep_in(pid, pid);
        sys::signal_thread_in(pid, pid, libc::SIGUSR2);
        expect_child_has_ended(&server, life);
        exchange(&client, b"still served");
        let other = server.client();
        exchange(&other, b"hello");
        [&client, &other].into_iter().for_each(end);
        expect_end(&client);
        expect_end(&other);
        let total = server.stop_and_check().stats.total;
        assert_eq!((total.accepted, total.active, total.refused), (2, 0, 0), "{call:?}, {life:?}");
    }
}

/// What the destructor of a thread forks, by what way it serves, and where it says how that has ended.
static FORKED_BY_DESTRUCTOR: OnceLock<(Config, Life, LogWriter)> = OnceLock::new();

/// A destructor of a thread that the server has made forks. Its thread is over; the server continues.
fn in_a_destructor_of_a_thread(config: Config) {
    extern "C" fn destructor(_: *mut libc::c_void) {
        let (config, life, log_writer) = FORKED_BY_DESTRUCTOR.get().expect("what to do");
        match sys::fork_by(ForkCall::Fork) {
            0 => {
                sys::end_after_seconds(20);
                life.live(*config);
            }
            child => ConnLog::without_connection(log_writer).value(sys::wait_for(child)),
        }
    }

    /// Gives each of the server's own threads the destructor.
    struct Mortal(LoggingHandler);

    impl Handler for Mortal {
        type State = <LoggingHandler as Handler>::State;

        fn on_worker_start(&self, _: &mut LoopRef<'_>) -> io::Result<()> {
            // REACTOR's and the first of CORES run in the thread of `run`, which is the program's own.
            if !sys::is_first_thread() {
                sys::at_thread_exit(destructor);
            }
            Ok(())
        }

        fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<Self::State> {
            self.0.on_open(conn)
        }

        fn on_data(&self, conn: &mut Conn<'_>, state: &mut Self::State, data: &[u8]) {
            self.0.on_data(conn, state, data);
        }
    }

    for life in [Life::EndsAtOnce, Life::Executes, Life::Serves] {
        let handle = |log_writer: LogWriter| {
            FORKED_BY_DESTRUCTOR.get_or_init(|| (config, life, log_writer.clone()));
            Mortal(LoggingHandler { handler: TestHandler::echo(), log_writer })
        };
        let server = serve_with(&["127.0.0.1:0"], config.options().workers(2).signals(true), handle, |_| {});
        let client = server.client();
        exchange(&client, b"hello");
        end(&client);
        expect_end(&client);
        if config.model == Model::Thread {
            expect_child_has_ended(&server, life);
        }
        let other = server.client();
        exchange(&other, b"still served");
        end(&other);
        expect_end(&other);
        let log = server.stop_and_check().log;
        let statuses: Vec<_> =
            log.all().iter().filter(|it| it.callback == Callback::Value).map(|it| it.value).collect();
        let threads = if config.model == Model::Thread { 2 } else { 1 };
        assert_eq!(statuses, vec![life.end(); threads], "{life:?}");
    }
}

/// Has the child of a program with threads do all that one may do to the server it has inherited. It
/// waits for no lock that a thread of its parent held.
fn forked_beside_threads_that_use_the_server(config: Config) {
    const FORKS: usize = 50;
    let (log_writer, _reader) = Log::pipe();
    let server =
        Server::with_options(LoggingHandler { handler: TestHandler::echo(), log_writer }, config.options())
            .unwrap();
    server.listen("127.0.0.1:0").unwrap();
    let (handle, is_over) = (server.handle(), AtomicBool::new(false));
    let mut server = Some(server);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                drop((handle.addresses(), handle.dup_listener(0)));
                handle.keep_files();
                let _ = handle.broadcast(b"to nobody");
            }
        });
        let failed = (0..FORKS)
            .map(|_| match sys::fork_by(ForkCall::Fork) {
                0 => {
                    sys::end_after_seconds(20);
                    let errno = |error: io::Error| error.raw_os_error();
                    let _ = handle.addresses();
                    let duplicated = handle.dup_listener(0).err().and_then(errno);
                    handle.keep_files();
                    let _ = handle.broadcast(b"to nobody");
                    let stopped = handle.stop(None).err().and_then(errno);
                    drop(server.take());
                    let is_right =
                        stopped == Some(libc::EOWNERDEAD) && matches!(duplicated, None | Some(libc::EBUSY));
                    sys::exit_at_once(i32::from(!is_right))
                }
                child => sys::wait_for(child),
            })
            .find(|&status| status != 0);
        is_over.store(true, Relaxed);
        assert_eq!(failed, None);
    });
}

/// Has the server make that call.
fn provoke(call: Call, server: &RunningServer, mut client: &TcpStream) {
    match call {
        Call::WorkerStart | Call::WorkerEnd | Call::Open | Call::Data | Call::Stop => {}
        Call::Drain => {
            client.write_all(b"fill").unwrap();
            read(client, FILL);
        }
        Call::Post => {
            client.write_all(b"post").unwrap();
            assert_eq!(read(client, 6), b"posted");
        }
        Call::End | Call::Close => {
            end(client);
            expect_end(client);
        }
        Call::Datagram => {
            let address = server.addresses()[1].strip_prefix("udp:").expect("how it is written");
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(LONG)).unwrap();
            socket.connect(address).unwrap();
            socket.send(b"hello").unwrap();
            assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 5);
        }
    }
}

#[track_caller]
fn expect_child_has_ended(server: &RunningServer, life: Life) {
    let status = server.log.wait_for("how the child has ended", |entries| {
        entries.iter().find(|entry| entry.callback == Callback::Value).map(|entry| entry.value)
    });
    assert_eq!(status, life.end(), "how the child has ended that {life:?}");
}

const FILL: usize = 500_000;

/// Sends back what it is sent, and forks in one of its calls.
struct Forker {
    config: Config,
    at: Call,
    call: ForkCall,
    life: Life,
    log_writer: LogWriter,
}

impl Forker {
    /// Forks if this is the call to do so, and says how the child has ended. Says whether this is
    /// the child, which returns.
    fn called(&self, call: Call) -> bool {
        if call != self.at {
            return false;
        }
        match sys::fork_by(self.call) {
            0 => {
                sys::end_after_seconds(20);
                self.life.live(self.config);
                true
            }
            child => {
                ConnLog::without_connection(&self.log_writer).value(sys::wait_for(child));
                false
            }
        }
    }
}

impl Handler for Forker {
    type State = ();

    fn on_worker_start(&self, _: &mut LoopRef<'_>) -> io::Result<()> {
        self.called(Call::WorkerStart);
        Ok(())
    }

    fn on_worker_end(&self, _: &mut LoopRef<'_>) {
        self.called(Call::WorkerEnd);
    }

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
        self.called(Call::Open);
        Ok(())
    }

    fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) {
        if self.called(Call::Data) {
            return;
        }
        match data {
            b"fill" => {
                keep_small(conn);
                conn.write(&[0; FILL]).map(drop)
            }
            b"post" => conn.id().post(1),
            data => conn.write(data).map(drop),
        }
        .expect("there is room");
    }

    fn on_drain(&self, _: &mut Conn<'_>, _: &mut ()) {
        self.called(Call::Drain);
    }

    fn on_end(&self, conn: &mut Conn<'_>, _: &mut ()) {
        if !self.called(Call::End) {
            conn.close();
        }
    }

    fn on_close(&self, _: &mut Conn<'_>, _: (), _: Option<io::Error>) {
        self.called(Call::Close);
    }

    fn on_post(&self, conn: &mut Conn<'_>, _: &mut (), _: i64) {
        if !self.called(Call::Post) {
            conn.write(b"posted").expect("there is room");
        }
    }

    fn on_stop(&self, conn: &mut Conn<'_>, _: &mut ()) {
        if !self.called(Call::Stop) {
            conn.close();
        }
    }

    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        if !self.called(Call::Datagram) {
            datagram.reply(data).expect("there is room");
        }
    }
}

/// Sends back what it is sent, and stops the server when a client has gone.
struct Once {
    server: i32,
}

impl Handler for Once {
    type State = ();

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
        Ok(())
    }

    fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) {
        conn.write(data).expect("there is room");
    }

    fn on_close(&self, _: &mut Conn<'_>, _: (), _: Option<io::Error>) {
        kill(self.server, libc::SIGTERM);
    }
}

/// A server's whole life, without a thread for the client.
fn serve_single_client(config: Config) {
    let options = config.options().workers(1).signals(true).drain(Some(Duration::from_secs(5)));
    let server = Server::with_options(Once { server: std::process::id() as i32 }, options).expect("a server");
    let address = server.listen("127.0.0.1:0").expect("listen");
    let mut client = with_timeouts(TcpStream::connect(address).expect("connect"));
    client.write_all(b"hello").expect("write");
    end(&client);
    server.run().expect("run");
    assert_eq!(read_to_end(&client), b"hello");
}
