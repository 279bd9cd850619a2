//! What a [`Conn`] is: its identity, its addresses, its loop's state.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::conn::Conn;
use super::conn_id::ConnId;
use crate::error::Describe;
use crate::sys::{socket, Address};

/// Identity and addresses.
impl Conn<'_> {
    /// What other threads name it by.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// struct FromElsewhere;
    ///
    /// impl Handler for FromElsewhere {
    ///     type State = ();
    ///
    ///     fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
    ///         let id: ConnId = conn.id();
    ///         std::thread::spawn(move || id.write(b"from another thread\n").and_then(|_| id.close()));
    ///         Ok(())
    ///     }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
    /// #   fn on_end(&self, _: &mut Conn<'_>, _: &mut ()) {}
    /// }
    ///
    /// assert_eq!(ask(FromElsewhere, "")?, "from another thread\n");
    /// # Ok::<(), io::Error>(())
    /// ```
    pub fn id(&self) -> ConnId {
        self.table[self.slot].id
    }

    /// The peer's address: that of its [PROXY header](crate::ServerOptions::proxy_header), if it has one.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// struct Addresses;
    ///
    /// impl Handler for Addresses {
    ///     type State = ();
    ///
    ///     fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
    ///         let addresses = format!("{} to {}", conn.peer(), conn.local()?);
    ///         conn.write(addresses.as_bytes())?;
    ///         Ok(())
    ///     }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
    /// }
    ///
    /// assert!(ask(Addresses, "")?.starts_with("127.0.0.1:"));
    /// # Ok::<(), io::Error>(())
    /// ```
    pub fn peer(&self) -> &Address {
        &self.table[self.slot].peer
    }

    /// The local address: `getsockname(2)`, or what the peer's
    /// [PROXY header](crate::ServerOptions::proxy_header) says.
    ///
    /// See the example of [`peer`](Conn::peer).
    #[doc(alias = "getsockname")]
    pub fn local(&self) -> io::Result<Address> {
        let connection = &self.table[self.slot];
        match &connection.local {
            Some(local) => Ok((**local).clone()),
            None => socket::local_address(connection.socket.as_fd()).describe("getsockname"),
        }
    }

    /// The socket, for its options. Only the loop may read, write or close it.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// struct KeepAlive;
    ///
    /// impl Handler for KeepAlive {
    ///     type State = ();
    ///
    ///     fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
    ///         socket2::SockRef::from(&conn.socket()).set_keepalive(true)
    ///     }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
    /// }
    ///
    /// ask(KeepAlive, "")?;
    /// # Ok::<(), io::Error>(())
    /// ```
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.table[self.slot].socket.as_fd()
    }

    /// Whether the server is stopping: an answer may be the last on its connection.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// struct Echo;
    ///
    /// impl Handler for Echo {
    ///     type State = ();
    ///
    ///     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) {
    ///         let _ = conn.write(data);
    ///         if conn.is_stopping() {
    ///             conn.close();
    ///         }
    ///     }
    /// #   fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> { Ok(()) }
    /// }
    ///
    /// assert_eq!(ask(Echo, "request")?, "request");
    /// # Ok::<(), io::Error>(())
    /// ```
    pub fn is_stopping(&self) -> bool {
        self.context.stopping.get()
    }

    /// The number of the loop or process that serves it, from 0, as in
    /// [`ServerStats::workers`](crate::ServerStats::workers).
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// struct Worker;
    ///
    /// impl Handler for Worker {
    ///     type State = ();
    ///
    ///     fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
    ///         let worker = conn.worker().to_string();
    ///         conn.write(worker.as_bytes())?;
    ///         Ok(())
    ///     }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
    /// }
    ///
    /// assert_eq!(ask(Worker, "")?, "0");
    /// # Ok::<(), io::Error>(())
    /// ```
    pub fn worker(&self) -> usize {
        self.context.worker
    }
}
