//! The datagram sockets of one loop.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::acceptor::RETRY;
use super::handler::Handler;
use super::tokens;
use crate::errno::{self, ErrorClass};
use crate::net::{Datagram, DatagramIo, LoopContext, ReceiveBuffer, DATAGRAM_SLOT};
use crate::sys::datagrams::BATCH;
use crate::Ready;

/// The sockets, and whether some are not watched for a moment, because the system is out of something.
#[derive(Default)]
pub(super) struct DatagramSockets {
    /// By the entries of their ids.
    sockets: Vec<Option<DatagramIo>>,
    buffer: ReceiveBuffer,
    is_retry_pending: bool,
}

impl DatagramSockets {
    /// Opens, flushes and closes what other threads, or callbacks, have asked for.
    pub(super) fn update<H: Handler>(&mut self, handler: &H, context: &LoopContext) -> io::Result<()> {
        for pending in context.mailbox.take_datagrams() {
            let index = pending.id.entry();
            if index >= self.sockets.len() {
                self.sockets.resize_with(index + 1, || None);
            }
            if pending.is_closing {
                if let Some(socket) = self.sockets[index].take() {
                    close(socket, context);
                }
                context.mailbox.remove_datagrams(pending.id);
                continue;
            }
            self.sockets[index].get_or_insert_with(|| DatagramIo::new(pending.id, pending.socket));
            self.flush(index, handler, context)?;
        }
        Ok(())
    }

    /// Sends what is queued on a socket, and watches it for what is then left.
    fn flush<H: Handler>(&mut self, index: usize, handler: &H, context: &LoopContext) -> io::Result<()> {
        let Some(Some(socket)) = self.sockets.get_mut(index) else { return Ok(()) };
        if let Some(error) = socket.flush(&context.counters)? {
            report_error(socket, error, handler, context)?;
        }
        self.watch(index, context)
    }

    fn watch(&mut self, index: usize, context: &LoopContext) -> io::Result<()> {
        let Some(Some(socket)) = self.sockets.get_mut(index) else { return Ok(()) };
        match socket.watch(&context.poller, tokens::DATAGRAMS + index as u64) {
            Err(error) if errno::classify_registration(&error) == ErrorClass::Temporary => {
                self.watch_later(context)
            }
            watched => watched,
        }
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
        (0..self.sockets.len()).try_for_each(|index| self.watch(index, context))
    }

    /// A socket is ready.
    pub(super) fn ready<H: Handler>(
        &mut self,
        token: u64,
        ready: Ready,
        handler: &H,
        context: &LoopContext,
    ) -> io::Result<()> {
        let index = (token - tokens::DATAGRAMS) as usize;
        let Some(Some(socket)) = self.sockets.get_mut(index) else { return Ok(()) };
        // So is one with an error that the network has reported.
        if ready.intersects(Ready::READ) {
            match receive(socket, &mut self.buffer, handler, context) {
                Err(error) if errno::classify_receive(&error) == ErrorClass::Peer => {
                    report_error(socket, error, handler, context)?;
                }
                Err(error) if errno::classify_receive(&error) == ErrorClass::Temporary => {
                    socket.unwatch(&context.poller);
                    return self.watch_later(context);
                }
                received => received?,
            }
        }
        self.flush(index, handler, context)
    }

    /// Sends what is queued once more, and closes them.
    pub(super) fn close(&mut self, context: &LoopContext) {
        let all = context.mailbox.end_datagrams();
        self.sockets.drain(..).flatten().for_each(|socket| close(socket, context));
        // Those too that another thread has just opened.
        all.iter().for_each(|socket| socket.close(&context.counters));
    }
}

fn close(mut socket: DatagramIo, context: &LoopContext) {
    socket.unwatch(&context.poller);
    socket.close(&context.counters);
}

/// As many datagrams as one system call brings, or as the handler has room for: the rest is reported
/// again.
fn receive<H: Handler>(
    socket: &mut DatagramIo,
    buffer: &mut ReceiveBuffer,
    handler: &H,
    context: &LoopContext,
) -> io::Result<()> {
    let mut each = |datagram: &mut Datagram<'_>, data: &[u8]| {
        if context.poller.is_owner() {
            // A panic costs one datagram.
            let _ = catch_unwind(AssertUnwindSafe(|| handler.on_datagram(datagram, data)));
        }
    };
    let mut left = BATCH;
    loop {
        let max = left.min(handler.room() / DATAGRAM_SLOT);
        if max == 0 {
            return Ok(());
        }
        let received = socket.receive(max, buffer, &context.counters, &mut each);
        context.poller.check_owner()?;
        if received? < max {
            return Ok(());
        }
        left -= max;
    }
}

/// Has the handler know that a datagram of the socket was lost.
fn report_error<H: Handler>(
    socket: &DatagramIo,
    error: io::Error,
    handler: &H,
    context: &LoopContext,
) -> io::Result<()> {
    let id = socket.id;
    // As above.
    let _ = catch_unwind(AssertUnwindSafe(|| handler.on_datagram_error(id, error)));
    context.poller.check_owner()
}
