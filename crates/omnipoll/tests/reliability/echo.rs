//! A server that says little of itself, for there will be much to serve.

use std::io;
use std::net::TcpStream;

use omnipoll::{Conn, Handler, ServerOptions};
use socket2::SockRef;

use crate::memory;
use crate::running_server::{serve_with, RunningServer};

/// Sends back what it is sent, but for some words.
pub(crate) struct Echo;

impl Handler for Echo {
    type State = ();

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
        Ok(())
    }

    fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) {
        match data {
            b"memory?" => drop(conn.write(&(memory::in_use() as u64).to_le_bytes())),
            b"worker?" => drop(conn.write(&[conn.worker() as u8])),
            b"process?" => drop(conn.write(&std::process::id().to_le_bytes())),
            // Without the words that a panic prints, which take far longer.
            b"panic!" => std::panic::resume_unwind(Box::new("as requested")),
            b"much!" => drop(conn.write(&[7; 1 << 20])),
            b"small!" => {
                let socket = conn.socket();
                let socket = SockRef::from(&socket);
                socket.set_send_buffer_size(1024).expect("SO_SNDBUF");
                socket.set_recv_buffer_size(1024).expect("SO_RCVBUF");
                let _ = conn.write(data);
            }
            data => drop(conn.write(data)),
        }
    }
}

pub(crate) fn serve(options: ServerOptions) -> RunningServer {
    serve_with(&["127.0.0.1:0"], options, |_| Echo, |_| {})
}

/// Asks a server something in one word.
pub(crate) fn ask<const LENGTH: usize>(mut client: &TcpStream, question: &[u8]) -> [u8; LENGTH] {
    use std::io::{Read, Write};
    let mut answer = [0; LENGTH];
    client.write_all(question).expect("write");
    client.read_exact(&mut answer).expect("an answer");
    answer
}
