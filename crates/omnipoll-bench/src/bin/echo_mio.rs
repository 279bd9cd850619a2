//! The echo server on mio, which has edges only: each client is read until a read comes back short.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use omnipoll_bench::echo;

const LISTENER: Token = Token(usize::MAX);

struct Client {
    stream: TcpStream,
    /// Read and not yet written. Nothing is read while there is some.
    kept: Vec<u8>,
}

/// Clients by their tokens.
type Clients = Vec<Option<Client>>;

fn main() {
    let listener = echo::listen();
    let mut poll = Poll::new().expect("an epoll");
    poll.registry()
        .register(&mut SourceFd(&listener.as_raw_fd()), LISTENER, Interest::READABLE)
        .expect("epoll");
    let mut events = Events::with_capacity(1024);
    let (mut clients, mut buffer) = (Clients::new(), vec![0; echo::BUFFER]);
    loop {
        poll.poll(&mut events, None).expect("a wait");
        for event in &events {
            let Token(token) = event.token();
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut clients);
            } else if let Some(client) = &mut clients[token] {
                if client.serve(&mut buffer).is_err() {
                    clients[token] = None; // closing ends the registration
                }
            }
        }
    }
}

fn accept(listener: &TcpListener, poll: &Poll, clients: &mut Clients) {
    while let Ok((stream, _)) = listener.accept() {
        echo::prepare(&stream);
        let fd = stream.as_raw_fd();
        let token = fd as usize; // the system gives the lowest number that is free
        if clients.len() <= token {
            clients.resize_with(token + 1, || None);
        }
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut SourceFd(&fd), Token(token), both).expect("epoll");
        clients[token] = Some(Client { stream, kept: Vec::new() });
    }
}

impl Client {
    /// An error when the connection has ended.
    fn serve(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if !self.kept.is_empty() {
            let written = write(&mut self.stream, &self.kept)?;
            self.kept.drain(..written);
        }
        while self.kept.is_empty() {
            let length = match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                result => result?,
            };
            let written = write(&mut self.stream, &buffer[..length])?;
            self.kept.extend_from_slice(&buffer[written..length]);
            if length < buffer.len() {
                break;
            }
        }
        Ok(())
    }
}

/// How much the socket takes now.
fn write(stream: &mut TcpStream, data: &[u8]) -> io::Result<usize> {
    match stream.write(data) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}
