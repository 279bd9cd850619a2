//! The callback in progress on this thread, for the Python objects that stand for its connections and
//! for its loop.

use std::cell::Cell;
use std::ptr::NonNull;

use omnipoll::{Conn, ConnId, LoopRef};

/// What a callback may act on, and the loop or server that makes it.
#[derive(Clone, Copy)]
struct Callback {
    target: Target,
    owner: *const (),
}

#[derive(Clone, Copy)]
enum Target {
    Connection(NonNull<Conn<'static>>),
    Loop(NonNull<LoopRef<'static>>),
}

thread_local! {
    static CURRENT: Cell<Option<Callback>> = const { Cell::new(None) };
}

/// Makes a call on behalf of a connection. `owner` stands for what makes it, a Loop or a server.
#[inline]
pub(crate) fn with_connection<R>(conn: &mut Conn<'_>, owner: *const (), call: impl FnOnce() -> R) -> R {
    let target = Target::Connection(NonNull::from(conn).cast());
    let _current = Replaced::by(Some(Callback { target, owner }));
    call()
}

/// Makes a call on behalf of a loop.
pub(crate) fn with_loop<R>(event_loop: &mut LoopRef<'_>, owner: *const (), call: impl FnOnce() -> R) -> R {
    let target = Target::Loop(NonNull::from(event_loop).cast());
    let _current = Replaced::by(Some(Callback { target, owner }));
    call()
}

/// Acts on a connection of the loop that makes the callback in progress. `None` outside of callbacks, and
/// for any other connection.
#[inline]
pub(crate) fn connection<R>(id: ConnId, act: impl FnOnce(&mut Conn<'_>) -> R) -> Option<R> {
    // Nobody else gets it meanwhile.
    let current = Replaced::by(None);
    match current.0?.target {
        Target::Connection(mut conn) => {
            // SAFETY: the exclusive reference was handed over until the callback returns, and is used here
            // alone. What `act` gets ends with it.
            let conn = unsafe { conn.as_mut() };
            if conn.id() == id {
                return Some(act(conn));
            }
            conn.other(id).ok().map(|mut other| act(&mut other))
        }
        Target::Loop(mut event_loop) => {
            // SAFETY: as above.
            unsafe { event_loop.as_mut() }.conn(id).ok().map(|mut conn| act(&mut conn))
        }
    }
}

/// What makes the callback in progress.
pub(crate) fn owner() -> Option<*const ()> {
    CURRENT.get().map(|callback| callback.owner)
}

/// Acts on the loop that makes the callback in progress. `None` outside of callbacks, and in another
/// owner's.
pub(crate) fn event_loop<R>(owner: *const (), act: impl FnOnce(&mut LoopRef<'_>) -> R) -> Option<R> {
    let current = Replaced::by(None);
    match current.0.filter(|callback| callback.owner == owner)?.target {
        // SAFETY: as in `connection`.
        Target::Connection(mut conn) => Some(act(&mut unsafe { conn.as_mut() }.event_loop())),
        // SAFETY: as in `connection`.
        Target::Loop(mut event_loop) => Some(act(unsafe { event_loop.as_mut() })),
    }
}

/// What was current before, and is again when this is dropped.
struct Replaced(Option<Callback>);

impl Replaced {
    #[inline]
    fn by(next: Option<Callback>) -> Self {
        Self(CURRENT.replace(next))
    }
}

impl Drop for Replaced {
    #[inline]
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}
