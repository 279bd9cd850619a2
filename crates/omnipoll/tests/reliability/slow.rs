//! Slow clients, and the clients that are served beside them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use omnipoll::Model;
use socket2::{Domain, Socket, Type};

use crate::client::with_timeouts;
use crate::client::{exchange, pattern};
use crate::config::Config;
use crate::echo::{ask, serve};
use crate::suite::Suite;
use crate::support::sys;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_models(
        &[Model::Reactor, Model::Cores, Model::Prefork],
        a_thousand_clients_that_send_a_byte_a_second,
    );
    suite.for_each_config(a_large_transfer_through_small_buffers);
}

/// The time below which 99 % of the answers to `clients` come, while `rounds` are asked for.
fn slowest_percent(clients: &[TcpStream], rounds: usize) -> Duration {
    let mut times = Vec::new();
    for _ in 0..rounds {
        for client in clients {
            let begun = Instant::now();
            exchange(client, b"hello");
            times.push(begun.elapsed());
        }
    }
    times.sort();
    times[times.len() * 99 / 100]
}

fn a_thousand_clients_that_send_a_byte_a_second(config: Config) {
    const TURNS: usize = 3;
    const SLOW: usize = 1000;
    sys::allow_descriptors(3000);
    let server = serve(config.options());
    let others: Vec<TcpStream> = (0..20).map(|_| server.client()).collect();
    let slow: Vec<TcpStream> = (0..SLOW).map(|_| server.client()).collect();
    let (on, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let (mut undisturbed, mut disturbed) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for mut client in &slow {
                    if on.load(Ordering::Relaxed) {
                        client.write_all(b".").expect("write");
                        client.read_exact(&mut [0]).expect("its echo");
                    }
                    // Each of the thousand has its turn once a second.
                    std::thread::sleep(Duration::from_secs(1) / SLOW as u32);
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }
        });
        slowest_percent(&others, 20);
        // In turn, so that what else the machine does disturbs both alike.
        for _ in 0..TURNS {
            on.store(false, Ordering::Relaxed);
            undisturbed.push(slowest_percent(&others, 50));
            on.store(true, Ordering::Relaxed);
            disturbed.push(slowest_percent(&others, 50));
        }
        over.store(true, Ordering::Relaxed);
    });
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (without, with) = (median(&mut undisturbed), median(&mut disturbed));
    let ratio = with.as_secs_f64() / without.as_secs_f64();
    println!(
        "99 % are answered within {without:?}, and within {with:?} ({ratio:.2} x) beside {SLOW} that send \
         a byte a second: {}, {}",
        config.model.name(),
        config.engine.name()
    );
    // Twice as long is what is aimed at; a machine with other things to do may take longer.
    assert!(ratio < 10.0, "{ratio:.2} times as long");
    drop((others, slow));
    server.stop_and_check();
}

fn a_large_transfer_through_small_buffers(config: Config) {
    const LENGTH: usize = 8 << 20;
    let server = serve(config.options());
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.set_recv_buffer_size(1024).expect("SO_RCVBUF");
    socket.set_send_buffer_size(1024).expect("SO_SNDBUF");
    // Segments that fit, or the ends wait for each other's windows to open.
    socket.set_tcp_mss(536).expect("TCP_MAXSEG");
    socket.connect(&server.address().into()).expect("connect");
    let client = with_timeouts(socket.into());
    assert_eq!(ask(&client, b"small!"), *b"small!");
    let begun = Instant::now();
    let piece = pattern(5, 1 << 20);
    let sum_of = |sum: u64, bytes: &[u8]| {
        bytes.iter().fold(sum, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    };
    let mut writer = client.try_clone().expect("dup");
    let sending = std::thread::spawn(move || {
        let mut sum = 0;
        for turn in 0..LENGTH / piece.len() {
            let mut piece = piece.clone();
            piece[0] = turn as u8;
            sum = sum_of(sum, &piece);
            writer.write_all(&piece).expect("write");
        }
        sum
    });
    let (mut sum, mut left) = (0, LENGTH);
    let mut buffer = vec![0; 65536];
    while left > 0 {
        let count = (&client).read(&mut buffer).expect("read");
        assert!(count > 0, "it ended with {left} bytes to come");
        sum = sum_of(sum, &buffer[..count]);
        left -= count;
    }
    assert_eq!(sending.join().expect("all was sent"), sum, "the checksums differ");
    println!(
        "8 MiB came back through the smallest buffers at {:.0} MB/s ({}, {})",
        LENGTH as f64 / 1e6 / begun.elapsed().as_secs_f64(),
        config.model.name(),
        config.engine.name()
    );
    drop(client);
    server.stop_and_check();
}
