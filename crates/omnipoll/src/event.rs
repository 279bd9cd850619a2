//! What a wait returns: [`Event`], in the caller's reusable [`Events`].

use std::os::fd::RawFd;

/// One event. Its layout is `omni_event` of the C API: 24 bytes, no padding, and every bit
/// pattern a valid value.
///
/// # Portability
///
/// Every method is the same on every system and engine. [`is_hangup`](Self::is_hangup),
/// [`is_error`](Self::is_error) and [`is_read_closed`](Self::is_read_closed) are never true on one whose
/// [`Capabilities`](crate::Capabilities) don't have them.
///
/// ```
/// use omnipoll::{EventKind, Events, Interest, Poller};
/// use std::os::unix::net::UnixStream;
///
/// let (ours, theirs) = UnixStream::pair()?;
/// let poller = Poller::new()?;
/// poller.add(&ours, Interest::READ, 7)?;
/// drop(theirs);
/// let mut events = Events::with_capacity(8);
/// poller.wait(&mut events, None)?;
/// for event in &events {
///     assert_eq!((event.token(), event.kind()), (7, EventKind::Io));
///     assert!(event.is_readable() && !event.is_writable());
///     if poller.capabilities().contains(omnipoll::Capabilities::REPORTS_HANGUP) {
///         assert!(event.is_hangup() && !event.is_error() && !event.is_invalid());
///     }
/// }
/// # poller.remove(&ours)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    token: u64,
    value: i64,
    ready: u32,
    kind: u32,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum EventKind {
    /// A descriptor is ready; the value is the descriptor.
    Io = 1,
    /// A timer expired; the value is how many of its periods have passed.
    Timer = 2,
    /// A signal arrived; the value is its number, and [`Event::count`] how often it came.
    Signal = 3,
    /// A child ended and was reaped; the value is its status as wait(2) has it, or -1 when
    /// it was reaped elsewhere, which leaves the status unknown.
    Child = 4,
    /// [`Poller::wake`](crate::Poller::wake) was called; the value is how often since the last such
    /// event.
    Wake = 5,
    /// [`Poller::post`](crate::Poller::post) was called; token and value are as posted.
    Post = 6,
}

/// What a descriptor is ready for. READ and WRITE mean the same on every engine: a read, or
/// a write, would not block (it may return an error, or end of file). The flags after
/// PRIORITY say why, where the engine can tell them apart: see [`Capabilities`](crate::Capabilities).
///
/// # Portability
///
/// The methods are the same on every system and engine.
///
/// ```
/// use omnipoll::Ready;
///
/// let ready = Ready::READ | Ready::HANGUP;
/// assert!(ready.contains(Ready::READ) && !ready.is_empty());
/// assert!(ready.intersects(Ready::HANGUP | Ready::ERROR));
/// assert!(!ready.contains(Ready::HANGUP | Ready::ERROR));
/// assert_eq!(ready.bits(), 0x11);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ready(u32);

impl Ready {
    /// A read would not block: data, end of file, a connection to accept, hang-up or an error.
    pub const READ: Self = Self(1);
    /// A write would not block: room, or an error.
    pub const WRITE: Self = Self(2);
    /// Urgent data (`POLLPRI`).
    pub const PRIORITY: Self = Self(4);
    /// The peer will send no more (`POLLRDHUP`); what it sent may still have to be read.
    pub const READ_CLOSED: Self = Self(8);
    /// Both directions are closed (`POLLHUP`); what was sent may still have to be read.
    pub const HANGUP: Self = Self(16);
    /// An error is pending (`POLLERR`): `getsockopt(SO_ERROR)` or the next read or write returns it.
    pub const ERROR: Self = Self(32);
    /// The descriptor was closed while registered; the registration has ended. Reported once.
    pub const INVALID: Self = Self(64);

    /// What is reported whatever was asked for.
    pub(crate) const FAILURES: Self = Self(Self::HANGUP.0 | Self::ERROR.0);

    /// The bits of the C API.
    ///
    /// See the example of [`Ready`].
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether no flag is set.
    ///
    /// See the example of [`Ready`].
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether every flag of `other` is set.
    ///
    /// See the example of [`Ready`].
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any flag of `other` is set.
    ///
    /// See the example of [`Ready`].
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// What says why, without READ, WRITE and PRIORITY.
    pub(crate) const fn without_directions(self) -> Self {
        Self(self.0 & !7)
    }

    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

impl std::ops::BitOr for Ready {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Event {
    /// An event as a wait returns it, for the tests of what handles events. Its
    /// [count](Event::count) is 1; [`Event::io`] and [`Event::signal`] make those of their kinds whole.
    ///
    /// ```
    /// use omnipoll::{Event, EventKind};
    ///
    /// let expired = Event::new(EventKind::Timer, 7, 2);
    /// assert_eq!((expired.token(), expired.value()), (7, 2));
    /// ```
    pub const fn new(kind: EventKind, token: u64, value: i64) -> Self {
        match kind {
            EventKind::Signal => Self::signal(token, value as i32, 1),
            _ => Self { token, value, ready: 0, kind: kind as u32 },
        }
    }

