//! Addresses, and how clients are let in.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use omnipoll::{Model, Server};
use socket2::SockRef;

use crate::acts::Acts;
use crate::client::{end, exchange, read, read_to_end, reset};
use crate::log::What;
use crate::process;
use crate::served::{patient, port_of, serve, serve_on};
use crate::suite::Suite;
use crate::support::expect::expect_error;
use crate::support::sys;
use crate::way::Way;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.in_each_way(several_addresses);
    suite.in_each_way(who_has_come_and_where_to);
    suite.in_each_model(what_is_no_address_is_refused);
    suite.in_each_way(those_beyond_the_most_wait_for_their_turn);
    suite.in_each_way(the_bound_is_exact_over_all_workers);
    suite.in_each_way(what_is_set_on_a_listening_socket_reaches_every_client);
    suite.in_ways_of(&[Model::Cores, Model::Prefork], a_full_worker_keeps_nobody_from_the_others);
    suite.in_each_way(those_who_reset_at_once_cost_nothing);
    suite.in_each_way(clients_who_came_before_it_ran_are_served);
    suite.in_each_way(who_has_gone_already_is_known_by_its_address);
    suite.in_each_way(descriptors_run_out_and_come_back);
    suite.in_each_way(what_is_counted_adds_up);
}

fn several_addresses(way: Way) {
    let addresses = ["127.0.0.1:0", "[::1]:0", "127.0.0.1:0"];
    let served = serve_on(&addresses, way.options(), Acts::echo(), |handle| {
        assert_eq!(handle.addresses().len(), 3);
        (0..3).for_each(|number| drop(handle.dup_listener(number).unwrap()));
        expect_error(handle.dup_listener(3), libc::ENOENT);
    });
    assert_eq!(served.addresses().len(), 3);
    for address in served.addresses() {
        let client = patient(TcpStream::connect(address).unwrap());
        exchange(&client, b"hello");
    }
    served.ends_well();
}

fn who_has_come_and_where_to(way: Way) {
    let acts = Acts::echo().on_data(|conn, _, _| {
        let words = format!("{} at {}", conn.peer(), conn.local().unwrap());
        conn.write(words.as_bytes()).unwrap();
        conn.close();
    });
    let served = serve_on(&["127.0.0.1:0", "[::1]:0"], way.options(), acts, |_| {});
    for address in served.addresses() {
        let mut client = patient(TcpStream::connect(address).unwrap());
        client.write_all(b"who and where?").unwrap();
        let expected = format!("{} at {address}", client.local_addr().unwrap());
        assert_eq!(String::from_utf8(read_to_end(&client)).unwrap(), expected);
    }
    served.ends_well();
}

