//! Signals: a handler that counts, and desks that compare.
//!
//! `signalfd(2)` would need every thread of the program to block the signal. A handler may do
//! next to nothing (`signal-safety(7)`), so ours adds one to a count that all pollers share
//! and rings the bells of those that watch the signal; each poller knows how far it has seen.
//! A signal that arrives at any moment is in the count, and none is lost.

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::fork;
use crate::engine::write_to_notifier;
use crate::error::{fail, system};
use crate::event::Event;

/// Signals are numbered from 1 to 64 on every Linux.
const SIGNALS: usize = 65;

static COUNTS: [AtomicU32; SIGNALS] = [const { AtomicU32::new(0) }; SIGNALS];
static DESKS: AtomicPtr<Desk> = AtomicPtr::new(ptr::null_mut());
/// How many handlers are looking at the desks just now.
static VISITORS: AtomicU32 = AtomicU32::new(0);
/// For each signal how many desks watch it, and what was done about it before.
static FORMER: Mutex<Formers> = Mutex::new([const { None }; SIGNALS]);

type Formers = [Option<Former>; SIGNALS];

thread_local! {
    /// The lock of a thread that forks.
    static STILL: Cell<Option<MutexGuard<'static, Formers>>> = const { Cell::new(None) };
}

struct Former {
    desks: usize,
    action: libc::sigaction,
}

/// Where one poller's signals arrive. Desks are never freed, only used again, so that a
/// handler can walk along them at any moment.
struct Desk {
    next: *const Desk,
    /// The signals watched: bit `signo - 1`. Taken by nobody while `bell` is -1.
    watched: AtomicU64,
    bell: AtomicI32,
    /// The process whose bell it is, in [`fork::count`]'s terms.
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

/// Async-signal-safe: atomics and write(2), with `errno` as it was.
extern "C" fn handler(signo: libc::c_int) {
    // SAFETY: errno's address is valid for the life of the thread.
    let errno = unsafe { *errno_place() };
    COUNTS[signo as usize].fetch_add(1, SeqCst);
    VISITORS.fetch_add(1, SeqCst);
    let mut desk = DESKS.load(SeqCst).cast_const();
    // SAFETY: desks are leaked when they are made, so every pointer in the list stays valid.
    while let Some(here) = unsafe { desk.as_ref() } {
        let bell = here.bell.load(SeqCst);
        let asked = here.watched.load(SeqCst) & bit(signo) != 0;
        if bell >= 0 && asked && here.owner.load(SeqCst) == fork::count() {
            // Whoever gives up the bell's number first waits for the visitors to leave, so it is
            // still the bell's.
            let _ = write_to_notifier(bell);
        }
        desk = here.next;
    }
    VISITORS.fetch_sub(1, SeqCst);
    // SAFETY: as above.
    unsafe { *errno_place() = errno };
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
    pub(crate) fn look_out_for(&mut self, bell: RawFd, signo: i32) -> io::Result<()> {
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
        uninstall(signo)?;
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

    /// In a forked child: its parent's signals are not its own.
    pub(crate) fn after_fork(&mut self) {
        if let Some(desk) = self.desk {
            desk.owner.store(fork::count(), SeqCst);
        }
        for watch in &mut self.watches {
            watch.seen = COUNTS[watch.signo as usize].load(SeqCst);
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
            while VISITORS.load(SeqCst) > 0 {
                std::thread::yield_now();
            }
        }
    }
}

/// Holds still for a fork, so that the child doesn't inherit a lock that nobody will open.
pub(super) fn before_fork() {
    STILL.set(Some(former()));
}

/// After a fork, in the parent and in the child.
pub(super) fn after_fork(in_child: bool) {
    if in_child {
        // Its parent's handlers run in the parent.
        VISITORS.store(0, SeqCst);
    }
    STILL.take();
}

fn former() -> MutexGuard<'static, Formers> {
    FORMER.lock().unwrap_or_else(PoisonError::into_inner)
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
            here.owner.store(fork::count(), SeqCst);
            return here;
        }
        desk = here.next;
    }
    let new = Box::leak(Box::new(Desk {
        next: ptr::null(),
        watched: AtomicU64::new(0),
        bell: AtomicI32::new(bell),
        owner: AtomicU32::new(fork::count()),
    }));
    loop {
        let first = DESKS.load(SeqCst);
        new.next = first;
        if DESKS.compare_exchange(first, new, SeqCst, SeqCst).is_ok() {
            return new;
        }
    }
}

fn install(signo: i32) -> io::Result<()> {
    let mut former = former();
    if let Some(former) = &mut former[signo as usize] {
        former.desks += 1;
        return Ok(());
    }
    // SAFETY: sigaction is plain old data, for which all zeroes is a value.
    let (mut new, mut old): (libc::sigaction, libc::sigaction) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    new.sa_sigaction = handler as extern "C" fn(libc::c_int) as libc::sighandler_t;
    new.sa_flags = libc::SA_RESTART;
    // SAFETY: both live through the call, and the handler is async-signal-safe.
    if unsafe { libc::sigaction(signo, &new, &mut old) } < 0 {
        return Err(system("the signal can't be caught"));
    }
    former[signo as usize] = Some(Former { desks: 1, action: old });
    Ok(())
}

fn uninstall(signo: i32) -> io::Result<()> {
    let mut all = former();
    let Some(former) = &mut all[signo as usize] else { return Ok(()) };
    if former.desks > 1 {
        former.desks -= 1;
        return Ok(());
    }
    // SAFETY: as in install.
    let mut current: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `current` lives through the call.
    let known = unsafe { libc::sigaction(signo, ptr::null(), &mut current) } == 0;
    let ours = current.sa_sigaction == handler as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // Whoever has put a handler over ours since keeps it.
    // SAFETY: the former action is what the system gave us.
    if known && ours && unsafe { libc::sigaction(signo, &former.action, ptr::null_mut()) } < 0 {
        return Err(system("the signal's former disposition can't be restored"));
    }
    all[signo as usize] = None;
    Ok(())
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

// SAFETY: a desk's `next` is written once, before the desk can be seen by anybody else.
unsafe impl Send for Desk {}
// SAFETY: as above; everything else in it is atomic.
unsafe impl Sync for Desk {}
