//! Every byte, once, in order; and the limits of what may wait.

use std::io::{IoSlice, Seek, Write};

use omnipoll::{Conn, Model};
use socket2::SockRef;

use crate::client::{
    end, exchange, expect_end, keep_small, pattern, read, read_to_end, send_meanwhile, small,
};
use crate::config::Config;
use crate::log::{Callback, Entry};
use crate::running_server::{port_of, serve};
use crate::suite::Suite;
use crate::test_handler::TestHandler;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(what_is_sent_comes_back);
    suite.for_each_config(single_bytes_come_back);
    suite.for_each_config(what_arrived_together_is_delivered_together);
    suite.for_each_config(urgent_data_delays_nothing);
    suite.for_each_config(what_is_queued_goes_out_in_order);
    suite.for_each_config(a_write_returns_what_is_queued);
    suite.for_each_config(many_pieces_go_out_in_order);
    suite.for_each_config(the_limit_of_a_connection_is_exact);
    suite.for_models(&[Model::Reactor, Model::Cores, Model::Thread], the_limit_of_the_server_is_exact);
    suite.for_each_config(sent_bytes_free_room_in_the_total_limit);
    suite.for_each_config(files_and_bytes_go_out_in_order);
    suite.for_each_config(a_file_shorter_than_announced);
    suite.for_each_config(a_reset_while_a_file_is_sent_raises_no_sigpipe);
}

fn what_is_sent_comes_back(config: Config) {
    let server = serve(config.options(), TestHandler::echo());
    let clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    for length in [1, 100, 65_536, 65_537, 1 << 20] {
        for (seed, client) in clients.iter().enumerate() {
            let data = pattern(seed, length);
            let sending = send_meanwhile(client, data.clone());
            assert!(read(client, length) == data, "{length} bytes came back differently");
            sending.join().unwrap();
        }
    }
    drop(clients);
    server.stop_and_check();
}

fn single_bytes_come_back(config: Config) {
    let server = serve(config.options(), TestHandler::echo());
    let client = server.client();
    for byte in 0..200 {
        exchange(&client, &[byte]);
    }
    drop(client);
    server.stop_and_check();
}

fn what_arrived_together_is_delivered_together(config: Config) {
    const EACH: usize = 250;
    let server = serve(config.options(), TestHandler::echo());
    // Whatever the buffers are that receives go into, these reach their ends at every offset.
    let clients = [700, 1_000, 1_300].map(|length| (length, server.client()));
    for seed in 0..EACH {
        for (length, client) in &clients {
            exchange(client, &pattern(seed, *length));
        }
    }
    for (length, client) in &clients {
        let port = port_of(client);
        let data =
            |entry: &Entry| (entry.port == port && entry.callback == Callback::Data).then_some(entry.value);
        let lengths = server.log.wait_for("all data", |entries| {
            let lengths: Vec<i64> = entries.iter().filter_map(data).collect();
            (lengths.iter().sum::<i64>() == (EACH * length) as i64).then_some(lengths)
        });
        assert_eq!(lengths, vec![*length as i64; EACH]);
    }
    drop(clients);
    server.stop_and_check();
}

fn urgent_data_delays_nothing(config: Config) {
    let server = serve(config.options(), TestHandler::echo());
    let client = server.client();
    // The last of 64 KiB, all that one receive may bring, before a byte that is urgent.
    for _ in 0..65 {
        exchange(&client, &pattern(3, 1_000));
    }
    SockRef::from(&client).send_out_of_band(&[&*pattern(1, 536), b"!"].concat()).unwrap();
    assert_eq!(read(&client, 536), pattern(1, 536));
    drop(client);
    server.stop_and_check();
}

/// Fills the kernel's buffers from within a call, so that from here on all is queued.
pub(crate) fn fill(conn: &mut Conn<'_>) -> usize {
    let mut written = 0;
    // So many at once are not left to a ring, which has not sent them when the call returns.
    while conn.write(&[0; 4000]).unwrap() == 0 {
        written += 4000;
    }
    written + 4000
}

/// Each number in four bytes.
fn numbers(count: u32) -> Vec<u8> {
    (0..count).flat_map(u32::to_le_bytes).collect()
}

fn what_is_queued_goes_out_in_order(config: Config) {
    const COUNT: u32 = 150_000;
    let handler = TestHandler::echo().on_data(|conn, _, _| {
        keep_small(conn);
        let mut file = tempfile();
        file.write_all(&numbers(COUNT)).unwrap();
        let all = numbers(COUNT);
        let (mut at, mut turn) = (0, 0);
        while at < all.len() {
            // Some pieces are a part of a number.
            let length = [4, 1, 7, 400, 30_000, 0, 70_001][turn % 7].min(all.len() - at);
            let data = &all[at..at + length];
            match turn % 3 {
                0 => drop(conn.write(data).unwrap()),
                1 => {
                    let (one, other) = data.split_at(length / 3);
                    conn.write_vectored(&[IoSlice::new(one), IoSlice::new(other)]).unwrap();
                }
                _ => conn.send_file(&file, at as u64, length as u64).unwrap(),
            }
            at += length;
            turn += 1;
        }
        conn.close();
    });
    let server = serve(config.options(), handler);
    let mut client = small(server.address());
    client.write_all(b"go").unwrap();
    assert!(read_to_end(&client) == numbers(COUNT), "they came in another order");
    drop(client);
    server.stop_and_check();
}

