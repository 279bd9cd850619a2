//! [`Model::Reactor`](crate::Model::Reactor): one loop, in the thread that called `run`.

use std::io;
use std::sync::Arc;

use super::super::shared::Shared;
use super::super::worker::{self, WorkerSockets};
use crate::event_loop::Handler;

pub(in super::super) fn run<H: Handler>(
    handler: &H,
    shared: &Arc<Shared>,
    sockets: WorkerSockets,
) -> io::Result<()> {
    worker::serve(handler, shared, shared.control.clone(), 0, sockets, None)
}
