//! `omni_poller` and the functions that take one.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;
use std::time::Duration;

use omnipoll::{EngineKind, Event, Interest, Options, Poller};

use crate::constants::{OMNI_ENGINE_AUTO, OMNI_FILES_ALWAYS_READY, OMNI_INTERRUPTIBLE, OMNI_STRICT};
use crate::error::{answer, Failure};
use crate::event::omni_event;
use crate::handle::{call_quietly, usable, Table, MOST_SLOTS, POLLER};
use crate::strict::silently;

/// A poller: descriptors registered with an engine, to be waited for.
///
/// The pointer is a handle, not an address: 16 bits of it say which poller, the rest how many
/// were there before. So that a poller freed already, freed twice or never made is -ESTALE
/// instead of undefined behaviour. Copy it and compare it; there is nothing behind it.
#[allow(non_camel_case_types)]
pub struct omni_poller(());

static POLLERS: Table<Poller, POLLER, MOST_SLOTS> = Table::new();

/// Runs one call on a poller and gives C its answer.
///
/// A panic ends here, and the poller's use with it. A call that finds the poller freed under it
/// passes the wake-up on that made it return: each one wakes the next, until all are out.
pub(crate) fn call(
    function: &str,
    poller: *const omni_poller,
    body: impl FnOnce(&Poller) -> Result<c_int, Failure>,
) -> c_int {
    let entry = match usable(poller.addr(), POLLERS.enter(poller.addr())) {
        Ok(entry) => entry,
        Err(errno) => return answer(function, Err(Failure::of(errno))),
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| body(&entry))).unwrap_or_else(|panic| {
        entry.poison();
        Err(Failure::panicked(panic))
    });
    if entry.is_closing() {
        let _ = entry.wake();
        return answer(function, Err(Failure::of(libc::ESTALE)));
    }
    answer(function, outcome)
}

/// Makes a poller on an engine (OMNI_ENGINE_AUTO, ...) and stores its handle in `*out`.
///
/// `flags` is 0, or OMNI_INTERRUPTIBLE, OMNI_FILES_ALWAYS_READY and OMNI_STRICT, those that are
/// wanted joined by `|`. The caller owns the poller and ends it with `omni_poller_free`. `*out` is
/// written only on success.
///
/// Returns 0, or:
///   -EINVAL: `out` is NULL; an unknown engine or flag; with OMNI_ENGINE_AUTO, `OMNIPOLL_ENGINE`
///       names no engine.
///   -ENOSYS: the engine is not available here; of io_uring `omni_last_error` says why.
///   -EMFILE, -ENFILE: too many open files in the process, in the system; -EMFILE also when the
///       process has 65,536 pollers.
///   -ENOMEM: not enough memory.
///
/// May be called from any thread. System calls: eventfd2, and on epoll epoll_create1 and
/// epoll_ctl, on io_uring io_uring_setup and mmap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_poller_new(engine: u32, flags: u32, out: *mut *mut omni_poller) -> c_int {
    let make = || {
        if out.is_null() {
            return Err(Failure::new(libc::EINVAL, "out is NULL"));
        }
        let handle = insert(options(engine, flags)?.build()?)?;
        // SAFETY: not NULL, and so a pointer's place by this function's contract.
        unsafe { out.write(handle) };
        Ok(0)
    };
    answer("omni_poller_new", catch_unwind(make).unwrap_or_else(|panic| Err(Failure::panicked(panic))))
}

fn options(engine: u32, flags: u32) -> Result<Options, Failure> {
    if flags & !(OMNI_INTERRUPTIBLE | OMNI_FILES_ALWAYS_READY | OMNI_STRICT) != 0 {
        return Err(Failure::new(libc::EINVAL, "flags has an unknown bit"));
    }
    let options = Options::new()
        .interruptible(flags & OMNI_INTERRUPTIBLE != 0)
        .files_always_ready(flags & OMNI_FILES_ALWAYS_READY != 0)
        .strict(flags & OMNI_STRICT != 0);
    Ok(match chosen(engine)? {
        Some(kind) => options.engine(kind),
        None => options,
    })
}

/// The engine of that number; none for the library to choose.
pub(crate) fn chosen(engine: u32) -> Result<Option<EngineKind>, Failure> {
    match EngineKind::from_number(engine) {
        None if engine != OMNI_ENGINE_AUTO => {
            Err(Failure::new(libc::EINVAL, "there is no engine of that number"))
        }
        kind => Ok(kind),
    }
}

