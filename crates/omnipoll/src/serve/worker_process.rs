//! A worker process: [`WorkerProcess`] as its parent sees it, and [`WorkerLife`] as it sees itself.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pulse::Pulse;
use super::shared::Shared;
use super::tokens;
use crate::event_loop::Core;

/// How often a worker shows that it turns in the time after which it counts as hung.
const BEATS: u32 = 4;

/// One of the processes that serve, in its parent.
pub(super) struct WorkerProcess {
    /// As [`ChildProcesses`](super::child_processes::ChildProcesses) numbers them.
    pub(super) child: u64,
    pub(super) pulse: Pulse,
    pub(super) began: Instant,
    /// Closed when it is to stop for another one.
    retire: Option<OwnedFd>,
    last_beat: (u64, Instant),
}

impl WorkerProcess {
    pub(super) fn new(child: u64, pulse: Pulse, retire: OwnedFd) -> Self {
        let began = Instant::now();
        Self { child, pulse, began, retire: Some(retire), last_beat: (0, began) }
    }

    /// Has it accept no more, and end when its clients have, or the drain of the options is over.
    pub(super) fn retire(&mut self) {
        self.retire = None;
    }

    /// Whether its loop has not turned for `limit`. Asked often.
    pub(super) fn hangs(&mut self, limit: Duration) -> bool {
        let beats = self.pulse.beats();
        if beats != self.last_beat.0 {
            self.last_beat = (beats, Instant::now());
        }
        self.last_beat.1.elapsed() >= limit
    }
}

/// How often the parent asks, and a worker beats.
pub(super) fn beat_interval(limit: Duration) -> Duration {
    (limit / BEATS).max(Duration::from_millis(1))
}

/// What the loop of a worker process does for its parent.
pub(super) struct WorkerLife {
    shared: Arc<Shared>,
    pulse: Pulse,
    /// How many clients it accepts until another one should take its place.
    limit: u64,
}

impl WorkerLife {
    pub(super) fn new(shared: &Arc<Shared>, pulse: Pulse) -> Self {
        let limit = shared.options.clients_per_worker.map_or(u64::MAX, |(clients, jitter)| {
            // The keys of a forked process are its parent's.
            let random = RandomState::new().hash_one(std::process::id());
            clients.saturating_add(if jitter == 0 { 0 } else { random % (jitter + 1) })
        });
        Self { shared: shared.clone(), pulse, limit }
    }

    /// It begins to serve.
    pub(super) fn begin(&self, core: &Core) -> io::Result<()> {
        self.pulse.begin();
        self.arm(core)
    }

    /// Before a wait.
    #[inline]
    pub(super) fn advance(&self, core: &Core) {
        if core.admitted >= self.limit {
            self.pulse.ask_replacement();
        }
    }

    /// The time of the next beat has come, and the loop turns.
    pub(super) fn beat(&self, core: &Core) -> io::Result<()> {
        self.pulse.beat();
        self.arm(core)
    }

    fn arm(&self, core: &Core) -> io::Result<()> {
        match self.shared.options.hang_timeout {
            Some(limit) => core.poller.timer_add_reserved(beat_interval(limit), tokens::BEAT).map(drop),
            None => Ok(()),
        }
    }
}
