//! Signals: a handler that counts, and desks that compare.
//!
//! `signalfd(2)` would need every thread of the program to block the signal. A handler may do
//! next to nothing (`signal-safety(7)`), so ours adds one to a count that all pollers share
//! and rings the bells of those that watch the signal; each poller knows how far it has seen.
//! A signal that arrives at any moment is in the count, and none is lost.
//!
//! A forked child inherits the handler and nobody who would hear of it. Until a poller of the
//! child's own watches the signal, the handler gives the former disposition its place back.
//! Nothing is locked or done at a fork: it may come in a signal handler or past libc.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering::SeqCst};

use crate::error::{fail, system};
use crate::event::Event;
use crate::sys::fork;
use crate::sys::write_to_waker;

/// Signals are numbered from 1 to 64 on every Linux.
const SIGNALS: usize = 65;

static COUNTS: [AtomicU32; SIGNALS] = [const { AtomicU32::new(0) }; SIGNALS];
static DESKS: AtomicPtr<Desk> = AtomicPtr::new(ptr::null_mut());
/// The number of the process, and in the lower half how many handlers are looking at the desks
/// just now: those of its parent don't count in a child.
static VISITORS: AtomicU64 = AtomicU64::new(0);
static FORMER: [Former; SIGNALS] = [const { Former::none() }; SIGNALS];
/// The process one of whose threads is changing [`FORMER`]; 0 for none. What a thread of a
/// parent's was changing at a fork is free in the child.
static CHANGING: AtomicU32 = AtomicU32::new(0);

/// What was done about a signal before the handler took its place.
struct Former {
    /// The process that `desks` is about, in [`fork::epoch`]'s terms; 0 when nobody watches.
    owner: AtomicU32,
    /// How many desks watch the signal.
    desks: AtomicU32,
    /// Written only while the handler is not installed.
    action: UnsafeCell<MaybeUninit<libc::sigaction>>,
}

/// Where one poller's signals arrive. Desks are never freed, only used again, so that a
/// handler can walk along them at any moment.
struct Desk {
    next: *const Desk,
    /// The signals watched: bit `signo - 1`. Taken by nobody while `bell` is -1.
    watched: AtomicU64,
    bell: AtomicI32,
    /// The process whose bell it is, in [`fork::epoch`]'s terms.
    owner: AtomicU32,
}

/// One poller's signals.
#[derive(Default)]
pub(crate) struct Signals {
    desk: Option<&'static Desk>,
    watches: Vec<Watch>,
}

struct Watch {
    signo: i32,
    /// `None`: watched for the poller's own sake, and not told.
    token: Option<u64>,
    seen: u32,
}

/// A signal that arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    pub(crate) signo: i32,
    pub(crate) token: u64,
    pub(crate) times: u32,
}

impl Arrived {
    pub(crate) fn event(self) -> Event {
        Event::signal(self.token, self.signo, self.times)
    }
}

/// Async-signal-safe: atomics, write(2), sigaction(2) and kill(2), with `errno` as it was.
extern "C" fn handler(signo: libc::c_int) {
    // SAFETY: errno's address is valid for the life of the thread.
    let errno = unsafe { *errno_place() };
    let now = fork::epoch();
    let former = &FORMER[signo as usize];
    match former.owner.load(SeqCst) {
        owner if owner != now && owner != 0 => former.take_its_place(signo),
        _ => ring(signo, now),
    }
    // SAFETY: as above.
    unsafe { *errno_place() = errno };
}

fn ring(signo: libc::c_int, now: u32) {
    COUNTS[signo as usize].fetch_add(1, SeqCst);
    let all = u64::from(now) << 32;
    let enter = |visitors| Some(if visitors >> 32 == all >> 32 { visitors + 1 } else { all | 1 });
    let _ = VISITORS.fetch_update(SeqCst, SeqCst, enter);
    let mut desk = DESKS.load(SeqCst).cast_const();
    // SAFETY: desks are leaked when they are made, so every pointer in the list stays valid.
    while let Some(here) = unsafe { desk.as_ref() } {
        let bell = here.bell.load(SeqCst);
        let asked = here.watched.load(SeqCst) & bit(signo) != 0;
        if bell >= 0 && asked && here.owner.load(SeqCst) == now {
            // Whoever gives up the bell's number first waits for the visitors to leave, so it is
            // still the bell's.
            let _ = write_to_waker(bell);
        }
        desk = here.next;
    }
    let leave = |visitors| (visitors >> 32 == all >> 32).then(|| visitors - 1);
    let _ = VISITORS.fetch_update(SeqCst, SeqCst, leave);
}

