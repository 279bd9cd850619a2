//! Descriptors to watch, all of them non-blocking, and what to do with them.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::sys;

/// A pipe: the end to read from and the end to write to.
pub(crate) fn pipe() -> (File, File) {
    let (reader, writer) = sys::pipe();
    (File::from(reader), File::from(writer))
}

/// Two connected stream sockets of the Unix domain.
pub(crate) fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("socketpair");
    ours.set_nonblocking(true).expect("O_NONBLOCK");
    theirs.set_nonblocking(true).expect("O_NONBLOCK");
    (ours, theirs)
}

/// A TCP connection over loopback: the accepted end and the connecting end.
pub(crate) fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let theirs = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (ours, _) = listener.accept().expect("accept");
    for end in [&ours, &theirs] {
        end.set_nonblocking(true).expect("O_NONBLOCK");
        end.set_nodelay(true).expect("TCP_NODELAY");
    }
    (ours, theirs)
}

/// Another number for the same open file.
pub(crate) fn dup(file: &impl AsFd) -> OwnedFd {
    file.as_fd().try_clone_to_owned().expect("dup")
}

/// Closes a descriptor and returns the fd that is now free.
pub(crate) fn close(file: impl AsFd) -> i32 {
    // The file goes out of scope here, which closes it.
    file.as_fd().as_raw_fd()
}

/// Reads until there is no more for now; returns the number of bytes.
pub(crate) fn drain(mut from: impl Read) -> usize {
    let mut buffer = [0; 65536];
    let mut total = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return total,
            Ok(count) => total += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return total,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("read: {error}"),
        }
    }
}

/// Writes until there is no room; returns the number of bytes.
pub(crate) fn fill(mut to: impl Write) -> usize {
    let mut total = 0;
    loop {
        match to.write(&[0; 4096]) {
            Ok(count) => total += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return total,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("write: {error}"),
        }
    }
}

/// Writes one byte, for which there must be room.
pub(crate) fn write_byte(mut to: impl Write) {
    to.write_all(b".").expect("room for one byte");
}
