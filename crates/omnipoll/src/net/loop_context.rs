//! What the connections of one loop share.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::account::Budget;
use super::admission::Admission;
use super::bound::Bound;
use super::conn_id::ConnId;
use super::connect_options::ConnectOptions;
use super::connect_request::ConnectRequest;
use super::counters::WorkerCounters;
use super::datagram_id::DatagramId;
use super::datagram_socket::DatagramSocket;
use super::listener::Listener;
use super::mailbox::Mailbox;
use super::socket_settings::SocketSettings;
use super::timeouts::Clock;
use crate::error::{explain, fail};
use crate::Poller;

/// Stops a loop, or the server that it is of.
pub(crate) type StopLoop = Box<dyn Fn(Option<Duration>) -> io::Result<()>>;

/// A loop as its connections need it.
pub(crate) struct LoopContext {
    pub(crate) poller: Arc<Poller>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) counters: WorkerCounters,
    pub(crate) clock: Clock,
    pub(crate) low_water: usize,
    /// The longest frame that the handler has room for.
    pub(crate) max_frame: usize,
    pub(crate) linger: Duration,
    /// How many bytes a second may be received from a client.
    pub(crate) max_receive_rate: Option<NonZeroU64>,
    /// What clients are admitted by when their headers have come.
    pub(crate) admission: Option<Admission>,
    pub(crate) worker: usize,
    pub(crate) stopping: Cell<bool>,
    /// The time to stop is up: nothing is connected to any more.
    pub(crate) is_over: Cell<bool>,
    pub(crate) stop: StopLoop,
    /// Slots of connections that callbacks other than their own have reached.
    pub(crate) touched: RefCell<Vec<usize>>,
    /// What callbacks have asked to connect to since the last wait.
    pub(crate) requests: RefCell<Vec<PendingConnect>>,
    /// What was asked to be listened on since the last wait, and the tokens of the connections to it.
    pub(crate) listeners: RefCell<Vec<(Listener, u64)>>,
    /// `None` for a loop of a server's: the server listens.
    pub(crate) backlog: Option<i32>,
    /// What the sockets have that it listens on.
    pub(crate) settings: SocketSettings,
    /// Of [`DriverKind::min_direct_write`](super::driver::DriverKind::min_direct_write).
    pub(crate) min_direct_write: usize,
    /// Of [`LoopRef::binding`](super::LoopRef::binding).
    pub(crate) binding: OnceCell<Box<dyn Any>>,
}

/// A connection that was asked for.
#[derive(Debug)]
pub(crate) struct PendingConnect {
    pub(crate) request: ConnectRequest,
    pub(crate) id: ConnId,
    pub(crate) token: u64,
}

impl LoopContext {
    /// Has the loop connect to an address.
    pub(crate) fn connect(&self, address: &str, options: &ConnectOptions, token: u64) -> io::Result<ConnId> {
        self.poller.check_owner()?;
        if self.is_over.get() {
            return Err(fail(libc::EINVAL, "the loop has been stopped"));
        }
        let request = ConnectRequest::new(address, options).map_err(|error| naming(address, &error))?;
        let id = self.mailbox.reserve()?;
        self.requests.borrow_mut().push(PendingConnect { request, id, token });
        Ok(id)
    }

    /// Has the loop listen on an address, and returns it with the port that the system has chosen.
    pub(crate) fn listen(&self, address: &str, token: u64) -> io::Result<String> {
        self.poller.check_owner()?;
        let Some(backlog) = self.backlog else {
            return Err(fail(libc::EPERM, "the loop is a server's, which listens for it"));
        };
        if self.stopping.get() {
            return Err(fail(libc::EINVAL, "the loop has been stopped"));
        }
        let opened =
            address.parse().and_then(|parsed| Bound::open(&parsed, backlog, false, true, &self.settings));
        let opened = opened.map_err(|error| naming(address, &error))?;
        let addresses: Vec<String> = opened.iter().map(Bound::address).collect();
        for bound in opened {
            match bound {
                Bound::Stream(listener) => self.listeners.borrow_mut().push((listener, token)),
                Bound::Datagrams(socket) => {
                    self.mailbox.open_datagrams(socket.with_token(token))?;
                }
            }
        }
        Ok(addresses.join(" "))
    }

    /// Has the loop open a datagram socket that is connected to an address.
    pub(crate) fn connect_datagrams(&self, address: &str, token: u64) -> io::Result<DatagramId> {
        self.poller.check_owner()?;
        self.mailbox.open_datagrams(DatagramSocket::connect_to(address)?.with_token(token))
    }
}

/// An error that says which address it is about.
fn naming(address: &str, error: &io::Error) -> io::Error {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    fail(errno, format!("{address:?}: {}", explain(error)))
}

impl std::fmt::Debug for LoopContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoopContext").field("worker", &self.worker).finish_non_exhaustive()
    }
}
