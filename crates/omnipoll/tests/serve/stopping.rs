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

use crate::acts::{Acts, Told};
use crate::client::{end, exchange, expect_end, expect_reset, keep_small, pattern, read, read_to_end, small};
use crate::log::{Log, What};
use crate::process;
use crate::served::{port_of, serve, serve_on};
use crate::suite::Suite;
use crate::support::expect::LONG;
use crate::support::sys;
use crate::way::Way;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.in_each_way(a_stop_without_clients_ends_it);
    suite.in_each_way(a_stop_before_it_runs_counts);
    suite.in_each_way(who_is_served_may_finish);
    suite.in_each_way(what_is_queued_is_sent_when_it_stops);
    suite.in_each_way(a_stop_is_told_once);
    suite.in_each_way(nobody_is_let_in_any_more);
    suite.in_each_way(who_does_not_finish_is_aborted);
    suite.in_each_way(a_stop_without_time_aborts);
    suite.in_each_way(a_second_stop_leaves_less_time);
    suite.in_each_way(who_waits_in_the_queue_is_served);
    suite.in_each_way(those_who_go_on_coming_do_not_hold_up_a_stop);
    suite.in_ways_of(&[Model::Thread], the_clients_threads_have_ended_when_it_has);
    suite.in_each_way(a_stop_from_a_signal_handler);
    suite.in_each_way(a_signal_stops_it);
    suite.in_each_way(a_second_signal_ends_it_at_once);
    suite.in_ways_of(&[Model::Fork, Model::Prefork], handlers_that_never_return_are_killed);
    suite.in_each_way(signals_are_the_programs_again);
    suite.in_each_way(a_panic_when_it_stops);
    suite.in_ways_of(&[Model::Reactor, Model::Cores], what_fails_is_everybodys_end_and_told);
    suite.in_ways_of(&[Model::Reactor, Model::Cores], what_fails_when_doors_open_again_is_told_too);
}

const CANCELLED: i64 = libc::ECANCELED as i64;
const EVER: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(100);

fn a_stop_without_clients_ends_it(way: Way) {
    serve(way.options(), Acts::echo()).ends_well();
    let served = serve(way.options(), Acts::echo());
    exchange(&served.client(), b"hello");
    served.stop(EVER);
    assert_eq!(served.ends().errno, 0);
}

fn those_who_go_on_coming_do_not_hold_up_a_stop(way: Way) {
    for drain in [Duration::ZERO, SHORT] {
        let served = serve(way.options().max_clients(1000), Acts::echo());
        exchange(&served.client(), b"hello");
        let (address, is_over) = (served.address(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let come = || {
                while !is_over.load(Relaxed) {
                    let _ = TcpStream::connect(address);
                }
            };
            let threads = [(); 2].map(|()| scope.spawn(come));
            served.stop(drain);
            let outcome = served.ends();
            is_over.store(true, Relaxed);
            // A scope does not wait for its threads to be gone, and the next server is forked.
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(outcome.errno, 0);
        });
    }
}

