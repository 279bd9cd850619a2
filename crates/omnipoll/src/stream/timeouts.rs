//! How long a connection may be silent.
//!
//! A timer that was moved at each byte would cost more than the byte. So each connection notes
//! when it last heard and last said something, and has one timer at its soonest deadline, which
//! is moved only when it has expired and turns out to be early, or when the deadline has come
//! nearer.

use std::time::{Duration, Instant};

/// The time. It is read anew each time: a handler's call may take long, and what is heard or said
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

/// What of a connection's state matters for its deadlines.
#[derive(Clone, Copy)]
pub(crate) struct Activity {
    pub(crate) is_reading: bool,
    pub(crate) is_writing: bool,
    /// It has ended and gives the peer this long to end too.
    pub(crate) lingers: Option<Duration>,
}

/// How many times as long as a silent peer one that goes on sending may take to end.
const LONGEST_LINGER: u64 = 15;

/// The limits of one connection in nanoseconds, 0 for none, and what they are counted from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timeouts {
    idle: u64,
    read: u64,
    write: u64,
    heard: u64,
    written: u64,
    /// When lingering began.
    lingers_since: u64,
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
        self.heard(clock);
        self.written(clock);
    }

    #[inline]
    fn is_any(&self) -> bool {
        self.idle | self.read | self.write != 0
    }

    /// Something was read, or reading begins anew.
    #[inline]
    pub(crate) fn heard(&mut self, clock: &Clock) {
        if self.is_any() {
            self.heard = clock.now();
        }
    }

    /// Something was sent, or the queue is no longer empty.
    #[inline]
    pub(crate) fn written(&mut self, clock: &Clock) {
        if self.is_any() {
            self.written = clock.now();
        }
    }

    /// Lingering begins.
    pub(crate) fn lingers(&mut self, clock: &Clock) {
        self.lingers_on(clock);
        self.lingers_since = self.heard;
    }

    /// Something was read while lingering.
    pub(crate) fn lingers_on(&mut self, clock: &Clock) {
        self.heard = clock.now();
    }

    /// When the connection has been silent for too long, if it may not be for ever.
    #[inline]
    pub(crate) fn deadline(&self, activity: Activity) -> Option<u64> {
        if let Some(linger) = activity.lingers {
            let linger = limit(Some(linger));
            let longest = self.lingers_since.saturating_add(linger.saturating_mul(LONGEST_LINGER));
            return Some(self.heard.saturating_add(linger).min(longest));
        }
        if !self.is_any() {
            return None;
        }
        let idle = (self.idle, self.heard.max(self.written), true);
        let read = (self.read, self.heard, activity.is_reading);
        let write = (self.write, self.written, activity.is_writing);
        [idle, read, write]
            .into_iter()
            .filter(|&(limit, _, counts)| counts && limit != 0)
            .map(|(limit, since, _)| since.saturating_add(limit))
            .min()
    }
}
