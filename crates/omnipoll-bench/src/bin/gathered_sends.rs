//! What it costs to send on sixteen buffers of 4 KiB, as a proxy has received them, over loopback TCP: by
//! `send(2)` for each, by a ring's send for each, by one gathered send (`sendmsg`), and by one send bundle of
//! buffers that the ring was given (Linux 6.10).
//!
//! `gathered_sends [--quick]`. Another thread, on another core, reads and throws away. Prints the sender's
//! processor time in microseconds for all sixteen and its ratio to `send(2)`, medians of turns, and how many
//! requests it took.

use std::alloc::{alloc_zeroed, Layout};
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{opcode, squeue, IoUring};
use omnipoll_bench::machine;
use omnipoll_bench::turns::{connect_to_reader, median, median_ratio};

/// Times that all buffers are sent in one turn.
const ROUNDS: usize = 200;
const BUFFERS: usize = 16;
const BUFFER: usize = 4096;
const FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

#[derive(Clone, Copy)]
enum Way {
    Calls,
    Requests,
    Gathered,
    Bundle,
}

const WAYS: [(Way, &str); 4] = [
    (Way::Calls, "send(2) for each"),
    (Way::Requests, "ring, send for each"),
    (Way::Gathered, "ring, sendmsg of all"),
    (Way::Bundle, "ring, send bundle"),
];

struct Sender {
    stream: TcpStream,
    ring: IoUring,
    memory: Vec<u8>,
    pieces: [libc::iovec; BUFFERS],
    /// The buffers that the ring was given, a page of them, and how many it was given so far.
    entries: *mut BufRingEntry,
    given: u16,
    requests: usize,
}

impl Sender {
    fn new(stream: TcpStream) -> io::Result<Self> {
        let ring = IoUring::new(8)?;
        let memory = vec![7u8; BUFFERS * BUFFER];
        let pieces = std::array::from_fn(|index| libc::iovec {
            iov_base: memory[index * BUFFER..].as_ptr().cast_mut().cast(),
            iov_len: BUFFER,
        });
        let page = Layout::from_size_align(4096, 4096).expect("a page");
        // SAFETY: the layout is not empty.
        let entries = unsafe { alloc_zeroed(page) }.cast::<BufRingEntry>();
        // SAFETY: the page lives until the program ends.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS as u16, 0, 0)? };
        Ok(Self { stream, ring, memory, pieces, entries, given: 0, requests: 0 })
    }

    /// Sends all buffers.
    fn send(&mut self, way: Way) -> io::Result<()> {
        let fd = Fd(self.stream.as_raw_fd());
        match way {
            Way::Calls => {
                for piece in self.memory.chunks(BUFFER) {
                    // SAFETY: the piece is readable for its length.
                    let sent = unsafe { libc::send(fd.0, piece.as_ptr().cast(), BUFFER, FLAGS) };
                    assert_eq!(sent, BUFFER as isize, "a blocking send of all of it");
                }
                self.requests += BUFFERS;
            }
            Way::Requests => {
                // A stream's bytes come in order only if each waits for the one before.
                for index in 0..BUFFERS {
                    let piece = self.memory[index * BUFFER..].as_ptr();
                    self.finish(&opcode::Send::new(fd, piece, BUFFER as u32).flags(FLAGS).build(), BUFFER)?;
                }
            }
            Way::Gathered => {
                // SAFETY: zeros are a valid msghdr.
                let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
                (message.msg_iov, message.msg_iovlen) = (self.pieces.as_mut_ptr(), BUFFERS);
                self.finish(
                    &opcode::SendMsg::new(fd, &message).flags(FLAGS as u32).build(),
                    BUFFERS * BUFFER,
                )?;
            }
            Way::Bundle => {
                self.give_buffers();
                self.finish(&opcode::SendBundle::new(fd, 0).flags(FLAGS).build(), BUFFERS * BUFFER)?;
            }
        }
        Ok(())
    }

    /// Gives the ring every buffer.
    fn give_buffers(&mut self) {
        for index in 0..BUFFERS {
            let place = usize::from(self.given.wrapping_add(index as u16)) % BUFFERS;
            // SAFETY: the page has room for that many, and the kernel has used up what it was given before.
            let entry = unsafe { &mut *self.entries.add(place) };
            entry.set_addr(self.memory[index * BUFFER..].as_ptr() as u64);
            entry.set_len(BUFFER as u32);
            entry.set_bid(index as u16);
        }
        self.given = self.given.wrapping_add(BUFFERS as u16);
        // SAFETY: the tail is a word that the kernel reads as well.
        let tail = unsafe { &*BufRingEntry::tail(self.entries).cast::<AtomicU16>() };
        tail.store(self.given, Ordering::Release);
    }

    /// Makes a request that sends so many bytes.
    fn finish(&mut self, request: &squeue::Entry, length: usize) -> io::Result<()> {
        // SAFETY: what it points to lives until the request has ended, which is waited for.
        unsafe { self.ring.submission().push(request) }.expect("room for a request");
        self.ring.submit_and_wait(1)?;
        self.requests += 1;
        let done = self.ring.completion().next().expect("a completion").result();
        match done {
            ..0 => Err(io::Error::from_raw_os_error(-done)),
            _ => {
                assert_eq!(done as usize, length, "all of it");
                Ok(())
            }
        }
    }

    /// Microseconds of this thread's processor time for all buffers.
    fn turn(&mut self, way: Way) -> io::Result<f64> {
        let begin = machine::thread_time();
        for _ in 0..ROUNDS {
            self.send(way)?;
        }
        Ok((machine::thread_time() - begin) / 1e3 / ROUNDS as f64)
    }
}

fn main() -> io::Result<()> {
    let turns = if std::env::args().any(|word| word == "--quick") { 5 } else { 101 };
    let (stream, reading) = connect_to_reader()?;
    machine::settle_down();
    let mut sender = Sender::new(stream)?;
    let mut times = [const { Vec::new() }; WAYS.len()];
    let mut requests = [0; WAYS.len()];
    for turn in 0..=turns {
        for (index, (way, name)) in WAYS.iter().enumerate() {
            sender.requests = 0;
            match sender.turn(*way) {
                // The first is for the caches.
                Ok(time) if turn > 0 => times[index].push(time),
                Ok(_) => requests[index] = sender.requests,
                Err(error) => return Err(io::Error::new(error.kind(), format!("{name}: {error}"))),
            }
        }
    }
    for ((own, (_, name)), requests) in times.iter().zip(WAYS).zip(requests) {
        let ratio = median_ratio(own, &times[0]);
        println!("{name:<22} {:7.1} us  {ratio:.2}  {} requests", median(own.clone()), requests / ROUNDS);
    }
    drop(sender);
    let sent = (turns + 1) * WAYS.len() * ROUNDS * BUFFERS * BUFFER;
    println!("{} of {sent} bytes came", reading.join().expect("a reader"));
    Ok(())
}
