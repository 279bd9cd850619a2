//! What the echo servers in Rust have in common.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

/// What every server reads at most at once.
pub const BUFFER: usize = 65_536;

/// A non-blocking listener on a free port of the loopback device, which it prints. The process
/// ends with its standard input.
pub fn listen() -> TcpListener {
    prepare_process();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    // std's backlog is 128, or 4,096 in later versions.
    // SAFETY: takes no pointer.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), libc::SOMAXCONN) }, 0);
    listener.set_nonblocking(true).expect("a socket");
    tell_port(listener.local_addr().expect("an address").port());
    listener
}

/// As many clients as the system allows, and an end together with standard input.
pub fn prepare_process() {
    end_with_stdin();
    crate::machine::raise_descriptor_limit(20_000);
}

/// Prints where the server listens.
pub fn tell_port(port: impl std::fmt::Display) {
    println!("{port}");
    std::io::stdout().flush().expect("a reader");
}

/// Makes a client ready to be served.
pub fn prepare(stream: &TcpStream) {
    stream.set_nonblocking(true).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
}

/// The kernel sends SIGIO when the other end of the pipe is closed, so no server has to watch it.
fn end_with_stdin() {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: may be called in a signal handler.
        unsafe { libc::_exit(0) };
    }
    let stdin: RawFd = 0;
    // SAFETY: the handler is of the type asked for; the other calls take no pointer.
    unsafe {
        libc::signal(libc::SIGIO, end as extern "C" fn(libc::c_int) as libc::sighandler_t);
        libc::fcntl(stdin, libc::F_SETOWN, libc::getpid());
        libc::fcntl(stdin, libc::F_SETFL, libc::O_ASYNC);
    }
}
