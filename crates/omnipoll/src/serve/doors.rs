//! The listening sockets of one loop.
//!
//! `accept(2)` fails with EMFILE or ENFILE and leaves the client in the queue, so that a loop
//! under LEVEL which goes on watching spins, and one that stops must know when to look again.
//! Here the doors are shut: until a client of this loop has gone, or a moment has passed.
//!
//! Where the loop has a ring, and its doors for itself and without a bound, the ring lets clients in
//! and they wait here to be welcomed.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::tokens;
use crate::errno::{self, About};
use crate::net::{Count, Counter, Listener};
use crate::sys::{Completion, Peer};
use crate::{Capabilities, Interest, Poller, Trigger};

/// Clients accepted from one door before the others get their turn.
const BATCH: usize = 64;
/// A worker that shares its doors takes no more than this at once: the others are awake too.
const SHARED_BATCH: usize = 8;
/// How long to wait for what the system is short of, when no client of ours will give it back.
pub(super) const RETRY: Duration = Duration::from_millis(100);

/// Who looks after a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeper {
    /// Nobody: it is shut.
    Nobody,
    /// The poller tells when somebody has come.
    Poller,
    /// The ring lets in who comes, until it says that it has ended.
    Ring,
}

#[derive(Debug)]
struct Door {
    listener: Listener,
    keeper: Keeper,
}

/// The listening sockets of one loop, open or shut together.
#[derive(Debug, Default)]
pub(super) struct Doors {
    doors: Vec<Door>,
    /// Other loops accept from the same sockets.
    shared: bool,
    /// As many may come as like.
    unbounded: bool,
    /// Whom the ring has let in, or why it has not.
    arrived: VecDeque<io::Result<(OwnedFd, Peer)>>,
    /// How many clients in a row were lost before the ring could let them in.
    lost: usize,
    /// The timer that will open them again.
    retry: Option<u64>,
}

impl Doors {
    pub(super) fn new(listeners: Vec<Listener>, shared: bool, unbounded: bool) -> Self {
        let doors = listeners.into_iter().map(|listener| Door { listener, keeper: Keeper::Nobody });
        Self { doors: doors.collect(), shared, unbounded, ..Self::default() }
    }

    /// Has those looked after that are not: by the ring, where it may. When the system is short of
    /// something it is tried again in a moment.
    pub(super) fn open(
        &mut self,
        poller: &Poller,
        count: &Count,
        ring: Option<&mut Completion>,
    ) -> io::Result<()> {
        match self.try_to_open(poller, ring) {
            Err(error) if errno::of_registration(&error) == About::Moment => self.pause(poller, count),
            result => result,
        }
    }

