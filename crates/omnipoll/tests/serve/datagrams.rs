//! Datagrams: each whole, to its sender, on every engine.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};

use omnipoll::{Address, Conn, Datagram, DatagramId, Handler, LoopRef, Model, Server, ServerHandle};

use crate::config::Config;
use crate::running_server::{serve_with, RunningServer};
use crate::suite::Suite;
use crate::support::expect::{expect_error, LONG};

const WITH_DATAGRAMS: [Model; 3] = [Model::Reactor, Model::Cores, Model::Prefork];

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_models(&WITH_DATAGRAMS, datagrams_come_back_whole);
    suite.for_models(&WITH_DATAGRAMS, replies_come_from_the_address_that_was_asked);
    suite.for_models(&WITH_DATAGRAMS, other_threads_send_at_any_time);
    suite.for_models(&WITH_DATAGRAMS, what_cannot_be_sent_is_an_error_at_once);
    suite.for_models(&WITH_DATAGRAMS, a_connected_socket_receives_sends_and_is_told_of_refusals);
    suite.for_models(&WITH_DATAGRAMS, a_closed_socket_is_stale);
    suite.for_models(&WITH_DATAGRAMS, other_threads_send_until_the_server_stops);
    suite.for_models(&[Model::Thread, Model::Fork], datagrams_are_refused_per_client_models);
}

/// Sends back what it is sent, and panics at some of it.
struct Echo;

impl Handler for Echo {
    type State = ();

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
        Ok(())
    }

    fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}

    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        assert_ne!(data, b"panic!", "as it should");
        datagram.reply(data).expect("there is room for an answer");
    }
}

fn datagrams_come_back_whole(config: Config) {
    let mut server = serve_with(&["udp:127.0.0.1:0"], config.options(), |_| Echo, |_| {});
    let address = server.addresses()[0].strip_prefix("udp:").expect("how it is written").to_owned();
    let clients: Vec<UdpSocket> = (0..8).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let mut buffer = vec![0; 65536];
    for (seed, client) in clients.iter().enumerate() {
        client.connect(&address).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        client.send(b"panic!").unwrap();
        for length in [0, 1, 1400, 9000, 60_000] {
            let data = crate::client::pattern(seed, length);
            client.send(&data).unwrap();
            let count = client.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..count], data, "another's, or a part");
        }
    }
    // One panic and five others each; the socket's queue holds them all.
    server.until("all are counted", |stats| stats.total.datagrams_in == 8 * 6);
    server.until("the answers, too", |stats| stats.total.datagrams_out == 8 * 5);
    server.stop_and_check();
}

fn datagrams_are_refused_per_client_models(config: Config) {
    let server = Server::with_options(Echo, config.options()).unwrap();
    expect_error(server.listen("udp:127.0.0.1:0"), libc::ENOTSUP);
}

/// Answers with the address that was asked.
struct Where;

impl Handler for Where {
    type State = ();

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
        Ok(())
    }

    fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}

    fn on_datagram(&self, datagram: &mut Datagram<'_>, _: &[u8]) {
        let local = datagram.local().to_string();
        datagram.reply(local.as_bytes()).expect("there is room for an answer");
    }
}

fn replies_come_from_the_address_that_was_asked(config: Config) {
    for (bound, asked) in [
        ("udp:0.0.0.0:0", &["127.0.0.1", "127.0.0.2"][..]),
        ("udp:[::]:0", &["127.0.0.1", "127.0.0.2", "[::1]"]),
        ("udp:*:0", &["127.0.0.2", "[::1]"]),
        ("udp:127.0.0.2:0", &["127.0.0.2"]),
        ("udp:[::1]:0", &["[::1]"]),
    ] {
        let server = serve_with(&[bound], config.options(), |_| Where, |_| {});
        for ip in asked {
            let (client, server) = client_of(&server, ip);
            assert_eq!(ask(&client, "where?"), server, "bound to {bound}");
        }
        server.stop_and_check();
    }
}

/// A client of the port that a server has on one of the machine's addresses, and that address. It
/// receives nothing from anywhere else.
fn client_of(server: &RunningServer, ip: &str) -> (UdpSocket, String) {
    let port = server.addresses()[0].rsplit_once(':').expect("a port").1;
    let address = format!("{ip}:{port}");
    let client = UdpSocket::bind(if ip.starts_with('[') { "[::1]:0" } else { "127.0.0.1:0" }).unwrap();
    client.connect(&address).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    (client, address)
}

