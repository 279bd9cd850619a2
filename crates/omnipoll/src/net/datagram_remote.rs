//! What every thread can do with a datagram socket, by its [`DatagramId`].

use std::io;
use std::sync::Arc;

use super::datagram_id::DatagramId;
use super::datagram_socket::{stale, DatagramSocket};
use super::id_bits::{self, Kind};
use super::loop_table::LoopTable;
use super::mailbox::Mailbox;
use crate::error::fail;
use crate::sys::Address;

impl DatagramId {
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
        let index = Some(id_bits::loop_index(self.number()))
            .filter(|_| id_bits::is_of(self.number(), Kind::DatagramSocket));
        index.and_then(LoopTable::mailbox).ok_or_else(stale)
    }
}
