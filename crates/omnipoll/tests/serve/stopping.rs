//! How a server stops.

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use omnipoll::{Model, Server, ServerHandle};
use socket2::SockRef;

use crate::client::{end, exchange, expect_end, expect_reset, keep_small, pattern, read, read_to_end, small};
use crate::config::Config;
use crate::log::{Callback, Log};
use crate::process;
use crate::running_server::{port_of, serve, serve_on};
use crate::suite::Suite;
use crate::support::expect::LONG;
use crate::support::sys;
use crate::test_handler::{LoggingHandler, TestHandler};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(a_stop_without_clients_ends_run);
    suite.for_each_config(a_stop_before_it_runs_counts);
    suite.for_each_config(connected_clients_may_finish);
    suite.for_each_config(what_is_queued_is_sent_when_it_stops);
    suite.for_each_config(on_stop_is_called_once);
    suite.for_each_config(no_client_is_accepted_after_a_stop);
    suite.for_each_config(a_client_that_does_not_finish_is_aborted);
    suite.for_each_config(a_stop_without_time_aborts);
    suite.for_each_config(a_second_stop_leaves_less_time);
    suite.for_each_config(clients_in_the_backlog_are_served);
    suite.for_each_config(clients_that_keep_connecting_do_not_delay_a_stop);
    suite.for_models(&[Model::Thread], client_threads_have_ended_when_run_returns);
    suite.for_each_config(a_stop_from_a_signal_handler);
    suite.for_each_config(a_signal_stops_it);
    suite.for_each_config(a_second_signal_ends_it_at_once);
    suite.for_models(&[Model::Fork, Model::Prefork], handlers_that_never_return_are_killed);
    suite.for_each_config(signal_dispositions_are_restored);
    suite.for_each_config(a_panic_when_it_stops);
    suite.for_models(&[Model::Reactor, Model::Cores], a_failing_listener_ends_the_server_with_its_error);
    suite.for_models(&[Model::Reactor, Model::Cores], a_failure_when_accepting_resumes_is_returned_too);
}

const CANCELLED: i64 = libc::ECANCELED as i64;
const EVER: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(100);

fn a_stop_without_clients_ends_run(config: Config) {
    serve(config.options(), TestHandler::echo()).stop_and_check();
    let server = serve(config.options(), TestHandler::echo());
    exchange(&server.client(), b"hello");
    server.stop(EVER);
    assert_eq!(server.wait_for_end().errno, 0);
}

fn clients_that_keep_connecting_do_not_delay_a_stop(config: Config) {
    for drain in [Duration::ZERO, SHORT] {
        let server = serve(config.options().max_clients(1000), TestHandler::echo());
        exchange(&server.client(), b"hello");
        let (address, is_over) = (server.address(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let come = || {
                while !is_over.load(Relaxed) {
                    let _ = TcpStream::connect(address);
                }
            };
            let threads = [(); 2].map(|()| scope.spawn(come));
            server.stop(drain);
            let outcome = server.wait_for_end();
            is_over.store(true, Relaxed);
            // A scope does not wait for its threads to be gone, and the next server is forked.
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(outcome.errno, 0);
        });
    }
}

fn client_threads_have_ended_when_run_returns(config: Config) {
    /// Is destroyed with its thread, after everything else that the thread does.
    struct Local;
    impl Drop for Local {
        fn drop(&mut self) {
            std::thread::sleep(SHORT);
            ENDED.fetch_add(1, Relaxed);
        }
    }
    static ENDED: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static LOCAL: Local = const { Local };
    }
    let (log_writer, _reader) = Log::pipe();
    let handler = TestHandler::echo().on_open(|_, _| {
        LOCAL.with(|_| ());
        Ok(())
    });
    let server = Server::with_options(LoggingHandler { handler, log_writer }, config.options()).unwrap();
    let address = server.listen("127.0.0.1:0").unwrap();
    let handle = server.handle();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| server.run());
        let clients = [(); 3].map(|()| TcpStream::connect(&address).unwrap());
        clients.iter().for_each(|client| exchange(client, b"hello"));
        handle.stop(Some(Duration::ZERO)).unwrap();
        running.join().unwrap().unwrap();
    });
    assert_eq!(ENDED.load(Relaxed), 3);
}

