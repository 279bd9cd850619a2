//! Clients that have processes of their own, and what becomes of others when one dies.

use std::collections::HashSet;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use omnipoll::Model;

use crate::acts::Acts;
use crate::client::{exchange, expect_end, expect_reset};
use crate::log::What;
use crate::process::{self, children_of, is_alive, is_zombie, kill};
use crate::served::{serve, serve_on, Served};
use crate::suite::Suite;
use crate::support::sys;
use crate::way::Way;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.in_ways_of(&[Model::Fork], every_client_has_a_process);
    suite.in_ways_of(&[Model::Fork], who_can_not_be_served_is_counted);
    suite.in_ways_of(&[Model::Fork], children_that_the_system_reaps);
    suite.in_ways_of(&[Model::Fork], children_that_the_program_reaps);
    suite.in_ways_of(&[Model::Prefork], workers_that_others_reap_are_replaced);
    suite.in_ways_of(&[Model::Prefork], a_server_whose_workers_cannot_serve_ends_with_the_reason);
    suite.in_ways_of(&[Model::Fork, Model::Prefork], a_crash_is_one_process_alone);
    suite.in_ways_of(&[Model::Prefork], workers_that_are_killed_are_replaced);
    suite.in_ways_of(&[Model::Prefork], one_that_dies_at_once_is_replaced_later_each_time);
    suite.in_ways_of(&[Model::Prefork], ids_of_workers_differ);
    suite.in_ways_of(&[Model::Fork, Model::Prefork], nobody_outlives_the_parent);
    suite.in_ways_of(&[Model::Fork], the_port_is_free_when_the_parent_is_dead);
    suite.in_ways_of(&[Model::Fork, Model::Prefork], forks_are_surrounded);
}

/// The process that serves this client.
#[track_caller]
fn process_of(served: &Served, client: &TcpStream) -> i32 {
    exchange(client, b"who are you?");
    served.expect(client, What::Open).process
}

fn has_no_zombies(served: &Served) -> bool {
    !children_of(served.process.pid).into_iter().any(is_zombie)
}

fn every_client_has_a_process(way: Way) {
    let served = serve(way.options(), Acts::echo());
    let clients: Vec<_> = (0..10).map(|_| served.client()).collect();
    let processes: HashSet<i32> = clients.iter().map(|client| process_of(&served, client)).collect();
    assert_eq!(processes.len(), 10);
    assert!(!processes.contains(&served.process.pid));
    drop(clients);
    process::until("all have ended and been reaped", || children_of(served.process.pid).is_empty());
    served.ends_well();
}

fn who_can_not_be_served_is_counted(way: Way) {
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
    let mut served = serve(way.options().around_fork(around), Acts::echo());
    expect_end(&served.client());
    let stats = served.until("nobody is left", |stats| stats.total.accepted == 1 && stats.total.active == 0);
    assert_eq!(stats.total.refused, 1, "it was not served, and nobody is told");
    exchange(&served.client(), b"hello");
    served.ends_well();
}

fn children_that_the_system_reaps(way: Way) {
    serve_short_clients(way, sys::ignore_children);
}

fn children_that_the_program_reaps(way: Way) {
    serve_short_clients(way, sys::reap_everybody);
}

/// Children end before their parent has looked at them, and somebody else takes them.
fn serve_short_clients(way: Way, reap: fn()) {
    let options = way.options().max_clients(8);
    let mut served = serve_on(&["127.0.0.1:0"], options, Acts::echo(), |_| reap());
    for _ in 0..100 {
        exchange(&served.client(), b"hello");
    }
    served.until("nobody is left", |stats| stats.total.accepted == 100 && stats.total.active == 0);
    let last = served.client();
    exchange(&last, b"hello");
    served.stop(Duration::ZERO);
    assert_eq!(served.ends().errno, 0);
}

fn workers_that_others_reap_are_replaced(way: Way) {
    for reap in [sys::ignore_children, sys::reap_everybody] {
        let mut served = serve_on(&["127.0.0.1:0"], way.options().workers(2), deadly(), |_| reap());
        for restarts in 1..=3 {
            let mut doomed = served.client();
            exchange(&doomed, b"hello");
            doomed.write_all(b"kill").unwrap();
            served.until("it has been replaced", |stats| stats.total.restarts == restarts);
        }
        exchange(&served.client(), b"hello");
        served.stop(Duration::ZERO);
        assert_eq!(served.ends().errno, 0);
    }
}

fn a_server_whose_workers_cannot_serve_ends_with_the_reason(way: Way) {
    let around = std::sync::Arc::new(|fork: &mut dyn FnMut() -> i32| {
        let pid = fork();
        if pid == 0 {
            sys::forbid_more_descriptors();
        }
        pid
    });
    let served = serve(way.options().around_fork(around), Acts::echo());
    let outcome = served.ends();
    assert_eq!(outcome.errno, libc::EMFILE);
    assert!(outcome.stats.total.restarts > 0);
}

/// Ways for a process to die of what its handler does.
fn deadly() -> Acts {
    Acts::echo().on_data(|conn, _, data| match data {
        b"abort" => std::process::abort(),
        b"exit" => std::process::exit(3),
        b"kill" => kill(std::process::id() as i32, libc::SIGKILL),
        _ => drop(conn.write(data)),
    })
}

