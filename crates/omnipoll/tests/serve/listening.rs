//! Addresses, and how clients are let in.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use omnipoll::{Model, Server};
use socket2::SockRef;

use crate::client::{end, exchange, read, read_to_end, reset, with_timeouts};
use crate::config::Config;
use crate::log::Callback;
use crate::process;
use crate::running_server::{port_of, serve, serve_on};
use crate::suite::Suite;
use crate::support::expect::expect_error;
use crate::support::sys;
use crate::test_handler::TestHandler;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(several_addresses);
    suite.for_each_config(peer_and_local_addresses);
    suite.for_each_model(an_invalid_address_is_refused);
    suite.for_each_config(clients_beyond_max_clients_wait);
    suite.for_each_config(max_clients_is_exact_over_all_workers);
    suite.for_each_config(options_of_a_listening_socket_reach_every_client);
    suite.for_models(&[Model::Cores, Model::Prefork], a_full_worker_leaves_clients_to_the_others);
    suite.for_each_config(clients_that_reset_at_once_leak_nothing);
    suite.for_each_config(clients_that_connected_before_run_are_served);
    suite.for_each_config(a_client_already_gone_has_its_address);
    suite.for_each_config(descriptors_run_out_and_come_back);
    suite.for_each_config(statistics_add_up);
    suite.for_each_config(a_callback_of_a_server_cannot_listen);
}

fn several_addresses(config: Config) {
    let addresses = ["127.0.0.1:0", "[::1]:0", "127.0.0.1:0"];
    let server = serve_on(&addresses, config.options(), TestHandler::echo(), |handle| {
        assert_eq!(handle.addresses().len(), 3);
        (0..3).for_each(|number| drop(handle.dup_listener(number).unwrap()));
        expect_error(handle.dup_listener(3), libc::ENOENT);
    });
    assert_eq!(server.addresses().len(), 3);
    for address in server.addresses() {
        let client = with_timeouts(TcpStream::connect(address).unwrap());
        exchange(&client, b"hello");
    }
    server.stop_and_check();
}

fn peer_and_local_addresses(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, _| {
        let words = format!("{} at {}", conn.peer(), conn.local().unwrap());
        conn.write(words.as_bytes()).unwrap();
        conn.close();
    });
    let server = serve_on(&["127.0.0.1:0", "[::1]:0"], config.options(), handler, |_| {});
    for address in server.addresses() {
        let mut client = with_timeouts(TcpStream::connect(address).unwrap());
        client.write_all(b"who and where?").unwrap();
        let expected = format!("{} at {address}", client.local_addr().unwrap());
        assert_eq!(String::from_utf8(read_to_end(&client)).unwrap(), expected);
    }
    server.stop_and_check();
}

