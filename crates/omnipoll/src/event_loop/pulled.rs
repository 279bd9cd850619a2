//! [`PulledLoop`]: a loop that returns what happens, and calls nothing.

use std::cell::{Ref, RefCell};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connections::READ;
use super::handler::Handler;
use super::loop_event::{LoopEvent, LoopEventKind};
use super::loop_handle::LoopHandle;
use super::options::LoopOptions;
use super::run::{left, EventLoop};
use crate::error::{explain, fail, plain};
use crate::net::{
    Conn, ConnId, ConnectOptions, Datagram, DatagramId, FailedConnect, LoopRef, Pipes, Spawned,
};
use crate::sys::Address;
use crate::{EngineKind, Event, Poller};

/// The bytes of the events of one wait: a few reads of the longest kind.
const BUFFER: usize = 4 * READ;

/// An [`EventLoop`] that is pulled: [`wait`](Self::wait) returns what happens as an array of events, of
/// connections and of the program's own, and nothing is called. For languages whose callbacks are
/// expensive, for embedding in another loop, for tests.
///
/// The bytes that have arrived lie in one buffer until the next wait. When it is full the rest stays
/// unread until then.
///
/// # Portability
///
/// Every method is the same on every system and engine.
///
/// ```
/// use omnipoll::{LoopEvent, LoopEventKind, PulledLoop};
/// use std::io::{Read, Write};
/// use std::net::{Shutdown, TcpStream};
///
/// let mut event_loop = PulledLoop::new()?;
/// let address = event_loop.listen("127.0.0.1:0", 1)?;
/// let mut client = TcpStream::connect(address)?;
/// client.write_all(b"hello")?;
/// client.shutdown(Shutdown::Write)?;
///
/// let mut events = [LoopEvent::default(); 16];
/// 'echo: loop {
///     let count = event_loop.wait(&mut events, None)?;
///     for event in &events[..count] {
///         match event.kind() {
///             LoopEventKind::Data => {
///                 let data = event_loop.data(event).to_vec();
///                 event_loop.conn(event.conn())?.write(&data)?;
///             }
///             LoopEventKind::Ended => event_loop.conn(event.conn())?.close(),
///             LoopEventKind::Closed => break 'echo,
///             _ => {}
///         }
///     }
/// }
/// let mut answer = String::new();
/// client.read_to_string(&mut answer)?;
/// assert_eq!(answer, "hello");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct PulledLoop {
    event_loop: EventLoop<Pulled>,
}

/// Keeps what it is called with.
#[derive(Debug)]
struct Pulled(RefCell<Kept>);

#[derive(Debug)]
struct Kept {
    events: Vec<LoopEvent>,
    /// How many of them have been returned.
    returned: usize,
    buffer: Box<[u8]>,
    used: usize,
    /// From where to where the datagrams were sent.
    addresses: Vec<(Address, Address)>,
    interruptible: bool,
}

impl PulledLoop {
    /// A loop on the best engine of this machine, or on the one that `OMNIPOLL_ENGINE` names.
    pub fn new() -> io::Result<Self> {
        Self::with_options(LoopOptions::new())
    }

    /// A loop with options. Errors as [`EventLoop::with_options`].
    pub fn with_options(options: LoopOptions) -> io::Result<Self> {
        let (buffer, interruptible) = (vec![0; BUFFER].into(), options.interruptible);
        let kept =
            Kept { events: Vec::new(), returned: 0, buffer, used: 0, addresses: Vec::new(), interruptible };
        let event_loop = EventLoop::with_options(Pulled(RefCell::new(kept)), options)?;
        Ok(Self { event_loop })
    }

    /// Waits until something has happened, for no longer than `timeout`, and returns how many events it
    /// has stored: 0 when the time was up, or the loop was stopped and has no connections any more. What
    /// does not fit is returned by the next call, at once.
    ///
    /// `EINVAL` when there is no room for an event, `EINTR` when a signal has come and the loop is
    /// [interruptible](LoopOptions::interruptible), `EOWNERDEAD` in a forked child; other errors of the
    /// system.
    pub fn wait(&mut self, events: &mut [LoopEvent], timeout: Option<Duration>) -> io::Result<usize> {
        self.wait_for_each(events.len(), timeout, |index, event| events[index] = event)
    }

    /// For the bindings: [`wait`](Self::wait), into memory that needn't be initialised.
    #[doc(hidden)]
    pub fn wait_into(
        &mut self,
        events: &mut [MaybeUninit<LoopEvent>],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        self.wait_for_each(events.len(), timeout, |index, event| {
            events[index].write(event);
        })
    }

    fn wait_for_each(
        &mut self,
        room: usize,
        timeout: Option<Duration>,
        store: impl FnMut(usize, LoopEvent),
    ) -> io::Result<usize> {
        if room == 0 {
            return Err(fail(libc::EINVAL, "there is no room for an event"));
        }
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut limit = timeout;
        while self.is_drained() {
            self.forget();
            if !self.event_loop.turn(limit)? {
                break;
            }
            limit = left(until);
            if limit == Some(Duration::ZERO) {
                break;
            }
        }
        let count = self.take(room, store);
        if self.event_loop.poller().is_embedded() {
            self.arm()?;
        }
        Ok(count)
    }

