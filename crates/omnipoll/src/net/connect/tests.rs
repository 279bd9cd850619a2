use super::super::connect_options::ConnectOptions;
use super::super::driver::DriverKind;
use super::*;
use crate::sys::socket::tests::FORKING;
use crate::sys::Completion;
use crate::{EngineKind, EventKind, Events};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Instant;

/// No connect of these tests takes so long.
const LONG: Duration = Duration::from_secs(60);
/// The time limit of those that must not end before it.
const SHORT: Duration = Duration::from_millis(100);

/// What a loop has.
struct Fixture {
    // Dropped before the sockets.
    driver: AnyDriver,
    poller: Arc<Poller>,
    connects: Connects,
    started: u32,
}

impl Fixture {
    /// One for each engine, and one for the ring.
    fn all(resolver: impl Fn() -> Resolver) -> Vec<Self> {
        let engines = EngineKind::ALL.into_iter().filter(|engine| engine.is_available());
        let mut kinds: Vec<_> = engines.map(|engine| (DriverKind::Readiness, engine)).collect();
        if DriverKind::of(EngineKind::IoUring, true).unwrap() != DriverKind::Readiness {
            kinds.push((DriverKind::of(EngineKind::IoUring, true).unwrap(), EngineKind::Epoll));
        }
        let new = |(kind, engine)| Self {
            driver: AnyDriver::new(kind, crate::WaitPolicy::Balanced).unwrap(),
            poller: Arc::new(Poller::with_engine(engine).unwrap()),
            connects: Connects::with(resolver()),
            started: 0,
        };
        kinds.into_iter().map(new).collect()
    }

    fn try_start(&mut self, address: &str, options: &ConnectOptions) -> io::Result<ConnId> {
        let request = ConnectRequest::new(address, options)?;
        self.started += 1;
        let id = ConnId::new(self.started, 0, 0);
        let mut io = ConnectIo { driver: &mut self.driver, poller: &self.poller };
        self.connects.start(&mut io, request, id, 7);
        Ok(id)
    }

    fn start(&mut self, address: &str) -> ConnId {
        self.try_start(address, &ConnectOptions::new()).unwrap()
    }

    /// What a loop does in one turn.
    fn turn(&mut self) {
        self.turn_within(LONG);
    }

    fn turn_within(&mut self, limit: Duration) {
        let mut events = Events::with_capacity(256);
        let waited = self.driver.wait(&self.poller, &mut events, Some(limit));
        let completions: Vec<_> = std::iter::from_fn(|| self.driver.next()).collect();
        self.driver.events(waited, &self.poller, &mut events).unwrap();
        let mut io = ConnectIo { driver: &mut self.driver, poller: &self.poller };
        for completion in completions {
            let Completion::Connected { key, result } = completion else { panic!("{completion:?}") };
            self.connects.on_completion(&mut io, key, result);
        }
        for event in &events {
            match event.kind() {
                EventKind::Io => self.connects.on_ready(&mut io, event.token(), event.ready()),
                EventKind::Timer => self.connects.on_timer(&mut io, event.token()),
                EventKind::Wake => {}
                kind => panic!("{kind:?}"),
            }
        }
        self.connects.before_wait(&mut io);
    }

    fn outcome(&mut self) -> Outcome {
        let began = Instant::now();
        loop {
            if let Some(outcome) = self.connects.next_outcome() {
                return self.unregistered(outcome);
            }
            assert!(began.elapsed() < LONG, "no outcome");
            self.turn();
        }
    }

    /// Takes over what an event loop would.
    fn unregistered(&self, mut outcome: Outcome) -> Outcome {
        if let Outcome::Opened(opened) = &mut outcome {
            if std::mem::take(&mut opened.is_registered) {
                self.poller.remove_reserved(opened.socket.as_raw_fd()).unwrap();
            }
        }
        outcome
    }

    fn opened(&mut self) -> OpenedConnect {
        match self.outcome() {
            Outcome::Opened(opened) => opened,
            failed => panic!("{failed:?}"),
        }
    }

    fn failed(&mut self) -> FailedConnect {
        match self.outcome() {
            Outcome::Failed(failed) => failed,
            opened => panic!("{opened:?}"),
        }
    }