fn a_stop_before_it_runs_counts(config: Config) {
    for drain in [None, Some(Duration::ZERO), Some(EVER)] {
        let server = serve_on(&["127.0.0.1:0"], config.options(), TestHandler::echo(), |handle| {
            handle.stop(drain).unwrap();
        });
        assert_eq!(server.wait_for_end().errno, 0);
    }
}

fn connected_clients_may_finish(config: Config) {
    let handler = TestHandler::echo().on_stop(|conn, log| {
        assert!(conn.is_stopping());
        log.value(1);
    });
    let server = serve(config.options(), handler);
    let clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    clients.iter().for_each(|client| exchange(client, b"before"));
    server.stop(EVER);
    for client in &clients {
        server.expect(client, Callback::Stop);
        exchange(client, b"after");
        end(client);
        expect_end(client);
        assert_eq!(server.expect(client, Callback::Close).value, 0);
    }
    let outcome = server.wait_for_end();
    assert_eq!((outcome.errno, outcome.stats.total.active), (0, 0));
}

fn what_is_queued_is_sent_when_it_stops(config: Config) {
    let handler = TestHandler::echo()
        .on_data(|conn, _, _| {
            keep_small(conn);
            conn.write(&pattern(1, 500_000)).unwrap();
        })
        .on_stop(|conn, _| conn.close());
    let server = serve(config.options(), handler);
    let mut client = small(server.address());
    client.write_all(b"go").unwrap();
    let first = read(&client, 1);
    server.stop(EVER);
    let rest = read_to_end(&client);
    assert!([first, rest].concat() == pattern(1, 500_000));
    end(&client);
    assert_eq!(server.wait_for_end().errno, 0);
}

fn on_stop_is_called_once(config: Config) {
    let server = serve(config.options(), TestHandler::echo());
    let client = server.client();
    exchange(&client, b"hello");
    for drain in [EVER, EVER, 2 * EVER, EVER] {
        server.stop(drain);
        server.expect(&client, Callback::Stop);
        exchange(&client, b"still here");
    }
    let port = port_of(&client);
    drop(client);
    let outcome = server.wait_for_end();
    outcome.log.wait_for("the close", |entries| {
        entries.iter().find(|entry| entry.port == port && entry.callback == Callback::Close).copied()
    });
    let stops = outcome.log.of(port).iter().filter(|entry| entry.callback == Callback::Stop).count();
    assert_eq!(stops, 1);
}

fn no_client_is_accepted_after_a_stop(config: Config) {
    let server = serve(config.options(), TestHandler::echo());
    let clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    clients.iter().for_each(|client| exchange(client, b"hello"));
    server.stop(EVER);
    for client in &clients {
        server.expect(client, Callback::Stop);
    }
    // A listening socket that no process has open refuses.
    process::until("nothing listens", || TcpStream::connect(server.address()).is_err());
    clients.iter().for_each(|client| exchange(client, b"still here"));
    drop(clients);
    assert_eq!(server.wait_for_end().errno, 0);
}

fn a_client_that_does_not_finish_is_aborted(config: Config) {
    let server = serve(config.options(), TestHandler::echo());
    let client = server.client();
    exchange(&client, b"hello");
    let begun = Instant::now();
    server.stop(SHORT);
    expect_reset(&client);
    assert!(begun.elapsed() >= SHORT, "it was aborted after {:?}", begun.elapsed());
    assert_eq!(server.expect(&client, Callback::Close).value, CANCELLED);
    assert_eq!(server.wait_for_end().errno, 0);
}

fn a_stop_without_time_aborts(config: Config) {
    let server = serve(config.options(), TestHandler::echo());
    let clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    clients.iter().for_each(|client| exchange(client, b"hello"));
    server.stop(Duration::ZERO);
    for client in &clients {
        expect_reset(client);
        assert_eq!(server.expect(client, Callback::Close).value, CANCELLED);
    }
    assert_eq!(server.wait_for_end().errno, 0);
}

