//! Listening sockets.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

use super::listen_address::ListenAddress;
use super::socket_file::{is, remove_stale, DirectoryLock, SocketFile};
use super::socket_settings::SocketSettings;
use crate::error::{fail, Describe};
use crate::sys::Address;
use crate::sys::{socket, socket_options};

/// A listening stream socket: ours, non-blocking, closed by `exec`.
///
/// The file of a unix socket is removed when the listener that made it is dropped, but not in
/// a forked child, nor when the path has come to name another file, nor once the socket is to be
/// [kept](Self::keep_file).
#[derive(Debug)]
pub(crate) struct Listener {
    // Dropped before the socket, which keeps the file's inode from being used again.
    file: Option<SocketFile>,
    socket: Socket,
    local: Address,
    /// It was opened with `SO_REUSEPORT`.
    shares_port: bool,
}

impl Listener {
    /// Listens on everything that a TCP or unix address stands for: one socket at least.
    ///
    /// `backlog` is how many connections may wait to be accepted, listen(2). `reuse_port` lets
    /// [`sibling`](Self::sibling) add sockets to a TCP address; a unix address is what it is.
    /// `EADDRINUSE` when another listens there already, with `SO_REUSEPORT` too.
    pub(crate) fn open(
        address: &ListenAddress,
        backlog: i32,
        reuse_port: bool,
        settings: &SocketSettings,
    ) -> io::Result<Vec<Self>> {
        match address {
            ListenAddress::Tcp(host, port) => host.open_each(*port, |address| {
                if reuse_port && address.port() != 0 {
                    // Programs of one user may share a port without knowing: only a socket
                    // without SO_REUSEPORT gets EADDRINUSE.
                    tcp(address, false, settings)?;
                }
                let socket = tcp(address, reuse_port, settings)?;
                settings.before_listen(&socket)?;
                Self::listen(socket, backlog, reuse_port)
            }),
            ListenAddress::Unix(name) => Ok(vec![Self::unix(name, backlog, settings)?]),
            _ => Err(fail(libc::EINVAL, "the address is not one that accepts connections")),
        }
    }

    /// One more socket on the same TCP address, among which the kernel spreads the clients:
    /// `SO_REUSEPORT`, socket(7). The first must have been opened with `reuse_port`; the options that
    /// have been set on it since are set on this one, too, because clients inherit them.
    /// `EOPNOTSUPP` for a unix address.
    pub(crate) fn sibling(&self, backlog: i32, settings: &SocketSettings) -> io::Result<Self> {
        let address = self
            .local
            .as_socket_addr()
            .ok_or_else(|| fail(libc::EOPNOTSUPP, "a unix address has only one listening socket"))?;
        let sibling = tcp(address, true, settings)?;
        socket_options::copy_options(self.as_fd(), sibling.as_fd());
        Self::listen(sibling, backlog, true)
    }

