//! [`Poller`]: registrations and sources over one engine.

mod deadline;
mod options;
mod sources;
mod strictly;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

pub use options::Options;

use crate::engine::{self, AnyEngine, Batch, Capabilities, EngineKind};
use crate::errno::{self, About};
use crate::error::{bare, fail};
use crate::event::{Event, EventKind, Events};
use crate::inspect::Rounds;
use crate::interest::Interest;
use crate::registry::{Registry, Tag};
use crate::source::{Outlook, Sources};
use crate::strict::Strict;
use crate::sys::lock;
use deadline::Deadline;
use strictly::born_now;

/// Watches descriptors and waits for events; every method may be called from any thread.
///
/// Dropping it closes what it opened itself, never a descriptor that was registered. A
/// registered descriptor is borrowed by number only: remove it before you close it.
pub struct Poller {
    engine: AnyEngine,
    registry: Mutex<Registry>,
    pub(crate) sources: Sources,
    /// The fork after which this poller was made or rebuilt, and whether it is strict.
    born: AtomicU32,
    /// Flips at each wait that has one slot and something to tell besides descriptors.
    odd: AtomicBool,
    interruptible: bool,
    pub(crate) rounds: Rounds,
    /// Strict mode, when it is on.
    pub(crate) strict: Option<Box<Strict>>,
}

impl Poller {
    /// A poller on the best engine of this machine, or on the one `OMNIPOLL_ENGINE` names.
    /// Errors as [`Options::build`].
    pub fn new() -> io::Result<Self> {
        Options::new().build()
    }

    /// A poller on the engine asked for. Errors as [`Options::build`].
    pub fn with_engine(engine: EngineKind) -> io::Result<Self> {
        Options::new().engine(engine).build()
    }

    /// The engine under this poller.
    pub fn engine(&self) -> EngineKind {
        self.engine.kind()
    }

    /// What that engine can tell apart.
    pub fn capabilities(&self) -> Capabilities {
        self.engine.kind().capabilities()
    }

