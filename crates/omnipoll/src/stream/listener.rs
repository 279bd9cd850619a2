//! Listening sockets.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::address::{activated, Address};
use super::Peer;
use crate::engine::socket;
use crate::error::fail;

/// A listening stream socket: ours, non-blocking, closed by `exec`.
///
/// The file of a unix socket is removed when the listener that made it is dropped, but not in
/// a forked child, nor when the path has come to name another file.
#[derive(Debug)]
pub(crate) struct Listener {
    // Dropped before the socket, which keeps the file's inode from being used again.
    _file: Option<SocketFile>,
    socket: Socket,
    local: Peer,
}

impl Listener {
    /// Listens on everything that `address` stands for: one socket at least.
    ///
    /// `backlog` is how many clients may wait to be accepted, listen(2). `reuse_port` lets
    /// [`sibling`](Self::sibling) add sockets to a TCP address; a unix address and inherited
    /// sockets are what they are. `EADDRINUSE` when another listens there already, with
    /// `SO_REUSEPORT` too. The socket of an inherited descriptor is made non-blocking for all
    /// who have it; its number stays open and is closed by `exec`.
    pub(crate) fn open(address: &Address, backlog: i32, reuse_port: bool) -> io::Result<Vec<Self>> {
        match address {
            Address::Tcp(host, port) => host.open_each(*port, |address| {
                if reuse_port && address.port() != 0 {
                    // Programs of one user may share a port without knowing: only a socket
                    // without SO_REUSEPORT is told that it is taken.
                    tcp(address, false)?;
                }
                Self::listen(tcp(address, reuse_port)?, backlog)
            }),
            Address::Unix(name) => Ok(vec![Self::unix(name, backlog)?]),
            Address::Descriptor(number) => Ok(vec![Self::inherited(*number)?]),
            Address::Systemd => {
                let [pid, fds] = ["LISTEN_PID", "LISTEN_FDS"].map(|name| std::env::var(name).ok());
                activated(pid.as_deref(), fds.as_deref())?.map(Self::inherited).collect()
            }
            Address::Udp(..) => {
                Err(fail(libc::EINVAL, "a udp: address has datagrams, and no clients to accept"))
            }
        }
    }

    /// One more socket on the same TCP address, among which the kernel spreads the clients:
    /// `SO_REUSEPORT`, socket(7). The first must have been opened with `reuse_port`.
    /// `EOPNOTSUPP` for a unix address.
    pub(crate) fn sibling(&self, backlog: i32) -> io::Result<Self> {
        let address = self
            .local
            .as_socket_addr()
            .ok_or_else(|| fail(libc::EOPNOTSUPP, "a unix address has only one listening socket"))?;
        Self::listen(tcp(address, true)?, backlog)
    }

    /// The same socket once more, whose queue of clients both share. The file of a unix socket
    /// stays with this one.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { _file: None, socket: self.socket.try_clone()?, local: self.local.clone() })
    }

    /// Whether it has [siblings](Self::sibling).
    pub(crate) fn is_tcp(&self) -> bool {
        self.local.as_socket_addr().is_some()
    }

    /// Where it listens, as [`Address`] reads it, with the port that the system chose.
    pub(crate) fn address(&self) -> String {
        self.local.to_string()
    }

    /// The next client: its socket, non-blocking and closed by `exec`, and its address.
    /// `EAGAIN` when none waits.
    #[inline]
    pub(crate) fn accept(&self) -> io::Result<(OwnedFd, Peer)> {
        socket::accept(self.as_fd())
    }

    fn listen(socket: Socket, backlog: i32) -> io::Result<Self> {
        socket.listen(backlog)?;
        Self::of(socket, None)
    }

    fn unix(name: &Peer, backlog: i32) -> io::Result<Self> {
        let Peer::Unix(bytes) = name else {
            return Err(fail(libc::EINVAL, "a unix socket that listens needs a name"));
        };
        let path = Path::new(OsStr::from_bytes(bytes));
        let address = SockAddr::unix(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        match socket.bind(&address) {
            Err(error) if is(&error, libc::EADDRINUSE) && remove_stale(path, &address)? => {
                socket.bind(&address)?
            }
            result => result?,
        }
        let file = if bytes[0] == 0 { None } else { Some(SocketFile::of(path)?) };
        socket.listen(backlog)?;
        Self::of(socket, file)
    }

    fn inherited(number: RawFd) -> io::Result<Self> {
        let socket = Socket::from(socket::inherit(number)?);
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            return Err(fail(libc::EINVAL, "the inherited descriptor is not a listening stream socket"));
        }
        socket.set_nonblocking(true)?;
        Self::of(socket, None)
    }

    fn of(socket: Socket, file: Option<SocketFile>) -> io::Result<Self> {
        let local = socket::local_peer(socket.as_fd())?;
        if local.as_socket_addr().is_some() {
            // Accepted sockets inherit it, which saves a system call for each.
            socket::no_delay(socket.as_fd())?;
        }
        Ok(Self { _file: file, socket, local })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A TCP socket bound to `address`, at once after a server there has ended too.
fn tcp(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    only_v6_if_named(&socket, address)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// `[::]` is every address of both kinds, whatever the system's default is.
pub(super) fn only_v6_if_named(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    Ok(())
}

/// Removes a socket file that a dead server left, and tells whether the path is free now. One
/// that is bound but does not listen yet looks the same for a moment.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<bool> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(true) };
    if !found.file_type().is_socket() {
        return Ok(false);
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match probe.connect(address) {
        Err(error) if is(&error, libc::ECONNREFUSED) => {
            let is_same = |now: fs::Metadata| identity(&now) == identity(&found);
            if fs::symlink_metadata(path).is_ok_and(is_same) {
                fs::remove_file(path)?;
            }
            Ok(true)
        }
        Err(error) if is(&error, libc::ENOENT) => Ok(true),
        _ => Ok(false),
    }
}

/// The file of a unix socket, as long as it is ours.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    process: u32,
}

impl SocketFile {
    /// Of the process that has just bound `path`.
    fn of(path: &Path) -> io::Result<Self> {
        // The directory may change before the file is removed.
        let path = std::path::absolute(path)?;
        let identity = identity(&fs::symlink_metadata(&path)?);
        Ok(Self { path, identity, process: std::process::id() })
    }

    /// While the socket is open the kernel keeps its inode, so that no other file has the number.
    fn is_ours(&self) -> bool {
        self.process == std::process::id()
            && fs::symlink_metadata(&self.path).is_ok_and(|now| identity(&now) == self.identity)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_ours() {
            // Nobody is left to be told that it could not be removed.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

fn is(error: &io::Error, errno: i32) -> bool {
    error.raw_os_error() == Some(errno)
}
