//! The descriptors that are watched: one end each of connected Unix sockets, and idle ones.

use std::io::{ErrorKind, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use crate::random::Random;

/// Socket pairs: one end is watched, the other makes it readable. The watched end is never
/// writable.
pub struct Pairs {
    readers: Vec<UnixStream>,
    writers: Vec<UnixStream>,
    idle: Vec<OwnedFd>,
    /// Every index once; [`Pairs::make_ready`] keeps its choice at the front.
    order: Vec<usize>,
    random: Random,
}

impl Pairs {
    /// As many as asked for, and eventfds on which nothing happens. Panics when the descriptor
    /// limit does not allow them.
    pub fn new(count: usize, idle: usize) -> Self {
        let pair = |_| UnixStream::pair().expect("a socket pair within the descriptor limit");
        let (readers, writers): (Vec<_>, Vec<_>) = (0..count).map(pair).unzip();
        readers.iter().for_each(fill);
        let idle = (0..idle).map(|_| eventfd()).collect();
        Self { readers, writers, idle, order: (0..count).collect(), random: Random::new() }
    }

    /// The pairs' ends to watch.
    pub fn watched(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.readers.iter().map(AsRawFd::as_raw_fd)
    }

    /// What is to be watched besides.
    pub fn idle(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.idle.iter().map(AsRawFd::as_raw_fd)
    }

    /// Makes `count` of them readable, each by one byte, chosen at random.
    pub fn make_ready(&mut self, count: usize) {
        for index in 0..count {
            let other = index + self.random.below((self.order.len() - index) as u64) as usize;
            self.order.swap(index, other);
            let written = (&self.writers[self.order[index]]).write(b"x");
            assert_eq!(written.expect("a socket that was read empty"), 1);
        }
    }
}

/// With its smallest buffer filled, an end is never writable.
fn fill(mut end: &UnixStream) {
    end.set_nonblocking(true).expect("a socket");
    let least: libc::c_int = 0;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option is read from an integer that lives through the call.
    let result = unsafe {
        libc::setsockopt(end.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, (&raw const least).cast(), size)
    };
    assert_eq!(result, 0, "SO_SNDBUF");
    loop {
        match end.write(&[0; 2_048]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

fn eventfd() -> OwnedFd {
    // SAFETY: takes no pointer.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just given us this number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Reads the one byte that [`Pairs::make_ready`] wrote.
pub fn read_byte(fd: RawFd) {
    let mut byte = 0u8;
    // SAFETY: `byte` is writable for the length of the call.
    let length = unsafe { libc::read(fd, (&raw mut byte).cast(), 1) };
    assert_eq!(length, 1, "what was reported readable has a byte");
}
