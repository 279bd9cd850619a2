//! The datagram sockets of one loop.

use std::io;
use std::os::fd::AsRawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::acceptor::RETRY;
use super::handler::Handler;
use super::tokens;
use crate::errno::{self, ErrorClass};
use crate::net::{Datagram, DatagramSocket, LoopContext};
use crate::Ready;

/// The sockets, and whether some are not watched for a moment, because the system is out of something.
#[derive(Default)]
pub(super) struct DatagramSockets {
    sockets: Vec<DatagramSocket>,
    is_retry_pending: bool,
}

impl DatagramSockets {
    pub(super) fn watch(&mut self, sockets: Vec<DatagramSocket>, context: &LoopContext) -> io::Result<()> {
        self.sockets.extend(sockets);
        self.watch_all(context)
    }

    /// Watches those that are not watched.
    fn watch_all(&mut self, context: &LoopContext) -> io::Result<()> {
        let mut is_short = false;
        for (token, socket) in (tokens::DATAGRAMS..).zip(&mut self.sockets) {
            match socket.watch(&context.poller, token) {
                Err(error) if errno::classify_registration(&error) == ErrorClass::Temporary => {
                    is_short = true
                }
                watched => watched?,
            }
        }
        if is_short {
            return self.watch_later(context);
        }
        Ok(())
    }

    fn watch_later(&mut self, context: &LoopContext) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_retry_pending, true) {
            context.poller.timer_add_reserved(RETRY, tokens::RETRY_DATAGRAMS)?;
        }
        Ok(())
    }

    /// The timer of [`watch_later`](Self::watch_later) has expired.
    pub(super) fn retry(&mut self, context: &LoopContext) -> io::Result<()> {
        self.is_retry_pending = false;
        self.watch_all(context)
    }

    /// A socket is ready.
    pub(super) fn ready<H: Handler>(
        &mut self,
        token: u64,
        ready: Ready,
        handler: &H,
        context: &LoopContext,
    ) -> io::Result<()> {
        let Some(socket) = self.sockets.get_mut((token - tokens::DATAGRAMS) as usize) else { return Ok(()) };
        if ready.intersects(Ready::READ) {
            match receive(socket, handler, context) {
                Err(error) if errno::classify_receive(&error) == ErrorClass::Temporary => {
                    context.poller.remove_reserved(socket.as_raw_fd())?;
                    socket.is_watched = false;
                    return self.watch_later(context);
                }
                received => received?,
            }
        }
        socket.flush(&context.counters)?;
        match socket.watch(&context.poller, token) {
            Err(error) if errno::classify_registration(&error) == ErrorClass::Temporary => {
                self.watch_later(context)
            }
            watched => watched,
        }
    }

    /// Sends what is queued once more, and closes them.
    pub(super) fn close(&mut self, context: &LoopContext) {
        for socket in self.sockets.drain(..) {
            let _ = context.poller.remove_reserved(socket.as_raw_fd());
            socket.flush_and_drop(&context.counters);
        }
    }
}

fn receive<H: Handler>(socket: &mut DatagramSocket, handler: &H, context: &LoopContext) -> io::Result<()> {
    let received = socket.receive(&context.counters, |datagram: &mut Datagram<'_>, data| {
        if context.poller.is_owner() {
            // A panic costs one datagram.
            let _ = catch_unwind(AssertUnwindSafe(|| handler.on_datagram(datagram, data)));
        }
    });
    context.poller.check_owner()?;
    received
}
