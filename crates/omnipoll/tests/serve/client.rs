//! What clients do.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use omnipoll::Conn;
use socket2::{Domain, SockRef, Socket, Type};

use crate::support::expect::LONG;

/// Has reads and writes of a client end when they take too long.
pub(crate) fn with_timeouts(client: TcpStream) -> TcpStream {
    client.set_read_timeout(Some(LONG)).expect("a timeout");
    client.set_write_timeout(Some(LONG)).expect("a timeout");
    client.set_nodelay(true).expect("TCP_NODELAY");
    client
}

/// A client whose kernel buffers little for it, so that the server's queue gets to hold the rest.
pub(crate) fn small(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("socket");
    // Before it connects, or the window has been promised already.
    socket.set_recv_buffer_size(16_384).expect("SO_RCVBUF");
    socket.set_send_buffer_size(16_384).expect("SO_SNDBUF");
    socket.connect(&address.into()).expect("connect");
    with_timeouts(socket.into())
}

/// Has the server's kernel buffer little for this connection.
pub(crate) fn keep_small(conn: &Conn<'_>) {
    let socket = conn.socket();
    let socket = SockRef::from(&socket);
    socket.set_send_buffer_size(16_384).expect("SO_SNDBUF");
    socket.set_recv_buffer_size(16_384).expect("SO_RCVBUF");
}

/// Bytes that show their position and their sender.
pub(crate) fn pattern(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at + seed) * 31 + (at >> 8) * 7 + (at >> 16)) as u8).collect()
}

/// Sends, and reads as much as was sent.
#[track_caller]
pub(crate) fn exchange(mut client: &TcpStream, data: &[u8]) {
    client.write_all(data).expect("write");
    assert_eq!(read(client, data.len()), data, "what came back differs");
}

/// Reads that many bytes.
#[track_caller]
pub(crate) fn read(mut client: &TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    client.read_exact(&mut bytes).expect("read");
    bytes
}

/// Sends back what comes, piece by piece, until that many bytes have come.
#[allow(dead_code, reason = "it is for the suites of loops and of connects")]
pub(crate) fn echo(mut client: &TcpStream, length: usize) {
    let (mut left, mut buffer) = (length, vec![0; 65_536]);
    while left > 0 {
        let count = client.read(&mut buffer).expect("bytes");
        assert!(count > 0, "it ended with {left} bytes to come");
        client.write_all(&buffer[..count]).expect("a peer that reads");
        left -= count;
    }
}

/// Reads to the end, which must be a clean one.
#[track_caller]
pub(crate) fn read_to_end(mut client: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).expect("a clean end");
    bytes
}

/// Asserts that the stream ends here.
#[track_caller]
pub(crate) fn expect_end(client: &TcpStream) {
    assert_eq!(read_to_end(client), b"", "something before the end");
}

/// Asserts that the connection has been reset, whatever came before.
#[track_caller]
pub(crate) fn expect_reset(mut client: &TcpStream) {
    let mut buffer = vec![0; 65536];
    loop {
        match client.read(&mut buffer) {
            Ok(0) => panic!("a clean end instead of a reset"),
            Ok(_) => {}
            Err(error) => return assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }
}

/// Sends in another thread, for the answer may have to be read meanwhile.
pub(crate) fn send_meanwhile(client: &TcpStream, data: Vec<u8>) -> JoinHandle<()> {
    let mut client = client.try_clone().expect("dup");
    std::thread::spawn(move || client.write_all(&data).expect("write"))
}

/// Sends zeroes until none has been taken for a while, and returns how many were taken.
pub(crate) fn push(mut client: &TcpStream, most: usize) -> usize {
    let before = client.write_timeout().expect("a timeout");
    client.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let mut total = 0;
    while total < most {
        match client.write(&[0; 4096]) {
            Ok(count) => total += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("write: {error}"),
        }
    }
    client.set_write_timeout(before).expect("a timeout");
    total
}

/// Ends our direction.
pub(crate) fn end(client: &TcpStream) {
    client.shutdown(Shutdown::Write).expect("shutdown");
}

/// Ends the connection with a reset.
pub(crate) fn reset(client: TcpStream) {
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}