fn what_is_no_address_is_refused(way: Way) {
    struct Nobody;
    impl omnipoll::Handler for Nobody {
        type State = ();
        fn on_open(&self, _: &mut omnipoll::Conn<'_>) -> std::io::Result<()> {
            Ok(())
        }
        fn on_data(&self, _: &mut omnipoll::Conn<'_>, _: &mut (), _: &[u8]) {}
    }
    let server = Server::with_options(Nobody, way.options()).unwrap();
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
    expect_error(Server::with_options(Nobody, way.options().workers(0)), libc::EINVAL);
    expect_error(Server::with_options(Nobody, way.options().max_clients(0)), libc::EINVAL);
    expect_error(Server::with_options(Nobody, way.options().water_marks(2, 1)), libc::EINVAL);
    server.handle().stop(None).unwrap();
    server.run().unwrap();
    expect_error(server.run(), libc::EINVAL);
    let before = server.handle().addresses();
    expect_error(server.listen("127.0.0.1:0"), libc::EINVAL);
    assert_eq!(server.handle().addresses(), before);
}

fn those_beyond_the_most_wait_for_their_turn(way: Way) {
    // One worker, so that it is known whose share is full.
    let mut served = serve(way.options().workers(1).max_clients(2), Acts::echo());
    let (one, two) = (served.client(), served.client());
    exchange(&one, b"one");
    exchange(&two, b"two");
    let mut waiting: Vec<TcpStream> = (0..4).map(|_| served.client()).collect();
    for (client, name) in waiting.iter_mut().zip(0u8..) {
        client.write_all(&[name]).unwrap();
    }
    exchange(&one, b"still one");
    let stats = served.stats();
    assert_eq!((stats.total.accepted, stats.total.active), (2, 2));
    let mut before = vec![one, two];
    for (client, name) in waiting.into_iter().zip(0u8..) {
        // Only when one has left.
        assert_eq!(served.log.of(port_of(&client)), []);
        drop(before.remove(0));
        assert_eq!(read(&client, 1), [name]);
        before.push(client);
    }
    assert_eq!(served.until("two are left", |stats| stats.total.active == 2).total.accepted, 6);
    drop(before);
    served.ends_well();
}

fn the_bound_is_exact_over_all_workers(way: Way) {
    const CLIENTS: u64 = 40;
    for (reuse_port, workers, most) in [(false, 2, 3), (true, 2, 3), (true, 4, 2)] {
        let options = way.options().workers(workers).max_clients(most).reuse_port(reuse_port);
        let mut served = serve(options, Acts::echo());
        // Then every worker listens.
        exchange(&served.client(), b"hello");
        served.until("it has gone", |stats| stats.total.accepted == 1 && stats.total.active == 0);
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| served.client()).collect();
        served.until("as many are served as may be", |stats| stats.total.active == most as u64);
        while !clients.is_empty() {
            let (opened, ports) = (What::Open, clients.iter().map(port_of).collect::<Vec<_>>());
            let next = served.log.wait_for("somebody is served", |entries| {
                let is_open = |port| entries.iter().any(|entry| entry.port == port && entry.what == opened);
                ports.iter().position(|&port| is_open(port))
            });
            let active = served.stats().total.active;
            assert!(active <= most as u64, "{active} are served, {most} may be");
            drop(clients.swap_remove(next));
        }
        assert_eq!(served.ends_well().stats.total.accepted, 1 + CLIENTS);
    }
}

