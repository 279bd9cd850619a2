//! Clients: each is served, or sees that it isn't.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::server::FILE;

/// How long what must come is waited for. Only a failure takes as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One client, until the server ends it before its time.
pub(crate) struct Client(Option<TcpStream>);

impl Client {
    pub(crate) fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok();
        if let Some(stream) = &stream {
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        }
        Self(stream)
    }

    /// Whether it was served all the time.
    pub(crate) fn is_served(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn send(&self, data: &[u8]) {
        if let Some(mut stream) = self.0.as_ref() {
            let _ = stream.write_all(data);
        }
    }

    /// Sends that, and reads the answer. Wrong bytes are an error, and none for too long.
    pub(crate) fn ask(&mut self, question: &[u8], answer: &[u8]) -> Result<(), String> {
        let Some(stream) = &self.0 else { return Ok(()) };
        let mut got = vec![0; answer.len()];
        let read = std::thread::scope(|scope| {
            // It ends by itself when the server has ended the connection.
            match question.len() {
                0..1000 => drop((&*stream).write_all(question)),
                _ => drop(scope.spawn(|| (&*stream).write_all(question))),
            }
            let mut length = 0;
            while length < got.len() {
                match (&*stream).read(&mut got[length..]) {
                    Ok(0) => break,
                    Ok(count) => length += count,
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        let _ = stream.shutdown(Shutdown::Both);
                        return Err(format!(
                            "a client got {length} of {} bytes and then nothing",
                            answer.len()
                        ));
                    }
                    Err(_) => break,
                }
            }
            Ok(length)
        })?;
        if got[..read] != answer[..read] {
            return Err(String::from("a client got other bytes than it should"));
        }
        if read < answer.len() {
            self.0 = None;
        }
        Ok(())
    }

    /// Ends its direction, and waits for the server's end.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        let Some(stream) = &self.0 else { return Ok(()) };
        let _ = stream.shutdown(Shutdown::Write);
        match (&*stream).read(&mut [0; 16]) {
            Ok(0) => {}
            Ok(_) => return Err(String::from("a client got more than it should")),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(String::from("a client that has ended its direction never saw the server's end"));
            }
            Err(_) => self.0 = None,
        }
        Ok(())
    }
}

/// More than the server's socket has room for.
static MUCH: LazyLock<Vec<u8>> = LazyLock::new(|| (0..60_000).map(|at| b'a' + (at % 23) as u8).collect());

/// Two clients at once and two datagrams, with all that a server does for them: how many clients
/// were not served to their end.
pub(crate) fn round(port: u16, datagram_port: Option<u16>) -> Result<usize, String> {
    let mut clients = [Client::connect(port), Client::connect(port)];
    let [first, second] = &mut clients;
    first.ask(b"small", b"small")?;
    second.ask(b"another", b"another")?;
    first.ask(&MUCH, &MUCH)?;
    second.ask(b"P", b"p")?;
    second.ask(b"F", &FILE)?;
    if let Some(port) = datagram_port {
        datagram(port, b"datagram")?;
        datagram(port, b"directly")?;
    }
    first.end()?;
    second.end()?;
    Ok(clients.iter().filter(|client| !client.is_served()).count())
}

/// A datagram may be lost: it is sent until it is answered.
fn datagram(port: u16, text: &[u8; 8]) -> Result<(), String> {
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    socket.connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(Duration::from_millis(50))).map_err(|error| error.to_string())?;
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let _ = socket.send(text);
        let mut answer = [0; 16];
        match socket.recv(&mut answer) {
            Ok(8) if &answer[..8] == text => return Ok(()),
            Ok(_) => return Err(String::from("a datagram came back as another")),
            // The server is gone.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(()),
            Err(_) => {}
        }
    }
    Err(String::from("no datagram was answered"))
}
