//! Listening while a loop runs: in its callbacks, between two waits, and around its stop.

use std::cell::Cell;
use std::io::{self, Write};
use std::net::{TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use omnipoll::{Conn, Datagram, EngineKind, EventLoop, Handler, LoopOptions};

use crate::client::{exchange, read_to_end, with_timeouts};
use crate::suite::Suite;
use crate::support::expect::expect_error;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(a_callback_listens);
    suite.on_each_engine(a_callback_listens_for_datagrams);
    suite.on_each_engine(what_is_no_address_is_refused_in_a_callback);
    suite.on_each_engine(clients_that_wait_at_a_stop_are_accepted);
    suite.on_each_engine(nothing_is_listened_on_after_a_stop);
}

/// A request is an address to listen on, and is answered with what it has become. What connects there is
/// echoed to.
#[derive(Default)]
struct Listens {
    accepted: Cell<usize>,
    /// What listening has failed with after the stop.
    refused: Cell<Option<i32>>,
}

const REQUESTS: u64 = 1;
const ECHO: u64 = 2;

impl Handler for Listens {
    type State = ();

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
        self.accepted.set(self.accepted.get() + usize::from(conn.token() == ECHO));
        Ok(())
    }

    fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) {
        let answer = match conn.token() {
            REQUESTS if data == b"stop" => return conn.event_loop().stop(None).expect("stop"),
            REQUESTS => {
                let address = std::str::from_utf8(data).expect("an address");
                let opened = conn.event_loop().listen(address, ECHO);
                opened.unwrap_or_else(|error| omnipoll::explain(&error).to_string())
            }
            _ => String::from_utf8_lossy(data).into_owned(),
        };
        conn.write(answer.as_bytes()).expect("write");
    }

    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        assert_eq!(datagram.token(), ECHO);
        datagram.reply(data).expect("reply");
    }

    fn on_stop(&self, conn: &mut Conn<'_>, _: &mut ()) {
        let refused = conn.event_loop().listen("127.0.0.1:0", ECHO).expect_err("it stops");
        self.refused.set(refused.raw_os_error());
        conn.close();
    }
}

fn loop_of(engine: EngineKind) -> (EventLoop<Listens>, String) {
    let options = LoopOptions::new().engine(engine);
    let mut event_loop = EventLoop::with_options(Listens::default(), options).expect("a loop");
    let address = event_loop.listen("127.0.0.1:0", REQUESTS).expect("listen");
    (event_loop, address)
}

fn connect(address: &str) -> TcpStream {
    with_timeouts(TcpStream::connect(address).expect("connect"))
}

/// Has the loop listen, and returns its answer.
fn ask(mut client: &TcpStream, address: &str) -> String {
    client.write_all(address.as_bytes()).expect("ask");
    let mut answer = [0; 200];
    let length = io::Read::read(&mut client, &mut answer).expect("an answer");
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// Runs a loop for as long as its clients take, which end with a stop.
fn run(engine: EngineKind, clients: impl FnOnce(&TcpStream) + Send + 'static) -> Listens {
    let (mut event_loop, address) = loop_of(engine);
    let clients = thread::spawn(move || {
        let client = connect(&address);
        clients(&client);
        (&client).write_all(b"stop").expect("stop");
        assert!(read_to_end(&client).is_empty());
    });
    event_loop.run().expect("run");
    clients.join().unwrap();
    let Listens { accepted, refused } = event_loop.handler();
    Listens { accepted: accepted.clone(), refused: refused.clone() }
}

fn a_callback_listens(engine: EngineKind) {
    let seen = run(engine, |client| {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let opened = ask(client, address);
            for _ in 0..3 {
                exchange(&connect(&opened), b"hello");
            }
        }
    });
    assert_eq!(seen.accepted.get(), 6);
}

fn a_callback_listens_for_datagrams(engine: EngineKind) {
    run(engine, |client| {
        let opened = ask(client, "udp:127.0.0.1:0");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket.send_to(b"hello", opened.trim_start_matches("udp:")).unwrap();
        let mut answer = [0; 10];
        assert_eq!(socket.recv(&mut answer).unwrap(), 5);
    });
}

fn what_is_no_address_is_refused_in_a_callback(engine: EngineKind) {
    run(engine, |client| {
        assert!(ask(client, "nonsense").contains("\"nonsense\""));
        let taken = ask(client, &ask(client, "127.0.0.1:0"));
        assert!(taken.contains("EADDRINUSE") || taken.contains("in use"), "{taken}");
    });
}

fn clients_that_wait_at_a_stop_are_accepted(engine: EngineKind) {
    let (mut event_loop, _) = loop_of(engine);
    let address = event_loop.listen("127.0.0.1:0", ECHO).unwrap();
    let mut client = connect(&address);
    client.write_all(b"hello").unwrap();
    event_loop.handle().stop(None).unwrap();
    event_loop.run().unwrap();
    assert_eq!(event_loop.handler().accepted.get(), 1);
    drop(client);
}

fn nothing_is_listened_on_after_a_stop(engine: EngineKind) {
    let (mut event_loop, address) = loop_of(engine);
    let client = connect(&address);
    let clients = thread::spawn(move || {
        let opened = ask(&client, "127.0.0.1:0");
        exchange(&connect(&opened), b"hello");
        (&client).write_all(b"stop").unwrap();
        read_to_end(&client);
        opened
    });
    event_loop.run().unwrap();
    TcpStream::connect(clients.join().unwrap()).expect_err("it is closed");
    assert_eq!(event_loop.handler().refused.get(), Some(libc::EINVAL));
    expect_error(event_loop.listen("127.0.0.1:0", ECHO), libc::EINVAL);
}
