//! Broadcasts: to every connection, to all but one, and to the members of a group.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use omnipoll::{Conn, ConnId, Model};

use crate::client::{end, exchange, expect_end, keep_small, read, reset, small};
use crate::config::Config;
use crate::log::{Callback, ConnLog};
use crate::running_server::{serve, RunningServer};
use crate::suite::Suite;
use crate::test_handler::TestHandler;

/// The models whose connections share memory.
const SHARING: &[Model] = &[Model::Reactor, Model::Cores, Model::Thread];

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_models(SHARING, a_broadcast_reaches_every_client);
    suite.for_models(&[Model::Fork, Model::Prefork], a_broadcast_is_refused);
    suite.for_models(SHARING, a_broadcast_skips_clients_without_room);
    suite.for_models(SHARING, a_broadcast_leaves_out_one);
    suite.for_models(SHARING, a_group_has_those_who_have_joined_and_not_left);
    suite.for_models(SHARING, a_broadcast_to_a_group_leaves_out_one);
    suite.for_models(SHARING, other_threads_join_and_leave);
    suite.for_models(SHARING, threads_join_and_leave_at_once);
    suite.for_models(SHARING, a_member_that_ends_leaves_its_groups);
    suite.for_models(SHARING, a_closing_connection_can_not_join);
    suite.for_models(SHARING, a_broadcast_to_a_group_skips_members_without_room);
    suite.for_models(SHARING, there_may_be_many_groups);
    suite.for_each_config(names_and_numbers_of_groups_are_limited);
}

fn a_broadcast_reaches_every_client(config: Config) {
    let mut server = serve(config.options(), TestHandler::echo());
    assert_eq!(server.broadcast("nobody"), 0);
    let clients: Vec<_> = (0..20).map(|_| server.client()).collect();
    clients.iter().for_each(|client| exchange(client, b"here"));
    assert_eq!(server.broadcast("hello"), 20);
    for client in &clients {
        assert_eq!(read(client, 5), b"hello");
    }
    drop(clients);
    server.until("all have gone", |stats| stats.total.active == 0);
    assert_eq!(server.broadcast("nobody"), 0);
    server.stop_and_check();
}

fn a_broadcast_is_refused(config: Config) {
    let mut server = serve(config.options(), TestHandler::echo());
    let mut client = server.client();
    exchange(&client, b"here");
    let refused = -i64::from(libc::ENOTSUP);
    assert_eq!(server.broadcast("hello"), refused);
    assert_eq!(server.broadcast_except("hello", 0), refused);
    assert_eq!(server.broadcast_to("group", "hello", None), refused);
    client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    assert!(client.read(&mut [0]).is_err(), "something has come");
    drop(client);
    server.stop_and_check();
}

fn a_broadcast_skips_clients_without_room(config: Config) {
    expect_skipped_without_room(config, |server, text| server.broadcast(text));
}

fn a_broadcast_to_a_group_skips_members_without_room(config: Config) {
    expect_skipped_without_room(config, |server, text| server.broadcast_to("all", text, None));
}

fn expect_skipped_without_room(config: Config, broadcast: impl Fn(&mut RunningServer, &str) -> i64) {
    let handler = TestHandler::echo().on_open(|conn, _| conn.join("all")).on_data(|conn, log, data| {
        if data == b"fill" {
            keep_small(conn);
            while conn.write(&[0; 1000]).unwrap() == 0 {}
            let room = 100_000 - conn.queued();
            conn.write(&vec![0; room]).unwrap();
            log.value(conn.queued());
        } else {
            conn.write(data).unwrap();
        }
    });
    let mut server = serve(config.options().queue_limit(100_000), handler);
    let (mut full, other) = (small(server.address()), server.client());
    exchange(&other, b"here");
    full.write_all(b"fill").unwrap();
    assert_eq!(server.values(&full, 1), [100_000]);
    // Its kernel may still take what was on its way, up to a buffer of it.
    let text = "x".repeat(60_000);
    let mut given = 0;
    for _ in 0..2 {
        given += broadcast(&mut server, &text);
        assert_eq!(read(&other, 60_000), text.as_bytes());
        // What the client has read is counted until its loop has noted that it was sent.
        exchange(&other, b"noted");
    }
    assert!((2..=3).contains(&given), "given to {given} in all");
    let stats = server.stats();
    assert_eq!(stats.total.writes_refused as i64, 4 - given);
    drop((full, other));
    server.stop_and_check();
}

