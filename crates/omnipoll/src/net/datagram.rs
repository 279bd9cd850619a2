//! [`Datagram`]: what a handler is called with.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use super::datagram_id::DatagramId;
use super::datagram_queue::DatagramQueue;
use super::datagram_socket::DatagramSocket;
use crate::sys::datagrams::Received;
use crate::sys::Address;

/// A datagram that has arrived, and the means to answer it.
///
/// # Portability
///
/// Every method is the same on every system and engine. The address that a datagram was sent to is
/// known on Linux; elsewhere it is the one that the socket is bound to.
///
/// ```
/// # use omnipoll::{Conn, Server};
/// # use std::io;
/// use omnipoll::{Datagram, Handler};
/// use std::net::UdpSocket;
///
/// /// Sends every datagram back.
/// struct Echo;
///
/// impl Handler for Echo {
///     type State = ();
///
///     fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
///         println!("{} bytes from {} to {}", data.len(), datagram.peer(), datagram.local());
///         // It fails when too many datagrams wait to be sent: this one is dropped then.
///         let _ = datagram.reply(data);
///     }
/// #   fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> { Ok(()) }
/// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
/// }
///
/// let server = Server::new(Echo)?;
/// let address = server.listen("udp:127.0.0.1:0")?;
/// let handle = server.handle();
/// let running = std::thread::spawn(move || server.run());
///
/// let client = UdpSocket::bind("127.0.0.1:0")?;
/// client.send_to(b"hello", address.trim_start_matches("udp:"))?;
/// let mut answer = [0; 64];
/// assert_eq!(client.recv(&mut answer)?, 5);
///
/// handle.stop(None)?;
/// running.join().unwrap()?;
/// # Ok::<(), io::Error>(())
/// ```
pub struct Datagram<'a> {
    pub(super) received: &'a Received,
    pub(super) id: DatagramId,
    pub(super) socket: &'a DatagramSocket,
    pub(super) queue: &'a mut DatagramQueue,
}

impl Datagram<'_> {
    /// The socket that it came to, which sends from any thread and at any time.
    ///
    /// See the example of [`DatagramId`].
    pub fn socket(&self) -> DatagramId {
        self.id
    }

    /// What [`EventLoop::listen`](crate::EventLoop::listen) or
    /// [`connect_datagrams`](crate::EventLoop::connect_datagrams) was given for its socket; 0 on a server.
    ///
    /// See the example of [`EventLoop::connect_datagrams`](crate::EventLoop::connect_datagrams).
    pub fn token(&self) -> u64 {
        self.socket.token()
    }

    /// Whether its socket is one of [`connect_datagrams`](crate::EventLoop::connect_datagrams).
    pub fn is_outgoing(&self) -> bool {
        self.socket.is_outgoing()
    }

    /// The sender's address.
    ///
    /// See the example of [`Datagram`].
    pub fn peer(&self) -> &Address {
        &self.received.peer
    }

    /// The address of this machine that it was sent to, also where the socket is bound to all of
    /// them; for a broadcast or a multicast the one that a reply has.
    ///
    /// See the example of [`Datagram`].
    pub fn local(&self) -> Address {
        match (self.received.local, self.socket.local().as_socket_addr()) {
            (Some(ip), Some(bound)) => SocketAddr::from((ip, bound.port())).into(),
            _ => self.socket.local().clone(),
        }
    }

    /// Sends a datagram to its sender, from the address that it was sent to. Errors as
    /// [`send_to`](Self::send_to).
    ///
    /// See the example of [`Datagram`].
    pub fn reply(&mut self, data: &[u8]) -> io::Result<()> {
        let peer = self.socket.destination(&self.received.peer);
        self.queue.queue(peer, self.received.local, data)
    }

    /// Sends a datagram from the same socket: copied now, sent with others by `sendmmsg(2)`
    /// after the handler has seen the batch. One that the system refuses then is counted as
    /// dropped, and [`on_datagram_error`](crate::Handler::on_datagram_error) is called with the error.
    ///
    /// The system chooses the source address if the socket is bound to all of the machine's.
    /// `EMSGSIZE` past 65,507 bytes; `ENOBUFS` when 1,024 datagrams or 4 MiB wait; `ENOMEM`;
    /// `EAFNOSUPPORT` for the peer of a unix socket.
    ///
    /// ```
    /// # use omnipoll::Conn;
    /// use omnipoll::{Address, Datagram, Handler};
    ///
    /// /// Sends every datagram on to another server.
    /// struct Forward {
    ///     to: Address,
    /// }
    ///
    /// impl Handler for Forward {
    ///     type State = ();
    ///
    ///     fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
    ///         let _ = datagram.send_to(&self.to, data);
    ///     }
    /// #   fn on_open(&self, _: &mut Conn<'_>) -> std::io::Result<()> { Ok(()) }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
    /// }
    /// ```
    #[doc(alias = "sendto")]
    #[doc(alias = "sendmmsg")]
    pub fn send_to(&mut self, peer: &Address, data: &[u8]) -> io::Result<()> {
        self.queue.queue(self.socket.destination(peer), None, data)
    }
}

impl fmt::Debug for Datagram<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagram").field("peer", self.peer()).finish_non_exhaustive()
    }
}
