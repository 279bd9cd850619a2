//! [`LoopHandle`]: a loop for other threads.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::net::{copy_of, ConnId, Counter, DatagramId, DatagramSocket, Mailbox, StopRequest};
use crate::Poller;

/// What other threads reach an [`EventLoop`](crate::EventLoop) by, besides the ids of its connections.
/// Each of its methods may be called from any thread.
///
/// # Portability
///
/// Every method is the same on every system and engine.
///
/// ```
/// # use omnipoll::{Conn, Handler};
/// # struct Echo;
/// # impl Handler for Echo {
/// #     type State = ();
/// #     fn on_open(&self, _: &mut Conn<'_>) -> std::io::Result<()> { Ok(()) }
/// #     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) { let _ = conn.write(data); }
/// # }
/// use omnipoll::EventLoop;
///
/// let mut event_loop = EventLoop::new(Echo)?;
/// let handle = event_loop.handle();
/// std::thread::spawn(move || handle.stop(None));
/// event_loop.run()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LoopHandle {
    pub(super) stop: Arc<StopRequest>,
    pub(super) poller: Arc<Poller>,
    pub(super) mailbox: Arc<Mailbox>,
}

impl LoopHandle {
    /// Stops the loop: it accepts no more, each connection's handler is called with
    /// [`on_stop`](crate::Handler::on_stop), and after `drain` (`None`: no limit; zero: no time) those that
    /// are left are reset. [`run`](crate::EventLoop::run) returns when the last has ended. A second
    /// call sets a new limit.
    ///
    /// Async-signal-safe. `EOWNERDEAD` in a forked child.
    pub fn stop(&self, drain: Option<Duration>) -> io::Result<()> {
        self.poller.check_owner()?;
        self.stop.set(drain);
        self.poller.wake()
    }

    /// [`EventLoop::connect_datagrams`](crate::EventLoop::connect_datagrams), from any thread and in every
    /// callback. `EOWNERDEAD` in a forked child.
    pub fn connect_datagrams(&self, address: &str, token: u64) -> io::Result<DatagramId> {
        self.poller.check_owner()?;
        self.mailbox.open_datagrams(DatagramSocket::connect_to(address)?.with_token(token))
    }

    /// Writes `data` to every connection of the loop that has room for it, outgoing ones too, and returns to
    /// how many: [`ServerHandle::broadcast`](crate::ServerHandle::broadcast) for one loop.
    ///
    /// `ENOMEM` when there is no memory for a copy of it, `EOWNERDEAD` in a forked child.
    pub fn broadcast(&self, data: &[u8]) -> io::Result<usize> {
        self.broadcast_in(None, data, None)
    }

    /// [`broadcast`](Self::broadcast) to every connection but one. If there is no such connection, to
    /// every one.
    pub fn broadcast_except(&self, data: &[u8], except: ConnId) -> io::Result<usize> {
        self.broadcast_in(None, data, Some(except))
    }

    /// [`broadcast`](Self::broadcast) to every connection that has [joined](crate::Conn::join) a group, but
    /// one. To a group without members it is 0. `EINVAL` for a name that is empty or has more than 255
    /// bytes.
    pub fn broadcast_to(&self, group: &str, data: &[u8], except: Option<ConnId>) -> io::Result<usize> {
        self.broadcast_in(Some(group), data, except)
    }

    /// For the bindings: any of these.
    #[doc(hidden)]
    pub fn broadcast_in(
        &self,
        group: Option<&str>,
        data: &[u8],
        except: Option<ConnId>,
    ) -> io::Result<usize> {
        self.poller.check_owner()?;
        let data = Arc::new(copy_of(data)?);
        let reached = match group {
            Some(group) => self.mailbox.groups().broadcast(group, &data, except)?,
            None => self.mailbox.broadcast(&data, except)?,
        };
        if reached.full > 0 {
            self.mailbox.counters().add(Counter::WritesRefused, reached.full as u64);
        }
        Ok(reached.queued)
    }

    /// The loop's poller: for [`post`](Poller::post), and all else that other threads may call.
    pub fn poller(&self) -> &Poller {
        &self.poller
    }
}
