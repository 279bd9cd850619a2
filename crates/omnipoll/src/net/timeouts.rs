//! [`Timeouts`]: how long a connection may be silent.
//!
//! A timer that was moved at each byte would cost more than the byte. So each connection records when
//! it last read and last wrote, and has one timer at its soonest deadline, which is moved only when it
//! has expired and turns out to be early, or when the deadline has come nearer. The alarm, the timer that
//! a handler has set, is one more deadline of that timer, so that moving it on costs no more.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// What a connection has been silent in for too long, as [`on_timeout`](crate::Handler::on_timeout) gets
/// it.
///
/// # Portability
///
/// The same on every system and engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timeout {
    /// Nothing was read or written.
    Idle = 1,
    /// Nothing was read while the connection was being read.
    Read = 2,
    /// Bytes were queued and none could be sent.
    Write = 3,
}

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
#[repr(C)]
pub(crate) struct Timeouts {
    write: u64,
    last_read: u64,
    /// While it lingers, and sends nothing: when that began.
    last_write: u64,
    /// When the handler's own timer is due, if it isn't 0.
    alarm: u64,
    /// When what was received so far has been received at the rate that is allowed.
    received_until: u64,
    /// When reading resumes, if it isn't 0.
    resume: u64,
    /// The poller's timer, if it isn't 0, and for when it is armed; not at all at the end of time.
    pub(super) timer: u64,
    pub(super) armed: u64,
    // Last, beside what else each message needs: see `Connection`.
    pub(super) idle: u64,
    read: u64,
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
        new.restart(clock);
        new
    }

    pub(crate) fn set_idle(&mut self, timeout: Option<Duration>, clock: &Clock) {
        self.idle = limit(timeout);
        self.restart(clock);
    }

    pub(crate) fn set_read(&mut self, timeout: Option<Duration>, clock: &Clock) {
        self.read = limit(timeout);
        self.restart(clock);
    }

    pub(crate) fn set_write(&mut self, timeout: Option<Duration>, clock: &Clock) {
        self.write = limit(timeout);
        self.restart(clock);
    }

    /// Every limit is counted from now.
    pub(crate) fn restart(&mut self, clock: &Clock) {
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

    /// So many bytes were received, of which there may be `rate` a second: reading pauses when more have come
    /// at once than in one second. Returns whether it is paused.
    pub(super) fn charge(&mut self, bytes: usize, rate: NonZeroU64, clock: &Clock) -> bool {
        const SECOND: u64 = 1_000_000_000;
        let (now, time) = (clock.now(), u128::from(SECOND) * bytes as u128 / u128::from(rate.get()));
        let time = u64::try_from(time).unwrap_or(u64::MAX / 2);
        self.received_until = self.received_until.max(now).saturating_add(time);
        if self.received_until > now.saturating_add(SECOND) {
            self.resume = self.received_until - SECOND;
        }
        self.resume != 0
    }

    /// Whether it is time to read again after a [`charge`](Self::charge) that has paused it.
    pub(super) fn resume_if_due(&mut self, clock: &Clock) -> bool {
        let is_due = self.resume <= clock.now();
        if is_due {
            self.resume = 0;
            self.note_read(clock);
        }
        is_due
    }

    /// Lingering begins.
    pub(crate) fn start_linger(&mut self, clock: &Clock) {
        self.extend_linger(clock);
        self.last_write = self.last_read;
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

    /// Sets the alarm. Returns when it is due.
    pub(crate) fn set_alarm(&mut self, delay: Option<Duration>, clock: &Clock) -> Option<u64> {
        // A delay of nothing at all is the shortest there is.
        self.alarm = delay.map_or(0, |delay| clock.now().saturating_add(limit(Some(delay))));
        self.alarm()
    }

    fn alarm(&self) -> Option<u64> {
        (self.alarm != 0).then_some(self.alarm)
    }

    /// When something is to be done, whether the connection is silent or not.
    pub(super) fn due(&self) -> Option<u64> {
        let resume = (self.resume != 0).then_some(self.resume);
        self.alarm().into_iter().chain(resume).min()
    }

    /// Takes the alarm if it is due.
    pub(super) fn take_due_alarm(&mut self, clock: &Clock) -> bool {
        let is_due = self.alarm().is_some_and(|alarm| alarm <= clock.now());
        if is_due {
            self.alarm = 0;
        }
        is_due
    }

    /// When the connection will have been silent for too long, if it has a limit.
    #[inline]
    pub(crate) fn deadline(&self, activity: Activity) -> Option<u64> {
        if let Some(linger) = activity.linger {
            let linger = limit(Some(linger));
            let longest = self.last_write.saturating_add(linger.saturating_mul(LONGEST_LINGER));
            return Some(self.last_read.saturating_add(linger).min(longest));
        }
        self.soonest(activity).map(|(deadline, _)| deadline)
    }

    /// Which limit is exceeded first, and when.
    #[inline]
    pub(super) fn soonest(&self, activity: Activity) -> Option<(u64, Timeout)> {
        let write = if activity.is_writing { self.write } else { 0 };
        if self.idle | self.read | write == 0 {
            return None;
        }
        let read = if activity.is_reading { self.read } else { 0 };
        [
            (self.idle, self.last_read.max(self.last_write), Timeout::Idle),
            (read, self.last_read, Timeout::Read),
            (write, self.last_write, Timeout::Write),
        ]
        .into_iter()
        .filter(|&(limit, ..)| limit != 0)
        .map(|(limit, since, which)| (since.saturating_add(limit), which))
        .min_by_key(|&(deadline, _)| deadline)
    }
}
