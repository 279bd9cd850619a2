//! [`Event`], which is an interest too, and the list [`Events`].

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;

use omnipoll::{EventKind, Interest, Ready};

/// Of an interest, what to watch a descriptor for; of a wait, what it is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The caller's number for the descriptor. Anything but `usize::MAX`.
    pub key: usize,
    /// Whether a read would not block.
    pub readable: bool,
    /// Whether a write would not block.
    pub writable: bool,
    extra: Extra,
}

/// Why it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extra {
    interrupt: bool,
    priority: bool,
    /// `None` where the engine does not report it.
    error: Option<bool>,
}

impl Extra {
    const NONE: Self = Self { interrupt: false, priority: false, error: Some(false) };
}

impl Event {
    /// An interest in these directions.
    pub const fn new(key: usize, readable: bool, writable: bool) -> Self {
        Self { key, readable, writable, extra: Extra::NONE }
    }

    /// An interest in both directions.
    pub const fn all(key: usize) -> Self {
        Self::new(key, true, true)
    }

    /// An interest in reading.
    pub const fn readable(key: usize) -> Self {
        Self::new(key, true, false)
    }

    /// An interest in writing.
    pub const fn writable(key: usize) -> Self {
        Self::new(key, false, true)
    }

    /// An interest in nothing but hang-up and errors, which are reported whatever was asked for.
    pub const fn none(key: usize) -> Self {
        Self::new(key, false, false)
    }

    /// Adds hang-up, which is reported anyway, to an interest, or removes it.
    pub fn set_interrupt(&mut self, active: bool) {
        self.extra.interrupt = active;
    }

    /// The same interest with hang-up.
    pub fn with_interrupt(mut self) -> Self {
        self.set_interrupt(true);
        self
    }

    /// Adds urgent data, which an interest in reading includes, to an interest, or removes it.
    pub fn set_priority(&mut self, active: bool) {
        self.extra.priority = active;
    }

    /// The same interest with urgent data.
    pub fn with_priority(mut self) -> Self {
        self.set_priority(true);
        self
    }

    /// Whether both directions are closed. Never on select.
    pub fn is_interrupt(&self) -> bool {
        self.extra.interrupt
    }

    /// Whether there is urgent data.
    pub fn is_priority(&self) -> bool {
        self.extra.priority
    }

    /// Whether a connect has failed: an error, and hang-up. `None` on select, which does not report them.
    #[deprecated(since = "3.4.0", note = "use `is_err`")]
    pub fn is_connect_failed(&self) -> Option<bool> {
        self.is_err().map(|error| error && self.is_interrupt())
    }

    /// Whether an error is pending. `None` on select, which does not report it.
    pub fn is_err(&self) -> Option<bool> {
        self.extra.error
    }

    /// Removes what is beyond key and directions.
    pub fn clear_extra(&mut self) {
        self.extra = Extra::NONE;
    }

    /// The same event with key and directions alone, to be compared with another.
    pub fn with_no_extra(mut self) -> Self {
        self.clear_extra();
        self
    }

    pub(crate) fn directions(&self) -> Interest {
        let mut interest = Interest::NONE;
        if self.readable {
            interest |= Interest::READ | Interest::PRIORITY;
        }
        if self.writable {
            interest |= Interest::WRITE;
        }
        if self.extra.priority {
            interest |= Interest::PRIORITY;
        }
        interest
    }

    /// What an event of omnipoll is here. `None` for a wake, and for a closed descriptor, whose end epoll
    /// doesn't report.
    fn from_ready(event: &omnipoll::Event, reports_failures: bool) -> Option<Self> {
        if event.kind() != EventKind::Io || event.is_invalid() {
            return None;
        }
        let ready = event.ready();
        // As polling has it, both directions whatever was asked for.
        let failed = Ready::HANGUP | Ready::ERROR;
        Some(Self {
            key: event.token() as usize,
            readable: ready.intersects(Ready::READ | Ready::PRIORITY | failed),
            writable: ready.intersects(Ready::WRITE | failed),
            extra: Extra {
                interrupt: event.is_hangup(),
                priority: event.is_priority(),
                error: reports_failures.then_some(event.is_error()),
            },
        })
    }
}

/// A list of events, to which each wait adds its own.
pub struct Events {
    list: Vec<Event>,
    /// As the last wait of omnipoll returned them.
    batch: Vec<omnipoll::Event>,
    capacity: NonZeroUsize,
    /// As polling's, it is not `Sync`.
    _not_sync: PhantomData<Cell<()>>,
}

impl Events {
    /// Room for 1,024 events.
    pub fn new() -> Self {
        Self::with_capacity(NonZeroUsize::new(1_024).expect("it is not 0"))
    }

    /// Room for so many events. A wait that finds the list full is an error (`EINVAL`).
    pub fn with_capacity(capacity: NonZeroUsize) -> Self {
        let list = Vec::with_capacity(capacity.get());
        Self { list, batch: Vec::new(), capacity, _not_sync: PhantomData }
    }

    /// The events.
    pub fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.list.iter().copied()
    }

    /// Removes all of them.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there is room for.
    pub fn capacity(&self) -> NonZeroUsize {
        self.capacity
    }

    /// Lends a list for at most so many events to `wait`, and adds what it has put there.
    pub(crate) fn append<E>(
        &mut self,
        reports_failures: bool,
        wait: impl FnOnce(&mut Vec<omnipoll::Event>, usize) -> Result<usize, E>,
    ) -> Result<(), E> {
        self.batch.clear();
        wait(&mut self.batch, self.capacity.get() - self.list.len())?;
        let new = self.batch.iter().filter_map(|event| Event::from_ready(event, reports_failures));
        self.list.extend(new);
        Ok(())
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events { .. }")
    }
}