/// Joins ("+name") and leaves ("-name") groups as its client says, and answers with the number of the
/// error; in another thread when a "*" is before it. Echoes all else.
fn member() -> TestHandler {
    TestHandler::echo().on_data(|conn, _, data| {
        let command = std::str::from_utf8(data).unwrap();
        if let Some(command) = command.strip_prefix('*') {
            let (id, command) = (conn.id(), command.to_owned());
            std::thread::spawn(move || {
                let done = if let Some(group) = command.strip_prefix('+') {
                    id.join(group)
                } else {
                    id.leave(&command[1..])
                };
                id.write(&answer(&done)).unwrap();
            });
            return;
        }
        let answer = match command.split_at(1) {
            ("+", group) => answer(&conn.join(group)),
            ("-", group) => answer(&conn.leave(group)),
            _ => data.to_vec(),
        };
        conn.write(&answer).unwrap();
    })
}

/// The number of the error, in as many bytes as any other's.
fn answer(done: &io::Result<()>) -> Vec<u8> {
    let errno = done.as_ref().err().map_or(0, |error| error.raw_os_error().unwrap_or(-1));
    format!("{errno:4}").into_bytes()
}

/// Has a [`member`] join or leave, and returns the number of the error.
#[track_caller]
fn tell(mut client: &TcpStream, command: &str) -> i32 {
    client.write_all(command.as_bytes()).unwrap();
    String::from_utf8(read(client, 4)).unwrap().trim().parse().unwrap()
}

/// So many clients of a server of [`member`]s, with their ids.
fn members(server: &RunningServer, count: usize) -> Vec<(TcpStream, u64)> {
    let client = |_| {
        let client = server.client();
        exchange(&client, b"here");
        let id = server.expect(&client, Callback::Open).id;
        (client, id)
    };
    (0..count).map(client).collect()
}

/// That these clients, and no others, have been sent these bytes.
#[track_caller]
fn expect_only(clients: &[(TcpStream, u64)], who: &[usize], bytes: &[u8]) {
    for (number, (client, _)) in clients.iter().enumerate() {
        if who.contains(&number) {
            assert_eq!(read(client, bytes.len()), bytes, "of client {number}");
        }
        // What a connection is sent comes in order: nothing came before this.
        exchange(client, b".");
    }
}

fn a_broadcast_leaves_out_one(config: Config) {
    let mut server = serve(config.options(), member());
    let clients = members(&server, 4);
    assert_eq!(server.broadcast_except("hello", clients[2].1), 3);
    expect_only(&clients, &[0, 1, 3], b"hello");
    for nobody in [0, 1, u64::MAX] {
        assert_eq!(server.broadcast_except("all", nobody), 4);
        expect_only(&clients, &[0, 1, 2, 3], b"all");
    }
    drop(clients);
    server.stop_and_check();
}

fn a_group_has_those_who_have_joined_and_not_left(config: Config) {
    let mut server = serve(config.options(), member());
    let clients = members(&server, 5);
    assert_eq!(server.broadcast_to("a", "nobody", None), 0);
    for (number, command) in [(0, "+a"), (1, "+a"), (1, "+b"), (3, "+b"), (3, "+b"), (4, "-a")] {
        assert_eq!(tell(&clients[number].0, command), 0, "{command}");
    }
    assert_eq!(server.broadcast_to("a", "to a", None), 2);
    expect_only(&clients, &[0, 1], b"to a");
    // Once, though it has joined twice.
    assert_eq!(server.broadcast_to("b", "to b", None), 2);
    expect_only(&clients, &[1, 3], b"to b");
    assert_eq!(tell(&clients[3].0, "-b"), 0);
    assert_eq!(tell(&clients[3].0, "-b"), 0);
    assert_eq!(server.broadcast_to("b", "b again", None), 1);
    expect_only(&clients, &[1], b"b again");
    assert_eq!(tell(&clients[1].0, "-b"), 0);
    assert_eq!(server.broadcast_to("b", "nobody", None), 0);
    assert_eq!(server.broadcast_to("c", "nobody", None), 0);
    assert_eq!(server.broadcast_to("a", "a again", None), 2);
    expect_only(&clients, &[0, 1], b"a again");
    drop(clients);
    server.stop_and_check();
}

