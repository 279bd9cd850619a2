//! The write queue of a connection beside a string of bytes: what is queued arrives once and in order,
//! however it is sent, and is counted exactly as long as it waits.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

use super::input::Input;
use crate::net::{Account, Budget, WriteQueue};
use crate::sys::socket;

/// What the queued files have at their beginning.
fn content() -> &'static [u8] {
    static CONTENT: OnceLock<Vec<u8>> = OnceLock::new();
    CONTENT.get_or_init(|| {
        let mut content = Vec::new();
        let file = File::open("/proc/self/exe").expect("the program itself can be read");
        file.take(1 << 16).read_to_end(&mut content).expect("and is read");
        content
    })
}

struct Queue {
    output: WriteQueue,
    budget: Arc<Budget>,
    ours: UnixStream,
    theirs: UnixStream,
    /// What the peer must still read, and how much of it is in memory of ours.
    expected: VecDeque<u8>,
    next: u8,
}

/// Queues, sends and reads.
pub fn write_queue(data: &[u8]) {
    let mut input = Input::new(data);
    let budget = Arc::new(Budget::new(1 << 20, 1 << 20, 1 << 16));
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    ours.set_nonblocking(true).expect("a flag");
    theirs.set_nonblocking(true).expect("a flag");
    let output = WriteQueue::new(Account::new(budget.clone()));
    let mut queue = Queue { output, budget, ours, theirs, expected: VecDeque::new(), next: 0 };
    let mut in_flight = None;
    while !input.is_empty() {
        let length = input.below(20_000);
        match input.byte() % 7 {
            0 => queue.push(length, |output, bytes| output.push(bytes).expect("memory")),
            1 => queue.push(length, |output, bytes| {
                output.push_shared(Arc::new(bytes.to_vec()), 0).expect("memory");
            }),
            2 => queue.push_file(length),
            3 if in_flight.is_none() => {
                queue.output.flush(queue.ours.as_fd()).expect("the peer is there");
            }
            4 if in_flight.is_none() => in_flight = queue.output.begin_send().expect("memory"),
            5 => {
                if let Some((bytes, sent)) = in_flight.take() {
                    queue.finish_send(bytes, sent);
                }
            }
            _ => queue.read(),
        }
        queue.check();
    }
    if let Some((bytes, sent)) = in_flight {
        queue.finish_send(bytes, sent);
    }
    while !queue.output.is_empty() {
        queue.output.flush(queue.ours.as_fd()).expect("the peer is there");
        queue.read();
        queue.check();
    }
    queue.read();
    assert!(queue.expected.is_empty(), "{} bytes are lost", queue.expected.len());
    let Queue { output, budget, .. } = queue;
    drop(output);
    assert_eq!(budget.used(), 0);
}

impl Queue {
    fn push(&mut self, length: usize, push: impl FnOnce(&mut WriteQueue, &[u8])) {
        if self.output.account().reserve(length).is_err() {
            return;
        }
        let mut bytes = vec![0; length];
        for byte in &mut bytes {
            (*byte, self.next) = (self.next, self.next.wrapping_add(1));
        }
        self.expected.extend(&bytes);
        push(&mut self.output, &bytes);
    }

    fn push_file(&mut self, length: usize) {
        if self.output.has_room_for_a_file() {
            let file = File::open("/proc/self/exe").expect("the program itself can be read");
            let offset = length / 2;
            self.expected.extend(&content()[offset..offset + length]);
            self.output.push_file(file.into(), offset as u64, length as u64);
        }
    }

    /// As a ring does with what it was lent.
    fn finish_send(&mut self, bytes: Vec<u8>, sent: usize) {
        let now = socket::send(self.ours.as_fd(), &bytes[sent..]).unwrap_or(0);
        self.output.finish_send(bytes, sent + now);
    }

    fn read(&mut self) {
        let mut bytes = [0; 1 << 15];
        while let Ok(length @ 1..) = self.theirs.read(&mut bytes) {
            for byte in &bytes[..length] {
                assert_eq!(self.expected.pop_front(), Some(*byte));
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.output.account().waiting(), self.output.queued());
        assert_eq!(self.budget.used(), self.output.queued());
        assert!(self.output.waiting() <= self.expected.len());
    }
}