fn the_clients_threads_have_ended_when_it_has(way: Way) {
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
    let (pen, _reader) = Log::pipe();
    let acts = Acts::echo().on_open(|_, _| {
        LOCAL.with(|_| ());
        Ok(())
    });
    let server = Server::with_options(Told { acts, pen }, way.options()).unwrap();
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

fn a_stop_before_it_runs_counts(way: Way) {
    for drain in [None, Some(Duration::ZERO), Some(EVER)] {
        let served = serve_on(&["127.0.0.1:0"], way.options(), Acts::echo(), |handle| {
            handle.stop(drain).unwrap();
        });
        assert_eq!(served.ends().errno, 0);
    }
}

fn who_is_served_may_finish(way: Way) {
    let acts = Acts::echo().on_stop(|conn, note| {
        assert!(conn.is_stopping());
        note.say(1);
    });
    let served = serve(way.options(), acts);
    let clients: Vec<_> = (0..4).map(|_| served.client()).collect();
    clients.iter().for_each(|client| exchange(client, b"before"));
    served.stop(EVER);
    for client in &clients {
        served.expect(client, What::Stop);
        exchange(client, b"after");
        end(client);
        expect_end(client);
        assert_eq!(served.expect(client, What::Close).value, 0);
    }
    let outcome = served.ends();
    assert_eq!((outcome.errno, outcome.stats.total.active), (0, 0));
}

fn what_is_queued_is_sent_when_it_stops(way: Way) {
    let acts = Acts::echo()
        .on_data(|conn, _, _| {
            keep_small(conn);
            conn.write(&pattern(1, 500_000)).unwrap();
        })
        .on_stop(|conn, _| conn.close());
    let served = serve(way.options(), acts);
    let mut client = small(served.address());
    client.write_all(b"go").unwrap();
    let first = read(&client, 1);
    served.stop(EVER);
    let rest = read_to_end(&client);
    assert!([first, rest].concat() == pattern(1, 500_000));
    end(&client);
    assert_eq!(served.ends().errno, 0);
}

fn a_stop_is_told_once(way: Way) {
    let served = serve(way.options(), Acts::echo());
    let client = served.client();
    exchange(&client, b"hello");
    for drain in [EVER, EVER, 2 * EVER, EVER] {
        served.stop(drain);
        served.expect(&client, What::Stop);
        exchange(&client, b"still here");
    }
    let port = port_of(&client);
    drop(client);
    let outcome = served.ends();
    outcome.log.wait_for("the close", |entries| {
        entries.iter().find(|entry| entry.port == port && entry.what == What::Close).copied()
    });
    let stops = outcome.log.of(port).iter().filter(|entry| entry.what == What::Stop).count();
    assert_eq!(stops, 1);
}

fn nobody_is_let_in_any_more(way: Way) {
    let served = serve(way.options(), Acts::echo());
    let clients: Vec<_> = (0..4).map(|_| served.client()).collect();
    clients.iter().for_each(|client| exchange(client, b"hello"));
    served.stop(EVER);
    for client in &clients {
        served.expect(client, What::Stop);
    }
    // A listening socket that nobody has open refuses.
    process::until("nobody listens", || TcpStream::connect(served.address()).is_err());
    clients.iter().for_each(|client| exchange(client, b"still here"));
    drop(clients);
    assert_eq!(served.ends().errno, 0);
}

fn who_does_not_finish_is_aborted(way: Way) {
    let served = serve(way.options(), Acts::echo());
    let client = served.client();
    exchange(&client, b"hello");
    let begun = Instant::now();
    served.stop(SHORT);
    expect_reset(&client);
    assert!(begun.elapsed() >= SHORT, "it was aborted after {:?}", begun.elapsed());
    assert_eq!(served.expect(&client, What::Close).value, CANCELLED);
    assert_eq!(served.ends().errno, 0);
}

fn a_stop_without_time_aborts(way: Way) {
    let served = serve(way.options(), Acts::echo());
    let clients: Vec<_> = (0..4).map(|_| served.client()).collect();
    clients.iter().for_each(|client| exchange(client, b"hello"));
    served.stop(Duration::ZERO);
    for client in &clients {
        expect_reset(client);
        assert_eq!(served.expect(client, What::Close).value, CANCELLED);
    }
    assert_eq!(served.ends().errno, 0);
}

fn a_second_stop_leaves_less_time(way: Way) {
    for second in [SHORT, Duration::ZERO] {
        for first in [None, Some(EVER)] {
            let served = serve(way.options(), Acts::echo());
            let client = served.client();
            exchange(&client, b"hello");
            served.stop(first);
            served.expect(&client, What::Stop);
            exchange(&client, b"still here");
            let begun = Instant::now();
            served.stop(second);
            expect_reset(&client);
            assert!(begun.elapsed() >= second, "it was aborted after {:?}", begun.elapsed());
            assert_eq!(served.expect(&client, What::Close).value, CANCELLED);
            assert_eq!(served.ends().errno, 0);
        }
    }
}

fn who_waits_in_the_queue_is_served(way: Way) {
    // Whoever has connected before the stop has been told that somebody listens.
    let served = serve_on(&["127.0.0.1:0"], way.options(), Acts::echo(), |handle| {
        let address = handle.addresses()[0].clone();
        for _ in 0..3 {
            let mut client = TcpStream::connect(&address).unwrap();
            client.write_all(b"early").unwrap();
            end(&client);
            std::mem::forget(client);
        }
        handle.stop(None).unwrap();
    });
    let outcome = served.ends();
    assert_eq!(outcome.stats.total.accepted, 3);
    assert_eq!((outcome.errno, outcome.stats.total.bytes_out), (0, 15));
}

static HANDLE: OnceLock<ServerHandle> = OnceLock::new();

extern "C" fn stop_in_a_signal_handler(_: libc::c_int) {
    if let Some(handle) = HANDLE.get() {
        let _ = handle.stop(Some(Duration::from_secs(3600)));
    }
}

fn a_stop_from_a_signal_handler(way: Way) {
    let served = serve_on(&["127.0.0.1:0"], way.options(), Acts::echo(), |handle| {
        assert!(HANDLE.set(handle.clone()).is_ok());
        sys::on_signal(libc::SIGUSR1, stop_in_a_signal_handler);
    });
    let client = served.client();
    exchange(&client, b"hello");
    served.process.signal(libc::SIGUSR1);
    served.expect(&client, What::Stop);
    exchange(&client, b"still here");
    drop(client);
    assert_eq!(served.ends().errno, 0);
}

fn a_signal_stops_it(way: Way) {
    for signo in [libc::SIGTERM, libc::SIGINT] {
        let served = serve(way.options().signals(true).drain(Some(EVER)), Acts::echo());
        let client = served.client();
        exchange(&client, b"hello");
        served.process.signal(signo);
        served.expect(&client, What::Stop);
        exchange(&client, b"still here");
        drop(client);
        assert_eq!(served.ends().errno, 0);
    }
}

fn a_second_signal_ends_it_at_once(way: Way) {
    let served = serve(way.options().signals(true).drain(None), Acts::echo());
    let client = served.client();
    exchange(&client, b"hello");
    served.process.signal(libc::SIGTERM);
    served.expect(&client, What::Stop);
    exchange(&client, b"still here");
    served.process.signal(libc::SIGINT);
    expect_reset(&client);
    assert_eq!(served.expect(&client, What::Close).value, CANCELLED);
    assert_eq!(served.ends().errno, 0);
}

fn handlers_that_never_return_are_killed(way: Way) {
    // After a second signal, and when the drain's time is up.
    for (drain, signals) in [(None, &[libc::SIGTERM, libc::SIGINT][..]), (Some(SHORT), &[libc::SIGTERM])] {
        // Longer than the test would wait for the end.
        let acts = Acts::echo().on_data(|_, _, _| std::thread::sleep(2 * LONG));
        let served = serve(way.options().signals(true).drain(drain), acts);
        let mut client = served.client();
        client.write_all(b"hello").unwrap();
        served.expect(&client, What::Data);
        signals.iter().for_each(|&signal| served.process.signal(signal));
        let outcome = served.ends();
        assert_eq!((outcome.errno, outcome.stats.total.active), (0, 0));
    }
}

fn signals_are_the_programs_again(way: Way) {
    sys::on_signal(libc::SIGINT, stop_in_a_signal_handler);
    let before = [libc::SIGTERM, libc::SIGINT].map(sys::handler_of);
    let (pen, _reader) = Log::pipe();
    let server = Server::with_options(Told { acts: Acts::echo(), pen }, way.options().signals(true)).unwrap();
    server.listen("127.0.0.1:0").unwrap();
    server.handle().stop(None).unwrap();
    server.run().unwrap();
    // The server is still there, and serves no more.
    assert_eq!([libc::SIGTERM, libc::SIGINT].map(sys::handler_of), before);
    drop(server);
}

fn a_panic_when_it_stops(way: Way) {
    let served = serve(way.options(), Acts::echo().on_stop(|_, _| panic!("in Stop, as it should")));
    let clients: Vec<_> = (0..3).map(|_| served.client()).collect();
    clients.iter().for_each(|client| exchange(client, b"hello"));
    served.stop(None);
    for client in &clients {
        expect_reset(client);
        assert_eq!(served.expect(client, What::Close).value, libc::ENOTRECOVERABLE.into());
    }
    let outcome = served.ends();
    assert_eq!(outcome.errno, 0);
    assert!(way.model != Model::Prefork || outcome.stats.total.restarts == 0, "a worker has died");
}

/// A file that is no socket, for the places of those that are.
static FILE: OnceLock<File> = OnceLock::new();

/// Has the numbers of this process's listening sockets stand for something else, as when somebody
/// closes descriptors that are not theirs.
fn spoil_the_listening_sockets() {
    // Without a look into a folder, which would need a descriptor.
    for number in (0..1024).filter(|&number| sys::is_open(number)) {
        // SAFETY: it was open a moment ago, and what it is belongs to this process.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        if SockRef::from(&descriptor).is_listener().unwrap_or(false) {
            sys::replace(FILE.get().expect("a file"), &descriptor);
        }
    }
}

