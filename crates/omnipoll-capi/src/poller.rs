//! `omni_poller` and the functions that take one.

use std::ffi::c_int;
use std::io;
use std::mem::{offset_of, MaybeUninit};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Once};
use std::time::Duration;

use omnipoll::{Event, Interest, Options, Poller};

use crate::engine::{engine_kind, OMNI_ENGINE_AUTO};
use crate::error::{to_c_result, Failure};
use crate::event::omni_event;
use crate::handle::{call_signal_safe, checked, Table, MAX_SLOTS, POLLER};
use crate::mute::muted;
use crate::sized::{self, Sized32};
use crate::types::omni_poller;
use crate::wait_policy::wait_policy;

/// Flag of `omni_poller_new` and of omni_loop_options: a signal ends a wait with -EINTR. Without it a wait continues
/// with the time that is left.
pub const OMNI_INTERRUPTIBLE: u32 = 0x1;
/// Flag of `omni_poller_new`: regular files and directories may be registered and are always
/// ready. Without it they are refused with -EPERM.
pub const OMNI_FILES_ALWAYS_READY: u32 = 0x2;
/// Flag of `omni_poller_new`: strict mode, which looks for mistakes in the use of the poller:
/// OMNI_FINDING_BLOCKING_EDGE and those after it. Each is reported once for a registration, to the
/// callback of `omni_poller_on_finding` or else as a line on stderr. For development: every wait then
/// asks the system about every descriptor. `OMNIPOLL_STRICT=1` in the environment does the same for
/// every poller; without either it costs nothing.
pub const OMNI_STRICT: u32 = 0x4;

/// How a poller is made. Fill the struct with zeros, set `size`, and then what is to differ.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
#[repr(C)]
pub struct omni_poller_options {
    /// sizeof(omni_poller_options).
    pub size: u32,
    /// OMNI_ENGINE_AUTO (as is 0) and so on.
    pub engine: u32,
    /// OMNI_INTERRUPTIBLE and so on, combined by `|`.
    pub flags: u32,
    /// OMNI_WAIT_BALANCED (as is 0), OMNI_WAIT_LATENCY or OMNI_WAIT_THRIFTY.
    pub wait_policy: u32,
    /// The time of the wait policy, in nanoseconds: above 0 with one, and 0 without.
    pub wait_ns: i64,
}

// SAFETY: as declared above; each zero is a number's.
unsafe impl Sized32 for omni_poller_options {
    const MIN_SIZE: usize = offset_of!(Self, wait_ns) + size_of::<i64>();
    const UNSET: &'static str = "the size of the options is not set";
}

/// A poller, as its handle finds it.
struct Entry {
    poller: Arc<Poller>,
    /// A loop waits on it and ends it: the program does neither.
    is_of_loop: bool,
}

static POLLERS: Table<Entry, POLLER, MAX_SLOTS> = Table::new();

/// Runs one call on a poller and returns its result as C gets it.
///
/// A panic is caught here and makes the poller unusable. A call during which the poller was freed
/// passes on the wake-up that made it return: each one wakes the next, until all have returned.
pub(crate) fn call(
    function: &str,
    poller: *const omni_poller,
    body: impl FnOnce(&Poller) -> Result<c_int, Failure>,
) -> c_int {
    call_entry(function, poller, |entry| body(&entry.poller))
}

/// Runs a call that is the program's to make only on a poller of its own.
fn call_own(
    function: &str,
    poller: *const omni_poller,
    body: impl FnOnce(&Poller) -> Result<c_int, Failure>,
) -> c_int {
    call_entry(function, poller, |entry| match entry.is_of_loop {
        true => Err(Failure::new(libc::EPERM, "the poller is a loop's, which waits on it and ends it")),
        false => body(&entry.poller),
    })
}

#[inline]
fn call_entry(
    function: &str,
    poller: *const omni_poller,
    body: impl FnOnce(&Entry) -> Result<c_int, Failure>,
) -> c_int {
    let entry = match checked(poller.addr(), POLLERS.enter(poller.addr())) {
        Ok(entry) => entry,
        Err(errno) => return to_c_result(function, Err(Failure::of(errno))),
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| body(&entry))).unwrap_or_else(|panic| {
        entry.poison();
        Err(Failure::panicked(panic))
    });
    if entry.is_closing() {
        let _ = entry.poller.wake();
        return to_c_result(function, Err(Failure::of(libc::ESTALE)));
    }
    to_c_result(function, outcome)
}

