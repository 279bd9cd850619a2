//! [`DatagramId`]: the name of a datagram socket, for every thread.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::datagram_socket::{stale, DatagramSocket};
use super::id_bits::{self, Kind};
use super::loop_table::LoopTable;
use super::mailbox::Mailbox;
use crate::error::fail;
use crate::sys::Address;

/// Names one datagram socket of a loop of this process for as long as the process lives; no server
/// uses an id again when its socket is closed. Its methods may be called from any thread, in callbacks
/// too, and send at once: `sendmsg(2)`.
///
/// [`Datagram::socket`](crate::Datagram::socket) has the id of the socket that a datagram came to,
/// [`ServerHandle::datagram_sockets`](crate::ServerHandle::datagram_sockets) those of a server. In
/// every method: `ESTALE` when the socket is closed, as all of a server's are when it stops,
/// `EOWNERDEAD` when it belongs to the process that has forked this one.
///
/// # Portability
///
/// Every method is the same on every system and engine.
///
/// ```
/// # use omnipoll::{Conn, Server};
/// # use std::{io, thread};
/// use omnipoll::{Datagram, Handler};
/// use std::net::UdpSocket;
///
/// /// Answers from another thread, when the answer is known.
/// struct Resolver;
///
/// impl Handler for Resolver {
///     type State = ();
///
///     fn on_datagram(&self, datagram: &mut Datagram<'_>, _: &[u8]) {
///         let (socket, local, peer) = (datagram.socket(), datagram.local(), datagram.peer().clone());
///         thread::spawn(move || socket.send_from(&local, &peer, b"answer"));
///     }
/// #   fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> { Ok(()) }
/// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
/// }
///
/// let server = Server::new(Resolver)?;
/// let address = server.listen("udp:127.0.0.1:0")?;
/// let handle = server.handle();
/// let running = thread::spawn(move || server.run());
///
/// let client = UdpSocket::bind("127.0.0.1:0")?;
/// client.send_to(b"question", address.trim_start_matches("udp:"))?;
/// let mut answer = [0; 64];
/// assert_eq!(client.recv(&mut answer)?, 6);
///
/// let socket = handle.datagram_sockets()[0];
/// assert_eq!(format!("udp:{}", socket.local()?), address);
/// socket.send_to(&client.local_addr()?.into(), b"more")?;
/// assert_eq!(client.recv(&mut answer)?, 4);
///
/// handle.stop(None)?;
/// running.join().unwrap()?;
/// assert!(!socket.is_open());
/// # Ok::<(), io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatagramId(u64);

impl DatagramId {
    /// The id that a number of [`DatagramId::number`] stands for. Any number is one; that of no
    /// socket is `ESTALE` in every method.
    ///
    /// ```
    /// use omnipoll::DatagramId;
    ///
    /// let id = DatagramId::from_number(7);
    /// assert_eq!(id.number(), 7);
    /// assert!(!id.is_open());
    /// assert_eq!(id.send(b"hello").unwrap_err().raw_os_error(), Some(libc::ESTALE));
    /// ```
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The id as a number, never 0.
    ///
    /// See the example of [`from_number`](Self::from_number).
    pub const fn number(self) -> u64 {
        self.0
    }

    pub(super) const fn new(generation: u32, loop_index: usize, entry: usize) -> Self {
        Self(id_bits::number(Kind::DatagramSocket, generation, loop_index, entry))
    }

    pub(crate) const fn entry(self) -> usize {
        id_bits::entry(self.0)
    }

    pub(super) const fn generation(self) -> u32 {
        id_bits::generation(self.0)
    }

    /// Sends a datagram to an address, now. Where the kernel's buffer for the socket is full, a copy is
    /// kept and sent by the socket's loop as soon as there is room; should the system refuse it then, it is
    /// counted as dropped. Datagrams that one thread sends to one peer keep their order, but those of
    /// [`Datagram::reply`](crate::Datagram::reply) and its neighbours go out later.
    ///
    /// The system chooses the source address if the socket is bound to all of the machine's:
    /// [`send_from`](Self::send_from) answers from another thread.
    ///
    /// # Errors
    ///
    /// Nothing was sent: `EMSGSIZE` past 65,507 bytes, and for less where the system says so; `ENOBUFS`
    /// when 1,024 datagrams or 4 MiB wait; `EACCES`, `ENETUNREACH`, `EPERM` and what else `sendmsg(2)`
    /// says of this datagram; `ENOMEM`; `EAFNOSUPPORT` for the peer of a unix socket. What the peer says of
    /// an earlier one comes to [`on_datagram_error`](crate::Handler::on_datagram_error).
    ///
    /// See the example of [`DatagramId`].
    #[doc(alias = "sendto")]
    #[doc(alias = "sendmsg")]
    pub fn send_to(self, peer: &Address, data: &[u8]) -> io::Result<()> {
        self.transmit(Some(peer), None, data)
    }

