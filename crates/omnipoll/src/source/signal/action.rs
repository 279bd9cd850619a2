//! What the process does about a signal, `sigaction(2)`: our handler is installed while a poller
//! watches the signal, and the old action restored after that.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::SIGNALS;
use crate::error::system;
use crate::sys::fork;

type Handler = extern "C" fn(libc::c_int);

static OLD_ACTIONS: [OldAction; SIGNALS] = [const { OldAction::none() }; SIGNALS];
/// The process that has locked [`OLD_ACTIONS`]; 0 for none. What a thread of a parent's had locked at
/// a fork is free in the child.
static LOCKED_BY: AtomicU32 = AtomicU32::new(0);

/// What was done about a signal before the handler was installed.
struct OldAction {
    /// The process that `watchers` is about, in terms of [`fork::epoch`]; 0 while the handler is not
    /// installed.
    owner: AtomicU32,
    /// How many pollers watch the signal.
    watchers: AtomicU32,
    /// Written only while the handler is not installed.
    action: UnsafeCell<MaybeUninit<libc::sigaction>>,
}

impl OldAction {
    const fn none() -> Self {
        Self {
            owner: AtomicU32::new(0),
            watchers: AtomicU32::new(0),
            action: UnsafeCell::new(MaybeUninit::zeroed()),
        }
    }

    fn action(&self) -> &libc::sigaction {
        // SAFETY: plain old data, all zeroes at first. It is written only under the lock and while
        // the handler, which reads it, is not installed.
        unsafe { (*self.action.get()).assume_init_ref() }
    }
}

// SAFETY: its atomics and the lock guard the rest, as the fields say.
unsafe impl Sync for OldAction {}

/// The lock of [`OLD_ACTIONS`].
struct Lock;

impl Lock {
    fn take() -> Self {
        let process = fork::epoch();
        let free = |by| (by != process).then_some(process);
        while LOCKED_BY.fetch_update(SeqCst, SeqCst, free).is_err() {
            std::thread::yield_now();
        }
        Self
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        LOCKED_BY.store(0, SeqCst);
    }
}

/// By which process the handler was installed.
pub(super) enum Installed {
    Here,
    ByAncestor,
}

/// By which process the handler was installed that runs now. Async-signal-safe.
pub(super) fn installed_for(signo: i32, process: u32) -> Installed {
    match OLD_ACTIONS[signo as usize].owner.load(SeqCst) {
        owner if owner != process && owner != 0 => Installed::ByAncestor,
        _ => Installed::Here,
    }
}

/// In the handler of a forked child in which no poller watches: restores the old action, which is
/// taken for this signal too. It is blocked until the handler ends. Async-signal-safe.
pub(super) fn restore_and_raise(signo: i32) {
    let _ = exchange(signo, Some(OLD_ACTIONS[signo as usize].action()));
    // SAFETY: takes no pointer.
    unsafe { libc::kill(libc::getpid(), signo) };
}

/// One more poller watches a signal; the first installs the handler.
pub(super) fn install(signo: i32, handler: Handler) -> io::Result<()> {
    let _lock = Lock::take();
    let old = &OLD_ACTIONS[signo as usize];
    let process = fork::epoch();
    if old.owner.load(SeqCst) == process {
        old.watchers.fetch_add(1, SeqCst);
        return Ok(());
    }
    let current = exchange(signo, None)?;
    if !is_handler(&current, handler) {
        // SAFETY: the handler is not installed, and this thread has the lock.
        unsafe { (*old.action.get()).write(current) };
    }
    // SAFETY: sigaction is plain old data, for which all zeroes is a value.
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    ours.sa_sigaction = handler as libc::sighandler_t;
    // On the stack that the program has set apart, if it has: Go's threads have small ones.
    ours.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
    old.watchers.store(1, SeqCst);
    old.owner.store(process, SeqCst);
    exchange(signo, Some(&ours)).inspect_err(|_| old.owner.store(0, SeqCst))?;
    Ok(())
}

/// One poller less watches a signal, in the process that is its `owner`. The last one, or one that
/// was inherited where no other watches, restores the old action.
pub(super) fn uninstall(signo: i32, owner: u32, handler: Handler) -> io::Result<()> {
    let _lock = Lock::take();
    let old = &OLD_ACTIONS[signo as usize];
    let process = fork::epoch();
    match old.owner.load(SeqCst) {
        0 => return Ok(()),
        installed_by if installed_by == process && owner != process => return Ok(()),
        installed_by if installed_by == process && old.watchers.load(SeqCst) > 1 => {
            old.watchers.fetch_sub(1, SeqCst);
            return Ok(());
        }
        _ => {}
    }
    // A handler that the program has installed over ours since stays.
    if exchange(signo, None).is_ok_and(|current| is_handler(&current, handler)) {
        exchange(signo, Some(old.action()))?;
    }
    old.owner.store(0, SeqCst);
    Ok(())
}

fn is_handler(action: &libc::sigaction, handler: Handler) -> bool {
    action.sa_sigaction == handler as libc::sighandler_t
}

/// The action of a signal, replaced by a `new` one if there is one.
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