/// cbindgen:postfix=OMNI_NONNULL(3)
/// Makes a poller on an engine (OMNI_ENGINE_AUTO, ...) and stores its handle in `*out`.
///
/// `flags` is 0 or any of OMNI_INTERRUPTIBLE, OMNI_FILES_ALWAYS_READY and OMNI_STRICT, combined by
/// `|`. The caller owns the poller and ends it with `omni_poller_free`. `*out` is written only on
/// success.
///
/// Returns 0, or:
///   -EINVAL: an unknown engine or flag; with OMNI_ENGINE_AUTO, `OMNIPOLL_ENGINE` names no
///       engine.
///   -ENOSYS: the engine is not available here; for io_uring `omni_last_error` says why.
///   -EMFILE, -ENFILE: too many open files in the process, in the system; -EMFILE also when the
///       process has 65,536 pollers.
///
/// System calls: eventfd2; on epoll epoll_create1 and epoll_ctl, on io_uring io_uring_setup and
/// mmap. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_poller_new(engine: u32, flags: u32, out: *mut *mut omni_poller) -> c_int {
    // SAFETY: as this function's contract says.
    unsafe { make("omni_poller_new", || options(engine, flags), out) }
}

/// cbindgen:postfix=OMNI_NONNULL(1,2)
/// `omni_poller_new` with options: of an engine, flags and a wait policy. The options are copied.
///
/// Returns 0, or:
///   -EINVAL: an unknown engine, flag or wait policy, a time that does not belong to it, an
///       `options->size` that is no version's, or NULL.
///   -E2BIG: the struct is a newer version's, and asks for something that this one doesn't have.
///   -ENOSYS, -EMFILE, -ENFILE: as `omni_poller_new`.
///
/// System calls: those of `omni_poller_new`; with OMNI_WAIT_LATENCY also ioctl on epoll and
/// io_uring_register on io_uring. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_poller_new_with(
    options: *const omni_poller_options,
    out: *mut *mut omni_poller,
) -> c_int {
    let read = || {
        if options.is_null() {
            return Err(Failure::new(libc::EINVAL, "options is NULL"));
        }
        // SAFETY: not NULL, and so a struct of the size it says by this function's contract.
        let given = unsafe { sized::read(options) }?;
        Ok(self::options(given.engine, given.flags)?
            .wait_policy(wait_policy(given.wait_policy, given.wait_ns)?))
    };
    // SAFETY: as this function's contract says.
    unsafe { make("omni_poller_new_with", read, out) }
}

/// Makes a poller with these options.
///
/// # Safety
/// `out` is NULL, or the place of a pointer.
unsafe fn make(
    name: &'static str,
    options: impl FnOnce() -> Result<Options, Failure>,
    out: *mut *mut omni_poller,
) -> c_int {
    let make = AssertUnwindSafe(|| {
        if out.is_null() {
            return Err(Failure::new(libc::EINVAL, "out is NULL"));
        }
        let handle = insert(options()?.build()?.into(), false)?;
        // SAFETY: not NULL, and so a pointer's place by this function's contract.
        unsafe { out.write(handle) };
        Ok(0)
    });
    to_c_result(name, catch_unwind(make).unwrap_or_else(|panic| Err(Failure::panicked(panic))))
}

fn options(engine: u32, flags: u32) -> Result<Options, Failure> {
    if flags & !(OMNI_INTERRUPTIBLE | OMNI_FILES_ALWAYS_READY | OMNI_STRICT) != 0 {
        return Err(Failure::new(libc::EINVAL, "flags has an unknown bit"));
    }
    let options = Options::new()
        .interruptible(flags & OMNI_INTERRUPTIBLE != 0)
        .files_always_ready(flags & OMNI_FILES_ALWAYS_READY != 0)
        .strict(flags & OMNI_STRICT != 0);
    Ok(match engine_kind(engine)? {
        Some(kind) => options.engine(kind),
        None => options,
    })
}