    /// An IO event: the descriptor `fd` is ready.
    ///
    /// ```
    /// use omnipoll::{Event, Ready};
    ///
    /// let event = Event::io(7, 3, Ready::READ | Ready::READ_CLOSED);
    /// assert!(event.is_readable() && event.is_read_closed() && !event.is_priority());
    /// assert_eq!(event.ready(), Ready::READ | Ready::READ_CLOSED);
    /// ```
    pub const fn io(token: u64, fd: RawFd, ready: Ready) -> Self {
        Self { token, value: fd as i64, ready: ready.0, kind: EventKind::Io as u32 }
    }

    /// A SIGNAL event: the signal `signo` came `count` times.
    ///
    /// ```
    /// use omnipoll::{Event, EventKind};
    ///
    /// let event = Event::signal(7, 15, 2);
    /// assert_eq!((event.kind(), event.value(), event.count()), (EventKind::Signal, 15, 2));
    /// ```
    pub const fn signal(token: u64, signo: i32, count: u32) -> Self {
        Self { token, value: signo as i64, ready: count, kind: EventKind::Signal as u32 }
    }

    /// The same event, saying that the descriptor was closed.
    pub(crate) const fn invalid(self) -> Self {
        Self { ready: Ready::INVALID.0, ..self }
    }

    /// The token given at registration; 0 for a wake.
    ///
    /// See the example of [`Event`].
    pub const fn token(&self) -> u64 {
        self.token
    }

    /// What happened.
    ///
    /// See the example of [`Event`].
    pub const fn kind(&self) -> EventKind {
        match self.kind {
            2 => EventKind::Timer,
            3 => EventKind::Signal,
            4 => EventKind::Child,
            5 => EventKind::Wake,
            6 => EventKind::Post,
            _ => EventKind::Io,
        }
    }

    /// What the kind says: the descriptor, the periods, the signal's number, the status, the
    /// wakes, or what was posted.
    ///
    /// See the example of [`Event::new`].
    pub const fn value(&self) -> i64 {
        self.value
    }

    /// What the descriptor is ready for; empty unless the kind is IO.
    ///
    /// See the example of [`Event::io`].
    pub const fn ready(&self) -> Ready {
        match self.kind() {
            EventKind::Io => Ready(self.ready),
            _ => Ready(0),
        }
    }

    /// How often the signal came, of which there is one event; 1 for any other event.
    ///
    /// See the example of [`Event::signal`].
    pub const fn count(&self) -> u32 {
        match self.kind() {
            EventKind::Signal => self.ready,
            _ => 1,
        }
    }

    /// Whether a read would not block: [`Ready::READ`].
    ///
    /// See the example of [`Event`].
    pub const fn is_readable(&self) -> bool {
        self.ready().contains(Ready::READ)
    }

    /// Whether a write would not block: [`Ready::WRITE`].
    ///
    /// See the example of [`Event`].
    pub const fn is_writable(&self) -> bool {
        self.ready().contains(Ready::WRITE)
    }

    /// Whether there is urgent data: [`Ready::PRIORITY`].
    ///
    /// See the example of [`Event::io`].
    pub const fn is_priority(&self) -> bool {
        self.ready().contains(Ready::PRIORITY)
    }

    /// Whether the peer will send no more: [`Ready::READ_CLOSED`].
    ///
    /// See the example of [`Event::io`].
    pub const fn is_read_closed(&self) -> bool {
        self.ready().contains(Ready::READ_CLOSED)
    }

    /// Whether both directions are closed: [`Ready::HANGUP`].
    ///
    /// See the example of [`Event`].
    pub const fn is_hangup(&self) -> bool {
        self.ready().contains(Ready::HANGUP)
    }

    /// Whether an error is pending: [`Ready::ERROR`].
    ///
    /// See the example of [`Event`].
    pub const fn is_error(&self) -> bool {
        self.ready().contains(Ready::ERROR)
    }

