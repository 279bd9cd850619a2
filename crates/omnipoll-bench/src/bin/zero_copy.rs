//! What a message costs its sender by `send(2)`, by a ring's send, and by its zero-copy send, over
//! loopback TCP: whether it pays to send so.
//!
//! `zero_copy [--quick]`. The sender waits for each message until its memory is free again; another
//! thread, on another core, reads and throws away. Prints the sender's processor time in microseconds
//! a message and its ratio to `send(2)`, medians of turns, and how many of the zero-copy sends the
//! kernel made by a copy after all, as it does wherever a device can't take pages as they are.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use io_uring::types::Fd;
use io_uring::{cqueue, opcode, squeue, IoUring};
use omnipoll_bench::machine;
use omnipoll_bench::turns::{connect_to_reader, median, median_ratio};

/// Messages of one turn.
const MESSAGES: usize = 200;
/// `IORING_SEND_ZC_REPORT_USAGE` and `IORING_NOTIF_USAGE_ZC_COPIED` of linux/io_uring.h.
const REPORT_USAGE: u16 = 1 << 3;
const COPIED: u32 = 1 << 31;

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Call,
    Ring,
    ZeroCopy,
}

const WAYS: [(Way, &str); 3] =
    [(Way::Call, "send(2)"), (Way::Ring, "ring, send"), (Way::ZeroCopy, "ring, zero-copy send")];

struct Sender {
    stream: TcpStream,
    ring: IoUring,
    message: Vec<u8>,
    copied: usize,
}

impl Sender {
    /// Sends the message, and returns when its memory is free again.
    fn send(&mut self, way: Way) -> io::Result<()> {
        let (fd, data, length) = (self.stream.as_raw_fd(), self.message.as_ptr(), self.message.len());
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        match way {
            Way::Call => {
                // SAFETY: the message is readable for its length.
                let sent = unsafe { libc::send(fd, data.cast(), length, flags) };
                assert_eq!(sent, length as isize, "a blocking send of all of it");
                Ok(())
            }
            Way::Ring => self.finish(&opcode::Send::new(Fd(fd), data, length as u32).flags(flags).build()),
            Way::ZeroCopy => {
                let request = opcode::SendZc::new(Fd(fd), data, length as u32);
                self.finish(&request.flags(flags).zc_flags(REPORT_USAGE).build())
            }
        }
    }

    fn finish(&mut self, request: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the message lives until the request has ended, which is waited for.
        unsafe { self.ring.submission().push(request) }.expect("room for a request");
        loop {
            self.ring.submit_and_wait(1)?;
            while let Some(done) = self.ring.completion().next() {
                if cqueue::notif(done.flags()) {
                    self.copied += usize::from(done.result() as u32 & COPIED != 0);
                } else {
                    assert_eq!(done.result(), self.message.len() as i32, "all of it");
                }
                if !cqueue::more(done.flags()) {
                    return Ok(());
                }
            }
        }
    }

    /// Microseconds of this thread's processor time for each message.
    fn turn(&mut self, way: Way) -> io::Result<f64> {
        let begin = machine::thread_time();
        for _ in 0..MESSAGES {
            self.send(way)?;
        }
        Ok((machine::thread_time() - begin) / 1e3 / MESSAGES as f64)
    }
}

fn main() -> io::Result<()> {
    let turns = if std::env::args().any(|word| word == "--quick") { 5 } else { 41 };
    let (stream, reading) = connect_to_reader()?;
    machine::settle_down();
    let mut sender = Sender { stream, ring: IoUring::new(8)?, message: Vec::new(), copied: 0 };
    for size in [4, 16, 64, 256, 1024] {
        sender.message = vec![7; size * 1024];
        sender.copied = 0;
        let mut times = [const { Vec::new() }; WAYS.len()];
        for turn in 0..=turns {
            for ((way, _), times) in WAYS.iter().zip(&mut times) {
                let time = sender.turn(*way)?;
                // The first is for the caches.
                if turn > 0 {
                    times.push(time);
                }
            }
        }
        for ((way, name), own) in WAYS.iter().zip(&times) {
            let ratio = median_ratio(own, &times[0]);
            let sent = MESSAGES * (turns + 1);
            let copied = match way {
                Way::ZeroCopy => format!("  {} of {sent} copied", sender.copied),
                _ => String::new(),
            };
            println!("{size:5} KiB  {name:<20}  {:8.1} us  {ratio:.2}{copied}", median(own.clone()));
        }
    }
    drop(sender);
    reading.join().expect("a reader");
    Ok(())
}
