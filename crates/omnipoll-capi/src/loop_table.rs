//! The loops behind `omni_loop` handles.
//!
//! A loop belongs to the thread that has made it. What any thread may have of it, a [`SharedLoop`], is in
//! the table of handles; the loop itself, an [`OwnedLoop`], is used by its own thread only, and freed by
//! no other: its handler's last calls are made then. A loop of a server's worker gets a handle when a
//! callback first asks for it, and has nothing behind it that could be run or freed.

use std::cell::{Cell, UnsafeCell};
use std::ffi::c_int;
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Once;
use std::time::Duration;

use omnipoll::{process_epoch, Conn, ConnId, EventLoop, LoopHandle, LoopRef, PulledLoop};

use crate::callback_scope::with_loop;
use crate::error::{catch_panic, to_c_result, Failure};
use crate::handle::{call_signal_safe, checked, Table, LOOP, MAX_SLOTS};
use crate::kept_handlers::{Callee, Handlers, LoopCallbacks, Pending};
use crate::poller;
use crate::types::omni_loop;

/// What every thread may have of a loop.
pub(crate) struct SharedLoop {
    /// `None` for a loop of a server's worker.
    own: Option<Own>,
    /// The handle of its poller.
    pub(crate) poller: usize,
}

impl SharedLoop {
    /// What any thread may have a loop of the program's do.
    pub(crate) fn handle(&self) -> Option<&LoopHandle> {
        self.own.as_ref().map(|own| &own.handle)
    }
}

/// A loop that the program has made.
struct Own {
    handle: LoopHandle,
    /// The thread that has made it, as [`this_thread`] counts.
    thread: u64,
    /// The process that has, as [`process_epoch`] does.
    process: u32,
    owned: *const OwnedLoop,
}

// SAFETY: `owned` is followed by the thread that has made it, or by the only thread of a forked child.
unsafe impl Send for SharedLoop {}
// SAFETY: as above.
unsafe impl Sync for SharedLoop {}

/// A loop, as its own thread has it.
pub(crate) struct OwnedLoop {
    handle: Cell<usize>,
    process: u32,
    /// A call uses `face`: what its callbacks call must not.
    busy: Cell<bool>,
    /// It was freed while it was busy.
    freed: Cell<bool>,
    face: UnsafeCell<Face>,
    /// The loop that this thread has made before.
    before: Cell<*const OwnedLoop>,
}

/// A loop of one kind or the other.
pub(crate) enum Face {
    ByHandler(EventLoop<LoopCallbacks>),
    Pulled(PulledLoop),
}

impl Face {
    pub(crate) fn loop_ref(&mut self) -> LoopRef<'_> {
        match self {
            Self::ByHandler(event_loop) => event_loop.loop_ref(),
            Self::Pulled(pulled) => pulled.loop_ref(),
        }
    }

    fn handle(&self) -> LoopHandle {
        match self {
            Self::ByHandler(event_loop) => event_loop.handle(),
            Self::Pulled(pulled) => pulled.handle(),
        }
    }
}

/// What is kept with a loop: the handles of it and its poller, which are stale when it is dropped.
struct Handles {
    event_loop: usize,
    poller: usize,
    handlers: Handlers,
}

impl Drop for Handles {
    fn drop(&mut self) {
        if let Some(entry) = LOOPS.enter(self.event_loop) {
            entry.close();
        }
        poller::close(self.poller);
    }
}

static LOOPS: Table<SharedLoop, LOOP, MAX_SLOTS> = Table::new();

thread_local! {
    /// The loop that this thread has made last; each knows the one before.
    static LAST_LOOP: Cell<*const OwnedLoop> = const { Cell::new(ptr::null()) };
}

/// The number of the calling thread, which no other of this process or its children has.
fn this_thread() -> u64 {
    static THREADS: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static NUMBER: Cell<u64> = const { Cell::new(0) };
    }
    if NUMBER.get() == 0 {
        NUMBER.set(THREADS.fetch_add(1, Ordering::Relaxed));
    }
    NUMBER.get()
}

/// Gives a new loop of this thread's a handle.
pub(crate) fn insert(face: Face) -> Result<*mut omni_loop, Failure> {
    let handle = face.handle();
    let callee = match &face {
        Face::ByHandler(event_loop) => Callee::Handlers(event_loop.handler().listeners.clone()),
        Face::Pulled(_) => Callee::Nobody,
    };
    let owned = Box::into_raw(Box::new(OwnedLoop {
        handle: Cell::new(0),
        process: process_epoch(),
        busy: Cell::new(false),
        freed: Cell::new(false),
        face: UnsafeCell::new(face),
        before: Cell::new(LAST_LOOP.get()),
    }));
    let own = Own { handle, thread: this_thread(), process: process_epoch(), owned };
    // SAFETY: just made, and nobody else has it.
    let this = unsafe { &*owned };
    // SAFETY: as above.
    match insert_shared(&unsafe { &mut *this.face.get() }.loop_ref(), Some(own), callee) {
        Ok(handle) => {
            this.handle.set(handle);
            LAST_LOOP.set(owned);
            Ok(ptr::without_provenance_mut(handle))
        }
        Err(failure) => {
            // SAFETY: as above.
            drop(unsafe { Box::from_raw(owned) });
            Err(failure)
        }
    }
}