    /// A duplicate, with the same queue of connections. The file of a unix socket stays with this one.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let socket = socket::duplicate(self.as_fd())?.into();
        Ok(Self { file: None, socket, local: self.local.clone(), shares_port: self.shares_port })
    }

    /// Leaves the file of a unix socket where it is when this is dropped.
    pub(super) fn keep_file(&mut self) {
        if let Some(file) = &mut self.file {
            file.is_kept = true;
        }
    }

    /// Removes the file of its name when it is dropped, as the listener would have that was passed on.
    pub(super) fn adopt_file(&mut self, name: &Address) -> io::Result<()> {
        if let Address::Unix(bytes) = name {
            if bytes[0] != 0 {
                self.file = Some(SocketFile::of(Path::new(OsStr::from_bytes(bytes)))?);
            }
        }
        Ok(())
    }

    /// Whether it may have [siblings](Self::sibling): not when it was inherited.
    pub(crate) fn shares_port(&self) -> bool {
        self.shares_port
    }

    /// Where it listens, as [`ListenAddress`] reads it, with the port that the system chose.
    pub(crate) fn address(&self) -> String {
        self.local.to_string()
    }

    /// The next connection: its socket, non-blocking and closed by `exec`, and the peer's address.
    /// `EAGAIN` when none waits.
    #[inline]
    pub(crate) fn accept(&self) -> io::Result<(OwnedFd, Address)> {
        socket::accept(self.as_fd())
    }

    fn listen(socket: Socket, backlog: i32, shares_port: bool) -> io::Result<Self> {
        socket.listen(backlog).describe("listen")?;
        Ok(Self { shares_port, ..Self::of(socket, None)? })
    }

    fn unix(name: &Address, backlog: i32, settings: &SocketSettings) -> io::Result<Self> {
        let Address::Unix(bytes) = name else {
            return Err(fail(libc::EINVAL, "a unix socket that listens needs a name"));
        };
        let path = Path::new(OsStr::from_bytes(bytes));
        let address = SockAddr::unix(path).describe("sockaddr_un")?;
        let socket = socket::open(Domain::UNIX, Type::STREAM)?;
        if bytes[0] == 0 {
            socket.bind(&address).describe("bind")?;
            settings.before_unix_listen(&socket, None)?;
            socket.listen(backlog).describe("listen")?;
            return Self::of(socket, None);
        }
        // Until it listens, what is bound looks like what a dead server has left.
        let lock = DirectoryLock::of(path)?;
        match socket.bind(&address) {
            Err(error) if is(&error, libc::EADDRINUSE) && lock.is_held() && remove_stale(path, &address)? => {
                socket.bind(&address).describe("bind")?
            }
            result => result.describe("bind")?,
        }
        let file = SocketFile::of(path)?;
        settings.before_unix_listen(&socket, Some(path))?;
        socket.listen(backlog).describe("listen")?;
        Self::of(socket, Some(file))
    }

    pub(super) fn of(socket: Socket, file: Option<SocketFile>) -> io::Result<Self> {
        let local = socket::local_address(socket.as_fd()).describe("getsockname")?;
        Ok(Self { file, socket, local, shares_port: false })
    }

    /// Sets what accepted sockets inherit, which saves a system call for each.
    pub(super) fn prepare(&self) -> io::Result<()> {
        match self.local.as_socket_addr() {
            Some(_) => socket_options::no_delay(self.as_fd()).describe("TCP_NODELAY"),
            None => Ok(()),
        }
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

/// A TCP socket bound to `address`, also right after a server there has ended.
fn tcp(address: SocketAddr, reuse_port: bool, settings: &SocketSettings) -> io::Result<Socket> {
    let socket = socket::open(Domain::for_address(address), Type::STREAM)?;
    socket.set_reuse_address(true).describe("SO_REUSEADDR")?;
    if reuse_port {
        socket.set_reuse_port(true).describe("SO_REUSEPORT")?;
    }
    only_v6_if_named(&socket, address)?;
    settings.before_bind(&socket, address)?;
    socket.bind(&address.into()).describe("bind")?;
    Ok(socket)
}

/// `[::]` is every address of both kinds, whatever the system's default is.
pub(super) fn only_v6_if_named(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified()).describe("IPV6_V6ONLY")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Bound;
    use crate::sys::socket::tests::{in_child, FORKING};
    use std::fs;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
    use std::path::PathBuf;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    /// A directory of one test, removed with all that is in it.
    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("omnipoll-{}-{test}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn socket(&self) -> (PathBuf, String) {
            let path = self.0.join("socket");
            let address = format!("unix:{}", path.display());
            (path, address)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn plain() -> SocketSettings {
        SocketSettings::default()
    }

    fn open(address: &str) -> io::Result<Vec<Listener>> {
        Bound::open(&address.parse()?, 16, false, false, &plain())?
            .into_iter()
            .map(|bound| match bound {
                Bound::Stream(listener) => Ok(listener),
                Bound::Datagrams(_) => panic!("{address} is for datagrams"),
            })
            .collect()
    }

    fn one(address: &str) -> Listener {
        let mut listeners = open(address).unwrap();
        assert_eq!(listeners.len(), 1);
        listeners.remove(0)
    }

    fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
        result.unwrap_err().raw_os_error().unwrap()
    }

    /// The client that has connected, which on loopback is there at once.
    fn accepted(listener: &Listener) -> (std::fs::File, Address) {
        let (socket, peer) = listener.accept().unwrap();
        (socket.into(), peer)
    }

    /// From proc_pid_fdinfo(5).
    #[cfg(target_os = "linux")]
    fn closes_on_exec(fd: &impl AsRawFd) -> bool {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_CLOEXEC != 0
    }

    fn tcp_port(listener: &Listener) -> u16 {
        listener.local.as_socket_addr().unwrap().port()
    }

    #[test]
    fn tcp_clients_are_accepted_with_their_address() {
        for ip in ["127.0.0.1", "[::1]"] {
            let listener = one(&format!("{ip}:0"));
            assert_eq!(errno(listener.accept()), libc::EAGAIN);
            assert!(listener.address().starts_with(&format!("{ip}:")));
            assert!(!listener.address().ends_with(":0"));
            let mut client = TcpStream::connect(listener.address()).unwrap();
            client.write_all(b"x").unwrap();
            let (mut socket, peer) = accepted(&listener);
            assert_eq!(peer.as_socket_addr(), Some(client.local_addr().unwrap()));
            socket.write_all(b"y").unwrap();
            client.read_exact(&mut [0]).unwrap();
            let options = socket2::SockRef::from(&socket);
            assert!(options.nonblocking().unwrap());
            #[cfg(target_os = "linux")]
            assert!(closes_on_exec(&socket));
            assert!(options.tcp_nodelay().unwrap());
        }
    }

    #[test]
    fn any_is_both_kinds_of_addresses() {
        for text in [":0", "*:0", "[::]:0"] {
            let listener = one(text);
            for ip in ["127.0.0.1", "::1"] {
                let _client = TcpStream::connect((ip, tcp_port(&listener))).unwrap();
                accepted(&listener);
            }
        }
    }

    #[test]
    fn a_name_is_all_of_its_addresses() {
        let listeners = open("localhost:0").unwrap();
        for listener in &listeners {
            let _client = TcpStream::connect(listener.address()).unwrap();
            accepted(listener);
        }
        let ips: Vec<_> = listeners.iter().map(|l| l.local.as_socket_addr().unwrap().ip()).collect();
        assert!(ips.iter().all(|ip| ip.is_loopback()), "{ips:?}");
    }

    #[test]
    fn the_address_of_a_listener_opens_it_again() {
        let _no_fork = FORKING.read().unwrap();
        let directory = Directory::new("again");
        for text in ["127.0.0.1:0", "[::1]:0", ":0", &directory.socket().1] {
            let address = one(text).address();
            assert_eq!(one(&address).address(), address);
        }
    }

    #[test]
    fn a_port_in_use_is_told_even_where_it_could_be_shared() {
        let _no_fork = FORKING.read().unwrap();
        let other = Listener::open(&"127.0.0.1:0".parse().unwrap(), 16, true, &plain()).unwrap().remove(0);
        let address: ListenAddress = other.address().parse().unwrap();
        for reuse_port in [false, true] {
            assert_eq!(errno(Listener::open(&address, 16, reuse_port, &plain())), libc::EADDRINUSE);
        }
        drop(other);
        assert!(Listener::open(&address, 16, true, &plain()).is_ok());
    }

    #[test]
    fn siblings_share_the_clients_of_a_port() {
        let _no_fork = FORKING.read().unwrap();
        let first = Listener::open(&"127.0.0.1:0".parse().unwrap(), 16, true, &plain()).unwrap().remove(0);
        let second = first.sibling(16, &plain()).unwrap();
        assert_eq!(first.address(), second.address());
        drop(first);
        let _client = TcpStream::connect(second.address()).unwrap();
        accepted(&second);
        let alone = one("127.0.0.1:0");
        assert_eq!(errno(alone.sibling(16, &plain())), libc::EADDRINUSE);
    }

    #[test]
    fn unix_clients_are_accepted_without_a_name() {
        let directory = Directory::new("unix");
        let (path, address) = directory.socket();
        let listener = one(&address);
        assert_eq!(listener.address(), address);
        assert_eq!(errno(listener.sibling(16, &plain())), libc::EOPNOTSUPP);
        let _client = UnixStream::connect(&path).unwrap();
        assert_eq!(accepted(&listener).1, Address::Unnamed);
        drop(listener.try_clone().unwrap());
        assert!(path.exists());
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_file_is_replaced() {
        let _no_fork = FORKING.read().unwrap();
        let directory = Directory::new("stale");
        let (path, address) = directory.socket();
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = one(&address);
        let _client = UnixStream::connect(&path).unwrap();
        accepted(&listener);
    }

    #[test]
    fn a_file_in_use_is_left_alone() {
        let _no_fork = FORKING.read().unwrap();
        let directory = Directory::new("in-use");
        let (path, address) = directory.socket();
        let server = UnixListener::bind(&path).unwrap();
        assert_eq!(errno(open(&address)), libc::EADDRINUSE);
        assert!(UnixStream::connect(&path).is_ok());
        drop(server);
        fs::remove_file(&path).unwrap();

        let datagrams = UnixDatagram::bind(&path).unwrap();
        assert_eq!(errno(open(&address)), libc::EADDRINUSE);
        drop(datagrams);
        fs::remove_file(&path).unwrap();

        fs::write(&path, b"precious").unwrap();
        assert_eq!(errno(open(&address)), libc::EADDRINUSE);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn the_file_of_another_is_not_removed() {
        let _no_fork = FORKING.read().unwrap();
        let directory = Directory::new("another");
        let (path, address) = directory.socket();
        let first = one(&address);
        fs::remove_file(&path).unwrap();
        let _second = one(&address);
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn abstract_names_leave_no_file() {
        let address = format!("unix:@omnipoll-{}", std::process::id());
        let listener = one(&address);
        assert_eq!(listener.address(), address);
        assert_eq!(errno(open(&address)), libc::EADDRINUSE);
        use std::os::linux::net::SocketAddrExt;
        let name = std::os::unix::net::SocketAddr::from_abstract_name(&address["unix:@".len()..]).unwrap();
        let _client = UnixStream::connect_addr(&name).unwrap();
        accepted(&listener);
    }

    #[test]
    fn an_inherited_socket_must_listen() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = one(&format!("fd:{}", server.as_raw_fd()));
        assert_eq!(listener.address(), server.local_addr().unwrap().to_string());
        assert!(socket2::SockRef::from(&listener).nonblocking().unwrap());
        let client = TcpStream::connect(listener.address()).unwrap();
        accepted(&listener);

        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let file = fs::File::open("/dev/null").unwrap();
        for (fd, expected) in [
            (client.as_raw_fd(), libc::EINVAL),
            (datagrams.as_raw_fd(), libc::ENOTSUP),
            (file.as_raw_fd(), libc::ENOTSOCK),
            (i32::MAX, libc::EBADF),
        ] {
            assert_eq!(errno(open(&format!("fd:{fd}"))), expected);
        }
    }

    #[test]
    fn datagram_addresses_have_no_clients() {
        assert_eq!(errno(open("udp:127.0.0.1:0")), libc::ENOTSUP);
    }

    /// Runs itself again, as a process that was passed a listening socket.
    #[test]
    fn systemd_passes_sockets() {
        if std::env::var_os("LISTEN_FDS").is_some() {
            let listener = one("systemd");
            #[cfg(target_os = "linux")]
            assert!(closes_on_exec(&listener) && closes_on_exec(&3));
            return accepted(&listener).0.write_all(b"served").unwrap();
        }
        for pid in ["LISTEN_PID=$$", ""] {
            let server = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let forking = FORKING.write().unwrap();
            let child = Command::new("sh")
                .args(["-c", &format!(r#"{pid} LISTEN_FDS=1 exec "$@" 3<&0 0</dev/null"#), "sh"])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "net::listener::tests::systemd_passes_sockets"])
                .env_remove("LISTEN_PID")
                .stdin(Stdio::from(OwnedFd::from(server)))
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            drop(forking);
            let child = child.wait_with_output().unwrap();
            assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
            let mut answer = [0; 6];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"served");
        }
    }

    #[test]
    fn a_forked_child_leaves_the_file_of_a_listener() {
        let path = std::env::temp_dir().join(format!("omnipoll-{}-forked", std::process::id()));
        let address = format!("unix:{}", path.display()).parse().unwrap();
        let listener = Listener::open(&address, 1, false, &plain()).unwrap();
        let listener = std::cell::Cell::new(Some(listener));
        assert_eq!(in_child(|| listener.take().map_or(1, |_| 0)), 0);
        assert!(path.exists());
        drop(listener);
        assert!(!path.exists());
    }
}