/// Gives a poller a handle.
pub(crate) fn insert(poller: Arc<Poller>, is_of_loop: bool) -> Result<*mut omni_poller, Failure> {
    static WATCH_FORKS: Once = Once::new();
    extern "C" fn in_child() {
        POLLERS.after_fork();
    }
    WATCH_FORKS.call_once(|| {
        // SAFETY: the handler touches atomics only. Its one error is a lack of memory, and what
        // is lost then is the memory of a poller that a child frees.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });

    let handle = muted(|| POLLERS.insert(Entry { poller, is_of_loop }))
        .map_err(|errno| Failure::full(errno, "the process has 65,536 pollers"))?;
    Ok(std::ptr::without_provenance_mut(handle))
}

/// Makes the handle of a loop's poller stale.
pub(crate) fn close(poller: usize) {
    if let Some(entry) = POLLERS.enter(poller) {
        entry.close();
    }
}

/// Ends a poller. Closes the descriptors it opened itself, never one that was registered; restores
/// the dispositions of the signals it watched; drops timers, children and posts. Under OMNI_STRICT
/// it reports what is still registered.
///
/// Waits in progress in other threads return -ESTALE at once, and the last of them releases what
/// the poller holds. Does nothing with NULL or a poller that was freed already. In a forked child
/// it frees the child's copy; the parent's stays as it is.
///
/// System calls: a write to an eventfd, close, sigaction. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_free(poller: *mut omni_poller) {
    if poller.is_null() {
        return;
    }
    match POLLERS.enter(poller.addr()) {
        Some(entry) if entry.is_of_loop => {
            let words = "the poller is a loop's, which ends it";
            to_c_result("omni_poller_free", Err(Failure::new(libc::EPERM, words)));
        }
        Some(entry) if entry.close() => {
            let _ = catch_unwind(AssertUnwindSafe(|| entry.poller.wake()));
        }
        _ => {
            to_c_result("omni_poller_free", Err(Failure::of(libc::ESTALE)));
        }
    }
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// The engine of the poller: never OMNI_ENGINE_AUTO. 0 on an error, which `omni_last_error`
/// describes.
///
/// System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_engine(poller: *const omni_poller) -> u32 {
    let number = call("omni_poller_engine", poller, |poller| Ok(poller.engine() as c_int));
    number.try_into().unwrap_or(OMNI_ENGINE_AUTO)
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// What the poller's engine can distinguish: OMNI_REPORTS_HANGUP, OMNI_REPORTS_READ_CLOSED,
/// OMNI_NATIVE_EDGE and OMNI_HAS_EXCLUSIVE, combined by `|`; 0 on select.
///
/// Returns these bits or an error. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_capabilities(poller: *const omni_poller) -> c_int {
    call("omni_poller_capabilities", poller, |poller| Ok(poller.capabilities().bits() as c_int))
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Starts watching `fd`. Its events carry `token`, which is the caller's to choose.
///
/// `interest` is OMNI_READ, OMNI_WRITE and OMNI_PRIORITY, combined by `|` with triggers: OMNI_EDGE,
/// OMNI_ONESHOT, OMNI_EXCLUSIVE. Without any of the first three, only hang-up and errors are
/// reported, where the engine has OMNI_REPORTS_HANGUP. Waits in progress take it into account. The
/// descriptor stays the caller's: make it non-blocking, and remove it before closing it.
///
/// Returns 0, or:
///   -EINVAL: `interest` has an unknown bit, or a trigger that this engine doesn't have or that
///       doesn't go with the rest; `fd` is one of the poller's own.
///   -EEXIST: `fd` is registered already. On select and poll (and on io_uring before Linux 6.6)
///       an eventfd, timerfd, epoll or other anonymous file is taken for registered, too, when an
///       older one with its number was closed without `omni_poller_remove`: the system gives all
///       of them the same inode. Its events carry the older one's token until
///       `omni_poller_modify`.
///   -EBADF: `fd` is not open, or was opened with O_PATH.
///   -EPERM: a file of this kind (a regular file, a directory, /dev/null, a Landlock ruleset) is
///       always ready and can't be watched, unless the poller has OMNI_FILES_ALWAYS_READY.
///   -ENOSPC, -ELOOP: as epoll_ctl(2) says.
///   -EMFILE, -ENFILE: an always ready file takes a descriptor of the poller's own on epoll; on
///       the other engines a temporary epoll is needed to find out that a file is one.
///
/// System calls: epoll_ctl on epoll; fstat and fcntl on the others, and a write to an eventfd where
/// a thread waits. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_add(poller: *mut omni_poller, fd: c_int, interest: u32, token: u64) -> c_int {
    call("omni_poller_add", poller, |poller| {
        poller.add_raw(fd, interest_of(interest)?, token)?;
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Replaces interest, triggers and token of a registration. Enables an OMNI_ONESHOT that has fired.
/// What is ready now is reported by the next wait, under OMNI_EDGE as well.
///
/// Returns 0, or:
///   -ENOENT: `fd` is not registered.
///   -EBADF, -EINVAL, -ENOSPC: as for `omni_poller_add`; -EINVAL also where OMNI_EXCLUSIVE is, or
///       would be, among the triggers: remove and add such a registration.
///
/// System calls: as for `omni_poller_add`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_modify(
    poller: *mut omni_poller,
    fd: c_int,
    interest: u32,
    token: u64,
) -> c_int {
    call("omni_poller_modify", poller, |poller| {
        poller.modify_raw(fd, interest_of(interest)?, token)?;
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Gives `fd` this interest and token, whatever it has now: adds it, modifies it, or with an
/// interest of 0 removes it, if it is registered. This is what adapters to other libraries need.
///
/// Returns 0, or an error of `omni_poller_add`, `omni_poller_modify` or `omni_poller_remove` other
/// than -EEXIST and -ENOENT. System calls: theirs. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_set(poller: *mut omni_poller, fd: c_int, interest: u32, token: u64) -> c_int {
    call("omni_poller_set", poller, |poller| {
        set(poller, fd, interest, token)?;
        Ok(0)
    })
}

/// Another thread may add or remove it in between: then it is tried again.
fn set(poller: &Poller, fd: c_int, interest: u32, token: u64) -> Result<(), Failure> {
    let is = |error: &io::Error, errno| error.raw_os_error() == Some(errno);
    if interest == 0 {
        return match poller.remove_raw(fd) {
            Err(error) if is(&error, libc::ENOENT) => Ok(()),
            removed => Ok(removed?),
        };
    }
    let interest = interest_of(interest)?;
    loop {
        match poller.modify_raw(fd, interest, token) {
            Err(error) if is(&error, libc::ENOENT) => {}
            modified => return Ok(modified?),
        }
        match poller.add_raw(fd, interest, token) {
            Err(error) if is(&error, libc::EEXIST) => {}
            added => return Ok(added?),
        }
    }
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Stops watching `fd`. No wait that begins later returns an event of it. Works for a descriptor
/// that was closed while registered, unless its end was reported as OMNI_INVALID.
///
/// Afterwards the poller doesn't hold the file in any way: a close(2) that follows closes it, and
/// its peer notices. On every engine but epoll this ends the system calls of the threads that wait,
/// which then continue to wait, and returns when they have ended. On io_uring a thread that has
/// waited and is doing something else lets go of the file when it next enters or leaves the kernel,
/// and is interrupted for that.
///
/// Returns 0, or:
///   -ENOENT: `fd` is not registered.
///   -EBADF: `fd` is negative.
///
/// System calls: epoll_ctl on epoll; io_uring_enter on io_uring, if a wait has submitted the
/// descriptor to the kernel; a write to an eventfd where a thread waits. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_remove(poller: *mut omni_poller, fd: c_int) -> c_int {
    call("omni_poller_remove", poller, |poller| {
        poller.remove_raw(fd)?;
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Says that the directions in `interest` of an OMNI_EDGE registration were read or written until
/// EAGAIN: the next readiness is an edge again. Directions that are not registered are ignored.
/// Does nothing without OMNI_EDGE, or where the engine has OMNI_NATIVE_EDGE.
///
/// Returns 0, or:
///   -ENOENT: `fd` is not registered.
///   -EBADF: `fd` is negative.
///   -EINVAL: `interest` has an unknown bit; the registration is OMNI_ONESHOT, which
///       `omni_poller_modify` enables.
///
/// System calls: none; on select and poll a write to an eventfd where a thread waits. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_rearm(poller: *mut omni_poller, fd: c_int, interest: u32) -> c_int {
    call("omni_poller_rearm", poller, |poller| {
        poller.rearm_raw(fd, interest_of(interest)?)?;
        Ok(0)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1,2)
/// Waits for events, for at most `timeout_ns` nanoseconds, and stores them in `events`, which has
/// room for `capacity` of them: of descriptors, timers, signals, children, wakes and posts. What
/// doesn't fit is returned by the following waits, and none is passed over repeatedly.
///
/// A negative timeout waits indefinitely, 0 returns at once. The time is measured on the monotonic
/// clock and never too short. A signal that the poller doesn't watch ends the wait only under
/// OMNI_INTERRUPTIBLE. Only the elements counted by the result are written.
///
/// Returns the number of events, 0 when the time is up, or:
///   -EINVAL: `capacity` is 0.
///   -EINTR: a signal was handled, under OMNI_INTERRUPTIBLE.
///   -EMFILE, -ENFILE, -ENOMEM, -ENOSPC: the epoll set had to be rebuilt, because a descriptor
///       was closed of which a duplicate is open, and the system refused.
///   -ENOMEM, -EAGAIN, -EBUSY: the kernel had no memory for the system call. It was tried again
///       every millisecond, for ten of them or until the time was up. Nothing is lost: a later
///       wait returns it.
///   -EBADF: a descriptor of the poller's own was closed by the program.
///   -ESTALE: the poller was freed, before or during the wait.
///
/// Several threads may wait on one poller: an event under OMNI_EDGE or OMNI_ONESHOT, and every one
/// that is not of a descriptor, goes to one of them. System calls: pselect6, ppoll, epoll_pwait2
/// (epoll_wait before Linux 5.11), or io_uring_enter and poll; waitid for a child. On io_uring
/// none, if edges are there already. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_poller_wait(
    poller: *mut omni_poller,
    events: *mut omni_event,
    capacity: u32,
    timeout_ns: i64,
) -> c_int {
    // The count must fit an `int`, and a slice of events the address space.
    const LIMIT: usize =
        if usize::BITS == 64 { i32::MAX as usize } else { isize::MAX as usize / size_of::<Event>() };
    call_own("omni_poller_wait", poller, |poller| {
        if events.is_null() {
            return Err(Failure::new(libc::EINVAL, "events is NULL"));
        }
        let room = LIMIT.min(capacity as usize);
        // SAFETY: room for `capacity` events by this function's contract, initialised or not.
        let events = unsafe { std::slice::from_raw_parts_mut(events.cast::<MaybeUninit<Event>>(), room) };
        let timeout = u64::try_from(timeout_ns).ok().map(Duration::from_nanos);
        Ok(poller.wait_into(events, timeout)? as c_int)
    })
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Makes the wait in progress, or else the next one, return an event of kind OMNI_EVENT_WAKE. Wakes
/// that come before it is returned are counted in that one event.
///
/// Returns 0 or an error. May be called from a signal handler: it takes no lock, allocates nothing,
/// and leaves errno and `omni_last_error` as they are. System calls: a write to an eventfd. Since
/// 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_wake(poller: *mut omni_poller) -> c_int {
    call_signal_safe(&POLLERS, poller.addr(), |entry| entry.poller.wake())
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// Rebuilds an inherited poller in a forked child, with all its registrations. Until then every
/// change of it, wait and wake there is -EOWNERDEAD, and a signal that it watches does what it did
/// before. Registered descriptors that the child has closed are reported as OMNI_INVALID by the
/// next wait. Timers continue and signals are watched; children, posts and wakes are the parent's,
/// and not the child's. The parent's poller is not touched. Does nothing in the process that made
/// the poller.
///
/// Returns 0, or:
///   -EBUSY: another thread of the parent was changing the poller at the moment of the fork, and
///       that change can't be finished: free the poller and make a new one.
///   -EMFILE, -ENFILE: too many open files in the process, in the system.
///
/// System calls: those of `omni_poller_new`, and of `omni_poller_add` for each registration. Since
/// 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_after_fork(poller: *mut omni_poller) -> c_int {
    call_own("omni_poller_after_fork", poller, |poller| {
        poller.after_fork()?;
        Ok(0)
    })
}

fn interest_of(interest: u32) -> Result<Interest, Failure> {
    Interest::from_bits(interest)
        .ok_or(Failure::new(libc::EINVAL, "interest has an unknown bit, or bits that don't go together"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::omni_last_error;
    use std::ffi::CStr;

    #[test]
    fn a_panic_becomes_an_error_and_the_poller_unusable() {
        let mut poller = std::ptr::null_mut();
        // SAFETY: `out` is a place for a pointer.
        assert_eq!(unsafe { omni_poller_new(OMNI_ENGINE_AUTO, 0, &mut poller) }, 0);
        assert_eq!(omni_poller_wake(poller), 0);

        let body = |_: &Poller| panic!("this panic belongs to a test");
        assert_eq!(call("omni_test", poller, body), -libc::ENOTRECOVERABLE);
        // SAFETY: a text of the library's that this thread's next error replaces.
        let words = unsafe { CStr::from_ptr(omni_last_error()) }.to_str().unwrap();
        assert!(words.starts_with("omni_test: ") && words.ends_with(" (ENOTRECOVERABLE)"), "{words}");

        assert_eq!(omni_poller_remove(poller, 0), -libc::ENOTRECOVERABLE);
        assert_eq!(omni_poller_wake(poller), -libc::ENOTRECOVERABLE);
        assert_eq!(omni_poller_engine(poller), 0);
        omni_poller_free(poller);
        assert_eq!(omni_poller_remove(poller, 0), -libc::ESTALE);
    }
}