    /// In an outer loop: leaves nothing to do but what makes the descriptor readable. An error is that of
    /// the next wait: this one has events to return.
    fn arm(&mut self) -> io::Result<()> {
        let is_armed = self.event_loop.arm().is_ok();
        if !is_armed || !self.is_drained() {
            self.event_loop.poller().request_wait()?;
        }
        Ok(())
    }

    fn is_drained(&self) -> bool {
        !self.event_loop.handler().is_pending()
    }

    /// All events have been returned: their bytes are not needed any more.
    fn forget(&mut self) {
        let mut kept = self.event_loop.handler().0.borrow_mut();
        kept.events.clear();
        kept.used = 0;
        kept.addresses.clear();
        kept.returned = 0;
    }

    fn take(&self, room: usize, mut store: impl FnMut(usize, LoopEvent)) -> usize {
        let mut kept = self.event_loop.handler().0.borrow_mut();
        let rest = &kept.events[kept.returned..];
        let count = rest.len().min(room);
        rest[..count].iter().enumerate().for_each(|(index, event)| store(index, *event));
        kept.returned += count;
        count
    }
}

/// What is the same by handler.
impl PulledLoop {
    /// [`EventLoop::listen`].
    pub fn listen(&mut self, address: &str, token: u64) -> io::Result<String> {
        self.event_loop.listen(address, token)
    }

    /// [`EventLoop::connect`]: [`LoopEventKind::Connected`] when it is open, [`LoopEventKind::Closed`] when it
    /// never opens.
    pub fn connect(&mut self, address: &str, options: &ConnectOptions, token: u64) -> io::Result<ConnId> {
        self.event_loop.connect(address, options, token)
    }

    /// [`EventLoop::spawn`].
    pub fn spawn(&mut self, command: &mut Command, pipes: Pipes, token: u64) -> io::Result<Spawned> {
        self.event_loop.spawn(command, pipes, token)
    }

    /// [`EventLoop::poller`].
    pub fn poller(&self) -> &Arc<Poller> {
        self.event_loop.poller()
    }

    /// [`EventLoop::engine`].
    pub fn engine(&self) -> EngineKind {
        self.event_loop.engine()
    }

    /// [`EventLoop::conn`].
    pub fn conn(&mut self, id: ConnId) -> io::Result<Conn<'_>> {
        self.event_loop.conn(id)
    }

    /// For the bindings: [`EventLoop::loop_ref`].
    #[doc(hidden)]
    pub fn loop_ref(&mut self) -> LoopRef<'_> {
        self.event_loop.loop_ref()
    }

    /// [`EventLoop::connect_datagrams`].
    pub fn connect_datagrams(&mut self, address: &str, token: u64) -> io::Result<DatagramId> {
        self.event_loop.connect_datagrams(address, token)
    }

    /// [`EventLoop::datagram_sockets`].
    pub fn datagram_sockets(&self) -> Vec<DatagramId> {
        self.event_loop.datagram_sockets()
    }

    /// [`EventLoop::descriptor`]: whenever it is readable, call [`wait`](Self::wait) with a timeout of zero.
    pub fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        self.event_loop.descriptor()
    }

    /// [`EventLoop::handle`].
    pub fn handle(&self) -> LoopHandle {
        self.event_loop.handle()
    }
}

/// The bytes of events.
impl PulledLoop {
    /// The bytes of an event of the last wait: what has arrived, or in words why a connection has ended. No
    /// bytes for one of an earlier wait whose place is not there any more.
    pub fn data(&self, event: &LoopEvent) -> Ref<'_, [u8]> {
        Ref::map(self.event_loop.handler().0.borrow(), |kept| {
            kept.buffer[..kept.used].get(event.range()).unwrap_or(&[])
        })
    }

    /// The sender of a datagram of the last wait, and the address of this machine that it was sent to: what
    /// [`DatagramId::send_from`] answers with. `None` for any other event.
    ///
    /// ```
    /// use omnipoll::{LoopEvent, LoopEventKind, PulledLoop};
    /// use std::net::UdpSocket;
    ///
    /// let mut event_loop = PulledLoop::new()?;
    /// let address = event_loop.listen("udp:127.0.0.1:0", 1)?;
    /// let client = UdpSocket::bind("127.0.0.1:0")?;
    /// client.send_to(b"hello", address.trim_start_matches("udp:"))?;
    ///
    /// let mut events = [LoopEvent::default(); 16];
    /// let count = event_loop.wait(&mut events, None)?;
    /// for event in &events[..count] {
    ///     if let (LoopEventKind::Datagram, Some((peer, local))) = (event.kind(), event_loop.addresses(event)) {
    ///         event.datagram_socket().send_from(&local, &peer, &event_loop.data(event))?;
    ///     }
    /// }
    /// let mut answer = [0; 64];
    /// assert_eq!(client.recv(&mut answer)?, 5);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn addresses(&self, event: &LoopEvent) -> Option<(Address, Address)> {
        self.event_loop.handler().0.borrow().addresses.get(event.address_index()?).cloned()
    }

    /// For the bindings: where the bytes of the events lie. The place stays the same as long as the loop
    /// lives; its content until the next wait.
    #[doc(hidden)]
    pub fn buffer(&self) -> (*const u8, usize) {
        let kept = self.event_loop.handler().0.borrow();
        (kept.buffer.as_ptr(), kept.buffer.len())
    }
}

