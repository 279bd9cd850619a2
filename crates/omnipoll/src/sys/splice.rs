//! [`SplicePipe`]: bytes move from one socket to another by `splice(2)`, through a pipe and not through
//! the process's memory.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::descriptor;
use super::retry::retry;
use super::sigpipe;

/// What the pipe is asked to hold; it holds less where the system allows no more.
const CAPACITY: libc::c_int = 256 * 1024;

/// A pipe that is empty between two uses.
#[derive(Debug)]
pub(crate) struct SplicePipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl SplicePipe {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = descriptor::pipe()?;
        // SAFETY: takes no pointer. It fails where the user's pipes hold enough already.
        unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, CAPACITY) };
        Ok(Self { reader, writer })
    }

    /// Moves what has arrived on a socket into the pipe, as much as it holds; 0 at the end of the stream,
    /// `EINVAL` when the socket can't be spliced from.
    pub(crate) fn fill(&self, from: BorrowedFd<'_>) -> io::Result<usize> {
        splice(from, self.writer.as_fd(), CAPACITY as usize)
    }

    /// Moves up to `count` bytes out of the pipe to a socket.
    pub(crate) fn send(&self, to: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
        sigpipe::without(|| splice(self.reader.as_fd(), to, count))
    }

    /// Reads what the socket has not taken.
    pub(crate) fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the buffer is writable for its length.
        retry(|| unsafe { libc::read(self.reader.as_raw_fd(), into.as_mut_ptr().cast(), into.len()) })
    }
}

fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: without offsets it takes no pointers.
    retry(|| unsafe {
        let none = std::ptr::null_mut();
        libc::splice(from.as_raw_fd(), none, to.as_raw_fd(), none, count, flags)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    #[cfg_attr(miri, ignore = "it has no splice")]
    fn bytes_pass_and_what_is_left_can_be_read() {
        let pipe = SplicePipe::new().unwrap();
        let ((ours, mut theirs), (to, mut other)) =
            (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        theirs.write_all(b"hello").unwrap();
        assert_eq!(pipe.fill(ours.as_fd()).unwrap(), 5);
        assert_eq!(pipe.send(to.as_fd(), 3).unwrap(), 3);
        let mut bytes = [0; 8];
        assert_eq!(pipe.read(&mut bytes).unwrap(), 2);
        assert_eq!(&bytes[..2], b"lo");
        assert_eq!(other.read(&mut bytes).unwrap(), 3);
        assert_eq!(&bytes[..3], b"hel");
        drop(theirs);
        assert_eq!(pipe.fill(ours.as_fd()).unwrap(), 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "it has no splice")]
    fn a_peer_that_is_gone_is_an_error_and_no_signal() {
        let pipe = SplicePipe::new().unwrap();
        let ((ours, mut theirs), (to, other)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        theirs.write_all(b"hello").unwrap();
        drop(other);
        assert_eq!(pipe.fill(ours.as_fd()).unwrap(), 5);
        assert_eq!(pipe.send(to.as_fd(), 5).unwrap_err().raw_os_error(), Some(libc::EPIPE));
    }
}
