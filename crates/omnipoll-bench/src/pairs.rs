//! The descriptors that are watched: one end each of connected Unix sockets.

use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

/// Socket pairs: one end is watched, the other makes it readable.
pub struct Pairs {
    readers: Vec<UnixStream>,
    writers: Vec<UnixStream>,
    /// Every index once; [`Pairs::make_ready`] keeps its choice at the front.
    order: Vec<usize>,
    random: u64,
}

impl Pairs {
    /// As many as asked for. Panics when the descriptor limit does not allow them.
    pub fn new(count: usize) -> Self {
        let pair = |_| UnixStream::pair().expect("a socket pair within the descriptor limit");
        let (readers, writers): (Vec<_>, Vec<_>) = (0..count).map(pair).unzip();
        readers.iter().for_each(|reader| reader.set_nonblocking(true).expect("a socket"));
        Self { readers, writers, order: (0..count).collect(), random: 0x9e37_79b9_7f4a_7c15 }
    }

    /// The ends to watch.
    pub fn watched(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.readers.iter().map(AsRawFd::as_raw_fd)
    }

    /// Makes `count` of them readable, each by one byte, chosen at random.
    pub fn make_ready(&mut self, count: usize) {
        for index in 0..count {
            let other = index + self.random() as usize % (self.order.len() - index);
            self.order.swap(index, other);
            let written = (&self.writers[self.order[index]]).write(b"x");
            assert_eq!(written.expect("a socket that was read empty"), 1);
        }
    }

    /// Marsaglia's xorshift.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// Reads the one byte that [`Pairs::make_ready`] wrote.
pub fn read_byte(fd: RawFd) {
    let mut byte = 0u8;
    // SAFETY: `byte` is writable for the length of the call.
    let length = unsafe { libc::read(fd, (&raw mut byte).cast(), 1) };
    assert_eq!(length, 1, "what was reported readable has a byte");
}
