//! A loop's whole life: with the doors it has, until the server stops. All there is to
//! [`Model::Reactor`](crate::Model::Reactor), and each worker under CORES and PREFORK.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::doors::Doors;
use super::front::{heed_signals, Front, Until};
use super::handler::Handler;
use super::reactor::Reactor;
use super::shared::Shared;
use crate::net::{DatagramSocket, Listener};
use crate::sys::Peer;
use crate::Poller;

/// Where one worker's clients come in.
#[derive(Debug, Default)]
pub(super) struct Openings {
    pub(super) listeners: Vec<Listener>,
    /// Other workers accept from the same sockets.
    pub(super) shared: bool,
    pub(super) datagrams: Vec<DatagramSocket>,
}

/// Runs `serve` in a thread or process that the server has made, as the handler wants it.
pub(super) fn host<H: Handler>(handler: &H, serve: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let mut serve = Some(serve);
    let mut served = Ok(());
    handler.on_worker(&mut || served = serve.take().map_or(Ok(()), |serve| serve()));
    served
}

/// Serves as worker number `worker` until the server stops, or, in a process of its own, its
/// parent tells it to by the `leash`.
pub(super) fn serve<H: Handler>(
    handler: &H,
    shared: &Arc<Shared>,
    poller: Arc<Poller>,
    worker: usize,
    openings: Openings,
    leash: Option<Vec<OwnedFd>>,
) -> io::Result<()> {
    let mut reactor = Reactor::new(handler, shared, &poller, worker, shared.share_of_clients(worker))?;
    let doors = Doors::new(openings.listeners, openings.shared, shared.options.max_clients.is_none());
    let mut front = Front::new(shared.clone(), poller, doors, worker);
    let served = || {
        reactor.watch_datagrams(openings.datagrams)?;
        if shared.options.signals && leash.is_some() {
            heed_signals(&front.poller)?;
        }
        if let Some(leash) = leash {
            front.hold(leash)?;
        }
        front.run(&mut reactor, Until::Stopped)
    };
    let served = served();
    reactor.leave(shared);
    served
}

/// Serves one client that has been accepted, until it has gone.
pub(super) fn serve_client<H: Handler>(
    handler: &H,
    shared: &Arc<Shared>,
    poller: Arc<Poller>,
    (socket, peer): (OwnedFd, Peer),
    leash: Option<Vec<OwnedFd>>,
) -> io::Result<()> {
    let mut reactor = Reactor::new(handler, shared, &poller, 0, 1)?;
    let mut front = Front::new(shared.clone(), poller, Doors::default(), 0);
    let served = || {
        if let Some(leash) = leash {
            front.hold(leash)?;
            if shared.options.signals {
                heed_signals(&front.poller)?;
            }
        }
        reactor.open(socket, peer, shared);
        front.run(&mut reactor, Until::Empty)
    };
    let served = served();
    reactor.leave(shared);
    served
}
