//! [`ConnectRequest`]: an address to connect to and its options, checked.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use super::connect_address::ConnectAddress;
use super::connect_options::ConnectOptions;
use crate::errno;
use crate::error::{explain, fail, Describe};
use crate::sys::{connecting, socket_options, Address};

/// What can be started; what is wrong with it was an error already.
#[derive(Debug)]
pub(crate) struct ConnectRequest {
    pub(super) address: ConnectAddress,
    /// The socket and the peer of a [`ConnectAddress::Descriptor`].
    pub(super) adopted: Option<(OwnedFd, Address)>,
    pub(super) timeout: Option<Duration>,
    pub(super) setup: SocketSetup,
}

/// What is set on each socket before it is connected.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketSetup {
    local: Option<SocketAddr>,
    no_delay: bool,
    keep_alive: Option<Duration>,
}

impl ConnectRequest {
    /// `EINVAL` for an address that can't be parsed, and for a local address that is none or does not
    /// belong to an internet address. For `fd:` errors of the descriptor, which is duplicated: its number
    /// stays open, and is closed by `exec` from now on, and its socket is made non-blocking for every
    /// process that has it. `EBADF`, `ENOTSOCK`, `EPROTOTYPE` for another kind of socket, `ENOTCONN`.
    pub(crate) fn new(address: &str, options: &ConnectOptions) -> io::Result<Self> {
        let address: ConnectAddress = address.parse()?;
        let is_internet = matches!(address, ConnectAddress::Tcp(_) | ConnectAddress::Name(..));
        let local = options.local()?;
        if local.is_some() && !is_internet {
            return Err(fail(libc::EINVAL, "only internet addresses are connected to from a local address"));
        }
        let adopted = match address {
            ConnectAddress::Descriptor(number) => Some(connecting::adopt(number).map_err(|error| {
                fail(errno::number(&error), format!("descriptor {number}: {}", explain(&error)))
            })?),
            _ => None,
        };
        let setup = SocketSetup { local, no_delay: options.no_delay, keep_alive: options.keep_alive };
        Ok(Self { address, adopted, timeout: options.timeout, setup })
    }
}

impl ConnectRequest {
    /// For a socket that is connected.
    pub(super) fn adopted(socket: OwnedFd) -> Self {
        let setup = SocketSetup { local: None, no_delay: false, keep_alive: None };
        let address = ConnectAddress::Descriptor(socket.as_raw_fd());
        Self { address, adopted: Some((socket, Address::Unnamed)), timeout: None, setup }
    }
}

impl SocketSetup {
    /// A socket that can be connected to `address`.
    pub(super) fn open(&self, address: &Address) -> io::Result<OwnedFd> {
        let socket = connecting::open(address)?;
        if let Some(peer) = address.as_socket_addr() {
            self.prepare(&socket, peer)?;
        }
        Ok(socket)
    }

    fn prepare(&self, socket: &OwnedFd, peer: SocketAddr) -> io::Result<()> {
        if self.no_delay {
            socket_options::no_delay(socket.as_fd()).describe("TCP_NODELAY")?;
        }
        if let Some(time) = self.keep_alive {
            connecting::keep_alive(socket.as_fd(), time)?;
        }
        match self.local {
            None => Ok(()),
            Some(local) if local.is_ipv4() == peer.is_ipv4() => connecting::bind_local(socket.as_fd(), local),
            Some(_) => Err(fail(libc::EAFNOSUPPORT, "the local address is of the other family")),
        }
    }
}