    fn cancel(&mut self, id: ConnId) {
        let mut io = ConnectIo { driver: &mut self.driver, poller: &self.poller };
        self.connects.cancel(&mut io, id);
    }

    /// Nothing is left, neither here nor with the poller.
    fn assert_empty(&mut self) {
        let began = Instant::now();
        while !self.connects.is_empty() {
            assert!(began.elapsed() < LONG, "{:?}", self.connects);
            self.turn_within(SHORT);
        }
        self.turn_within(Duration::ZERO);
        assert!(self.connects.attempts.is_empty() && self.connects.keys.is_empty());
        assert_eq!(self.connects.lookups, 0);
        let stats = self.poller.stats().unwrap();
        assert_eq!((stats.registrations, stats.timers), (0, 0));
    }
}

fn of_names(addresses: &'static [&'static str]) -> impl Fn() -> Resolver {
    move || {
        Resolver::with(move |_, port| {
            Ok(addresses.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect())
        })
    }
}

fn errno_of(failed: &FailedConnect) -> i32 {
    failed.error().raw_os_error().unwrap()
}

fn words_of(failed: &FailedConnect) -> String {
    explain(&failed.error())
}

/// A port of 127.0.0.1 where nobody listens, for as long as the socket lives.
fn unused_port() -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

/// A listener whose queue is full: it answers no more connects.
fn silent() -> (TcpListener, Vec<TcpStream>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let listener: TcpListener = socket.into();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener, vec![client])
}

#[test]
fn an_address_is_connected_to() {
    for mut fixture in Fixture::all(Resolver::new) {
        for ip in ["127.0.0.1", "[::1]"] {
            let listener = TcpListener::bind(format!("{ip}:0")).unwrap();
            let address = listener.local_addr().unwrap();
            let id = fixture.start(&address.to_string());
            let opened = fixture.opened();
            assert_eq!((opened.id, opened.token), (id, 7));
            assert_eq!(opened.peer.as_socket_addr(), Some(address));
            let (mut accepted, peer) = listener.accept().unwrap();
            let mut ours = TcpStream::from(opened.socket);
            assert_eq!(ours.local_addr().unwrap(), peer);
            assert!(ours.nodelay().unwrap());
            assert_eq!(ours.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            ours.write_all(b"x").unwrap();
            accepted.read_exact(&mut [0]).unwrap();
            fixture.assert_empty();
        }
    }
}

#[test]
fn options_are_set_on_the_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (reserved, port) = unused_port();
    drop(reserved);
    for mut fixture in Fixture::all(Resolver::new) {
        let options = ConnectOptions::new().no_delay(false).keep_alive(Duration::from_secs(9));
        fixture.try_start(&address, &options.local_address(format!("127.0.0.1:{port}"))).unwrap();
        let opened = fixture.opened();
        let socket = socket2::SockRef::from(&opened.socket);
        assert!(!socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(9));
        assert_eq!(socket.local_addr().unwrap().as_socket().unwrap().port(), port);
        // From that port there is a connection to there already.
        let options = ConnectOptions::new().local_address(format!("127.0.0.1:{port}"));
        fixture.try_start(&address, &options).unwrap();
        let errno = errno_of(&fixture.failed());
        assert!([libc::EADDRNOTAVAIL, libc::EADDRINUSE].contains(&errno), "{errno}");
        // Reset: nothing of it is left for the next engine.
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        drop(opened);
        let options = ConnectOptions::new().local_address("127.0.0.9");
        fixture.try_start(&address, &options).unwrap();
        let local = socket::local_address(fixture.opened().socket.as_fd()).unwrap();
        assert!(local.to_string().starts_with("127.0.0.9:"), "{local}");
        let options = ConnectOptions::new().local_address("::1");
        fixture.try_start(&address, &options).unwrap();
        assert_eq!(errno_of(&fixture.failed()), libc::EAFNOSUPPORT);
        fixture.assert_empty();
    }
}