fn a_broadcast_to_a_group_leaves_out_one(config: Config) {
    let mut server = serve(config.options(), member());
    let clients = members(&server, 4);
    for (client, _) in &clients[..3] {
        assert_eq!(tell(client, "+a"), 0);
    }
    assert_eq!(server.broadcast_to("a", "hello", Some(clients[1].1)), 2);
    expect_only(&clients, &[0, 2], b"hello");
    // One that isn't a member.
    assert_eq!(server.broadcast_to("a", "all", Some(clients[3].1)), 3);
    expect_only(&clients, &[0, 1, 2], b"all");
    drop(clients);
    server.stop_and_check();
}

fn other_threads_join_and_leave(config: Config) {
    let mut server = serve(config.options(), member());
    let clients = members(&server, 3);
    for (client, _) in &clients[..2] {
        assert_eq!(tell(client, "*+a"), 0);
        assert_eq!(tell(client, "*+a"), 0);
    }
    assert_eq!(server.broadcast_to("a", "hello", None), 2);
    expect_only(&clients, &[0, 1], b"hello");
    assert_eq!(tell(&clients[0].0, "*-a"), 0);
    assert_eq!(tell(&clients[0].0, "*-a"), 0);
    assert_eq!(server.broadcast_to("a", "again", None), 1);
    expect_only(&clients, &[1], b"again");
    assert_eq!(tell(&clients[0].0, "*+"), libc::EINVAL);
    let gone = ConnId::from_number(clients[0].1);
    drop(clients);
    // Here it is no connection at all.
    let errno = |done: io::Result<()>| done.unwrap_err().raw_os_error();
    assert_eq!((errno(gone.join("a")), errno(gone.leave("a"))), (Some(libc::ESTALE), Some(libc::ESTALE)));
    server.stop_and_check();
}

fn threads_join_and_leave_at_once(config: Config) {
    const THREADS: usize = 4;
    const TIMES: usize = 100;
    // Each client's threads join and leave the same groups, while some of the clients end.
    let handler = TestHandler::echo().on_data(|conn, _, data| {
        let (id, stays) = (conn.id(), data == b"stay");
        let threads = (0..THREADS).map(move |thread| {
            std::thread::spawn(move || {
                for time in 0..TIMES {
                    let group = ["x", "y", "z"][(thread + time) % 3];
                    let _ = id.join(group).and_then(|()| id.leave(group));
                }
                let _ = id.join("stay");
            })
        });
        let threads: Vec<_> = threads.collect();
        std::thread::spawn(move || {
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let _ = id.write(b"done");
        });
        if !stays {
            conn.close();
        }
    });
    let mut server = serve(config.options(), handler);
    let mut clients: Vec<_> = (0..8).map(|_| server.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(if number % 2 == 0 { b"stay" } else { b"go" }).unwrap();
    }
    for client in clients.iter().step_by(2) {
        assert_eq!(read(client, 4), b"done");
    }
    clients.iter().skip(1).step_by(2).for_each(expect_end);
    clients.iter().skip(1).step_by(2).for_each(end);
    server.until("half of them have gone", |stats| stats.total.active == 4);
    assert_eq!(server.broadcast_to("stay", "hello", None), 4);
    clients.iter().step_by(2).for_each(|client| assert_eq!(read(client, 5), b"hello"));
    drop(clients);
    server.until("all have gone", |stats| stats.total.active == 0);
    assert_eq!(server.broadcast_to("stay", "nobody", None), 0);
    server.stop_and_check();
}

fn a_member_that_ends_leaves_its_groups(config: Config) {
    let mut server = serve(config.options(), member());
    let mut clients = members(&server, 4);
    for (client, _) in &clients {
        assert_eq!(tell(client, "+a"), 0);
        assert_eq!(tell(client, "+b"), 0);
    }
    reset(clients.remove(0).0);
    end(&clients[0].0);
    expect_end(&clients[0].0);
    clients.remove(0);
    server.until("two have gone", |stats| stats.total.active == 2);
    assert_eq!(server.broadcast_to("a", "hello", None), 2);
    // New ones, which may have the places of the old ones.
    clients.extend(members_after(&server, &clients, 2, b"hello"));
    assert_eq!(server.broadcast_to("b", "again", None), 2);
    expect_only(&clients, &[0, 1], b"again");
    drop(clients);
    server.until("all have gone", |stats| stats.total.active == 0);
    assert_eq!(server.broadcast_to("a", "nobody", None), 0);
    assert_eq!(server.broadcast_to("b", "nobody", None), 0);
    server.stop_and_check();
}

