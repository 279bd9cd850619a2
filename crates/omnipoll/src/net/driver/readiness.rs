//! Where the kernel reports readiness: every socket is registered with the poller, and the loop makes
//! the system calls.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use super::super::connection::Connection;
use super::super::listener::Listener;
use super::super::loop_context::LoopContext;
use super::{AcceptMode, Driver};
use crate::errno::{self, ErrorClass};
use crate::sys::{connecting, Address, Chunk, Completion};
use crate::{Events, Interest, Poller};

#[derive(Debug)]
pub(crate) struct Readiness;

impl Driver for Readiness {
    fn accept(
        &mut self,
        listener: &Listener,
        interest: Interest,
        token: u64,
        _: bool,
        poller: &Poller,
    ) -> io::Result<AcceptMode> {
        poller.add_reserved(listener.as_fd().as_raw_fd(), interest, token)?;
        Ok(AcceptMode::Polled)
    }

    fn cancel_accept(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn connect(
        &mut self,
        socket: BorrowedFd<'_>,
        address: &Address,
        token: u64,
        poller: &Poller,
    ) -> io::Result<bool> {
        match connecting::connect(socket, address) {
            Err(error) if errno::classify_connect(&error) == ErrorClass::WouldBlock => {
                poller.add_reserved(socket.as_raw_fd(), Interest::WRITE, token)?;
                Ok(false)
            }
            connected => connected.map(|()| true),
        }
    }

    fn end_connect(&mut self, socket: BorrowedFd<'_>, _: u64, poller: &Poller) -> bool {
        let _ = poller.remove_reserved(socket.as_raw_fd());
        false
    }

    fn sync(&mut self, connection: &mut Connection, slot: usize, context: &LoopContext) -> io::Result<()> {
        let (fd, wanted) = (connection.descriptor(), connection.interest());
        connection.io.register(fd, wanted, slot, &context.poller)
    }

    #[inline]
    fn is_only_receiving(&self, connection: &Connection) -> bool {
        connection.io.registered == Some(Interest::READ)
    }

    fn next_unsent(&mut self) -> Option<usize> {
        None
    }

    /// Sends are system calls of the connection itself.
    fn send(&mut self, _: &mut Connection, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn cancel(&mut self, connection: &mut Connection, _: usize, context: &LoopContext) {
        let fd = connection.descriptor();
        connection.io.unregister(fd, &context.poller);
    }

    #[inline]
    fn wait(&mut self, poller: &Poller, events: &mut Events, limit: Option<Duration>) -> io::Result<()> {
        poller.wait(events, limit).map(drop)
    }

    #[inline]
    fn events(&mut self, waited: io::Result<()>, _: &Poller, _: &mut Events) -> io::Result<()> {
        waited
    }

    fn embed(&self, _: &Poller) -> io::Result<()> {
        Ok(())
    }

    fn arm(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    fn wait_for_completions(&mut self, _: Duration) -> io::Result<()> {
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Option<Completion> {
        None
    }

    fn bytes(&self, _: &Chunk) -> &[u8] {
        &[]
    }

    fn recycle(&mut self, _: Chunk) {}
}