fn insert(poller: Poller) -> Result<*mut omni_poller, Failure> {
    static WATCH_FORKS: Once = Once::new();
    extern "C" fn in_child() {
        POLLERS.after_fork();
    }
    WATCH_FORKS.call_once(|| {
        // SAFETY: the handler touches atomics only. Its one error is a lack of memory, and what
        // is lost then is the memory of a poller that a child frees.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });

    let handle = silently(|| POLLERS.insert(poller))
        .map_err(|errno| Failure::full(errno, "the process has 65,536 pollers"))?;
    Ok(std::ptr::without_provenance_mut(handle))
}

/// Ends a poller. Closes the descriptors it opened itself, never one that was registered; gives
/// signals back their dispositions; forgets timers, children and posts. Under OMNI_STRICT it says
/// what is still registered.
///
/// Waits under way in other threads return -ESTALE at once; the last of them to return releases
/// what the poller holds. With NULL, or a poller freed already, it does nothing. In a forked
/// child it frees the child's copy; the parent's stays as it is.
///
/// May be called from any thread. System calls: write to an eventfd, close,
/// sigaction.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_free(poller: *mut omni_poller) {
    if poller.is_null() {
        return;
    }
    match POLLERS.enter(poller.addr()) {
        Some(entry) if entry.close() => {
            let _ = catch_unwind(AssertUnwindSafe(|| entry.wake()));
        }
        _ => {
            answer("omni_poller_free", Err(Failure::of(libc::ESTALE)));
        }
    }
}

/// The engine under the poller: never OMNI_ENGINE_AUTO.
///
/// Returns 0 when there is none to tell: the poller is NULL, stale or unusable, as
/// `omni_last_error` says. May be called from any thread. Makes no system call.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_engine(poller: *const omni_poller) -> u32 {
    let number = call("omni_poller_engine", poller, |poller| Ok(poller.engine() as c_int));
    number.try_into().unwrap_or(OMNI_ENGINE_AUTO)
}

/// What the poller's engine can tell apart: OMNI_TELLS_HANGUP, OMNI_TELLS_READ_CLOSED,
/// OMNI_NATIVE_EDGE and OMNI_HAS_EXCLUSIVE, those that hold joined by `|`; 0 on select.
///
/// Returns these bits, or:
///   -EINVAL: `poller` is NULL.
///   -ESTALE: the poller was freed.
///   -ENOTRECOVERABLE: a bug in the library has left the poller unusable: free it.
///
/// May be called from any thread. Makes no system call.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_capabilities(poller: *const omni_poller) -> c_int {
    call("omni_poller_capabilities", poller, |poller| Ok(poller.capabilities().bits() as c_int))
}

/// Starts watching `fd`. Its events carry `token`, which is the caller's to choose.
///
/// `interest` is OMNI_READ, OMNI_WRITE and OMNI_PRIORITY, joined by `|` with triggers: OMNI_EDGE,
/// OMNI_ONESHOT, OMNI_EXCLUSIVE. Without any of the first three, hang-up and errors alone are
/// reported, where the engine has OMNI_TELLS_HANGUP. Waits under way take it into account.
/// The descriptor stays the caller's: make it non-blocking, and remove it before closing it.
///
/// Returns 0, or, with nothing changed:
///   -EINVAL: `poller` is NULL; `interest` has an unknown bit or a trigger that this
///       engine hasn't or that doesn't go with the rest; `fd` is one of the poller's own.
///   -EEXIST: `fd` is registered already. So it seems, too, on select and poll (and on io_uring
///       before Linux 6.6) for an eventfd, timerfd, epoll or other anonymous file whose number an
///       older one had that was closed without `omni_poller_remove`: the system gives all of them the same
///       inode. Its events carry the older one's token until `omni_poller_modify`.
///   -EBADF: `fd` is not open, was opened with O_PATH, or is negative.
///   -EPERM: a file of this kind (a regular file, a directory, /dev/null, a Landlock ruleset) is
///       always ready and can't be watched, unless the poller has OMNI_FILES_ALWAYS_READY.
///   -ENOMEM, -ENOSPC, -ELOOP: as epoll_ctl(2) says.
///   -EMFILE, -ENFILE: an always ready file takes a descriptor of the poller's own on epoll; on
///       the other engines only an epoll, made for the moment, can tell that a file is one.
///   -EOWNERDEAD: this is a forked child: call `omni_poller_after_fork` first.
///   -ESTALE: the poller was freed.
///   -ENOTRECOVERABLE: a bug in the library has left the poller unusable: free it.
///
/// May be called from any thread. System calls: epoll_ctl on epoll; fstat and fcntl on the others,
/// and a write to an eventfd where a thread waits.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_add(poller: *mut omni_poller, fd: c_int, interest: u32, token: u64) -> c_int {
    call("omni_poller_add", poller, |poller| {
        poller.add_raw(fd, checked(interest)?, token)?;
        Ok(0)
    })
}