    /// The descriptor of the engine's own set, where it has one (epoll): readable while a
    /// registered descriptor is ready, so that another poller can watch this one. Timers,
    /// wakes and posts don't make it readable. It belongs to the poller: never close it.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.engine.descriptor()
    }

    /// In a forked child that will not use it: lets go of what the kernel keeps for the parent.
    pub(crate) fn leave_to_parent(&self) {
        self.engine.leave_to_parent();
    }

    /// Starts watching `fd`; its events carry `token`.
    ///
    /// `EEXIST` when it is registered, `EBADF` when it is not open or was opened with `O_PATH`,
    /// `EPERM` when it is a kind of file that is always ready, `EINVAL` for an interest without a
    /// direction or a trigger the engine hasn't (EXCLUSIVE), `ENOMEM`, `ENOSPC` as `epoll_ctl(2)`
    /// says, `EMFILE` when only an epoll could tell whether the file can be watched, and none can
    /// be made.
    pub fn add(&self, fd: &impl AsRawFd, interest: Interest, token: u64) -> io::Result<()> {
        let (fd, mut registry) = self.enter(fd)?;
        self.check(fd, interest)?;
        registry.reserve(fd)?;
        self.engine.add(&mut registry, fd, interest, Tag { token, kind: EventKind::Io })?;
        self.strictly(registry, |strict, registry| strict.begun(registry, fd));
        Ok(())
    }

    /// Replaces interest, trigger and token. Re-enables a ONESHOT that has fired, and rearms
    /// an EDGE: what is ready now is reported by the next wait.
    ///
    /// `ENOENT` when it is not registered, `EBADF` when it is not open, `EINVAL` as for `add`
    /// and for a registration with EXCLUSIVE.
    pub fn modify(&self, fd: &impl AsRawFd, interest: Interest, token: u64) -> io::Result<()> {
        let (fd, mut registry) = self.enter(fd)?;
        self.check(fd, interest)?;
        let old = registry.of_caller(fd)?.interest;
        if old.is_exclusive() || interest.is_exclusive() {
            return Err(fail(libc::EINVAL, "an EXCLUSIVE registration can't be modified: remove and add it"));
        }
        self.engine.modify(&mut registry, fd, interest, token)?;
        self.strictly(registry, |strict, registry| strict.changed(registry, fd));
        Ok(())
    }

    /// Stops watching `fd`. No later wait returns an event of it, and nothing of the poller's
    /// holds on to its file: closed next, it is closed, and its peer hears of it. Where the
    /// engine's system call holds the files it watches (all but epoll's), that takes a wake-up
    /// of the threads that wait, for which this call waits. Works on a descriptor that was closed
    /// meanwhile. `ENOENT` when it is not registered.
    pub fn remove(&self, fd: &impl AsRawFd) -> io::Result<()> {
        let (fd, mut registry) = self.enter(fd)?;
        registry.of_caller(fd)?;
        self.engine.remove(&mut registry, fd);
        self.strictly(registry, |strict, _| strict.ended(fd));
        // Unless a callback has forked: the threads that wait are the parent's.
        if self.is_owner() {
            self.engine.let_go(&self.registry);
        }
        Ok(())
    }

    /// Says of an EDGE registration that these directions were read or written until `EAGAIN`:
    /// the next readiness is an edge again. Costs no system call where the engine has
    /// [edges of its own](Capabilities::NATIVE_EDGE), and none elsewhere unless a thread waits.
    /// Directions that are not registered are passed over; on LEVEL it does nothing.
    ///
    /// `ENOENT` when `fd` is not registered, `EINVAL` on a ONESHOT: `modify` re-enables that.
    pub fn rearm(&self, fd: &impl AsRawFd, interest: Interest) -> io::Result<()> {
        let (fd, mut registry) = self.enter(fd)?;
        let wanted = registry.of_caller(fd)?.interest;
        if wanted.is_oneshot() {
            return Err(fail(libc::EINVAL, "a ONESHOT registration is re-enabled by modify, not by rearm"));
        }
        if wanted.is_edge() {
            self.engine.rearm(&mut registry, fd, interest);
        }
        Ok(())
    }

    /// Waits until something is ready or `timeout` has passed (`None`: for ever; zero: look
    /// and return), and returns the number of events now in `events`, 0 when time was up.
    ///
    /// `EINVAL` when `events` has no room, `EINTR` only if the poller is
    /// [interruptible](Options::interruptible). When the kernel is short of memory, the wait tries
    /// again every millisecond; if it is so for ten of them, or until the time is up, that is the
    /// error (`ENOMEM`, `EAGAIN`), and nothing is lost.
    #[inline]
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
        let (list, capacity) = events.refill();
        engine::fill(list, capacity, |slots| self.wait_into(slots, timeout))
    }

    /// [`Poller::wait`] into memory of the caller's, which need not be initialised: on `Ok(n)`
    /// the first `n` elements are. What the C API is made of.
    // One function from the caller to the system call: each return after it is mispredicted.
    #[inline(always)]
    pub fn wait_into(
        &self,
        events: &mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        if self.is_special() {
            return self.wait_strictly(events, timeout);
        }
        if events.is_empty() {
            return Err(no_room());
        }
        let deadline = Deadline::after(timeout);
        if self.sources.are_quiet() {
            // Nothing but descriptors: what nearly every wait is.
            let sleeper = self.sources.sleeper();
            let outlook = self.sources.outlook(timeout);
            let batch = self.engine.wait(&self.registry, events, outlook.limit);
            match batch {
                Ok(batch) => {
                    sleeper.wake_with(batch.filled);
                    if batch.is_plain() && self.sources.are_quiet() {
                        return Ok(batch.filled);
                    }
                    return self.wait_on(events, &deadline, Ok(batch), outlook.due);
                }
                Err(error) => {
                    drop(sleeper);
                    return self.wait_on(events, &deadline, Err(error), outlook.due);
                }
            }
        }
        let (batch, due) = self.look(events, timeout);
        self.wait_on(events, &deadline, batch, due)
    }

    /// Sleeps elsewhere than in the engine: calls `sleep`, which may take so long and returns
    /// when [`Poller::descriptor`] is readable. Then `wait` tells what there is.
    pub(crate) fn sleep_elsewhere<T>(
        &self,
        sleep: impl FnOnce(Option<Duration>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.check_owner()?;
        let sleeper = self.sources.sleeper();
        let slept = sleep(self.sources.outlook(None).limit);
        drop(sleeper);
        slept
    }

    /// Goes on with a wait whose last look brought `batch`, before which the sources were `due`.
    #[cold]
    fn wait_on(
        &self,
        events: &mut [MaybeUninit<Event>],
        deadline: &Deadline,
        mut batch: io::Result<Batch>,
        mut due: bool,
    ) -> io::Result<usize> {
        let mut left = deadline.timeout();
        let mut tries = TRIES;
        let outcome = loop {
            match batch {
                Ok(batch) => {
                    let all = !batch.dropped && !batch.rung && batch.internal.is_empty();
                    let filled = self.complete(events, batch, due);
                    if filled > 0 || (all && left == Some(Duration::ZERO)) {
                        break Ok(filled);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted && !self.interruptible => {
                    // The signal's handler may have forked: this may be the child.
                    self.check_owner()?;
                }
                // What the sources have needs no system call. Nobody may have heard the bell.
                Err(error) => match self.tell(events, 0) {
                    0 if errno::of_wait(&error) == About::Moment
                        && tries > 0
                        && left != Some(Duration::ZERO) =>
                    {
                        tries -= 1;
                        std::thread::sleep(left.map_or(BACK_OFF, |left| left.min(BACK_OFF)));
                    }
                    0 => break Err(error),
                    filled => break Ok(filled),
                },
            }
            left = deadline.left();
            self.rounds.go_on(left);
            (batch, due) = self.look(events, left);
        };
        self.sources.hand_on();
        outcome
    }

    /// One system call, for no longer than the sources allow, and whether they were due before.
    fn look(&self, events: &mut [MaybeUninit<Event>], left: Option<Duration>) -> (io::Result<Batch>, bool) {
        let sleeper = self.sources.sleeper();
        let Outlook { limit, due } = self.sources.outlook(left);
        // Neither the descriptors nor the sources shall fill every batch.
        let batch = match events.len() - usize::from(due) {
            // This time only the sources are asked; should they have nothing, we look again.
            0 if self.odd.fetch_not(Ordering::Relaxed) => {
                self.rounds.skipped.fetch_add(1, Ordering::Relaxed);
                Ok(Batch { dropped: true, ..Batch::default() })
            }
            0 => self.engine.wait(&self.registry, events, limit),
            room => self.engine.wait(&self.registry, &mut events[..room], limit),
        };
        sleeper.wake_with(batch.as_ref().map_or(0, |batch| batch.filled));
        (batch, due)
    }

    /// Adds to a batch what there is to tell besides descriptors.
    fn complete(&self, events: &mut [MaybeUninit<Event>], mut batch: Batch, due: bool) -> usize {
        let mut filled = batch.filled;
        for event in batch.internal.take_all().into_iter().filter_map(|own| self.interpret(own)) {
            events[filled].write(event);
            filled += 1;
        }
        // A timer that has become due meanwhile can wait for the next look if there are events.
        let due = due || batch.rung || self.sources.are_pending() || (filled == 0 && self.sources.are_due());
        if due && filled < events.len() {
            filled = self.tell(events, filled);
        }
        filled
    }

    /// What the readiness of one of the poller's own descriptors stands for.
    fn interpret(&self, own: Event) -> Option<Event> {
        match own.kind() {
            EventKind::Child => self.reap(own.value() as RawFd),
            _ => {
                self.sources.state().wall.answer();
                // The clock may have been set to a time at which none is due.
                let _ = self.sources.notice();
                None
            }
        }
    }

    /// Tells the registrations found lost, and what the sources have.
    fn tell(&self, events: &mut [MaybeUninit<Event>], mut filled: usize) -> usize {
        while filled < events.len() {
            let Some(event) = self.registry().lost.pop_front() else { break };
            self.sources.state().count(&event);
            events[filled].write(event);
            filled += 1;
        }
        let filled = self.sources.tell(events, filled);
        if !self.registry().lost.is_empty() {
            // It can only fail when somebody closed the bell, which ends the wait with EBADF.
            let _ = self.sources.notice();
        }
        filled
    }

    /// Makes a wait return with a WAKE event: the one under way, or else the next. Wakes that
    /// come before it are counted into one event. Async-signal-safe.
    pub fn wake(&self) -> io::Result<()> {
        if !self.is_owner() {
            // Without words: a thread's first use of its own storage may allocate.
            return Err(bare(libc::EOWNERDEAD));
        }
        match self.sources.wake.ask() {
            true => self.sources.notice(),
            false => Ok(()),
        }
    }

    /// Rebuilds an inherited poller in a forked child, with all its registrations. Descriptors
    /// that the child has closed are reported by the next wait as INVALID. Does nothing in the
    /// process that made the poller.
    ///
    /// `EBUSY` when another thread of the parent was changing the poller at the very moment of
    /// the fork: nobody can finish that change; drop the poller and make a new one.
    pub fn after_fork(&self) -> io::Result<()> {
        if self.is_owner() {
            return Ok(());
        }
        let (Some(mut state), Ok(mut registry)) = (self.sources.try_state(), self.registry.try_lock()) else {
            return Err(fail(
                libc::EBUSY,
                "another thread was changing the poller during the fork: make a new one",
            ));
        };
        self.sources.doorbell.rebuild()?;
        state.wall.after_fork()?;
        self.engine.rebuild(&mut registry)?;
        for pidfd in state.children.after_fork() {
            self.engine.remove(&mut registry, pidfd.as_raw_fd());
        }
        self.sources.after_fork(&mut state);
        self.rounds.forget();
        self.strict.iter().for_each(|strict| strict.after_fork(&registry));
        self.born.store(born_now(self.strict.is_some()), Ordering::Release);
        Ok(())
    }

    /// Whether this is the process that made or rebuilt it, and no child forked since.
    #[inline]
    pub(crate) fn is_owner(&self) -> bool {
        self.born.load(Ordering::Acquire) == born_now(self.strict.is_some())
    }

    #[inline]
    pub(crate) fn check_owner(&self) -> io::Result<()> {
        match self.is_owner() {
            true => Ok(()),
            false => Err(self.refuse_child()),
        }
    }

    /// What a forked child is told that uses its parent's poller.
    #[cold]
    fn refuse_child(&self) -> io::Error {
        self.strict.iter().for_each(|strict| strict.used_by_child());
        fail(libc::EOWNERDEAD, "the poller belongs to the parent process: call after_fork first")
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }

    /// The way into every change: the descriptor's number, and the registry locked.
    fn enter(&self, fd: &impl AsRawFd) -> io::Result<(RawFd, MutexGuard<'_, Registry>)> {
        self.check_owner()?;
        let fd = fd.as_raw_fd();
        if fd < 0 {
            return Err(fail(libc::EBADF, "a descriptor is never negative"));
        }
        Ok((fd, self.registry()))
    }

    fn check(&self, fd: RawFd, interest: Interest) -> io::Result<()> {
        if !interest.is_possible() {
            return Err(fail(libc::EINVAL, "EXCLUSIVE goes with neither PRIORITY nor ONESHOT"));
        }
        if interest.is_exclusive() && !self.capabilities().contains(Capabilities::HAS_EXCLUSIVE) {
            return Err(fail(libc::EINVAL, "this engine has no EXCLUSIVE"));
        }
        if self.sources.doorbell.owns(fd) {
            return Err(fail(libc::EINVAL, "the descriptor is the poller's own"));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller").field("engine", &self.engine()).finish_non_exhaustive()
    }
}

/// How often a wait that the kernel has no memory for tries again, and how long it pauses before.
const TRIES: usize = 10;
const BACK_OFF: Duration = Duration::from_millis(1);

fn no_room() -> io::Error {
    fail(libc::EINVAL, "there is no room for an event")
}

const _: fn() = || {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Poller>();
};