fn a_second_stop_leaves_less_time(config: Config) {
    for second in [SHORT, Duration::ZERO] {
        for first in [None, Some(EVER)] {
            let server = serve(config.options(), TestHandler::echo());
            let client = server.client();
            exchange(&client, b"hello");
            server.stop(first);
            server.expect(&client, Callback::Stop);
            exchange(&client, b"still here");
            let begun = Instant::now();
            server.stop(second);
            expect_reset(&client);
            assert!(begun.elapsed() >= second, "it was aborted after {:?}", begun.elapsed());
            assert_eq!(server.expect(&client, Callback::Close).value, CANCELLED);
            assert_eq!(server.wait_for_end().errno, 0);
        }
    }
}

fn clients_in_the_backlog_are_served(config: Config) {
    // The kernel has accepted the clients that connected before the stop.
    let server = serve_on(&["127.0.0.1:0"], config.options(), TestHandler::echo(), |handle| {
        let address = handle.addresses()[0].clone();
        for _ in 0..3 {
            let mut client = TcpStream::connect(&address).unwrap();
            client.write_all(b"early").unwrap();
            end(&client);
            std::mem::forget(client);
        }
        handle.stop(None).unwrap();
    });
    let outcome = server.wait_for_end();
    assert_eq!(outcome.stats.total.accepted, 3);
    assert_eq!((outcome.errno, outcome.stats.total.bytes_out), (0, 15));
}

static HANDLE: OnceLock<ServerHandle> = OnceLock::new();

extern "C" fn stop_in_a_signal_handler(_: libc::c_int) {
    if let Some(handle) = HANDLE.get() {
        let _ = handle.stop(Some(Duration::from_secs(3600)));
    }
}

fn a_stop_from_a_signal_handler(config: Config) {
    let server = serve_on(&["127.0.0.1:0"], config.options(), TestHandler::echo(), |handle| {
        assert!(HANDLE.set(handle.clone()).is_ok());
        sys::on_signal(libc::SIGUSR1, stop_in_a_signal_handler);
    });
    let client = server.client();
    exchange(&client, b"hello");
    server.process.signal(libc::SIGUSR1);
    server.expect(&client, Callback::Stop);
    exchange(&client, b"still here");
    drop(client);
    assert_eq!(server.wait_for_end().errno, 0);
}

fn a_signal_stops_it(config: Config) {
    for signo in [libc::SIGTERM, libc::SIGINT] {
        let server = serve(config.options().signals(true).drain(Some(EVER)), TestHandler::echo());
        let client = server.client();
        exchange(&client, b"hello");
        server.process.signal(signo);
        server.expect(&client, Callback::Stop);
        exchange(&client, b"still here");
        drop(client);
        assert_eq!(server.wait_for_end().errno, 0);
    }
}

fn a_second_signal_ends_it_at_once(config: Config) {
    let server = serve(config.options().signals(true).drain(None), TestHandler::echo());
    let client = server.client();
    exchange(&client, b"hello");
    server.process.signal(libc::SIGTERM);
    server.expect(&client, Callback::Stop);
    exchange(&client, b"still here");
    server.process.signal(libc::SIGINT);
    expect_reset(&client);
    assert_eq!(server.expect(&client, Callback::Close).value, CANCELLED);
    assert_eq!(server.wait_for_end().errno, 0);
}

fn handlers_that_never_return_are_killed(config: Config) {
    // After a second signal, and when the drain's time is up.
    for (drain, signals) in [(None, &[libc::SIGTERM, libc::SIGINT][..]), (Some(SHORT), &[libc::SIGTERM])] {
        // Longer than the test would wait for the end.
        let handler = TestHandler::echo().on_data(|_, _, _| std::thread::sleep(2 * LONG));
        let server = serve(config.options().signals(true).drain(drain), handler);
        let mut client = server.client();
        client.write_all(b"hello").unwrap();
        server.expect(&client, Callback::Data);
        signals.iter().for_each(|&signal| server.process.signal(signal));
        let outcome = server.wait_for_end();
        assert_eq!((outcome.errno, outcome.stats.total.active), (0, 0));
    }
}

