//! Clients that have processes of their own, and what happens to others when one dies.

use std::collections::HashSet;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use omnipoll::Model;

use crate::client::{exchange, expect_end, expect_reset};
use crate::config::Config;
use crate::log::Callback;
use crate::process::{self, children_of, is_alive, is_zombie, kill};
use crate::running_server::{serve, serve_on, RunningServer};
use crate::suite::Suite;
use crate::support::sys;
use crate::test_handler::TestHandler;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_models(&[Model::Fork], every_client_has_a_process);
    suite.for_models(&[Model::Fork], a_client_that_cannot_be_served_is_counted);
    suite.for_models(&[Model::Fork], children_that_the_system_reaps);
    suite.for_models(&[Model::Fork], children_that_the_program_reaps);
    suite.for_models(&[Model::Prefork], workers_reaped_by_the_program_are_replaced);
    suite.for_models(&[Model::Prefork], a_server_whose_workers_cannot_serve_ends_with_the_reason);
    suite.for_models(&[Model::Fork, Model::Prefork], a_crash_affects_one_process_only);
    suite.for_models(&[Model::Prefork], workers_that_are_killed_are_replaced);
    suite.for_models(&[Model::Prefork], a_worker_that_dies_at_once_is_replaced_with_back_off);
    suite.for_models(&[Model::Prefork], ids_of_workers_differ);
    suite.for_models(&[Model::Fork, Model::Prefork], no_child_outlives_the_parent);
    suite.for_models(&[Model::Fork], the_port_is_free_when_the_parent_has_died);
    suite.for_models(&[Model::Fork, Model::Prefork], forks_call_the_fork_hooks);
}

/// The process that serves this client.
#[track_caller]
fn process_of(server: &RunningServer, client: &TcpStream) -> i32 {
    exchange(client, b"who are you?");
    server.expect(client, Callback::Open).process
}

fn has_no_zombies(server: &RunningServer) -> bool {
    !children_of(server.process.pid).into_iter().any(is_zombie)
}

fn every_client_has_a_process(config: Config) {
    let server = serve(config.options(), TestHandler::echo());
    let clients: Vec<_> = (0..10).map(|_| server.client()).collect();
    let processes: HashSet<i32> = clients.iter().map(|client| process_of(&server, client)).collect();
    assert_eq!(processes.len(), 10);
    assert!(!processes.contains(&server.process.pid));
    drop(clients);
    process::until("all have ended and been reaped", || children_of(server.process.pid).is_empty());
    server.stop_and_check();
}

fn a_client_that_cannot_be_served_is_counted(config: Config) {
    use std::sync::atomic::{AtomicBool, Ordering};
    static IS_POOR: AtomicBool = AtomicBool::new(true);
    // The first child can't open anything.
    let around = std::sync::Arc::new(|fork: &mut dyn FnMut() -> i32| {
        let pid = fork();
        match IS_POOR.swap(false, Ordering::SeqCst) {
            true if pid == 0 => sys::forbid_more_descriptors(),
            _ => {}
        }
        pid
    });
    let mut server = serve(config.options().around_fork(around), TestHandler::echo());
    expect_end(&server.client());
    let stats =
        server.until("no client is left", |stats| stats.total.accepted == 1 && stats.total.active == 0);
    assert_eq!(stats.total.refused, 1, "it was not served, and no callback was called");
    exchange(&server.client(), b"hello");
    server.stop_and_check();
}

fn children_that_the_system_reaps(config: Config) {
    serve_short_clients(config, sys::ignore_children);
}

fn children_that_the_program_reaps(config: Config) {
    serve_short_clients(config, sys::reap_all_children);
}