/// Makes the handles of a loop and its poller, and keeps them with it.
fn insert_shared(event_loop: &LoopRef<'_>, own: Option<Own>, callee: Callee) -> Result<usize, Failure> {
    static WATCH_FORKS: Once = Once::new();
    extern "C" fn in_child() {
        LOOPS.after_fork();
    }
    WATCH_FORKS.call_once(|| {
        // SAFETY: as in poller.rs.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });

    let poller = poller::insert(event_loop.poller().clone(), true)?.addr();
    let handle = LOOPS.insert(SharedLoop { own, poller }).map_err(|errno| {
        poller::close(poller);
        Failure::full(errno, "the process has 65,536 loops")
    })?;
    let _ = event_loop.binding().set(Box::new(Handles {
        event_loop: handle,
        poller,
        handlers: Handlers::new(callee),
    }));
    Ok(handle)
}

/// The handle of the loop that makes a callback. One of a server's worker is given it now.
pub(crate) fn handle_of(event_loop: &LoopRef<'_>) -> Result<*mut omni_loop, Failure> {
    let handle = match known_handle(event_loop) {
        Some(handle) => handle,
        None => insert_shared(event_loop, None, Callee::Server)?,
    };
    Ok(ptr::without_provenance_mut(handle))
}

/// The handle that a loop has already.
fn known_handle(event_loop: &LoopRef<'_>) -> Option<usize> {
    known(event_loop).map(|handles| handles.event_loop)
}

/// The handlers that were given to a loop with a handle.
pub(crate) fn handlers_of<'a>(event_loop: &LoopRef<'a>) -> Option<&'a Handlers> {
    known(event_loop).map(|handles| &handles.handlers)
}

/// What the connection out was asked for with, once.
pub(crate) fn take_pending(event_loop: &LoopRef<'_>, id: ConnId) -> Pending {
    let pending = handlers_of(event_loop).and_then(|handlers| handlers.take_pending(id));
    pending.unwrap_or(Pending { handler: None, context: ptr::null_mut() })
}

fn known<'a>(event_loop: &LoopRef<'a>) -> Option<&'a Handles> {
    event_loop.binding().get()?.downcast_ref()
}

// ---- Calls -------------------------------------------------------------------------------------

/// Runs a call that any thread may make.
pub(crate) fn call_shared(
    function: &str,
    event_loop: *const omni_loop,
    body: impl FnOnce(&SharedLoop) -> Result<c_int, Failure>,
) -> c_int {
    let entry = checked(event_loop.addr(), LOOPS.enter(event_loop.addr())).map_err(Failure::of);
    to_c_result(function, entry.and_then(|entry| catch_panic(|| body(&entry))))
}

/// Runs a call that needs the whole loop, in its own thread and not in a callback of it.
pub(crate) fn call(
    function: &str,
    event_loop: *const omni_loop,
    body: impl FnOnce(&OwnedLoop, &mut Face) -> Result<c_int, Failure>,
) -> c_int {
    let owned = find(event_loop.addr());
    to_c_result(function, owned.and_then(|owned| use_face(owned, body)))
}

