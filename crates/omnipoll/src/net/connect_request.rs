//! [`ConnectRequest`]: an address to connect to and its options, checked.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::connect_address::ConnectAddress;
use super::connect_options::ConnectOptions;
use crate::errno;
use crate::error::{explain, fail, Describe};
use crate::sys::{connecting, socket_options, Address};

/// What can be started; what is wrong with it was an error already.
#[derive(Debug)]
pub(crate) enum ConnectRequest {
    /// A socket that is connected already.
    Adopt {
        socket: OwnedFd,
        peer: Address,
    },
    Connect {
        address: ConnectAddress,
        timeout: Option<Duration>,
        setup: SocketSetup,
    },
}

/// What is set on each socket before it is connected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketSetup {
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
        if let ConnectAddress::Descriptor(number) = address {
            let (socket, peer) = connecting::adopt(number).map_err(|error| {
                fail(errno::number(&error), format!("descriptor {number}: {}", explain(&error)))
            })?;
            return Ok(Self::Adopt { socket, peer });
        }
        let setup = SocketSetup { local, no_delay: options.no_delay, keep_alive: options.keep_alive };
        Ok(Self::Connect { address, timeout: options.timeout, setup })
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