    /// [`send_to`](Self::send_to) from one of the machine's addresses: a reply to a datagram from
    /// its [`local`](crate::Datagram::local) address, without which a client that is connected to that
    /// address receives nothing.
    ///
    /// Its port is the socket's. A socket that is bound to one address sends from that one.
    ///
    /// # Portability
    ///
    /// On systems other than Linux the system chooses the address.
    ///
    /// See the example of [`DatagramId`].
    #[doc(alias = "IP_PKTINFO")]
    pub fn send_from(self, local: &Address, peer: &Address, data: &[u8]) -> io::Result<()> {
        self.transmit(Some(peer), Some(local), data)
    }

    /// [`send_to`](Self::send_to) to the address that the socket is connected to. `EDESTADDRREQ` when
    /// it is not.
    ///
    /// See the example of [`Handler::on_datagram_error`](crate::Handler::on_datagram_error).
    pub fn send(self, data: &[u8]) -> io::Result<()> {
        self.transmit(None, None, data)
    }

    fn transmit(self, peer: Option<&Address>, from: Option<&Address>, data: &[u8]) -> io::Result<()> {
        let (mailbox, socket) = self.find()?;
        if socket.send(peer, from, data, mailbox.counters())? {
            mailbox.flush_datagrams(self)?;
        }
        Ok(())
    }

    /// Where the socket is bound: with the port that the system chose.
    ///
    /// See the example of [`DatagramId`].
    #[doc(alias = "getsockname")]
    pub fn local(self) -> io::Result<Address> {
        Ok(self.find()?.1.local().clone())
    }

    /// What the socket is connected to.
    ///
    /// See the example of [`Handler::on_datagram_error`](crate::Handler::on_datagram_error).
    #[doc(alias = "getpeername")]
    pub fn peer(self) -> io::Result<Option<Address>> {
        Ok(self.find()?.1.peer().cloned())
    }

    /// The [`token`](crate::Datagram::token) of its datagrams.
    ///
    /// See the example of [`EventLoop::connect_datagrams`](crate::EventLoop::connect_datagrams).
    pub fn token(self) -> io::Result<u64> {
        Ok(self.find()?.1.token())
    }

    /// Whether it is one of [`connect_datagrams`](crate::EventLoop::connect_datagrams).
    pub fn is_outgoing(self) -> io::Result<bool> {
        Ok(self.find()?.1.is_outgoing())
    }

    /// Closes the socket. Its id is stale at once; what waits to be sent is sent or counted as dropped
    /// when its loop closes it, and datagrams that it has received already may still come to the
    /// handler.
    ///
    /// See the example of [`Handler::on_datagram_error`](crate::Handler::on_datagram_error).
    pub fn close(self) -> io::Result<()> {
        self.mailbox()?.close_datagrams(self)
    }

    /// Whether the socket is open at this moment, and this process's.
    ///
    /// See the example of [`DatagramId`].
    pub fn is_open(self) -> bool {
        self.find().is_ok()
    }

    fn find(self) -> io::Result<(Arc<Mailbox>, Arc<DatagramSocket>)> {
        let mailbox = self.mailbox()?;
        let socket = mailbox.datagrams().get(self)?;
        Ok((mailbox, socket))
    }

    fn mailbox(self) -> io::Result<Arc<Mailbox>> {
        if LoopTable::is_parents() {
            return Err(fail(libc::EOWNERDEAD, "the datagram socket belongs to the parent process"));
        }
        let index =
            Some(id_bits::loop_index(self.0)).filter(|_| id_bits::is_of(self.0, Kind::DatagramSocket));
        index.and_then(LoopTable::mailbox).ok_or_else(stale)
    }
}

impl fmt::Display for DatagramId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