/// Replaces interest, triggers and token of a registration. Enables an OMNI_ONESHOT that has
/// fired; what is ready now is reported by the next wait, under OMNI_EDGE as well.
///
/// Returns 0, or, with nothing changed:
///   -ENOENT: `fd` is not registered.
///   -EINVAL: as for `omni_poller_add`; and where OMNI_EXCLUSIVE is, or would be, among the triggers:
///       remove and add such a registration.
///   -EBADF, -ENOMEM, -ENOSPC, -EOWNERDEAD, -ESTALE, -ENOTRECOVERABLE: as for `omni_poller_add`.
///
/// May be called from any thread. System calls: as for `omni_poller_add`.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_modify(
    poller: *mut omni_poller,
    fd: c_int,
    interest: u32,
    token: u64,
) -> c_int {
    call("omni_poller_modify", poller, |poller| {
        poller.modify_raw(fd, checked(interest)?, token)?;
        Ok(0)
    })
}

/// Stops watching `fd`. No wait that begins later returns an event of it. Works on a descriptor
/// that was closed while registered, unless its end was reported as OMNI_INVALID.
///
/// After it nothing of the poller's holds the file: closed next, it is closed, and its peer is
/// told so. On every engine but epoll this ends the system calls of the threads that wait, which
/// then wait on, and it returns when they have ended. On io_uring a thread that has waited and
/// does something else now lets go of the file when it next enters or leaves the kernel, for
/// which it is interrupted.
///
/// Returns 0, or:
///   -ENOENT: `fd` is not registered.
///   -EBADF: `fd` is negative.
///   -EINVAL: `poller` is NULL.
///   -EOWNERDEAD, -ESTALE, -ENOTRECOVERABLE: as for `omni_poller_add`.
///
/// May be called from any thread. System calls: epoll_ctl on epoll; io_uring_enter on io_uring,
/// if a wait has handed the descriptor to the kernel; a write to an eventfd where a thread waits.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_remove(poller: *mut omni_poller, fd: c_int) -> c_int {
    call("omni_poller_remove", poller, |poller| {
        poller.remove_raw(fd)?;
        Ok(0)
    })
}

/// Says of an OMNI_EDGE registration that the directions in `interest` were read or written
/// until EAGAIN: the next readiness is an edge again. Directions that are not registered are
/// passed over. Does nothing without OMNI_EDGE, or where the engine has OMNI_NATIVE_EDGE.
///
/// Returns 0, or:
///   -ENOENT: `fd` is not registered.
///   -EBADF: `fd` is negative.
///   -EINVAL: `poller` is NULL; `interest` has an unknown bit; the registration is
///       OMNI_ONESHOT, which `omni_poller_modify` enables.
///   -EOWNERDEAD, -ESTALE, -ENOTRECOVERABLE: as for `omni_poller_add`.
///
/// May be called from any thread. System calls: none, but a write to an eventfd on select and
/// poll where a thread waits.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_rearm(poller: *mut omni_poller, fd: c_int, interest: u32) -> c_int {
    call("omni_poller_rearm", poller, |poller| {
        poller.rearm_raw(fd, checked(interest)?)?;
        Ok(0)
    })
}