#[test]
fn what_is_wrong_with_a_request_is_told_at_once() {
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let number = format!("fd:{}", datagrams.as_raw_fd());
    let local = ConnectOptions::new().local_address("127.0.0.1");
    for (address, options, errno) in [
        ("127.0.0.1", ConnectOptions::new(), libc::EINVAL),
        ("127.0.0.1:80", ConnectOptions::new().local_address("here"), libc::EINVAL),
        ("unix:/socket", local.clone(), libc::EINVAL),
        (&number, local, libc::EINVAL),
        (&number, ConnectOptions::new(), libc::EPROTOTYPE),
        ("fd:999999", ConnectOptions::new(), libc::EBADF),
    ] {
        let error = ConnectRequest::new(address, &options).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno), "{address}: {}", explain(&error));
    }
}

#[test]
fn a_connected_descriptor_is_taken_over() {
    let _no_fork = FORKING.read().unwrap();
    for mut fixture in Fixture::all(Resolver::new) {
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let id = fixture.start(&format!("fd:{}", ours.as_raw_fd()));
        let opened = fixture.opened();
        assert_eq!((opened.id, opened.peer), (id, Address::Unnamed));
        // The number stays open, until its owner closes it.
        drop(ours);
        std::fs::File::from(opened.socket).write_all(b"x").unwrap();
        assert_eq!(theirs.read(&mut [0; 2]).unwrap(), 1);
        fixture.assert_empty();
    }
}

#[test]
fn a_refused_connect_says_where() {
    let (_socket, port) = unused_port();
    for mut fixture in Fixture::all(Resolver::new) {
        let id = fixture.start(&format!("127.0.0.1:{port}"));
        let failed = fixture.failed();
        assert_eq!((failed.id(), failed.token()), (id, 7));
        assert_eq!(errno_of(&failed), libc::ECONNREFUSED);
        assert_eq!(words_of(&failed), format!("connect 127.0.0.1:{port}: Connection refused"));
        fixture.assert_empty();
    }
}

#[test]
fn the_addresses_of_a_name_are_tried_until_one_answers() {
    let listener = TcpListener::bind("127.0.0.3:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for mut fixture in Fixture::all(of_names(&["::1", "127.0.0.2", "127.0.0.3"])) {
        fixture.start(&format!("name:{port}"));
        assert_eq!(fixture.opened().peer.to_string(), format!("127.0.0.3:{port}"));
        fixture.assert_empty();
    }
    drop(listener);
    for mut fixture in Fixture::all(of_names(&["::1", "127.0.0.2", "127.0.0.3"])) {
        fixture.start(&format!("name:{port}"));
        let failed = fixture.failed();
        assert_eq!(errno_of(&failed), libc::ECONNREFUSED);
        let tried: Vec<_> = failed.attempts().iter().map(|(address, _)| address.to_string()).collect();
        assert_eq!(tried, ["[::1]", "127.0.0.2", "127.0.0.3"].map(|ip| format!("{ip}:{port}")));
        assert!(words_of(&failed).starts_with(&format!("connect name:{port}: [::1]:{port}: Connection")));
        fixture.assert_empty();
    }
}

/// RFC 8305: the next address does not wait for the end of the first.
#[test]
fn a_silent_address_does_not_keep_the_next_one_waiting() {
    let (silent, _clients) = silent();
    let port = silent.local_addr().unwrap().port();
    let listener = TcpListener::bind(("127.0.0.2", port)).unwrap();
    for mut fixture in Fixture::all(of_names(&["127.0.0.1", "127.0.0.2"])) {
        fixture.start(&format!("name:{port}"));
        assert_eq!(fixture.opened().peer.to_string(), format!("127.0.0.2:{port}"));
        // The loser is closed.
        fixture.assert_empty();
        listener.accept().unwrap();
    }
}

#[test]
fn the_time_limit_ends_a_silent_connect() {
    let (listener, _clients) = silent();
    let address = listener.local_addr().unwrap().to_string();
    for mut fixture in Fixture::all(Resolver::new) {
        let began = Instant::now();
        fixture.try_start(&address, &ConnectOptions::new().timeout(SHORT)).unwrap();
        let failed = fixture.failed();
        assert!(began.elapsed() >= SHORT);
        assert_eq!(errno_of(&failed), libc::ETIMEDOUT);
        assert_eq!(failed.attempts().len(), 1);
        assert!(words_of(&failed).contains("not connected within 100ms"), "{}", words_of(&failed));
        fixture.assert_empty();
    }
}

