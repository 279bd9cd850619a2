//! [`Timeouts`]: how long a connection may be silent.
//!
//! A timer that was moved at each byte would cost more than the byte. So each connection records when
//! it last read and last wrote, and has one timer at its soonest deadline, which is moved only when it
//! has expired and turns out to be early, or when the deadline has come nearer.

use std::time::{Duration, Instant};

/// The time. It is read again at each use: a handler's call may take long, and what is read or written
/// after it must not count as old.
#[derive(Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now() }
    }

    /// Nanoseconds since some moment.
    pub(crate) fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }
}

/// The part of a connection's state that its deadlines depend on.
#[derive(Clone, Copy)]
pub(crate) struct Activity {
    pub(crate) is_reading: bool,
    pub(crate) is_writing: bool,
    /// It lingers, for so long.
    pub(crate) linger: Option<Duration>,
}

/// How many times the linger time a peer that keeps sending gets in all.
const LONGEST_LINGER: u64 = 15;

/// The limits of one connection in nanoseconds, 0 for none, and what they are counted from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timeouts {
    idle: u64,
    read: u64,
    write: u64,
    last_read: u64,
    last_write: u64,
    /// When lingering began.
    linger_start: u64,
    /// The timer that is armed, if it isn't 0, and for when.
    pub(crate) timer: u64,
    pub(crate) armed: u64,
}

fn limit(timeout: Option<Duration>) -> u64 {
    // A limit of nothing at all is the shortest there is; 0 stands for none.
    timeout.map_or(0, |timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX).max(1))
}

impl Timeouts {
    pub(crate) fn new(
        idle: Option<Duration>,
        read: Option<Duration>,
        write: Option<Duration>,
        clock: &Clock,
    ) -> Self {
        let mut new = Self { idle: limit(idle), read: limit(read), write: limit(write), ..Self::default() };
        new.begin(clock);
        new
    }

    pub(crate) fn set_idle(&mut self, timeout: Option<Duration>, clock: &Clock) {
        self.idle = limit(timeout);
        self.begin(clock);
    }

    pub(crate) fn set_read(&mut self, timeout: Option<Duration>, clock: &Clock) {
        self.read = limit(timeout);
        self.begin(clock);
    }

    pub(crate) fn set_write(&mut self, timeout: Option<Duration>, clock: &Clock) {
        self.write = limit(timeout);
        self.begin(clock);
    }

    fn begin(&mut self, clock: &Clock) {
        self.note_read(clock);
        self.note_queued(clock);
    }

    /// Something was read, or reading resumes.
    #[inline]
    pub(crate) fn note_read(&mut self, clock: &Clock) {
        if self.limits_reading() {
            self.last_read = clock.now();
        }
    }

    /// Something was sent; `waits` when that was not all. Most connections have a write timeout, and
    /// most writes leave nothing to wait for, so that the clock need not be read.
    #[inline]
    pub(crate) fn note_sent(&mut self, waits: bool, clock: &Clock) {
        if self.idle != 0 || waits && self.write != 0 {
            self.last_write = clock.now();
        }
    }

    /// The queue is no longer empty.
    #[inline]
    pub(crate) fn note_queued(&mut self, clock: &Clock) {
        if self.idle | self.write != 0 {
            self.last_write = clock.now();
        }
    }

    /// Lingering begins.
    pub(crate) fn start_linger(&mut self, clock: &Clock) {
        self.extend_linger(clock);
        self.linger_start = self.last_read;
    }

    /// Something was read while lingering.
    pub(crate) fn extend_linger(&mut self, clock: &Clock) {
        self.last_read = clock.now();
    }

    /// Whether a connection with nothing to send has a deadline; most have none.
    #[inline]
    pub(crate) fn limits_reading(&self) -> bool {
        self.idle | self.read != 0
    }

    /// When the connection will have been silent for too long, if it has a limit.
    #[inline]
    pub(crate) fn deadline(&self, activity: Activity) -> Option<u64> {
        if let Some(linger) = activity.linger {
            let linger = limit(Some(linger));
            let longest = self.linger_start.saturating_add(linger.saturating_mul(LONGEST_LINGER));
            return Some(self.last_read.saturating_add(linger).min(longest));
        }
        let write = if activity.is_writing { self.write } else { 0 };
        if self.idle | self.read | write == 0 {
            return None;
        }
        let read = if activity.is_reading { self.read } else { 0 };
        [(self.idle, self.last_read.max(self.last_write)), (read, self.last_read), (write, self.last_write)]
            .into_iter()
            .filter(|&(limit, _)| limit != 0)
            .map(|(limit, since)| since.saturating_add(limit))
            .min()
    }
}