    fn try_to_open(&mut self, poller: &Poller, ring: Option<&mut Completion>) -> io::Result<()> {
        if let Some(timer) = self.retry.take() {
            // It is stale when it is what has brought us here.
            let _ = poller.timer_cancel(timer);
        }
        let mut ring = ring.filter(|_| self.unbounded && !self.shared);
        let exclusive = self.shared && poller.capabilities().contains(Capabilities::HAS_EXCLUSIVE);
        let interest = match exclusive {
            true => Interest::READ | Trigger::EXCLUSIVE,
            false => Interest::READ,
        };
        for (number, door) in self.doors.iter_mut().enumerate() {
            match (door.keeper, &mut ring) {
                (Keeper::Nobody, Some(ring)) => {
                    ring.accept(door.listener.as_fd(), number)?;
                    door.keeper = Keeper::Ring;
                }
                (Keeper::Nobody, None) => {
                    poller.add(&door.listener, interest, tokens::DOORS + number as u64)?;
                    door.keeper = Keeper::Poller;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Watches them no more; who comes waits in the sockets' queues. What the ring keeps stays open:
    /// it knows no bound, and ends by itself when it is short of something.
    pub(super) fn shut(&mut self, poller: &Poller) {
        for door in self.doors.iter_mut().filter(|door| door.keeper == Keeper::Poller) {
            let _ = poller.remove(&door.listener);
            door.keeper = Keeper::Nobody;
        }
    }

    /// Has the ring let nobody in any more. Whom it lets in before it knows still
    /// [arrives](Self::arrive).
    pub(super) fn dismiss(&mut self, ring: &mut Completion) -> io::Result<()> {
        for (number, door) in self.doors.iter_mut().enumerate() {
            if door.keeper == Keeper::Ring {
                ring.accept_no_more(number)?;
            }
        }
        Ok(())
    }

    /// Has the kernel wake the other loops before this one. Of those that watch a socket with
    /// EXCLUSIVE it wakes the one that has done so for the longest: always the same, unless that
    /// one begins anew when it has let somebody in.
    pub(super) fn let_others_go_first(&mut self, poller: &Poller, count: &Count) -> io::Result<()> {
        if self.shared && self.is_open() {
            self.shut(poller);
            self.open(poller, count, None)?;
        }
        Ok(())
    }

    /// Closes them for good.
    pub(super) fn give_up(&mut self, poller: &Poller) {
        self.shut(poller);
        if let Some(timer) = self.retry.take() {
            let _ = poller.timer_cancel(timer);
        }
        self.doors.clear();
    }

    /// How many clients to take from one door before looking at the others.
    pub(super) fn batch(&self) -> usize {
        match self.shared {
            true => SHARED_BATCH,
            false => BATCH,
        }
    }

    /// The next client of a door, if there is one. Shuts the doors when the system is short of
    /// something.
    pub(super) fn accept(
        &mut self,
        door: usize,
        poller: &Poller,
        count: &Count,
    ) -> io::Result<Option<(OwnedFd, Peer)>> {
        let Some(Door { listener, .. }) = self.doors.get(door) else { return Ok(None) };
        // What concerns so many clients is no client's.
        for _ in 0..BATCH {
            match listener.accept() {
                Ok(client) => return Ok(Some(client)),
                Err(error) if errno::of_accept(&error) == About::Peer => {}
                Err(error) => return self.bear(error, poller, count).map(|()| None),
            }
        }
        self.pause(poller, count).map(|()| None)
    }

    /// The ring has let somebody in at a door, or says why not.
    pub(super) fn arrive(&mut self, door: usize, arrived: io::Result<(OwnedFd, Peer)>, goes_on: bool) {
        // Without a door they were closed for good, before the ring knew.
        let Some(door) = self.doors.get_mut(door) else { return };
        if !goes_on {
            door.keeper = Keeper::Nobody;
        }
        self.arrived.push_back(arrived);
    }

    /// The next of those whom the ring has let in.
    pub(super) fn arrival(&mut self, poller: &Poller, count: &Count) -> io::Result<Option<(OwnedFd, Peer)>> {
        while let Some(arrived) = self.arrived.pop_front() {
            match arrived {
                Ok(client) => {
                    self.lost = 0;
                    return Ok(Some(client));
                }
                Err(error) if errno::of_accept(&error) == About::Peer && self.lost < BATCH => self.lost += 1,
                Err(error) if errno::of_accept(&error) == About::Peer => self.pause(poller, count)?,
                Err(error) => self.bear(error, poller, count)?,
            }
        }
        Ok(None)
    }

    /// Takes an error for what it is: a want of something passes.
    fn bear(&mut self, error: io::Error, poller: &Poller, count: &Count) -> io::Result<()> {
        match errno::of_accept(&error) {
            About::Nothing | About::Peer => Ok(()),
            About::Moment => self.pause(poller, count),
            About::Call => Err(error),
        }
    }

    /// Shuts them until there is hope that it helps, and counts that.
    pub(super) fn pause(&mut self, poller: &Poller, count: &Count) -> io::Result<()> {
        self.shut(poller);
        if self.retry.is_none() {
            count.add(Counter::AcceptPauses, 1);
            self.retry = Some(poller.timer_add(RETRY, None, tokens::RETRY)?);
        }
        Ok(())
    }

    pub(super) fn is_open(&self) -> bool {
        self.doors.iter().all(|door| door.keeper != Keeper::Nobody)
    }

    /// Whether the ring may still let somebody in.
    pub(super) fn has_ring(&self) -> bool {
        self.doors.iter().any(|door| door.keeper == Keeper::Ring)
    }

    /// Whether somebody waits to be welcomed.
    pub(super) fn have_arrivals(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Whether they will be opened when a moment has passed.
    pub(super) fn is_waiting(&self) -> bool {
        self.retry.is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.doors.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::plain;
    use crate::net::Counts;

    #[test]
    fn a_ring_that_lets_nobody_in_is_asked_later() {
        let (poller, counts) = (Poller::new().unwrap(), Counts::new(1).unwrap());
        let listeners = Listener::open(&"127.0.0.1:0".parse().unwrap(), 1, false).unwrap();
        let mut doors = Doors::new(listeners, false, true);
        for _ in 0..=BATCH {
            assert!(!doors.is_waiting());
            doors.arrive(0, Err(plain(libc::EPERM)), false);
            assert!(doors.arrival(&poller, &counts.of(0)).unwrap().is_none());
        }
        assert!(doors.is_waiting());
    }
}