#[test]
fn a_name_without_address_fails_in_words() {
    let none = || Resolver::with(|_, _| Err(fail(libc::EIO, "nobody knows it")));
    for mut fixture in Fixture::all(none) {
        fixture.start("name:80");
        let failed = fixture.failed();
        assert_eq!(errno_of(&failed), libc::EADDRNOTAVAIL);
        assert!(words_of(&failed).starts_with("connect name:80: "), "{}", words_of(&failed));
        assert!(failed.attempts().is_empty());
        fixture.assert_empty();
    }
}

#[test]
fn a_slow_look_up_is_limited_and_cancelled() {
    let gate = Arc::new(Mutex::new(()));
    let closed = lock(&gate);
    let slow = || {
        let gate = gate.clone();
        Resolver::with(move |_, port| {
            drop(lock(&gate));
            Ok(vec![([127, 0, 0, 1], port).into()])
        })
    };
    for mut fixture in Fixture::all(slow) {
        fixture.try_start("slow:80", &ConnectOptions::new().timeout(SHORT)).unwrap();
        let failed = fixture.failed();
        assert_eq!(errno_of(&failed), libc::ETIMEDOUT);
        assert!(words_of(&failed).contains("not resolved within"), "{}", words_of(&failed));
        let id = fixture.start("slow:80");
        fixture.cancel(id);
        assert_eq!(errno_of(&fixture.failed()), libc::ECANCELED);
        fixture.assert_empty();
    }
    drop(closed);
}

#[test]
fn a_cancelled_connect_says_so() {
    let (listener, _clients) = silent();
    let address = listener.local_addr().unwrap().to_string();
    for mut fixture in Fixture::all(Resolver::new) {
        let id = fixture.start(&address);
        fixture.turn_within(SHORT);
        fixture.cancel(id);
        let failed = fixture.failed();
        assert_eq!((failed.id(), errno_of(&failed)), (id, libc::ECANCELED));
        fixture.assert_empty();
        // Nothing any more.
        fixture.cancel(id);
        assert!(fixture.connects.next_outcome().is_none());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn unix_sockets_are_connected_to_and_a_full_queue_is_waited_for() {
    let name = format!("omnipoll-connect-{}", std::process::id());
    let address = format!("unix:@{name}");
    for mut fixture in Fixture::all(Resolver::new) {
        fixture.start(&address);
        assert_eq!(errno_of(&fixture.failed()), libc::ECONNREFUSED);
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(format!("\0{name}")).unwrap()).unwrap();
        listener.listen(0).unwrap();
        fixture.start(&address);
        let first = fixture.opened();
        assert_eq!(first.peer.to_string(), address);
        fixture.try_start(&address, &ConnectOptions::new().timeout(SHORT)).unwrap();
        let failed = fixture.failed();
        assert_eq!(errno_of(&failed), libc::EAGAIN, "{}", words_of(&failed));
        fixture.start(&address);
        fixture.turn_within(SHORT);
        listener.accept().unwrap();
        fixture.opened();
        fixture.assert_empty();
    }
}

/// Sooner or later the system chooses the port that is connected to.
#[test]
#[cfg(target_os = "linux")]
fn a_socket_that_met_itself_was_refused() {
    let (socket, port) = unused_port();
    drop(socket);
    let address = format!("127.0.0.1:{port}");
    for mut fixture in Fixture::all(Resolver::new) {
        fixture.try_start(&address, &ConnectOptions::new().local_address(address.clone())).unwrap();
        let failed = fixture.failed();
        assert_eq!(errno_of(&failed), libc::ECONNREFUSED, "{}", words_of(&failed));
        fixture.assert_empty();
    }
}

#[test]
fn many_connects_at_once_all_end() {
    let (_socket, port) = unused_port();
    for mut fixture in Fixture::all(Resolver::new) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut open = std::collections::HashSet::new();
        for _ in 0..50 {
            open.insert(fixture.start(&address));
            open.insert(fixture.start(&format!("localhost:{port}")));
        }
        while !open.is_empty() {
            let id = match fixture.outcome() {
                Outcome::Opened(opened) => opened.id,
                Outcome::Failed(failed) => failed.id(),
            };
            assert!(open.remove(&id));
        }
        fixture.assert_empty();
    }
}