fn what_is_set_on_a_listening_socket_reaches_every_client(way: Way) {
    let served = serve_on(
        &["127.0.0.1:0"],
        way.options().workers(3),
        Acts::echo().on_open(|conn, note| {
            let socket = conn.socket();
            let socket = SockRef::from(&socket);
            note.say(i64::from(socket.keepalive()? && socket.tcp_nodelay()?));
            note.say(socket.recv_buffer_size()? as i64);
            note.say(socket.linger()?.map_or(0, |linger| linger.as_secs()));
            note.say(i64::from(socket.tcp_congestion()?.starts_with(b"reno\0")));
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
    for client in (0..30).map(|_| served.client()).collect::<Vec<_>>() {
        assert_eq!(served.said(&client, 4), [1, 40_000, 7, 1]);
    }
    served.ends_well();
}

fn a_full_worker_keeps_nobody_from_the_others(way: Way) {
    // A worker takes eight at once. One that is full with the last of them must not be who is
    // woken for the next client, while another has room.
    const SHARE: usize = 8;
    for _ in 0..5 {
        let options = way.options().max_clients(2 * SHARE).reuse_port(false);
        let served = serve_on(&["127.0.0.1:0"], options, Acts::echo(), |handle| {
            let address = handle.addresses()[0].clone();
            // They stay.
            (0..SHARE).for_each(|_| std::mem::forget(TcpStream::connect(&address).unwrap()));
        });
        served.log.wait_for("the early ones", |entries| (entries.len() == SHARE).then_some(()));
        let mut clients = Vec::new();
        for _ in 0..SHARE {
            clients.push(served.client());
            exchange(&clients[clients.len() - 1], b"hello");
        }
        served.stop(Duration::ZERO);
        assert_eq!(served.ends().errno, 0);
    }
}

fn those_who_reset_at_once_cost_nothing(way: Way) {
    let mut served = serve(way.options(), Acts::echo());
    let witness = served.client();
    for _ in 0..100 {
        reset(served.client());
    }
    exchange(&witness, b"hello");
    exchange(&served.client(), b"hello");
    served.until("only the witness is left", |stats| stats.total.active == 1);
    drop(witness);
    served.ends_well();
}

fn clients_who_came_before_it_ran_are_served(way: Way) {
    // They come while it prepares.
    let served = serve_on(&["127.0.0.1:0"], way.options(), Acts::echo(), |handle| {
        let address = handle.addresses()[0].clone();
        for _ in 0..10 {
            let mut client = TcpStream::connect(&address).unwrap();
            client.write_all(b"early").unwrap();
            end(&client);
            // Its end is seen by the log.
            std::mem::forget(client);
        }
    });
    served.log.wait_for("ten ends", |entries| {
        let closes = entries.iter().filter(|entry| entry.what == What::Close && entry.value == 0);
        (closes.count() == 10).then_some(())
    });
    served.ends_well();
}

fn who_has_gone_already_is_known_by_its_address(way: Way) {
    // They come and go while it prepares.
    let served = serve_on(&["127.0.0.1:0", "[::1]:0"], way.options(), Acts::echo(), |handle| {
        for address in handle.addresses() {
            reset(TcpStream::connect(address).unwrap());
        }
    });
    served.log.wait_for("two openings and closes, each of a port", |entries| {
        let of = |what| entries.iter().filter(move |entry| entry.what == what && entry.port != 0);
        (of(What::Open).count() == 2 && of(What::Close).count() == 2).then_some(())
    });
    served.ends_well();
}

/// The processor time that a process has used so far.
fn time_used_by(pid: i32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    Duration::from_millis(ticks * 10)
}

fn descriptors_run_out_and_come_back(way: Way) {
    // Whichever call is the first to find none, nobody is lost but who is told so.
    for room in 0..10 {
        let mut served = serve_on(&["127.0.0.1:0"], way.options().workers(1), Acts::echo(), |_| {
            sys::leave_room_for(12 + room);
        });
        let clients: Vec<TcpStream> = (0..40).map(|_| served.client()).collect();
        for mut client in &clients {
            let _ = client.write_all(b"hello");
        }
        served.until("descriptors have run out, or all are served", |stats| {
            stats.total.accept_pauses > 0 || stats.total.refused > 0 || stats.total.active == 40
        });
        // It does not spin meanwhile.
        let before = time_used_by(served.process.pid);
        std::thread::sleep(Duration::from_millis(if room == 0 { 400 } else { 0 }));
        let used = time_used_by(served.process.pid) - before;
        assert!(room > 0 || used < Duration::from_millis(200), "{used:?} of 400 ms were used to wait");
        // Those who wait are served when others have left.
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
        let stats = served.until("all have gone", |stats| stats.total.active == 0);
        assert_eq!(stats.total.accepted, 40, "with room for {room}");
        assert_eq!(stats.total.refused, 40 - answered, "with room for {room}: not told of all");
        if way.model != Model::Thread && way.model != Model::Fork {
            assert_eq!(answered, 40, "with room for {room}: accepted, and not served");
        }
        served.ends_well();
    }
}

fn what_is_counted_adds_up(way: Way) {
    let mut served = serve(way.options(), Acts::echo());
    let clients: Vec<TcpStream> = (0..30).map(|_| served.client()).collect();
    clients.iter().for_each(|client| exchange(client, &[1; 1000]));
    let stats = served.until("all are served", |stats| stats.total.bytes_out == 30_000);
    assert_eq!((stats.total.accepted, stats.total.active), (30, 30));
    assert_eq!((stats.total.bytes_in, stats.total.refused, stats.total.timed_out), (30_000, 0, 0));
    let workers = if matches!(way.model, Model::Cores | Model::Prefork) { 2 } else { 1 };
    assert_eq!(stats.workers.len(), workers);
    let of_workers: Vec<u64> = stats.workers.iter().map(|worker| worker.accepted).collect();
    assert_eq!(of_workers.iter().sum::<u64>(), 30);
    served.log.wait_for("the opening of each", |entries| {
        (entries.iter().filter(|entry| entry.what == What::Open).count() == 30).then_some(())
    });
    for (worker, counted) in of_workers.iter().enumerate() {
        let opened = served.log.all().into_iter();
        let opened = opened.filter(|entry| entry.what == What::Open && entry.worker == worker).count();
        assert_eq!(opened as u64, *counted, "of worker {worker}");
    }
    drop(clients);
    served.until("all have gone", |stats| stats.workers.iter().all(|worker| worker.active == 0));
    process::until("no child is left over", || {
        way.model == Model::Prefork || process::children_of(served.process.pid).is_empty()
    });
    let outcome = served.ends_well();
    assert_eq!((outcome.stats.total.accepted, outcome.stats.total.active), (30, 0));
    assert_eq!((outcome.stats.total.bytes_in, outcome.stats.total.bytes_out), (30_000, 30_000));
}
