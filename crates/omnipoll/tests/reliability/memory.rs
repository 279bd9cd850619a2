//! What idle connections cost.

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use omnipoll::Model;

use crate::client::exchange;
use crate::config::Config;
use crate::echo::{ask, serve};
use crate::suite::Suite;
use crate::support::sys;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_models(&[Model::Reactor], ten_thousand_idle_and_a_hundred_active_clients);
}

/// Counts the bytes that are allocated.
pub(crate) struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

/// How many bytes this process has allocated.
pub(crate) fn in_use() -> usize {
    IN_USE.load(Ordering::Relaxed)
}

// SAFETY: it hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: what the caller promises us it promises the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// The memory of its own that a process has in use, in bytes: what is not a file's.
fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn ten_thousand_idle_and_a_hundred_active_clients(config: Config) {
    const MOST: usize = 600;
    // Both processes inherit it, and each has its own descriptors.
    let descriptors = sys::allow_descriptors(10_300) as usize;
    let idle = 10_000.min(descriptors - 300);
    let mut server = serve(config.options());
    let asking = server.client();
    ask::<8>(&asking, b"memory?");
    let before = u64::from_le_bytes(ask(&asking, b"memory?"));
    let resident_before = resident(server.process.pid);
    let clients: Vec<TcpStream> = (0..idle).map(|_| quick(&server)).collect();
    let stats = server.until("all are accepted", |stats| stats.total.active == idle as u64 + 1);
    assert_eq!(stats.total.accept_pauses, 0);
    let after = u64::from_le_bytes(ask(&asking, b"memory?"));
    let each = (after - before) / idle as u64;
    let resident = (resident(server.process.pid) - resident_before) / idle as u64;
    // They have idle neighbours, and are served all the same.
    let active: Vec<TcpStream> = (0..100).map(|_| quick(&server)).collect();
    let mut times = Vec::new();
    for _ in 0..5 {
        for client in &active {
            let begun = Instant::now();
            exchange(client, b"hello");
            times.push(begun.elapsed());
        }
    }
    times.sort();
    // The idle clients still have a server.
    clients.iter().step_by(500).for_each(|client| exchange(client, b"hello"));
    println!(
        "{idle} idle connections on {}: {each} bytes each allocated, {resident} resident; \
         100 active among them are answered in {:?} (median), {:?} (99 %)",
        config.engine.name(),
        times[times.len() / 2],
        times[times.len() * 99 / 100],
    );
    assert!(each as usize <= MOST, "{each} bytes for an idle connection");
    drop((clients, active, asking));
    server.stop_and_check();
}

/// A client whose end leaves nothing behind: not a port that can't be used for a minute.
fn quick(server: &crate::running_server::RunningServer) -> TcpStream {
    let client = server.client();
    let linger = socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO));
    linger.expect("SO_LINGER");
    client
}