impl Pulled {
    fn push(&self, kind: LoopEventKind, conn: &Conn<'_>) {
        let event = LoopEvent::of_connection(kind, conn.token(), conn.id());
        self.0.borrow_mut().events.push(event);
    }
}

impl Kept {
    /// Where the bytes are, of which there is room for as many as there may be.
    fn keep(&mut self, data: &[u8]) -> (usize, usize) {
        let length = data.len().min(self.buffer.len() - self.used);
        let offset = self.used;
        self.buffer[offset..offset + length].copy_from_slice(&data[..length]);
        self.used += length;
        (offset, length)
    }
}

impl Handler for Pulled {
    type State = ();

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
        let kind = if conn.is_outgoing() { LoopEventKind::Connected } else { LoopEventKind::Accepted };
        self.push(kind, conn);
        Ok(())
    }

    fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) {
        let mut kept = self.0.borrow_mut();
        let (offset, length) = kept.keep(data);
        debug_assert_eq!(length, data.len());
        let event = LoopEvent::of_connection(LoopEventKind::Data, conn.token(), conn.id());
        kept.events.push(event.with_bytes(offset, length));
    }

    fn on_end(&self, conn: &mut Conn<'_>, _: &mut ()) {
        self.push(LoopEventKind::Ended, conn);
    }

    fn on_drain(&self, conn: &mut Conn<'_>, _: &mut ()) {
        self.push(LoopEventKind::Drained, conn);
    }

    fn on_post(&self, conn: &mut Conn<'_>, _: &mut (), value: i64) {
        let event = LoopEvent::of_connection(LoopEventKind::ConnPost, conn.token(), conn.id());
        self.0.borrow_mut().events.push(event.with_posted(value));
    }

    fn on_timer(&self, conn: &mut Conn<'_>, _: &mut ()) {
        self.push(LoopEventKind::ConnTimer, conn);
    }

    fn on_stop(&self, conn: &mut Conn<'_>, _: &mut ()) {
        self.push(LoopEventKind::Stopping, conn);
    }

    fn on_close(&self, conn: &mut Conn<'_>, _: (), error: Option<io::Error>) {
        let event = LoopEvent::of_connection(LoopEventKind::Closed, conn.token(), conn.id());
        self.0.borrow_mut().push_closed(event, error);
    }

    fn on_connect_error(&self, _: &mut LoopRef<'_>, failed: &FailedConnect) {
        let event = LoopEvent::of_connection(LoopEventKind::Closed, failed.token(), failed.id());
        self.0.borrow_mut().push_closed(event, Some(failed.error()));
    }

    fn on_interrupt(&self) -> io::Result<()> {
        if self.0.borrow().interruptible {
            return Err(plain(libc::EINTR));
        }
        Ok(())
    }

    fn on_event(&self, _: &mut LoopRef<'_>, event: &Event) {
        self.0.borrow_mut().events.push(LoopEvent::of_poller(event));
    }

    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        let mut kept = self.0.borrow_mut();
        let (offset, length) = kept.keep(data);
        debug_assert_eq!(length, data.len());
        let event = LoopEvent::of_datagram(datagram.token(), datagram.socket(), kept.addresses.len());
        kept.addresses.push((datagram.peer().clone(), datagram.local()));
        kept.events.push(event.with_bytes(offset, length));
    }

    fn on_datagram_error(&self, socket: DatagramId, error: io::Error) {
        let event = LoopEvent::of_datagram_error(socket.token().unwrap_or_default(), socket);
        self.0.borrow_mut().push_closed(event, Some(error));
    }

    #[inline]
    fn room(&self) -> usize {
        let kept = self.0.borrow();
        kept.buffer.len() - kept.used
    }

    fn is_pending(&self) -> bool {
        let kept = self.0.borrow();
        kept.returned < kept.events.len()
    }
}

impl Kept {
    fn push_closed(&mut self, event: LoopEvent, error: Option<io::Error>) {
        let Some(error) = error else { return self.events.push(event) };
        let (offset, length) = self.keep(explain(&error).as_bytes());
        let event = event.with_error(error.raw_os_error().unwrap_or(libc::EIO));
        self.events.push(event.with_bytes(offset, length));
    }
}
