//! Whom a connect meets.

use std::net::{SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, SockAddr, Socket, Type};

/// An address of 127.0.0.1 where nobody listens, for as long as the socket lives.
pub(crate) fn nobody() -> (Socket, SocketAddr) {
    let socket = bound("127.0.0.1:0");
    let address = socket.local_addr().expect("its address").as_socket().expect("of the internet");
    (socket, address)
}

/// A listener that answers no connect, because its queue is full.
pub(crate) struct Silent {
    pub(crate) address: SocketAddr,
    _listener: TcpListener,
    _client: TcpStream,
}

impl Silent {
    pub(crate) fn new() -> Self {
        let socket = bound("127.0.0.1:0");
        socket.listen(0).expect("listen");
        let listener: TcpListener = socket.into();
        let address = listener.local_addr().expect("its address");
        let client = TcpStream::connect(address).expect("connect");
        Self { address, _listener: listener, _client: client }
    }
}

fn bound(address: &str) -> Socket {
    let address: SocketAddr = address.parse().expect("an address");
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("socket");
    socket.bind(&address.into()).expect("bind");
    socket
}

/// A unix listener of that name, whose queue has room for one.
pub(crate) fn unix_listener(name: &str) -> Socket {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("socket");
    socket.bind(&SockAddr::unix(name).expect("a name")).expect("bind");
    socket.listen(0).expect("listen");
    socket
}
