//! [`LoopRef`]: a loop as the callbacks that it makes get it.

use std::any::Any;
use std::cell::OnceCell;
use std::io;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::conn::Conn;
use super::conn_id::ConnId;
use super::connect_options::ConnectOptions;
use super::connection::Connection;
use super::connection_table::ConnectionTable;
use super::datagram_id::DatagramId;
use super::loop_context::LoopContext;
use super::mailbox::stale;
use super::spawn::{Pipes, Spawned};
use crate::Poller;

/// The loop that makes a callback, lent to the callback: what a handler can do with the loop besides its
/// connection.
///
/// # Portability
///
/// Every method is the same on every system and engine.
#[derive(Debug)]
pub struct LoopRef<'a> {
    pub(crate) table: &'a mut ConnectionTable,
    pub(crate) context: &'a LoopContext,
}

impl<'a> LoopRef<'a> {
    /// The poller that the loop waits on: for timers, descriptors, signals, children and posts of the
    /// program's own, whose events come to [`Handler::on_event`](crate::Handler::on_event). Tokens from
    /// `0xffff_ffff_8000_0000` on are the loop's: `EINVAL`.
    pub fn poller(&self) -> &Arc<Poller> {
        &self.context.poller
    }

    /// Another connection of this loop, in a callback: what is done to it is done at once. `ESTALE` when
    /// it has ended, or is of another loop, which its [`ConnId`] reaches.
    pub fn conn(&mut self, id: ConnId) -> io::Result<Conn<'_>> {
        self.reborrow().into_conn(id)
    }

    /// Listens on an address: [`EventLoop::listen`](crate::EventLoop::listen). Clients can connect at once, and
    /// are accepted when the callback has returned. `EPERM` on a loop of a server's.
    pub fn listen(&self, address: &str, token: u64) -> io::Result<String> {
        self.context.listen(address, token)
    }

    /// [`EventLoop::connect_datagrams`](crate::EventLoop::connect_datagrams), in a callback.
    pub fn connect_datagrams(&self, address: &str, token: u64) -> io::Result<DatagramId> {
        self.context.connect_datagrams(address, token)
    }

    /// Connects to an address: [`EventLoop::connect`](crate::EventLoop::connect). It begins when the callback
    /// has returned.
    pub fn connect(&self, address: &str, options: &ConnectOptions, token: u64) -> io::Result<ConnId> {
        self.context.connect(address, options, token)
    }

    /// Starts a program: [`EventLoop::spawn`](crate::EventLoop::spawn).
    pub fn spawn(&self, command: &mut Command, pipes: Pipes, token: u64) -> io::Result<Spawned> {
        self.context.spawn(command, pipes, token)
    }

    /// Stops the loop: [`LoopHandle::stop`](crate::LoopHandle::stop). On a loop of a server, the server:
    /// [`ServerHandle::stop`](crate::ServerHandle::stop).
    pub fn stop(&self, drain: Option<Duration>) -> io::Result<()> {
        (self.context.stop)(drain)
    }

    /// For the bindings: the same loop, for a shorter time.
    #[doc(hidden)]
    pub fn reborrow(&mut self) -> LoopRef<'_> {
        LoopRef { table: self.table, context: self.context }
    }

    /// For the bindings: what they keep with the loop, which is dropped with it.
    #[doc(hidden)]
    pub fn binding(&self) -> &'a OnceCell<Box<dyn Any>> {
        &self.context.binding
    }

    /// The number of the worker whose loop it is; 0 without a server.
    pub fn worker(&self) -> usize {
        self.context.worker
    }
}

impl<'a> LoopRef<'a> {
    pub(crate) fn into_conn(self, id: ConnId) -> io::Result<Conn<'a>> {
        self.find(id).ok_or_else(stale)
    }

    /// For the bindings: [`conn`](Self::conn) without the words of an error.
    #[doc(hidden)]
    #[inline]
    pub fn find(self, id: ConnId) -> Option<Conn<'a>> {
        let Self { table, context } = self;
        let slot = context.mailbox.slot(id)?;
        let is_it = |connection: &&mut Connection| connection.id == id && !connection.is_ended();
        let connection = table.get_mut(slot).filter(is_it)?;
        connection.touch(slot, context);
        Some(Conn { table, slot, context })
    }
}
