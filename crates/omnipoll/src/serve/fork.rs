//! [`Model::Fork`](crate::Model::Fork): a process for each client, which ends with it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::children::Children;
use super::doors::Doors;
use super::front::{Front, House, Until};
use super::handler::Handler;
use super::shared::Shared;
use super::worker::{self, Openings};
use crate::net::Counter;
use crate::sys::Peer;
use crate::Event;

struct Forks<'h, H> {
    handler: &'h H,
    most: usize,
    children: Children,
}

pub(super) fn run<H: Handler>(handler: &H, shared: &Arc<Shared>, openings: Openings) -> io::Result<()> {
    let mut forks = Forks { handler, most: shared.share_of_clients(0), children: Children::new()? };
    let doors = Doors::new(openings.listeners, openings.shared, false);
    let mut front = Front::new(shared.clone(), shared.control.clone(), doors, 0);
    front.run(&mut forks, Until::Stopped)
}

impl<H: Handler> House for Forks<'_, H> {
    fn welcome(&mut self, front: &mut Front, socket: OwnedFd, peer: Peer) -> io::Result<()> {
        front.count.add(Counter::Accepted, 1);
        let (handler, shared, count) = (self.handler, front.shared.clone(), front.count.clone());
        // The parent drops the client's socket with the closure, uncalled.
        let forked = self.children.fork(front, 1, move |leash| {
            let serve =
                || worker::serve_client(handler, &shared, shared.poller()?, (socket, peer), Some(leash));
            // The parent sees the end of the child and counts the client's.
            worker::host(handler, serve).inspect_err(|_| count.add(Counter::Refused, 1))
        });
        match forked {
            Ok(_) => Ok(()),
            Err(_) => {
                front.count.add(Counter::Refused, 1);
                front.count.add(Counter::Closed, 1);
                front.doors.pause(&front.poller, &front.count)
            }
        }
    }

    fn is_full(&self) -> bool {
        self.children.len() >= self.most
    }

    fn is_empty(&self) -> bool {
        self.children.len() == 0
    }

    fn event(&mut self, front: &mut Front, event: &Event) -> io::Result<()> {
        if self.children.ended(event).is_some() {
            // One that was killed has not counted its client's end.
            front.count.leave_active(self.children.len() as u64);
        }
        Ok(())
    }

    fn interrupted(&mut self) -> io::Result<()> {
        self.handler.on_interrupt()
    }

    fn rest(&mut self, front: &mut Front) -> io::Result<()> {
        if !self.children.watch_all(front)?.is_empty() {
            front.count.leave_active(self.children.len() as u64);
        }
        Ok(())
    }

    fn stop(&mut self, front: &mut Front) {
        self.children.stop(&front.shared);
    }

    fn abandon(&mut self, front: &mut Front) {
        self.children.abandon(front);
    }
}