    /// Whether the descriptor was closed while registered: [`Ready::INVALID`].
    ///
    /// See the example of [`Event`].
    pub const fn is_invalid(&self) -> bool {
        self.ready().contains(Ready::INVALID)
    }
}

/// The caller's buffer of events: filled by [`Poller::wait`](crate::Poller::wait), reused
/// from wait to wait, never grown.
///
/// # Portability
///
/// The same on every system and engine.
///
/// ```
/// use omnipoll::{Events, Poller};
///
/// let poller = Poller::new()?;
/// let mut events = Events::with_capacity(64);
/// poller.wake()?;
/// poller.wait(&mut events, None)?;
/// assert_eq!((events.len(), events.capacity()), (1, 64));
/// assert!(!events.is_empty() && events.iter().all(|event| event.token() == 0));
/// for event in &events {
///     println!("{event:?}");
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Events {
    list: Vec<Event>,
    capacity: usize,
}

impl Events {
    /// Room for `capacity` events; what is ready beyond that is returned by the waits that follow.
    /// A wait into a buffer without room is an error (`EINVAL`). Aborts when there is no memory for
    /// it, as [`Vec::with_capacity`] does.
    ///
    /// See the example of [`Events`].
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { list: Vec::with_capacity(capacity), capacity }
    }

    /// The most events one wait returns.
    ///
    /// See the example of [`Events`].
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many events the last wait returned.
    ///
    /// See the example of [`Events`].
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether the last wait returned none.
    ///
    /// See the example of [`Events`].
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The events of the last wait.
    ///
    /// See the example of [`Events`].
    pub fn iter(&self) -> std::slice::Iter<'_, Event> {
        self.list.iter()
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    /// Empties the list and lends it to a wait.
    pub(crate) fn refill(&mut self) -> (&mut Vec<Event>, usize) {
        self.list.clear();
        (&mut self.list, self.capacity)
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = &'a Event;
    type IntoIter = std::slice::Iter<'a, Event>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const NAMES: [(u32, &str); 7] = [
            (1, "READ"),
            (2, "WRITE"),
            (4, "PRIORITY"),
            (8, "READ_CLOSED"),
            (16, "HANGUP"),
            (32, "ERROR"),
            (64, "INVALID"),
        ];
        write_names(f, self.0, &NAMES)
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event")
            .field("kind", &self.kind())
            .field("token", &self.token)
            .field("value", &self.value)
            .field("ready", &self.ready())
            .finish()
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

/// Writes the names of the bits that are set, joined by `|`; `0` when none is.
pub(crate) fn write_names(
    f: &mut std::fmt::Formatter<'_>,
    bits: u32,
    names: &[(u32, &str)],
) -> std::fmt::Result {
    let mut separator = "";
    for (_, name) in names.iter().filter(|(bit, _)| bits & bit != 0) {
        write!(f, "{separator}{name}")?;
        separator = "|";
    }
    if separator.is_empty() {
        f.write_str("0")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Question = fn(&Event) -> bool;

    const QUESTIONS: [(Ready, Question); 7] = [
        (Ready::READ, Event::is_readable),
        (Ready::WRITE, Event::is_writable),
        (Ready::PRIORITY, Event::is_priority),
        (Ready::READ_CLOSED, Event::is_read_closed),
        (Ready::HANGUP, Event::is_hangup),
        (Ready::ERROR, Event::is_error),
        (Ready::INVALID, Event::is_invalid),
    ];

    #[test]
    fn each_flag_alone_answers_its_own_question() {
        for (flag, _) in QUESTIONS {
            let event = Event::io(7, 3, flag);
            for (asked, question) in QUESTIONS {
                assert_eq!(question(&event), asked == flag, "{asked:?} of {event:?}");
                assert_eq!(flag.contains(asked), asked == flag);
                assert_eq!(flag.intersects(asked), asked == flag);
            }
            assert!(!flag.is_empty());
        }
    }

    #[test]
    fn all_flags_answer_every_question_and_none_answers_no() {
        let all = QUESTIONS.into_iter().fold(Ready(0), |all, (flag, _)| all | flag);
        assert_eq!(all.bits(), 0x7f);
        assert!(Ready(0).is_empty());
        for (flag, question) in QUESTIONS {
            assert!(question(&Event::io(7, 3, all)) && all.contains(flag));
            assert!(!question(&Event::io(7, 3, Ready(0))));
        }
        let two = Ready::READ | Ready::WRITE;
        assert!(!Ready::READ.contains(two) && Ready::READ.intersects(two));
    }

    #[test]
    fn an_event_of_another_kind_is_ready_for_nothing() {
        use EventKind::{Child, Post, Signal, Timer, Wake};
        for kind in [Timer, Signal, Child, Wake, Post] {
            let event = Event::new(kind, 7, 2);
            assert_eq!((event.kind(), event.token(), event.value(), event.count()), (kind, 7, 2, 1));
            assert!(QUESTIONS.into_iter().all(|(_, question)| !question(&event)));
        }
        let signal = Event::signal(7, 15, 0x7f);
        assert_eq!((signal.count(), signal.ready()), (0x7f, Ready(0)));
        assert!(QUESTIONS.into_iter().all(|(_, question)| !question(&signal)));
        assert_eq!(Event::io(7, 3, Ready::WRITE).count(), 1);
    }
}
