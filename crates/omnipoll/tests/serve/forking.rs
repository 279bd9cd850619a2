//! A handler that forks in each of its calls. What it has forked ends, becomes another program or
//! makes a server of its own; the server goes on.

use std::io::{self, Write};
use std::net::{TcpStream, UdpSocket};
use std::panic::catch_unwind;
use std::time::Duration;

use omnipoll::{Conn, Datagram, Handler, Model, Server};

use crate::client::{end, exchange, expect_end, keep_small, read, read_to_end, small};
use crate::log::{Note, Pen, What};
use crate::process::kill;
use crate::served::{patient, serve_with, Outcome, Served};
use crate::suite::Suite;
use crate::support::engines;
use crate::support::expect::LONG;
use crate::support::sys::{self, ForkCall};
use crate::way::Way;

/// A call of the handler's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Worker,
    Open,
    Data,
    Drain,
    End,
    Close,
    Post,
    Stop,
    Datagram,
}

const CALLS: [Call; 9] = [
    Call::Worker,
    Call::Open,
    Call::Data,
    Call::Drain,
    Call::End,
    Call::Close,
    Call::Post,
    Call::Stop,
    Call::Datagram,
];

impl Call {
    /// Whether a handler is called so under this model.
    fn is_made(self, model: Model) -> bool {
        match self {
            Self::Worker => model != Model::Reactor,
            Self::Datagram => !matches!(model, Model::Thread | Model::Fork),
            _ => true,
        }
    }
}

/// What becomes of the process that was forked.
#[derive(Clone, Copy, Debug)]
enum Life {
    EndsAtOnce,
    Executes,
    Serves,
}

const LIVES: [Life; 3] = [Life::EndsAtOnce, Life::Executes, Life::Serves];

pub(crate) fn behaviours(suite: &mut Suite) {
    for model in Model::ALL {
        for engine in engines() {
            for call in CALLS.into_iter().filter(|call| call.is_made(model)) {
                let name = format!("forking::in_on_{call:?} [{}, {}]", model.name(), engine.name());
                suite.add(name.to_lowercase(), move || each_life(Way { model, engine }, call));
            }
        }
    }
}

/// The calls after which a child may do all this: but for `fork(2)` the memory of a process may
/// be unusable whose other threads allocate.
fn fork_calls(model: Model, at: Call) -> impl Iterator<Item = ForkCall> {
    let is_alone = !matches!(model, Model::Cores | Model::Thread) && at != Call::Stop;
    sys::fork_calls().filter(move |&call| call == ForkCall::Fork || is_alone)
}

fn each_life(way: Way, at: Call) {
    for (call, life) in fork_calls(way.model, at).flat_map(|call| LIVES.map(|life| (call, life))) {
        let addresses: &[&str] =
            if at == Call::Datagram { &["127.0.0.1:0", "udp:127.0.0.1:0"] } else { &["127.0.0.1:0"] };
        let options = way.options().signals(true).water_marks(10_000, 100_000);
        let served = serve_with(addresses, options, |pen| Forker { way, at, call, life, pen }, |_| {});
        let client = small(served.address());
        exchange(&client, b"hello");
        provoke(at, &served, &client);
        if at != Call::Stop {
            expect_ended_well(&served, life);
        }
        if !matches!(at, Call::End | Call::Close) {
            exchange(&client, b"still served");
        }
        let other = served.client();
        exchange(&other, b"hello");
        served.stop(None);
        if at == Call::Stop {
            expect_end(&client);
            expect_end(&other);
        }
        drop((client, other));
        let Outcome { errno, log, .. } = served.ends();
        assert_eq!(errno, 0, "run has failed");
        let statuses: Vec<_> =
            log.all().iter().filter(|it| it.what == What::Said).map(|it| it.value).collect();
        assert!(
            !statuses.is_empty() && statuses.iter().all(|&it| it == 0),
            "{call:?}, {life:?}: {statuses:?}"
        );
    }
}

