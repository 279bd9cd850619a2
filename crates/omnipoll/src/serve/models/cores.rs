//! [`Model::Cores`](crate::Model::Cores): a loop for each core, each in a thread of its own.
//!
//! The first is in the thread that called `run`, and wakes the others when they must stop: it ends last.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::super::shared::Shared;
use super::super::worker::{self, WorkerSockets};
use crate::error::{Describe, Error};
use crate::event_loop::Handler;
use crate::Poller;

pub(in super::super) fn run<H: Handler + Sync>(
    handler: &H,
    shared: &Arc<Shared>,
    sockets: Vec<WorkerSockets>,
) -> io::Result<()> {
    let serve = &|number: usize, poller: Arc<Poller>, sockets: WorkerSockets| {
        // If one loop fails, all end.
        worker::serve(handler, shared, poller, number, sockets, None).inspect_err(|_| stop_all(shared))
    };
    thread::scope(|scope| {
        let mut sockets = sockets.into_iter().enumerate();
        let first = sockets.next().map(|(_, sockets)| sockets).unwrap_or_default();
        let mut others = Vec::new();
        let mut served = Ok(());
        for (number, sockets) in sockets {
            let run = move |poller| {
                // The words of an error belong to a thread: they go with it to the one that returns it.
                let served =
                    worker::run_worker(handler, || serve(number, poller, sockets)).map_err(Error::from);
                leave(shared);
                served
            };
            shared.other_loops.fetch_add(1, Ordering::Relaxed);
            let thread = shared.poller().and_then(|poller| {
                let name = format!("omnipoll-{number}");
                thread::Builder::new()
                    .name(name)
                    .spawn_scoped(scope, move || run(poller))
                    .describe("pthread_create")
            });
            match thread {
                Ok(thread) => others.push(thread),
                Err(error) => {
                    leave(shared);
                    stop_all(shared);
                    served = Err(error.into());
                    break;
                }
            }
        }
        served = served.and(serve(0, shared.control.clone(), first).map_err(Error::from));
        for thread in others {
            let ended = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            served = served.and(ended);
        }
        Ok(served?)
    })
}

/// A loop has ended, which the first may wait for.
fn leave(shared: &Shared) {
    shared.other_loops.fetch_sub(1, Ordering::Release);
    let _ = shared.control.wake();
}

fn stop_all(shared: &Shared) {
    // It fails only if the program has closed the control poller's descriptor.
    let _ = shared.stop(Some(Duration::ZERO));
    // Not left to the first loop, which may be the one that has failed.
    shared.wake_workers();
}
