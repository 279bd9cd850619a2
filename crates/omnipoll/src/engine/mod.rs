//! The engines: one file for each system call, behind one trait.
//!
//! An engine keeps the set that its system call watches and says what is ready. It knows
//! nothing of timers, of threads, or of what a token means. There are two kinds: the kernel
//! keeps the set (`epoll` and `io_uring`), or the program does and passes it at each call (`select` and
//! `poll`, which share [`scan`]).

#[cfg(target_os = "linux")]
mod epoll;
mod in_flight;
mod poll;
mod scan;
mod select;
#[cfg(io_uring)]
mod uring;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::fail;
use crate::event::{Event, Ready};
use crate::feature::Feature;
use crate::interest::Interest;
use crate::registry::{InternalSource, Registry, Role, Tag};
use crate::sys::{OuterSet, Waker};

/// A multiplexing system call.
///
/// # Portability
///
/// Every name is known on every system; [`is_available`](Self::is_available) says which engines this one
/// has.
///
/// ```
/// use omnipoll::EngineKind;
///
/// assert!(EngineKind::Poll.is_available());
/// assert_eq!(EngineKind::from_name("epoll"), Some(EngineKind::Epoll));
/// assert_eq!(EngineKind::from_number(3), Some(EngineKind::Epoll));
/// for engine in EngineKind::ALL.into_iter().filter(|engine| engine.is_available()) {
///     println!("{}: {:?}", engine.name(), engine.capabilities());
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum EngineKind {
    /// `select(2)`: everywhere; its cost grows with the highest descriptor watched.
    Select = 1,
    /// `poll(2)`: everywhere; its cost grows with the number of descriptors watched.
    Poll = 2,
    /// `epoll(7)`: Linux; its cost grows with what is ready.
    Epoll = 3,
    /// `io_uring(7)`: Linux 5.17, where it is not forbidden; its cost grows with what is ready,
    /// and changes cost no system call of their own.
    IoUring = 4,
    /// `kqueue(2)`: not in this version.
    Kqueue = 5,
}

/// What an engine can distinguish: a set of flags.
///
/// # Portability
///
/// The flags and methods are the same on every system. select has no flag set, poll reports hang-up and, on
/// Linux, the peer's end, and epoll and io_uring have all of them.
///
/// ```
/// use omnipoll::{Capabilities, Poller};
///
/// let capabilities = Poller::new()?.capabilities();
/// if !capabilities.contains(Capabilities::NATIVE_EDGE) {
///     println!("an EDGE has to be rearmed");
/// }
/// assert_eq!(Capabilities::NATIVE_EDGE.bits(), 4);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Capabilities(u32);

impl Capabilities {
    /// HANGUP and ERROR are reported as such, besides READ and WRITE, and to an interest
    /// [without a direction](crate::Interest::NONE) too.
    pub const REPORTS_HANGUP: Self = Self(1);
    /// READ_CLOSED is reported when the peer has shut down its sending side.
    pub const REPORTS_READ_CLOSED: Self = Self(2);
    /// Edges come from the kernel: exact without [`rearm`](crate::Poller::rearm).
    pub const NATIVE_EDGE: Self = Self(4);
    /// [`Trigger::EXCLUSIVE`](crate::Trigger::EXCLUSIVE) is available.
    pub const HAS_EXCLUSIVE: Self = Self(8);

    /// The bits of the C API.
    ///
    /// See the example of [`Capabilities`].
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether every flag of `other` is set.
    ///
    /// See the example of [`Capabilities`].
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const NONE: Self = Self(0);
}

impl std::fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const NAMES: [(u32, &str); 4] =
            [(1, "REPORTS_HANGUP"), (2, "REPORTS_READ_CLOSED"), (4, "NATIVE_EDGE"), (8, "HAS_EXCLUSIVE")];
        crate::event::write_names(f, self.0, &NAMES)
    }
}

impl EngineKind {
    /// Every engine there is a name for.
    pub const ALL: [Self; 5] = [Self::Select, Self::Poll, Self::Epoll, Self::IoUring, Self::Kqueue];

    /// The name `OMNIPOLL_ENGINE` knows it by.
    ///
    /// See the example of [`EngineKind`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::Select => "select",
            Self::Poll => "poll",
            Self::Epoll => "epoll",
            Self::IoUring => "io_uring",
            Self::Kqueue => "kqueue",
        }
    }

    /// The engine of that name.
    ///
    /// See the example of [`EngineKind`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The engine of that number in the C API.
    ///
    /// See the example of [`EngineKind`].
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u32 == number)
    }

    /// Whether a poller can be made on it here. Whether io_uring is allowed is asked of the
    /// kernel, once.
    ///
    /// See the example of [`EngineKind`].
    pub fn is_available(self) -> bool {
        match self {
            Self::Select | Self::Poll => true,
            Self::Epoll => cfg!(target_os = "linux"),
            #[cfg(io_uring)]
            Self::IoUring => uring::is_available(),
            _ => false,
        }
    }

    /// What it can distinguish; nothing when it is not available.
    ///
    /// See the example of [`EngineKind`].
    pub fn capabilities(self) -> Capabilities {
        match self {
            Self::Poll => poll::CAPABILITIES,
            #[cfg(target_os = "linux")]
            Self::Epoll => epoll::CAPABILITIES,
            #[cfg(io_uring)]
            Self::IoUring if self.is_available() => uring::CAPABILITIES,
            _ => Capabilities::NONE,
        }
    }

    /// The engine a poller gets that asks for none: the one `OMNIPOLL_ENGINE` names, or the best.
    pub(crate) fn auto() -> io::Result<Self> {
        match std::env::var_os("OMNIPOLL_ENGINE") {
            Some(name) if !name.is_empty() => name
                .to_str()
                .and_then(Self::from_name)
                .ok_or_else(|| fail(libc::EINVAL, "OMNIPOLL_ENGINE must be select, poll, epoll or io_uring")),
            _ if Self::Epoll.is_available() => Ok(Self::Epoll),
            _ => Ok(Self::Poll),
        }
    }
}

