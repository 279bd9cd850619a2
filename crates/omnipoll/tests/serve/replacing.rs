//! Worker processes that are replaced: all of them, when they have served enough, when they hang.

use std::collections::HashSet;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use omnipoll::Model;

use crate::client::{end, read, with_timeouts};
use crate::config::Config;
use crate::process::{children_of, is_alive, kill, until};
use crate::running_server::serve;
use crate::suite::Suite;
use crate::support::expect::LONG;
use crate::test_handler::TestHandler;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_models(&[Model::Prefork], workers_are_replaced_one_after_another);
    suite.for_models(&[Model::Prefork], a_worker_serves_so_many_clients);
    suite.for_models(&[Model::Prefork], a_worker_that_hangs_is_killed_and_replaced);
}

/// Answers with the number of its process; hangs when it is asked to.
fn who() -> TestHandler {
    TestHandler::echo().on_data(|conn, _, data| {
        if data == b"hang" {
            thread::sleep(Duration::from_secs(3600));
        }
        conn.write(format!("{:10}", std::process::id()).as_bytes()).unwrap();
    })
}

#[track_caller]
fn ask(mut client: &TcpStream) -> i32 {
    client.write_all(b"who?").expect("it takes a question");
    String::from_utf8(read(client, 10)).unwrap().trim().parse().expect("a number")
}

fn connect(address: SocketAddr) -> TcpStream {
    with_timeouts(TcpStream::connect(address).expect("connect"))
}

fn workers_are_replaced_one_after_another(config: Config) {
    let mut server = serve(config.options().drain(Some(LONG)), who());
    let (address, parent) = (server.address(), server.process.pid);
    let stays = server.client();
    let old = ask(&stays);
    let before: HashSet<i32> = children_of(parent).into_iter().collect();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = || {
            while !is_over.load(Ordering::Relaxed) {
                ask(&connect(address));
            }
        };
        let loads = [scope.spawn(load), scope.spawn(load)];
        server.restart_workers();
        until("two others serve, and the one that has a client", || {
            let now: HashSet<i32> = children_of(parent).into_iter().collect();
            now.len() == 3 && now.intersection(&before).eq([&old])
        });
        is_over.store(true, Ordering::Relaxed);
        assert!(loads.map(thread::ScopedJoinHandle::join).iter().all(Result::is_ok), "see above");
    });
    assert_eq!(ask(&stays), old, "who is connected is served to the end");
    end(&stays);
    until("it has ended, too", || !is_alive(old));
    assert_ne!(ask(&server.client()), old);
    assert_eq!(server.stats().total.restarts, 0, "none has died");
    let outcome = server.stop_and_check();
    assert_eq!(outcome.stats.total.active, 0);
}

fn a_worker_serves_so_many_clients(config: Config) {
    let mut server = serve(config.options().workers(1).clients_per_worker(5, 3), who());
    let mut served = Vec::new();
    while served.iter().collect::<HashSet<_>>().len() < 4 {
        served.push(ask(&server.client()));
    }
    let of_first = served.iter().filter(|&&pid| pid == served[0]).count();
    assert!(of_first >= 5, "{served:?}");
    assert_eq!(server.stats().total.restarts, 0, "none has died");
    server.stop_and_check();
}

fn a_worker_that_hangs_is_killed_and_replaced(config: Config) {
    let options = config.options().hang_timeout(Duration::from_millis(700)).drain(Some(Duration::ZERO));
    let mut server = serve(options, who());
    let mut client = server.client();
    let hanging = ask(&client);
    client.write_all(b"hang").unwrap();
    until("it was killed", || !is_alive(hanging));
    server.until("it was replaced", |stats| stats.total.restarts >= 1);
    let stopped = ask(&server.client());
    assert_ne!(stopped, hanging);
    kill(stopped, libc::SIGSTOP);
    until("it was killed", || !is_alive(stopped));
    ask(&server.client());
    server.stop(Duration::ZERO);
    assert_eq!(server.wait_for_end().errno, 0);
}