/// Children end before their parent has looked at them, and other code reaps them.
fn serve_short_clients(config: Config, reap: fn()) {
    let options = config.options().max_clients(8);
    let mut server = serve_on(&["127.0.0.1:0"], options, TestHandler::echo(), |_| reap());
    for _ in 0..100 {
        exchange(&server.client(), b"hello");
    }
    server.until("no client is left", |stats| stats.total.accepted == 100 && stats.total.active == 0);
    let last = server.client();
    exchange(&last, b"hello");
    server.stop(Duration::ZERO);
    assert_eq!(server.wait_for_end().errno, 0);
}

fn workers_reaped_by_the_program_are_replaced(config: Config) {
    for reap in [sys::ignore_children, sys::reap_all_children] {
        let mut server = serve_on(&["127.0.0.1:0"], config.options().workers(2), crashing(), |_| reap());
        for restarts in 1..=3 {
            let mut doomed = server.client();
            exchange(&doomed, b"hello");
            doomed.write_all(b"kill").unwrap();
            server.until("it has been replaced", |stats| stats.total.restarts == restarts);
        }
        exchange(&server.client(), b"hello");
        server.stop(Duration::ZERO);
        assert_eq!(server.wait_for_end().errno, 0);
    }
}

fn a_server_whose_workers_cannot_serve_ends_with_the_reason(config: Config) {
    let around = std::sync::Arc::new(|fork: &mut dyn FnMut() -> i32| {
        let pid = fork();
        if pid == 0 {
            sys::forbid_more_descriptors();
        }
        pid
    });
    let server = serve(config.options().around_fork(around), TestHandler::echo());
    let outcome = server.wait_for_end();
    assert_eq!(outcome.errno, libc::EMFILE);
    assert!(outcome.stats.total.restarts > 0);
}

/// Ways for a process to die of what its handler does.
fn crashing() -> TestHandler {
    TestHandler::echo().on_data(|conn, _, data| match data {
        b"abort" => std::process::abort(),
        b"exit" => std::process::exit(3),
        b"kill" => kill(std::process::id() as i32, libc::SIGKILL),
        _ => drop(conn.write(data)),
    })
}

fn a_crash_affects_one_process_only(config: Config) {
    let mut server = serve(config.options().workers(4), crashing());
    // Until one of them has a process that none of the doomed has.
    let mut witnesses: Vec<TcpStream> = (0..8).map(|_| server.client()).collect();
    let mut doomed_processes = Vec::new();
    for (turn, word) in ["abort", "exit", "kill"].into_iter().enumerate() {
        let mut doomed = server.client();
        let process = process_of(&server, &doomed);
        doomed_processes.push(process);
        witnesses.retain(|witness| process_of(&server, witness) != process);
        doomed.write_all(word.as_bytes()).unwrap();
        if config.model == Model::Fork {
            // No process is left that could have sent a reset: it sees a clean end.
            let mut rest = Vec::new();
            let _ = std::io::Read::read_to_end(&mut doomed, &mut rest);
        }
        process::until("it has died, and been reaped", || !is_alive(process) && has_no_zombies(&server));
        witnesses.iter().for_each(|witness| exchange(witness, b"untouched"));
        if config.model == Model::Prefork {
            server.until("it has been replaced", |stats| stats.total.restarts == turn as u64 + 1);
        }
        // New clients find a worker.
        exchange(&server.client(), b"hello");
    }
    let left = witnesses.len() as u64;
    server.until("a client of a dead process is not counted", |stats| stats.total.active == left);
    drop(witnesses);
    server.stop_and_check();
}

fn workers_that_are_killed_are_replaced(config: Config) {
    let mut server = serve(config.options().workers(3), TestHandler::echo());
    for round in 1..=3 {
        process::until("there are three", || children_of(server.process.pid).len() == 3);
        let workers = children_of(server.process.pid);
        kill(workers[0], libc::SIGKILL);
        server.until("it has been replaced", |stats| stats.total.restarts == round);
        process::until("there are three others", || {
            let now = children_of(server.process.pid);
            now.len() == 3 && !now.contains(&workers[0]) && now.contains(&workers[1])
        });
        exchange(&server.client(), b"hello");
    }
    assert!(has_no_zombies(&server));
    server.stop_and_check();
}

