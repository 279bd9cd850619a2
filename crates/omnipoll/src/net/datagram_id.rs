//! [`DatagramId`]: the name of a datagram socket, for every thread.

use std::fmt;

use super::id_bits::{self, Kind};

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
}

impl fmt::Display for DatagramId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
