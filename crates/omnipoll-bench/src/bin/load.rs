//! Drives an echo server and measures it: what the server's process spends on a message, how many
//! go through in a second, and how long one takes.
//!
//! `load --port PORT [--pid PID] --clients N --bytes B --seconds S [--core CORE] [--reconnect true]`
//!
//! Each of the clients sends a message, waits until it has come back whole, compares it with what
//! it sent, and sends the next: with `--reconnect true` over a connection of its own. One process, one thread, edge-triggered epoll. Prints one line of
//! JSON; fails when a byte is wrong or missing, or when nothing comes for ten seconds.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use omnipoll_bench::histogram::Histogram;
use omnipoll_bench::machine::{self, ProcessClock};
use omnipoll_bench::random::Random;

/// Clients that are opened before the last of them has to be served: fewer than any backlog.
const BACKLOG: usize = 100;
const PATIENCE_MS: libc::c_int = 10_000;
/// Goes before what is measured: caches, connections, the server's own buffers.
const WARM_UP: f64 = 0.2;

type Failure = Box<dyn std::error::Error>;

struct Options {
    port: u16,
    pid: Option<libc::pid_t>,
    clients: usize,
    bytes: usize,
    seconds: f64,
    core: Option<usize>,
    reconnect: bool,
}

impl Options {
    fn parse() -> Result<Self, Failure> {
        let mut options =
            Self { port: 0, pid: None, clients: 1, bytes: 64, seconds: 1.0, core: None, reconnect: false };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or("an option without a value")?;
            match name.as_str() {
                "--port" => options.port = value.parse()?,
                "--pid" => options.pid = Some(value.parse()?),
                "--clients" => options.clients = value.parse()?,
                "--bytes" => options.bytes = value.parse()?,
                "--seconds" => options.seconds = value.parse()?,
                "--core" => options.core = Some(value.parse()?),
                "--reconnect" => options.reconnect = value.parse()?,
                _ => return Err(format!("no such option: {name}").into()),
            }
        }
        Ok(options)
    }
}

/// One client and its message in progress.
struct Client {
    stream: TcpStream,
    /// Where in the text its message begins: another place each time.
    place: usize,
    sent: usize,
    received: usize,
    begun: Instant,
}

struct Load {
    port: u16,
    /// Whether each message has a connection of its own.
    reconnect: bool,
    clients: Vec<Client>,
    set: libc::c_int,
    bytes: usize,
    /// Random bytes, twice as long as a message.
    text: Vec<u8>,
    buffer: Vec<u8>,
    under_way: usize,
    /// Messages that have come back, also before what is measured.
    all: u64,
    latencies: Histogram,
}

impl Load {
    fn new(options: &Options) -> Result<Self, Failure> {
        // SAFETY: takes no pointer.
        let set = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        let mut random = Random::new();
        let mut load = Self {
            port: options.port,
            reconnect: options.reconnect,
            clients: Vec::with_capacity(options.clients),
            set,
            bytes: options.bytes,
            text: (0..2 * options.bytes).map(|_| random.next() as u8).collect(),
            buffer: vec![0; options.bytes + 1],
            under_way: 0,
            all: 0,
            latencies: Histogram::default(),
        };
        while load.clients.len() < options.clients {
            load.add_client()?;
            if load.clients.len() % BACKLOG == 0 {
                load.exchange(load.clients.len() - 1..load.clients.len(), Instant::now())?;
            }
        }
        Ok(load)
    }

    fn add_client(&mut self) -> Result<(), Failure> {
        let (index, bytes) = (self.clients.len(), self.bytes);
        let stream = self.connect(index)?;
        let place = index * 31 % bytes;
        self.clients.push(Client { stream, place, sent: bytes, received: bytes, begun: Instant::now() });
        Ok(())
    }