/// An empty file without a name.
fn tempfile() -> std::fs::File {
    // SAFETY: the name is a string that ends.
    let fd = unsafe { libc::memfd_create(c"file".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "memfd_create: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just given us this number.
    unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }
}

fn a_write_returns_what_is_queued(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, log, _| {
        keep_small(conn);
        let mut written = fill(conn);
        let first = conn.queued();
        assert!((1..=4000).contains(&first), "{first} bytes of a write of 4,000 are queued");
        for length in [1, 0, 5000, 17] {
            let before = conn.queued();
            assert_eq!(conn.write(&vec![0; length]).unwrap(), before + length);
            assert_eq!(conn.queued(), before + length);
            written += length;
        }
        log.value(written);
        conn.close();
    });
    let server = serve(config.options(), handler);
    let mut client = small(server.address());
    client.write_all(b"go").unwrap();
    let written = server.values(&client, 1)[0];
    assert_eq!(read_to_end(&client).len() as i64, written);
    end(&client);
    assert_eq!(server.expect(&client, Callback::Close).value, 0);
    server.stop_and_check();
}

fn many_pieces_go_out_in_order(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, _| {
        let all = pattern(0, 10_000);
        let mut pieces = Vec::new();
        let mut rest = &all[..];
        // 4,000 pieces and more, some of them empty.
        while !rest.is_empty() {
            let (piece, left) = rest.split_at((pieces.len() % 5).min(rest.len()));
            pieces.push(IoSlice::new(piece));
            rest = left;
        }
        assert!(pieces.len() > 4000);
        conn.write_vectored(&[]).unwrap();
        for _ in 0..3 {
            conn.write_vectored(&pieces).unwrap();
        }
        conn.close();
    });
    let server = serve(config.options(), handler);
    let mut client = server.client();
    client.write_all(b"go").unwrap();
    assert_eq!(read_to_end(&client), pattern(0, 10_000).repeat(3));
    drop(client);
    server.stop_and_check();
}

/// Whether a write is refused for lack of room, with nothing written.
fn is_refused(conn: &mut Conn<'_>, length: usize) -> bool {
    let before = conn.queued();
    let data = vec![1; length];
    let half = IoSlice::new(&data[..length / 2]);
    let rest = IoSlice::new(&data[length / 2..]);
    let refused = match (conn.write(&data), conn.write_vectored(&[half, rest])) {
        (Err(one), Err(other)) => {
            [one, other].iter().all(|error| error.raw_os_error() == Some(libc::ENOBUFS))
        }
        (Ok(_), _) => false,
        (Err(_), Ok(_)) => panic!("write is refused what write_vectored is not"),
    };
    assert!(!refused || conn.queued() == before, "something of a refused write is queued");
    refused
}