fn a_worker_that_dies_at_once_is_replaced_with_back_off(config: Config) {
    // 10 ms, 20, 40, ...: without a back-off there would be hundreds.
    let mut server = serve(config.options().workers(1), crashing().on_open(|_, _| std::process::exit(1)));
    let begun = std::time::Instant::now();
    let mut clients = Vec::new();
    while begun.elapsed() < Duration::from_millis(500) {
        if let Ok(client) = TcpStream::connect(server.address()) {
            clients.push(client);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let elapsed = begun.elapsed();
    let restarts = server.stats().total.restarts;
    // The n-th is not before 10 ms * (2^(n-1) - 1).
    let most = (1..).find(|&n| Duration::from_millis(10 * ((1 << (n - 1)) - 1)) > elapsed).unwrap();
    assert!((1..=most).contains(&restarts), "{restarts} restarts in {elapsed:?}");
    server.stop(Duration::ZERO);
    assert_eq!(server.wait_for_end().errno, 0);
}

fn ids_of_workers_differ(config: Config) {
    let server = serve(config.options().workers(3), TestHandler::echo());
    let clients: Vec<_> = (0..30).map(|_| server.client()).collect();
    clients.iter().for_each(|client| exchange(client, b"hello"));
    let ids: HashSet<u64> = clients.iter().map(|client| server.expect(client, Callback::Open).id).collect();
    assert_eq!(ids.len(), 30);
    let numbers: HashSet<usize> =
        clients.iter().map(|client| server.expect(client, Callback::Open).worker).collect();
    assert!(numbers.iter().all(|&number| number < 3));
    drop(clients);
    server.stop_and_check();
}

fn no_child_outlives_the_parent(config: Config) {
    let server = serve(config.options().drain(Some(Duration::from_millis(300))), TestHandler::echo());
    let clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    let processes: HashSet<i32> = clients.iter().map(|client| process_of(&server, client)).collect();
    server.process.signal(libc::SIGKILL);
    for client in &clients {
        // They get on_stop, may finish, and are ended when the time is up.
        server.expect(client, Callback::Stop);
        expect_reset(client);
        assert_eq!(server.expect(client, Callback::Close).value, libc::ECANCELED.into());
    }
    process::until("none is left", || !processes.iter().any(|&process| is_alive(process)));
}

fn the_port_is_free_when_the_parent_has_died(config: Config) {
    let mut server = serve(config.options().drain(None), TestHandler::echo());
    let client = server.client();
    let process = process_of(&server, &client);
    server.process.signal(libc::SIGKILL);
    server.process.wait();
    // The parent's descriptors are closed, and the child, which gets no request to end its client, has
    // none for the port.
    server.expect(&client, Callback::Stop);
    process::until("nothing listens there", || TcpListener::bind(server.address()).is_ok());
    exchange(&client, b"still served");
    drop(client);
    process::until("it ends with its client", || !is_alive(process));
}

fn forks_call_the_fork_hooks(config: Config) {
    use std::sync::atomic::{AtomicI32, Ordering};
    static BEFORE: AtomicI32 = AtomicI32::new(0);
    static CHILD: AtomicI32 = AtomicI32::new(0);
    let around = std::sync::Arc::new(|fork: &mut dyn FnMut() -> i32| {
        BEFORE.fetch_add(1, Ordering::SeqCst);
        let pid = fork();
        if pid == 0 {
            CHILD.store(BEFORE.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        pid
    });
    let handler = TestHandler::echo().on_open(|_, log| {
        log.value(CHILD.load(Ordering::SeqCst));
        Ok(())
    });
    let server = serve(config.options().workers(1).around_fork(around), handler);
    let client = server.client();
    exchange(&client, b"hello");
    assert_eq!(server.values(&client, 1), [1]);
    drop(client);
    server.stop_and_check();
}