/// One system call's way of watching.
///
/// Every method that changes the set is called with the registry locked and after the poller
/// has checked the arguments. On an error nothing has changed.
pub(crate) trait Engine: Send + Sync {
    fn kind(&self) -> EngineKind;

    /// The descriptor of the set that the kernel keeps, if it keeps one.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Keeps the set of an outer loop readable, from now on, while a wait would return at once. `ENOTSUP`
    /// where the kernel keeps no set.
    fn embed(&self, _: &mut Registry, _: &Arc<OuterSet>) -> io::Result<()> {
        Err(fail(libc::ENOTSUP, "select and poll have no descriptor that another loop could watch"))
    }

    /// Begins a registration. One that the number still has from a file closed since is replaced;
    /// `EEXIST` when it is of the same file.
    fn add(&self, registry: &mut Registry, fd: RawFd, interest: Interest, tag: Tag) -> io::Result<()>;

    /// Replaces interest and token of a live registration and arms it again.
    fn modify(&self, registry: &mut Registry, fd: RawFd, interest: Interest, token: u64) -> io::Result<()>;

    /// Ends a live registration, of a closed descriptor too.
    fn remove(&self, registry: &mut Registry, fd: RawFd);

    /// Returns when no wait in progress holds the file of a registration that has ended: the
    /// file is closed then as soon as its descriptor is. Called with nothing locked.
    fn release_files(&self, _: &Mutex<Registry>) {}

    /// Makes these directions of a live EDGE registration report again.
    fn rearm(&self, registry: &mut Registry, fd: RawFd, interest: Interest);

    /// Makes the system call once and translates what it returned. The timeout is this call's
    /// alone: the caller keeps the deadline.
    fn wait(
        &self,
        registry: &Mutex<Registry>,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
    ) -> io::Result<Batch>;

    /// In a forked child that will not use the engine: closes what would keep the parent's files open.
    fn leave_to_parent(&self) {}

    /// Makes everything again in a forked child, from the registry.
    fn rebuild(&self, registry: &mut Registry) -> io::Result<()>;
}

/// What one call of [`Engine::wait`] brought.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// How many events were written.
    pub(crate) filled: usize,
    /// The waker has woken this wait. There is room for one more event then.
    pub(crate) woken: bool,
    /// Something was ready that is no event, so an empty batch doesn't mean that time is up.
    pub(crate) dropped: bool,
    /// The poller's own descriptors that are ready. There is room for an event of each.
    pub(crate) internal: InternalEvents,
}

/// A descriptor of the poller's own that is ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InternalEvent {
    pub(crate) fd: RawFd,
    pub(crate) source: InternalSource,
}

/// They are rare. One word, so that a batch is returned in few stores: a vector's three were
/// loaded again before they had left the processor's store buffer, which took 1 % of a wait.
#[derive(Debug, Default)]
#[allow(clippy::box_collection)]
pub(crate) struct InternalEvents(Option<Box<Vec<InternalEvent>>>);

impl InternalEvents {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |events| events.len())
    }

    #[cold]
    pub(crate) fn push(&mut self, event: InternalEvent) {
        self.0.get_or_insert_default().push(event);
    }

    pub(crate) fn take_all(&mut self) -> Vec<InternalEvent> {
        self.0.take().map_or_else(Vec::new, |events| *events)
    }
}

impl Batch {
    /// Whether there are events of the caller's, and nothing else.
    #[inline]
    pub(crate) fn has_only_events(&self) -> bool {
        self.filled > 0 && !self.woken && self.internal.is_empty()
    }

    /// Whether there is anything to deliver or to act on.
    #[inline]
    pub(crate) fn has_anything(&self) -> bool {
        self.filled > 0 || self.woken || !self.internal.is_empty()
    }

    /// How many of the caller's slots are taken.
    #[inline]
    fn used(&self) -> usize {
        self.filled + self.internal.len() + usize::from(self.woken)
    }