fn signal_dispositions_are_restored(config: Config) {
    sys::on_signal(libc::SIGINT, stop_in_a_signal_handler);
    let before = [libc::SIGTERM, libc::SIGINT].map(sys::handler_of);
    let (log_writer, _reader) = Log::pipe();
    let server = Server::with_options(
        LoggingHandler { handler: TestHandler::echo(), log_writer },
        config.options().signals(true),
    )
    .unwrap();
    server.listen("127.0.0.1:0").unwrap();
    server.handle().stop(None).unwrap();
    server.run().unwrap();
    // The server is still there, and serves no more.
    assert_eq!([libc::SIGTERM, libc::SIGINT].map(sys::handler_of), before);
    drop(server);
}

fn a_panic_when_it_stops(config: Config) {
    let server = serve(config.options(), TestHandler::echo().on_stop(|_, _| panic!("in Stop, as it should")));
    let clients: Vec<_> = (0..3).map(|_| server.client()).collect();
    clients.iter().for_each(|client| exchange(client, b"hello"));
    server.stop(None);
    for client in &clients {
        expect_reset(client);
        assert_eq!(server.expect(client, Callback::Close).value, libc::ENOTRECOVERABLE.into());
    }
    let outcome = server.wait_for_end();
    assert_eq!(outcome.errno, 0);
    assert!(config.model != Model::Prefork || outcome.stats.total.restarts == 0, "a worker has died");
}

/// A file that is no socket, to replace sockets.
static FILE: OnceLock<File> = OnceLock::new();

/// Makes the fds of this process's listening sockets refer to another file, as when other code closes
/// descriptors that it does not own.
fn replace_listening_sockets() {
    // Without reading a folder, which would need a descriptor.
    for number in (0..1024).filter(|&number| sys::is_open(number)) {
        // SAFETY: it was open a moment ago, and what it is belongs to this process.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        if SockRef::from(&descriptor).is_listener().unwrap_or(false) {
            sys::replace(FILE.get().expect("a file"), &descriptor);
        }
    }
}

/// Replaces the sockets when that message comes, and lists what becomes of the others.
fn replaced_at(word: &'static [u8]) -> TestHandler {
    TestHandler::echo().on_data(move |conn, _, data| match data {
        data if data == word => {
            replace_listening_sockets();
            conn.abort();
        }
        b"no more" => {
            sys::leave_descriptors(0);
            conn.write(data).unwrap();
        }
        data => drop(conn.write(data).unwrap()),
    })
}

fn with_a_file(_: &ServerHandle) {
    FILE.set(File::open("/proc/self/exe").unwrap()).unwrap();
}

fn a_failing_listener_ends_the_server_with_its_error(config: Config) {
    // It has paused accepting because it is full; when a client has left, it can't resume.
    let options = config.options().workers(1).max_clients(2);
    let server = serve_on(&["127.0.0.1:0"], options, replaced_at(b"spoil"), with_a_file);
    let (witness, mut other) = (server.client(), server.client());
    exchange(&witness, b"hello");
    exchange(&other, b"hello");
    other.write_all(b"spoil").unwrap();
    expect_reset(&witness);
    assert_eq!(server.expect(&witness, Callback::Close).value, CANCELLED);
    assert_ne!(server.wait_for_end().errno, 0);
}

fn a_failure_when_accepting_resumes_is_returned_too(config: Config) {
    // Accepting is paused because there are no descriptors; the next client that leaves resumes it. With a
    // bound, for a ring that accepts without one keeps to the limit of when it began.
    let options = config.options().workers(1).max_clients(100);
    let mut server = serve_on(&["127.0.0.1:0"], options, replaced_at(b"spoil"), with_a_file);
    let (witness, mut other) = (server.client(), server.client());
    exchange(&witness, b"hello");
    exchange(&other, b"no more");
    let _waits = server.client();
    server.until("descriptors have run out", |stats| stats.total.accept_pauses > 0);
    other.write_all(b"spoil").unwrap();
    expect_reset(&witness);
    assert_eq!(server.expect(&witness, Callback::Close).value, CANCELLED);
    assert_ne!(server.wait_for_end().errno, 0);
}