/// Has the server make that call.
fn provoke(call: Call, served: &Served, mut client: &TcpStream) {
    match call {
        Call::Worker | Call::Open | Call::Data | Call::Stop => {}
        Call::Drain => {
            client.write_all(b"fill").unwrap();
            read(client, FILL);
        }
        Call::Post => {
            client.write_all(b"post").unwrap();
            assert_eq!(read(client, 6), b"posted");
        }
        Call::End | Call::Close => {
            end(client);
            expect_end(client);
        }
        Call::Datagram => {
            let address = served.addresses()[1].strip_prefix("udp:").expect("how it is written");
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(LONG)).unwrap();
            socket.connect(address).unwrap();
            socket.send(b"hello").unwrap();
            assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 5);
        }
    }
}

#[track_caller]
fn expect_ended_well(served: &Served, life: Life) {
    let status = served.log.wait_for("how the child has ended", |entries| {
        entries.iter().find(|entry| entry.what == What::Said).map(|entry| entry.value)
    });
    assert_eq!(status, 0, "how the child has ended that {life:?}");
}

const FILL: usize = 500_000;

/// Sends back what it is sent, and forks in one of its calls.
struct Forker {
    way: Way,
    at: Call,
    call: ForkCall,
    life: Life,
    pen: Pen,
}

impl Forker {
    /// Forks if this is the call to do so, and says how the child has ended.
    fn called(&self, call: Call) {
        if call == self.at {
            let child = match sys::fork_by(self.call) {
                0 => self.live(),
                child => child,
            };
            Note::of_nobody(&self.pen).say(sys::wait_for(child));
        }
    }

    fn live(&self) -> ! {
        sys::end_after_seconds(20);
        // It must not unwind into its parent's server.
        let lived = catch_unwind(|| match self.life {
            Life::EndsAtOnce => {}
            Life::Executes => sys::execute("sh", &["-c", sys::NOTHING_ELSE_IS_OPEN]),
            Life::Serves => serve_one_client(self.way),
        });
        sys::exit_at_once(i32::from(lived.is_err()))
    }
}

impl Handler for Forker {
    type State = ();

    fn on_worker(&self, serve: &mut dyn FnMut()) {
        self.called(Call::Worker);
        serve();
    }

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
        self.called(Call::Open);
        Ok(())
    }

    fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) {
        self.called(Call::Data);
        match data {
            b"fill" => {
                keep_small(conn);
                conn.write(&[0; FILL]).map(drop)
            }
            b"post" => conn.id().post(1),
            data => conn.write(data).map(drop),
        }
        .expect("there is room");
    }

    fn on_drain(&self, _: &mut Conn<'_>, _: &mut ()) {
        self.called(Call::Drain);
    }

    fn on_end(&self, conn: &mut Conn<'_>, _: &mut ()) {
        self.called(Call::End);
        conn.close();
    }

    fn on_close(&self, _: &mut Conn<'_>, _: (), _: Option<io::Error>) {
        self.called(Call::Close);
    }

    fn on_post(&self, conn: &mut Conn<'_>, _: &mut (), _: i64) {
        self.called(Call::Post);
        conn.write(b"posted").expect("there is room");
    }

    fn on_stop(&self, conn: &mut Conn<'_>, _: &mut ()) {
        self.called(Call::Stop);
        conn.close();
    }

    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        self.called(Call::Datagram);
        datagram.reply(data).expect("there is room");
    }
}

/// Sends back what it is sent, and stops the server when a client has gone.
struct Once {
    server: i32,
}

impl Handler for Once {
    type State = ();

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
        Ok(())
    }

    fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) {
        conn.write(data).expect("there is room");
    }

    fn on_close(&self, _: &mut Conn<'_>, _: (), _: Option<io::Error>) {
        kill(self.server, libc::SIGTERM);
    }
}

/// A server's whole life, without a thread for the client.
fn serve_one_client(way: Way) {
    let options = way.options().workers(1).signals(true).drain(Some(Duration::from_secs(5)));
    let server = Server::with_options(Once { server: std::process::id() as i32 }, options).expect("a server");
    let address = server.listen("127.0.0.1:0").expect("listen");
    let mut client = patient(TcpStream::connect(address).expect("connect"));
    client.write_all(b"hello").expect("write");
    end(&client);
    server.run().expect("run");
    assert_eq!(read_to_end(&client), b"hello");
}