    /// Adds the event of a registration: to the caller's, or to the poller's own.
    #[inline(always)]
    fn push(&mut self, slots: &mut [MaybeUninit<Event>], fd: RawFd, role: Role, event: Event) {
        match role {
            Role::User => {
                slots[self.filled].write(event);
                self.filled += 1;
            }
            Role::Internal(source) => self.internal.push(InternalEvent { fd, source }),
        }
    }
}

/// One of the engines. Not a box, so that a wait on epoll is one function from the caller to
/// the system call: what is returned through after it is mispredicted.
pub(crate) enum AnyEngine {
    Select(scan::Scan<select::Sets>),
    Poll(scan::Scan<poll::Array>),
    #[cfg(target_os = "linux")]
    Epoll(epoll::Epoll),
    #[cfg(io_uring)]
    Uring(Box<uring::Uring>),
}

impl AnyEngine {
    /// With `busy_poll` the kernel looks at network devices for so long before a wait sleeps, if it can.
    #[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
    pub(crate) fn new(
        kind: EngineKind,
        waker: Arc<Waker>,
        files_always_ready: bool,
        busy_poll: Option<Duration>,
    ) -> io::Result<Self> {
        Ok(match kind {
            EngineKind::Select => Self::Select(scan::Scan::new(waker, files_always_ready)),
            EngineKind::Poll => Self::Poll(scan::Scan::new(waker, files_always_ready)),
            #[cfg(target_os = "linux")]
            EngineKind::Epoll => Self::Epoll(epoll::Epoll::new(waker, files_always_ready, busy_poll)?),
            #[cfg(io_uring)]
            EngineKind::IoUring => {
                Self::Uring(Box::new(uring::Uring::new(waker, files_always_ready, busy_poll)?))
            }
            _ => return Err(fail(libc::ENOSYS, "this engine is not available here")),
        })
    }

    #[inline(always)]
    pub(crate) fn wait(
        &self,
        registry: &Mutex<Registry>,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
    ) -> io::Result<Batch> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(epoll) => epoll.wait(registry, events, timeout),
            other => (**other).wait(registry, events, timeout),
        }
    }
}

impl std::ops::Deref for AnyEngine {
    type Target = dyn Engine;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Select(select) => select,
            Self::Poll(poll) => poll,
            #[cfg(target_os = "linux")]
            Self::Epoll(epoll) => epoll,
            #[cfg(io_uring)]
            Self::Uring(uring) => &**uring,
        }
    }
}

/// What the bits of poll(2) mean for a registration. READ and WRITE are what select(2) puts into
/// its sets, so that they mean the same on every engine: hang-up and errors make a read not
/// block, and errors a write.
#[inline]
fn ready_of_poll(bits: u16, interest: Interest) -> Ready {
    let ready =
        READY_OF[usize::from(bits) % READY_OF.len()] & (u32::from(interest.directions()) | ALWAYS_REPORTED);
    #[cfg(target_os = "linux")]
    if bits & libc::POLLRDHUP as u16 != 0 && interest.contains(Interest::READ) {
        return Ready::from_bits(ready | Ready::READ_CLOSED.bits());
    }
    Ready::from_bits(ready)
}

/// Reported whatever was asked for.
const ALWAYS_REPORTED: u32 = Ready::HANGUP.bits() | Ready::ERROR.bits();

/// What each combination of poll's first five bits means: they are the same on every system.
const READY_OF: [u32; 32] = {
    const fn any(bits: usize, of: libc::c_short) -> bool {
        bits & of as usize != 0
    }
    let mut ready = [0; 32];
    let mut bits = 0;
    while bits < ready.len() {
        if any(bits, libc::POLLIN | libc::POLLHUP | libc::POLLERR) {
            ready[bits] |= Ready::READ.bits();
        }
        if any(bits, libc::POLLOUT | libc::POLLERR) {
            ready[bits] |= Ready::WRITE.bits();
        }
        if any(bits, libc::POLLPRI) {
            ready[bits] |= Ready::PRIORITY.bits();
        }
        if any(bits, libc::POLLHUP) {
            ready[bits] |= Ready::HANGUP.bits();
        }
        if any(bits, libc::POLLERR) {
            ready[bits] |= Ready::ERROR.bits();
        }
        bits += 1;
    }
    ready
};

/// What an engine uses of the kernel: see [`EngineKind::features`].
pub(crate) fn features(kind: EngineKind) -> Vec<Feature> {
    match kind {
        #[cfg(target_os = "linux")]
        EngineKind::Epoll => epoll::features(),
        #[cfg(io_uring)]
        EngineKind::IoUring => uring::features(),
        _ => Vec::new(),
    }
}

/// Lets a wait append up to `capacity` events, for which there is room, to a list.
#[inline]
pub(crate) fn fill(
    list: &mut Vec<Event>,
    capacity: usize,
    wait: impl FnOnce(&mut [MaybeUninit<Event>]) -> io::Result<usize>,
) -> io::Result<usize> {
    let filled = wait(&mut list.spare_capacity_mut()[..capacity])?;
    // SAFETY: a wait that returns `filled` has initialised that many of the slots, which begin
    // where the list ends.
    unsafe { list.set_len(list.len() + filled) };
    Ok(filled)
}
