//! A loop's whole life: with the doors it has, until the server stops. All there is to
//! [`Model::Reactor`](crate::Model::Reactor), and each worker under CORES and PREFORK.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::acceptor::Acceptor;
use super::connections::Connections;
use super::event_loop::{watch_stop_signals, EventLoop, Until};
use super::handler::Handler;
use super::shared::Shared;
use crate::net::{DatagramSocket, Listener};
use crate::sys::Address;
use crate::Poller;

/// Where one worker's clients come in.
#[derive(Debug, Default)]
pub(super) struct WorkerSockets {
    pub(super) listeners: Vec<Listener>,
    /// Other workers accept from the same sockets.
    pub(super) shared: bool,
    pub(super) datagrams: Vec<DatagramSocket>,
}

/// Runs `serve` in a thread or process that the server has made, as the handler wants it.
pub(super) fn run_worker<H: Handler>(handler: &H, serve: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let mut serve = Some(serve);
    let mut served = Ok(());
    handler.on_worker(&mut || served = serve.take().map_or(Ok(()), |serve| serve()));
    served
}

/// Serves as worker number `worker` until the server stops, or, in a process of its own, its
/// parent tells it to by the `stop_pipes`.
pub(super) fn serve<H: Handler>(
    handler: &H,
    shared: &Arc<Shared>,
    poller: Arc<Poller>,
    worker: usize,
    sockets: WorkerSockets,
    stop_pipes: Option<Vec<OwnedFd>>,
) -> io::Result<()> {
    let mut connections =
        Connections::new(handler, shared, &poller, worker, shared.share_of_clients(worker))?;
    let acceptor = Acceptor::new(sockets.listeners, sockets.shared, shared.options.max_clients.is_none());
    let mut event_loop = EventLoop::new(shared.clone(), poller, acceptor, worker);
    let served = || {
        connections.watch_datagrams(sockets.datagrams)?;
        if shared.options.signals && stop_pipes.is_some() {
            watch_stop_signals(&event_loop.poller)?;
        }
        if let Some(stop_pipes) = stop_pipes {
            event_loop.watch_stop_pipes(stop_pipes)?;
        }
        event_loop.run(&mut connections, Until::Stopped)
    };
    let served = served();
    connections.leave(shared);
    served
}

/// Serves one client that has been accepted, until it has gone.
pub(super) fn serve_client<H: Handler>(
    handler: &H,
    shared: &Arc<Shared>,
    poller: Arc<Poller>,
    (socket, peer): (OwnedFd, Address),
    stop_pipes: Option<Vec<OwnedFd>>,
) -> io::Result<()> {
    let mut connections = Connections::new(handler, shared, &poller, 0, 1)?;
    let mut event_loop = EventLoop::new(shared.clone(), poller, Acceptor::default(), 0);
    let served = || {
        if let Some(stop_pipes) = stop_pipes {
            event_loop.watch_stop_pipes(stop_pipes)?;
            if shared.options.signals {
                watch_stop_signals(&event_loop.poller)?;
            }
        }
        connections.open(socket, peer, shared);
        event_loop.run(&mut connections, Until::Empty)
    };
    let served = served();
    connections.leave(shared);
    served
}