/// Runs a call that callbacks of the loop may make too.
pub(crate) fn call_here(
    function: &str,
    event_loop: *const omni_loop,
    body: impl FnOnce(&mut LoopRef<'_>) -> Result<c_int, Failure>,
) -> c_int {
    let outcome = match checked(event_loop.addr(), LOOPS.enter(event_loop.addr())) {
        Ok(_) => {
            let is_meant = |current: &LoopRef<'_>| known_handle(current) == Some(event_loop.addr());
            with_loop(is_meant, body, |current, body| catch_panic(|| body(current)))
        }
        Err(errno) => Ok(Err(Failure::of(errno))),
    };
    match outcome {
        Ok(outcome) => to_c_result(function, outcome),
        Err(body) => call(function, event_loop, |_, face| body(&mut face.loop_ref())),
    }
}

/// The loop of a handle, if it is this thread's.
fn find(handle: usize) -> Result<*const OwnedLoop, Failure> {
    let entry = checked(handle, LOOPS.enter(handle)).map_err(Failure::of)?;
    let Some(own) = &entry.own else {
        return Err(of_server());
    };
    if own.process != process_epoch() {
        return Err(Failure::new(libc::EOWNERDEAD, "the loop belongs to the parent process"));
    }
    if own.thread != this_thread() {
        return Err(Failure::new(libc::EPERM, "the loop belongs to the thread that has made it"));
    }
    Ok(own.owned)
}

pub(crate) fn of_server() -> Failure {
    Failure::new(libc::EPERM, "the loop is a server's, which runs it, stops it and ends it")
}

fn use_face(
    owned: *const OwnedLoop,
    body: impl FnOnce(&OwnedLoop, &mut Face) -> Result<c_int, Failure>,
) -> Result<c_int, Failure> {
    // SAFETY: found by its handle in its own thread, which drops it only when it is not busy.
    let this = unsafe { &*owned };
    if this.busy.replace(true) {
        return Err(Failure::new(libc::EBUSY, "this is a callback of the loop, which it runs"));
    }
    // SAFETY: `busy` keeps all others from it.
    let outcome = catch_unwind(AssertUnwindSafe(|| body(this, unsafe { &mut *this.face.get() })));
    this.busy.set(false);
    if let (Err(_), Some(entry)) = (&outcome, LOOPS.enter(this.handle.get())) {
        entry.poison();
    }
    if this.freed.get() {
        end(owned);
        return Err(Failure::of(libc::ESTALE));
    }
    outcome.unwrap_or_else(|panic| Err(Failure::panicked(panic)))
}

/// What `body` makes of a connection of one of this thread's loops, unless a call uses that loop.
#[inline]
pub(crate) fn with_conn<T>(id: ConnId, body: impl FnOnce(&mut Conn<'_>) -> T) -> Option<T> {
    let mut next = LAST_LOOP.get();
    // SAFETY: this thread's, and removed from here before it is dropped.
    while let Some(owned) = unsafe { next.as_ref() } {
        next = owned.before.get();
        if owned.busy.get() || owned.process != process_epoch() {
            continue;
        }
        // SAFETY: nobody uses it, and `body` makes no callback.
        let face = unsafe { &mut *owned.face.get() };
        if let Some(mut conn) = face.loop_ref().find(id) {
            return Some(body(&mut conn));
        }
    }
    None
}

/// Stops a loop of the program's. A signal handler may call it.
pub(crate) fn stop(event_loop: *const omni_loop, drain_ns: i64) -> c_int {
    let drain = u64::try_from(drain_ns).ok().map(Duration::from_nanos);
    call_signal_safe(&LOOPS, event_loop.addr(), |shared| match &shared.own {
        Some(own) => own.handle.stop(drain),
        None => Err(io::Error::from_raw_os_error(libc::EPERM)),
    })
}

// ---- Its end -----------------------------------------------------------------------------------

/// Ends a loop of the program's: now, or when the call that uses it returns.
pub(crate) fn free(handle: usize) -> Result<(), Failure> {
    let entry = LOOPS.enter(handle).ok_or_else(|| Failure::of(libc::ESTALE))?;
    let Some(own) = &entry.own else {
        return Err(Failure::new(libc::EPERM, "the loop is a server's, which ends it"));
    };
    let (is_here, is_inherited) = (own.thread == this_thread(), own.process != process_epoch());
    if !is_here && !is_inherited {
        return Err(Failure::new(libc::EPERM, "the loop belongs to the thread that has made it"));
    }
    let owned = own.owned;
    // SAFETY: this thread's, or a copy that a forked child has, whose only thread this is.
    let this = unsafe { &*owned };
    if !entry.close() {
        return Err(Failure::of(libc::ESTALE));
    }
    if !this.busy.get() {
        drop(entry);
        end(owned);
    } else if is_here {
        this.freed.set(true);
        let _ = own.handle.stop(Some(Duration::ZERO));
    }
    // Else the thread that was using it at the fork is not in the child, and has left it as it was.
    Ok(())
}

/// Drops a loop that no call uses, and whose handle is stale.
fn end(owned: *const OwnedLoop) {
    forget(owned);
    // SAFETY: from `Box::into_raw` in `insert`; nothing leads to it any more.
    let owned = unsafe { Box::from_raw(owned.cast_mut()) };
    // It makes the last callbacks.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(owned)));
}

/// Takes a loop from those of this thread, where it is unless this is a child that another thread has
/// forked.
fn forget(owned: *const OwnedLoop) {
    // SAFETY: as in `with_conn`.
    let before = unsafe { (*owned).before.get() };
    let mut next = LAST_LOOP.get();
    if next == owned {
        return LAST_LOOP.set(before);
    }
    // SAFETY: as in `with_conn`.
    while let Some(later) = unsafe { next.as_ref() } {
        next = later.before.get();
        if next == owned {
            return later.before.set(before);
        }
    }
}