/// Spoils the sockets at that word, and says what becomes of the others.
fn spoiled_at(word: &'static [u8]) -> Acts {
    Acts::echo().on_data(move |conn, _, data| match data {
        data if data == word => {
            spoil_the_listening_sockets();
            conn.abort();
        }
        b"no more" => {
            sys::leave_room_for(0);
            conn.write(data).unwrap();
        }
        data => drop(conn.write(data).unwrap()),
    })
}

fn with_a_file(_: &ServerHandle) {
    FILE.set(File::open("/proc/self/exe").unwrap()).unwrap();
}

fn what_fails_is_everybodys_end_and_told(way: Way) {
    // Its doors are shut, for it is full; when somebody has left, they can't be opened.
    let options = way.options().workers(1).max_clients(2);
    let served = serve_on(&["127.0.0.1:0"], options, spoiled_at(b"spoil"), with_a_file);
    let (witness, mut other) = (served.client(), served.client());
    exchange(&witness, b"hello");
    exchange(&other, b"hello");
    other.write_all(b"spoil").unwrap();
    expect_reset(&witness);
    assert_eq!(served.expect(&witness, What::Close).value, CANCELLED);
    assert_ne!(served.ends().errno, 0);
}

fn what_fails_when_doors_open_again_is_told_too(way: Way) {
    // They are shut because there are no descriptors; the next who leaves has them opened. With a
    // bound, for a ring that lets in without one keeps to the limit of when it began.
    let options = way.options().workers(1).max_clients(100);
    let mut served = serve_on(&["127.0.0.1:0"], options, spoiled_at(b"spoil"), with_a_file);
    let (witness, mut other) = (served.client(), served.client());
    exchange(&witness, b"hello");
    exchange(&other, b"no more");
    let _waits = served.client();
    served.until("descriptors have run out", |stats| stats.total.accept_pauses > 0);
    other.write_all(b"spoil").unwrap();
    expect_reset(&witness);
    assert_eq!(served.expect(&witness, What::Close).value, CANCELLED);
    assert_ne!(served.ends().errno, 0);
}