fn ask(client: &UdpSocket, question: &str) -> String {
    client.send(question.as_bytes()).unwrap();
    answer(client)
}

fn answer(client: &UdpSocket) -> String {
    let mut answer = [0; 100];
    let length = client.recv(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

type OnDatagram = fn(&Scripted, &mut Datagram<'_>, &[u8]);

/// Does what a test says, and remembers what it is given to.
struct Scripted {
    on_datagram: OnDatagram,
    server: Arc<OnceLock<ServerHandle>>,
    /// The socket and the client to report to.
    reports: Mutex<Option<(DatagramId, Address)>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

fn serve_scripted(addresses: &[&str], config: Config, on_datagram: OnDatagram) -> RunningServer {
    let server = Arc::new(OnceLock::new());
    let (reports, threads) = (Mutex::default(), Mutex::default());
    let scripted = Scripted { on_datagram, server: server.clone(), reports, threads };
    // Any of several workers would get what comes to their one socket.
    let options = config.options().workers(1);
    serve_with(addresses, options, |_| scripted, |handle| drop(server.set(handle.clone())))
}

impl Scripted {
    /// The server's socket that is connected, or the other one.
    fn socket(&self, is_connected: bool) -> DatagramId {
        let sockets = self.server.get().expect("it was prepared").datagram_sockets();
        assert_eq!(sockets.len(), 2);
        let is_it = |socket: &DatagramId| socket.peer().unwrap().is_some() == is_connected;
        sockets.into_iter().find(is_it).expect("there is one")
    }

    fn spawn(&self, run: impl FnOnce() + Send + 'static) {
        self.threads.lock().unwrap().push(thread::spawn(run));
    }

    fn join(&self) {
        self.threads.lock().unwrap().drain(..).for_each(|thread| thread.join().unwrap());
    }
}

impl Handler for Scripted {
    type State = ();

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
        Ok(())
    }

    fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}

    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        (self.on_datagram)(self, datagram, data);
    }

    fn on_datagram_error(&self, socket: DatagramId, error: io::Error) {
        assert_eq!(socket, self.socket(true));
        let (socket, client) = self.reports.lock().unwrap().clone().expect("a client has asked");
        let report = format!("refused {}", error.raw_os_error().unwrap());
        socket.send_to(&client, report.as_bytes()).unwrap();
    }

    fn on_worker_end(&self, _: &mut LoopRef<'_>) {
        self.join();
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.join();
    }
}

fn other_threads_send_at_any_time(config: Config) {
    for (bound, asked) in
        [("udp:*:0", &["127.0.0.1", "127.0.0.2", "[::1]"][..]), ("udp:127.0.0.2:0", &["127.0.0.2"])]
    {
        let mut server = serve_scripted(&[bound], config, |scripted, datagram, data| {
            let (socket, local, peer) = (datagram.socket(), datagram.local(), datagram.peer().clone());
            assert_eq!(scripted.server.get().unwrap().datagram_sockets(), [socket]);
            assert_eq!(DatagramId::from_number(socket.number()), socket);
            assert_eq!(
                socket.local().unwrap().as_socket_addr().unwrap().port(),
                local.as_socket_addr().unwrap().port()
            );
            // In the callback, and long after it.
            socket.send_from(&local, &peer, b"at once").unwrap();
            let data = data.to_vec();
            scripted.spawn(move || {
                (0..3).for_each(|_| socket.send_from(&local, &peer, &data).unwrap());
            });
        });
        for ip in asked {
            let (client, _) = client_of(&server, ip);
            assert_eq!(ask(&client, "later"), "at once");
            (0..3).for_each(|_| assert_eq!(answer(&client), "later"));
        }
        let sent = 4 * asked.len() as u64;
        server.until("all are counted", |stats| stats.total.datagrams_out == sent);
        server.stop_and_check();
    }
}

fn what_cannot_be_sent_is_an_error_at_once(config: Config) {
    let server = serve_scripted(&["udp:127.0.0.1:0"], config, |_, datagram, _| {
        let (socket, peer) = (datagram.socket(), datagram.peer().clone());
        // More than a datagram of any system, and than one of this system.
        expect_error(socket.send_to(&peer, &[0; 65_508]), libc::EMSGSIZE);
        expect_error(socket.send(b"x"), libc::EDESTADDRREQ);
        expect_error(socket.send_to(&Address::Unnamed, b"x"), libc::EAFNOSUPPORT);
        // EACCES without SO_BROADCAST.
        let everybody = SocketAddr::from(([255, 255, 255, 255], 9));
        expect_error(socket.send_to(&everybody.into(), b"x"), libc::EACCES);
        expect_error(DatagramId::from_number(socket.number() ^ 1 << 63).send_to(&peer, b"x"), libc::ESTALE);
        assert_eq!(socket.peer().unwrap(), None);
        socket.send_to(&peer, b"all refused").unwrap();
    });
    let (client, _) = client_of(&server, "127.0.0.1");
    assert_eq!(ask(&client, "?"), "all refused");
    let outcome = server.stop_and_check();
    let total = &outcome.stats.total;
    assert_eq!((total.datagrams_out, total.datagrams_dropped), (1, 0));
}

fn a_connected_socket_receives_sends_and_is_told_of_refusals(config: Config) {
    // The server's process, which inherits what is open, must not have it; nothing else is bound there.
    let upstream = UdpSocket::bind("127.0.0.77:0").unwrap().local_addr().unwrap();
    let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
    connected.connect(upstream).unwrap();
    let inherited = format!("fd:{}", connected.as_raw_fd());
    // Passes questions on to where the connected socket leads, and answers back.
    let server = serve_scripted(&["udp:127.0.0.1:0", &inherited], config, |scripted, datagram, data| {
        if datagram.socket() == scripted.socket(true) {
            let (socket, client) = scripted.reports.lock().unwrap().clone().expect("a question");
            datagram.reply(b"thanks").unwrap();
            return socket.send_to(&client, data).unwrap();
        }
        *scripted.reports.lock().unwrap() = Some((datagram.socket(), datagram.peer().clone()));
        let (connected, data) = (scripted.socket(true), data.to_vec());
        scripted.spawn(move || connected.send(&data).unwrap());
    });
    let upstream = UdpSocket::bind(upstream).unwrap();
    upstream.set_read_timeout(Some(LONG)).unwrap();
    let (client, _) = client_of(&server, "127.0.0.1");
    client.send(b"question").unwrap();
    assert_eq!(answer(&upstream), "question");
    upstream.send_to(b"answer", connected.local_addr().unwrap()).unwrap();
    assert_eq!(answer(&client), "answer");
    assert_eq!(answer(&upstream), "thanks");

    drop(upstream);
    assert_eq!(ask(&client, "question"), format!("refused {}", libc::ECONNREFUSED));
    drop(connected);
    server.stop_and_check();
}

fn a_closed_socket_is_stale(config: Config) {
    let server = serve_scripted(&["udp:127.0.0.1:0"], config, |scripted, datagram, _| {
        let (socket, peer) = (datagram.socket(), datagram.peer().clone());
        assert!(socket.is_open());
        socket.send_to(&peer, b"the last").unwrap();
        socket.close().unwrap();
        assert!(!socket.is_open());
        assert_eq!(scripted.server.get().unwrap().datagram_sockets(), []);
        expect_error(socket.send_to(&peer, b"x"), libc::ESTALE);
        expect_error(socket.local(), libc::ESTALE);
        expect_error(socket.close(), libc::ESTALE);
        // From the callback of a datagram that it has received.
        datagram.reply(b"the very last").unwrap();
    });
    let (client, _) = client_of(&server, "127.0.0.1");
    assert_eq!(ask(&client, "?"), "the last");
    assert_eq!(answer(&client), "the very last");
    server.stop_and_check();
}

fn other_threads_send_until_the_server_stops(config: Config) {
    let server = serve_scripted(&["udp:127.0.0.1:0"], config, |scripted, datagram, _| {
        let (socket, peer) = (datagram.socket(), datagram.peer().clone());
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client_address = peer.as_socket_addr().unwrap();
        datagram.reply(b"begins").unwrap();
        scripted.spawn(move || {
            let error = loop {
                // To nobody: the client's queue has room for what is sent to it.
                if let Err(error) = socket.send_to(&client.local_addr().unwrap().into(), b"x") {
                    break error;
                }
            };
            assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
            client.send_to(b"stale", client_address).unwrap();
        });
    });
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client.send_to(b"go", server.addresses()[0].trim_start_matches("udp:")).unwrap();
    assert_eq!(answer(&client), "begins");
    server.stop_and_check();
    assert_eq!(answer(&client), "stale");
}
