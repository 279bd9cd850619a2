//! Clients that vanish, workers that are killed, handlers that panic, descriptors that run out.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use omnipoll::Model;

use crate::client::{exchange, expect_reset, reset};
use crate::echo::{ask, serve, Echo};
use crate::process::{self, children_of, kill};
use crate::served::{patient, serve_with, Served};
use crate::suite::Suite;
use crate::support::expect::LONG;
use crate::support::sys;
use crate::way::Way;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.in_each_way(a_thousand_vanish_in_the_middle);
    suite.in_each_way(a_handler_that_panics);
    suite.in_each_way(descriptors_run_out_and_come_back);
    suite.in_ways_of(&[Model::Prefork], half_of_the_workers_are_killed_under_load);
}

fn a_thousand_vanish_in_the_middle(way: Way) {
    const TRANSFERS: usize = 1000;
    let mut served = serve(way.options());
    let witness = served.client();
    // Among them each loop has some, and with its first client it has all it needs for any.
    fifty_vanish(&served);
    served.until("all but the witness are gone", |stats| stats.total.active == 1);
    let before = u64::from_le_bytes(ask(&witness, b"memory?"));
    let begun = Instant::now();
    for _ in 0..TRANSFERS / 50 {
        fifty_vanish(&served);
    }
    let stats = served.until("all but the witness are gone", |stats| stats.total.active == 1);
    assert_eq!(stats.total.accepted, TRANSFERS as u64 + 51);
    let lasted = begun.elapsed();
    exchange(&witness, b"still here");
    let after = u64::from_le_bytes(ask(&witness, b"memory?"));
    let kept = after.saturating_sub(before) / TRANSFERS as u64;
    println!(
        "{TRANSFERS} transfers reset in the middle in {lasted:?}: {kept} bytes each stay in use ({}, {})",
        way.model.name(),
        way.engine.name()
    );
    // What a loop keeps for the next ones: 50 at a time.
    assert!(kept < 200, "{kept} bytes are kept of each who has gone");
    drop(witness);
    served.ends_well();
}

fn fifty_vanish(served: &Served) {
    let mut clients: Vec<TcpStream> = (0..50).map(|_| served.client()).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"much!").expect("write"));
    for mut client in clients {
        client.read_exact(&mut [0; 1000]).expect("the beginning");
        reset(client);
    }
}

fn a_handler_that_panics(way: Way) {
    const PANICS: usize = 200;
    let mut served = serve(way.options());
    let witness = served.client();
    let begun = Instant::now();
    for _ in 0..PANICS / 20 {
        let mut clients: Vec<TcpStream> = (0..20).map(|_| served.client()).collect();
        for client in &mut clients {
            exchange(client, b"hello");
            client.write_all(b"panic!").expect("write");
        }
        clients.iter().for_each(expect_reset);
        exchange(&witness, b"still here");
    }
    let stats = served.until("all but the witness are gone", |stats| stats.total.active == 1);
    assert_eq!(stats.total.restarts, 0, "a worker has died of it");
    println!(
        "{PANICS} panics in {:?}, each one client's ({}, {})",
        begun.elapsed(),
        way.model.name(),
        way.engine.name()
    );
    drop(witness);
    served.ends_well();
}

fn descriptors_run_out_and_come_back(way: Way) {
    const CLIENTS: usize = 200;
    const ROOM: usize = 60;
    let options = way.options().workers(1);
    let mut served = serve_with(&["127.0.0.1:0"], options, |_| Echo, |_| sys::leave_room_for(ROOM));
    let begun = Instant::now();
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| served.client()).collect();
    let out = served.until("descriptors have run out", |stats| stats.total.accept_pauses > 0);
    // Who comes first leaves first, and makes room.
    let mut answered = 0;
    for mut client in clients {
        let mut answer = [0; 5];
        let asked = client.write_all(b"hello").and_then(|()| client.read_exact(&mut answer));
        answered += u64::from(asked.is_ok_and(|()| &answer == b"hello"));
    }
    let lasted = begun.elapsed();
    let stats = served.until("all have gone", |stats| stats.total.active == 0).total;
    assert_eq!((stats.accepted, stats.refused), (CLIENTS as u64, CLIENTS as u64 - answered));
    if !matches!(way.model, Model::Thread | Model::Fork) {
        assert_eq!(answered, CLIENTS as u64);
    }
    // And all is as before.
    let again: Vec<TcpStream> = (0..10).map(|_| served.client()).collect();
    again.iter().for_each(|client| exchange(client, b"hello"));
    println!(
        "{CLIENTS} clients with room for {ROOM} descriptors: {} at once, {} pauses, {answered} answered in \
         {lasted:?} and {} refused ({}, {})",
        out.total.active,
        stats.accept_pauses,
        stats.refused,
        way.model.name(),
        way.engine.name()
    );
    drop(again);
    served.ends_well();
}

fn half_of_the_workers_are_killed_under_load(way: Way) {
    const CLIENTS: usize = 24;
    const WORKERS: usize = 4;
    let mut served = serve(way.options().workers(WORKERS).reuse_port(true));
    let address = served.address();
    let (answers, lost, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let mut came_back = Duration::ZERO;
    let mut killed_clients = 0;
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let client = patient(TcpStream::connect(address).expect("somebody always listens"));
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
        let served = &mut served;
        let go_on = |count: u64| {
            let wanted = answers.load(Ordering::Relaxed) + count;
            process::until("they are answered", || answers.load(Ordering::Relaxed) >= wanted);
        };
        // With a socket for each worker, each has some of the clients.
        go_on(2000);
        let workers = children_of(served.process.pid);
        assert_eq!(workers.len(), WORKERS);
        let stats = served.stats();
        let begun = Instant::now();
        for &worker in &workers[..WORKERS / 2] {
            kill(worker, libc::SIGKILL);
        }
        served.until("they are replaced", |stats| stats.total.restarts == WORKERS as u64 / 2);
        process::until("there are four again", || children_of(served.process.pid).len() == WORKERS);
        came_back = begun.elapsed();
        assert!(workers[WORKERS / 2..].iter().all(|&worker| process::is_alive(worker)));
        // The workers are numbered in the order of their birth.
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
        way.engine.name()
    );
    assert_eq!(lost, killed_clients, "connections of others were lost");
    served.ends_well();
}