fn the_limit_of_a_connection_is_exact(config: Config) {
    const LIMIT: usize = 100_000;
    let handler = TestHandler::echo().on_data(|conn, log, _| {
        keep_small(conn);
        assert!(is_refused(conn, LIMIT + 1));
        let mut written = fill(conn);
        let room = LIMIT - conn.queued();
        assert!(is_refused(conn, room + 1));
        assert_eq!(conn.write(&vec![0; room]).unwrap(), LIMIT);
        written += room;
        assert!(is_refused(conn, 1));
        assert_eq!(conn.write(&[]).unwrap(), LIMIT);
        assert_eq!(conn.id().write(&[1]).unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
        log.value(written);
    });
    let server = serve(config.options().queue_limit(LIMIT), handler);
    let mut client = small(server.address());
    client.write_all(b"go").unwrap();
    let written = server.values(&client, 1)[0] as usize;
    assert_eq!(read(&client, written), vec![0; written], "a refused write was sent");
    end(&client);
    expect_end(&client);
    // The connection has gone on in spite of the refusals.
    assert_eq!(server.expect(&client, Callback::Close).value, 0);
    server.stop_and_check();
}

fn the_limit_of_the_server_is_exact(config: Config) {
    const ALL: usize = 150_000;
    let handler = TestHandler::echo().on_data(|conn, log, _| {
        keep_small(conn);
        fill(conn);
        // What others have queued counts, and nothing else does.
        let mut room = 0;
        for step in [10_000, 1000, 100, 10, 1] {
            while conn.queued() < 100_000 && conn.write(&vec![0; step]).is_ok() {
                room += step;
            }
        }
        log.value(conn.queued());
        assert!(room == 0 || is_refused(conn, 10_001));
        assert_eq!(conn.id().write(&[1; 10_001]).unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
    });
    let options = config.options().total_queue_limit(ALL).queue_limit(100_000).water_marks(100_000, 100_000);
    let server = serve(options, handler);
    let (mut one, mut other) = (small(server.address()), small(server.address()));
    one.write_all(b"go").unwrap();
    assert_eq!(server.values(&one, 1), [100_000]);
    other.write_all(b"go").unwrap();
    let others = server.values(&other, 1)[0];
    // A buffer's worth of the first one's may have gone out meanwhile, and no more: the client does not read.
    assert!((50_000..100_000).contains(&others), "{others} bytes are queued besides 100,000 of 150,000");
    drop((one, other));
    server.stop_and_check();
}

fn sent_bytes_free_room_in_the_total_limit(config: Config) {
    const ALL: usize = 50_000;
    let handler = TestHandler::echo().on_data(|conn, log, data| {
        keep_small(conn);
        for _ in data {
            let mut written = fill(conn);
            let room = ALL - conn.queued();
            conn.write(&vec![0; room]).unwrap();
            written += room;
            log.value(written);
        }
    });
    let server = serve(config.options().workers(1).total_queue_limit(ALL), handler);
    for round in 0..3 {
        let mut client = small(server.address());
        for turn in 1..=2 {
            client.write_all(b"1").unwrap();
            let written = server.values(&client, turn)[turn - 1];
            read(&client, written as usize);
        }
        client.write_all(b"1").unwrap();
        // This time it is left in the queue, and goes with its connection.
        server.values(&client, 3);
        match round {
            0 => crate::client::reset(client),
            _ => drop(client),
        }
        server.log.wait_for("as many ends", |entries| {
            let wait_for_end = entries.iter().filter(|entry| entry.callback == Callback::Close).count();
            (wait_for_end == round + 1).then_some(())
        });
    }
    server.stop_and_check();
}

fn files_and_bytes_go_out_in_order(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, _| {
        let mut file = tempfile();
        file.write_all(&pattern(1, 3 << 20)).unwrap();
        file.rewind().unwrap();
        conn.write(b"before").unwrap();
        let queued = conn.queued();
        conn.send_file(&file, 0, 3 << 20).unwrap();
        assert_eq!(conn.queued(), queued, "what is in a file counts as queued");
        conn.send_file(&file, 5, 0).unwrap();
        conn.write(b"between").unwrap();
        conn.send_file(&file, (3 << 20) - 10, 10).unwrap();
        conn.write(b"after").unwrap();
        // It is ours to close.
        drop(file);
        conn.close();
    });
    let server = serve(config.options(), handler);
    let mut client = server.client();
    client.write_all(b"go").unwrap();
    let file = pattern(1, 3 << 20);
    let expected = [b"before", &file[..], b"between", &file[(3 << 20) - 10..], b"after"].concat();
    assert!(read_to_end(&client) == expected, "something else arrived");
    drop(client);
    server.stop_and_check();
}

fn a_file_shorter_than_announced(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, data| {
        let mut file = tempfile();
        file.write_all(&[7; 5000]).unwrap();
        if data == b"later" {
            // It is found out when the queue comes to it.
            keep_small(conn);
            fill(conn);
        }
        let _ = conn.send_file(&file, 1000, 4001);
    });
    let server = serve(config.options(), handler);
    for words in ["now", "later"] {
        let mut client = small(server.address());
        client.write_all(words.as_bytes()).unwrap();
        // It must not look like the whole of it.
        crate::client::expect_reset(&client);
        assert_eq!(server.expect(&client, Callback::Close).value, libc::EIO.into());
    }
    server.stop_and_check();
}

fn a_reset_while_a_file_is_sent_raises_no_sigpipe(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, _, data| {
        if data != b"file" {
            return drop(conn.write(data));
        }
        keep_small(conn);
        let file = tempfile();
        file.set_len(8 << 20).unwrap();
        let _ = conn.send_file(&file, 0, 8 << 20);
    });
    // What a C program has unless it does something about it, and sendfile(2) has no flag against.
    let server = crate::running_server::serve_on(&["127.0.0.1:0"], config.options(), handler, |_| {
        // SAFETY: takes no pointer to anything.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    });
    let witness = server.client();
    exchange(&witness, b"hello");
    for _ in 0..10 {
        let mut client = server.client();
        client.write_all(b"file").unwrap();
        read(&client, 100_000);
        let port = crate::running_server::port_of(&client);
        crate::client::reset(client);
        assert_eq!(server.expect_of(port, Callback::Close).value, libc::ECONNRESET.into());
        exchange(&witness, b"still here");
    }
    drop(witness);
    server.stop_and_check();
}