/// Waits until there is something to tell or `timeout_ns` nanoseconds have passed, and stores it
/// in `events`, which has room for `capacity` of them: descriptors that are ready, timers, signals,
/// children, wakes and posts. What does not fit is returned by the waits that follow; nobody
/// starves.
///
/// A negative timeout waits for ever, 0 looks and returns. It is measured on the monotonic clock
/// and never early. A signal that the poller does not watch does not end the wait, unless the
/// poller has OMNI_INTERRUPTIBLE.
/// The array is the caller's, and only the elements counted by the result are written.
///
/// Returns the number of events, 0 when the time is up, or:
///   -EINVAL: `poller` or `events` is NULL; `capacity` is 0.
///   -EINTR: a signal came, and the poller has OMNI_INTERRUPTIBLE.
///   -EMFILE, -ENFILE, -ENOMEM, -ENOSPC: a closed descriptor, of which a duplicate lives on, made
///       it necessary to make the epoll set anew, and the system refused.
///   -ENOMEM, -EAGAIN, -EBUSY: the kernel had no memory for the system call. It is tried again
///       every millisecond, for ten of them or until the time is up. Nothing is lost: a later wait
///       returns it.
///   -EBADF: a descriptor of the poller's own was closed behind its back.
///   -EOWNERDEAD: this is a forked child: call `omni_poller_after_fork` first.
///   -ESTALE: the poller was freed, before or while waiting.
///   -ENOTRECOVERABLE: a bug in the library has left the poller unusable: free it.
///
/// May be called from any thread, by several at a time. An event under OMNI_EDGE or
/// OMNI_ONESHOT goes to one of them, and so does every one that is not of a descriptor. System
/// calls: pselect6, ppoll, epoll_pwait2 (epoll_wait before Linux 5.11), or io_uring_enter and
/// poll; waitid for a child. On io_uring none, where edges are there already.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_poller_wait(
    poller: *mut omni_poller,
    events: *mut omni_event,
    capacity: u32,
    timeout_ns: i64,
) -> c_int {
    // The count must fit an `int`, and a slice of events the address space.
    const MOST: usize =
        if usize::BITS == 64 { i32::MAX as usize } else { isize::MAX as usize / size_of::<Event>() };
    call("omni_poller_wait", poller, |poller| {
        if events.is_null() {
            return Err(Failure::new(libc::EINVAL, "events is NULL"));
        }
        let room = MOST.min(capacity as usize);
        // SAFETY: room for `capacity` events by this function's contract, initialised or not.
        let events = unsafe { std::slice::from_raw_parts_mut(events.cast::<MaybeUninit<Event>>(), room) };
        let timeout = u64::try_from(timeout_ns).ok().map(Duration::from_nanos);
        Ok(poller.wait_into(events, timeout)? as c_int)
    })
}

/// Makes a wait return with an event of kind OMNI_EVENT_WAKE: the one under way, or else the
/// next. Wakes that come before it is returned are counted into one event.
///
/// Returns 0, or:
///   -EINVAL: `poller` is NULL.
///   -EOWNERDEAD, -ESTALE, -ENOTRECOVERABLE: as for `omni_poller_add`.
///
/// May be called from any thread and from a signal handler: it takes no lock, allocates nothing,
/// and leaves errno and `omni_last_error` as they are. System calls: write to an eventfd.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_wake(poller: *mut omni_poller) -> c_int {
    call_quietly(&POLLERS, poller.addr(), Poller::wake)
}

/// Rebuilds an inherited poller in a forked child, with all its registrations; until then every
/// change of it, wait and wake there is -EOWNERDEAD, and a signal that it watches does what it did
/// before it was watched. Registered descriptors that the child has
/// closed are told as OMNI_INVALID by the next wait. Timers go on, and signals are watched; the
/// children, posts and wakes are the parent's, and the child's poller forgets them. The parent's
/// poller is not touched. Does nothing in the process that made the poller.
///
/// Returns 0, or:
///   -EINVAL: `poller` is NULL.
///   -EBUSY: another thread of the parent was changing the poller at the moment of the fork, and
///       nobody can finish that change: free the poller and make a new one.
///   -EMFILE, -ENFILE, -ENOMEM: as for `omni_poller_new`.
///   -ESTALE: the poller was freed.
///   -ENOTRECOVERABLE: a bug in the library has left the poller unusable: free it.
///
/// May be called from any thread. System calls: those of `omni_poller_new` and of `omni_poller_add` for
/// each registration.
#[unsafe(no_mangle)]
pub extern "C" fn omni_poller_after_fork(poller: *mut omni_poller) -> c_int {
    call("omni_poller_after_fork", poller, |poller| {
        poller.after_fork()?;
        Ok(0)
    })
}

fn checked(interest: u32) -> Result<Interest, Failure> {
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