/// Whether a handler is looking at the desks.
fn are_visited() -> bool {
    let visitors = VISITORS.load(SeqCst);
    visitors >> 32 == u64::from(fork::epoch()) && visitors as u32 > 0
}

impl Signals {
    /// Watches a signal; `bell` is what the handler writes to. Without a token it only rings.
    pub(crate) fn add(&mut self, bell: RawFd, signo: i32, token: Option<u64>) -> io::Result<()> {
        if !(1..SIGNALS as i32).contains(&signo) {
            return Err(fail(libc::EINVAL, "there is no signal of that number"));
        }
        if matches!(signo, libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL) {
            return Err(fail(libc::EINVAL, "a fault of the program itself can't be waited for"));
        }
        if self.watches.iter().any(|watch| watch.signo == signo && watch.token.is_some() == token.is_some()) {
            return Err(fail(libc::EEXIST, "the signal is watched already"));
        }
        let desk = *self.desk.get_or_insert_with(|| open_desk(bell));
        let seen = COUNTS[signo as usize].load(SeqCst);
        install(signo)?;
        desk.watched.fetch_or(bit(signo), SeqCst);
        self.watches.push(Watch { signo, token, seen });
        Ok(())
    }

    /// Lets a signal ring the bell without being told.
    pub(crate) fn watch_internally(&mut self, bell: RawFd, signo: i32) -> io::Result<()> {
        match self.watches.iter().any(|watch| watch.signo == signo && watch.token.is_none()) {
            true => Ok(()),
            false => self.add(bell, signo, None),
        }
    }

    /// Watches a signal no more; the last poller to do so restores the former disposition.
    pub(crate) fn remove(&mut self, signo: i32) -> io::Result<()> {
        let watched = |watch: &Watch| watch.signo == signo && watch.token.is_some();
        match self.watches.iter().position(watched) {
            Some(index) => self.end(index),
            None => Err(fail(libc::ENOENT, "the signal is not watched")),
        }
    }

    fn end(&mut self, index: usize) -> io::Result<()> {
        let signo = self.watches[index].signo;
        let owner = self.desk.map_or(0, |desk| desk.owner.load(SeqCst));
        uninstall(signo, owner)?;
        self.watches.swap_remove(index);
        if !self.watches.iter().any(|watch| watch.signo == signo) {
            self.desk.inspect(|desk| _ = desk.watched.fetch_and(!bit(signo), SeqCst));
        }
        Ok(())
    }

    /// How many are watched for the caller.
    pub(crate) fn len(&self) -> usize {
        self.watches.iter().filter(|watch| watch.token.is_some()).count()
    }

    /// What has arrived since it was last asked, one signal at a time.
    pub(crate) fn next(&mut self) -> Option<Arrived> {
        self.watches.iter_mut().find_map(|watch| {
            let count = COUNTS[watch.signo as usize].load(SeqCst);
            let times = count.wrapping_sub(std::mem::replace(&mut watch.seen, count));
            let token = watch.token.filter(|_| times > 0)?;
            Some(Arrived { signo: watch.signo, token, times })
        })
    }

    /// Whether [`Signals::next`] has something.
    pub(crate) fn have_arrived(&self) -> bool {
        let mut told = self.watches.iter().filter(|watch| watch.token.is_some());
        told.any(|watch| COUNTS[watch.signo as usize].load(SeqCst) != watch.seen)
    }

    /// In a forked child: its parent's signals are not its own, and from now on it watches.
    pub(crate) fn after_fork(&mut self) {
        if let Some(desk) = self.desk {
            desk.owner.store(fork::epoch(), SeqCst);
        }
        for watch in &mut self.watches {
            watch.seen = COUNTS[watch.signo as usize].load(SeqCst);
            // It can't fail: this signal was caught before.
            let _ = install(watch.signo);
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        while !self.watches.is_empty() {
            if self.end(0).is_err() {
                self.watches.swap_remove(0);
            }
        }
        if let Some(desk) = self.desk {
            desk.watched.store(0, SeqCst);
            desk.bell.store(-1, SeqCst);
            while are_visited() {
                std::thread::yield_now();
            }
        }
    }
}

const fn bit(signo: i32) -> u64 {
    1 << (signo - 1)
}

/// A desk that nobody has, or a new one.
fn open_desk(bell: RawFd) -> &'static Desk {
    let mut desk = DESKS.load(SeqCst).cast_const();
    // SAFETY: as in the handler.
    while let Some(here) = unsafe { desk.as_ref() } {
        if here.bell.compare_exchange(-1, bell, SeqCst, SeqCst).is_ok() {
            here.owner.store(fork::epoch(), SeqCst);
            return here;
        }
        desk = here.next;
    }
    let new = Box::leak(Box::new(Desk {
        next: ptr::null(),
        watched: AtomicU64::new(0),
        bell: AtomicI32::new(bell),
        owner: AtomicU32::new(fork::epoch()),
    }));
    loop {
        let first = DESKS.load(SeqCst);
        new.next = first;
        if DESKS.compare_exchange(first, new, SeqCst, SeqCst).is_ok() {
            return new;
        }
    }
}