    /// A connection for the client of that number.
    fn connect(&self, index: usize) -> Result<TcpStream, Failure> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        machine::reset_on_close(&stream);
        let edge = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET;
        let mut event = libc::epoll_event { events: edge as u32, u64: index as u64 };
        // SAFETY: the event lives through the call.
        let result =
            unsafe { libc::epoll_ctl(self.set, libc::EPOLL_CTL_ADD, stream.as_raw_fd(), &mut event) };
        match result {
            0 => Ok(stream),
            _ => Err(std::io::Error::last_os_error().into()),
        }
    }

    /// Lets these clients send messages until then, each at least one, and ends when every message
    /// has come back. Returns how many there were.
    fn exchange(&mut self, clients: std::ops::Range<usize>, until: Instant) -> Result<u64, Failure> {
        let mut count = 0;
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 1024];
        clients.into_iter().try_for_each(|index| self.begin(index, Instant::now()))?;
        while self.under_way > 0 {
            // SAFETY: there is room for as many events as it is passed.
            let ready = unsafe { libc::epoll_wait(self.set, events.as_mut_ptr(), 1024, PATIENCE_MS) };
            if ready == 0 {
                return Err(format!("{} messages did not come back", self.under_way).into());
            }
            for event in &events[..usize::try_from(ready)?] {
                let index = event.u64 as usize;
                if self.go_on(index)? {
                    count += 1;
                    let now = Instant::now();
                    self.latencies.add((now - self.clients[index].begun).as_nanos() as u64);
                    if now < until {
                        if self.reconnect {
                            self.clients[index].stream = self.connect(index)?;
                        }
                        self.begin(index, now)?;
                    }
                }
            }
        }
        self.all += count;
        Ok(count)
    }

    fn begin(&mut self, index: usize, now: Instant) -> Result<(), Failure> {
        let client = &mut self.clients[index];
        client.place = (client.place + 17) % self.bytes;
        (client.sent, client.received, client.begun) = (0, 0, now);
        self.under_way += 1;
        self.send(index)
    }

    fn send(&mut self, index: usize) -> Result<(), Failure> {
        let client = &mut self.clients[index];
        while client.sent < self.bytes {
            let rest = &self.text[client.place + client.sent..client.place + self.bytes];
            match client.stream.write(rest) {
                Ok(length) => client.sent += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Sends and receives what is possible; whether that ended the message.
    fn go_on(&mut self, index: usize) -> Result<bool, Failure> {
        self.send(index)?;
        let client = &mut self.clients[index];
        while client.received < self.bytes {
            let length = match client.stream.read(&mut self.buffer) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            let place = client.place + client.received;
            client.received += length;
            if client.received > client.sent || self.text[place..place + length] != self.buffer[..length] {
                return Err("what came back is not what was sent".into());
            }
            if client.received == self.bytes {
                self.under_way -= 1;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn run() -> Result<(), Failure> {
    let options = Options::parse()?;
    if let Some(core) = options.core {
        machine::stay_on(core);
    }
    machine::raise_descriptor_limit(options.clients as u64 + 100);
    let clock = options.pid.map(ProcessClock::of).transpose()?;
    let spent = || {
        // The server is asleep by then, so that the kernel has accounted for all it did.
        std::thread::sleep(Duration::from_millis(3));
        clock.as_ref().map_or(0, ProcessClock::nanoseconds)
    };

    let mut load = Load::new(&options)?;
    let everyone = 0..options.clients;
    load.exchange(everyone.clone(), Instant::now() + Duration::from_secs_f64(WARM_UP.min(options.seconds)))?;
    load.latencies = Histogram::default();
    let before = spent();
    let begin = Instant::now();
    let messages = load.exchange(everyone, begin + Duration::from_secs_f64(options.seconds))?;
    let seconds = begin.elapsed().as_secs_f64();
    let cpu = (spent() - before) as f64 / messages as f64;
    let [p50, p99] = [0.5, 0.99].map(|part| load.latencies.quantile(part));
    println!(
        "{{\"messages\": {messages}, \"all\": {}, \"cpu_ns\": {cpu:.1}, \"per_second\": {:.1}, \"p50_ns\": {p50}, \"p99_ns\": {p99}}}",
        load.all,
        messages as f64 / seconds
    );
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("load: {failure}");
            ExitCode::FAILURE
        }
    }
}