fn a_crash_is_one_process_alone(way: Way) {
    let mut served = serve(way.options().workers(4), deadly());
    // Until one of them has a process that none of the doomed has.
    let mut witnesses: Vec<TcpStream> = (0..8).map(|_| served.client()).collect();
    let mut doomed_processes = Vec::new();
    for (turn, word) in ["abort", "exit", "kill"].into_iter().enumerate() {
        let mut doomed = served.client();
        let process = process_of(&served, &doomed);
        doomed_processes.push(process);
        witnesses.retain(|witness| process_of(&served, witness) != process);
        doomed.write_all(word.as_bytes()).unwrap();
        if way.model == Model::Fork {
            // Nobody is left who could have told it of a reset: it is the end that it sees.
            let mut rest = Vec::new();
            let _ = std::io::Read::read_to_end(&mut doomed, &mut rest);
        }
        process::until("it has died, and been reaped", || !is_alive(process) && has_no_zombies(&served));
        witnesses.iter().for_each(|witness| exchange(witness, b"untouched"));
        if way.model == Model::Prefork {
            served.until("it has been replaced", |stats| stats.total.restarts == turn as u64 + 1);
        }
        // New clients find somebody.
        exchange(&served.client(), b"hello");
    }
    let left = witnesses.len() as u64;
    served.until("who died is not counted", |stats| stats.total.active == left);
    drop(witnesses);
    served.ends_well();
}

fn workers_that_are_killed_are_replaced(way: Way) {
    let mut served = serve(way.options().workers(3), Acts::echo());
    for round in 1..=3 {
        process::until("there are three", || children_of(served.process.pid).len() == 3);
        let workers = children_of(served.process.pid);
        kill(workers[0], libc::SIGKILL);
        served.until("it has been replaced", |stats| stats.total.restarts == round);
        process::until("there are three others", || {
            let now = children_of(served.process.pid);
            now.len() == 3 && !now.contains(&workers[0]) && now.contains(&workers[1])
        });
        exchange(&served.client(), b"hello");
    }
    assert!(has_no_zombies(&served));
    served.ends_well();
}

fn one_that_dies_at_once_is_replaced_later_each_time(way: Way) {
    // 10 ms, 20, 40, ...: without a back-off there would be hundreds.
    let mut served = serve(way.options().workers(1), deadly().on_open(|_, _| std::process::exit(1)));
    let begun = std::time::Instant::now();
    let mut clients = Vec::new();
    while begun.elapsed() < Duration::from_millis(500) {
        if let Ok(client) = TcpStream::connect(served.address()) {
            clients.push(client);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let elapsed = begun.elapsed();
    let restarts = served.stats().total.restarts;
    // The n-th is not before 10 ms * (2^(n-1) - 1).
    let most = (1..).find(|&n| Duration::from_millis(10 * ((1 << (n - 1)) - 1)) > elapsed).unwrap();
    assert!((1..=most).contains(&restarts), "{restarts} restarts in {elapsed:?}");
    served.stop(Duration::ZERO);
    assert_eq!(served.ends().errno, 0);
}

fn ids_of_workers_differ(way: Way) {
    let served = serve(way.options().workers(3), Acts::echo());
    let clients: Vec<_> = (0..30).map(|_| served.client()).collect();
    clients.iter().for_each(|client| exchange(client, b"hello"));
    let ids: HashSet<u64> = clients.iter().map(|client| served.expect(client, What::Open).id).collect();
    assert_eq!(ids.len(), 30);
    let numbers: HashSet<usize> =
        clients.iter().map(|client| served.expect(client, What::Open).worker).collect();
    assert!(numbers.iter().all(|&number| number < 3));
    drop(clients);
    served.ends_well();
}

fn nobody_outlives_the_parent(way: Way) {
    let served = serve(way.options().drain(Some(Duration::from_millis(300))), Acts::echo());
    let clients: Vec<_> = (0..4).map(|_| served.client()).collect();
    let processes: HashSet<i32> = clients.iter().map(|client| process_of(&served, client)).collect();
    served.process.signal(libc::SIGKILL);
    for client in &clients {
        // They are told, may finish, and are ended when the time is up.
        served.expect(client, What::Stop);
        expect_reset(client);
        assert_eq!(served.expect(client, What::Close).value, libc::ECANCELED.into());
    }
    process::until("none is left", || !processes.iter().any(|&process| is_alive(process)));
}

fn the_port_is_free_when_the_parent_is_dead(way: Way) {
    let mut served = serve(way.options().drain(None), Acts::echo());
    let client = served.client();
    let process = process_of(&served, &client);
    served.process.signal(libc::SIGKILL);
    served.process.wait();
    // The parent's descriptors are closed, and the child, which is not told to end its client, has
    // none for the port.
    served.expect(&client, What::Stop);
    process::until("nobody listens there", || TcpListener::bind(served.address()).is_ok());
    exchange(&client, b"still served");
    drop(client);
    process::until("it ends with its client", || !is_alive(process));
}

fn forks_are_surrounded(way: Way) {
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
    let acts = Acts::echo().on_open(|_, note| {
        note.say(CHILD.load(Ordering::SeqCst));
        Ok(())
    });
    let served = serve(way.options().workers(1).around_fork(around), acts);
    let client = served.client();
    exchange(&client, b"hello");
    assert_eq!(served.said(&client, 1), [1]);
    drop(client);
    served.ends_well();
}
