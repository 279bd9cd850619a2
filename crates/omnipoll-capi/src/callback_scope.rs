//! What this thread is lent: the connection or loop whose callback it is in.
//!
//! In a callback the id of any connection of the same loop leads straight to it.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;

use omnipoll::{Conn, ConnId, LoopRef};

/// Lent to a callback for as long as it runs.
#[derive(Clone, Copy)]
enum Current {
    Conn { id: u64, conn: *mut Conn<'static> },
    Loop(*mut LoopRef<'static>),
    Failed { failed: *const Failed, event_loop: *mut LoopRef<'static> },
}

/// A connection out that never opened, and whose `on_close` is called.
#[derive(Clone, Copy)]
pub(crate) struct Failed {
    pub(crate) id: u64,
    pub(crate) token: u64,
    pub(crate) context: *mut c_void,
}

thread_local! {
    /// Null outside of callbacks.
    static CURRENT: Cell<*const Current> = const { Cell::new(ptr::null()) };
}

/// Runs a connection's callback. For so long its id leads to `conn`, and other ids to others of its loop.
pub(crate) fn enter<T>(conn: &mut Conn<'_>, callback: impl FnOnce(u64) -> T) -> T {
    let id = conn.id().number();
    // The lifetime ends before this function does, which takes the pointer away again.
    within(Current::Conn { id, conn: ptr::from_mut(conn).cast() }, || callback(id))
}

/// The same for a callback that is of the loop itself.
pub(crate) fn enter_loop<T>(event_loop: &mut LoopRef<'_>, callback: impl FnOnce() -> T) -> T {
    within(Current::Loop(ptr::from_mut(event_loop).cast()), callback)
}

/// The same for the last callback of a connection that never opened.
pub(crate) fn enter_failed<T>(
    event_loop: &mut LoopRef<'_>,
    failed: &Failed,
    callback: impl FnOnce(u64) -> T,
) -> T {
    let event_loop = ptr::from_mut(event_loop).cast();
    within(Current::Failed { failed, event_loop }, || callback(failed.id))
}

/// What there is of the connection, if this is the callback that says that it never opened.
pub(crate) fn failed(id: u64) -> Option<Failed> {
    match current()? {
        // SAFETY: `enter_failed` has borrowed it until the callback returns.
        Current::Failed { failed, .. } => Some(unsafe { *failed }).filter(|failed| failed.id == id),
        _ => None,
    }
}

fn within<T>(current: Current, callback: impl FnOnce() -> T) -> T {
    // A callback may run another loop, in whose callbacks this one's connections are not at hand.
    CURRENT.with(|lent| {
        let outer = lent.replace(&current);
        let result = callback();
        lent.set(outer);
        result
    })
}

#[inline]
fn current() -> Option<Current> {
    // SAFETY: null, or on the stack of `within`, which takes it away again before it returns.
    unsafe { CURRENT.get().as_ref() }.copied()
}

/// What `body` makes of the connection whose callback this is, or `body` again if that has another id.
#[inline]
pub(crate) fn with_own_conn<T, B: FnOnce(&mut Conn<'_>) -> T>(id: u64, body: B) -> Result<T, B> {
    match current() {
        // SAFETY: as in `lent`.
        Some(Current::Conn { id: own, conn }) if own == id => Ok(body(unsafe { &mut *conn })),
        _ => Err(body),
    }
}

/// What `body` makes of any connection of the loop whose callback this is, or `body` again if that has none
/// of the id.
pub(crate) fn with_other_conn<T, B: FnOnce(&mut Conn<'_>) -> T>(id: u64, body: B) -> Result<T, B> {
    let Some(current) = current() else { return Err(body) };
    // SAFETY: used before anything else is lent.
    match unsafe { lent(current) }.find(ConnId::from_number(id)) {
        Some(mut conn) => Ok(body(&mut conn)),
        None => Err(body),
    }
}

/// What `body` makes of the loop whose callback this is.
pub(crate) fn with_current_loop<T>(body: impl FnOnce(&mut LoopRef<'_>) -> T) -> Option<T> {
    let current = current()?;
    // SAFETY: as in `with_other_conn`.
    Some(body(&mut unsafe { lent(current) }))
}

/// What `call` makes of the loop with `body`, or `body` again if this is no callback of the loop that is
/// meant.
pub(crate) fn with_loop<B, T>(
    is_meant: impl FnOnce(&LoopRef<'_>) -> bool,
    body: B,
    call: impl FnOnce(&mut LoopRef<'_>, B) -> T,
) -> Result<T, B> {
    let Some(current) = current() else { return Err(body) };
    // SAFETY: as in `with_other_conn`.
    let mut event_loop = unsafe { lent(current) };
    if is_meant(&event_loop) {
        Ok(call(&mut event_loop, body))
    } else {
        Err(body)
    }
}

/// The loop whose callback this is.
///
/// # Safety
/// Nothing else is lent while it is used.
unsafe fn lent<'a>(current: Current) -> LoopRef<'a> {
    // SAFETY: `within` has borrowed either from its caller until the callback returns, into which this
    // thread has called us; and the core makes no callback out of what is done with it.
    unsafe {
        match current {
            Current::Conn { conn, .. } => (*conn).event_loop(),
            Current::Loop(event_loop) | Current::Failed { event_loop, .. } => (*event_loop).reborrow(),
        }
    }
}