fn an_invalid_address_is_refused(config: Config) {
    struct Nobody;
    impl omnipoll::Handler for Nobody {
        type State = ();
        fn on_open(&self, _: &mut omnipoll::Conn<'_>) -> std::io::Result<()> {
            Ok(())
        }
        fn on_data(&self, _: &mut omnipoll::Conn<'_>, _: &mut (), _: &[u8]) {}
    }
    let server = Server::with_options(Nobody, config.options()).unwrap();
    for address in ["", "no address", "127.0.0.1", "127.0.0.1:65536", "[::1:80"] {
        let error = server.listen(address).unwrap_err();
        let words = omnipoll::explain(&error);
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{words}");
        assert!(words.starts_with(&format!("{address:?}: ")), "{words}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let error = server.listen(&taken).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
    assert_eq!(omnipoll::explain(&error), format!("\"{taken}\": bind: Address already in use"));
    expect_error(Server::with_options(Nobody, config.options().workers(0)), libc::EINVAL);
    expect_error(Server::with_options(Nobody, config.options().max_clients(0)), libc::EINVAL);
    expect_error(Server::with_options(Nobody, config.options().water_marks(2, 1)), libc::EINVAL);
    server.handle().stop(None).unwrap();
    server.run().unwrap();
    expect_error(server.run(), libc::EINVAL);
    let before = server.handle().addresses();
    expect_error(server.listen("127.0.0.1:0"), libc::EINVAL);
    assert_eq!(server.handle().addresses(), before);
}

fn clients_beyond_max_clients_wait(config: Config) {
    // One worker, so that it is known whose share is full.
    let mut server = serve(config.options().workers(1).max_clients(2), TestHandler::echo());
    let (one, two) = (server.client(), server.client());
    exchange(&one, b"one");
    exchange(&two, b"two");
    let mut waiting: Vec<TcpStream> = (0..4).map(|_| server.client()).collect();
    for (client, name) in waiting.iter_mut().zip(0u8..) {
        client.write_all(&[name]).unwrap();
    }
    exchange(&one, b"still one");
    let stats = server.stats();
    assert_eq!((stats.total.accepted, stats.total.active), (2, 2));
    let mut before = vec![one, two];
    for (client, name) in waiting.into_iter().zip(0u8..) {
        // Only when one has left.
        assert_eq!(server.log.of(port_of(&client)), []);
        drop(before.remove(0));
        assert_eq!(read(&client, 1), [name]);
        before.push(client);
    }
    assert_eq!(server.until("two are left", |stats| stats.total.active == 2).total.accepted, 6);
    drop(before);
    server.stop_and_check();
}

fn max_clients_is_exact_over_all_workers(config: Config) {
    const CLIENTS: u64 = 40;
    for (reuse_port, workers, most) in [(false, 2, 3), (true, 2, 3), (true, 4, 2)] {
        let options = config.options().workers(workers).max_clients(most).reuse_port(reuse_port);
        let mut server = serve(options, TestHandler::echo());
        // Then every worker listens.
        exchange(&server.client(), b"hello");
        server.until("it has gone", |stats| stats.total.accepted == 1 && stats.total.active == 0);
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.client()).collect();
        server.until("max_clients are served", |stats| stats.total.active == most as u64);
        while !clients.is_empty() {
            let (opened, ports) = (Callback::Open, clients.iter().map(port_of).collect::<Vec<_>>());
            let next = server.log.wait_for("a client is served", |entries| {
                let is_open =
                    |port| entries.iter().any(|entry| entry.port == port && entry.callback == opened);
                ports.iter().position(|&port| is_open(port))
            });
            let active = server.stats().total.active;
            assert!(active <= most as u64, "{active} are served, {most} may be");
            drop(clients.swap_remove(next));
        }
        assert_eq!(server.stop_and_check().stats.total.accepted, 1 + CLIENTS);
    }
}

fn options_of_a_listening_socket_reach_every_client(config: Config) {
    let server = serve_on(
        &["127.0.0.1:0"],
        config.options().workers(3),
        TestHandler::echo().on_open(|conn, log| {
            let socket = conn.socket();
            let socket = SockRef::from(&socket);
            log.value(i64::from(socket.keepalive()? && socket.tcp_nodelay()?));
            log.value(socket.recv_buffer_size()? as i64);
            log.value(socket.linger()?.map_or(0, |linger| linger.as_secs()));
            log.value(i64::from(socket.tcp_congestion()?.starts_with(b"reno\0")));
            Ok(())
        }),
        |handle| {
            let listener = handle.dup_listener(0).unwrap();
            let socket = SockRef::from(&listener);
            socket.set_keepalive(true).unwrap();
            socket.set_tcp_nodelay(true).unwrap();
            socket.set_recv_buffer_size(20_000).unwrap();
            socket.set_linger(Some(Duration::from_secs(7))).unwrap();
            socket.set_tcp_congestion(b"reno").unwrap();
        },
    );
    for client in (0..30).map(|_| server.client()).collect::<Vec<_>>() {
        assert_eq!(server.values(&client, 4), [1, 40_000, 7, 1]);
    }
    server.stop_and_check();
}

fn a_full_worker_leaves_clients_to_the_others(config: Config) {
    // A worker takes eight at once. One that is full with the last of them must not be the
    // one woken for the next client, while another has room.
    const SHARE: usize = 8;
    for _ in 0..5 {
        let options = config.options().max_clients(2 * SHARE).reuse_port(false);
        let server = serve_on(&["127.0.0.1:0"], options, TestHandler::echo(), |handle| {
            let address = handle.addresses()[0].clone();
            // They stay.
            (0..SHARE).for_each(|_| std::mem::forget(TcpStream::connect(&address).unwrap()));
        });
        server.log.wait_for("the early ones", |entries| (entries.len() == SHARE).then_some(()));
        let mut clients = Vec::new();
        for _ in 0..SHARE {
            clients.push(server.client());
            exchange(&clients[clients.len() - 1], b"hello");
        }
        server.stop(Duration::ZERO);
        assert_eq!(server.wait_for_end().errno, 0);
    }
}

fn clients_that_reset_at_once_leak_nothing(config: Config) {
    let mut server = serve(config.options(), TestHandler::echo());
    let witness = server.client();
    for _ in 0..100 {
        reset(server.client());
    }
    exchange(&witness, b"hello");
    exchange(&server.client(), b"hello");
    server.until("only the witness is left", |stats| stats.total.active == 1);
    drop(witness);
    server.stop_and_check();
}

fn clients_that_connected_before_run_are_served(config: Config) {
    // They come while it prepares.
    let server = serve_on(&["127.0.0.1:0"], config.options(), TestHandler::echo(), |handle| {
        let address = handle.addresses()[0].clone();
        for _ in 0..10 {
            let mut client = TcpStream::connect(&address).unwrap();
            client.write_all(b"early").unwrap();
            end(&client);
            // Its end is seen by the log.
            std::mem::forget(client);
        }
    });
    server.log.wait_for("ten ends", |entries| {
        let closes = entries.iter().filter(|entry| entry.callback == Callback::Close && entry.value == 0);
        (closes.count() == 10).then_some(())
    });
    server.stop_and_check();
}

fn a_client_already_gone_has_its_address(config: Config) {
    // They come and go while it prepares.
    let server = serve_on(&["127.0.0.1:0", "[::1]:0"], config.options(), TestHandler::echo(), |handle| {
        for address in handle.addresses() {
            reset(TcpStream::connect(address).unwrap());
        }
    });
    server.log.wait_for("two openings and closes, each of a port", |entries| {
        let of = |callback| entries.iter().filter(move |entry| entry.callback == callback && entry.port != 0);
        (of(Callback::Open).count() == 2 && of(Callback::Close).count() == 2).then_some(())
    });
    server.stop_and_check();
}

/// The processor time that a process has used so far.
fn time_used_by(pid: i32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    Duration::from_millis(ticks * 10)
}

fn descriptors_run_out_and_come_back(config: Config) {
    // Whichever call is the first to find none, only a client that gets an error is lost.
    for room in 0..10 {
        let mut server = serve_on(&["127.0.0.1:0"], config.options().workers(1), TestHandler::echo(), |_| {
            sys::leave_descriptors(12 + room);
        });
        let clients: Vec<TcpStream> = (0..40).map(|_| server.client()).collect();
        for mut client in &clients {
            let _ = client.write_all(b"hello");
        }
        server.until("descriptors have run out, or all are served", |stats| {
            stats.total.accept_pauses > 0 || stats.total.refused > 0 || stats.total.active == 40
        });
        // It does not spin meanwhile.
        let before = time_used_by(server.process.pid);
        std::thread::sleep(Duration::from_millis(if room == 0 { 400 } else { 0 }));
        let used = time_used_by(server.process.pid) - before;
        assert!(room > 0 || used < Duration::from_millis(200), "{used:?} of 400 ms were used to wait");
        // The waiting clients are served when others have left.
        let mut answered = 0;
        for mut client in clients {
            use std::io::Read;
            let mut answer = [0; 5];
            match client.read_exact(&mut answer) {
                Ok(()) => answered += 1,
                Err(error) => assert!(
                    matches!(
                        error.kind(),
                        std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::UnexpectedEof
                    ),
                    "with room for {room}: {error}"
                ),
            }
        }
        let stats = server.until("all have gone", |stats| stats.total.active == 0);
        assert_eq!(stats.total.accepted, 40, "with room for {room}");
        assert_eq!(stats.total.refused, 40 - answered, "with room for {room}: not all counted");
        if config.model != Model::Thread && config.model != Model::Fork {
            assert_eq!(answered, 40, "with room for {room}: accepted, and not served");
        }
        server.stop_and_check();
    }
}

fn statistics_add_up(config: Config) {
    let mut server = serve(config.options(), TestHandler::echo());
    let clients: Vec<TcpStream> = (0..30).map(|_| server.client()).collect();
    clients.iter().for_each(|client| exchange(client, &[1; 1000]));
    let stats = server.until("all are served", |stats| stats.total.bytes_out == 30_000);
    assert_eq!((stats.total.accepted, stats.total.active), (30, 30));
    assert_eq!((stats.total.bytes_in, stats.total.refused, stats.total.timed_out), (30_000, 0, 0));
    let workers = if matches!(config.model, Model::Cores | Model::Prefork) { 2 } else { 1 };
    assert_eq!(stats.workers.len(), workers);
    let of_workers: Vec<u64> = stats.workers.iter().map(|worker| worker.accepted).collect();
    assert_eq!(of_workers.iter().sum::<u64>(), 30);
    server.log.wait_for("the opening of each", |entries| {
        (entries.iter().filter(|entry| entry.callback == Callback::Open).count() == 30).then_some(())
    });
    for (worker, counted) in of_workers.iter().enumerate() {
        let opened = server.log.all().into_iter();
        let opened =
            opened.filter(|entry| entry.callback == Callback::Open && entry.worker == worker).count();
        assert_eq!(opened as u64, *counted, "of worker {worker}");
    }
    drop(clients);
    server.until("all have gone", |stats| stats.workers.iter().all(|worker| worker.active == 0));
    process::until("no child is left over", || {
        config.model == Model::Prefork || process::children_of(server.process.pid).is_empty()
    });
    let outcome = server.stop_and_check();
    assert_eq!((outcome.stats.total.accepted, outcome.stats.total.active), (30, 0));
    assert_eq!((outcome.stats.total.bytes_in, outcome.stats.total.bytes_out), (30_000, 30_000));
}

fn a_callback_of_a_server_cannot_listen(config: Config) {
    let handler = TestHandler::echo().on_open(|conn, log| {
        let refused = conn.event_loop().listen("127.0.0.1:0", 1).unwrap_err();
        log.value(i64::from(refused.raw_os_error().unwrap()));
        Ok(())
    });
    let server = serve(config.options(), handler);
    let client = server.client();
    exchange(&client, b"hello");
    assert_eq!(server.values(&client, 1), [i64::from(libc::EPERM)]);
    drop(client);
    server.stop_and_check();
}