/// When those that are there have got these bytes, so many new ones.
fn members_after(
    server: &RunningServer,
    clients: &[(TcpStream, u64)],
    count: usize,
    bytes: &[u8],
) -> Vec<(TcpStream, u64)> {
    clients.iter().for_each(|(client, _)| assert_eq!(read(client, bytes.len()), bytes));
    members(server, count)
}

fn a_closing_connection_can_not_join(config: Config) {
    let handler = TestHandler::echo()
        .on_data(|conn, log, _| {
            conn.join("a").unwrap();
            conn.close();
            errors(conn, log);
        })
        .on_close(errors);
    fn errors(conn: &mut Conn<'_>, log: &ConnLog) {
        for done in [conn.join("b"), conn.leave("a"), conn.id().join("b"), conn.id().leave("a")] {
            log.value(done.err().map_or(0, |error| error.raw_os_error().unwrap_or(-1)));
        }
    }
    let mut server = serve(config.options(), handler);
    let mut client = server.client();
    client.write_all(b"go").unwrap();
    expect_end(&client);
    assert_eq!(server.broadcast_to("a", "nobody", None), 0);
    end(&client);
    assert_eq!(server.values(&client, 8), [i64::from(libc::ESTALE); 8]);
    assert_eq!(server.broadcast_to("b", "nobody", None), 0);
    server.stop_and_check();
}

fn there_may_be_many_groups(config: Config) {
    const CLIENTS: usize = 16;
    const EACH: usize = 50;
    // Client number `n` is in the groups "n 0" to "n 49", and the one after it too.
    let handler = TestHandler::echo().on_data(|conn, _, data| {
        let number: usize = std::str::from_utf8(data).unwrap().parse().unwrap();
        for group in 0..EACH / 2 {
            conn.join(&format!("{number} {group}")).unwrap();
            conn.join(&format!("{} {group}", (number + 1) % CLIENTS)).unwrap();
        }
        conn.write(b".").unwrap();
    });
    let mut server = serve(config.options(), handler);
    let clients: Vec<_> = (0..CLIENTS).map(|_| server.client()).collect();
    for (number, mut client) in clients.iter().enumerate() {
        client.write_all(number.to_string().as_bytes()).unwrap();
        assert_eq!(read(client, 1), b".");
    }
    let mut sent = vec![String::new(); CLIENTS];
    for number in 0..CLIENTS {
        for group in 0..EACH / 2 {
            let group = format!("{number} {group}");
            assert_eq!(server.broadcast_to(&group, &group, None), 2);
            sent[number].push_str(&group);
            sent[(number + CLIENTS - 1) % CLIENTS].push_str(&group);
        }
    }
    for (client, sent) in clients.iter().zip(&sent) {
        assert_eq!(String::from_utf8(read(client, sent.len())).unwrap(), *sent);
    }
    drop(clients);
    server.stop_and_check();
}

fn names_and_numbers_of_groups_are_limited(config: Config) {
    let mut server = serve(config.options(), member());
    let client = server.client();
    for (name, errno) in [
        (String::new(), libc::EINVAL),
        ("x".repeat(256), libc::EINVAL),
        // 128 characters of two bytes.
        ("ä".repeat(128), libc::EINVAL),
    ] {
        assert_eq!(tell(&client, &format!("+{name}")), errno, "{name}");
        assert_eq!(tell(&client, &format!("-{name}")), errno, "{name}");
        if !config.model.forks() {
            assert_eq!(server.broadcast_to(&name, "text", None), -i64::from(errno), "{name}");
        }
    }
    let names = ["x".repeat(255), "ä".repeat(127), " ".to_owned(), "a\nb\0c".to_owned()];
    let others: Vec<String> = (names.len()..64).map(|number| number.to_string()).collect();
    for name in names.iter().chain(&others) {
        assert_eq!(tell(&client, &format!("+{name}")), 0, "{name}");
    }
    assert_eq!(tell(&client, "+one more"), libc::ENOBUFS);
    assert_eq!(tell(&client, "*+one more"), libc::ENOBUFS);
    // It is in it already.
    assert_eq!(tell(&client, "+10"), 0);
    assert_eq!(tell(&client, "-10"), 0);
    assert_eq!(tell(&client, "+one more"), 0);
    drop(client);
    server.stop_and_check();
}
