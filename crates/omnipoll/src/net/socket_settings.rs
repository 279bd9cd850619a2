//! [`SocketSettings`]: what is set on the sockets of the addresses that are listened on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use socket2::{InterfaceIndexOrAddress, Socket, TcpKeepalive};

use super::list::parse_list;
use crate::error::{fail, Describe};
use crate::sys::socket_options;

/// What connections have from the socket that accepts them, and what datagram sockets and the files of unix
/// sockets have.
#[derive(Clone, Debug, Default)]
pub(crate) struct SocketSettings {
    pub(crate) keep_alive: Option<KeepAlive>,
    pub(crate) delay: bool,
    pub(crate) receive_buffer: Option<usize>,
    pub(crate) send_buffer: Option<usize>,
    pub(crate) defer_accept: Option<Duration>,
    pub(crate) fast_open: Option<u32>,
    pub(crate) free_bind: bool,
    pub(crate) transparent: bool,
    pub(crate) multicast: String,
    pub(crate) unix_mode: Option<u32>,
    pub(crate) unix_owner: Option<(Option<u32>, Option<u32>)>,
}

/// When a silent TCP connection is asked whether it is still there, how often, and how many times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepAlive {
    pub(crate) idle: Duration,
    pub(crate) interval: Duration,
    pub(crate) count: u32,
}

impl SocketSettings {
    /// Before an internet socket is bound.
    pub(super) fn before_bind(&self, socket: &Socket, address: SocketAddr) -> io::Result<()> {
        let is_v6 = address.is_ipv6();
        if self.free_bind {
            socket_options::free_bind(socket.as_fd(), is_v6).describe("IP_FREEBIND")?;
        }
        if self.transparent {
            socket_options::transparent(socket.as_fd(), is_v6).describe("IP_TRANSPARENT")?;
        }
        self.set_buffers(socket)
    }

    /// Before the peer of a connection has been promised a window.
    fn set_buffers(&self, socket: &Socket) -> io::Result<()> {
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes).describe("SO_RCVBUF")?;
        }
        if let Some(bytes) = self.send_buffer {
            socket.set_send_buffer_size(bytes).describe("SO_SNDBUF")?;
        }
        Ok(())
    }

    /// Before a TCP socket listens: what its connections inherit.
    pub(super) fn before_listen(&self, socket: &Socket) -> io::Result<()> {
        if let Some(KeepAlive { idle, interval, count }) = self.keep_alive {
            let keep_alive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(count);
            socket.set_tcp_keepalive(&keep_alive).describe("SO_KEEPALIVE")?;
        }
        if let Some(time) = self.defer_accept {
            socket_options::defer_accept(socket.as_fd(), time).describe("TCP_DEFER_ACCEPT")?;
        }
        if let Some(length) = self.fast_open {
            socket_options::fast_open(socket.as_fd(), length).describe("TCP_FASTOPEN")?;
        }
        match self.delay {
            true => Ok(()),
            false => socket_options::no_delay(socket.as_fd()).describe("TCP_NODELAY"),
        }
    }

    /// Before a unix socket listens, which has been bound to a file unless its name is abstract.
    pub(super) fn before_unix_listen(&self, socket: &Socket, path: Option<&Path>) -> io::Result<()> {
        self.set_buffers(socket)?;
        let Some(path) = path else { return Ok(()) };
        if let Some((user, group)) = self.unix_owner {
            std::os::unix::fs::chown(path, user, group).describe("chown")?;
        }
        if let Some(mode) = self.unix_mode {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(path, mode).describe("chmod")?;
        }
        Ok(())
    }

    /// Has a datagram socket receive what is sent to the groups of its family.
    pub(super) fn join_groups(&self, socket: &Socket, address: SocketAddr) -> io::Result<()> {
        for (group, interface) in groups(&self.multicast)? {
            match group {
                IpAddr::V4(group) if address.is_ipv4() => socket
                    .join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(interface))
                    .describe("IP_ADD_MEMBERSHIP")?,
                IpAddr::V6(group) if address.is_ipv6() => {
                    socket.join_multicast_v6(&group, interface).describe("IPV6_JOIN_GROUP")?
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// `EINVAL` for what no socket can have.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self
            .keep_alive
            .is_some_and(|keep| keep.idle.is_zero() || keep.interval.is_zero() || keep.count == 0)
        {
            return Err(fail(libc::EINVAL, "keep-alive needs times and a count above 0"));
        }
        if self.unix_mode.is_some_and(|mode| mode > 0o777) {
            return Err(fail(libc::EINVAL, "the mode of a unix socket is at most 0777"));
        }
        groups(&self.multicast).map(drop)
    }
}

/// `239.1.2.3` or `ff02::fb%eth0`, each with the index of its interface, which is 0 if the system chooses.
fn groups(list: &str) -> io::Result<Vec<(IpAddr, u32)>> {
    parse_list(list, "multicast group such as 239.1.2.3 or ff02::fb%eth0", group)
}

fn group(word: &str) -> Option<(IpAddr, u32)> {
    let (ip, interface) = word.split_once('%').map_or((word, None), |(ip, name)| (ip, Some(name)));
    let ip: IpAddr = ip.parse().ok().filter(IpAddr::is_multicast)?;
    let index = match interface {
        None => 0,
        Some(name) => name.parse().ok().or_else(|| socket_options::interface_index(name))?,
    };
    Some((ip, index))
}
