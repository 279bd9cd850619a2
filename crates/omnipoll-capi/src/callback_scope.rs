//! The connection whose callback this thread is in, and what its handle stands for.
//!
//! In a callback of that connection its id leads straight to it; anywhere else the connection's loop
//! is asked.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;

use omnipoll::Conn;

/// Lent to a callback for as long as it runs.
#[derive(Clone, Copy)]
struct Current {
    id: u64,
    conn: *mut Conn<'static>,
    context: *mut *mut c_void,
}

thread_local! {
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };
}

/// Runs a connection's callback. For so long its id leads to `conn` and `context`.
pub(crate) fn enter<T>(conn: &mut Conn<'_>, context: &mut *mut c_void, callback: impl FnOnce(u64) -> T) -> T {
    let id = conn.id().number();
    // The lifetime ends before this function does, which takes the pointer away again.
    let conn = ptr::from_mut(conn).cast();
    // A callback may run another server, in whose callbacks this one's connection is not at hand.
    let outer = CURRENT.replace(Some(Current { id, conn, context }));
    let result = callback(id);
    CURRENT.set(outer);
    result
}

/// What `body` makes of the connection, if this is a callback of it.
pub(crate) fn with<T>(id: u64, body: impl FnOnce(&mut Conn<'_>, &mut *mut c_void) -> T) -> Option<T> {
    let current = CURRENT.get().filter(|current| current.id == id)?;
    // SAFETY: `enter` has borrowed both from its caller until the callback returns, into which
    // this thread has called us; and the core makes no callback out of `body`.
    Some(unsafe { body(&mut *current.conn, &mut *current.context) })
}
