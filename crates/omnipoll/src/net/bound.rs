//! The sockets that a server's addresses stand for: listeners and datagram sockets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use socket2::{Domain, Socket, Type};

use super::listen_address::{activated, ListenAddress, ACTIVATION};
use super::socket_settings::SocketSettings;
use super::{DatagramSocket, Listener};
use crate::error::{fail, Describe};
use crate::sys::socket;

/// One of them.
#[derive(Debug)]
pub(crate) enum Bound {
    Stream(Listener),
    Datagrams(DatagramSocket),
}

impl Bound {
    /// Opens all that `address` stands for: one socket at least.
    ///
    /// `backlog` and `reuse_port` as [`Listener::open`]; `ENOTSUP` for datagrams unless
    /// `takes_datagrams`. An inherited descriptor is duplicated; its number stays open, and is closed
    /// by `exec` from now on, its socket has none of the settings, and is made non-blocking for every process that has it. On an
    /// error neither has changed.
    pub(crate) fn open(
        address: &ListenAddress,
        backlog: i32,
        reuse_port: bool,
        takes_datagrams: bool,
        settings: &SocketSettings,
    ) -> io::Result<Vec<Self>> {
        match address {
            ListenAddress::Udp(..) if !takes_datagrams => Err(no_datagrams()),
            ListenAddress::Udp(..) => Ok(vec![Self::Datagrams(DatagramSocket::bind(address, settings)?)]),
            ListenAddress::Descriptor(number) => inherit(&[*number], takes_datagrams),
            ListenAddress::Systemd(name) => {
                let variables = ACTIVATION.map(|name| std::env::var(name).ok());
                let variables = std::array::from_fn(|index| variables[index].as_deref());
                inherit(&activated(variables, name.as_deref())?, takes_datagrams)
            }
            _ => {
                let listeners = Listener::open(address, backlog, reuse_port, settings)?;
                Ok(listeners.into_iter().map(Self::Stream).collect())
            }
        }
    }

    /// What [`open`](Self::open) has opened in the process that this one replaces, which leaves it the files
    /// of unix sockets, too.
    pub(crate) fn adopt(
        address: &ListenAddress,
        sockets: Vec<OwnedFd>,
        takes_datagrams: bool,
    ) -> io::Result<Vec<Self>> {
        let adopt = |socket: OwnedFd| {
            let mut bound = Self::of(socket.into(), takes_datagrams)?;
            bound.prepare()?;
            if let (Self::Stream(listener), ListenAddress::Unix(name)) = (&mut bound, address) {
                listener.adopt_file(name)?;
            }
            Ok(bound)
        };
        sockets.into_iter().map(adopt).collect()
    }

    fn of(socket: Socket, takes_datagrams: bool) -> io::Result<Self> {
        let kind = socket.r#type().describe("SO_TYPE")?;
        let domain = socket.local_addr().describe("getsockname")?.domain();
        // Elsewhere accept(2) fails with EINVAL.
        #[cfg(any(target_os = "linux", target_os = "freebsd"))]
        let listens = socket.is_listener().describe("SO_ACCEPTCONN")?;
        #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
        let listens = true;
        let is_internet = domain == Domain::IPV4 || domain == Domain::IPV6;
        if kind == Type::STREAM && listens {
            Listener::of(socket, None).map(Self::Stream)
        } else if kind != Type::DGRAM || !is_internet {
            Err(fail(libc::EINVAL, "it is neither a listening stream socket nor a UDP socket"))
        } else if takes_datagrams {
            DatagramSocket::of(socket).map(Self::Datagrams)
        } else {
            Err(no_datagrams())
        }
    }

    /// Where it is, as [`ListenAddress`] reads it, with the port that the system chose.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Stream(listener) => listener.address(),
            Self::Datagrams(socket) => socket.address(),
        }
    }

    /// Another descriptor of the same socket.
    pub(crate) fn dup(&self) -> io::Result<OwnedFd> {
        socket::duplicate(self.as_fd())
    }

    /// Leaves the file of a unix socket where it is when the socket is closed.
    pub(crate) fn keep_file(&mut self) {
        if let Self::Stream(listener) = self {
            listener.keep_file();
        }
    }

    fn prepare(&self) -> io::Result<()> {
        socket::set_nonblocking(self.as_fd())?;
        match self {
            Self::Stream(listener) => listener.prepare(),
            Self::Datagrams(socket) => socket.prepare(),
        }
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stream(listener) => listener.as_fd(),
            Self::Datagrams(socket) => socket.as_fd(),
        }
    }
}

/// The sockets behind descriptors that this process was started with.
fn inherit(numbers: &[RawFd], takes_datagrams: bool) -> io::Result<Vec<Bound>> {
    let mut all = Vec::new();
    for number in numbers {
        let socket = socket::duplicate_number(*number)?.into();
        all.push(Bound::of(socket, takes_datagrams).map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            fail(errno, format!("descriptor {number}: {}", crate::explain(&error)))
        })?);
    }
    // The caller's descriptors are changed only when all of them are usable.
    all.iter().try_for_each(Bound::prepare)?;
    numbers.iter().try_for_each(|number| socket::close_on_exec(*number))?;
    Ok(all)
}

fn no_datagrams() -> io::Error {
    fail(libc::ENOTSUP, "THREAD and FORK serve connections only: datagrams have none")
}
