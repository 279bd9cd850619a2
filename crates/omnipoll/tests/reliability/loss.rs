//! Clients that vanish, workers that are killed, handlers that panic, descriptors that run out.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use omnipoll::Model;

use crate::client::with_timeouts;
use crate::client::{exchange, expect_reset, reset};
use crate::config::Config;
use crate::echo::{ask, serve, Echo};
use crate::process::{self, children_of, kill};
use crate::running_server::{serve_with, RunningServer};
use crate::suite::Suite;
use crate::support::expect::LONG;
use crate::support::sys;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(a_thousand_clients_vanish_mid_message);
    suite.for_each_config(a_handler_that_panics);
    suite.for_each_config(descriptors_run_out_and_come_back);
    suite.for_models(&[Model::Prefork], half_of_the_workers_are_killed_under_load);
}

fn a_thousand_clients_vanish_mid_message(config: Config) {
    const TRANSFERS: usize = 1000;
    let mut server = serve(config.options());
    let witness = server.client();
    // Among them each loop has some, and with its first client it has all it needs for any.
    fifty_clients_vanish(&server);
    server.until("all but the witness are gone", |stats| stats.total.active == 1);
    let before = u64::from_le_bytes(ask(&witness, b"memory?"));
    let begun = Instant::now();
    for _ in 0..TRANSFERS / 50 {
        fifty_clients_vanish(&server);
    }
    let stats = server.until("all but the witness are gone", |stats| stats.total.active == 1);
    assert_eq!(stats.total.accepted, TRANSFERS as u64 + 51);
    let lasted = begun.elapsed();
    exchange(&witness, b"still here");
    // What a loop keeps for the next ones: 50 at a time. A client's thread may end after its connection.
    const KEPT: u64 = 200;
    let deadline = Instant::now() + LONG;
    let kept = loop {
        let after = u64::from_le_bytes(ask(&witness, b"memory?"));
        let kept = after.saturating_sub(before) / TRANSFERS as u64;
        if kept < KEPT || Instant::now() > deadline {
            break kept;
        }
    };
    println!(
        "{TRANSFERS} transfers reset in the middle in {lasted:?}: {kept} bytes each stay in use ({}, {})",
        config.model.name(),
        config.engine.name()
    );
    assert!(kept < KEPT, "{kept} bytes are kept of each closed client");
    drop(witness);
    server.stop_and_check();
}

fn fifty_clients_vanish(server: &RunningServer) {
    let mut clients: Vec<TcpStream> = (0..50).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"much!").expect("write"));
    for mut client in clients {
        client.read_exact(&mut [0; 1000]).expect("the beginning");
        reset(client);
    }
}

fn a_handler_that_panics(config: Config) {
    const PANICS: usize = 200;
    let mut server = serve(config.options());
    let witness = server.client();
    let begun = Instant::now();
    for _ in 0..PANICS / 20 {
        let mut clients: Vec<TcpStream> = (0..20).map(|_| server.client()).collect();
        for client in &mut clients {
            exchange(client, b"hello");
            client.write_all(b"panic!").expect("write");
        }
        clients.iter().for_each(expect_reset);
        exchange(&witness, b"still here");
    }
    let stats = server.until("all but the witness are gone", |stats| stats.total.active == 1);
    assert_eq!(stats.total.restarts, 0, "a worker has died of it");
    println!(
        "{PANICS} panics in {:?}, each one client's ({}, {})",
        begun.elapsed(),
        config.model.name(),
        config.engine.name()
    );
    drop(witness);
    server.stop_and_check();
}

fn descriptors_run_out_and_come_back(config: Config) {
    const CLIENTS: usize = 200;
    const ROOM: usize = 60;
    let options = config.options().workers(1);
    let mut server = serve_with(&["127.0.0.1:0"], options, |_| Echo, |_| sys::leave_descriptors(ROOM));
    let begun = Instant::now();
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| server.client()).collect();
    let out = server.until("descriptors have run out", |stats| stats.total.accept_pauses > 0);
    // Who comes first leaves first, and makes room.
    let mut answered = 0;
    for mut client in clients {
        let mut answer = [0; 5];
        let asked = client.write_all(b"hello").and_then(|()| client.read_exact(&mut answer));
        answered += u64::from(asked.is_ok_and(|()| &answer == b"hello"));
    }
    let lasted = begun.elapsed();
    let stats = server.until("all have gone", |stats| stats.total.active == 0).total;
    assert_eq!((stats.accepted, stats.refused), (CLIENTS as u64, CLIENTS as u64 - answered));
    if !matches!(config.model, Model::Thread | Model::Fork) {
        assert_eq!(answered, CLIENTS as u64);
    }
    // And all is as before.
    let again: Vec<TcpStream> = (0..10).map(|_| server.client()).collect();
    again.iter().for_each(|client| exchange(client, b"hello"));
    println!(
        "{CLIENTS} clients with room for {ROOM} descriptors: {} at once, {} pauses, {answered} answered in \
         {lasted:?} and {} refused ({}, {})",
        out.total.active,
        stats.accept_pauses,
        stats.refused,
        config.model.name(),
        config.engine.name()
    );
    drop(again);
    server.stop_and_check();
}

fn half_of_the_workers_are_killed_under_load(config: Config) {
    const CLIENTS: usize = 24;
    const WORKERS: usize = 4;
    let mut server = serve(config.options().workers(WORKERS).reuse_port(true));
    let address = server.address();
    let (answers, lost, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let mut came_back = Duration::ZERO;
    let mut killed_clients = 0;
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let client = with_timeouts(TcpStream::connect(address).expect("somebody always listens"));
                    // For good, unless its worker dies.
                    while !over.load(Ordering::Relaxed) {
                        let mut answer = [0; 5];
                        let asked = (&client).write_all(b"hello");
                        if asked.and_then(|()| (&client).read_exact(&mut answer)).is_err() {
                            lost.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        assert_eq!(&answer, b"hello");
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let server = &mut server;
        let go_on = |count: u64| {
            let wanted = answers.load(Ordering::Relaxed) + count;
            process::until("they are answered", || answers.load(Ordering::Relaxed) >= wanted);
        };
        // With a socket for each worker, each has some of the clients.
        go_on(2000);
        let workers = children_of(server.process.pid);
        assert_eq!(workers.len(), WORKERS);
        let stats = server.stats();
        let begun = Instant::now();
        for &worker in &workers[..WORKERS / 2] {
            kill(worker, libc::SIGKILL);
        }
        server.until("they are replaced", |stats| stats.total.restarts == WORKERS as u64 / 2);
        process::until("there are four again", || children_of(server.process.pid).len() == WORKERS);
        came_back = begun.elapsed();
        assert!(workers[WORKERS / 2..].iter().all(|&worker| process::is_alive(worker)));
        // The workers are numbered in the order in which they were forked.
        killed_clients = stats.workers[..WORKERS / 2].iter().map(|worker| worker.active).sum();
        go_on(2000);
        over.store(true, Ordering::Relaxed);
    });
    assert!(came_back < LONG);
    let lost = lost.load(Ordering::Relaxed);
    println!(
        "{} of {WORKERS} workers killed under {CLIENTS} clients: {lost} lost their connection, and were \
         served again; replaced after {came_back:?}; {} answers in all ({})",
        WORKERS / 2,
        answers.load(Ordering::Relaxed),
        config.engine.name()
    );
    assert_eq!(lost, killed_clients, "connections of others were lost");
    server.stop_and_check();
}
