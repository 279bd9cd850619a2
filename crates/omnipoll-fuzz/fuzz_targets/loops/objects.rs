//! What the calls of one input are about: loops, connections and datagram sockets by their handles, some of
//! which are stale, and the clients.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ptr;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arbitrary::Arbitrary;
use omnipoll_capi::omni_loop_free;

const SLOTS: usize = 8;
/// More loops than this are not made: each has a buffer of 256 KiB, or a ring.
const MOST_LOOPS: usize = 12;

/// A handle as an argument.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Handle {
    /// What the slot holds, which may have ended long ago.
    Ours(u8),
    /// A handle of another kind of object.
    Foreign(u8),
    Null,
    Garbage(u64),
}

/// The handles of one kind.
#[derive(Default)]
pub(crate) struct Handles([AtomicUsize; SLOTS]);

impl Handles {
    pub(crate) fn put(&self, slot: u8, handle: usize) {
        if handle != 0 {
            self.0[usize::from(slot) % SLOTS].store(handle, Relaxed);
        }
    }

    fn at(&self, slot: u8) -> usize {
        self.0[usize::from(slot) % SLOTS].load(Relaxed)
    }

    pub(crate) fn get(&self, handle: Handle, objects: &Objects) -> usize {
        match handle {
            Handle::Ours(slot) => self.at(slot),
            Handle::Foreign(slot) => {
                let kinds = [&objects.loops, &objects.conns, &objects.sockets];
                kinds[usize::from(slot / 64) % kinds.len()].at(slot)
            }
            Handle::Null => 0,
            Handle::Garbage(bits) => bits as usize,
        }
    }
}

#[derive(Default)]
pub(crate) struct Objects {
    pub(crate) loops: Handles,
    pub(crate) conns: Handles,
    pub(crate) sockets: Handles,
    /// Where a loop listens, or has listened; 0 where none has.
    pub(crate) ports: [AtomicU16; 4],
    pub(crate) udp_ports: [AtomicU16; 4],
}

impl Objects {
    /// A port of those, or one at which nobody is.
    pub(crate) fn port(ports: &[AtomicU16; 4], at: u8) -> u16 {
        match ports[usize::from(at) % 4].load(Relaxed) {
            0 => 1,
            port => port,
        }
    }
}

/// What one thread has.
#[derive(Default)]
pub(crate) struct Owner {
    loops: RefCell<Vec<usize>>,
    count: Cell<usize>,
    clients: RefCell<Vec<TcpStream>>,
}

impl Owner {
    pub(crate) fn may_have_another_loop(&self) -> bool {
        self.count.get() < MOST_LOOPS
    }

    pub(crate) fn add(&self, event_loop: usize) {
        self.count.set(self.count.get() + 1);
        self.loops.borrow_mut().push(event_loop);
    }

    pub(crate) fn connect(&self, port: u16) {
        if let Ok(client) = TcpStream::connect(("127.0.0.1", port)) {
            let _ = client.set_nonblocking(true);
            let _ = client.set_write_timeout(Some(Duration::from_millis(1)));
            self.clients.borrow_mut().push(client);
        }
    }

    pub(crate) fn with_client(&self, at: u8, data: &[u8]) {
        let mut clients = self.clients.borrow_mut();
        let count = clients.len().max(1);
        if let Some(client) = clients.get_mut(usize::from(at) % count) {
            let _ = client.write(data);
            let _ = client.read(&mut [0; 4096]);
        }
    }

    pub(crate) fn end_client(&self, at: u8) {
        let mut clients = self.clients.borrow_mut();
        if !clients.is_empty() {
            let at = usize::from(at) % clients.len();
            clients.swap_remove(at);
        }
    }

    /// Ends all that this thread has.
    pub(crate) fn free(&self) {
        // The last callbacks may make others.
        loop {
            let last = self.loops.borrow_mut().pop();
            let Some(event_loop) = last else { break };
            omni_loop_free(ptr::without_provenance_mut(event_loop));
        }
        self.count.set(0);
        self.clients.borrow_mut().clear();
    }
}
