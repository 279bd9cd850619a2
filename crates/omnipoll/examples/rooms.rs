//! A chat with rooms and heartbeats, on an event loop. What a client says goes to all in its room;
//! `/join ROOM` changes the room. Try it with several `nc 127.0.0.1 7000`.
//!
//! Shows groups, of whose members one that does not read holds up nobody; frames, by which `on_data` gets one
//! line in each call; a timer for each connection, by which a client that was silent for so long is asked
//! whether it is there, and ended when it does not answer in time; signals as events of the loop, and a stop
//! that lets every client end.
//!
//! ```text
//! cargo run --example rooms -- [--engine select|poll|epoll|io_uring] [--address 127.0.0.1:7000]
//!     [--heartbeat SECONDS]
//! ```

use std::cell::OnceCell;
use std::io;
use std::time::Duration;

use omnipoll::{Conn, EngineKind, Event, EventLoop, Frame, Handler, LoopHandle, LoopOptions, LoopRef};

const LONGEST_LINE: usize = 1000;
const LONGEST_NAME: usize = 255;
const DRAIN: Duration = Duration::from_secs(1);

struct Rooms {
    heartbeat: Duration,
    /// Set before the loop runs.
    event_loop: OnceCell<LoopHandle>,
}

struct Client {
    name: String,
    room: String,
    /// Whether it is there, and has not answered.
    is_asked: bool,
}

impl Rooms {
    /// Has all in the client's room read a line. One that has too much unread already does not get it.
    fn tell_room(&self, client: &Client, words: &str) -> io::Result<()> {
        if let Some(event_loop) = self.event_loop.get() {
            let line = format!("{}{words}\n", client.name);
            event_loop.broadcast_to(&client.room, line.as_bytes(), None)?;
        }
        Ok(())
    }

    fn enter(&self, conn: &mut Conn<'_>, client: &mut Client, room: &str) -> io::Result<()> {
        room.clone_into(&mut client.room);
        conn.join(room)?;
        self.tell_room(client, " has come")
    }

    fn said(&self, conn: &mut Conn<'_>, client: &mut Client, line: &str) -> io::Result<()> {
        client.is_asked = false;
        conn.set_timer(Some(self.heartbeat))?;
        match line.strip_prefix("/join ") {
            Some(room) if (1..=LONGEST_NAME).contains(&room.len()) => {
                conn.leave(&client.room)?;
                self.tell_room(client, " has left")?;
                self.enter(conn, client, room)
            }
            _ => self.tell_room(client, &format!(": {line}")),
        }
    }

    /// It has been silent for so long.
    fn ask(&self, conn: &mut Conn<'_>, client: &mut Client) -> io::Result<()> {
        if client.is_asked {
            conn.write(b"goodbye\n")?;
            conn.close();
            return Ok(());
        }
        client.is_asked = true;
        conn.write(b"are you there?\n")?;
        conn.set_timer(Some(self.heartbeat))
    }
}

impl Handler for Rooms {
    type State = Client;

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<Client> {
        let mut client = Client { name: conn.peer().to_string(), room: String::new(), is_asked: false };
        conn.set_frame(Frame::Until { delimiter: b"\n", max: LONGEST_LINE })?;
        conn.set_timer(Some(self.heartbeat))?;
        self.enter(conn, &mut client, "lobby")?;
        Ok(client)
    }

    fn on_data(&self, conn: &mut Conn<'_>, client: &mut Client, data: &[u8]) {
        let text = String::from_utf8_lossy(data);
        if self.said(conn, client, text.trim_end_matches(['\n', '\r'])).is_err() {
            conn.abort();
        }
    }

    fn on_timer(&self, conn: &mut Conn<'_>, client: &mut Client) {
        if self.ask(conn, client).is_err() {
            conn.abort();
        }
    }

    fn on_stop(&self, conn: &mut Conn<'_>, _: &mut Client) {
        conn.close();
    }

    fn on_close(&self, _: &mut Conn<'_>, client: Client, _: Option<io::Error>) {
        // Without memory for it nothing is sent.
        let _ = self.tell_room(&client, " has left");
    }

    /// SIGINT or SIGTERM.
    fn on_event(&self, event_loop: &mut LoopRef<'_>, _: &Event) {
        // It fails in a forked child alone, of which there is none.
        let _ = event_loop.stop(Some(DRAIN));
    }
}

fn wrong(words: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, words.to_owned())
}

fn main() -> io::Result<()> {
    let (mut options, mut address) = (LoopOptions::new(), "127.0.0.1:0".to_owned());
    let mut heartbeat = Duration::from_secs(60);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| wrong("an option has no value"))?;
        match name.as_str() {
            "--engine" => {
                options = options.engine(EngineKind::from_name(&value).ok_or_else(|| wrong("no engine"))?);
            }
            "--address" => address = value,
            "--heartbeat" => {
                let seconds = value.parse().map_err(|_| wrong("no number of seconds"))?;
                heartbeat = Duration::try_from_secs_f64(seconds).map_err(|_| wrong("no time"))?;
            }
            _ => return Err(wrong("usage: rooms [--engine NAME] [--address ADDRESS] [--heartbeat SECONDS]")),
        }
    }
    let rooms = Rooms { heartbeat, event_loop: OnceCell::new() };
    let mut event_loop = EventLoop::with_options(rooms, options)?;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        event_loop.poller().signal_add(signal, signal as u64)?;
    }
    event_loop.handler().event_loop.get_or_init(|| event_loop.handle());
    println!("listening on {}", event_loop.listen(&address, 0)?);
    event_loop.run()
}
