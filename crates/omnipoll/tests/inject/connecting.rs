//! A loop that connects out, while its calls fail: each connect opens or says why it does not, one fault costs
//! no more than one of them, and those that open carry bytes.

use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use omnipoll::{
    explain, ConnId, ConnectOptions, EngineKind, LoopEvent, LoopEventKind, LoopOptions, PulledLoop,
};

use crate::client::PATIENCE;
use crate::isolated::walk;
use crate::plan::Plan;
use crate::process::until;
use crate::selection::{Asked, Tally};

/// How often a wait may fail by one fault.
const MAX_FAILED_WAITS: usize = 10;

pub(crate) fn faults(engine: EngineKind, asked: &Asked, tally: &mut Tally) {
    walk(asked, tally, |plan| {
        let peers = plan.without_faults(Peers::new);
        let threads = plan.without_faults(threads);
        let connected = connect(plan, engine, &peers);
        // A look-up that nobody waits for any more has descriptors open until it ends, with its thread.
        if !plan.without_faults(|| until(|| self::threads() <= threads)) {
            return Err(String::from("threads were left behind"));
        }
        match connected {
            // Not even the loop could be made.
            Err(error) if explain(&error).is_empty() => Err(String::from("an error without words")),
            Err(error) if plan.injected() == 0 => Err(explain(&error)),
            Err(_) => Ok(()),
            Ok(outgoing) => outgoing.and_then(|opened| peers.were_met(plan, opened)),
        }
    });
}

/// How many threads this process has.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Whom the loop connects to.
struct Peers {
    listener: TcpListener,
    unix: UnixListener,
    pair: (UnixStream, UnixStream),
}

impl Peers {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let name =
            format!("unix-{}-{}", std::process::id(), listener.local_addr().expect("its address").port());
        let address = SocketAddr::from_abstract_name(name).expect("a name");
        let unix = UnixListener::bind_addr(&address).expect("a listener");
        Self { listener, unix, pair: UnixStream::pair().expect("a pair") }
    }

    fn addresses(&self) -> Vec<String> {
        let address = self.listener.local_addr().expect("its address");
        let unix = self.unix.local_addr().expect("its address");
        let name = unix.as_abstract_name().expect("a name");
        vec![
            address.to_string(),
            format!("localhost:{}", address.port()),
            format!("unix:@{}", String::from_utf8_lossy(name)),
            format!("fd:{}", self.pair.0.as_raw_fd()),
        ]
    }

    /// Whether as many as that have sent their word. Others may have come and gone.
    fn were_met(&self, plan: &Plan, opened: usize) -> Result<(), String> {
        plan.without_faults(|| {
            let mut words = 0;
            self.listener.set_nonblocking(true).expect("O_NONBLOCK");
            self.unix.set_nonblocking(true).expect("O_NONBLOCK");
            while let Ok((stream, _)) = self.listener.accept() {
                words += usize::from(word_of(stream)?);
            }
            while let Ok((stream, _)) = self.unix.accept() {
                words += usize::from(word_of(stream)?);
            }
            // The test has the other end too, which no end of the loop's ends.
            (&self.pair.1).set_nonblocking(true).expect("O_NONBLOCK");
            words += usize::from((&self.pair.1).read(&mut [0; 5]).is_ok_and(|length| length == 5));
            if words < opened {
                return Err(format!("{opened} were open, and {words} have sent something"));
            }
            Ok(())
        })
    }
}

fn word_of(mut stream: impl Read + AsRawFd) -> Result<bool, String> {
    let mut word = Vec::new();
    // A closed ring releases its files a little later.
    let read = stream.read_to_end(&mut word);
    match word.as_slice() {
        b"hello" => Ok(true),
        // Given up, or reset.
        b"" => Ok(false),
        other => Err(format!("{other:?} has come, {read:?}")),
    }
}

/// Connects to each of them, and says hello: how many have opened, or what was wrong with it.
fn connect(plan: &Plan, engine: EngineKind, peers: &Peers) -> io::Result<Result<usize, String>> {
    let addresses = plan.without_faults(|| peers.addresses());
    let mut event_loop = PulledLoop::with_options(LoopOptions::new().engine(engine).linger(Duration::ZERO))?;
    let options = ConnectOptions::new().timeout(PATIENCE / 2).keep_alive(Duration::from_secs(60));
    let bound = options.clone().local_address("127.0.0.1");
    let (mut waiting, mut opened, mut failed) = (Vec::<ConnId>::new(), 0, 0);
    for (address, options) in
        addresses.iter().map(|address| (address, &options)).chain([(&addresses[0], &bound)])
    {
        match event_loop.connect(address, options, 0) {
            Ok(id) => waiting.push(id),
            Err(error) if explain(&error).is_empty() => {
                return Ok(Err(String::from("an error without words")))
            }
            Err(_) => failed += 1,
        }
    }
    let (end, mut failed_waits) = (Instant::now() + PATIENCE, 0);
    while !waiting.is_empty() {
        if Instant::now() > end || failed_waits > MAX_FAILED_WAITS {
            return Ok(Err(format!("{failed_waits} waits have failed, and nothing has come of {waiting:?}")));
        }
        let mut events = [LoopEvent::default(); 16];
        // The loop can go on after it.
        let Ok(count) = event_loop.wait(&mut events, Some(PATIENCE)) else {
            failed_waits += 1;
            continue;
        };
        for event in &events[..count] {
            match event.kind() {
                LoopEventKind::Connected => {
                    let mut conn = event_loop.conn(event.conn())?;
                    conn.write(b"hello")?;
                    conn.close();
                }
                LoopEventKind::Closed => {
                    waiting.retain(|&id| id != event.conn());
                    match event.error() {
                        None => opened += 1,
                        Some(_) if event_loop.data(event).is_empty() => {
                            return Ok(Err(String::from("an error without words")));
                        }
                        Some(_) => failed += 1,
                    }
                }
                _ => {}
            }
        }
    }
    Ok(match failed {
        0 => Ok(opened),
        1 if plan.injected() > 0 => Ok(opened),
        failed => Err(format!("{failed} connects have failed, and {} calls", plan.injected())),
    })
}
