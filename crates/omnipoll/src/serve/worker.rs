//! A worker: one loop with its connections, from its start until the server stops.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::pulse::Pulse;
use super::server_loop::{watch_stop_signals, ServerLoop, Until};
use super::shared::Shared;
use super::worker_process::WorkerLife;
use crate::event_loop::{Accepted, Acceptor, Connections, Handler, LoopPlace};
use crate::net::{open_mailbox, Admission, DatagramSocket, Listener};
use crate::sys::affinity::Pinned;
use crate::Poller;

/// The sockets of one worker.
#[derive(Debug, Default)]
pub(super) struct WorkerSockets {
    pub(super) listeners: Vec<Listener>,
    /// Other workers accept from the same sockets.
    pub(super) is_shared: bool,
    pub(super) datagrams: Vec<DatagramSocket>,
}

/// What a worker process has of its parent.
pub(super) struct Parent {
    /// Closed when it stops or dies.
    pub(super) stop_pipes: Vec<OwnedFd>,
    /// Where it reports, and reads what it is asked to do.
    pub(super) pulse: Pulse,
}

/// Runs `serve` in a thread or process that the server has made, by the handler's `run_worker`.
pub(super) fn run_worker<H: Handler>(handler: &H, serve: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let mut serve = Some(serve);
    let mut served = Ok(());
    handler.run_worker(&mut || served = serve.take().map_or(Ok(()), |serve| serve()));
    served
}

/// Serves as worker number `worker` until the server stops, or, in a process of its own, until its
/// parent does.
pub(super) fn serve<H: Handler>(
    handler: &H,
    shared: &Arc<Shared>,
    poller: Arc<Poller>,
    worker: usize,
    sockets: WorkerSockets,
    parent: Option<Parent>,
) -> io::Result<()> {
    // Until it has ended: the program's own thread may be one of the workers.
    let _pinned = shared.options.pin_workers.then(|| Pinned::new(worker)).transpose()?;
    let (mut server_loop, mut connections) = make_loop(handler, shared, poller, worker, sockets)?;
    let served = || {
        if shared.options.signals && parent.is_some() {
            watch_stop_signals(&server_loop.core.poller)?;
        }
        let mut pulse = None;
        if let Some(parent) = parent {
            server_loop.watch_stop_pipes(parent.stop_pipes)?;
            pulse = Some(parent.pulse);
        }
        between_start_and_end(shared, &mut server_loop, &mut connections, |server_loop, connections| {
            match pulse {
                Some(pulse) => server_loop.begin(WorkerLife::new(shared, pulse))?,
                None => shared.worker_serves(),
            }
            server_loop.run(connections, Until::Stopped)
        })
    };
    let served = served();
    shared.close_mailbox(connections.mailbox());
    served
}

/// The loop of a worker, and its connections.
pub(super) fn make_loop<H: Handler>(
    handler: H,
    shared: &Arc<Shared>,
    poller: Arc<Poller>,
    worker: usize,
    sockets: WorkerSockets,
) -> io::Result<(ServerLoop, Connections<H>)> {
    let driver = shared.driver()?;
    let (max_clients, admission) = (shared.share_of_clients(worker), shared.admission(worker, true));
    let mut connections = connections(handler, shared, &poller, worker, max_clients, admission)?;
    let is_unlimited = shared.options.each_loop.max_clients.is_none();
    let acceptor = Acceptor::new(sockets.listeners, sockets.is_shared, is_unlimited);
    let server_loop = ServerLoop::new(shared.clone(), poller, driver, acceptor, worker);
    for socket in sockets.datagrams {
        connections.open_datagrams(socket).inspect_err(|_| shared.close_mailbox(connections.mailbox()))?;
    }
    Ok((server_loop, connections))
}

/// Serves one accepted connection until it has ended.
pub(super) fn serve_client<H: Handler>(
    handler: &H,
    shared: &Arc<Shared>,
    poller: Arc<Poller>,
    accepted: Accepted,
    admission: Option<Admission>,
    stop_pipes: Option<Vec<OwnedFd>>,
) -> io::Result<()> {
    let driver = shared.driver()?;
    let mut connections = connections(handler, shared, &poller, 0, 1, admission)?;
    let mut server_loop = ServerLoop::new(shared.clone(), poller, driver, Acceptor::default(), 0);
    let served = || {
        if let Some(stop_pipes) = stop_pipes {
            server_loop.watch_stop_pipes(stop_pipes)?;
            if shared.options.signals {
                watch_stop_signals(&server_loop.core.poller)?;
            }
        }
        between_start_and_end(shared, &mut server_loop, &mut connections, |server_loop, connections| {
            connections.accept(&mut server_loop.core.driver, accepted);
            server_loop.run(connections, Until::Empty)
        })
    };
    let served = served();
    shared.close_mailbox(connections.mailbox());
    served
}

/// Calls the handler at the start and the end of a worker. In a child that it forks there, and that
/// returns, nothing is done.
fn between_start_and_end<H: Handler>(
    shared: &Shared,
    server_loop: &mut ServerLoop,
    connections: &mut Connections<H>,
    serve: impl FnOnce(&mut ServerLoop, &mut Connections<H>) -> io::Result<()>,
) -> io::Result<()> {
    let started = connections.start_worker();
    server_loop.check_is_in_parent()?;
    started.inspect_err(|error| shared.publish_start_failure(error))?;
    let served = serve(server_loop, connections);
    if server_loop.core.poller.is_owner() {
        connections.end_worker();
        server_loop.check_is_in_parent()?;
    }
    served
}

/// The connections of a loop that waits on `poller`, as the server's options have them.
fn connections<H: Handler>(
    handler: H,
    shared: &Arc<Shared>,
    poller: &Arc<Poller>,
    worker: usize,
    max_clients: usize,
    admission: Option<Admission>,
) -> io::Result<Connections<H>> {
    let (budget, groups) = (shared.budget.clone(), shared.groups.clone());
    let counters = shared.counters.of(worker);
    let mailbox = open_mailbox(worker, poller.clone(), budget, counters.clone(), groups)?;
    shared.register_loop(mailbox.clone());
    let server = shared.clone();
    let place = LoopPlace {
        poller: poller.clone(),
        mailbox,
        budget: shared.budget.clone(),
        counters,
        worker,
        driver_kind: shared.driver_kind,
        backlog: None,
        stop: Box::new(move |drain| server.stop(drain)),
        admission,
    };
    Ok(Connections::new(handler, place, &shared.options.each_loop, max_clients))
}