/// The right to change what was done about signals.
struct Change;

impl Change {
    fn begin() -> Self {
        let now = fork::epoch();
        while CHANGING.fetch_update(SeqCst, SeqCst, |process| (process != now).then_some(now)).is_err() {
            std::thread::yield_now();
        }
        Self
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        CHANGING.store(0, SeqCst);
    }
}

impl Former {
    const fn none() -> Self {
        Self {
            owner: AtomicU32::new(0),
            desks: AtomicU32::new(0),
            action: UnsafeCell::new(MaybeUninit::zeroed()),
        }
    }

    fn action(&self) -> &libc::sigaction {
        // SAFETY: plain old data, all zeroes at first. It is written only under a `Change` and
        // while the handler, which reads it, is not installed.
        unsafe { (*self.action.get()).assume_init_ref() }
    }

    /// In the handler of a forked child in which nobody watches: what was done before is done
    /// from now on, and first of all about this signal, which is blocked until the handler ends.
    fn take_its_place(&self, signo: i32) {
        let _ = exchange(signo, Some(self.action()));
        // SAFETY: takes no pointer.
        unsafe { libc::kill(libc::getpid(), signo) };
    }
}

fn install(signo: i32) -> io::Result<()> {
    let _change = Change::begin();
    let former = &FORMER[signo as usize];
    let now = fork::epoch();
    if former.owner.load(SeqCst) == now {
        former.desks.fetch_add(1, SeqCst);
        return Ok(());
    }
    let current = exchange(signo, None)?;
    if !is_ours(&current) {
        // SAFETY: the handler is not installed, and nobody else has a `Change`.
        unsafe { (*former.action.get()).write(current) };
    }
    // SAFETY: sigaction is plain old data, for which all zeroes is a value.
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    ours.sa_sigaction = handler as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // On the stack that the program has set apart, if it has: Go's threads have small ones.
    ours.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
    former.desks.store(1, SeqCst);
    former.owner.store(now, SeqCst);
    exchange(signo, Some(&ours)).inspect_err(|_| former.owner.store(0, SeqCst))?;
    Ok(())
}

/// One desk less watches a signal, in the process that is its `owner`. Whoever is the last, or
/// has inherited it where nobody else watches, restores what was done before.
fn uninstall(signo: i32, owner: u32) -> io::Result<()> {
    let _change = Change::begin();
    let former = &FORMER[signo as usize];
    let now = fork::epoch();
    match former.owner.load(SeqCst) {
        0 => return Ok(()),
        theirs if theirs == now && owner != now => return Ok(()),
        ours if ours == now && former.desks.load(SeqCst) > 1 => {
            former.desks.fetch_sub(1, SeqCst);
            return Ok(());
        }
        _ => {}
    }
    // Whoever has put a handler over ours since keeps it.
    if exchange(signo, None).is_ok_and(|current| is_ours(&current)) {
        exchange(signo, Some(former.action()))?;
    }
    former.owner.store(0, SeqCst);
    Ok(())
}

fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == handler as extern "C" fn(libc::c_int) as libc::sighandler_t
}

/// What is done about a signal, and, if there is a `new` action, will be.
fn exchange(signo: i32, new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    // SAFETY: sigaction is plain old data, for which all zeroes is a value.
    let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `old` and `new` live through the call. Our handler is async-signal-safe, and
    // other actions are what the system gave us.
    match unsafe { libc::sigaction(signo, new, &mut old) } {
        0 => Ok(old),
        _ => Err(system("the signal's disposition can't be changed")),
    }
}

/// Where this thread's errno is.
fn errno_place() -> *mut libc::c_int {
    // SAFETY: takes nothing and gives an address.
    unsafe {
        #[cfg(any(target_os = "linux", target_os = "emscripten", target_os = "hurd"))]
        return libc::__errno_location();
        #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
        return libc::__errno();
        #[cfg(any(target_vendor = "apple", target_os = "freebsd", target_os = "dragonfly"))]
        return libc::__error();
        #[cfg(any(target_os = "solaris", target_os = "illumos"))]
        return libc::___errno();
    }
}

// SAFETY: its atomics say who may touch the rest, as the fields say.
unsafe impl Sync for Former {}
// SAFETY: a desk's `next` is written once, before the desk can be seen by anybody else.
unsafe impl Send for Desk {}
// SAFETY: as above; everything else in it is atomic.
unsafe impl Sync for Desk {}
